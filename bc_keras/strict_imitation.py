"""The four strict-imitation losses, as BackwardCompatibilityML on TensorFlow has them in a module of this name."""

from bc_keras.losses._losses import (
    BCStrictImitationBinaryCrossEntropyLoss,
    BCStrictImitationCrossEntropyLoss,
    BCStrictImitationKLDivLoss,
    BCStrictImitationNLLLoss,
)

__all__ = [
    "BCStrictImitationBinaryCrossEntropyLoss",
    "BCStrictImitationCrossEntropyLoss",
    "BCStrictImitationKLDivLoss",
    "BCStrictImitationNLLLoss",
]
