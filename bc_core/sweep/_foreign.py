"""What may lie in the folder of a sweep without being anybody's work."""

from __future__ import annotations

import re

# Left by desktops, file servers and editors, in any case; those with a dot in front are too many to list.
_LITTER = {"desktop.ini", "thumbs.db", "ehthumbs.db", "icon\r", "__pycache__", "lost+found", "@eadir", "__macosx"}
# A folder that is kept in a repository says what it is for, and what of it is kept.
_NOTES = re.compile(r"(readme|licen[cs]e)([._-].*)?", re.IGNORECASE)
# BackwardCompatibilityML's own files, h1's weights among them, and weights as people name them today.
_ORIGINALS = re.compile(r"sweep_summary\.json|\d+-evaluation-data\.json")
_WEIGHTS = (".state", ".pt", ".pth", ".ckpt", ".safetensors", ".keras", ".h5")


def is_harmless(name: str) -> bool:
    """Whether a file or folder of this name is no reason to take a folder for somebody else's.

    Example:
        >>> from bc_core.sweep._foreign import is_harmless
        >>> [is_harmless(name) for name in (".gitkeep", "h1-model.state", "README.md", "thesis.tex")]
        [True, True, True, False]
    """
    return (
        # What ends in .part is somebody's file that was not written whole.
        (name.startswith(".") and not name.endswith(".part"))
        or name.lower() in _LITTER
        or _NOTES.fullmatch(name) is not None
        or _ORIGINALS.fullmatch(name) is not None
        or name.lower().endswith(_WEIGHTS)
    )
