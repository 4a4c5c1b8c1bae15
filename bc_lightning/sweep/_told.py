"""What was given to a sweep in Lightning, in short."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bc_core.sweep._told import told
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.reference._fingerprint import fingerprint_data


def told_of(value: Any) -> str:
    """A value in short, the same in every process."""
    return told(value, special)


def settings(loss: CompatibilityLoss) -> dict[str, str]:
    """What a loss is set to."""
    given = {"base": loss.base, "dissonance": loss.dissonance, "normalization": loss.normalization, **loss.options}
    return {name: told_of(value) for name, value in given.items() if value is not None}


def special(value: Any) -> str | None:
    """What there is to say of a tensor or a loss."""
    if isinstance(value, Tensor):
        return f"tensor {fingerprint_data(value):016x}"
    return f"{type(value).__name__}({told_of(settings(value))})" if isinstance(value, CompatibilityLoss) else None
