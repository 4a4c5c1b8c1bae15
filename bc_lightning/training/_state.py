"""What a wrapped module carries beside itself, by its life: what was said, a run, a stage's epoch.

Each object is made by the hook that begins its life and dropped by the one that ends it; what a batch captures is in
`bc_lightning.training.step._step`. Nothing here is an nn.Module or hangs on one, so nothing of it reaches a
checkpoint, a copy or an exported model but the plain values of `Compatibility.checkpoint_entry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from bc_core.losses._blends import H1, PLAIN, TEACHER
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.reference._reference import Reference
from bc_lightning.training.comparisons._comparisons import EpochInstances, LogComparisons
from bc_lightning.training.comparisons._epoch_record import LOGGED_NAMES, NEW_CLASSES_NAMES, EpochRecord
from bc_lightning.training.watching._calls import Call
from bc_lightning.training.watching._moved_rows import AsBrought

if TYPE_CHECKING:
    from bc_core.promise._keeper import PromiseOptions
    from bc_lightning.training.promise._promise import Promised
    from bc_lightning.training.step._step import Step
    from bc_lightning.training.step._unlabelled import Batches, Unlabelled

Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")
CHECKPOINT_KEY = "backward_compatibility"
UNLABELLED = "train_unlabelled_dissonance"

Scores = str | Callable[[Any], Tensor] | None
Where = str | int | Callable[[Any], Any] | None
WhichCall = str | int | Callable[[list[Call]], int] | None


@dataclass(frozen=True)
class Options:
    """What the user said, once; `BCLightningModule` documents each."""

    reference: Reference
    loss: CompatibilityLoss
    schedule: Callable[[float], float] | None = None
    scores: Scores = None
    target: Where = None
    inputs: Where = None
    class_axis: int | None = None
    call: WhichCall = None
    stages: tuple[Stage, ...] = STAGES
    log_prefix: str = ""
    comparisons: LogComparisons | None = None
    # Whether our steps stand in for those that a plain module lacks, so that the base loss is ours too.
    supplies_base: bool = False
    promise: PromiseOptions | None = None
    # Held-out data for the promise; None for the validation data.
    promise_data: Any = None
    # What is imitated in place of h1, and what where h2 is right.
    teacher: Reference | None = None
    plain: Reference | None = None
    unlabelled: Unlabelled | None = None

    @property
    def mixes(self) -> bool:
        """Whether the inputs of each training batch are mixed."""
        given = self.unlabelled
        return given is not None and given.is_mixed and given.weight > 0 and not self.lambda_is_zero

    @property
    def moves_lambda(self) -> bool:
        """Whether lambda_c is a tensor that a schedule or a promise fills."""
        return self.schedule is not None or self.promise is not None

    @property
    def lambda_is_zero(self) -> bool:
        """Whether training is plain training, to the bit."""
        return self.schedule is None and not isinstance(self.loss.lambda_c, Tensor) and self.loss.lambda_c == 0

    @property
    def logged_names(self) -> frozenset[str]:
        """The names that are ours in the Trainer's logs."""
        class_map = self.reference.class_map
        of_epoch = (*LOGGED_NAMES, *(NEW_CLASSES_NAMES if class_map is not None and class_map.new else ()))
        names = {f"{self.log_prefix}{stage}_{name}" for stage in self.stages for name in of_epoch}
        if self.unlabelled is not None:
            names.add(f"{self.log_prefix}{UNLABELLED}")
        others = ["lambda_c"] if self.moves_lambda else []
        if self.promise is not None:
            others += self.promise.logged_names
        return frozenset(names | {f"{self.log_prefix}{name}" for name in others})


class Incoming(NamedTuple):
    """What was taken out of a batch before the user's own hooks saw it: stored rows and their indices."""

    # h1's.
    rows: Tensor | None = None
    indices: Tensor | None = None
    # Of which data set the rows are, and the batch as the loader brought it.
    source: str | None = None
    brought: AsBrought | None = None
    # Those of the teacher and the plain h2, by what they are called.
    beside: Mapping[str, Tensor | None] = {}  # never changed


class Position(NamedTuple):
    """Which batch is worked on: the loader's number and the batch's, as the Trainer's hooks tell them."""

    dataloader_idx: int
    batch_idx: int | None


class Found(NamedTuple):
    """Which submodules a step calls one after the other, from the batch's input to the scores."""

    names: tuple[str, ...]
    # Whether each is given the very output of the one before, so that h1's can be asked in the same way.
    exact: bool = True

    @property
    def scores(self) -> str:
        """The one that gives the scores."""
        return self.names[-1]


@dataclass
class Epoch:
    """What one epoch of a stage gathers, by the number of the data loader."""

    records: dict[int, EpochRecord] = field(default_factory=dict)
    instances: dict[int, EpochInstances] = field(default_factory=dict)
    # Of each loader: its last batch, and how many instances came before it and in it.
    seen: dict[int, tuple[Position | None, int, int]] = field(default_factory=dict)
    recorded: Position | None = None
    steps: int = 0
    # Mean dissonance of each unlabelled batch.
    unlabelled: list[Tensor] = field(default_factory=list)


@dataclass
class Run:
    """What one run of the Trainer needs: fit, validate or test, from its setup to its teardown."""

    position: Position | None = None
    incoming: Incoming = field(default_factory=Incoming)
    epochs: dict[Stage, Epoch] = field(default_factory=dict)
    # Stages whose first batch was looked at closely.
    looked_at: set[Stage] = field(default_factory=set)
    # The axis of the classes, where the first batch has told it.
    class_axis: int | None = None
    # The same of h1's scores.
    h1_class_axes: dict[str, int] = field(default_factory=dict)
    # Whether h1 or h2 change their input in place, so that h1 needs a copy of what h2 got.
    copies_inputs: bool = False
    # Whether h1 draws from the generators of Python or NumPy.
    h1_draws: bool = False
    # Whether the steps of each epoch have called h2, where they optimise by hand.
    called: set[bool] = field(default_factory=set)
    # What the scores of a step that optimises by hand were computed from: ids of parameters.
    behind_scores: set[int] | None = None
    # Device flags, read only where the Trainer waits for the device anyway.
    first_bad: Tensor | None = None
    # Whose outputs the entries of it are of.
    watched: tuple[str, ...] = (H1, "h2")
    # By what is to be said of them.
    faults: dict[str, Tensor] = field(default_factory=dict)
    other_items: Tensor | None = None
    # Whether a checkpoint of a training was loaded, and the step it was saved at.
    resumed: bool = False
    checkpoint_step: int | None = None
    # Said once a run.
    unnamed: set[str] = field(default_factory=set)
    unlabelled: Batches | None = None
    # The batch whose inputs were mixed last.
    mixed_at: Any = None
    # What the schedule says of this step, where no device has to be asked for it.
    lambda_c: float | None = None

    def epoch(self, stage: Stage) -> Epoch:
        """The epoch that is under way in a stage; outside of a Trainer there is no hook that begins it."""
        return self.epochs.setdefault(stage, Epoch())


class Compatibility:
    """One h1 that a module is held to: the options, and the run, the step and the training under way."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.run = Run()
        self.step: Step | None = None
        # Found in the user's steps: which submodule gives the scores, if that was not said, and which lead to it.
        self.found: dict[Stage, Found] = {}
        # Validation epochs that this training has behind it; goes into checkpoints.
        self.epochs_begun: dict[str, int] = {}
        # What a training that is held to a promise has come to; goes into checkpoints too.
        self.promised: Promised | None = None
        # How often this training has begun to read the loader of unlabelled inputs; goes into checkpoints.
        self.unlabelled_passes = 0
        # How many batches it has mixed; so too.
        self.batches_mixed = 0
        self.moves_along = True
        # While our own values are logged, under the names that are refused to others.
        self.logging = False
        self._compiled: Any = None
        # Called with the step and what h1 is asked, once h2 was called.
        self.notice: Callable[[Step, tuple[Any, ...], dict[str, Any]], None] | None = None

    # What other parts of the package read.

    @property
    def reference(self) -> Reference:
        """The frozen h1."""
        return self.options.reference

    @property
    def references(self) -> dict[str, Reference]:
        """h1, and the teacher and the plain h2 where there are such, by what they are called."""
        given = {H1: self.options.reference, TEACHER: self.options.teacher, PLAIN: self.options.plain}
        return {name: reference for name, reference in given.items() if reference is not None}

    @property
    def lambda_is_zero(self) -> bool:
        """Whether this step is one of plain training, to the bit: always, or by what the schedule says of it."""
        return self.options.lambda_is_zero or self.run.lambda_c == 0

    @property
    def imitated(self) -> Reference:
        """The teacher, or h1."""
        return self.options.teacher or self.options.reference

    @property
    def live(self) -> dict[str, Reference]:
        """Those of them that are asked in the step."""
        return {name: each for name, each in self.references.items() if not each.is_stored}

    @property
    def stored(self) -> str | None:
        """The name of one whose outputs are stored, if there is one."""
        return next((name for name, each in self.references.items() if each.is_stored), None)

    @property
    def loss(self) -> CompatibilityLoss:
        """The loss; its lambda_c is a tensor where a schedule fills it."""
        return self.options.loss

    @property
    def scores(self) -> Scores:
        """What the class scores are: as was said, else as was found in the steps."""
        if self.options.scores is not None:
            return self.options.scores
        return next((found.scores for found in self.found.values()), None)

    @property
    def parts(self) -> tuple[str, ...]:
        """The submodules that the steps were found to call one after the other, each with the last one's output."""
        found = next(iter(self.found.values()), None)
        return found.names if found is not None and found.exact else ()

    def found_in(self, stage: Stage) -> Found | None:
        """What was found in the steps of a stage, or else in training; they may call other parts of h2."""
        return self.found.get(stage, self.found.get("train"))

    def begin_training(self) -> None:
        """Forget what an earlier training has counted."""
        self.epochs_begun = {}
        self.unlabelled_passes = self.batches_mixed = 0

    def go_on_from(self, before: Compatibility) -> None:
        """Count on where another has counted to, to whom the same module was held."""
        self.epochs_begun, self.promised = before.epochs_begun, before.promised
        self.unlabelled_passes, self.batches_mixed = before.unlabelled_passes, before.batches_mixed

    def begin_run(self) -> None:
        """Forget what an earlier run has left, however it ended."""
        self.run = Run()
        self.step = None

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move h1 and the loss to where h2 is moved."""
        if not self.moves_along:
            return
        for reference in self.references.values():
            reference.apply(fn)
        # The loss goes to the same device but keeps its precision: it computes in float32 whatever h2 is.
        device = fn(torch.empty(0)).device
        self.loss.to(device)
        if isinstance(self.loss.lambda_c, Tensor):
            self.loss.lambda_c = self.loss.lambda_c.to(device)

    def compiled_terms(self, compiler: Any) -> Any:
        """The terms of the loss, compiled as the module is."""
        if self._compiled is None:
            self._compiled = compiler(self.loss.terms)
        return self._compiled

    def checkpoint_entry(self, checkpoint: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a checkpoint says of h1; plain values and tensors, so that it loads without this package."""
        promised = {} if self.promised is None else {"promise": self.promised.state_dict(checkpoint or {})}
        others = {"teacher": self.options.teacher, "plain": self.options.plain}
        return {
            "version": 1,
            "h1_fingerprint": self.reference.fingerprint,
            **{f"{name}_fingerprint": each.fingerprint for name, each in others.items() if each is not None},
            "loss": repr(self.loss),
            "validation_epochs": self.epochs_begun.get("val", 0),
            **promised,
            **({} if self.options.unlabelled is None else {"unlabelled_passes": self.unlabelled_passes}),
            **({} if not self.options.mixes else {"batches_mixed": self.batches_mixed}),
        }

    def resume(self, entry: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> None:
        """Go on where the training that wrote a checkpoint stood."""
        self.run.resumed = True
        self.epochs_begun = {"val": int(entry.get("validation_epochs", 0))}
        if self.promised is not None and "promise" in entry:
            self.promised.load_state_dict(entry["promise"], checkpoint)
        self.unlabelled_passes = int(entry.get("unlabelled_passes", 0))
        self.batches_mixed = int(entry.get("batches_mixed", 0))

    def __getstate__(self) -> dict[str, Any]:
        # A copy or a pickle is of the model; a run is the Trainer's.
        return {**self.__dict__, "run": Run(), "step": None, "notice": None, "_compiled": None}


def compatibilities_of(module: Any) -> list[Compatibility]:
    """What a wrapped module is held to, or an empty list."""
    found: list[Compatibility] = getattr(module, "__dict__", {}).get("_compatibilities", [])
    return found
