"""Transformational measures: how much a network's activations move when its inputs are transformed. No framework."""

from bc_core.invariance._accumulator import (
    Moments,
    NumpyBackend,
    StreamingMoments,
    TileBackend,
    TileSums,
    accumulator_bytes,
)
from bc_core.invariance._firing import FiringBackend, NumpyFiring
from bc_core.invariance._layer_measures import LayerMeasures
from bc_core.invariance._measures import (
    Anova,
    Distance,
    FeaturesVariance,
    Goodfellow,
    MeasureValues,
    NormalizedDistance,
    NormalizedFeaturesVariance,
    NormalizedSameEquivariance,
    NormalizedSameEquivarianceDistance,
    NormalizedVariance,
    SameEquivariance,
    SameEquivarianceDistance,
    Variance,
)
from bc_core.invariance._probes import Interval, PairedInterval, Probes
from bc_core.invariance._resampling import NumpySpatial, SpatialOps
from bc_core.invariance._result import InvarianceResult
from bc_core.invariance._transform import Transform, apply_transform, invert_tile, make_tile
from bc_core.invariance._transform_set import TransformSet
from bc_core.invariance._update import InvarianceUpdate, compare_predictions, depth_intervals

__all__ = [
    "Anova",
    "Distance",
    "FeaturesVariance",
    "FiringBackend",
    "Goodfellow",
    "Interval",
    "InvarianceResult",
    "InvarianceUpdate",
    "LayerMeasures",
    "MeasureValues",
    "Moments",
    "NormalizedDistance",
    "NormalizedFeaturesVariance",
    "NormalizedSameEquivariance",
    "NormalizedSameEquivarianceDistance",
    "NormalizedVariance",
    "NumpyBackend",
    "NumpyFiring",
    "NumpySpatial",
    "PairedInterval",
    "Probes",
    "SameEquivariance",
    "SameEquivarianceDistance",
    "SpatialOps",
    "StreamingMoments",
    "TileBackend",
    "TileSums",
    "Transform",
    "TransformSet",
    "Variance",
    "accumulator_bytes",
    "apply_transform",
    "compare_predictions",
    "depth_intervals",
    "invert_tile",
    "make_tile",
]
