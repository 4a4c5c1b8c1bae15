"""What models return and what batches hold: the one place that takes them apart.

A team brings the models and the data loaders it has. Everything else in this package works on a tensor of
scores, a tensor of targets and the arguments of ``forward``; the functions here find them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

ONE_INPUT = (Tensor, PackedSequence)
"""What a model is given as it is, though a packed sequence is a tuple, too."""

TARGET_KEYS = ("target", "targets", "label", "labels", "y")
"""Keys that are looked for, in this order, in a batch that is a mapping."""

_TRIPLE = 3


def failed_on(model: str, given: str, args: Sequence[Any], kwargs: Mapping[str, Any], error: Exception) -> Exception:
    """The error of a model that does not take what it is given.

    Args:
        model: "h1" or "h2".
        given: What that is.
        args: Of its call.
        kwargs: So too.
        error: Its own.
    """
    shapes = [tuple(value.shape) for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    kind = TypeError if isinstance(error, TypeError) else RuntimeError
    return kind(
        f"{model} failed on {given} ({len(args)} positional arguments, keywords {sorted(kwargs)}, tensors of shape "
        f"{shapes}): {error}. A model of other inputs is given as a function of these: "
        f"{model}=lambda x: model(prepared(x))."
    )


def begins_with_ids(batch: Any, batched: bool = True) -> bool:
    """Whether a batch, or an item, looks like ``(ids, x, y)``; no tensor is read, so that nothing waits for a device.

    Example:
        >>> import torch
        >>> x, y = torch.zeros(2, 3), torch.tensor([0, 1])
        >>> [begins_with_ids(batch) for batch in ((["a", "b"], x, y), (y, x, y), (x, y), (x, y, y), (y, y, y))]
        [True, True, False, False, False]
    """
    if not isinstance(batch, (list, tuple)) or len(batch) != _TRIPLE:
        return False
    first, x = batch[:2]
    if len(getattr(x, "shape", ())) <= batched:
        return False
    if isinstance(first, Tensor):
        return first.ndim == batched and not (first.is_floating_point() or first.is_complex())
    if batched and isinstance(first, (list, tuple)):
        return bool(first) and all(isinstance(each, (int, str)) for each in first)
    ids = np.asarray(first)
    return ids.ndim == batched and ids.dtype.kind in "iuUSO"


def scores_from_output(
    output: Any, want: Literal["logits", "log_probabilities"] = "logits", model: str = "the model"
) -> Tensor:
    """Find the class scores in whatever a classifier's ``forward`` returned.

    Args:
        output: One of

            - a tensor, by custom logits of shape ``(N, C)`` (or ``(N, C, ...)``, or ``(N,)`` for a binary
              model), any floating-point type;
            - the triple ``(logits, softmax, log_softmax)`` of three tensors of equal shape, as the models of
              the original library return;
            - a mapping, a named tuple or an object with ``logits``, such as Hugging Face's ``ModelOutput``
              or the outputs of torchvision's Inception and GoogLeNet.
        want: ``"logits"`` for the scores as they are, ``"log_probabilities"`` for their logarithm of softmax
            over dimension 1 (the third member of a triple). Log-probabilities pass through the softmax
            unchanged, so it does no harm when a model returns them already.
        model: Whose output it is, for the error.

    Returns:
        The scores. With ``want="logits"`` the very tensor that was found; with ``"log_probabilities"`` a
        tensor of the same shape in at least float32.

    Raises:
        TypeError: ``output`` is nothing of the above, or log-probabilities were asked of integer labels.
        ValueError: ``want`` is not known, or log-probabilities were asked of scores without class columns.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
        >>> scores_from_output({"logits": logits, "loss": None}) is logits
        True
        >>> triple = (logits, logits.softmax(1), logits.log_softmax(1))
        >>> scores_from_output(triple, want="log_probabilities") is triple[2]
        True
        >>> torch.equal(scores_from_output(logits, want="log_probabilities"), triple[2])
        True
    """
    if want not in ("logits", "log_probabilities"):
        raise ValueError(f'want must be "logits" or "log_probabilities", got {want!r}')
    if isinstance(output, Tensor):
        return output if want == "logits" else _log_probabilities(output)
    # Before the triple: GoogLeNet returns a named tuple of three tensors of equal shape, `logits` and two others.
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits if want == "logits" else _log_probabilities(logits)
    if _is_triple(output):
        found: Tensor = output[0] if want == "logits" else output[2]
        return found
    raise TypeError(
        f"cannot tell which part of {model}'s output is its class scores: got {_describe(output)}; expected "
        "a tensor of scores, the triple (logits, softmax, log_softmax) of equal shapes, or a mapping or object "
        "with a tensor `logits`. Return one of these from forward, or wrap the model in a function that does "
        "(for h2, BCLightningModule takes that function as scores=lambda output: output[0])"
    )


def is_hugging_face(output: Any) -> bool:
    """Whether an output is of a Hugging Face model, whose scores of tokens have the classes last."""
    return any(base.__name__ == "ModelOutput" for base in type(output).__mro__)


def class_axis_of(scores: Tensor, target: Tensor, output: Any, told: int | None) -> int | None:
    """Which axis of scores holds the classes: 1, as in torch's losses, or -1; None where both may.

    Args:
        scores: h2's, shape ``(N, C)``, ``(N, C, ...)`` or ``(N, ..., C)``.
        target: class indices of that shape without its class axis, or probabilities of the same shape.
        output: what the model returned.
        told: what the user said, or None.

    Example:
        >>> import torch
        >>> tokens = torch.zeros(2, 7, 3)
        >>> class_axis_of(tokens, torch.zeros(2, 7, dtype=torch.long), tokens, None)
        -1
    """
    if scores.ndim <= 2 or told is not None:
        return 1 if scores.ndim <= 2 or told is None else told
    if scores.ndim == 3 and is_hugging_face(output):
        return -1
    if target.shape == scores.shape:
        return None
    second, last = scores.shape[:1] + scores.shape[2:], scores.shape[:-1]
    if target.shape == second == last:
        return None
    # Where neither fits, the loss says which shapes were expected.
    return -1 if target.shape == last else 1


def says_ambiguous_axis(scores: Tensor, target: Tensor) -> str:
    """What to say where the class axis can't be told."""
    return (
        f"h2's scores of shape {tuple(scores.shape)} with targets of shape {tuple(target.shape)} may hold the classes "
        f"on axis 1, as torch's losses take them, or on the last. Say which: class_axis=1 or class_axis=-1."
    )


def h1_class_axis(h1_output: Tensor, h2_output: Tensor) -> int | None:
    """Which axis of h1's scores holds the classes, 1 or -1; None where both may.

    Args:
        h1_output: h1's, as it gives them; labels have no such axis, and for them this is 1.
        h2_output: h2's scores with the classes on axis 1.

    Example:
        >>> import torch
        >>> h2 = torch.zeros(2, 5, 3)  # 5 classes, 3 places
        >>> [h1_class_axis(torch.zeros(shape), h2) for shape in ((2, 5, 3), (2, 3, 5), (2, 3, 3))]
        [1, -1, None]
    """
    if h1_output.ndim <= 2 or not h1_output.is_floating_point():
        return 1
    rest = h2_output.shape[2:]
    fitting = [each for each, shape in ((1, h1_output.shape[2:]), (-1, h1_output.shape[1:-1])) if shape == rest]
    # Where neither fits, the loss says which shapes were expected.
    return None if len(fitting) == 2 else fitting[0] if fitting else 1


def says_ambiguous_h1(h1_output: Tensor, axis: int) -> str:
    """What to say where the class axis of h1's scores can't be told."""
    moved = "output.movedim(1, -1)" if axis == -1 else "output.movedim(-1, 1)"
    return (
        f"h1's scores of shape {tuple(h1_output.shape)} may hold the classes on axis 1 or on the last; h2's hold them "
        f"on axis {axis}. Say where h1's are: h1_scores=lambda output: output if they stand as h2's do, "
        f"h1_scores=lambda output: {moved} if not. Of stored outputs neither can be said: give h1 itself."
    )


def target_from_batch(batch: Any, target: str | int | Callable[[Any], Any] | None = None) -> Tensor:
    """Find the targets in a batch.

    Args:
        batch: What the data loader yields: a sequence such as ``(x, y)`` or a mapping.
        target: Where the targets are: a key (or attribute name), an index, or a function of the batch.
            ``None`` takes the first of `TARGET_KEYS` that a mapping, a named tuple or another object has, and
            element 1 of any other sequence.

    Returns:
        The targets, untouched: shape ``(N,)`` of an integer type for labels.

    Raises:
        ValueError: The batch has nothing there; the message lists what it has.
        TypeError: The batch, or what was found in it, is of a kind that cannot hold or be targets.

    Example:
        >>> import torch
        >>> x, y = torch.zeros(2, 3), torch.tensor([0, 1])
        >>> target_from_batch((x, y))
        tensor([0, 1])
        >>> target_from_batch({"image": x, "labels": y})
        tensor([0, 1])
        >>> target_from_batch((x, x, y), target=-1)
        tensor([0, 1])
    """
    if target is None:
        found = _default_target(batch)
    else:
        found = _part(batch, target, "target")
    if not isinstance(found, Tensor):
        raise TypeError(
            f"the targets must be a tensor, found {_describe(found)} in {_describe(batch)}; "
            "say where they are with target=key, index or function of the batch"
        )
    return found


def inputs_from_batch(batch: Any, inputs: str | int | Callable[[Any], Any] | None = None) -> Any:
    """Find what a model's ``forward`` is called with in a batch.

    Args:
        batch: What the data loader yields: a tensor or packed sequence, a sequence such as ``(x, y)``, or a mapping.
        inputs: Where the inputs are: a key (or attribute name), an index, or a function of the batch.
            ``None`` takes the first element of a sequence, and a tensor or packed sequence itself.

    Returns:
        The inputs, untouched.

    Raises:
        ValueError: The batch has nothing there, or it is a mapping and ``inputs`` was not given.
        TypeError: The batch is of a kind that cannot hold inputs.

    Example:
        >>> import torch
        >>> x, y = torch.zeros(2, 3), torch.tensor([0, 1])
        >>> inputs_from_batch((x, y)) is x
        True
        >>> inputs_from_batch({"image": x, "label": y}, inputs="image") is x
        True
    """
    if inputs is not None:
        return _part(batch, inputs, "inputs")
    if isinstance(batch, ONE_INPUT):
        return batch
    if isinstance(batch, Mapping):
        raise ValueError(
            f"cannot tell which part of the batch is the model's input: got {_describe(batch)}; "
            'give inputs="key" or a function of the batch'
        )
    if _is_sequence(batch):
        if len(batch) == 0:
            raise ValueError("the batch is empty, so it has no inputs; expected (inputs, target, ...)")
        return batch[0]
    raise TypeError(
        f"cannot find the inputs in a batch that is {_describe(batch)}; expected a tensor, a sequence or a "
        "mapping. Give inputs=function of the batch"
    )


def arguments_of(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with: each of several inputs by its place or name."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return tuple(inputs) if isinstance(inputs, (tuple, list)) and not isinstance(inputs, ONE_INPUT) else (inputs,), {}


def _log_probabilities(scores: Tensor) -> Tensor:
    if not scores.is_floating_point():
        raise TypeError(
            f"log-probabilities need floating-point scores, got a tensor of {scores.dtype}; "
            "integer labels hold no probabilities"
        )
    if scores.ndim < 2:
        raise ValueError(
            f"log-probabilities need scores of shape (N, C), got shape {tuple(scores.shape)}; "
            "a binary model's single score has no class dimension"
        )
    # Half precision keeps three digits of a logarithm, and loses whole classes below its smallest number.
    if scores.dtype in (torch.float16, torch.bfloat16):
        return torch.log_softmax(scores, dim=1, dtype=torch.float32)
    return torch.log_softmax(scores, dim=1)


def _is_triple(output: Any) -> bool:
    return (
        isinstance(output, (tuple, list))
        and len(output) == _TRIPLE
        and all(isinstance(member, Tensor) for member in output)
        and output[0].shape == output[1].shape == output[2].shape
    )


def check_triple(output: Any, scores: Any) -> None:
    """Refuse three outputs of equal shape that are not the original's triple: heads of one's own, for one.

    Reads values, so it waits for the device.
    """
    if callable(scores) or not _is_triple(output):
        return
    logits, probabilities = (member.detach().float() for member in output[:2])
    if not torch.allclose(torch.softmax(logits, dim=1), probabilities, atol=1e-2):
        raise TypeError(
            "h2 returned three tensors of equal shape, the second of which is not the softmax of the first, so it is "
            "not clear which of them are the class scores. Say it: scores=lambda output: output[-1]"
        )


def _is_sequence(batch: Any) -> bool:
    return isinstance(batch, Sequence) and not isinstance(batch, (str, bytes))


def _default_target(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        for key in sorted(TARGET_KEYS, key=lambda key: not isinstance(batch.get(key), Tensor)):
            if key in batch:
                return batch[key]
        raise ValueError(
            f"the batch has none of the keys {', '.join(TARGET_KEYS)}: got {_describe(batch)}; "
            'give target="key" or a function of the batch'
        )
    if not isinstance(batch, Tensor) and (not _is_sequence(batch) or hasattr(batch, "_fields")):
        for key in TARGET_KEYS:
            # Batches of graphs, data classes and named tuples.
            if isinstance(getattr(batch, key, None), Tensor):
                return getattr(batch, key)
    if _is_sequence(batch):
        if len(batch) < 2:
            raise ValueError(
                f"the batch has no element 1 to be the targets: got {_describe(batch)}; expected "
                "(inputs, target, ...). Give target=index or a function of the batch"
            )
        return batch[1]
    raise TypeError(
        f"cannot find targets in a batch that is {_describe(batch)}; expected a sequence (inputs, target, ...) "
        "or a mapping. Give target=function of the batch"
    )


def _part(batch: Any, where: str | int | Callable[[Any], Any], option: str) -> Any:
    """Look up a key, an attribute or an index, or call a function; say what the batch has when it fails."""
    if callable(where):
        return where(batch)
    missing = ValueError(f"{option}={where!r} is not in the batch, which is {_describe(batch)}")
    if isinstance(batch, Mapping):
        if where not in batch:
            raise missing
        return batch[where]
    if isinstance(where, str):
        if isinstance(batch, Tensor) or not hasattr(batch, where):
            raise missing
        return getattr(batch, where)
    if isinstance(where, int) and not isinstance(where, bool):
        if not _is_sequence(batch) or not -len(batch) <= where < len(batch):
            raise missing
        return batch[where]
    raise TypeError(f"{option} must be a key, an index or a function of the batch, got {type(where).__name__}")


def _describe(value: Any) -> str:
    """Say in a few words what a value is: type, shape, keys; never its numbers."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with keys {list(value)}"
    if isinstance(value, (tuple, list)):
        shapes = ", ".join(
            f"tensor{tuple(member.shape)}" if isinstance(member, Tensor) else type(member).__name__ for member in value
        )
        return f"a {type(value).__name__} of {len(value)}: ({shapes})"
    return f"of type {type(value).__name__}"
