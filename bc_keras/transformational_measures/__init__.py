"""The names of transformational-measures-tf, for code that was written for it; `bc_keras.invariance` computes."""

from bc_keras.transformational_measures._analyzer import Analyzer
from bc_keras.transformational_measures._data_sets import DataSet, TransformationsDataSet
from bc_keras.transformational_measures._graphs import Graphs
from bc_keras.transformational_measures._images import Cifar10TransformationsDataSet, MnistTransformationsDataSet
from bc_keras.transformational_measures._iterator import Iterator
from bc_keras.transformational_measures._measures import (
    Computed,
    FeaturesVariance,
    Metric,
    NormalizedFeaturesVariance,
    NormalizedSameEquivariance,
    NormalizedVariance,
    SameEquivariance,
    Variance,
)
from bc_keras.transformational_measures._model import Model
from bc_keras.transformational_measures._structure import Block, LayerStructure, ModelStructure
from bc_keras.transformational_measures._transformations import GROUPS, AffineTransformation, Transformation

MnistDataSet = MnistTransformationsDataSet

__all__ = [
    "GROUPS",
    "AffineTransformation",
    "Analyzer",
    "Block",
    "Cifar10TransformationsDataSet",
    "Computed",
    "DataSet",
    "FeaturesVariance",
    "Graphs",
    "Iterator",
    "LayerStructure",
    "Metric",
    "MnistDataSet",
    "MnistTransformationsDataSet",
    "Model",
    "ModelStructure",
    "NormalizedFeaturesVariance",
    "NormalizedSameEquivariance",
    "NormalizedVariance",
    "SameEquivariance",
    "Transformation",
    "TransformationsDataSet",
    "Variance",
]
