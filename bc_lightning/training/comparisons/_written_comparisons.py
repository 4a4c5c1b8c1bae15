"""Where the comparison of an epoch goes: to loggers and to files, hiding none that was there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pytorch_lightning.utilities import rank_zero_warn

from bc_core import Comparison
from bc_core.files._failed_writes import told_of

if TYPE_CHECKING:
    from bc_lightning.training.comparisons._comparisons import LogComparisons


def write(
    comparisons: LogComparisons,
    comparison: Comparison,
    loggers: Sequence[Any],
    dataset: str,
    dissonance: str,
    illustrable: bool,
) -> None:
    """Save and log; what fails, such as a full disk, is told of and does not end the training."""
    told = f"The comparison of step {comparison.step} ({dataset})"
    # Whatever keeps one place from taking it, the others get theirs.
    with told_of(told, rank_zero_warn):
        if comparisons.directory is not None:
            name = f"{dataset.replace('/', '-')}-step-{comparison.step:08d}"
            path = _free_path(Path(comparisons.directory), name, comparison)
            if path is not None:
                comparison.save(path)
    for logger in loggers:
        with told_of(told, rank_zero_warn):
            from bc_tensorboard import summary

            free = _free_dataset(logger, dataset, comparison)
            if free is None:
                continue
            summary.comparison(
                logger,
                comparison,
                dataset=free,
                dissonance=dissonance.replace("_", " "),
                images=comparisons.images if illustrable else None,
                image_size=comparisons.image_size,
                max_images=comparisons.max_images,
                full_size=comparisons.full_size,
                settings=comparisons.settings,
            )


def _free_path(directory: Path, name: str, comparison: Comparison) -> Path | None:
    """Where a comparison is saved without replacing another; None where the very same lies there already."""
    path = directory / f"{name}.json"
    for number in count(2):
        if not path.exists():
            return path
        with suppress(OSError, TypeError, ValueError):
            if Comparison.load(path) == comparison:
                return None
        taken, path = path, directory / f"{name}-{number}.json"
        if not path.exists():
            rank_zero_warn(f"{taken} holds another comparison and is kept; this one is saved as {path.name}.")
    return None


# What each logger was given in this process: a second record under one name and step would hide the first.
_WRITTEN: WeakKeyDictionary[Any, dict[tuple[str, int | None], str]] = WeakKeyDictionary()


def _free_dataset(logger: Any, dataset: str, comparison: Comparison) -> str | None:
    """The name of the data set under which a comparison hides no other of its step; None if it was written already."""
    table = comparison.instances
    columns = (comparison.overlap.counts, table.target, table.h1_pred, table.h2_pred)
    digest = hashlib.sha256(b"".join(column.tobytes() for column in columns) + repr(table.ids.tolist()).encode())
    written, found = _WRITTEN.setdefault(logger, {}), digest.hexdigest()
    for number in count(1):
        free = dataset if number == 1 else f"{dataset} ({number})"
        before = written.setdefault((free, comparison.step), "")
        if before == found:
            return None
        if not before:
            written[free, comparison.step] = found
            if number > 1:
                rank_zero_warn(
                    f"Another comparison of step {comparison.step} ({dataset}) was logged before; this one is the data "
                    f"set {free!r}."
                )
            return free
    return None
