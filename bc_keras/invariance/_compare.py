"""`compare_invariance`: what an update does to predictions and layers under transformations, in one pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras

from bc_core.invariance import InvarianceUpdate, TransformSet
from bc_core.invariance._comparing import Comparing, ScoreReading, Wanted, only_predictions
from bc_core.invariance._layer_measures import Statistic, Summary
from bc_core.invariance._layers import LayerChoice
from bc_core.invariance._network import Measurement
from bc_core.invariance._rows import Where, rows_of
from bc_core.invariance._transform_set import check_identity
from bc_keras._random_numbers import random_numbers_kept
from bc_keras.invariance._naming import in_names_of
from bc_keras.invariance._network import KerasNetwork, plain
from bc_keras.invariance._rows import KerasRows
from bc_keras.reference._reference import Reference
from bc_keras.training._model import BCModel
from bc_keras.training.compiled._compiled_loss import CompiledLoss


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
    comparing = comparing_of(**locals())
    with random_numbers_kept():
        return comparing.run()


def comparing_of(
    h1: Any,
    h2: Any,
    data: Any,
    transforms: TransformSet,
    *,
    layers: LayerChoice | None,
    inputs: Where | None,
    target: Where | None,
    feature_axis: Any,
    transformed: Any,
    data_format: Any,
    run_eagerly: bool | None,
    threshold: float,
    from_logits: bool | None,
    batch_size: int,
    max_memory: int | None,
    **wanted: Any,
) -> Comparing:
    """`compare_invariance` that can be run again, without compiling anything anew; its arguments, each of them."""
    check_identity(transforms)
    class_map: Sequence[Any] | None = None
    if isinstance(h1, Reference):
        class_map, h1 = h1.class_map, h1.h1
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={threshold!r}.")
    of_h1 = layers
    if isinstance(h1, keras.Layer) and isinstance(h2, keras.Layer):
        of_h1 = in_names_of(plain(h1), plain(h2), layers)
    share = None if max_memory is None else max(1, max_memory // 2)
    asked = Measurement(transforms, layers, feature_axis, max_memory=share)
    networks = [
        KerasNetwork(model, name, each, transformed, data_format, run_eagerly)
        for model, name, each in ((h1, "h1", replace(asked, layers=of_h1)), (h2, "h2", asked))
    ]
    rows = KerasRows(data, rows_of(batch_size, len(transforms)), inputs, target, with_target=True)
    readings = _reading(h1, threshold, from_logits), _reading(h2, threshold, from_logits)
    options = Wanted(**wanted, only_predictions=only_predictions(layers))
    return Comparing(networks[0], networks[1], rows, readings, options, class_map)


def _reading(model: Any, threshold: float, from_logits: bool | None) -> ScoreReading:
    """How a model's scores are read, as the one loss says that it is compiled with, if it is."""
    loss = model._base if isinstance(model, BCModel) else getattr(model, "loss", None)
    compiled = None if loss is None or len(keras.tree.flatten(loss)) != 1 else CompiledLoss.of(loss)
    if from_logits is None:
        from_logits = compiled is not None and bool(compiled.from_logits)
    # The same comparison on the other side of the sigmoid, which saturates.
    limit = math.log(threshold / (1 - threshold)) if from_logits else threshold
    return ScoreReading(limit, not from_logits, compiled is not None and compiled.binary)
