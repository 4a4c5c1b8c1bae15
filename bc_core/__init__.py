"""What backward compatibility is: scores, error overlap, comparison, lambda_c, sweeps. No framework."""

from bc_core.comparison._compare import compare
from bc_core.comparison._comparison import ClassFlips, Comparison
from bc_core.comparison._error_instances import ErrorInstances
from bc_core.comparison._evaluation import Evaluation
from bc_core.counting._intervals import clopper_pearson_interval, paired_difference_interval, wilson_interval
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import (
    SCORES,
    Score,
    error_compatibility_score,
    negative_flip_impact,
    negative_flip_rate,
    positive_flip_rate,
    score_from_counts,
    trust_compatibility_score,
)
from bc_core.files._files import FullDiskError
from bc_core.losses._recommended import Recommendation, recommend
from bc_core.losses._schedules import LinearLambda, check_lambda
from bc_core.sweep._choice import Choice
from bc_core.sweep._folder import Failure
from bc_core.sweep._points import Point as SweepPoint
from bc_core.sweep._points import linear_lambdas, log_lambdas
from bc_core.sweep._results import SweepResults
from bc_core.sweep._running import Sweep, SweepFailedError
from bc_core.sweep._trackers import Tracker

__all__ = [
    "SCORES",
    "Choice",
    "ClassFlips",
    "Comparison",
    "ErrorInstances",
    "ErrorOverlap",
    "Evaluation",
    "Failure",
    "FullDiskError",
    "LinearLambda",
    "Recommendation",
    "Score",
    "Sweep",
    "SweepFailedError",
    "SweepPoint",
    "SweepResults",
    "Tracker",
    "check_lambda",
    "clopper_pearson_interval",
    "compare",
    "error_compatibility_score",
    "linear_lambdas",
    "log_lambdas",
    "negative_flip_impact",
    "negative_flip_rate",
    "paired_difference_interval",
    "positive_flip_rate",
    "recommend",
    "score_from_counts",
    "trust_compatibility_score",
    "wilson_interval",
]
