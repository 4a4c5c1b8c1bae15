"""Compatibility as pure functions of tensors: the training loss, the error overlap, the scores read from it."""

from bc_lightning.functional._overlap import error_overlap, overlap_counts
from bc_lightning.functional._scores import (
    SCORE_FUNCTIONS,
    backward_error_compatibility,
    backward_trust_compatibility,
    incompatibility_by_class,
    negative_flip_impact,
    negative_flip_rate,
    positive_flip_rate,
    score_from_counts,
)
from bc_lightning.losses._instance_terms import LossTerms, compatibility_loss, loss_terms

__all__ = [
    "LossTerms",
    "backward_error_compatibility",
    "backward_trust_compatibility",
    "compatibility_loss",
    "error_overlap",
    "incompatibility_by_class",
    "loss_terms",
    "negative_flip_impact",
    "negative_flip_rate",
    "overlap_counts",
    "positive_flip_rate",
    "score_from_counts",
]

# Whatever score `bc_core.SCORES` has besides.
globals().update(SCORE_FUNCTIONS)
__all__ += [name for name in SCORE_FUNCTIONS if name not in __all__]
