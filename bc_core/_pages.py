"""The one door through which comparisons and sweeps are shown as a page or logged, though this package does neither.

Whoever writes pages says so in its metadata, by the entry point `to_html` of the group `bc_core.pages`: a function of
comparisons, as `Comparison` or as `SweepResults.comparisons` gives them, a path, and options. Likewise
`to_tensorboard`: a function of the folder of a run and a comparison that has a step.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

GROUP = "bc_core.pages"


def to_html(comparisons: Any, path: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """Write comparisons as one HTML file.

    Raises:
        ImportError: Nothing that is installed writes pages.

    Example:
        >>> from importlib.metadata import entry_points
        >>> from bc_core._pages import GROUP
        >>> "to_html" in entry_points(group=GROUP).names
        True
    """
    written: Path = _entry("to_html", "writes pages")(comparisons, path, **options)
    return written


def to_tensorboard(folder: str | os.PathLike[str], comparison: Any) -> None:
    """Log a comparison to the folder of a run of TensorBoard.

    Raises:
        ImportError: Nothing that is installed does that, or TensorBoard is not installed.
        OSError: It cannot be written.
    """
    _entry("to_tensorboard", "logs to TensorBoard")(folder, comparison)


def _entry(name: str, does: str) -> Any:
    from importlib.metadata import entry_points  # with a parser of e-mail

    for entry in entry_points(group=GROUP, name=name):
        return entry.load()
    raise ImportError(
        f"Nothing that is installed {does}: no package has the entry point {name} of {GROUP}. Install "
        "backward-compat-ml again, in a checkout by pip install -e ."
    )
