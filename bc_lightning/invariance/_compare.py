"""`compare_invariance`: what an update does to predictions and layers under transformations, in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from bc_lightning._random_numbers import random_numbers_kept
from bc_lightning.batches._model_outputs import scores_from_output
from bc_lightning.evaluation._evaluate import _evaluating, _reading, _trained_with
from bc_lightning.invariance._activations import OUTPUT, LayerChoice
from bc_lightning.invariance._data import Rows, Where
from bc_lightning.invariance._measure import _rows_of, check_once_only
from bc_lightning.invariance._passes import Network
from bc_lightning.reference._reference import Reference


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
    multilabel, reading = _reading(h2, threshold, from_logits, None)
    if (state := _trained_with(h2)) is not None:
        inputs = state.options.inputs if inputs is None else inputs
        target = state.options.target if target is None else target
    only_predictions = layers is not None and not callable(layers) and len(layers) == 0
    share = None if max_memory is None else max(1, max_memory // 2)
    class_map = None
    if isinstance(h1, Reference):
        class_map, h1 = h1.class_map, h1.module if h1.module is not None else h1.h1
    networks = [
        Network(model, transforms, layers, feature_axis, False, share, device, name)
        for model, name in ((h1, "h1"), (h2, "h2"))
    ]
    for network in networks:
        network.probes = Probes(probe_units, probe_memory, seed)
    rows = Rows(data, _rows_of(batch_size, len(transforms)), inputs, target, with_target=True)
    predictions: tuple[list[Tensor], list[Tensor]] = ([], [])
    targets: list[Tensor] = []
    found: tuple[list[LayerMeasures | None], list[LayerMeasures | None]] = ([], [])
    # A network counts once where it is compared with itself.
    models = {id(network.module): network.module for network in networks}.values()
    with random_numbers_kept(), _evaluating(*models):
        pieces = iter(rows)
        first = next(pieces, None)
        if first is None:
            raise ValueError("data: expected at least two samples, got none; look at the loader's data set")
        passes = 1
        if not only_predictions:
            for network in networks:
                network.prepare(first[0])
            passes = max(len(network.groups) for network in networks)
            check_once_only(rows, passes > 1)
            if passes > 1 and rows.shuffles:
                raise ValueError(
                    "data: with max_memory they are gone through several times, so samples must come in the same "
                    "order: leave out shuffle=True and samplers, or pass list(loader)"
                )
        pieces = chain([first], pieces)
        for number in range(passes):
            with ExitStack() as stack:
                runs = [
                    stack.enter_context(
                        network.passing(
                            network.groups[number] if number < len(network.groups) else [], output=number == 0
                        )
                    )
                    for network in networks
                ]
                for x, labels in pieces:
                    # Made once: a transformation may draw random numbers.
                    tile = networks[0].tile(x)
                    for network, run, name, kept in zip(networks, runs, ("h1", "h2"), predictions, strict=True):
                        if number and number >= len(network.groups):
                            continue
                        # A network may begin with an operation in place.
                        given = tile.clone() if network is networks[0] else network.moved(tile)
                        output = run(given, len(x))
                        if not number:
                            classes = _classes(output, name, reading, multilabel, len(x) * len(transforms))
                            kept.append(classes.reshape(len(x), -1).cpu())
                    if not number and labels is not None:
                        targets.append(labels.cpu())
            pieces = iter(rows)
            # At once, since these are the sums that `max_memory` bounds.
            samples = sum(len(kept) for kept in predictions[0])
            for network, measures in zip(networks, found, strict=True):
                for layer in network.groups[number] if number < len(network.groups) else []:
                    measures.append(network.measures(layer, network.moments(layer.name), samples))
        h1_pred, h2_pred = (torch.cat(kept).numpy() for kept in predictions)
        truth = torch.cat(targets).numpy() if targets else None
        if class_map is not None:
            h1_pred = classes_of_h2(h1_pred, class_map, h2_pred, truth)
        update = compare_predictions(h1_pred, h2_pred, truth, transforms=transforms)
        if only_predictions:
            return replace(update, statistic=statistic, how=how)
        renamed = _names_in(*([layer.name for layer in measures if layer is not None] for measures in found))
        if renamed:
            found = (
                [layer and replace(layer, name=renamed.get(layer.name, layer.name)) for layer in found[0]],
                found[1],
            )
            _probes_of(networks[0]).rename(renamed)
        results = [network.result(measures) for network, measures in zip(networks, found, strict=True)]
    intervals = depth_intervals(
        results[0],
        results[1],
        (_probes_of(networks[0]), _probes_of(networks[1])),
        statistic=statistic,
        how=how,
        confidence=confidence,
    )
    return replace(
        update, h1=results[0], h2=results[1], intervals=intervals, statistic=statistic, how=how, confidence=confidence
    )


def _names_in(h1: Sequence[str], h2: Sequence[str]) -> dict[str, str]:
    """The names that h1's layers have in h2, where none is the same and one network stands inside of the other."""
    if not h1 or not h2 or set(h1) & set(h2):
        return {}
    for inner, outer in ((h1, h2), (h2, h1)):
        for name in outer:
            around = name[: -len(inner[0])]
            if name.endswith(f".{inner[0]}") and all(f"{around}{each}" in outer for each in inner if each != OUTPUT):
                pairs = {each: f"{around}{each}" for each in inner if each != OUTPUT}
                return pairs if inner is h1 else {of_h1: of_h2 for of_h2, of_h1 in pairs.items()}
    return {}


def _probes_of(network: Network) -> Probes:
    assert network.probes is not None
    return network.probes


def _classes(output: Any, name: str, reading: Mapping[str, Any], multilabel: bool, inputs: int) -> Tensor:
    """Predicted class of each input; of a model of several labels there is none."""
    scores = torch.as_tensor(output) if isinstance(output, np.ndarray) else scores_from_output(output, model=name)
    if scores.ndim > 2 or scores.shape[:1] != (inputs,):
        raise ValueError(
            f"{name}: expected scores of shape ({inputs}, C), one row for each input, got {tuple(scores.shape)}"
        )
    if scores.is_floating_point() and bool(torch.isnan(scores).any()):
        raise ValueError(
            f"{name} returned NaN (output of shape {tuple(scores.shape)}), so it has no prediction there: look for a "
            "diverged or half-loaded model, or inputs that are already NaN"
        )
    if multilabel and scores.ndim == 2 and scores.shape[1] > 1:
        raise ValueError(
            f"{name}: expected one score per input, as h2 is trained with a binary loss, got {scores.shape[1]} labels, "
            "of which each is kept or lost by itself; compare one at a time, with modules that return its column"
        )
    if scores.ndim == 2 and scores.shape[1] > 1:
        return scores.argmax(1)
    scores = scores.reshape(-1)
    if not scores.is_floating_point():
        return scores.long()
    if reading["from_logits"]:
        scores = scores.sigmoid()
    elif bool(((scores < 0) | (scores > 1)).any()):
        raise ValueError(
            f"{name} returned {scores.min().item():g} to {scores.max().item():g} where probabilities in 0..1 were "
            "expected; if the models return logits, pass from_logits=True"
        )
    return torch.ge(scores, reading["threshold"]).long()
