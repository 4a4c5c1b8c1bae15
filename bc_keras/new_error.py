"""The four new-error losses, as BackwardCompatibilityML on TensorFlow has them in a module of this name."""

from bc_keras.losses._losses import BCBinaryCrossEntropyLoss, BCCrossEntropyLoss, BCKLDivLoss, BCNLLLoss

__all__ = ["BCBinaryCrossEntropyLoss", "BCCrossEntropyLoss", "BCKLDivLoss", "BCNLLLoss"]
