"""Bring h2's output, the target and h1's output together, and refuse what the loss would misread.

Shapes and dtypes are looked at in every step, on every device. Values are read where that costs no waiting; on an
accelerator once, on a first batch, for which `check_values` is there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bc_core.losses._blends import told_of


def in_float32(scores: Tensor) -> Tensor:
    # Half precision may come in; sums of exponentials need at least float32.
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def values_are_at_hand(tensor: Tensor) -> bool:
    """Whether reading a value costs nothing: an accelerator has to be waited for, a compiled graph would break."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_finite(scores: Tensor, model: str, where: str = "") -> None:
    """Refuse NaN and infinite scores. Reads values, so it waits for an accelerator."""
    if not scores.is_floating_point():
        return
    # A sum is finite only if every score is, and is one pass; where large scores overflow it, each is looked at.
    if not math.isfinite(scores.detach().sum().item()) and not bool(torch.isfinite(scores).all()):
        bad = "NaN" if bool(torch.isnan(scores).any()) else "inf"
        raise ValueError(
            f"{model} returned {bad}{where} (scores of shape {_shape(scores)}). Expected finite scores: look for "
            f"a diverged or half-loaded {model}, or inputs that are already NaN."
        )


_ONE_SCORE_PER_LABEL = (
    "For binary or multilabel scores use base='binary_cross_entropy', or by name loss='BCBinaryCrossEntropyLoss' with "
    "loss_options={'from_logits': True}."
)
_SEVERAL_LABELS = (
    f"If it marks one class of each instance (one-hot), take its class: target=lambda batch: batch[1].argmax(1). "
    f"{_ONE_SCORE_PER_LABEL}"
)


def is_probabilities(scores: Tensor) -> bool:
    """Whether every row along the classes is a distribution. Reads values, so it waits for an accelerator."""
    if not scores.is_floating_point() or scores.ndim < 2 or scores.shape[1] < 2:
        return False
    scores = scores.detach().float()
    # Half precision keeps 8 bits of each share, hence the tolerance; logits do not come near it by chance.
    return bool(((scores >= 0).all() & ((scores.sum(1) - 1).abs() < 1e-2).all()).item())


def is_log_probabilities(scores: Tensor) -> bool:
    """Whether every row along the classes holds the logarithms of a distribution. As `is_probabilities`."""
    if not scores.is_floating_point() or scores.ndim < 2 or scores.shape[1] < 2:
        return False
    return bool((scores.detach().float().logsumexp(1).abs() < 1e-2).all().item())


def aligned(
    base: str,
    h2_output: Tensor,
    target: Tensor,
    h1_output: Tensor,
    options: dict[str, Any],
    *,
    read: bool,
    outputs_checked: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The three as this base takes them. `read`: look at values too, on whatever device; see `values_are_at_hand`."""
    if base == "binary_cross_entropy":
        h2_output, target, h1_output = align_binary(h2_output, target, h1_output)
    else:
        num_classes = options.get("num_classes")
        if num_classes is not None and h2_output.ndim > 1 and h2_output.shape[1] != num_classes:
            raise ValueError(f"num_classes={num_classes}, but h2 scores {h2_output.shape[1]} classes. Make them agree.")
        ignore_index = options.get("ignore_index", -100)
        h2_output, target, h1_output = align_multiclass(h2_output, target, h1_output, ignore_index, read)
    if read and not outputs_checked:
        check_finite(h2_output, "h2")
        check_finite(h1_output, "h1")
    if read and base == "binary_cross_entropy":
        _check_binary_values(target, {"h1": h1_output, "h2": h2_output}, options.get("from_logits", True))
    return h2_output, target, h1_output


def aligned_teacher(
    base: str, h2_output: Tensor, target: Tensor, teacher_output: Tensor, options: dict[str, Any], **how: bool
) -> Tensor:
    """What a teacher said instead of h1, as this base takes it; `how` as in `aligned`."""
    # The others were aligned with h1's before.
    with told_of():
        return aligned(base, h2_output, target, teacher_output, options, **how)[2]


def align_multiclass(
    h2_output: Tensor, target: Tensor, h1_output: Tensor, ignore_index: int | None, read: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring scores (N, C, ...), target (N, ...) or (N, 1) or soft (N, C, ...), and h1's output together.

    With `read`, values are looked at, which waits for an accelerator.

    Returns h2's scores in at least float32, the target as int64 class indices or float probabilities, and h1's
    scores in at least float32 or its labels as int64.
    """
    if h2_output.ndim < 2 or not h2_output.is_floating_point():
        raise ValueError(
            f"h2's output must be scores of shape (N, C, ...). Received shape {_shape(h2_output)}, "
            f"dtype {h2_output.dtype}. {_ONE_SCORE_PER_LABEL}"
        )
    if h2_output.numel() == 0:
        raise ValueError(f"The batch is empty: h2's output has shape {_shape(h2_output)}. Drop empty batches.")
    num_classes = h2_output.shape[1]
    if num_classes == 1:
        # A softmax over one class is 1 whatever the score: such a loss is 0 and trains nothing.
        raise ValueError(
            f"h2's output of shape {_shape(h2_output)} holds the scores of one class, and a softmax needs two. "
            f"{_ONE_SCORE_PER_LABEL}"
        )
    labels_shape = (h2_output.shape[0], *h2_output.shape[2:])
    if target.is_floating_point():
        if target.shape != h2_output.shape:
            raise ValueError(
                f"A target of dtype {target.dtype} must hold class probabilities of h2's shape "
                f"{_shape(h2_output)}. Received shape {_shape(target)}. Class indices must be integers: use "
                f"target.long(). {_ONE_SCORE_PER_LABEL}"
            )
        if read and not is_probabilities(target):
            raise ValueError(
                f"A target of dtype {target.dtype} and h2's shape {_shape(target)} must hold class probabilities, rows "
                f"in 0..1 that sum to 1. Received a row that does not. {_ONE_SCORE_PER_LABEL}"
            )
        target = target.to(in_float32(h2_output).dtype)
    else:
        if target.ndim == h2_output.ndim and target.shape[1] == 1:
            target = target.squeeze(1)
        if _shape(target) != labels_shape:
            several = f" {_SEVERAL_LABELS}" if target.ndim == h2_output.ndim else ""
            raise ValueError(
                f"Shapes differ: scores of shape {_shape(h2_output)} need a target of shape {labels_shape}. "
                f"Received shape {_shape(target)}, dtype {target.dtype}.{several}"
            )
        target = target.long()
        if read:
            check_labels(target, num_classes, ignore_index)
    return in_float32(h2_output), target, _align_h1(h1_output, h2_output, labels_shape)


def _align_h1(h1_output: Tensor, h2_output: Tensor, labels_shape: tuple[int, ...]) -> Tensor:
    if not h1_output.is_floating_point():
        if h1_output.ndim == len(labels_shape) + 1 and h1_output.shape[1] == 1:
            h1_output = h1_output.squeeze(1)
        if _shape(h1_output) != labels_shape:
            raise ValueError(
                f"h1's labels must have shape {labels_shape}. Received shape {_shape(h1_output)}, "
                f"dtype {h1_output.dtype}."
            )
        return h1_output.long()
    if h1_output.ndim == h2_output.ndim and h1_output.shape[1] != h2_output.shape[1]:
        if h1_output.shape[1] == 1:
            raise ValueError(
                f"h1 has one score, as a binary model has, and h2 has {h2_output.shape[1]}. Say h1's as those of "
                f"two classes, h1_scores=lambda z: torch.cat([torch.zeros_like(z), z], 1) of its logit z, which is "
                f"torch.logit(p) of a probability."
            )
        raise ValueError(
            f"h1 has {h1_output.shape[1]} classes and h2 has {h2_output.shape[1]}: a class map is needed. Pass "
            f"class_map=[...], where class_map[i] is h2's class index for h1's class i (-1: no longer a class); where "
            f"no such argument is, h1=Reference(h1, class_map=[...])."
        )
    if h1_output.shape != h2_output.shape:
        raise ValueError(
            f"h1's scores must have h2's shape {_shape(h2_output)}, or be integer labels of shape {labels_shape}. "
            f"Received shape {_shape(h1_output)}, dtype {h1_output.dtype}."
        )
    return in_float32(h1_output)


def check_labels(target: Tensor, num_classes: int, ignore_index: int | None) -> None:
    """Refuse labels outside 0..num_classes-1. Reads values, so it waits for an accelerator."""
    if target.numel() == 0:
        return
    least, most = target.aminmax()
    if least >= 0 and most < num_classes:
        return
    outside = (target < 0) | (target >= num_classes)
    if ignore_index is not None:
        outside &= target != ignore_index
    if bool(outside.any()):
        index = tuple(outside.nonzero()[0].tolist())
        raise ValueError(
            f"The target holds label {int(target[index])} at index {index[0] if len(index) == 1 else index}, "
            f"outside the classes 0..{num_classes - 1} that h2 scores. Expected class indices in that range"
            + (f" or ignore_index={ignore_index}" if ignore_index is not None else "")
            + "."
        )


def align_binary(h2_output: Tensor, target: Tensor, h1_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bring scores (N,) or (N, 1), labels of any width and h1's output to one shape, in at least float32."""
    if not h2_output.is_floating_point():
        raise ValueError(
            f"h2's output must be floating-point scores, one per instance. Received dtype {h2_output.dtype}."
        )
    if h2_output.numel() == 0:
        raise ValueError(f"The batch is empty: h2's output has shape {_shape(h2_output)}. Drop empty batches.")
    shape = _shape(target)

    def shaped(tensor: Tensor, name: str) -> Tensor:
        if _shape(tensor) == shape:
            return tensor
        # (N,) and (N, 1) are the same column; nothing else is guessed.
        if tensor.numel() == target.numel() == max(shape, default=1) == max(tensor.shape, default=1):
            return tensor.reshape(shape)
        raise ValueError(
            f"Shapes differ: {name} of shape {_shape(tensor)} against a target of shape {shape}. Binary scores "
            f"need one score per label: (N,) or (N, 1)."
        )

    h2_output = in_float32(shaped(h2_output, "h2's output"))
    h1_output = shaped(h1_output, "h1's output")
    h1_output = in_float32(h1_output) if h1_output.is_floating_point() else h1_output.long()
    return h2_output, target.to(h2_output.dtype), h1_output


def _check_binary_values(target: Tensor, scores: dict[str, Tensor], from_logits: bool) -> None:
    if not bool(((target >= 0) & (target <= 1)).all()):
        raise ValueError(
            f"Binary targets must lie in 0..1. Received values from {target.min().item():g} to {target.max().item():g}."
        )
    if not from_logits:
        for name, score in scores.items():
            if score.is_floating_point() and bool(((score < 0) | (score > 1)).any()):
                raise ValueError(
                    f"{name} returned {score.min().item():g} to {score.max().item():g} where probabilities in 0..1 "
                    f"were expected. If the model returns logits, pass from_logits=True (to BCLightningModule: "
                    f"loss_options={{'from_logits': True}})."
                )


def says_probabilities(model: str, low: float, high: float) -> str:
    """What to say of probabilities where logits were expected."""
    return (
        f"{model} must give logits here (from_logits=True), and gives values within 0..1 alone, as probabilities are: "
        f"from {low:g} to {high:g}. The logit of probabilities is as good: {model}=lambda *args: "
        f"torch.logit(model(*args), eps=1e-6). If they are logits, say validate_args=False to the loss."
    )
