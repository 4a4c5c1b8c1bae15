"""Transformational measures of PyTorch networks: how much activations move when inputs are transformed."""

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
from bc_lightning.invariance._callback import InvarianceCallback
from bc_lightning.invariance._compare import compare_invariance
from bc_lightning.invariance._measure import measure
from bc_lightning.invariance._torch_arrays import TorchBackend, TorchSpatial

__all__ = [
    "Anova",
    "Distance",
    "FeaturesVariance",
    "Goodfellow",
    "InvarianceCallback",
    "InvarianceResult",
    "InvarianceUpdate",
    "LayerMeasures",
    "MeasureValues",
    "NormalizedDistance",
    "NormalizedFeaturesVariance",
    "NormalizedSameEquivariance",
    "NormalizedSameEquivarianceDistance",
    "NormalizedVariance",
    "SameEquivariance",
    "SameEquivarianceDistance",
    "TorchBackend",
    "TorchSpatial",
    "Transform",
    "TransformSet",
    "TransformationDistance",
    "Variance",
    "compare_invariance",
    "measure",
]
