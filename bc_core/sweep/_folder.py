"""The folder of a sweep: what is in it, who may write, and how a point appears in it, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bc_core.comparison._comparison import Comparison
from bc_core.counting._overlap import ErrorOverlap
from bc_core.files._files import is_left_aside, locked, told_of_a_full_disk, write_whole
from bc_core.losses._schedules import check_lambda
from bc_core.promise._verdict import PromiseVerdict, Word
from bc_core.reference._callable_fingerprint import is_same_h1
from bc_core.sweep._foreign import is_harmless
from bc_core.sweep._points import Point, check_names

FORMAT = "backward-compat-sweep"
VERSION = 1
# What begins the name of a loss among the things that decide a sweep's results.
LOSS = "loss "
# The data sets of a sweep, in the order in which they are shown.
DATASETS = ("train", "val", "test")

_HEADER, _LOCK = "sweep.json", "sweep.lock"
_POINTS, _FAILURES, _RUNNING = "points", "failures", "running"
_RESULT, _PROGRESS = "result.json", "progress"
# How far h1's right answers may be apart in two points: instances, and a share of them.
_TIES, _SHARE_OF_TIES = 2, 0.01

Report = Callable[[float], None]


@dataclass(frozen=True)
class Trained:
    """What the training of a point left behind, beside the files in its folder.

    Attributes:
        comparisons: h1 and h2 by data set.
        performances: By data set what the caller's metric says of h1 and of h2.
        model: Name of the model's file in the folder of the point.
        lambda_c: Where a promise has moved it; None for that of the point.
        verdict: Of the promise that it was held to, on the data that it was steered by.
    """

    comparisons: Mapping[str, Comparison]
    performances: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    model: str | None = None
    lambda_c: float | None = None
    verdict: PromiseVerdict | None = None


@dataclass(frozen=True)
class Failure:
    """A point whose training ended in an error.

    Attributes:
        point: Which one.
        error: The error in one line.
        traceback: Where it came from.
    """

    point: Point
    error: str
    traceback: str = field(repr=False, default="")


def is_sweep_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a sweep."""
    return (Path(path) / _HEADER).is_file()


class SweepFolder:
    """The files of a sweep.

    ``sweep.json`` says what decides its results, and the plan; ``points/<name>/`` is a finished point, which appears
    by one renaming; ``running/<name>`` one that is at work; ``failures/<name>.json`` says why one failed.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()

    # What the sweep is

    def header(self) -> dict[str, Any] | None:
        """Read what the sweep is, or None where there is none yet.

        Raises:
            ValueError: The file is of something else.
        """
        try:
            header = json.loads((self.path / _HEADER).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError(f"{self.path / _HEADER} is not of a sweep, or is damaged. Give a new folder.")
        if header.get("version") != VERSION:
            raise ValueError(
                f"{self.path / _HEADER} was written in version {header.get('version')} of the format, this reads "
                f"version {VERSION}. Give a new folder."
            )
        try:
            _check_header(header)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{self.path / _HEADER} is damaged ({says(error)}): put back a copy of it, or give a new folder."
            ) from error
        return header

    def begin(self, recipe: Mapping[str, str], losses: Sequence[str], points: Sequence[Point]) -> None:
        """Write down what the sweep is, or see that the one in the folder is the same; its plan may grow.

        Raises:
            ValueError: The folder holds another sweep, or files of somebody else.
        """
        header = self.header()
        there = list(self.path.iterdir()) if self.path.is_dir() else []
        # Of a process that was killed while it wrote the file, perhaps for the first time.
        left = [entry for entry in there if is_left_aside(entry.name, [_HEADER])]
        if header is None:
            others = {entry.name for entry in there if entry not in left} - {_LOCK}
            others = {name for name in others if not is_harmless(name)}
            if others - {_RUNNING}:
                raise ValueError(
                    f"{self.path} is there and holds no sweep, but {', '.join(sorted(others)[:5])}. Give a new or "
                    "empty folder."
                )
            known: dict[str, Any] = {"losses": [], "plan": []}
        else:
            self._check_same(header["recipe"], dict(recipe))
            known = header
        plan = list(dict.fromkeys([*(Point.from_dict(entry) for entry in known["plan"]), *points]))
        check_names(plan)
        content = {
            "format": FORMAT,
            "version": VERSION,
            # What was written first stays: nobody has looked yet whether an h1 of the same name answers alike.
            "recipe": {**recipe, **known.get("recipe", {})},
            "losses": list(dict.fromkeys([*known["losses"], *losses])),
            "plan": [point.to_dict() for point in plan],
        }
        self._write_json(self.path / _HEADER, content)
        for entry in left:
            entry.unlink(missing_ok=True)
        for name in (_POINTS, _FAILURES, _RUNNING):
            (self.path / name).mkdir(exist_ok=True)

    def _check_same(self, there: Mapping[str, str], given: Mapping[str, str]) -> None:
        differing = [
            f"{name} was {there.get(name, 'not given')}, and is now {given.get(name, 'not given')}"
            for name in dict.fromkeys([*there, *given])
            if there.get(name) != given.get(name)
            # A callable that is known by its name alone; its answers are held against those of then.
            and not (name == "h1" and is_same_h1(there.get(name, ""), given.get(name, "")))
            # A loss that only one of the calls names is one more, or one less, line of the table.
            and not (name.startswith(LOSS) and (name not in there or name not in given))
        ]
        if differing:
            raise ValueError(
                f"{self.path} is the folder of another sweep: {'; '.join(differing)}. Give another folder, or what "
                "this one was begun with. (Further lambdas, seeds and losses may be added.)"
            )

    def locked(self) -> AbstractContextManager[None]:
        """Keep every other sweep out of the folder; the lock ends with the process, however that ends.

        Raises:
            RuntimeError: A sweep is at work in it.
        """
        return locked(self.path / _LOCK, str(self.path))

    def clear_running(self) -> None:
        """Remove what interrupted points left; for the holder of the lock."""
        shutil.rmtree(self.path / _RUNNING, ignore_errors=True)
        (self.path / _RUNNING).mkdir(parents=True, exist_ok=True)

    # Its points

    @property
    def plan(self) -> list[Point]:
        """All points that were ever asked for."""
        header = self.header()
        return [] if header is None else [Point.from_dict(entry) for entry in header["plan"]]

    @property
    def losses(self) -> list[str]:
        """Names of the losses."""
        header = self.header()
        return [] if header is None else list(header["losses"])

    def folder_of(self, point: Point) -> Path:
        """Where a finished point is."""
        return self.path / _POINTS / point.name

    def is_finished(self, point: Point) -> bool:
        """Whether a point is done."""
        return (self.folder_of(point) / _RESULT).is_file()

    def result(self, point: Point) -> dict[str, Any]:
        """What was written down of a finished point: counts by data set, performances, seconds.

        Raises:
            ValueError: The file is damaged.
        """
        path = self.folder_of(point) / _RESULT
        with self._telling_of_damage(path, point):
            return _checked_result(json.loads(path.read_bytes()), point)

    def comparison(self, point: Point, dataset: str) -> Comparison:
        """The comparison of a finished point on a data set.

        Raises:
            ValueError: The file is missing or damaged.
        """
        path = self.comparison_path(point, dataset)
        with self._telling_of_damage(path, point):
            return Comparison.load(path)

    @contextmanager
    def _telling_of_damage(self, path: Path, point: Point) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            why = "it is missing"
            cause: Exception = error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            why, cause = says(error).removeprefix(f"{path}: "), error
        else:
            return
        raise ValueError(
            f"{path} is damaged ({why}). Remove the folder {path.parent}, and call the sweep again with the same "
            f"folder: it trains the point {point.name} once more."
        ) from cause

    def comparison_path(self, point: Point, dataset: str) -> Path:
        """Where the comparison of a finished point is."""
        return self.folder_of(point) / comparison_name(dataset)

    def failures(self) -> list[Failure]:
        """The points that failed and have not succeeded since."""
        found = []
        for path in sorted((self.path / _FAILURES).glob("*.json")):
            try:
                data = json.loads(path.read_bytes())
                failure = Failure(Point.from_dict(data["point"]), str(data["error"]), str(data["traceback"]))
            except FileNotFoundError:
                # Tried again, or succeeded, since the folder was listed.
                continue
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ValueError(
                    f"{path} is damaged ({says(error)}). Remove it; the same call of the sweep tries the point again."
                ) from error
            if not self.is_finished(failure.point):
                found.append(failure)
        return found

    def note_failure(self, point: Point, error: BaseException | str) -> Failure:
        """Write down that a point failed."""
        if isinstance(error, str):
            failure = Failure(point, error)
        else:
            said = f"{type(error).__name__}: {error}"
            failure = Failure(point, said, "".join(traceback.format_exception(error)))
        content = {"point": point.to_dict(), "error": failure.error, "traceback": failure.traceback}
        self._write_json(self.path / _FAILURES / f"{point.name}.json", content)
        return failure

    def forget_failure(self, point: Point) -> None:
        """Take back that a point failed, as it is tried again."""
        (self.path / _FAILURES / f"{point.name}.json").unlink(missing_ok=True)

    def progress(self) -> float:
        """Sum of the shares that points at work have done of their training."""
        shares = 0.0
        with suppress(OSError):
            for running in (self.path / _RUNNING).iterdir():
                # Finished or begun anew in between.
                with suppress(OSError, ValueError):
                    shares += min(1.0, max(0.0, float((running / _PROGRESS).read_text())))
        return shares

    def telling_of_a_full_disk(self, what: str) -> AbstractContextManager[None]:
        """Say what there was no room for, and that nothing is lost.

        Raises:
            FullDiskError: In place of an error for want of space, whoever raised it.
        """
        return told_of_a_full_disk(
            f"No space is left for {what}. The finished points are kept: make room, then call again with the same "
            "folder to go on",
            self.path,
        )

    def _check_h1(self, point: Point, comparisons: Mapping[str, Comparison]) -> None:
        """h1 and the data are the same for all points of a seed, whatever h2 is: so are h1's right answers by class."""
        for entry in sorted((self.path / _POINTS).iterdir()):
            try:
                data = json.loads((entry / _RESULT).read_bytes())
                known = _checked_result(data, Point.from_dict(data["point"]))
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
                # None, or a damaged one, which whoever asks for its results is told of.
                continue
            if known["point"]["seed"] != point.seed:
                continue
            for dataset, comparison in comparisons.items():
                if dataset not in known["datasets"]:
                    continue
                before: ErrorOverlap = known["datasets"][dataset]["overlap"]
                now = comparison.overlap
                if before.num_classes == now.num_classes:
                    apart = np.abs(before.counts.sum(axis=2) - now.counts.sum(axis=2)).sum() / 2
                    # h1 may be asked in other batches, and a tie decided otherwise.
                    if apart <= _TIES + _SHARE_OF_TIES * now.total:
                        continue
                told = (
                    f"h1 is right on {now.accuracy_h1:.2%} of {now.total} instances of the {dataset} data, and was on "
                    f"{before.accuracy_h1:.2%} of {before.total} for the point {entry.name}"
                )
                if dataset == "train":
                    # Augmentation at random may be why.
                    warnings.warn(
                        f"{told}: if h1 or the data changed, give another folder.", RuntimeWarning, stacklevel=2
                    )
                    continue
                raise ValueError(f"{self.path} is the folder of another sweep: {told}. Give another folder.")
            return

    def train(self, point: Point, train: Callable[[Point, Path, Report], Trained]) -> None:
        """Train one point into a folder aside, then rename it.

        Args:
            point: Which one.
            train: Trains it; gets a folder for its files, and a function that takes the share done.

        Raises:
            FullDiskError: Its files could not be written for want of space.
        """
        with self.telling_of_a_full_disk(f"the point {point.name}"):
            self._train(point, train)
        with suppress(OSError):
            self.forget_failure(point)

    def _train(self, point: Point, train: Callable[[Point, Path, Report], Trained]) -> None:
        aside = self.path / _RUNNING / point.name
        shutil.rmtree(aside, ignore_errors=True)
        began = time.perf_counter()
        try:
            aside.mkdir(parents=True)
            trained = train(point, aside, _Reporter(aside / _PROGRESS))
            self._check_h1(point, trained.comparisons)
            for dataset, comparison in trained.comparisons.items():
                comparison.save(aside / comparison_name(dataset))
            datasets = {
                dataset: {
                    "overlap": comparison.overlap.to_dict(),
                    "performance": [json_number(value) for value in trained.performances.get(dataset, ())] or None,
                }
                for dataset, comparison in trained.comparisons.items()
            }
            content = {
                "point": point.to_dict(),
                "datasets": datasets,
                "model": trained.model,
                "seconds": time.perf_counter() - began,
            }
            if point.promise is not None:
                told = trained.verdict
                content["lambda_c"] = point.lambda_c if trained.lambda_c is None else trained.lambda_c
                content["verdict"] = "cannot be told" if told is None else told.verdict
                content["verdict_text"] = "" if told is None else str(told)
            (aside / _PROGRESS).unlink(missing_ok=True)
            self._write_json(aside / _RESULT, content)
            final = self.folder_of(point)
            # Left by a crash between two versions of one point, and without a result.
            shutil.rmtree(final, ignore_errors=True)
            final.parent.mkdir(exist_ok=True)
            os.rename(aside, final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @staticmethod
    def _write_json(path: Path, content: Mapping[str, Any]) -> None:
        write_whole(path, json.dumps(content, allow_nan=False, indent=1).encode("ascii"))


class _Reporter:
    """Writes down the share done of a point, where whoever shows progress can read it; seldom, as it costs a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = -1.0

    def __call__(self, share: float) -> None:
        if share - self._last < 0.01:
            return
        self._last = share
        # It is for the eye only: no training ends for it.
        with suppress(OSError):
            self._path.write_text(f"{share:.4f}")


def comparison_name(dataset: str) -> str:
    return f"comparison-{dataset}.json.gz"


def json_number(value: float) -> float | None:
    # JSON has no NaN.
    return float(value) if math.isfinite(value) else None


def says(error: BaseException) -> str:
    """What an error says of a file that was read."""
    return f"the entry {error} is missing" if isinstance(error, KeyError) else str(error)


def _check_header(header: Mapping[str, Any]) -> None:
    recipe, losses, plan = header["recipe"], header["losses"], header["plan"]
    if not isinstance(recipe, dict) or not all(isinstance(value, str) for value in recipe.values()):
        raise ValueError("the recipe is no mapping of texts")
    if not isinstance(losses, list) or not all(isinstance(loss, str) for loss in losses):
        raise ValueError("the losses are no list of names")
    if not isinstance(plan, list):
        raise ValueError("the plan is no list of points")
    points = [Point.from_dict(entry) for entry in plan]
    check_names(points)
    if not losses or not {point.loss for point in points} <= {None, *losses}:
        raise ValueError(f"the plan has points of other losses than {losses}")


def _checked_result(data: Any, point: Point) -> dict[str, Any]:
    """A result as it was read, with counts as overlaps, once it is sure that it is one of this point.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, OverflowError: It is not.
    """
    if Point.from_dict(data["point"]) != point:
        raise ValueError(f"it is of another point, {data['point']}")
    seconds, model, datasets = data["seconds"], data["model"], data["datasets"]
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds!r} is no number of seconds")
    if model is not None and (not isinstance(model, str) or Path(model).name != model):
        raise ValueError(f"{model!r} is no name of a file")
    if point.promise is not None:
        check_lambda(data["lambda_c"])
        if data["verdict"] not in get_args(Word) or not isinstance(data["verdict_text"], str):
            raise ValueError(f"{data['verdict']!r} is no verdict on a promise")
    if not isinstance(datasets, dict) or not datasets or not set(datasets) <= set(DATASETS):
        raise ValueError(f"the data sets are not some of {', '.join(DATASETS)}")
    checked = {}
    for name, found in datasets.items():
        performance = found["performance"]
        if performance is not None:
            numbers = [value for value in performance if value is not None]
            if len(performance) != 2 or not all(type(value) in (int, float) for value in numbers):
                raise ValueError(f"the performances on {name} are no two numbers")
        checked[name] = {"overlap": ErrorOverlap.from_dict(found["overlap"]), "performance": performance}
    return {**data, "datasets": checked}
