"""Train a compatible update in Keras: losses, `BCModel`, metrics, callbacks, stored outputs of h1."""

from bc_core import LinearLambda
from bc_keras import new_error, strict_imitation
from bc_keras._analysis import CompatibilityAnalysis, SweepManager
from bc_keras._attached import attach_h1
from bc_keras._callbacks import CompatibilityCallback
from bc_keras._compatibility_loss import CompatibilityLoss
from bc_keras._evaluate import evaluate
from bc_keras._frozen_check import FrozenH1Check
from bc_keras._lambda_scheduler import LambdaScheduler
from bc_keras._losses import (
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
from bc_keras._metrics import (
    BEC,
    BTC,
    BackwardErrorCompatibility,
    BackwardTrustCompatibility,
    ErrorOverlapMetric,
    NegativeFlipImpact,
    NegativeFlipRate,
    PositiveFlipRate,
)
from bc_keras._model import BCModel, unwrap
from bc_keras._notebook import ModelComparison
from bc_keras._original import BCNewErrorCompatibilityModel, bc_fit
from bc_keras._plain_models import OnTarget, TargetLoss
from bc_keras._reference import Reference
from bc_keras._stored import StoredOutputs, store_outputs
from bc_keras._sweep import sweep

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
    "ModelComparison",
    "NegativeFlipImpact",
    "NegativeFlipRate",
    "OnTarget",
    "PositiveFlipRate",
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
    "evaluate",
    "new_error",
    "store_outputs",
    "strict_imitation",
    "sweep",
    "unwrap",
]
