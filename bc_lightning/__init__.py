"""Train a compatible update in PyTorch Lightning: losses, `BCLightningModule`, metrics, stored outputs of h1."""

from bc_core._extras import need
from bc_core._version import __version__ as __version__

need("lightning", "bc_lightning", "torch", "torchmetrics")

from bc_core import LinearLambda
from bc_lightning import functional, metrics, new_error, strict_imitation
from bc_lightning.after_training._blend import blend, distil
from bc_lightning.after_training._blended_model import blended_model
from bc_lightning.after_training._interpolate import interpolate
from bc_lightning.after_training._mean_weights import MeanWeights
from bc_lightning.after_training._projection import ProjectionCallback
from bc_lightning.evaluation._evaluate import evaluate
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.losses._losses import (
    BCBinaryCrossEntropyLoss,
    BCCrossEntropyLoss,
    BCKLDivergenceLoss,
    BCNLLLoss,
    StrictImitationBinaryCrossEntropyLoss,
    StrictImitationCrossEntropyLoss,
    StrictImitationKLDivergenceLoss,
    StrictImitationNLLLoss,
)
from bc_lightning.metrics import (
    BEC,
    BTC,
    BackwardErrorCompatibility,
    BackwardTrustCompatibility,
    ErrorOverlapMetric,
    IncompatibilityByClass,
    NegativeFlipImpact,
    NegativeFlipRate,
    PositiveFlipRate,
)
from bc_lightning.notebook._analysis import CompatibilityAnalysis, SweepManager
from bc_lightning.notebook._notebook import ModelComparison
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._stored import StoredOutputs, store_outputs
from bc_lightning.sweep._sweep import sweep
from bc_lightning.training._callback import CompatibilityCallback
from bc_lightning.training._checkpoint import load_h1
from bc_lightning.training._module import BCLightningModule, unwrap
from bc_lightning.training._warm_start import warm_start
from bc_lightning.training.comparisons._comparisons import LogComparisons

__all__ = [
    "BEC",
    "BTC",
    "BCBinaryCrossEntropyLoss",
    "BCCrossEntropyLoss",
    "BCKLDivergenceLoss",
    "BCLightningModule",
    "BCNLLLoss",
    "BackwardErrorCompatibility",
    "BackwardTrustCompatibility",
    "CompatibilityAnalysis",
    "CompatibilityCallback",
    "CompatibilityLoss",
    "ErrorOverlapMetric",
    "IncompatibilityByClass",
    "LinearLambda",
    "LogComparisons",
    "MeanWeights",
    "ModelComparison",
    "NegativeFlipImpact",
    "NegativeFlipRate",
    "PositiveFlipRate",
    "ProjectionCallback",
    "Reference",
    "StoredOutputs",
    "StrictImitationBinaryCrossEntropyLoss",
    "StrictImitationCrossEntropyLoss",
    "StrictImitationKLDivergenceLoss",
    "StrictImitationNLLLoss",
    "SweepManager",
    "blend",
    "blended_model",
    "distil",
    "evaluate",
    "functional",
    "interpolate",
    "load_h1",
    "metrics",
    "new_error",
    "store_outputs",
    "strict_imitation",
    "sweep",
    "unwrap",
    "warm_start",
]
