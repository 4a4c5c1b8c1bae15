"""Show what an update broke: comparisons written for TensorBoard, the plugin that shows them, notebooks, HTML files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bc_core._version import __version__ as __version__
    from bc_tensorboard.pages._page import to_html
    from bc_tensorboard.pages._view import ComparisonView
    from bc_tensorboard.plugin._original_sweep import OriginalEvaluation, read_original_sweep
    from bc_tensorboard.writing import summary

__all__ = ["ComparisonView", "OriginalEvaluation", "read_original_sweep", "summary", "to_html"]

_HOMES = {
    "ComparisonView": "pages._view",
    "OriginalEvaluation": "plugin._original_sweep",
    "read_original_sweep": "plugin._original_sweep",
    "to_html": "pages._page",
}


def __getattr__(name: str) -> Any:
    # On first use, so that TensorBoard, which imports this package to find the plugin, starts no slower for it.
    from importlib import import_module

    if name == "__version__":
        return import_module("bc_core._version").__version__
    if name == "summary":
        return import_module("bc_tensorboard.writing.summary")
    if name in _HOMES:
        return getattr(import_module(f"bc_tensorboard.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'bc_tensorboard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
