"""What the plugin serves: comparisons that were logged, sweeps of the original library, and media beside the runs."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import threading
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np
from tensorboard.data import provider

from bc_core.comparison._comparison import Id
from bc_tensorboard._plugin_name import PLUGIN_NAME
from bc_tensorboard.plugin._collection import NotShownError
from bc_tensorboard.plugin._original_sweep import (
    caveats,
    holds_original_sweep,
    read_finished_evaluations,
)
from bc_tensorboard.writing._format import encode_comparison
from bc_tensorboard.writing._media import (
    EXCERPT,
    Media,
    full_path,
    media_path,
    read_image,
    read_media,
    read_text,
    search_longer,
)
from bc_tensorboard.writing._training import told_of_training

EVENTS_VERSION = 1
# Last part of the tag of an invariance update.
INVARIANCE = "invariance"

# A provider takes 0 for "nothing" and has no word for "all".
ALL_STEPS = 2**30

Series = dict[str, Any]


class LoggedComparisons:
    """The comparisons in event files, read through TensorBoard's data provider; tables are passed on as they are."""

    def __init__(self, data_provider: Any) -> None:
        self._provider = data_provider

    def series(self, ctx: Any, experiment: str) -> tuple[list[Series], list[str]]:
        """List the runs and data sets with the counts of every step, and what had to be left out."""
        asked = {"ctx": ctx, "experiment_id": experiment, "plugin_name": PLUGIN_NAME}
        described, warnings = _described(self._provider.list_tensors(**asked), "counts")
        counts = (self._provider.read_tensors(**asked, downsample=ALL_STEPS) or {}) if described else {}
        series = []
        for (run, tag), (dataset, content) in described.items():
            steps, damaged = _steps(counts.get(run, {}).get(tag, ()))
            if damaged:
                warnings.append(
                    f"Run {run}, data set {dataset}: {damaged} steps left out, as their counts are not five "
                    "numbers; the event file is damaged"
                )
            series.append(
                {
                    "run": run,
                    "dataset": dataset,
                    "dissonance": _text_or_none(content.get("dissonance")),
                    "num_classes": _count_or_zero(content.get("num_classes")),
                    **_training_of(content),
                    "steps": steps,
                }
            )
        return series, warnings

    def has(self, ctx: Any, experiment: str, run: str, dataset: str) -> bool:
        """Tell whether comparisons of a data set were logged in a run."""
        tag = _tag(dataset, "counts")
        found = self._provider.list_tensors(ctx, **_one(experiment, run, tag)) or {}
        return tag in found.get(run, {})

    def table(self, ctx: Any, experiment: str, run: str, dataset: str, step: int) -> bytes | None:
        """Return the encoded comparison of one step; None if nothing of the data set was logged in the run."""
        return self._blob(ctx, experiment, run, dataset, "table", step)

    def invariance(self, ctx: Any, experiment: str, run: str, dataset: str, step: int) -> bytes | None:
        """Return the encoded invariance update of one step; None if none of the data set was logged in the run."""
        return self._blob(ctx, experiment, run, dataset, INVARIANCE, step)

    def invariance_series(self, ctx: Any, experiment: str) -> tuple[list[Series], list[str]]:
        """List the runs and data sets that have invariance updates, with their steps, and what had to be left out."""
        asked = {"ctx": ctx, "experiment_id": experiment, "plugin_name": PLUGIN_NAME}
        described, warnings = _described(self._provider.list_blob_sequences(**asked), INVARIANCE)
        if not described:
            return [], warnings
        only = provider.RunTagFilter(runs={run for run, _ in described}, tags={tag for _, tag in described})
        data = self._provider.read_blob_sequences(**asked, downsample=ALL_STEPS, run_tag_filter=only) or {}
        series = []
        for (run, tag), (dataset, _) in described.items():
            # Of several records of one step a provider reads the first.
            steps: dict[int, float] = {}
            for datum in data.get(run, {}).get(tag, ()):
                if datum.values:
                    steps.setdefault(int(datum.step), float(datum.wall_time))
            if steps:
                rows = [[step, steps[step]] for step in sorted(steps)]
                series.append({"run": run, "dataset": dataset, "steps": rows})
        return series, warnings

    def _blob(self, ctx: Any, experiment: str, run: str, dataset: str, part: str, step: int) -> bytes | None:
        tag = _tag(dataset, part)
        asked = _one(experiment, run, tag)
        found = (self._provider.list_blob_sequences(ctx, **asked) or {}).get(run, {}).get(tag)
        if found is None:
            return None
        if _content(found.plugin_content) is None:
            raise NotShownError(f"Run {run}, data set {dataset}: {_NEWER}", "pip install -U backward-compat-ml")
        rows = (self._provider.read_blob_sequences(ctx, **asked, downsample=ALL_STEPS) or {}).get(run, {}).get(tag, ())
        for datum in rows:
            if datum.step == step and datum.values:
                blob: bytes = self._provider.read_blob(ctx, blob_key=datum.values[0].blob_key)
                return blob
        kept = ", ".join(str(datum.step) for datum in list(rows)[-5:])
        raise NotShownError(
            f"Run {run}, data set {dataset} has no {part} of step {step}; its last steps are {kept or 'none'}.",
            f"Reload. Of a run with very many steps TensorBoard keeps a choice: --samples_per_plugin {PLUGIN_NAME}=0 "
            "keeps all.",
        )


class LogFolders:
    """Where on this disk the runs are; a log folder in a bucket has no place here.

    Args:
        logdir: As given to `--logdir`, or empty.
        logdir_spec: As given to `--logdir_spec`, or empty.
    """

    def __init__(self, logdir: str | None, logdir_spec: str | None) -> None:
        named = [(None, logdir)] if logdir else _parse_spec(logdir_spec or "")
        # TensorBoard expands the home folder; a link that is the log folder itself may point anywhere.
        self.roots = [
            (name, os.path.realpath(os.path.expanduser(folder))) for name, folder in named if "://" not in folder
        ]

    def media_file(self, run: str, dataset: str, full: bool = False) -> str | None:
        """Find the media of a data set below the folder of a run; None if there are none within the log folder.

        Args:
            run: Name of the run.
            dataset: Name of the data set.
            full: Whether it is the larger images that are wanted.
        """
        for root, path in self._places(run, dataset, full):
            # Resolved, so that neither ".." in a name nor a link leads out of the log folder.
            if is_within(root, path) and os.path.isfile(path):
                return path
        return None

    def is_elsewhere(self, run: str, dataset: str) -> bool:
        """Tell whether the folder of a run is a link out of the log folder, with media that are not served."""
        places = list(self._places(run, dataset, full=False))
        outside = [path for root, path in places if not is_within(root, path)]
        # A name that leads out by itself, as with "..", is none of our own making.
        return ".." not in re.split(r"[\\/]", run) and any(map(os.path.isfile, outside))

    def _places(self, run: str, dataset: str, full: bool) -> Iterator[tuple[str, str]]:
        """Yield each root that may hold the run, and where the media would be, resolved."""
        for name, root in self.roots:
            if name is None:
                below = run
            elif run == name or run.startswith(name + os.sep):
                below = run[len(name) + 1 :]
            else:
                continue
            path = media_path(os.path.join(root, below), dataset)
            yield root, os.path.realpath(full_path(path) if full else path)


class MediaPack:
    """Texts and images of a data set.

    Args:
        path: Where they are.
        full: Where the larger images are, if there are any.

    Raises:
        NotShownError: If the file cannot be read.
    """

    def __init__(self, path: str, full: str | None = None) -> None:
        self._file = _file_of(path)
        try:
            self._media = _listed_media(self._file)
        except (OSError, ValueError) as error:
            raise NotShownError(
                "The texts and images cannot be read; their file is damaged.", "Log them again."
            ) from error
        self._full = None if full is None else _file_of(full)

    def encode(self) -> bytes:
        """Return the beginnings of the texts, and of which instances there are images."""
        return _encoded_media(self._file, self._full)

    def image(self, name: str, full: bool = False) -> bytes | None:
        """Return the image of an instance.

        Args:
            name: Its id; whole numbers come in decimal digits.
            full: Whether the larger one is wanted, where there is one.
        """
        larger = self._larger if full else None
        if larger is not None and self._full is not None:
            found = read_image(self._full.path, larger, _instance(name, larger.images))
            if found is not None:
                return found
        return read_image(self._file.path, self._media, _instance(name, self._media.images))

    def text(self, name: str) -> str | None:
        """Return the whole text of an instance."""
        return read_text(self._file.path, self._media, _instance(name, self._media.texts))

    def search(self, wanted: str) -> list[str]:
        """Return the ids, as they are written, of those whose text goes on and contains another."""
        return list(map(str, search_longer(self._file.path, self._media, wanted)))

    @property
    def _larger(self) -> Media | None:
        return None if self._full is None else _listed_or_none(self._full)


class _File(NamedTuple):
    """A file as it was at a time: what is derived from it is kept until it changes."""

    path: str
    changed: int
    size: int


def _file_of(path: str) -> _File:
    try:
        status = os.stat(path)
    except OSError:
        return _File(path, 0, 0)
    return _File(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)  # ids and the beginnings of texts, not images
def _listed_media(file: _File) -> Media:
    return read_media(file.path, EXCERPT)


def _listed_or_none(file: _File) -> Media | None:
    # Thumbnails are shown though the larger images are damaged.
    with suppress(OSError, ValueError):
        return _listed_media(file)
    return None


@functools.lru_cache(maxsize=8)
def _encoded_media(file: _File, full: _File | None) -> bytes:
    return _listed_media(file).encode(None if full is None else _listed_or_none(full))


def _instance(name: str, known: Container[Id]) -> Id:
    """The id that is written so. Names are only looked up; no path is made of them."""
    number = int(name) if re.fullmatch("-?[0-9]{1,20}", name) else None
    return name if number is None or number not in known else number


@dataclass(frozen=True)
class _Sweep:
    """A sweep of the original library, read and encoded."""

    files: tuple[tuple[str, int, int], ...]
    series: list[Series]
    tables: dict[tuple[str, str], bytes]
    warnings: list[str]


class OriginalSweeps:
    """Sweep folders of the original library that a log folder is or directly contains.

    They are read when first asked for, and again when a file of theirs has changed.

    Args:
        folders: Where to look.
    """

    def __init__(self, folders: LogFolders) -> None:
        self._folders = folders
        self._read: dict[str, _Sweep] = {}
        self._lock = threading.Lock()

    def any(self) -> bool:
        """Tell whether there is one, without reading it."""
        return next(self._found(), None) is not None

    def series(self) -> tuple[list[Series], list[str]]:
        """List the evaluations of all sweeps, each as a data set of a run with one step, and what is wrong."""
        sweeps = [self._sweep(name, folder) for name, folder in self._found()]
        return [entry for sweep in sweeps for entry in sweep.series], [
            text for sweep in sweeps for text in sweep.warnings
        ]

    def table(self, run: str, dataset: str) -> bytes | None:
        """Return the encoded comparison of an evaluation, or None."""
        for name, folder in self._found():
            if run.startswith(f"{name}/"):
                blob = self._sweep(name, folder).tables.get((run, dataset))
                if blob is not None:
                    return blob
        return None

    def _found(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the folder of each sweep."""
        for name, root in self._folders.roots:
            if holds_original_sweep(root):
                yield name or os.path.basename(root), root
            with suppress(OSError):
                for child in sorted(os.listdir(root)):
                    folder = os.path.join(root, child)
                    # The cheap question first: a log folder can have thousands of runs.
                    if holds_original_sweep(folder) and is_within(root, resolved := os.path.realpath(folder)):
                        yield f"{name}/{child}" if name else child, resolved

    def _sweep(self, name: str, folder: str) -> _Sweep:
        files = _files(folder)
        with self._lock:
            known = self._read.get(name)
            if known is None or known.files != files:
                known = self._read[name] = _read_sweep(name, folder, files)
            return known


def is_within(root: str, path: str) -> bool:
    """Tell whether a resolved path is a resolved folder or below it."""
    try:
        return os.path.commonpath([root, path]) == root
    except ValueError:  # on another drive
        return False


def _read_sweep(name: str, folder: str, files: tuple[tuple[str, int, int], ...]) -> _Sweep:
    series: list[Series] = []
    tables: dict[tuple[str, str], bytes] = {}
    warnings: list[str] = []
    try:
        if any(os.path.dirname(os.path.realpath(os.path.join(folder, file))) != folder for file, _, _ in files):
            raise ValueError(f"{folder}: a file of the sweep is a link to another folder; copy the file itself")
        evaluations, problems = read_finished_evaluations(folder)
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError) as error:
        # Whatever a damaged folder holds, the runs beside it are shown.
        return _Sweep(files, series, tables, [f"Sweep {name}: {error}"])
    warnings += [f"Sweep {name}: {text}" for text in [*problems, *caveats(folder, evaluations)]]
    for evaluation in evaluations:
        comparison = evaluation.comparison
        run = f"{name}/lambda_c {evaluation.lambda_c:g}, {evaluation.dissonance}"
        if (run, evaluation.dataset) in tables:
            run += f", evaluation {evaluation.datapoint_index}"
        tables[run, evaluation.dataset] = encode_comparison(
            comparison,
            dataset=evaluation.dataset,
            dissonance=evaluation.dissonance,
            uncertain_classes=evaluation.uncertain_classes,
        )
        cells = comparison.overlap.counts.sum(axis=0).ravel().tolist()
        series.append(
            {
                "run": run,
                "dataset": evaluation.dataset,
                "dissonance": evaluation.dissonance,
                "num_classes": comparison.overlap.num_classes,
                "steps": [[0, None, evaluation.lambda_c, *cells]],
            }
        )
    return _Sweep(files, series, tables, warnings)


def _files(folder: str) -> tuple[tuple[str, int, int], ...]:
    """What a folder's JSON files are recognised by: name, time of the last change, size."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                with suppress(OSError):
                    status = entry.stat()
                    found.append((entry.name, status.st_mtime_ns, status.st_size))
    return tuple(sorted(found))


_NEWER = "left out, as a newer release of backward-compat-ml wrote it; update backward-compat-ml to see it."


def _tag(dataset: str, part: str) -> str:
    return f"{PLUGIN_NAME}/{quote(dataset, safe='')}/{part}"


def _described(listed: Any, part: str) -> tuple[dict[tuple[str, str], tuple[str, dict[str, Any]]], list[str]]:
    """What a provider lists of a part, by run and tag: its data set and what it says of itself; and what is newer."""
    described, warnings = {}, []
    start, end = f"{PLUGIN_NAME}/", f"/{part}"
    for run, tags in (listed or {}).items():
        for tag, entry in tags.items():
            if not (tag.startswith(start) and tag.endswith(end)):
                continue
            dataset, content = unquote(tag[len(start) : -len(end)]), _content(entry.plugin_content)
            if content is None:
                what = "Invariance of run" if part == INVARIANCE else "Run"
                warnings.append(f"{what} {run}, data set {dataset}: {_NEWER}")
            else:
                described[run, tag] = dataset, content
    return described, warnings


def _one(experiment: str, run: str, tag: str) -> dict[str, Any]:
    return {
        "experiment_id": experiment,
        "plugin_name": PLUGIN_NAME,
        "run_tag_filter": provider.RunTagFilter(runs=[run], tags=[tag]),
    }


def _content(data: bytes) -> dict[str, Any] | None:
    """What a summary says of itself; None if it is not of a version that is known here."""
    try:
        content = json.loads(data)
    except ValueError:
        return None
    return content if isinstance(content, dict) and content.get("version") == EVENTS_VERSION else None


def _training_of(content: dict[str, Any]) -> dict[str, Any]:
    """What a summary says of a training beside its counts; what is damaged is as if it was not there."""
    with suppress(AttributeError, TypeError, ValueError):
        return told_of_training(content.get("settings"), content.get("performance"))
    return {}


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count_or_zero(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _steps(data: Any) -> tuple[list[list[Any]], int]:
    """Lay the counts out as rows of the index, by ascending step, and count those that are no counts."""
    rows: dict[int, list[Any]] = {}
    damaged = 0
    for datum in data:
        values = np.asarray(datum.numpy)
        if values.shape != (5,) or values.dtype.kind not in "fiu" or not np.isfinite(values[:4]).all():
            damaged += 1
            continue
        *cells, weight = values.tolist()
        # Of several records of one step a provider reads the first table, so the first counts belong to it.
        rows.setdefault(
            int(datum.step),
            [int(datum.step), float(datum.wall_time), weight if math.isfinite(weight) else None, *map(int, cells)],
        )
    return [rows[step] for step in sorted(rows)], damaged


def _parse_spec(logdir_spec: str) -> list[tuple[str | None, str]]:
    """Split `name:folder,name:folder` as TensorBoard does; a folder without a name gives its runs no prefix."""
    folders: list[tuple[str | None, str]] = []
    for part in filter(None, logdir_spec.split(",")):
        name, colon, folder = part.partition(":")
        if not colon or part.startswith("/") or folder.startswith("//") or os.path.splitdrive(part)[0]:
            folders.append((None, part))
        else:
            folders.append((name, folder))
    return folders
