"""The one door through which comparisons and sweeps are shown as a page, though this package makes none.

Whoever writes pages says so in its metadata, by the entry point `to_html` of the group `bc_core.pages`: a function of
comparisons, as `Comparison` or as `SweepResults.comparisons` gives them, a path, and options.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
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
        >>> [entry.name for entry in entry_points(group=GROUP)]
        ['to_html']
    """
    for entry in entry_points(group=GROUP, name="to_html"):
        written: Path = entry.load()(comparisons, path, **options)
        return written
    raise ImportError(
        f"Nothing that is installed writes pages: no package has the entry point to_html of {GROUP}. Install "
        "backward-compat-ml again, in a checkout by pip install -e ."
    )
