"""The four new-error losses, as the module of this name in BackwardCompatibilityML held them."""

from bc_lightning.losses._losses import BCBinaryCrossEntropyLoss, BCCrossEntropyLoss, BCKLDivergenceLoss, BCNLLLoss

__all__ = ["BCBinaryCrossEntropyLoss", "BCCrossEntropyLoss", "BCKLDivergenceLoss", "BCNLLLoss"]
