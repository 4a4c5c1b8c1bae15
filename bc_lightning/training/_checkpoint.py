"""Loading the old model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_SHOWN_KEYS = 4


def load_h1(module: nn.Module, checkpoint: str | Path, prefix: str = "", strict: bool = True) -> nn.Module:
    """Load the old model's weights from a file, ready to be used as h1.

    It can be named in a ``LightningCLI`` configuration::

        model:
          h1:
            class_path: bc_lightning.load_h1
            init_args:
              module: {class_path: my_project.Net}
              checkpoint: h1.ckpt
              prefix: "model."

    Args:
        module: A model of h1's architecture; its weights are replaced.
        checkpoint: A state dict saved with ``torch.save``, or a Lightning checkpoint. Only tensors and plain
            values are read from it, never code.
        prefix: What the keys of h1's weights begin with in the file, such as ``"model."`` when h1 was the
            attribute ``model`` of a ``LightningModule``. Other keys are left out.
        strict: Whether every weight of ``module`` must be in the file, and the other way round.

    Returns:
        ``module`` in eval mode, on the device it was on.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no state dict, or its keys or shapes do not fit ``module``; the message
            says which prefix would fit.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> trained = nn.ModuleDict({"model": nn.Linear(4, 2)})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": trained.state_dict()}, folder + "/h1.ckpt")
        ...     h1 = load_h1(nn.Linear(4, 2), folder + "/h1.ckpt", prefix="model.")
        >>> torch.equal(h1.weight, trained["model"].weight), h1.training
        (True, False)
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint of h1 at {path}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"cannot read weights from {path}: expected a state dict saved with torch.save, or a Lightning "
            f"checkpoint, of tensors and plain values only. {_first_line(error)}"
        ) from error
    state = _state_dict(loaded, path)
    wanted = set(module.state_dict())
    chosen = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    nothing_fits = bool(wanted) and not wanted & set(chosen)
    if nothing_fits or (strict and set(chosen) != wanted):
        raise ValueError(_explain_keys(path, state, chosen, wanted, prefix))
    try:
        module.load_state_dict(chosen, strict=strict)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit {type(module).__name__}: {error}") from error
    return module.eval()


def _state_dict(loaded: Any, path: Path) -> dict[str, Any]:
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if (
        not isinstance(state, Mapping)
        or not all(isinstance(key, str) for key in state)
        or not any(isinstance(value, Tensor) for value in state.values())
    ):
        held = f"keys {list(state)[:_SHOWN_KEYS]}" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise ValueError(
            f"{path} holds no state dict but {held}: save h1 with torch.save(h1.state_dict(), path), or give a "
            "Lightning checkpoint"
        )
    return dict(state)


def _explain_keys(path: Path, state: dict[str, Any], chosen: dict[str, Any], wanted: set[str], prefix: str) -> str:
    missing, unexpected = sorted(wanted - set(chosen)), sorted(set(chosen) - wanted)
    parts = [f"the weights in {path} do not fit the module with prefix={prefix!r}"]
    if missing:
        parts.append(f"{len(missing)} are missing, such as {missing[:_SHOWN_KEYS]}")
    if unexpected:
        parts.append(f"{len(unexpected)} are unexpected, such as {unexpected[:_SHOWN_KEYS]}")
    fitting = _fitting_prefix(state, wanted)
    if fitting is not None and fitting != prefix:
        parts.append(f"prefix={fitting!r} would fit")
    else:
        parts.append(f"the file's keys begin {sorted(state)[:_SHOWN_KEYS]}")
    return "; ".join(parts)


def _fitting_prefix(state: dict[str, Any], wanted: set[str]) -> str | None:
    """Find a prefix under which the file has every weight that is wanted, the shortest if several."""
    if not wanted:
        return None
    some = min(wanted)
    candidates = sorted((key.removesuffix(some) for key in state if key.endswith(some)), key=len)
    return next((prefix for prefix in candidates if all(prefix + name in state for name in wanted)), None)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
