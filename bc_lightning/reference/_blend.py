"""Several models that answer as one: the teacher that is a blend of the old model and a plain new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
from bc_lightning._torch_operations import TorchOperations


class Member(Protocol):
    """What a blend needs of each `Reference`, which documents it."""

    labels_only: bool
    class_map: ClassMap | None
    fingerprint: str
    stored: StoredRows[Tensor] | None

    @property
    def modules(self) -> list[nn.Module]: ...
    @property
    def num_classes(self) -> int | None: ...
    def ask(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor: ...
    def map_classes(self, rows: Tensor, num_classes: int | None = None) -> Tensor: ...
    def apply(self, fn: Callable[[Tensor], Tensor]) -> Any: ...


class Blend:
    """What `Reference([(model, weight), ...])` asks: each of its members, whose answers become one.

    Args:
        members: references, each in the classes of the blend.
        weights: of each, above 0, that sum to 1.
        space: ``"probability"``: the mean is one of probabilities; ``"logit"``: of logits.
        multilabel: whether each column of scores is a label of its own.
        from_logits: whether members give logits; only those of binary models may be probabilities, and then so is the
            blend's answer.
        class_axis: which axis of scores with more than two holds the classes, 1 or -1.
    """

    def __init__(
        self,
        members: Sequence[Member],
        weights: Sequence[float],
        space: Space = "probability",
        multilabel: bool = False,
        from_logits: bool = True,
        class_axis: int = 1,
    ) -> None:
        self.members, self.weights, self.space = tuple(members), tuple(weights), space
        self.multilabel, self.from_logits, self.class_axis = multilabel, from_logits, class_axis
        if any(member.labels_only for member in self.members):
            raise ValueError(
                "A model of the blend is known by its predicted labels only, which have no mean: give its scores."
            )

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that the members run."""
        return [module for member in self.members for module in member.modules]

    @property
    def fingerprint(self) -> str:
        """The name of the blend's content."""
        return fingerprint_of_blend(
            [member.fingerprint for member in self.members], self.weights, self.space, self.kind
        )

    @property
    def kind(self) -> Kind:
        """What the scores are of."""
        return "labels" if self.multilabel else "classes" if self.class_axis == 1 else "classes_last"

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Ask each member about a batch; logits of the blend, (N, C, ...), (N, 1) or (N,)."""
        return self.of_answers([member.ask(args, kwargs) for member in self.members])

    def of_answers(self, answers: Sequence[Tensor]) -> Tensor:
        """The blend of what members said, each in its own classes."""
        if not all(answer.is_floating_point() for answer in answers):
            raise ValueError("A model of the blend gave labels, which have no mean: give its scores.")
        device = answers[0].device
        moved = self.class_axis == -1 and answers[0].ndim > 2
        rows = [(answer.movedim(-1, 1) if moved else answer).to(device) for answer in answers]
        rows = self._in_one_set_of_classes(rows)
        check_one_shape([tuple(row.shape) for row in rows])
        dtype = torch.float64 if any(row.dtype == torch.float64 for row in rows) else torch.float32
        alone = self.multilabel or rows[0].ndim == 1 or rows[0].shape[1] == 1
        if not self.from_logits:
            if not alone:
                raise ValueError(
                    "The models of the blend give scores over classes, which must be logits; the logarithm of "
                    "probabilities is as good. from_logits=False is for binary scores. Received: shape "
                    f"{tuple(rows[0].shape)}."
                )
            rows = [row.to(dtype).logit(torch.finfo(dtype).eps) for row in rows]
        mixed = blended([row.to(dtype) for row in rows], self.weights, self.space, TorchOperations(1), alone)
        mixed = mixed if self.from_logits else mixed.sigmoid()
        answer: Tensor = mixed.movedim(1, -1) if moved else mixed
        return answer

    def _in_one_set_of_classes(self, rows: Sequence[Tensor]) -> list[Tensor]:
        if all(member.class_map is None for member in self.members):
            return list(rows)
        pairs = list(zip(self.members, rows, strict=True))
        told = {row.shape[1] for member, row in pairs if member.class_map is None and row.ndim > 1}
        classes = max([*told, *(member.num_classes or 0 for member in self.members)])
        for member in self.members:
            check_no_class_missing(self.space, member.class_map, classes)
        return [member.map_classes(row, classes if member.class_map is not None else None) for member, row in pairs]

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the members."""
        for member in self.members:
            member.apply(fn)

    def of_rows(self, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The blend of stored rows, a batch of each member."""
        answer: NDArray[Any] = self.of_answers([torch.from_numpy(np.array(each)) for each in rows]).numpy()
        return answer

    def __repr__(self) -> str:
        parts = " + ".join(f"{w:g} * {member!r}" for w, member in zip(self.weights, self.members, strict=True))
        return f"Blend({parts}, {self.space!r})"
