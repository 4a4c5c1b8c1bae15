"""A folder as data: texts, or paths of images, in one folder or one a class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bc_core._arrays import text_objects
from bc_core._texts import listed
from bc_core.predicting._adapter import kind_of
from bc_core.predictions._reading import chunks, columns_of
from bc_core.predictions._tables import Keep, Table
from bc_core.predictions._text_files import open_text

TEXTS = (".txt",)
IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Folder:
    """Files that are instances; their paths below the folder are the ids, and the first folder on the way the class.

    Attributes:
        path: The folder.
        files: Paths below it, sorted.
        texts: Whether they are texts, which are read; of images the paths are given.
        by_class: Whether each is in the folder of a class.
    """

    path: str
    files: tuple[str, ...]
    texts: bool
    by_class: bool

    @property
    def given(self) -> str:
        """The column that a model is given."""
        return "text" if self.texts else "file"

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return ["id", *(["target"] if self.by_class else []), self.given]

    def chunks(self, keep: Keep, size: int, skip: int = 0) -> Iterator[Table]:
        """Some files at a time.

        Raises:
            ValueError: A file is no text.
            OSError: One cannot be read.
        """
        kept = keep(self.columns)
        for begin in range(skip, len(self.files), size):
            part = self.files[begin : begin + size]
            columns = {"id": part, "target": [name.split("/", 1)[0] for name in part]}
            if self.given in kept:
                columns[self.given] = [self._given(name) for name in part]
            arrays = {name: text_objects(list(columns[name])) for name in kept}
            yield Table(self.path, arrays, len(part), line_of=lambda row, part=part: part[row])  # type: ignore[misc]

    def _given(self, name: str) -> str:
        path = os.path.join(os.path.abspath(self.path), *name.split("/"))
        if not self.texts:
            return path
        with open_text(path) as file:
            return file.read()


def folder_of(path: str) -> Folder | None:
    """The instances of a folder; None of a file.

    Raises:
        ValueError: It has none, or files of several kinds, or some of them are in folders and others beside these.
    """
    if not os.path.isdir(path):
        return None
    root = Path(path)
    names = sorted(
        file.relative_to(root).as_posix()
        for folder, _, files in os.walk(root)
        for file in (Path(folder, name) for name in files)
        if not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
    texts = [name for name in names if name.lower().endswith(TEXTS)]
    images = [name for name in names if name.lower().endswith(IMAGES)]
    known = {*texts, *images}
    if strange := [name for name in names if name not in known]:
        raise ValueError(
            f"{path}: a folder of data holds texts ({', '.join(TEXTS)}) or images ({', '.join(IMAGES)}), and there is "
            f"{listed(strange)}; take it out, or give a file of data with the paths in a column"
        )
    if not names or (texts and images):
        told = f"{len(texts)} of texts and {len(images)} of images" if names else "none"
        raise ValueError(f"{path}: expected a folder of texts or of images; files in it: {told}")
    inside = [name for name in names if "/" in name]
    if inside and len(inside) < len(names):
        beside = next(name for name in names if "/" not in name)
        raise ValueError(f"{path}: files are in folders, one a class, and {beside} is beside them; which class has it?")
    return Folder(path, tuple(names), bool(texts), bool(inside))


def refuse_images(model: str, folder: Folder, adapter: str | None) -> None:
    """Refuse to give images to what cannot know how the model wants them: their size, range and order of axes.

    Raises:
        ValueError: So it is.
    """
    own = ":" in adapter if adapter is not None else kind_of(model) == "function"
    if not folder.texts and not own:
        raise ValueError(
            f"{folder.path}: images, and nothing says how {model} wants them (size, range of values, order of axes): "
            "give a module:function, which is given their paths, or write them as arrays to an .npz"
        )


def data_columns(path: str) -> Sequence[str]:
    """Names of the columns of a file or folder of data."""
    folder = folder_of(path)
    return columns_of(path) if folder is None else folder.columns


def data_chunks(path: str, keep: Keep, size: int, skip: int = 0) -> Iterator[Table]:
    """A file or folder of data, some rows at a time."""
    folder = folder_of(path)
    return chunks(path, keep, size, skip) if folder is None else folder.chunks(keep, size, skip)
