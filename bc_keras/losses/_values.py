"""Refuse values that a loss would misread, where reading them waits for nothing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from bc_keras.batches._labels import ROUNDING, is_binary, is_float


def is_readable(tensor: Any) -> bool:
    """Whether reading values waits for nothing: on a CPU, and not while a step is traced."""
    if isinstance(tensor, np.ndarray):
        return True
    backend = keras.backend.backend()
    if keras.backend.is_keras_tensor(tensor):
        return False
    if backend == "tensorflow":
        return hasattr(tensor, "numpy") and "CPU" in (getattr(tensor, "device", "") or "CPU")
    if backend == "jax":
        import jax

        if isinstance(tensor, jax.core.Tracer) or not isinstance(tensor, jax.Array):
            return False
        return all(device.platform == "cpu" for device in tensor.devices())
    import torch

    return isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_values(
    base: str,
    h2_output: Any,
    target: Any,
    h1_output: Any,
    *,
    from_logits: bool,
    h1_from_logits: bool,
    ignore_class: int | None,
) -> None:
    """Refuse empty batches, and NaN, labels outside the classes and logits for probabilities where they can be read."""
    if 0 in tuple(h2_output.shape):
        raise ValueError(f"The batch is empty. Received: h2's output of shape {tuple(h2_output.shape)}.")
    binary = base == "binary_cross_entropy"
    for scores, model, logits in (
        (h2_output, "h2", from_logits),
        (h1_output, "h1", h1_from_logits),
    ):
        if not is_float(scores) or not is_readable(scores):
            continue
        values = ops.convert_to_numpy(scores)
        if not np.isfinite(values).all():
            bad = "NaN" if np.isnan(values).any() else "infinity"
            raise ValueError(
                f"{model} must give finite scores: look for a diverged or half-loaded {model}, or inputs that are NaN. "
                f"Received: {bad} among scores of shape {values.shape}."
            )
        if not logits and (values.min() < -ROUNDING or values.max() > 1 + ROUNDING):
            raise ValueError(
                f"{model} must give probabilities in 0..1; if it gives logits, pass from_logits=True. "
                f"Received: values from {values.min():g} to {values.max():g}."
            )
    if not is_readable(target):
        return
    labels = ops.convert_to_numpy(target)
    # The shapes themselves are checked where the terms are computed.
    if binary and not (labels.min() >= 0 and labels.max() <= 1):
        raise ValueError(f"Binary targets must lie in 0..1. Received: values from {labels.min()} to {labels.max()}.")
    classes = h2_output.shape[-1]
    if binary or is_binary(h2_output) or (labels.ndim == len(h2_output.shape) and labels.shape[-1] == classes):
        return
    outside = (labels < 0) | (labels >= classes)
    if ignore_class is not None:
        outside &= labels != ignore_class
    if outside.any():
        raise ValueError(
            f"The target must hold class indices in 0..{classes - 1}"
            f"{'' if ignore_class is None else f' or ignore_class={ignore_class}'}. "
            f"Received: label {labels[outside][0]} at index {tuple(int(i) for i in np.argwhere(outside)[0])}."
        )
