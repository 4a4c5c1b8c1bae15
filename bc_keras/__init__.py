"""Train a compatible update in Keras: losses, `BCModel`, metrics, callbacks, stored outputs of h1."""

from bc_core._extras import need
from bc_core._version import __version__ as __version__

need("keras", "bc_keras", "keras")

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("jax", "tensorflow", "torch"):
        raise
    raise ModuleNotFoundError(
        f"Keras is set to run on {error.name}, which is not installed: pip install {error.name}, or set KERAS_BACKEND "
        "in the environment to what is there: tensorflow, jax or torch.",
        name=error.name,
    ) from error

from bc_core import LinearLambda
from bc_keras import new_error, strict_imitation
from bc_keras.after_training._blend import blend, blended_model, distil
from bc_keras.after_training._interpolate import interpolate
from bc_keras.after_training._mean_weights import MeanWeights
from bc_keras.after_training._projection import ProjectionCallback
from bc_keras.evaluation._evaluate import evaluate
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._losses import (
    BCBinaryCrossEntropyLoss,
    BCCrossEntropyLoss,
    BCKLDivergenceLoss,
    BCKLDivLoss,
    BCNLLLoss,
    BCStrictImitationBinaryCrossEntropyLoss,
    BCStrictImitationCrossEntropyLoss,
    BCStrictImitationKLDivLoss,
    BCStrictImitationNLLLoss,
    StrictImitationBinaryCrossEntropyLoss,
    StrictImitationCrossEntropyLoss,
    StrictImitationKLDivergenceLoss,
    StrictImitationNLLLoss,
)
from bc_keras.metrics import (
    BEC,
    BTC,
    BackwardErrorCompatibility,
    BackwardTrustCompatibility,
    ErrorOverlapMetric,
    NegativeFlipImpact,
    NegativeFlipRate,
    PositiveFlipRate,
)
from bc_keras.notebook._analysis import CompatibilityAnalysis, SweepManager
from bc_keras.notebook._notebook import ModelComparison
from bc_keras.reference._attach import attach_h1
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs, store_outputs
from bc_keras.sweep._sweep import sweep
from bc_keras.training._callback import CompatibilityCallback
from bc_keras.training._frozen_check import FrozenH1Check
from bc_keras.training._lambda_scheduler import LambdaScheduler
from bc_keras.training._made_class import unwrap
from bc_keras.training._model import BCModel
from bc_keras.training._original import BCNewErrorCompatibilityModel, bc_fit
from bc_keras.training._warm_start import warm_start
from bc_keras.training.compiled._plain_models import OnTarget, TargetLoss

__all__ = [
    "BEC",
    "BTC",
    "BCBinaryCrossEntropyLoss",
    "BCCrossEntropyLoss",
    "BCKLDivLoss",
    "BCKLDivergenceLoss",
    "BCModel",
    "BCNLLLoss",
    "BCNewErrorCompatibilityModel",
    "BCStrictImitationBinaryCrossEntropyLoss",
    "BCStrictImitationCrossEntropyLoss",
    "BCStrictImitationKLDivLoss",
    "BCStrictImitationNLLLoss",
    "BackwardErrorCompatibility",
    "BackwardTrustCompatibility",
    "CompatibilityAnalysis",
    "CompatibilityCallback",
    "CompatibilityLoss",
    "ErrorOverlapMetric",
    "FrozenH1Check",
    "LambdaScheduler",
    "LinearLambda",
    "MeanWeights",
    "ModelComparison",
    "NegativeFlipImpact",
    "NegativeFlipRate",
    "OnTarget",
    "PositiveFlipRate",
    "ProjectionCallback",
    "Reference",
    "StoredOutputs",
    "StrictImitationBinaryCrossEntropyLoss",
    "StrictImitationCrossEntropyLoss",
    "StrictImitationKLDivergenceLoss",
    "StrictImitationNLLLoss",
    "SweepManager",
    "TargetLoss",
    "attach_h1",
    "bc_fit",
    "blend",
    "blended_model",
    "distil",
    "evaluate",
    "interpolate",
    "new_error",
    "store_outputs",
    "strict_imitation",
    "sweep",
    "unwrap",
    "warm_start",
]
