"""Compatibility scores as Keras metrics."""

from bc_keras.metrics._overlap import ErrorOverlapMetric
from bc_keras.metrics._scores import (
    BEC,
    BTC,
    SCORE_METRICS,
    BackwardErrorCompatibility,
    BackwardTrustCompatibility,
    NegativeFlipImpact,
    NegativeFlipRate,
    PositiveFlipRate,
)

__all__ = [
    "BEC",
    "BTC",
    "BackwardErrorCompatibility",
    "BackwardTrustCompatibility",
    "ErrorOverlapMetric",
    "NegativeFlipImpact",
    "NegativeFlipRate",
    "PositiveFlipRate",
]

# Whatever score `bc_core.SCORES` has besides.
globals().update(SCORE_METRICS)
__all__ += [name for name in SCORE_METRICS if name not in __all__]
