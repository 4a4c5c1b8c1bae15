"""Transformational measures of Keras models: how much activations move when inputs are transformed."""

from bc_core.invariance import (
    Anova,
    Distance,
    FeaturesVariance,
    Goodfellow,
    InvarianceResult,
    InvarianceUpdate,
    LayerMeasures,
    MeasureValues,
    NormalizedDistance,
    NormalizedFeaturesVariance,
    NormalizedSameEquivariance,
    NormalizedSameEquivarianceDistance,
    NormalizedVariance,
    SameEquivariance,
    SameEquivarianceDistance,
    Transform,
    TransformSet,
    Variance,
)
from bc_core.invariance import Distance as TransformationDistance
from bc_keras.invariance._callback import InvarianceCallback
from bc_keras.invariance._compare import compare_invariance
from bc_keras.invariance._keras_arrays import KerasBackend, KerasSpatial
from bc_keras.invariance._measure import LayerMoments, gather, measure

__all__ = [
    "Anova",
    "Distance",
    "FeaturesVariance",
    "Goodfellow",
    "InvarianceCallback",
    "InvarianceResult",
    "InvarianceUpdate",
    "KerasBackend",
    "KerasSpatial",
    "LayerMeasures",
    "LayerMoments",
    "MeasureValues",
    "NormalizedDistance",
    "NormalizedFeaturesVariance",
    "NormalizedSameEquivariance",
    "NormalizedSameEquivarianceDistance",
    "NormalizedVariance",
    "SameEquivariance",
    "SameEquivarianceDistance",
    "Transform",
    "TransformSet",
    "TransformationDistance",
    "Variance",
    "compare_invariance",
    "gather",
    "measure",
]
