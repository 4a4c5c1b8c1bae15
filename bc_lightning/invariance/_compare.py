"""`compare_invariance`: what an update does to predictions and layers under transformations, in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bc_core.invariance import InvarianceUpdate, TransformSet
from bc_core.invariance._comparing import Comparing, ScoreReading, Wanted, only_predictions
from bc_core.invariance._layer_measures import Statistic, Summary
from bc_core.invariance._layers import LayerChoice
from bc_core.invariance._network import Measurement
from bc_core.invariance._rows import Where, rows_of
from bc_core.invariance._transform_set import check_identity
from bc_lightning._random_numbers import random_numbers_kept
from bc_lightning.invariance._network import TorchNetwork
from bc_lightning.invariance._rows import TorchRows
from bc_lightning.reference._reference import Reference
from bc_lightning.training.data._reader import evaluating, reading_of, trained_with


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
    threshold: float | None = None,
    from_logits: bool | None = None,
    statistic: Statistic = "std",
    how: Summary = "ratio_of_means",
    confidence: float = 0.95,
    seed: int = 0,
    probe_units: int = 256,
    probe_memory: int = 1 << 28,
    device: str | torch.device | None = None,
    batch_size: int = 256,
    max_memory: int | None = None,
) -> InvarianceUpdate:
    """Compare an update with the model in use under transformations: predictions, and NV layer by layer.

    Both see the same transformed samples, in eval mode and without gradients, and are then, also after an error, in the
    modes they were in. Intervals of NV come from what each sample does to it, the same samples for both, in the
    activations of `probe_units` units of each layer (all of smaller layers).

    Args:
        h1: The model in use, a ``torch.nn.Module``, or a `Reference` to one, with a class map where it has other
            classes.
        h2: Its update. Of a `BCLightningModule` what it is trained with is the default of `inputs`, `target`,
            `threshold` and `from_logits`. Layers of the same name are compared pairwise, all are shown by depth. Where
            one network stands inside of the other, as ``net`` in a LightningModule, ``"0"`` and ``"net.0"`` are one
            layer, under h2's name.
        data: As for `measure`; with labels, where batches hold them.
        transforms: The transformations; the identity must be one, as predictions for t x are compared with those for x.
        layers: As for `measure`, for both; an empty list compares predictions only.
        feature_axis: As for `measure`.
        inputs: Where the inputs are in a batch.
        target: Where the class numbers (N,) are in a batch. Default: the second of two, the last of three, and of a
            mapping what `bc_lightning` calls a target; batches without any give no scores against labels.
        threshold: A binary model, of one score per sample, says class 1 from this probability on. Default: 0.5.
        from_logits: Whether binary scores are logits. Default: no.
        statistic: The spread that intervals are of.
        how: The summary that intervals are of.
        confidence: Wanted coverage of the intervals.
        seed: Of the choice of units.
        probe_units: Most units of a layer to keep the activations of.
        probe_memory: Bytes that these may take for each network; with many samples, fewer units are kept.
        device: Where inputs go, for networks without weights.
        batch_size: Inputs at a time, transformed ones counted.
        max_memory: Bytes that the sums of both may take together; with more layers than fit, the data are gone through
            several times, for which they must come in the same order each time.

    Returns:
        The comparison; `h1` and `h2` hold the measures of the layers.

    Raises:
        TypeError: As `measure`.
        ValueError: As `measure`, or a model returned NaN, or there is no identity.

    Example:
        >>> import torch
        >>> from bc_core.invariance import TransformSet
        >>> from bc_lightning.invariance import compare_invariance
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3))
        >>> update = compare_invariance(net, net, torch.randn(30, 1, 8, 8), TransformSet.c4())
        >>> update.negative_flip_rate
        0.0
        >>> [row["difference_interval"] for row in update.depth_table()][:1]
        [Interval(low=0.0, high=0.0)]
    """
    check_identity(transforms)
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={threshold!r}.")
    multilabel, read = reading_of(h2, threshold, from_logits, None)
    if (state := trained_with(h2)) is not None:
        inputs = state.options.inputs if inputs is None else inputs
        target = state.options.target if target is None else target
    class_map = None
    if isinstance(h1, Reference):
        class_map, h1 = h1.class_map, h1.module if h1.module is not None else h1.h1
    share = None if max_memory is None else max(1, max_memory // 2)
    asked = Measurement(transforms, layers, feature_axis, max_memory=share)
    of_h1, of_h2 = (
        TorchNetwork(model, name, asked, device, read["from_logits"]) for model, name in ((h1, "h1"), (h2, "h2"))
    )
    reading = ScoreReading(read["threshold"], not read["from_logits"], multilabel)
    wanted = Wanted(statistic, how, confidence, probe_units, probe_memory, seed, only_predictions(layers))
    rows = TorchRows(data, rows_of(batch_size, len(transforms)), inputs, target, with_target=True)
    comparing = Comparing(of_h1, of_h2, rows, (reading, reading), wanted, class_map)
    # A network counts once where it is compared with itself.
    models = {id(network.module): network.module for network in (of_h1, of_h2)}.values()
    with random_numbers_kept(), evaluating(*models):
        return comparing.run()
