"""What backward compatibility is: scores, error overlap, comparison, lambda_c, sweeps. No framework."""

from bc_core._version import __version__ as __version__
from bc_core.comparison._compare import compare, compare_right
from bc_core.comparison._comparison import ClassFlips, Comparison
from bc_core.comparison._error_instances import ErrorInstances
from bc_core.comparison._evaluation import Evaluation
from bc_core.counting._intervals import clopper_pearson_interval, wilson_interval
from bc_core.counting._noise import NoiseFloor, noise_floor
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._paired import (
    MarginTest,
    equivalence_test,
    mcnemar_test,
    non_inferiority_test,
    paired_bootstrap,
    paired_difference_interval,
)
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
from bc_core.counting._several import benjamini_hochberg, holm
from bc_core.counting._weighted import WeightedShare, weighted_share
from bc_core.files._files import FullDiskError
from bc_core.gate._assertion import assert_compatible
from bc_core.gate._partitions import SlicedOverlap, overlap_of_partition
from bc_core.losses._recommended import Recommendation, recommend
from bc_core.losses._schedules import LinearLambda, check_lambda
from bc_core.predicting._adapter import Adapter, ModelSettings, Predictor
from bc_core.predicting._run import Predicted, predict
from bc_core.promise._grammar import Promise
from bc_core.promise._threshold import ThresholdCurve, threshold_curve
from bc_core.promise._verdict import PromiseVerdict, judge
from bc_core.reference._class_map import ClassMap
from bc_core.sweep._choice import Choice
from bc_core.sweep._folder import Failure
from bc_core.sweep._points import Point as SweepPoint
from bc_core.sweep._points import linear_lambdas, log_lambdas
from bc_core.sweep._results import SweepResults
from bc_core.sweep._running import Sweep, SweepFailedError
from bc_core.sweep._trackers import Tracker

__all__ = [
    "SCORES",
    "Adapter",
    "Choice",
    "ClassFlips",
    "ClassMap",
    "Comparison",
    "ErrorInstances",
    "ErrorOverlap",
    "Evaluation",
    "Failure",
    "FullDiskError",
    "LinearLambda",
    "MarginTest",
    "ModelSettings",
    "NoiseFloor",
    "Predicted",
    "Predictor",
    "Promise",
    "PromiseVerdict",
    "Recommendation",
    "Score",
    "SlicedOverlap",
    "Sweep",
    "SweepFailedError",
    "SweepPoint",
    "SweepResults",
    "ThresholdCurve",
    "Tracker",
    "WeightedShare",
    "assert_compatible",
    "benjamini_hochberg",
    "check_lambda",
    "clopper_pearson_interval",
    "compare",
    "compare_right",
    "equivalence_test",
    "error_compatibility_score",
    "holm",
    "judge",
    "linear_lambdas",
    "log_lambdas",
    "mcnemar_test",
    "negative_flip_impact",
    "negative_flip_rate",
    "noise_floor",
    "non_inferiority_test",
    "overlap_of_partition",
    "paired_bootstrap",
    "paired_difference_interval",
    "positive_flip_rate",
    "predict",
    "recommend",
    "score_from_counts",
    "threshold_curve",
    "trust_compatibility_score",
    "weighted_share",
    "wilson_interval",
]
