"""What a user's step does with h2's output: which loss it goes into, and with which target.

What a step was trained on can't be read from its batch where the step mixes inputs, maps labels or compares embeddings.
What torch computes after h2 was called tells. Any batch may be treated otherwise than the one before, so each is
watched, from h2's answer to the end of the step. That costs some two microseconds for each call of torch in Python, and
four times that for one that concerns h2's output or the target; on a stage's first batch, and where h2 was not given
the batch's own input, all calls are looked at closely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._guards import TracingContext
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from bc_lightning.training.watching._tensors import storage_of, tensors_in

# Losses of class labels. What imitates a teacher or pulls embeddings together says nothing of labels.
_OF_LABELS = {
    F.cross_entropy,
    F.nll_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
    F.multi_margin_loss,
    F.multilabel_margin_loss,
    F.multilabel_soft_margin_loss,
    F.soft_margin_loss,
}
# What names the same labels in another form.
_KEEPS_LABELS = {
    *("one_hot", "to", "type", "type_as", "float", "double", "half", "bfloat16", "long", "int", "short", "bool"),
    *("view", "reshape", "squeeze", "unsqueeze", "expand", "contiguous", "detach", "clone", "flatten", "eq", "ne"),
    *("size", "dim", "numel", "shape", "__get__", "__getitem__", "unique", "max", "min", "any", "all", "sum", "item"),
}
_LABELS, _OTHER_LABELS, _WEIGHTS, _MADE = "labels", "other labels", "weights", "made of labels"
_LOOKS_UP = {"__getitem__", "gather", "index_select", "take", "embedding"}
# Of these, the ones that take probabilities.
_OF_PROBABILITIES = {F.binary_cross_entropy}
_OF_BINARY_LOGITS = {F.binary_cross_entropy_with_logits}
_WRITE_NOTHING = {"requires_grad_", "detach_", "share_memory_"}
# A longer list of tensors is looked at by identity alone: the parameters of an optimiser, for one.
_FEW = 16
# What compares outputs as points of a space: no classes in its columns.
_OF_POINTS = {
    F.triplet_margin_loss,
    F.triplet_margin_with_distance_loss,
    F.cosine_embedding_loss,
    F.cosine_similarity,
    F.pairwise_distance,
    torch.cdist,
    torch.cosine_similarity,
    torch.pairwise_distance,
    torch.pdist,
}


class SeenLoss(NamedTuple):
    """One call of a loss of labels; `root` is the number of the watched output that its input is, or None."""

    input: Tensor
    target: Tensor
    root: int | None
    ignore_index: int | None = None
    # Whether it takes logits of binary scores or probabilities; None for other losses.
    from_logits: bool | None = None
    value: Any = None


class Resized(NamedTuple):
    """One interpolation of a watched output, and the same for another tensor."""

    root: int
    result: Tensor
    again: Callable[[Tensor], Tensor]


class LossWatch(TorchFunctionMode):
    """Follows watched outputs through what keeps their entries: views, casts, temperatures, softmax.

    Args:
        members: memory of the batch's tensors and of h2's own.
        size: number of instances.
        target: memory of the batch's target.
        closely: whether to look at what concerns neither h2's output nor the target too.
    """

    def __init__(self, members: set[int], size: int, target: int | None = None, closely: bool = True) -> None:
        self._target = target
        self._members = members
        self._size = size
        self.closely = closely
        self._root: dict[int, int] = {}
        self._storage: dict[int, tuple[int, int]] = {}
        # What was made while watching and looked at, kept so that no other tensor gets its id.
        self._made: dict[int, Tensor] = {}
        # While h1 is asked, or the penalty computed: that is no part of the user's step.
        self.paused = False
        self.losses: list[SeenLoss] = []
        self.points: dict[int, str] = {}
        self.resized: list[Resized] = []
        # Tensors with an entry for each instance that are neither the batch's nor computed by h2.
        self.strangers: list[Tensor] = []
        # The same, of those that something which trains h2 was computed with.
        self.trained_with: dict[int, Tensor] = {}
        # Memory of the batch's tensors that were used.
        self.used: set[int] = set()
        # Whether something that trains h2 was computed with the batch's target.
        self.target_trains = False
        # Whether the batch's target was made into another one: flipped, permuted, added up.
        self.target_changed = False
        # Whether something that trains h2 was computed with other class indices made of it.
        self.relabelled = False
        # Outputs that were changed in place.
        self.overwritten: set[int] = set()
        # What comes from the target: the labels, other class indices, a weight looked up for each, or a mask.
        self._of_target: dict[int, str] = {}
        self._of_h2: set[int] = set()

    def follow(self, output: Any, root: int = 0, given: Any = ()) -> None:
        """Watch what becomes of an output of h2, which was given `given`."""
        self._members |= {storage_of(tensor) for tensor in tensors_in(given)}
        for tensor in tensors_in(output):
            self._made[id(tensor)] = tensor
            self._root[id(tensor)] = root
            if tensor.numel():
                self._storage[storage_of(tensor)] = (root, tensor.numel())

    def root_of(self, tensor: Tensor) -> int | None:
        """Which watched output a tensor is, under another view, temperature or cast."""
        if id(tensor) in self._root:
            return self._root[id(tensor)]
        root, size = self._storage.get(storage_of(tensor), (None, 0))
        return root if tensor.numel() == size else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch and note what it tells."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # What is compiled by itself is traced through here, by Dynamo and then by its backend, and some backends run it
        # through here: what that does is no longer what the user wrote.
        if self.paused or torch.compiler.is_compiling() or isinstance(func, OpOverload):
            return result
        if (self.closely or self._concerns(args, kwargs)) and TracingContext.try_get() is None:
            self._note(func, args, kwargs, result)
        return result

    def _concerns(self, args: Any, kwargs: dict[str, Any]) -> bool:
        """Whether h2's output, something made of it, or the target is among the arguments."""
        for tensor, by_memory in _tensors_at_hand((*args, *kwargs.values())):
            key = id(tensor)
            if key in self._root or key in self._of_h2 or key in self._of_target:
                return True
            if by_memory and ((memory := storage_of(tensor)) == self._target or memory in self._storage):
                return True
        return False

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        given = list(tensors_in((args, kwargs)))
        made = list(tensors_in(result))
        if func in _OF_LABELS:
            self._note_loss(func, args, kwargs, result)
        elif func in _OF_POINTS:
            for tensor in given:
                if (root := self.root_of(tensor)) is not None:
                    self.points.setdefault(root, getattr(func, "__name__", "a distance"))
        elif func is F.interpolate and given and (root := self.root_of(given[0])) is not None:
            rest = {name: value for name, value in kwargs.items() if name != "input"}
            self.resized.append(Resized(root, result, lambda other: func(other, *args[1:], **rest)))
            self._root[id(result)] = root
        if given and _writes(func, kwargs) and (not made or made[0] is given[0]):
            root, _ = self._storage.get(storage_of(given[0]), (None, 0))
            if root is not None:
                self.overwritten.add(root)
        if made:
            roots = {self.root_of(tensor) for tensor in given}
            if len(roots) == 1 and (root := roots.pop()) is not None:
                size = given[0].numel()
                self._root.update({id(tensor): root for tensor in made if tensor.numel() == size})
            self._note_strangers(given)
            self._note_target(func, given, made)
        self._made.update({id(tensor): tensor for tensor in made})

    def _note_loss(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        named = dict(zip(("input", "target", "weight", "size_average", "ignore_index"), args, strict=False)) | kwargs
        scores, target = named.get("input"), named.get("target")
        ignored = named.get("ignore_index", -100) if func in (F.cross_entropy, F.nll_loss) else None
        logits = True if func in _OF_BINARY_LOGITS else False if func in _OF_PROBABILITIES else None
        if isinstance(scores, Tensor) and isinstance(target, Tensor):
            self.losses.append(SeenLoss(scores, target, self.root_of(scores), ignored, logits, result))

    def _note_strangers(self, given: Iterable[Tensor]) -> None:
        for tensor in given:
            if id(tensor) in self._made or tensor.requires_grad or not tensor.ndim or tensor.shape[0] != self._size:
                continue
            if (storage := storage_of(tensor)) in self._members:
                self.used.add(storage)
            else:
                self.strangers.append(tensor)

    def _is_of_h2(self, tensor: Tensor) -> bool:
        return tensor.requires_grad or id(tensor) in self._of_h2 or self.root_of(tensor) is not None

    def _note_target(self, func: Any, given: list[Tensor], made: list[Tensor]) -> None:
        """Follow the batch's target through what keeps its labels, and note where it meets what is of h2."""
        of_h2 = [self._is_of_h2(tensor) for tensor in given]
        if any(of_h2):
            self._of_h2 |= {id(tensor) for tensor in made}
            if any(tensor.requires_grad for tensor in made) or not torch.is_grad_enabled():
                self._note_meeting([tensor for tensor, mine in zip(given, of_h2, strict=True) if not mine])
            return
        own = [tensor for tensor in given if id(tensor) in self._of_target or storage_of(tensor) == self._target]
        if not own:
            return
        before = {self._of_target.get(id(tensor), _LABELS) for tensor in own}
        name, size = getattr(func, "__name__", ""), own[0].numel()
        looks_up = name in _LOOKS_UP and given[0] is not own[0]
        changes = not looks_up and (name not in _KEEPS_LABELS or len(own) < len(given))
        self.target_changed |= changes
        for tensor in made:
            kind = before.pop() if len(before) == 1 else _OTHER_LABELS if _OTHER_LABELS in before else _LABELS
            if (looks_up or changes) and tensor.numel() == size:
                is_index = not tensor.is_floating_point() and tensor.dtype != torch.bool
                kind = _OTHER_LABELS if is_index else _WEIGHTS if looks_up else _MADE
            before = {kind}
            self._of_target[id(tensor)] = kind

    def _note_meeting(self, others: Iterable[Tensor]) -> None:
        for tensor in others:
            kind = self._of_target.get(id(tensor), _LABELS if storage_of(tensor) == self._target else None)
            self.relabelled |= kind == _OTHER_LABELS
            self.target_trains |= kind == _LABELS
            is_for_each = tensor.ndim > 0 and tensor.shape[0] == self._size
            if kind in (None, _MADE) and is_for_each and storage_of(tensor) not in self._members:
                self.trained_with[id(tensor)] = self._made[id(tensor)] = tensor

    def losses_of(self, root: int) -> list[SeenLoss]:
        """The losses of labels whose input is a watched output."""
        return [loss for loss in self.losses if loss.root == root]

    @property
    def met_labels(self) -> bool:
        """Whether something that trains h2 was computed with the batch's target, or what was made of it."""
        return self.target_trains or self.relabelled or any(key in self._of_target for key in self.trained_with)

    def class_axis(self, scores: Tensor, root: int = 0) -> int | None:
        """Which axis of scores (N, ..., ...) a loss of labels took for the classes, where one was seen: 1 or -1."""
        for given in (loss.input for loss in self.losses_of(root)):
            # A copy may have been transposed on the way; a view shows it in its strides.
            if storage_of(given) != storage_of(scores):
                continue
            last = scores.movedim(-1, 1)
            if given.shape == scores.shape and given.stride() == scores.stride():
                return 1
            if given.shape == last.shape and given.stride() == last.stride():
                return -1
            if given.ndim == 2 and given.stride() == (scores.shape[-1], 1) and scores.is_contiguous():
                return -1
        return None


def is_inside_of_a_mode(depth: int) -> bool:
    """Whether a mode of torch's was entered since the stack of modes was so deep; our own watches are none."""
    if torch._C._len_torch_function_stack() == depth:
        return False
    return any(not isinstance(mode, LossWatch) for mode in _get_current_function_mode_stack()[depth:])  # type: ignore[no-untyped-call]


def _writes(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function that gives back what it was given, or nothing, has changed it."""
    name = getattr(func, "__name__", "")
    if name[:2] == "__":
        return name == "__setitem__" or name[:3] == "__i"
    return bool(kwargs.get("inplace")) or (name.endswith("_") and name not in _WRITE_NOTHING)


def _tensors_at_hand(values: Iterable[Any]) -> Iterator[tuple[Tensor, bool]]:
    """Tensors among arguments and in lists of them, and whether their memory is worth a look."""
    for value in values:
        if isinstance(value, Tensor):
            yield value, True
        elif type(value) in (list, tuple):
            few = len(value) <= _FEW
            for each in value:
                if isinstance(each, Tensor):
                    yield each, few
