"""The compiled loss, weighted by instance: what new error is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from keras.src.backend import get_keras_mask  # public nowhere; JAX keeps masks beside its arrays
from keras.src.losses.loss import reduce_weighted_values  # public nowhere; how every loss of Keras is reduced

from bc_keras._copies import sharing
from bc_keras.batches._labels import columns_of

_Shape = tuple[int | None, ...]


def weighted_loss(compile_loss: Any, target: Any, h2_output: Any, weight: Any) -> Any:
    """The loss that Keras computes, with the weight of each instance as its sample weight.

    Args:
        compile_loss: what ``compile`` made of the loss, after its first call.
        target: target of the batch.
        h2_output: output of the batch.
        weight: weights in the shape of the labels, (N,) or, for dense outputs, (N, ...).

    Raises:
        ValueError: a loss that does not give a value for each of these, such as one number for the batch.
    """
    ((_, loss, loss_weight, _),) = compile_loss._flat_losses
    each = sharing(loss)
    if type(loss).__call__ is keras.losses.Loss.__call__:
        each.call = lambda y_true, y_pred: _by_instance(loss, loss.call, y_true, y_pred, tuple(weight.shape))
        value = each(target, h2_output, weight)
    else:
        # A `__call__` of the user's own may do anything with weights, so it is asked for the values alone.
        each.reduction = None
        values = _by_instance(loss, each, target, h2_output, tuple(weight.shape))
        value = reduce_weighted_values(
            values, sample_weight=weight, mask=get_keras_mask(h2_output), reduction=loss.reduction, dtype=loss.dtype
        )
    value = ops.cast(value, compile_loss.dtype)
    return value if loss_weight is None else ops.multiply(value, loss_weight)


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
    return (ops.sum if loss.reduction in ("sum", "none", None) else ops.mean)(values, axis=more)


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
