"""The names of transformational-measures-tf, for code that was written for it; `bc_keras.invariance` computes."""

from bc_keras.transformational_measures._analyzer import Analysis, Analyzer
from bc_keras.transformational_measures._data_sets import (
    GROUPS,
    Cifar10DataSet,
    DataSet,
    MnistDataSet,
    TransformationsDataSet,
    cifar10_transformations,
    mnist_transformations,
)
from bc_keras.transformational_measures._graphs import Graphs
from bc_keras.transformational_measures._iterator import Iterator
from bc_keras.transformational_measures._measures import (
    FeaturesVariance,
    LayerValues,
    NormalizedFeaturesVariance,
    NormalizedSameEquivariance,
    NormalizedVariance,
    SameEquivariance,
    Variance,
)
from bc_keras.transformational_measures._model import Block, LayerStructure, Model, ModelStructure

__all__ = [
    "GROUPS",
    "Analysis",
    "Analyzer",
    "Block",
    "Cifar10DataSet",
    "DataSet",
    "FeaturesVariance",
    "Graphs",
    "Iterator",
    "LayerStructure",
    "LayerValues",
    "MnistDataSet",
    "Model",
    "ModelStructure",
    "NormalizedFeaturesVariance",
    "NormalizedSameEquivariance",
    "NormalizedVariance",
    "SameEquivariance",
    "TransformationsDataSet",
    "Variance",
    "cifar10_transformations",
    "mnist_transformations",
]
