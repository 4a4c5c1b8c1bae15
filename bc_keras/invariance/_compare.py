"""`compare_invariance`: what an update does to predictions and layers under transformations, in one pass."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.utils.naming import to_snake_case  # public nowhere; what Keras names layers by
from numpy.typing import NDArray

from bc_core.invariance import (
    InvarianceUpdate,
    LayerMeasures,
    Probes,
    TransformSet,
    compare_predictions,
    depth_intervals,
)
from bc_core.invariance._result import Statistic, Summary
from bc_core.invariance._transforms import check_identity
from bc_core.invariance._update import classes_of_h2
from bc_keras._random_numbers import random_numbers_kept
from bc_keras.invariance._activations import OUTPUT, LayerChoice, layers_of
from bc_keras.invariance._data import Rows, Where
from bc_keras.invariance._measure import measures_of, opened, result_of, rows_of
from bc_keras.invariance._passes import Network, plain
from bc_keras.reference._reference import Reference, only_tensor
from bc_keras.training._compiled_loss import CompiledLoss
from bc_keras.training._model import BCModel


def compare_invariance(
    h1: Any,
    h2: Any,
    data: Any,
    transforms: TransformSet,
    *,
    layers: LayerChoice | None = None,
    feature_axis: int | Mapping[str, int] | None = None,
    inputs: Where | None = None,
    target: Where | None = None,
    transformed: str | int | None = None,
    data_format: str | None = None,
    threshold: float = 0.5,
    from_logits: bool | None = None,
    statistic: Statistic = "std",
    how: Summary = "ratio_of_means",
    confidence: float = 0.95,
    seed: int = 0,
    probe_units: int = 256,
    probe_memory: int = 1 << 28,
    batch_size: int = 256,
    max_memory: int | None = None,
    run_eagerly: bool | None = None,
) -> InvarianceUpdate:
    """Compare an update with the model in use under transformations: predictions, and NV layer by layer.

    Both see the same transformed samples, in inference mode and without gradients, and are as they were afterwards,
    also after an error. Intervals of NV come from what each sample does to it, the same samples for both, in the
    activations of `probe_units` units of each layer (all of smaller layers).

    Layers are compared pairwise where they have the same name. Names that Keras gave by itself, such as ``"conv2d_7"``,
    differ from model to model: the third of its kind in h1 is compared with the third of its kind in h2, under h2's
    name.

    Args:
        h1: the model in use, a Keras model, or a `Reference` to one, with a class map where it has other classes.
        h2: its update.
        data: as for `measure`; with labels, class numbers or one-hot, where batches hold them.
        transforms: the transformations; the identity must be one, as predictions for t x are compared with those for x.
        layers: as for `measure`, for both, by h2's names; an empty list compares predictions only.
        feature_axis: as for `measure`.
        inputs: where the inputs are in a batch.
        target: where the labels are in a batch. Defaults to `None`, as Keras reads it; batches without any give no
            scores against labels.
        transformed: as for `measure`.
        data_format: as for `measure`.
        threshold: a binary model, of one score per sample, says class 1 from this probability on.
        from_logits: whether binary scores are logits. Defaults to `None`: what each compiled loss says, probabilities
            if it is not compiled.
        statistic: the spread that intervals are of.
        how: the summary that intervals are of.
        confidence: wanted coverage of the intervals.
        seed: of the choice of units.
        probe_units: most units of a layer to keep the activations of.
        probe_memory: bytes that these may take for each model; with many samples, fewer units are kept.
        batch_size: inputs at a time, transformed ones counted.
        max_memory: bytes that the sums of both may take together; with more layers than fit, the data are gone through
            several times, for which they must come in the same order each time.
        run_eagerly: as for `measure`.

    Returns:
        The comparison; `h1` and `h2` hold the measures of the layers.

    Raises:
        TypeError: As `measure`.
        ValueError: As `measure`, or a model returned NaN, or there is no identity.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet, compare_invariance
        >>> net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3, name="fc")])
        >>> x, y = np.random.default_rng(0).normal(size=(30, 8, 8, 1)), np.arange(30) % 3
        >>> update = compare_invariance(net, net, (x, y), TransformSet.c4())
        >>> update.negative_flip_rate
        0.0
        >>> [row["difference_interval"] for row in update.depth_table()][:1]
        [Interval(low=0.0, high=0.0)]
    """
    return Comparing(
        h1,
        h2,
        data,
        transforms,
        layers=layers,
        feature_axis=feature_axis,
        inputs=inputs,
        target=target,
        transformed=transformed,
        data_format=data_format,
        threshold=threshold,
        from_logits=from_logits,
        statistic=statistic,
        how=how,
        confidence=confidence,
        seed=seed,
        probe_units=probe_units,
        probe_memory=probe_memory,
        batch_size=batch_size,
        max_memory=max_memory,
        run_eagerly=run_eagerly,
    ).run()


class Comparing:
    """`compare_invariance` that can be run again as h2 is trained, without compiling anything anew.

    Args:
        h1: the model in use.
        h2: its update.
        data: what to compare on.
        transforms: the transformations.
        options: those of `compare_invariance`.
    """

    def __init__(
        self,
        h1: Any,
        h2: Any,
        data: Any,
        transforms: TransformSet,
        *,
        layers: LayerChoice | None = None,
        feature_axis: int | Mapping[str, int] | None = None,
        inputs: Where | None = None,
        target: Where | None = None,
        transformed: str | int | None = None,
        data_format: str | None = None,
        threshold: float = 0.5,
        from_logits: bool | None = None,
        statistic: Statistic = "std",
        how: Summary = "ratio_of_means",
        confidence: float = 0.95,
        seed: int = 0,
        probe_units: int = 256,
        probe_memory: int = 1 << 28,
        batch_size: int = 256,
        max_memory: int | None = None,
        run_eagerly: bool | None = None,
    ) -> None:
        check_identity(transforms)
        self._class_map: Sequence[int] | None = None
        if isinstance(h1, Reference):
            self._class_map, h1 = h1.class_map, h1.h1
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={threshold!r}.")
        self._only_predictions = layers is not None and not callable(layers) and len(layers) == 0
        share = None if max_memory is None else max(1, max_memory // 2)
        for_h1 = layers
        if isinstance(h1, keras.Layer) and isinstance(h2, keras.Layer):
            for_h1 = _in_names_of(plain(h1), plain(h2), layers)
        self._models = (h1, h2)
        self._networks = [
            Network(model, transforms, chosen, feature_axis, False, share, transformed, data_format, run_eagerly, name)
            for model, chosen, name in ((h1, for_h1, "h1"), (h2, layers, "h2"))
        ]
        self._rows = Rows(data, rows_of(batch_size, len(transforms)), inputs, target, with_target=True)
        self._transforms = transforms
        self._threshold, self._from_logits = threshold, from_logits
        self._statistic, self._how, self._confidence = statistic, how, confidence
        self._probes = (probe_units, probe_memory, seed)

    def run(self) -> InvarianceUpdate:
        """Compare the models as they are now."""
        with random_numbers_kept():
            return self._run()

    def _run(self) -> InvarianceUpdate:
        rows, networks, columns = self._rows, self._networks, len(self._transforms)
        if self._only_predictions:
            pieces = iter(rows)
            passes = 1
        else:
            are_new = not networks[0].layers
            pieces = opened(networks, rows, again=False)
            if are_new:
                networks[0].rename(_names_in(networks[0], networks[1]))
            passes = max(len(network.groups) for network in networks)
            if passes > 1 and not rows.in_order:
                _refuse_other_order(rows)
            for network in networks:
                network.probes = Probes(*self._probes)
                network.forget()
        predictions: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
        targets: list[NDArray[Any]] = []
        found: tuple[list[LayerMeasures], list[LayerMeasures]] = ([], [])
        samples = 0
        losses = [_compiled_loss(model) for model in self._models]
        for number in range(passes):
            groups = [network.groups[number] if number < len(network.groups) else [] for network in networks]
            with ExitStack() as stack:
                runs = [
                    stack.enter_context(network.passing(group, output=number == 0))
                    for network, group in zip(networks, groups, strict=True)
                ]
                for piece in pieces if number == 0 else rows:
                    tile = networks[0].tile(piece)
                    for which, name in enumerate(("h1", "h2")):
                        if number and not groups[which]:
                            continue
                        output = runs[which](piece, tile)
                        if not number:
                            classes = self._classes(losses[which], output, name, piece.rows * columns)
                            predictions[which].append(classes.reshape(piece.rows, columns))
                    if not number and piece.target is not None:
                        targets.append(piece.target)
            if not number:
                samples = sum(map(len, predictions[0]))
            # At once, since these are the sums that `max_memory` bounds.
            for network, group, measures in zip(networks, groups, found, strict=True):
                for layer in group:
                    moments = network.moments(layer.name)
                    if (read := measures_of(layer, moments, samples, network.left_out)) is not None:
                        measures.append(read)
        if not samples:
            raise ValueError("data must hold at least two samples. Received: none.")
        h1_pred, h2_pred = (np.concatenate(kept) for kept in predictions)
        truth = np.concatenate(targets) if targets else None
        if self._class_map is not None:
            h1_pred = classes_of_h2(h1_pred, self._class_map, h2_pred, truth)
        update = compare_predictions(h1_pred, h2_pred, truth, transforms=self._transforms)
        update = replace(update, statistic=self._statistic, how=self._how)
        if self._only_predictions:
            return update
        results = [
            result_of(measures, self._transforms, network.left_out)
            for measures, network in zip(found, networks, strict=True)
        ]
        probes = networks[0].probes, networks[1].probes
        assert probes[0] is not None
        assert probes[1] is not None
        intervals = depth_intervals(
            results[0],
            results[1],
            (probes[0], probes[1]),
            statistic=self._statistic,
            how=self._how,
            confidence=self._confidence,
        )
        return replace(update, h1=results[0], h2=results[1], intervals=intervals, confidence=self._confidence)

    def _classes(self, compiled: CompiledLoss | None, output: Any, name: str, inputs: int) -> NDArray[np.int64]:
        """Predicted class of each input."""
        scores = ops.convert_to_numpy(only_tensor(output, name))
        if scores.dtype.kind == "V":  # bfloat16
            scores = scores.astype(np.float32)
        if scores.ndim not in (1, 2) or len(scores) != inputs:
            raise ValueError(
                f"{name} must return scores of shape ({inputs}, C), one row for each input. Received: {scores.shape}."
            )
        if scores.dtype.kind == "f" and np.isnan(scores).any():
            raise ValueError(
                f"{name} returned NaN, so it has no prediction there: look for a diverged or half-loaded model, or "
                f"inputs that are NaN already. Received: an output of shape {scores.shape}."
            )
        if scores.ndim == 2 and scores.shape[1] > 1:
            if compiled is not None and compiled.binary:
                raise ValueError(
                    f"{name} is compiled with a binary loss and must return one score per input: of several labels "
                    "each is kept or lost by itself; compare one at a time, with models that return its column. "
                    f"Received: {scores.shape[1]} labels."
                )
            return _as_classes(scores.argmax(axis=1))
        scores = scores.reshape(-1)
        if scores.dtype.kind != "f":
            return _as_classes(scores)
        from_logits = self._from_logits
        if from_logits is None and compiled is not None:
            from_logits = compiled.from_logits
        if from_logits:
            return _as_classes(scores >= np.log(self._threshold / (1 - self._threshold)))
        if ((scores < 0) | (scores > 1)).any():
            raise ValueError(
                f"{name} must return probabilities; if the models return logits, pass from_logits=True. Received: "
                f"{scores.min():g} to {scores.max():g}."
            )
        return _as_classes(scores >= self._threshold)


def _compiled_loss(model: Any) -> CompiledLoss | None:
    """The one loss that a model is compiled with, if it is."""
    loss = model._base if isinstance(model, BCModel) else getattr(model, "loss", None)
    return None if loss is None or len(keras.tree.flatten(loss)) != 1 else CompiledLoss.of(loss)


def _as_classes(array: Any) -> NDArray[np.int64]:
    return np.asarray(array, dtype=np.int64)


def _refuse_other_order(rows: Rows) -> None:
    first, second = (next(iter(rows)) for _ in range(2))
    leaves = zip(keras.tree.flatten(first.x), keras.tree.flatten(second.x), strict=True)
    if not all(np.array_equal(a, b) for a, b in leaves):
        raise ValueError(
            "With max_memory the data are gone through several times, so samples must come in the same order: leave "
            "out shuffle, or pass arrays or list(data). Received: data that began with other samples the second time."
        )


def _numbered(model: Any) -> dict[str, str]:
    """For each layer's name one that does not depend on how many layers were made before, such as ``"conv2d#3"``."""
    numbered = {"": ""}
    counts: dict[str, int] = {}
    for name, layer in layers_of(model):
        if not name:
            continue
        around = name.rpartition("/")[0]
        prefix = f"{numbered[around]}/" if around else ""
        kind = to_snake_case(type(layer).__name__)
        own = name.rpartition("/")[2]
        if re.fullmatch(rf"{re.escape(kind)}(_\d+)?", own):
            counts[prefix + kind] = counts.get(prefix + kind, 0) + 1
            own = f"{kind}#{counts[prefix + kind]}"
        numbered[name] = prefix + own
    return numbered


def _parts(label: str) -> tuple[str, str]:
    """A layer's name, and what says which of its activations it is."""
    found = re.match(r"([^:\[]*)(.*)", label)
    assert found is not None
    return ("" if found[1] == OUTPUT else found[1]), found[2]


def _in_names_of(h1: Any, h2: Any, layers: LayerChoice | None) -> LayerChoice | None:
    """A choice by h2's names and layers, for h1."""
    if layers is None or callable(layers) or isinstance(layers, (str, keras.Layer)):
        return layers
    own = dict(layers_of(h1))
    by_number = {number: name for name, number in _numbered(h1).items()}
    numbers = _numbered(h2)
    by_layer = {id(layer): name for name, layer in layers_of(h2)}
    chosen: list[Any] = []
    for one in layers:
        label = one
        if isinstance(one, keras.Layer):
            if any(one is layer for layer in own.values()) or id(one) not in by_layer:
                chosen.append(one)
                continue
            label = by_layer[id(one)] or OUTPUT
        if isinstance(label, str):
            name, part = _parts(label)
            name = by_number.get(numbers.get(name, name), name)
            label = (name or OUTPUT) + part
        chosen.append(label)
    return chosen


def _names_in(h1: Network, h2: Network) -> dict[str, str]:
    """What h1's layers are called beside h2's."""
    names: Sequence[str] = [layer.name for layer in h2.layers]
    numbers_h1, numbers_h2 = _numbered(h1.model), _numbered(h2.model)
    by_number = {}
    for label in names:
        name, part = _parts(label)
        by_number[numbers_h2.get(name, name) + part] = label
    shown = {}
    for layer in h1.layers:
        name, part = _parts(layer.name)
        counterpart = by_number.get(numbers_h1.get(name, name) + part)
        if counterpart is not None:
            shown[layer.name] = counterpart
        elif layer.name in names:
            shown[layer.name] = f"{layer.name} (h1)"
    return {name: to for name, to in shown.items() if name != to}
