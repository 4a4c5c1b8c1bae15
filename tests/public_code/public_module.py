"""What a LightningModule pattern is: the code as people write it, and what the tests have to know about it.

Nothing here imports the packages under test: the modules are plain users' code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

FEATURES, CLASSES, BATCH = 6, 3, 8
TRAIN_ROWS, VAL_ROWS = 16, 13


def features(rows: int, seed: int, *shape: int) -> Tensor:
    return torch.randn(rows, *(shape or (FEATURES,)), generator=torch.Generator().manual_seed(seed))


def labels(rows: int, seed: int, *shape: int, classes: int = CLASSES) -> Tensor:
    return torch.randint(classes, (rows, *shape), generator=torch.Generator().manual_seed(seed + 1000))


def vectors(rows: int, seed: int) -> Any:
    return TensorDataset(features(rows, seed), labels(rows, seed))


def images(rows: int, seed: int) -> Any:
    return TensorDataset(features(rows, seed, 1, 6, 6), labels(rows, seed))


def mapped(**columns: Tensor) -> list[dict[str, Tensor]]:
    """Rows that are dictionaries, as tokenizers and table readers give them."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def loaders_of(make_rows: Callable[[int, int], Any], **options: Any) -> Callable[[], tuple[Any, Any]]:
    """A training loader and a validation loader, whose last batch is not full."""
    return lambda: (
        DataLoader(make_rows(TRAIN_ROWS, 0), BATCH, **options),
        DataLoader(make_rows(VAL_ROWS, 1), BATCH - 3, **options),
    )


@dataclass(frozen=True)
class Pattern:
    """One way to write a LightningModule.

    Attributes:
        module: Makes h2, as the public code has it.
        what: What people do, in the table of the docs.
        how: Whether one line is enough, an option has to be named, or the code is refused with a remedy.
        options: For `BCLightningModule` and `CompatibilityCallback`.
        needs: The option, or the remedy, in the words of the table.
        error: What is said without it.
        mended: For a refused module: the class after following the remedy, given the refused one.
        h1: Makes h1; by default a module of h2's kind with other weights.
        loaders: Makes (train, validation), the latter a list where there are several.
        scores: The class scores of a validation batch, by a plain module in evaluation mode.
        labels: The labels of a validation batch.
        trained: Scores and labels that a training step penalises: of the batch as the step got it.
        per_label: Each column is a label of its own, or there is one score for two classes.
        class_axis: Where the classes are in `scores`.
        ignored: A label that does not count.
        trainer: Further arguments of the Trainer, made anew for each run.
        by_hand: Whether one step equals plain SGD on the penalty's gradient: no dropout, no other optimiser.
        learning_rate: Of that step.
        batches: How many batches that step sees.
        tolerance: Relative, of that comparison.
        changed_after: Whether a callback changes the weights after the last validation, so that it is repeated.
    """

    module: Callable[[], Any]
    what: str
    how: Literal["one line", "option", "refused"] = "one line"
    options: dict[str, Any] = field(default_factory=dict)
    needs: str = ""
    error: str = ""
    mended: Callable[[Any], Any] | None = None
    h1: Callable[[], Any] | None = None
    loaders: Callable[[], tuple[Any, Any]] = field(default_factory=lambda: loaders_of(vectors))
    scores: Callable[[Any, Any], Tensor] = lambda module, batch: module(batch[0])
    labels: Callable[[Any], Tensor] = lambda batch: batch[1]
    trained: Callable[[Any, Any], tuple[Tensor, Tensor]] | None = None
    per_label: bool = False
    class_axis: int = 1
    ignored: int | None = None
    trainer: Callable[[], dict[str, Any]] = dict
    by_hand: bool = True
    learning_rate: float = 0.1
    batches: int = 1
    tolerance: float = 1e-4
    changed_after: bool = False

    @property
    def name(self) -> str:
        """The class's name, in words."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", self.module.__name__)

    def made(self, seed: int) -> Any:
        """A module that works: after the remedy, if there is one."""
        torch.manual_seed(seed)
        return self._working()()

    def as_written(self) -> Any:
        torch.manual_seed(3)
        return self.module()

    def make_h1(self) -> Any:
        torch.manual_seed(7)
        return (self.h1 or self._working())()

    def _working(self) -> Any:
        return self.mended(self.module) if self.mended else self.module


class Registry(list[Pattern]):
    """The patterns of one domain, registered by decorating their classes."""

    def one_line(self, what: str, **known: Any) -> Callable[[Any], Any]:
        return self._adding(what, how="one line", **known)

    def option(self, what: str, needs: str, error: str, **known: Any) -> Callable[[Any], Any]:
        return self._adding(what, how="option", needs=needs, error=error, **known)

    def refused(self, what: str, needs: str, error: str, **known: Any) -> Callable[[Any], Any]:
        return self._adding(what, how="refused", needs=needs, error=error, **known)

    def _adding(self, what: str, **known: Any) -> Callable[[Any], Any]:
        def add(module: Any) -> Any:
            self.append(Pattern(module, what, **known))
            return module

        return add
