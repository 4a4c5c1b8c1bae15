"""Outputs of models that were trained without the items that they are asked about: a teacher that memorised nothing.

The items are divided into folds by a seed. Of each fold the rows are those of a model that was trained on the others.
`store` does the rest, so work that was interrupted is taken up at the fold where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._numbers import check_count
from bc_core.reference._stored_outputs import ItemsForH1
from bc_core.reference._stored_rows import RowFolder


def partition(items: int, folds: int, seed: int) -> list[NDArray[np.int64]]:
    """Divide items into folds of nearly equal size at random.

    Args:
        items: How many there are.
        folds: How many folds.
        seed: Of the division.

    Returns:
        The indices of each fold, in ascending order; the same for the same arguments.

    Raises:
        ValueError: Fewer than two folds, or more than items; a seed that is no whole number, as no other gives the
            same folds where a run is taken up.

    Example:
        >>> [fold.tolist() for fold in partition(5, 2, seed=0)]
        [[2, 3, 4], [0, 1]]
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= items:
        raise ValueError(
            f"folds must be a number from 2 to that of the items, {items}, as each is left out of one training. "
            f"Received: folds={folds!r}."
        )
    check_count(seed, "seed", 0)
    shuffled = np.random.default_rng(seed).permutation(items)
    return [np.sort(fold).astype(np.int64) for fold in np.array_split(shuffled, folds)]


class FoldedItems(ItemsForH1):
    """The items of a data set, and as h1 the models that are yet to be trained without a fold of them each.

    Args:
        inner: The items, with any h1.
        train: What trains a model: its fingerprint stands for those of the models.
        folds: How many folds.
        seed: Of their division.

    Attributes:
        entries: What the header says of the folds: how many, the seed, and the fingerprint of each one's model.
    """

    def __init__(self, inner: ItemsForH1, train: str, folds: int, seed: int) -> None:
        self.parts = partition(len(inner), folds, seed)
        self.fingerprint = f"out-of-fold:{folds}:{seed}:{train}"
        self.items, self._inner = inner.items, inner
        self.entries: dict[str, Any] = {"folds": folds, "seed": seed, "fold_models": [""] * folds}

    def __len__(self) -> int:
        return len(self._inner)

    def hashes(self, known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """As the items themselves."""
        return self._inner.hashes(known)

    def answers(self, known: NDArray[np.int64]) -> tuple[list[int], NDArray[Any]]:
        """None: the models of an earlier call are gone."""
        return [], np.empty(0)

    def compute(
        self,
        fit: Callable[[NDArray[np.int64]], Any],
        name_of: Callable[[Any], str],
        write: Callable[[Any, RowFolder, NDArray[np.int64], bool], None],
        folder: RowFolder,
        missing: NDArray[np.int64],
        fresh: bool,
    ) -> None:
        """Train a model without each fold of which rows are missing, and write what it says of that fold.

        Args:
            fit: Trains a model on the items of some indices.
            name_of: A model's fingerprint.
            write: Asks a model about items and writes the rows; makes the files first, if it is told to.
            folder: Where rows go.
            missing: Which of them are missing.
            fresh: Whether the files are to be made first.

        Raises:
            ValueError: One model came for two folds, so it has seen one of them.
        """
        header = folder.header() if not fresh else None
        names: list[str] = list((header or self.entries).get("fold_models", self.entries["fold_models"]))
        models: list[Any] = []
        for number, fold in enumerate(self.parts):
            lacking = np.isin(fold, missing)
            if not lacking.any():
                continue
            model = fit(np.setdiff1d(np.arange(len(self)), fold))
            name = name_of(model)
            if any(model is each for each in models) or name in names[:number] + names[number + 1 :]:
                raise ValueError(_saw_its_fold(number))
            # Kept alive, so that no other gets its id.
            models.append(model)
            names[number] = name
            self.entries["fold_models"] = names
            if not fresh:
                folder.note(fold_models=names)
            # Rows of an earlier training first: until the last row is written, the fold is known to be unfinished.
            write(model, folder, np.concatenate([fold[~lacking], fold[lacking]]), fresh)
            fresh = False
        folder.finish()


def _saw_its_fold(number: int) -> str:
    return (
        f"The model trained without fold {number} is that of another fold too, so it has seen the items that it is to "
        "be asked about. Make and train a new model of the training items alone in each call: def train(items): "
        "model = make(); fit(model, items); return model."
    )


def says_no_training(given: object) -> str:
    """Why a model, which may have seen all items, is none for out-of-fold outputs."""
    return (
        "With folds, the first argument is a function that makes a model and trains it on the items that it is given, "
        "as a model that is trained already has seen those that it is asked about. Received: "
        f"{type(given).__name__}."
    )
