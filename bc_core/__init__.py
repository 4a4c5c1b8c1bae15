"""What backward compatibility is: scores, error overlap, comparison, lambda_c. Numpy only, no framework."""

from bc_core._comparison import ClassFlips, Comparison, ErrorInstances, compare
from bc_core._intervals import clopper_pearson_interval, paired_difference_interval, wilson_interval
from bc_core._overlap import ErrorOverlap
from bc_core._schedules import LinearLambda, check_lambda
from bc_core._scores import (
    SCORES,
    Score,
    error_compatibility_score,
    negative_flip_impact,
    negative_flip_rate,
    positive_flip_rate,
    score_from_counts,
    trust_compatibility_score,
)

__all__ = [
    "SCORES",
    "ClassFlips",
    "Comparison",
    "ErrorInstances",
    "ErrorOverlap",
    "LinearLambda",
    "Score",
    "check_lambda",
    "clopper_pearson_interval",
    "compare",
    "error_compatibility_score",
    "negative_flip_impact",
    "negative_flip_rate",
    "paired_difference_interval",
    "positive_flip_rate",
    "score_from_counts",
    "trust_compatibility_score",
    "wilson_interval",
]
