"""`CompatibilityCallback`: what `BCLightningModule` does, with no change to the user's code."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bc_core import Promise, PromiseVerdict
from bc_core.losses._mixtures import LABELS, WEIGHT, check_beside_unlabelled
from bc_core.reference._weights import check_start_from
from bc_lightning._packages import Callback
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.losses._losses import ModelLoss
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._stored import StoredOutputs
from bc_lightning.training._module import BCLightningModule, criterion_of, promised_by, unwrap
from bc_lightning.training._state import STAGES, Compatibility, compatibilities_of
from bc_lightning.training._warm_start import weights_behind
from bc_lightning.training._wrapped import key_of
from bc_lightning.training.comparisons._comparisons import LogComparisons

_OWN = ("self", "h1", "start_from", "__class__")


class CompatibilityCallback(Callback):
    """Train and evaluate any LightningModule against h1, by adding one entry to ``Trainer(callbacks=[...])``.

    The module is wrapped when fit, validate or test begins, and is the user's own again when it ends.

    Args:
        h1: the reference, as in `BCLightningModule`.
        loss: as in `BCLightningModule`, and so are the others.
        lambda_c: weight of the dissonance, >= 0, or a schedule.
        loss_options: options for a loss given by name.
        scores: what the class scores are, if not what forward returns.
        h1_scores: the same for h1, where it differs.
        target: where the target is in a batch.
        class_axis: which axis of scores with more than two holds the classes.
        call: which call counts where a step calls h2 several times.
        inputs: where h1's input is in a batch, if it is not what h2 was called with.
        class_map: for an h1 with other classes.
        stages: the stages that are watched.
        log_prefix: put before every logged name.
        start_from: as in `BCLightningModule`, when a module's first fit with this callback begins, unless it resumes
            from a checkpoint.
        comparisons: as in `BCLightningModule`.
        promise: instead of `lambda_c`, what is to be kept, such as ``"nfr <= 0.5%"``.
        promise_data: held-out data for it; the validation data by default.
        promise_options: as in `BCLightningModule`.
        teacher: what is imitated in place of h1.
        plain: what is imitated where h2 is right, as in `BCLightningModule`.
        unlabelled: a loader of inputs without labels, or ``"mixed"``, on which h2 imitates too.
        unlabelled_weight: what these count.
        mixed_labels: the share of the labels in what h2 is taught of mixtures.

    Attributes:
        promise: the `PromiseVerdict` of the training; None before the first look at held-out data, and where the last
            weights were not looked at, as when the training was broken off.

    Raises:
        TypeError: an argument or option that does not exist, or h1 is missing.
        ValueError: an unknown loss, or a negative lambda_c.

    Example:
        >>> import torch, pytorch_lightning as pl
        >>> from bc_lightning import CompatibilityCallback
        >>> h1 = torch.nn.Linear(4, 3)
        >>> trainer = pl.Trainer(callbacks=[CompatibilityCallback(h1=h1, lambda_c=2.0)], logger=False)
    """

    def __init__(
        self,
        h1: nn.Module | Callable[..., Any] | Reference | StoredOutputs,
        loss: str | CompatibilityLoss | ModelLoss | type[ModelLoss] = "BCCrossEntropyLoss",
        lambda_c: float | Callable[[float], float] | None = None,
        *,
        loss_options: dict[str, Any] | None = None,
        scores: str | Callable[[Any], Tensor] | None = None,
        h1_scores: str | Callable[[Any], Tensor] | None = None,
        target: str | int | Callable[[Any], Any] | None = None,
        class_axis: int | None = None,
        call: str | int | Callable[[list[Any]], int] | None = None,
        inputs: str | int | Callable[[Any], Any] | None = None,
        class_map: list[Any] | dict[str, Any] | None = None,
        stages: Sequence[str] = STAGES,
        log_prefix: str = "",
        start_from: str | None = None,
        comparisons: LogComparisons | bool = True,
        promise: str | list[str] | Promise | None = None,
        # Bare, as LightningCLI can make no Dataset[Any] out of a class_path.
        promise_data: Iterable[Any] | Dataset | DataLoader | None = None,  # type: ignore[type-arg]
        promise_options: dict[str, Any] | None = None,
        teacher: nn.Module | Callable[..., Any] | Reference | StoredOutputs | list[Any] | None = None,
        plain: nn.Module | Callable[..., Any] | Reference | StoredOutputs | list[Any] | None = None,
        unlabelled: Literal["mixed"] | Iterable[Any] | DataLoader | None = None,  # type: ignore[type-arg]
        unlabelled_weight: float = WEIGHT,
        mixed_labels: float = LABELS,
    ) -> None:
        # All but what is said of the callback itself; before there are other names.
        options: dict[str, Any] = {name: each for name, each in locals().items() if name not in _OWN}
        if h1 is None:
            raise TypeError("h1 is missing. Pass the model in use: CompatibilityCallback(h1=old_model).")
        # Made here once, so that a mistake is reported where it was made and not when training begins.
        criterion_of(loss, lambda_c, loss_options or {})
        promised_by(promise, promise_data, promise_options, lambda_c)
        LogComparisons.of(comparisons)
        check_beside_unlabelled(unlabelled, unlabelled_weight, mixed_labels)
        if check_start_from(start_from):
            weights_behind(h1, "h1")
        self.h1 = h1
        self.start_from = start_from
        self.options = options
        self._entry: tuple[str, dict[str, Any]] | None = None
        # While the module is wrapped: what it is held to; what it was held to last, and the module.
        self._state: Compatibility | None = None
        self._last: Compatibility | None = None
        self._trained: weakref.ref[Any] | None = None

    @property
    def promise(self) -> PromiseVerdict | None:
        """Whether the promise was kept; None where the weights were not looked at, as before the first look."""
        held_to = self._state or self._last
        promised = None if held_to is None else held_to.promised
        return None if promised is None else promised.verdict(under_way=self._state is not None)

    @property
    def state_key(self) -> str:
        """Names this callback's entry in a checkpoint, where several hold a module to several h1s."""
        return f"{type(self).__qualname__}{self.options['log_prefix']}"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wrap the module."""
        if stage in ("fit", "validate", "test"):
            is_known = self._trained is not None and self._trained() is pl_module
            starts = stage == "fit" and not is_known and trainer.ckpt_path is None
            start_from = self.start_from if starts else None
            module = BCLightningModule(pl_module, self.h1, start_from=start_from, **self.options)
            self._state = state = compatibilities_of(module)[-1]
            if is_known and self._last is not None:
                # The same module again, as when fit goes on.
                state.go_on_from(self._last)
            self._trained, self._last = weakref.ref(pl_module), state
            self._entry = key_of(state), state.checkpoint_entry()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the module the user's own again, if it was wrapped here."""
        states = compatibilities_of(pl_module)
        if self._state is not None and self._state in states:
            self._entry = key_of(self._state), self._state.checkpoint_entry()
            if len(states) > 1:
                # Another callback holds the module to its own h1, and unwraps it when it ends.
                states.remove(self._state)
            else:
                unwrap(pl_module)
            # The run is the Trainer's; what the training has come to stays.
            self._state.begin_run()
        self._state = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Also after a failure the module is the user's own again."""
        self.teardown(trainer, pl_module, "fit")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Name h1 in a checkpoint that is saved after a failure too, when the module is no longer wrapped."""
        if self._entry is not None:
            checkpoint.setdefault(*self._entry)
