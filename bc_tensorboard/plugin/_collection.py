"""Comparisons as a view shows them away from TensorBoard: by run, data set and step, with texts and images."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from bc_core import Comparison
from bc_core._numbers import check_count
from bc_core.comparison._comparison import Id
from bc_tensorboard.writing._by_id import TextsById, by_id
from bc_tensorboard.writing._format import encode_comparison
from bc_tensorboard.writing._images import images_by_id, pictures
from bc_tensorboard.writing._media import EXCERPT, encode_known, excerpts_of
from bc_tensorboard.writing._training import told_of_training

UNNAMED = "comparison"
# A number in JavaScript holds every integer up to here.
_LARGEST_STEP = 2**53 - 1
# Longest side of the pictures that a notebook is sent when one is enlarged, in pixels.
_FULL_SIZE = 1024

Texts = Mapping[Any, str] | Callable[[Any], str] | Sequence[str]
Dissonance = str | Mapping[str, str] | None
Settings = Mapping[str, str | float] | Mapping[str, Mapping[str, str | float]] | None


class NotShownError(LookupError):
    """Something that was asked for is not in the view.

    Args:
        message: What is not there.
        advice: What to do about it.
    """

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


class _Given(NamedTuple):
    """One comparison as it was given."""

    comparison: Comparison
    run: str | None
    dataset: str
    dissonance: str | None
    uncertain_classes: tuple[int, ...]
    evaluation: int | None
    training: dict[str, Any]


@dataclass
class _Step:
    comparison: Comparison
    uncertain_classes: tuple[int, ...]
    wall_time: float | None


@dataclass
class ShownSeries:
    """A run on a data set, over its steps."""

    run: str
    dataset: str
    dissonance: str | None
    images: Any
    metadata: Texts | None
    steps: dict[int, _Step] = field(default_factory=dict)
    # What is told of its training, as in the index.
    training: dict[str, Any] = field(default_factory=dict)
    # Ids of all error instances by how they are written; made when first asked for.
    ids: dict[str, Id] | None = None
    # The same of their texts.
    texts: dict[Id, str] | None = None


class Collection:
    """Comparisons by run, data set and step, and what a view asks for: the index, tables, texts and images.

    Args:
        image_size: Longer side of the thumbnails, in pixels.
    """

    def __init__(self, image_size: int = 96) -> None:
        check_count(image_size, "image_size")
        self.image_size = image_size
        self._series: dict[tuple[str, str], ShownSeries] = {}
        self._unnamed = 0
        self.warnings: list[str] = []
        # Share of a running sweep that is done.
        self.progress: float | None = None

    def copy(self) -> Collection:
        """A collection of the same; what is added to it is not in this one."""
        other = Collection(self.image_size)
        other._series = {key: replace(series, steps=dict(series.steps)) for key, series in self._series.items()}
        other._unnamed = self._unnamed
        other.warnings, other.progress = list(self.warnings), self.progress
        return other

    def add(
        self,
        comparisons: Any,
        *,
        dataset: str = "test",
        dissonance: Dissonance = None,
        settings: Settings = None,
        images: Any = None,
        metadata: Texts | None = None,
        wall_time: float | None = None,
    ) -> list[tuple[str, str, int]]:
        """Add comparisons; one of the same run, data set and step takes the place of the earlier one.

        Args:
            comparisons: As `bc_tensorboard.to_html` takes them.
            dataset: Name of the data set, where the comparisons do not say.
            dissonance: How h2 was trained, for all, or by run.
            settings: What else it was trained with, for all, or by run.
            images: Images of the instances, for all, or by data set.
            metadata: Texts of the instances, in place of those in the comparisons.
            wall_time: Seconds since 1970.

        Returns:
            Run, data set and step of each of them.

        Raises:
            TypeError: If something is no comparison, or images or texts are of an unknown kind.
            ValueError: If two comparisons would take one place, or there is no name for the data set.
        """
        given = list(_flattened(comparisons, dataset, dissonance, settings))
        if metadata is not None:
            by_id(metadata, "metadata")
        by_dataset = isinstance(images, Mapping) and (
            any(one.dataset in images for one in given)
            or (bool(images) and all(isinstance(source, Mapping) or callable(source) for source in images.values()))
        )
        for source in images.values() if by_dataset else [images]:
            if source is not None:
                by_id(source, "images")  # refuses what nothing can be asked of, before anything changes
        placed = self._placed(given)
        for one, run, step in placed:
            source = images.get(one.dataset) if by_dataset else images
            series = self._series.setdefault(
                (run, one.dataset), ShownSeries(run, one.dataset, one.dissonance, source, metadata)
            )
            series.dissonance = one.dissonance if one.dissonance is not None else series.dissonance
            series.training = one.training or series.training
            series.images = source if source is not None else series.images
            series.metadata = metadata if metadata is not None else series.metadata
            series.steps[step] = _Step(one.comparison, one.uncertain_classes, wall_time)
            series.ids = series.texts = None
        return [(run, one.dataset, step) for one, run, step in placed]

    @property
    def runs(self) -> list[str]:
        """Names of the runs, in the order in which they came."""
        return list(dict.fromkeys(run for run, _ in self._series))

    @property
    def keys(self) -> list[tuple[str, str, int]]:
        """Run, data set and step of each comparison."""
        return [(*key, step) for key, series in self._series.items() for step in sorted(series.steps)]

    def comparison(self, run: str, dataset: str, step: int) -> Comparison:
        """The comparison at a place."""
        return self._step(run, dataset, step).comparison

    def index(self) -> dict[str, Any]:
        """What a view lists: every series with the counts of its steps, ready for JSON."""
        return {
            "series": [
                {
                    "run": series.run,
                    "dataset": series.dataset,
                    "dissonance": series.dissonance,
                    "num_classes": max(step.comparison.overlap.num_classes for step in series.steps.values()),
                    **series.training,
                    "has_media": has_media(series),
                    "steps": [_row(number, series.steps[number]) for number in sorted(series.steps)],
                }
                for series in self._series.values()
            ],
            "warnings": [_plain(warning) for warning in self.warnings],
            "progress": self.progress,
        }

    def table(self, run: str, dataset: str, step: int) -> bytes:
        """Encode the comparison at a place; its texts are those of `media`.

        Raises:
            NotShownError: If there is none.
        """
        found = self._step(run, dataset, step)
        return encode_comparison(
            found.comparison,
            dataset=dataset,
            dissonance=self._series[run, dataset].dissonance,
            uncertain_classes=found.uncertain_classes,
            metadata=False,
        )

    def media(self, run: str, dataset: str) -> bytes | None:
        """Encode the texts of a series, once for all its steps, and of which instances images may be asked for.

        Args:
            run: Name of the run.
            dataset: Name of the data set.

        Returns:
            The encoded media; None if there are neither texts nor images.

        Raises:
            NotShownError: If there is no such series.
        """
        series = self._find(run, dataset)
        if not has_media(series):
            return None
        asked = series.images
        pictured = [] if asked is None else self._ids(series).values()
        if isinstance(asked, Mapping):
            pictured = [instance for instance in pictured if instance in asked]
        shown, longer = excerpts_of(texts_of(series))
        return encode_known(self._ids(series).values(), shown, set(pictured), longer=longer)

    def text(self, run: str, dataset: str, instance: Any) -> str | None:
        """The whole text of an instance; None if it has none.

        Raises:
            NotShownError: If there is no such series or instance.
        """
        series = self._find(run, dataset)
        return texts_of(series).get(self._instance(series, instance))

    def search(self, run: str, dataset: str, wanted: Any) -> list[str]:
        """Ids, as they are written, of the instances whose whole text contains another, in any case of letters.

        Only texts that are longer than what `media` holds of them are searched.

        Raises:
            NotShownError: If there is no such series.
        """
        lower = str(wanted).lower()
        texts = texts_of(self._find(run, dataset)).items()
        return [str(instance) for instance, text in texts if len(text) > EXCERPT and lower in text.lower()]

    def image(self, run: str, dataset: str, instance: Any, full: bool = False) -> bytes | None:
        """Make the thumbnail of an instance; None if it has no image.

        Args:
            run: Name of the run.
            dataset: Name of the data set.
            instance: Id of an error instance, or how it is written.
            full: Whether to make the larger picture, where the image is larger than the thumbnail.

        Raises:
            NotShownError: If there is no such series or instance.
            Exception: Whatever the caller's images raise.
        """
        series = self._find(run, dataset)
        known = self._instance(series, instance)
        if series.images is None:
            return None
        small, larger = pictures(images_by_id(series.images)(known), self.image_size, _FULL_SIZE if full else 0)
        return small if larger is None else larger

    def _instance(self, series: ShownSeries, instance: Any) -> Id:
        if isinstance(instance, float) and instance.is_integer():
            instance = int(instance)  # JavaScript has one kind of number
        known = self._ids(series).get(str(instance))
        if known is None:
            raise NotShownError(
                f"There is no error instance {str(instance)[:80]} in the run {series.run[:200]!r} on "
                f"{series.dataset[:200]!r}.",
                "The view may be older than its data: run the cell that shows it again.",
            )
        return known

    def series(self) -> list[ShownSeries]:
        """Every run on every data set, in the order in which they came."""
        return list(self._series.values())

    def _placed(self, given: list[_Given]) -> list[tuple[_Given, str, int]]:
        """Find the run and the step of each comparison."""
        groups: dict[tuple[str, str], list[_Given]] = {}
        unnamed = self._unnamed
        for one in given:
            base = one.run
            if base is None and one.comparison.step is not None:
                base = UNNAMED
            elif base is None:
                unnamed += 1
                base = f"{UNNAMED} {unnamed}"
            groups.setdefault((base, one.dataset), []).append(one)
        placed = []
        for (base, dataset), members in groups.items():
            runs, steps = _runs_and_steps(base, members)
            taken = set()
            for one, found, step in zip(members, runs, steps, strict=True):
                run, weight = found, one.comparison.lambda_c
                there = self._series[run, dataset].steps.get(step) if (run, dataset) in self._series else None
                if there is not None and weight is not None and there.comparison.lambda_c != weight:
                    # The next point of a sweep that is added one by one.
                    run = point_name(base, weight)
                if (run, step) in taken:
                    raise ValueError(
                        f"comparisons: two of the run {run[:200]!r} on {dataset!r} have the step {step}; name them "
                        "apart, compare(..., name=...), or give a dictionary of run name and comparison"
                    )
                taken.add((run, step))
                placed.append((one, run, step))
        self._unnamed = unnamed
        return placed

    def _find(self, run: Any, dataset: Any) -> ShownSeries:
        series = self._series.get((run, dataset)) if isinstance(run, str) and isinstance(dataset, str) else None
        if series is None:
            raise NotShownError(
                f"There is no comparison of the run {str(run)[:200]!r} on the data set {str(dataset)[:200]!r} here.",
                "Choose a run of the list; if it is in the list, run the cell that shows the view again.",
            )
        return series

    def _step(self, run: Any, dataset: Any, step: Any) -> _Step:
        series = self._find(run, dataset)
        # JavaScript has one kind of number, and 3.0 finds 3.
        found = series.steps.get(cast("int", step)) if isinstance(step, (int, float)) else None
        if found is None:
            steps = ", ".join(map(str, sorted(series.steps)[-5:]))
            raise NotShownError(
                f"The run {run[:200]!r} has no step {str(step)[:80]} on the data set {dataset[:200]!r}.",
                f"Its last steps are {steps}.",
            )
        return found

    def _ids(self, series: ShownSeries) -> dict[str, Id]:
        if series.ids is None:
            series.ids = {
                str(instance): instance
                for step in series.steps.values()
                for instance in step.comparison.instances.ids.tolist()
            }
        return series.ids


def _flattened(comparisons: Any, dataset: str, dissonance: Dissonance, settings: Settings) -> Iterator[_Given]:
    if isinstance(comparisons, Mapping):
        for run, members in comparisons.items():
            if not isinstance(run, str) or not run:
                raise TypeError(f"comparisons: expected names of runs as keys, got {run!r}")
            by_dataset = members if isinstance(members, Mapping) else {dataset: members}
            for name, several in by_dataset.items():
                for one in _items(several):
                    yield _given(one, run, name, dissonance, settings)
        return
    for one in _items(comparisons):
        yield _given(one, None, dataset, dissonance, settings)


def _items(comparisons: Any) -> Iterable[Any]:
    if isinstance(comparisons, Comparison) or hasattr(comparisons, "comparison"):
        return [comparisons]
    if isinstance(comparisons, (str, bytes)) or not hasattr(comparisons, "__iter__"):
        raise _no_comparison(comparisons)
    items: Iterable[Any] = comparisons
    return items


def _given(one: Any, run: str | None, dataset: Any, dissonance: Dissonance, settings: Settings) -> _Given:
    comparison = getattr(one, "comparison", one)
    if not isinstance(comparison, Comparison):
        raise _no_comparison(one)
    # An evaluation of a sweep knows more than its comparison.
    dataset = getattr(one, "dataset", dataset)
    if not isinstance(dataset, str) or not dataset:
        raise ValueError(f"dataset: expected a name such as 'test', got {dataset!r}")
    own = getattr(one, "dissonance", None)
    name = run or comparison.name or None
    said = _settings_of(settings, name or UNNAMED, getattr(one, "settings", None))
    if own is None:
        own = dissonance.get(name or UNNAMED) if isinstance(dissonance, Mapping) else dissonance
    elif run is not None:
        # Its own name says the dissonance too.
        name = f"{run}, {own}"
    return _Given(
        comparison,
        None if name is None else _plain(name),
        _plain(dataset),
        None if own is None else _plain(own),
        tuple(getattr(one, "uncertain_classes", ())),
        getattr(one, "datapoint_index", None),
        told_of_training(said, getattr(one, "performance", None)),
    )


def _settings_of(settings: Settings, run: str, own: Any) -> Any:
    """What is said of a run beside what one of its comparisons says itself."""
    given: Any = settings
    if given and isinstance(given, Mapping) and all(isinstance(each, Mapping) for each in given.values()):
        given = given.get(run)
    return {**(given or {}), **own} if own else given


def _no_comparison(value: Any) -> TypeError:
    return TypeError(
        "comparisons: expected what bc_core.compare or read_original_sweep returns, a list of these, or a dictionary "
        f"from the name of a run to one or a list of them, got {type(value).__name__}"
    )


def _plain(name: str) -> str:
    # NUL separates names in keys, and half a surrogate pair has no UTF-8.
    return name.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _runs_and_steps(base: str, members: list[_Given]) -> tuple[list[str], list[int]]:
    """Tell comparisons of one name apart: by step, or as the points of a sweep, or by their order."""
    steps = [one.comparison.step for one in members]
    lambdas = [one.comparison.lambda_c for one in members]
    of_sweep = any(one.evaluation is not None for one in members)
    if not of_sweep and None not in steps and len(set(steps)) == len(steps):
        return [base] * len(members), [_checked_step(step) for step in steps]
    if of_sweep or (
        len(members) > 1 and None not in lambdas and len(set(zip(lambdas, steps, strict=True))) == len(members)
    ):
        runs = [base if weight is None else point_name(base, weight) for weight in lambdas]
        numbered = [
            f"{run}, evaluation {one.evaluation}" if runs.count(run) > 1 and one.evaluation is not None else run
            for run, one in zip(runs, members, strict=True)
        ]
        return numbered, [_checked_step(step) for step in steps]
    if all(step is None for step in steps):
        return [base] * len(members), list(range(len(members)))
    return [base] * len(members), [_checked_step(step) for step in steps]


def point_name(run: str, weight: float) -> str:
    """Name a point of a sweep apart from the others of its run."""
    short = f"{weight:g}" if float(f"{weight:g}") == weight else repr(weight)
    return f"{run}, lambda_c {short}"


def _checked_step(step: int | None) -> int:
    number = 0 if step is None else operator.index(step)
    if abs(number) > _LARGEST_STEP:
        raise ValueError(f"step: expected a number below 2**53, which is as far as a browser counts, got {number}")
    return number


def _row(number: int, step: _Step) -> list[Any]:
    cells = step.comparison.overlap.counts.sum(axis=0).ravel().tolist()
    return [number, step.wall_time, step.comparison.lambda_c, *cells]


def has_media(series: ShownSeries) -> bool:
    tables = [step.comparison.instances for step in series.steps.values()]
    return series.images is not None or any(
        len(table) and (series.metadata is not None or table.metadata is not None) for table in tables
    )


def texts_of(series: ShownSeries) -> dict[Id, str]:
    if series.texts is not None:
        return series.texts
    texts: dict[Id, str] = {}
    ask = None if series.metadata is None else TextsById(series.metadata)
    for number in sorted(series.steps):
        table = series.steps[number].comparison.instances
        ids = table.ids.tolist()
        if ask is not None:
            for instance in ids:
                if instance not in texts:
                    text = ask(instance)
                    texts[instance] = "" if text is None else str(text)
        elif table.metadata is not None:
            pairs = zip(ids, table.metadata.tolist(), strict=True)
            texts.update({instance: text for instance, text in pairs if text})
    if ask is not None and (complaint := ask.complaint()):
        warnings.warn(complaint, stacklevel=2)
    series.texts = texts
    return texts
