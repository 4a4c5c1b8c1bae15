"""The compiled loss, weighted by instance: what new error is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask, set_keras_mask  # public nowhere; JAX keeps masks beside its arrays
from keras.src.losses.loss import reduce_weighted_values  # public nowhere; how every loss of Keras is reduced

from bc_keras._copies import sharing
from bc_keras.batches._labels import columns_of

_Shape = tuple[int | None, ...]


def weighted_loss(compile_loss: Any, target: Any, h2_output: Any, weight: Any, labels: str | None = None) -> Any:
    """The loss that Keras computes, with the weight of each instance as its sample weight.

    Args:
        compile_loss: what ``compile`` made of the loss, after its first call.
        target: target of the batch.
        h2_output: output of the batch.
        weight: weights in the shape of the labels, (N,) or, for dense outputs, (N, ...).
        labels: where each column is a label of its own, with a weight of its own, what `over_labels` says.

    Raises:
        ValueError: a loss that does not give a value for each of these, such as one number for the batch.
    """
    ((_, loss, loss_weight, _),) = compile_loss._flat_losses
    each, scale = sharing(loss), 1.0
    if len(weight.shape) == len(h2_output.shape) and columns_of(h2_output) > 1:
        scale = _scale_of_labels(loss, labels, columns_of(h2_output))
        mask = get_keras_mask(h2_output)
        target, h2_output = (ops.expand_dims(tensor, -1) for tensor in (target, h2_output))
        if mask is not None:
            set_keras_mask(h2_output, mask)
    if type(loss).__call__ is keras.losses.Loss.__call__:
        each.call = lambda y_true, y_pred: _by_instance(loss, loss.call, y_true, y_pred, tuple(weight.shape))
        # A name such as "_focal" is none of TensorFlow's outermost scopes.
        with keras.name_scope("new_error"):
            value = each(target, h2_output, weight)
    else:
        # A `__call__` of the user's own may do anything with weights, so it is asked for the values alone.
        each.reduction = None
        values = _by_instance(loss, each, target, h2_output, tuple(weight.shape))
        value = reduce_weighted_values(
            values, sample_weight=weight, mask=get_keras_mask(h2_output), reduction=loss.reduction, dtype=loss.dtype
        )
    value = ops.cast(value, compile_loss.dtype)
    value = value if scale == 1 else scale * value
    return value if loss_weight is None else ops.multiply(value, loss_weight)


def over_labels(loss: Any, columns: int) -> str | None:
    """Whether a loss of an instance is the ``"mean"`` or the ``"sum"`` of those of its labels; None: of something else.

    Tried on made-up scores, outside of any step.

    Args:
        loss: as it was compiled.
        columns: how many labels there are.
    """
    scores = np.linspace(0.1, 0.9, (columns + 2) * columns).reshape(-1, columns)
    said = np.arange(scores.size).reshape(scores.shape) % 3 % 2

    def values(target: Any, output: Any, wanted: _Shape) -> Any:
        target, output = (ops.convert_to_tensor(tensor, keras.config.floatx()) for tensor in (target, output))
        return ops.convert_to_numpy(_by_instance(loss, each, target, output, wanted))

    try:
        each = sharing(loss) if isinstance(loss, keras.losses.Loss) else keras.losses.get(loss)
        if isinstance(each, keras.losses.Loss):
            each.reduction = None
        whole = values(said, scores, (len(scores),))
        labels = values(said[..., None], scores[..., None], scores.shape)
    except Exception:
        return None  # it takes another form of target
    for how, value in (("mean", labels.mean(-1)), ("sum", labels.sum(-1))):
        if np.allclose(whole, value, rtol=1e-4):
            return how
    return None


def _scale_of_labels(loss: Any, labels: str | None, columns: int) -> float:
    """By what a reduction over all labels is to be multiplied, to be that over the instances."""
    if labels is None:
        raise ValueError(
            "New error is the compiled loss where h1 is right, here of each label, and this loss is neither the mean "
            "nor the sum of the losses of the labels. Keep it as the base and train another dissonance beside it: "
            "BCModel(..., loss='BCBinaryCrossEntropyLoss') is new error by the cross-entropy. "
            f"Received: the loss {loss.name!r}, of {columns} labels."
        )
    is_summed = loss.reduction in ("sum", "none", None)
    if labels == "mean":
        return 1 / columns if is_summed else 1.0
    return 1.0 if is_summed else float(columns)


def _by_instance(loss: Any, values_of: Callable[[Any, Any], Any], target: Any, h2_output: Any, wanted: _Shape) -> Any:
    """The values of a loss in the shape of the labels."""
    values = values_of(target, h2_output)
    shape = tuple(values.shape)
    if shape == () and all(length == 1 for length in wanted):
        return ops.reshape(values, wanted)  # one instance, whose loss this is
    if not _begins_with(shape, wanted) or _is_fixed(shape, values_of, target, h2_output):
        _refuse(loss, shape, wanted, columns_of(h2_output))
    more = tuple(range(len(wanted), len(shape)))
    if not more:
        return values
    # A loss of elements: Keras averages over all axes alike.
    return (ops.sum if getattr(loss, "reduction", "") in ("sum", "none", None) else ops.mean)(values, axis=more)


def _begins_with(shape: _Shape, wanted: _Shape) -> bool:
    if len(shape) < len(wanted) or (wanted[0] is None and shape[0] is not None):
        return False
    return all(None in (got, known) or got == known for got, known in zip(shape, wanted, strict=False))


def _is_fixed(shape: _Shape, values_of: Callable[[Any, Any], Any], target: Any, h2_output: Any) -> bool:
    """Whether the first axis is as long as the batch by chance alone, as that of one value per class may be."""
    if shape[0] is None or shape[0] not in tuple(h2_output.shape)[1:]:
        return False
    one_more = [ops.concatenate([each, each[:1]]) for each in (target, h2_output)]
    return bool(values_of(*one_more).shape[0] == shape[0])


def _refuse(loss: Any, shape: _Shape, wanted: _Shape, columns: int) -> None:
    axis = ""
    if columns > 1 and (isinstance(loss, keras.losses.Dice | keras.losses.Tversky) or loss.name in ("dice", "tversky")):
        axis = f" ({loss.name.capitalize()}(axis=-1) does)"
    named = "BCBinaryCrossEntropyLoss" if columns == 1 else "BCCrossEntropyLoss"
    raise ValueError(
        "New error is the compiled loss where h1 is right, so it needs the loss of each instance, and this loss gives "
        f"{'values' if shape else 'one number'} for the whole batch. Let it return one value per instance, whose mean "
        f"Keras takes{axis}; or keep it as the base and train another dissonance beside it: BCModel(..., "
        f"loss={named!r}) or dissonance='strict_imitation'. Received: the loss {loss.name!r}, with values of shape "
        f"{shape} for labels of shape {wanted}."
    )
