"""The part of a step that imitates on inputs without labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask  # public nowhere; JAX keeps masks beside its arrays

from bc_core.losses._mixtures import ROUNDING, says_not_mixed, taught
from bc_core.losses._options import Base
from bc_keras._keras_operations import over_classes
from bc_keras.batches._labels import NO_CLASS, TINY, columns_of, has_rows, is_float, target_classes
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.reference._blend import Member
from bc_keras.reference._reference import only_tensor
from bc_keras.training._state import Compatibility
from bc_keras.training.beside._unlabelled import Mixtures, mixed
from bc_keras.training.compiled._compiled_loss import CompiledLoss, DissonanceLoss, Reading
from bc_keras.training.step._penalty import imitated, zero_or_one


def unlabelled_dissonance(model: Any, state: Compatibility, reading: Reading, x: Any, target: Any) -> Any:
    """Mean dissonance of the next unlabelled inputs, or of mixtures of a batch, with gradients for h2.

    h2 is run once more in training mode: its random layers draw numbers of their own, so that those of the labelled
    batches are the same with it as without; batch normalisation takes the statistics of these rows, and those that it
    keeps for inference stay as they are.

    Args:
        model: h2.
        state: what it is held to.
        reading: how outputs are read.
        x: inputs of the batch.
        target: its target.
    """
    given, batch, share = state.unlabelled, state.step.given, None
    assert given is not None
    values = None if batch is None else batch["unlabelled"]
    networks = [model, *_networks_behind(state.imitated)] if isinstance(given, Mixtures) else []
    if isinstance(given, Mixtures):
        _check_take_floats(networks)
        share = given.next_share(ops.shape(keras.tree.flatten(x)[0])[0], values)
        x = mixed(x, share)
    else:
        x = given.next_inputs(values)
    x = keras.tree.map_structure(_as_input, x)
    with _no_mixed_categories(networks):
        with _statistics_kept(model), _random_numbers_kept(model):
            h2_output = only_tensor(model(x, training=True) if model._call_has_training_arg else model(x), "h2")
        if len(h2_output.shape) == 1:
            h2_output = ops.expand_dims(h2_output, -1)
        answer = imitated(state, x, columns_of(h2_output), reading)
    if not is_float(answer):
        raise ValueError("h1 gives labels, and on unlabelled inputs its probabilities are imitated: give its scores.")
    answer = state.imitated.to_imitate(answer, h2_output, reading.h1_from_logits, reading.from_logits)
    if isinstance(given, Mixtures) and given.labels:
        answer = _with_labels(answer, target, share, given.labels, reading, state.compiled.facts)
    if state.compiled.unlabelled_loss is None:
        state.compiled.unlabelled_loss = _loss(state, reading)
    # Any target does: of the base nothing is used.
    target = ops.zeros_like(h2_output) if reading.binary else ops.argmax(h2_output, axis=-1)
    mask = get_keras_mask(h2_output)
    dissonance = state.compiled.unlabelled_loss((target, (answer,), *([] if mask is None else [mask])), h2_output)
    return dissonance if state.compiled.loss_weight is None else dissonance * state.compiled.loss_weight


def _with_labels(answer: Any, target: Any, share: Any, labels: float, reading: Reading, facts: CompiledLoss) -> Any:
    """What h2 is taught of mixtures, in the form of h1's scores: these, and a share of their labels, mixed alike."""
    answer = ops.cast(answer, "float64" if keras.config.floatx() == "float64" else "float32")
    columns, both = target, None
    if reading.binary:
        said = ops.sigmoid(answer) if reading.h1_from_logits else answer
        columns = zero_or_one(ops.reshape(target, ops.shape(said)), said)
    else:
        said = ops.softmax(answer, axis=-1) if reading.h1_from_logits else answer
        shape = tuple(said.shape)
        is_row = has_rows(target, shape)
        classes, nothing = target_classes(target, shape[:-1], shape[-1]), NO_CLASS if is_row else facts.ignore_class
        if nothing is not None:
            known = ops.expand_dims(classes != nothing, -1)
            both = ops.logical_and(known, ops.flip(known, axis=0))
            # An ignored label may lie outside of the classes.
            classes = ops.where(classes != nothing, classes, 0)
        if not is_row:
            columns = ops.one_hot(classes, shape[-1], dtype=said.dtype)
        columns = ops.cast(columns, said.dtype)
    blend = taught(over_classes, said, mixed(columns, share), labels, both)
    if not reading.h1_from_logits:
        return blend
    if reading.binary:
        blend = ops.clip(blend, ROUNDING, 1 - ROUNDING)
        return ops.log(blend) - ops.log(1 - blend)
    return ops.log(ops.maximum(blend, TINY))


def _as_input(value: Any) -> Any:
    dtype = keras.backend.standardize_dtype(value.dtype)
    # As `fit` casts what it is given.
    return ops.cast(value, keras.config.floatx()) if "float" in dtype else ops.convert_to_tensor(value)


def _loss(state: Compatibility, reading: Reading) -> DissonanceLoss:
    base: Base = "kl_divergence" if state.compiled.facts.divergence else "cross_entropy"
    given = state.options.criterion
    if given is not None:
        base = given.base
    if reading.binary:
        base = "binary_cross_entropy"
    criterion = CompatibilityLoss(
        base,
        "imitation",
        from_logits=reading.from_logits,
        h1_from_logits=reading.h1_from_logits,
        threshold=state.options.threshold if reading.binary else 0.5,
        validate_args=False,  # values cannot be read inside a compiled step
    )
    return DissonanceLoss(criterion, state.compiled.facts.reduction)


def _networks_behind(reference: Member) -> Iterator[Any]:
    """The networks that answer for h1 or a teacher."""
    if reference.mixed is not None:
        for member in reference.mixed.members:
            yield from _networks_behind(member)
    elif isinstance(reference.h1, keras.Layer):
        yield reference.h1


def _check_take_floats(networks: Iterable[Any]) -> None:
    """Refuse a network that makes whole numbers of what it is given, whatever that is."""
    for network in networks:
        for each in keras.tree.flatten(getattr(network, "inputs", None) or []):
            if "float" not in (dtype := keras.backend.standardize_dtype(each.dtype)):
                raise TypeError(says_not_mixed(dtype))


# They cut floats to whole numbers, or take each for a category of its own.
_OF_CATEGORIES = tuple(
    getattr(keras.layers, name)
    for name in ("Embedding", "CategoryEncoding", "Hashing", "HashedCrossing", "IntegerLookup", "StringLookup")
)


@contextmanager
def _no_mixed_categories(networks: Iterable[Any]) -> Iterator[None]:
    """Within it layers of categories refuse floats, which would be other categories."""
    layers = [layer for network in networks for layer in network._flatten_layers() if isinstance(layer, _OF_CATEGORIES)]
    refused: list[str] = []

    def refusing(layer: Any, call: Any) -> Any:
        def checked(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            for leaf in keras.tree.flatten(inputs):
                if "float" in (dtype := keras.backend.standardize_dtype(leaf.dtype)):
                    refused.append(f"{says_not_mixed(dtype)[:-1]}, for {type(layer).__name__} {layer.name!r}.")
                    raise TypeError(refused[0])
            return call(inputs, *args, **kwargs)

        return checked

    try:
        for layer in layers:
            layer.__dict__["call"] = refusing(layer, layer.call)
        yield
    except (TypeError, ValueError) as error:
        if not refused:
            raise
        raise TypeError(refused[0]) from error  # without what Keras, and whoever asks h1, say around it
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)


@contextmanager
def _statistics_kept(model: keras.Model) -> Iterator[None]:
    """Within it batch normalisation keeps its statistics for inference, and a stateful layer where it stands."""
    layers = model._flatten_layers()
    kept = [(layer, layer.momentum) for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    stateful = [layer for layer in layers if getattr(layer, "stateful", False)]
    states = keras.tree.flatten([getattr(layer, "states", None) or [] for layer in stateful])
    before = [each.value * 1 for each in states]
    try:
        for layer, _ in kept:
            # All of the old and nothing of the new.
            layer.momentum = 1.0
        yield
    finally:
        for layer, momentum in kept:
            layer.momentum = momentum
        for each, value in zip(states, before, strict=True):
            each.assign(value)


# Added to the seeds of random layers; any number that nobody adds to a seed of theirs.
_OTHER_SEED = 0x5EED


@contextmanager
def _random_numbers_kept(model: keras.Model) -> Iterator[None]:
    """Within it random layers draw from other seeds, and afterwards they draw as if it had not been."""
    generators = [each for layer in model._flatten_layers() for each in getattr(layer, "_seed_generators", ())]
    before = [generator.state.value * 1 for generator in generators]
    try:
        for generator, state in zip(generators, before, strict=True):
            other = ops.convert_to_tensor(np.array([_OTHER_SEED, 0]), dtype=generator.state.dtype)
            generator.state.assign(ops.add(state, other))
        with _torch_kept():
            yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.state.assign(state)


@contextmanager
def _torch_kept() -> Iterator[None]:
    """On torch a dropout without a seed draws from torch's own generators."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    if torch.compiler.is_compiling():
        yield
        return
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(range(torch.cuda.device_count()) if in_use else []):
        # Of the generator of the CPU, so that no device is waited for.
        torch.manual_seed(int(torch.randint(2**62, ())))
        yield
