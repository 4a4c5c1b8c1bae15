"""The recipe of a sweep: what is done once for all points and at each of them, whatever framework trains."""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from weakref import WeakSet

from bc_core.comparison._comparison import Comparison
from bc_core.comparison._evaluation import performance
from bc_core.losses._blends import PLAIN as PLAIN_H2
from bc_core.losses._blends import TEACHER, check_imitates
from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._mixtures import LABELS, check_beside_unlabelled
from bc_core.losses._options import check_lambda_of, labels_suffice
from bc_core.promise._keeper import Keeper, PromiseOptions
from bc_core.sweep._folder import DATASETS, LOSS, Report, Trained
from bc_core.sweep._generators import Generators
from bc_core.sweep._h1_performance import measured_h1
from bc_core.sweep._points import PLAIN, Point, checked_lambdas, checked_promises, linear_lambdas, planned
from bc_core.sweep._trackers import Tracker, tell

# Seed of the h2 that a folder is known again by, and of what is done once for all: the same, whatever seeds are swept.
_FIRST_SEED = 0
# Arguments of a framework's `sweep` that are those of `Recipe`.
OF_ALL_FRAMEWORKS = (
    *("class_names", "metadata", "performance_metric", "evaluate_on_train", "store_h1", "save_models"),
    *("promises", "promise_data", "promise_options"),
    *("teacher", "plain", "unlabelled", "unlabelled_weight", "mixed_labels"),
)
_CALLED = {"teacher": TEACHER, "plain": PLAIN_H2}


class Framework(NamedTuple):
    """What a recipe asks of a framework in general.

    Attributes:
        model: Class of a model.
        called: What such a model is called.
        draws_from: Where its models draw random numbers from.
        seeded: Random numbers of a seed; afterwards the caller's generators are where they were.
        copied: A copy of a model, with its weights.
        told: A value in short, the same in every process.
        no_loss: What to say of a name that is no loss.
    """

    model: type[Any]
    called: str
    draws_from: str
    seeded: Callable[[int], AbstractContextManager[None]]
    copied: Callable[[Any], Any]
    told: Callable[[Any], str]
    no_loss: str = ""


class Fitted(NamedTuple):
    """What a training leaves: what compares h2 with h1 on a data set, and what kept its promise, if it had one."""

    compare: Callable[[str], Comparison]
    keeper: Keeper | None = None


class Recipe(ABC):
    """How points are trained: the order of things, which is one for all frameworks, over what each of them fills in.

    It travels to other processes by cloudpickle. The names and order of the steps are those of `train` and `prepare`;
    a framework implements the methods that are abstract, and what else it needs more of.

    Args:
        h2: The update as it was given: a model, copied for every point, or a function that makes one.
        losses: What was given as losses.
        known: Names of losses besides those of dissonances.
        class_names: Name of each class.
        metadata: Text of an instance, by id.
        performance_metric: The caller's metric, or None.
        evaluate_on_train: Whether models are compared on the training data too.
        store_h1: Whether h1's outputs are kept and read back while training: True, False or "auto".
        save_models: Whether each h2 is kept.
        promises: What further points are held to instead of a lambda_c.
        promise_data: Held-out data for these; None for the validation data.
        promise_options: How they are kept.
        teacher: What is imitated in place of h1.
        plain: What is imitated where h2 is right.
        unlabelled: Inputs on which h2 imitates too.
        unlabelled_weight: What these count.
        mixed_labels: The share of the labels in what h2 is taught of mixtures.

    Raises:
        TypeError: One of these is of a wrong kind.
        ValueError: One is out of range.
    """

    framework: ClassVar[Framework]

    # The model in use, and whether all losses are one and the same training at lambda_c = 0; set by the framework.
    h1: Any
    shares_plain: bool

    def __init__(
        self,
        h2: Any,
        losses: Any,
        known: Sequence[str],
        *,
        class_names: Sequence[str] | None,
        metadata: Any,
        performance_metric: Callable[[Any, Any, Any], Any] | None,
        evaluate_on_train: bool,
        store_h1: bool | str,
        save_models: bool,
        promises: Any = None,
        promise_data: Any = None,
        promise_options: Mapping[str, Any] | None = None,
        teacher: Any = None,
        plain: Any = None,
        unlabelled: Any = None,
        unlabelled_weight: float = 1.0,
        mixed_labels: float = LABELS,
    ) -> None:
        if store_h1 not in (True, False, "auto"):
            raise ValueError(f"store_h1 must be True, False or 'auto'. Received: store_h1={store_h1!r}.")
        if performance_metric is not None and not callable(performance_metric):
            raise TypeError(
                "performance_metric must be a function (model, dataset, device). Received: "
                f"performance_metric={performance_metric!r}."
            )
        if not isinstance(h2, self.framework.model) and not callable(h2):
            raise TypeError(f"h2 must be {self.framework.called}, or a function that makes one. Received: h2={h2!r}.")
        self.h2 = h2
        self.losses = self._named_losses(losses, known)
        self.class_names = None if class_names is None else tuple(class_names)
        self.metadata = metadata
        self.performance_metric = performance_metric
        self.evaluate_on_train = evaluate_on_train
        self.store_h1 = store_h1
        self.save_models = save_models
        self.promises, self.promise_data = checked_promises(promises), promise_data
        self.promise_options = None if promise_options is None else dict(promise_options)
        for promise in self.promises:
            PromiseOptions.of(promise, self.promise_options)
        check_beside_unlabelled(unlabelled, unlabelled_weight, mixed_labels)
        # What is asked or read beside h1, under the names of what trains.
        self.beside = {"teacher": teacher, "plain": plain, "unlabelled": unlabelled}
        self.unlabelled_weight, self.mixed_labels = unlabelled_weight, mixed_labels
        self.ids: Any = None
        self.generators = Generators([])
        # Set by what runs the sweep, and by `prepare`.
        self.trackers: Sequence[Tracker] = ()
        self.folder: Path | None = None
        self.h1_performances: dict[str, float] = {}
        self._made: WeakSet[Any] = WeakSet()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": WeakSet()}

    def _named_losses(self, losses: Any, known: Sequence[str]) -> dict[str, Any]:
        """Losses by the names that they have in the table."""
        if isinstance(losses, str):
            losses = [losses]
        if not isinstance(losses, Mapping | Sequence) or not all(isinstance(name, str) for name in losses):
            raise TypeError(f"losses must be names, or a dictionary of names and losses. Received: losses={losses!r}.")
        if not losses:
            raise ValueError("losses must name at least one loss. Received: none.")
        given = dict(losses) if isinstance(losses, Mapping) else {name: name for name in losses}
        names = (*DISSONANCES, *known)
        for loss in given.values():
            if isinstance(loss, str) and loss not in names:
                near = difflib.get_close_matches(loss, names, n=1)
                raise ValueError(
                    f"losses must be of {', '.join(map(repr, names))}{f'; perhaps {near[0]!r}' if near else ''}."
                    f"{self.framework.no_loss} Received: {loss!r}."
                )
        return given

    # What it is

    def describe(self) -> dict[str, str]:
        """What decides the results, by name, in short.

        Raises:
            ValueError: h2 is made otherwise each time, so that points would not start alike.
        """
        with self.framework.seeded(_FIRST_SEED):
            again, _ = self._name_of(self.made_h2())
        if again != self._weights:
            raise ValueError(
                "h2 must make the same model whenever the seed is the same, so that all points start alike, and it "
                f"made two different ones: draw its random numbers from {self.framework.draws_from}, or from "
                f"generators that it makes itself. Received: h2={self.h2!r}."
            )
        return {
            "h2 before training": f"{self._weights} {self._structure}".strip(),
            **self._described(),
            "ids": self.framework.told(self.ids),
            "class_names": self.framework.told(self.class_names),
            "performance_metric": self.framework.told(self.performance_metric),
            "evaluated on training data": str(self.evaluate_on_train),
            **{f"{LOSS}{name}": self.framework.told(self._criterion(name)) for name in self.losses},
            **self._described_beside(),
        }

    def _described_beside(self) -> dict[str, str]:
        """What was given beside h1, and nothing of what was not."""
        told = {name: self._told_beside(name, given) for name, given in self.beside.items() if given is not None}
        if self.beside["unlabelled"] is not None:
            told["unlabelled_weight"] = f"{self.unlabelled_weight:g}"
            if isinstance(self.beside["unlabelled"], str):
                told["mixed_labels"] = f"{self.mixed_labels:g}"
        if self.promise_options:
            told["promise_options"] = self.framework.told(self.promise_options)
        if self.promise_data is not None:
            told["promise_data"] = self._told_beside("promise_data", self.promise_data)
        return told

    @abstractmethod
    def _told_beside(self, name: str, given: Any) -> str:
        """A teacher, or data, in short."""

    def environment(self, threads: int) -> dict[str, str]:
        """Environment variables of a worker process that computes with so many threads."""
        return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}

    @property
    def evaluated(self) -> list[str]:
        """Names of the data sets that points are compared on."""
        return [name for name in self._datasets if name != "train" or self.evaluate_on_train]

    def made_h2(self) -> Any:
        """An h2 as it is before the training.

        Raises:
            TypeError: h2 makes something else.
            ValueError: h2 makes the same one again.
        """
        if isinstance(self.h2, self.framework.model):
            return self.framework.copied(self.h2)
        made = self.h2()
        if not isinstance(made, self.framework.model):
            raise TypeError(f"h2 must make {self.framework.called}. Received from h2(): {type(made).__name__}.")
        if made in self._made:
            raise ValueError(
                "h2 must make a new model at each call, as every point trains its own, and it gave the same one twice: "
                "make the model inside the function, or pass the model itself, which is copied."
            )
        self._made.add(made)
        return made

    def _look_at_h2(self) -> Any:
        """Make an h2, remember what it is, and see what does not fit it before the first hour of training."""
        with self.framework.seeded(_FIRST_SEED):
            first = self.made_h2()
            self._weights, self._structure = self._name_of(first)
            self._check(first)
        return first

    def _loss_of(self, point: Point) -> str:
        """Name of the loss that a point is trained with; plain training is any of them at lambda_c = 0."""
        return next(iter(self.losses)) if point.loss is None else point.loss

    # Once for all points

    def prepare(self, folder: Path) -> None:
        """Ask h1 about all data, once; taken up where an interrupted call stopped."""
        self.folder = folder
        with self.framework.seeded(_FIRST_SEED):
            data = self._made_data()
            for name in DATASETS:
                if name in data and (name in self.evaluated or self._trains_on_kept):
                    self._keep_h1(name, data[name], folder / "h1" / name)
            for who in ("teacher", "plain"):
                if self.beside[who] is not None and self._trains_on_kept:
                    for name in (name for name in ("train", "val") if name in data):
                        self._keep_beside(who, name, data[name], folder / who / name)
            if self.performance_metric is not None:
                h1 = self._measured_h1()
                with self._evaluating(h1):
                    self.h1_performances = measured_h1(
                        self.performance_metric, h1, data, self.evaluated, folder / "h1" / "performance.json"
                    )

    # One point

    def train(self, point: Point, directory: Path, report: Report) -> Trained:
        """Train and evaluate one point."""
        try:
            with self.framework.seeded(point.seed):
                self.generators.rewind()
                trained = self._trained(point, directory, report)
        finally:
            self.generators.rewind(to_the_call=True)
        tell(self.trackers, "point_trained", point, trained)
        return trained

    def _trained(self, point: Point, directory: Path, report: Report) -> Trained:
        tell(self.trackers, "point_begun", point)
        h2, data = self.made_h2(), self._made_data()
        compare, keeper = self._fit(h2, data, point, report)
        self._check_finite(h2)
        lambda_c = point.lambda_c if keeper is None else keeper.lambda_c
        name = (point.loss or PLAIN) if point.promise is None else f"{point.loss}, {point.promise}"
        comparisons, performances = {}, {}
        for dataset in self.evaluated:
            # A model's own lambda_c is a float32, and a scheduler may have moved it.
            comparisons[dataset] = dataclasses.replace(compare(dataset), name=name, lambda_c=lambda_c)
            if self.performance_metric is not None:
                with self._evaluating(h2):
                    value = performance(self.performance_metric(h2, data[dataset], self._device_of(h2)), "h2")
                performances[dataset] = (self.h1_performances[dataset], value)
        saved = self._saved(h2, directory) if self.save_models else None
        return Trained(comparisons, performances, saved, lambda_c, None if keeper is None else keeper.verdict)

    def _check_finite(self, h2: Any) -> None:
        """Refuse a model whose predictions say nothing.

        Raises:
            ValueError: A weight is NaN or infinite.
        """
        if (path := self._not_finite(h2)) is not None:
            raise ValueError(
                f"The training diverged: the weight {path} of h2 is NaN or infinite. Take a smaller learning "
                "rate, or gradient clipping."
            )

    # What a framework fills in

    @property
    @abstractmethod
    def _datasets(self) -> Sequence[str]:
        """Names of the data sets, in the order in which they are shown."""

    @property
    @abstractmethod
    def _trains_on_kept(self) -> bool:
        """Whether the training reads h1's kept outputs, as far as is known before they are kept."""

    @abstractmethod
    def _described(self) -> dict[str, str]:
        """What else decides the results: framework, h1, the data, the options of its own."""

    @abstractmethod
    def _name_of(self, h2: Any) -> tuple[str, str]:
        """What an h2 is before training, in short: its weights; and what else there is, such as structure and code."""

    @abstractmethod
    def _check(self, h2: Any) -> None:
        """Wrap an h2 with each loss, as a point is, so that what does not fit is told."""

    def _criterion(self, name: str) -> Any:
        """What a loss is, to be told."""
        return self.losses[name]

    @abstractmethod
    def _dissonance_of(self, name: str) -> str:
        """Name of the dissonance of a loss."""

    def _beside_h1(self, point: Point) -> dict[str, Any]:
        """What of `beside` takes part in the training of a point: the models that its loss imitates, and inputs."""
        if point.is_plain:
            return {}
        imitates = not labels_suffice(self._dissonance_of(self._loss_of(point)))
        return {
            name: given
            for name, given in self.beside.items()
            if given is not None and (imitates or name not in ("teacher", "plain"))
        }

    def points(self, lambdas: Iterable[float] | None, seeds: Sequence[int]) -> list[Point]:
        """What is trained: each loss with each lambda_c that it may have, and held to each promise.

        Raises:
            TypeError: lambdas are no numbers.
            ValueError: lambda_c of a dissonance that has an upper limit lies beyond it.
        """
        grids = {name: self._grid_of(name, lambdas) for name in self.losses}
        starts = {name: self._start_of(name) for name in self.losses} if self.promises else {}
        return planned(list(self.losses), grids, seeds, self.shares_plain, self.promises, starts)

    def _grid_of(self, name: str, lambdas: Iterable[float] | None) -> list[float]:
        if lambdas is None and self.promises:
            return [0.0]
        most = DISSONANCES[self._dissonance_of(name)].most_lambda
        if lambdas is None and most is not None:
            return linear_lambdas(most / 4, most)
        values = checked_lambdas(lambdas)
        check_lambda_of(self._dissonance_of(name), max(values))
        return values

    def _start_of(self, name: str) -> float:
        return PromiseOptions.of(self.promises[0], self.promise_options).limits(self._dissonance_of(name))[0]

    def _trial_points(self) -> list[Point]:
        """A point of each loss, and one that is held to each promise: what is wrapped to see whether it fits."""
        held = [Point(name, self._start_of(name), _FIRST_SEED, each) for each in self.promises for name in self.losses]
        return [*(Point(name, 1.0, _FIRST_SEED) for name in self.losses), *held]

    def _check_held_out(self) -> None:
        """Refuse promises without data that show whether they are kept.

        Raises:
            TypeError: What belongs to promises, and none.
            ValueError: No held-out data.
        """
        for name, given in (("promise_data", self.promise_data), ("promise_options", self.promise_options)):
            if given is not None and not self.promises:
                raise TypeError(f"{name} without promises: say which, such as promises=['nfr <= 1%', 'nfr <= 0.5%'].")
        if self.promises and self.promise_data is None and "val" not in self._datasets:
            raise ValueError(
                "Whether a promise is kept is looked at on held-out data: sweep with val=..., or promise_data=.... "
                f"Received: neither, and promises={self.promises!r}."
            )
        imitating = [name for name in self.losses if not labels_suffice(self._dissonance_of(name))]
        for name in ("teacher", "plain"):
            if self.beside[name] is not None and not imitating:
                check_imitates(self._dissonance_of(next(iter(self.losses))), _CALLED[name])

    @abstractmethod
    def _made_data(self) -> dict[str, Any]:
        """The data sets by name, made anew where functions make them."""

    @abstractmethod
    def _keep_h1(self, name: str, data: Any, path: Path) -> None:
        """Ask h1 about a data set and keep what it says, if that can be read back."""

    @abstractmethod
    def _keep_beside(self, who: str, name: str, data: Any, path: Path) -> None:
        """The same of the teacher or the plain h2, about data that are trained or validated on."""

    @abstractmethod
    def _fit(self, h2: Any, data: Mapping[str, Any], point: Point, report: Report) -> Fitted:
        """Train h2, which is a plain model again afterwards."""

    @abstractmethod
    def _not_finite(self, h2: Any) -> str | None:
        """Name of a weight that is NaN or infinite."""

    @abstractmethod
    def _saved(self, h2: Any, directory: Path) -> str:
        """Save a model; returns the name of its file."""

    def _measured_h1(self) -> Any:
        """What the caller's metric is given as h1; None where h1 is stored answers, which are no model."""
        return self.h1

    def _evaluating(self, model: Any) -> AbstractContextManager[None]:
        """The modes in which the caller's metric asks a model."""
        return nullcontext()

    def _device_of(self, model: Any) -> Any:
        """What the caller's metric is given as the device of a model."""
        return "cpu"
