"""Several models that answer as one: the teacher that is a blend of the old model and a plain new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core.losses._blends import (
    Kind,
    Space,
    blended,
    check_no_class_missing,
    check_one_shape,
    fingerprint_of_blend,
)
from bc_core.reference._class_map import ClassMap
from bc_core.reference._stored_outputs import StoredRows
from bc_keras._keras_operations import over_classes
from bc_keras.batches._labels import ROUNDING, TINY, is_float
from bc_keras.reference._last_activation import activation_of

# How many stored rows are looked at.
_ROWS = 1024


class Member(Protocol):
    """What a blend needs of each `Reference`, which documents it."""

    h1: Any
    class_map: ClassMap | None
    from_logits: bool | None
    mixed: Blend | None

    @property
    def stored(self) -> StoredRows[Any] | None: ...
    @property
    def model(self) -> Any: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def variables(self) -> list[Any]: ...
    def asked(self, x: Any) -> Any: ...
    def in_classes_of_h2(self, answer: Any, classes: int, from_logits: bool, multilabel: bool) -> Any: ...


class Blend:
    """What `Reference([(model, weight), ...])` asks: each of its members, whose answers become one, in logits.

    Args:
        members: references, each in the classes of the blend.
        weights: of each, above 0, that sum to 1.
        space: ``"probability"``: the mean is one of probabilities; ``"logit"``: of logits.
        multilabel: whether each column of scores is a label of its own.

    Raises:
        ValueError: whether a member gives logits or probabilities cannot be told, or it gives labels.
    """

    def __init__(
        self,
        members: Sequence[Member],
        weights: Sequence[float],
        space: Space = "probability",
        multilabel: bool = False,
    ) -> None:
        self.members, self.weights, self.space = tuple(members), tuple(weights), space
        self.multilabel = multilabel
        self._from_logits = [gives_logits(member, "A model of the blend") for member in self.members]

    @property
    def kind(self) -> Kind:
        """What the scores are of."""
        return "labels" if self.multilabel else "classes"

    @property
    def variables(self) -> list[Any]:
        """Variables of the members that are models, each once."""
        every = [variable for member in self.members for variable in member.variables]
        return list({id(variable): variable for variable in every}.values())

    @property
    def fingerprint(self) -> str:
        """The name of the blend's content."""
        names = [member.fingerprint for member in self.members]
        return fingerprint_of_blend(names, self.weights, self.space, self.kind)

    def __call__(self, x: Any) -> Any:
        """Ask each member about a batch; logits of the blend, (N, ..., C), (N, 1) or (N,)."""
        return self.of_answers([ops.convert_to_tensor(member.asked(x)) for member in self.members])

    def of_answers(self, answers: Sequence[Any]) -> Any:
        """The blend of what members said, each in its own classes."""
        if not all(is_float(answer) for answer in answers):
            raise ValueError("A model of the blend gave labels, which have no mean: give its scores.")
        double = any(keras.backend.standardize_dtype(answer.dtype) == "float64" for answer in answers)
        rows = [ops.cast(answer, "float64" if double else "float32") for answer in answers]
        rows = self._in_one_set_of_classes(rows)
        check_one_shape([tuple(row.shape) for row in rows])
        alone = self.multilabel or len(rows[0].shape) == 1 or rows[0].shape[-1] == 1
        logits = [as_logits(row, given, alone) for row, given in zip(rows, self._from_logits, strict=True)]
        return blended(logits, self.weights, self.space, over_classes, alone)

    def _in_one_set_of_classes(self, rows: list[Any]) -> list[Any]:
        if all(member.class_map is None for member in self.members):
            return rows
        pairs = list(zip(self.members, rows, self._from_logits, strict=True))
        told = {row.shape[-1] for member, row, _ in pairs if member.class_map is None and len(row.shape) > 1}
        classes = max([*told, *(member.class_map.num_classes for member in self.members if member.class_map)])
        for member in self.members:
            check_no_class_missing(self.space, member.class_map, classes)
        return [member.in_classes_of_h2(row, classes, logits, self.multilabel) for member, row, logits in pairs]

    def of_rows(self, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The blend of stored rows, a batch of each member."""
        return np.asarray(ops.convert_to_numpy(self.of_answers([ops.convert_to_tensor(each) for each in rows])))


def as_logits(scores: Any, from_logits: bool, alone: bool, arrays: Any = ops) -> Any:
    """Scores as logits; of probabilities 0 and 1 those nearest to it that float32 holds.

    Args:
        scores: of classes on the last axis, or each one by itself.
        from_logits: whether they are logits already.
        alone: whether each is one by itself.
        arrays: the module whose arrays these are, numpy or `keras.ops`.
    """
    if from_logits:
        return scores
    logs = arrays.log(arrays.maximum(scores, TINY))
    return logs - arrays.log(arrays.maximum(1 - scores, TINY)) if alone else logs


def gives_logits(reference: Member, who: str) -> bool:
    """Whether a model that is imitated gives logits, as was said of it, or as its last layer or its rows tell.

    Raises:
        ValueError: nothing tells, or it gives labels only.
    """
    if reference.from_logits is not None:
        return reference.from_logits
    found: bool | None = None
    if reference.mixed is not None:
        found = True
    elif reference.stored is not None:
        if reference.stored.labels_only:
            raise ValueError(
                f"{who} is known by its predicted labels only: give its scores. Received: {reference.stored!r}."
            )
        found = _of_rows(np.asarray(reference.stored[: min(len(reference.stored), _ROWS)]))
    elif reference.model is not None:
        found = activation_of(reference.model)
    if found is None:
        raise ValueError(
            f"Whether {who[0].lower() + who[1:]} gives logits or probabilities cannot be told: say it, "
            f"Reference(model, from_logits=True) or False. Received: {reference.h1!r}."
        )
    return found


def _of_rows(scores: NDArray[Any]) -> bool | None:
    if scores.min() < -ROUNDING or scores.max() > 1 + ROUNDING:
        return True
    sums = scores.ndim > 1 and scores.shape[-1] > 1 and bool((np.abs(scores.sum(-1) - 1) <= ROUNDING).all())
    return False if sums else None
