"""Metrics of backward compatibility that follow torchmetrics: `metric(preds, target, reference_preds)`."""

from bc_lightning.metrics._overlap import ErrorOverlapMetric, IncompatibilityByClass
from bc_lightning.metrics._scores import (
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
    "IncompatibilityByClass",
    "NegativeFlipImpact",
    "NegativeFlipRate",
    "PositiveFlipRate",
]

# Whatever score `bc_core.SCORES` has besides.
globals().update(SCORE_METRICS)
__all__ += [name for name in SCORE_METRICS if name not in __all__]
