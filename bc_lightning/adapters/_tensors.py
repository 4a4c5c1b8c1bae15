"""Batches of numpy as tensors, and what a model returns as one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bc_core.predicting._adapter import chosen_output


def to_tensor(array: Any, dtype: torch.dtype | None, device: str | None, where: str) -> torch.Tensor:
    """A tensor of `dtype` where both are numbers with a point; whole numbers stay, as those of tokens.

    Raises:
        ValueError: It holds text.
    """
    values = np.asarray(array)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{where}: it reads numbers, and is given text; name columns of numbers by --features")
    tensor = torch.from_numpy(np.ascontiguousarray(values) if values.flags.writeable else values.copy())
    if tensor.is_floating_point() and dtype is not None:
        tensor = tensor.to(dtype)
    return tensor.to(device or "cpu")


def array_of(output: Any, said: str | None, where: str) -> NDArray[Any]:
    """One output as an array, by its name or place where there are several.

    Raises:
        ValueError: There are several, or it is no tensor.
    """
    if isinstance(output, dict):
        output = chosen_output(output, said, where)
    elif isinstance(output, (tuple, list)):
        output = chosen_output({str(place): each for place, each in enumerate(output)}, said, where)
    if not isinstance(output, torch.Tensor):
        raise ValueError(f"{where}: expected a tensor, got {type(output).__name__}")
    if output.dtype == torch.bfloat16:
        output = output.float()
    found: NDArray[Any] = output.detach().cpu().numpy()
    return found


def checked_device(device: str | None) -> str:
    """A device that is there.

    Raises:
        ValueError: It is not.
    """
    try:
        torch.empty(0, device=device or "cpu")
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from None
    return device or "cpu"
