"""`blend`: which mixture of both models' answers keeps a promise; `distil`: it in one network."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bc_core import ErrorOverlap
from bc_core.after_training._blending import How, blend_by, settings_of
from bc_core.after_training._results import Blend, Price
from bc_core.after_training._walk import check_order
from bc_core.losses._score_scale import ENOUGH_SCORES
from bc_lightning._user_module import of_one_kind, only_network
from bc_lightning.after_training._blended_model import BlendedModel, Form
from bc_lightning.after_training._mixture import _readable, check_classes, copy_of
from bc_lightning.after_training._remembered import Remembered
from bc_lightning.batches._model_outputs import scores_from_output
from bc_lightning.evaluation._evaluate import _in_batches, evaluate
from bc_lightning.reference._reference import Reference
from bc_lightning.training._module import BCLightningModule, unwrap
from bc_lightning.training._warm_start import weights_behind
from bc_lightning.training.data._reader import BATCH_SIZE, Reader, evaluating, reading_of, trained_with

_TIMES = 5


def blend(
    h1: Any,
    h2: nn.Module,
    data: Any,
    promise: str | Iterable[str],
    *,
    how: How = "probability",
    weight: float | Iterable[float] | None = None,
    ratio: float | Iterable[float] | None = None,
    confidence: float = 0.95,
    from_logits: bool | None = None,
    h1_from_logits: bool | None = None,
    **reading: Any,
) -> Blend:
    """Ask both models and mix their answers, as far towards h1 as a promise asks.

    The architectures may differ; both are run where it is served, at the `price` that is stated. `distil` puts the
    blend into one network.

    ``how="probability"`` is ``weight * p1 + (1 - weight) * p2``, ``"logit"`` the same mean of logits. ``"gate"`` takes
    h2's answer only where h2 is surer: where its largest probability is more than `ratio` times h1's largest, else
    h1's; a larger ratio breaks less. Of the weights or ratios the one is taken that keeps the promise and is the most
    accurate on validation data, in one sequence from h1's side, as in `interpolate`.

    Args:
        h1: The model in use, a module.
        h2: Its update, of the same classes: a module, or what `BCLightningModule` returned.
        data: Validation data, as in `evaluate`, that took no part in the training. Read once for each trial; where the
            batches are the same each time, the models compute their answers once.
        promise: What is to be kept, such as ``"nfr <= 0.5%"``.
        how: How answers are mixed.
        weight: The share of h1, one or several to choose from. Default: 0, 0.05, ..., 1.
        ratio: For a gate; one or several, above 0. Default: 0.1 to 5.
        confidence: Of the bounds.
        from_logits: Whether h2 returns logits (or log-probabilities) rather than probabilities; the blend returns what
            h2 does. Default: what its first answers tell; for binary scores as in `evaluate`.
        h1_from_logits: The same for h1.
        reading: How data are read, as in `interpolate`; `scores` and `h1_scores` functions, no names of submodules.

    Returns:
        The blend (`model`, see `blended_model`), its `weight` or `ratio`, the `trials`, whether the `promise` is met,
        missed or cannot be told, and its `price`. Where nothing keeps it, the nearest.

    Raises:
        TypeError: A model is no module, the data are missing or can be read only once.
        ValueError: A weight outside of 0 to 1, a ratio of 0 or less, models of different classes, scores whose form
            cannot be told.

    Reference:
        Träuble et al., "Backward-Compatible Prediction Updates: A Probabilistic Approach", NeurIPS 2021 (cost ratio).

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from bc_lightning import blend
        >>> h1, h2 = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> x = torch.randn(400, 4)
        >>> found = blend(h1, h2, TensorDataset(x, h1(x).argmax(1)), "nfr <= 5%", how="gate")
        >>> found.promise.verdict, found.model(x).shape
        ('met', torch.Size([400, 3]))
        >>> program = torch.export.export(found.model, (x,))
    """
    check_order(data)
    settings = settings_of(how, weight, ratio)
    old, new, picks, read = _models(h1, h2, {**reading, "from_logits": from_logits})
    data = _readable(data, "data")
    form = _form(old, new, picks, data, read, (h1_from_logits, from_logits))
    # Answers of the blend are its scores.
    stands_alike = _as_it_is if read.get("class_axis") is not None else None
    asked = {**read, "scores": None, "h1_scores": stands_alike if picks[0] is None else picks[0]}
    model = BlendedModel(old, new, how, settings[0], form, picks)
    price = _price(old, new, model, data, read, picks[1])
    first, second = model.h1, model.h2
    asked_once = Remembered(first), Remembered(second)
    model.h1, model.h2 = asked_once

    def made(setting: float) -> BlendedModel:
        model.setting = setting
        return model

    def overlap_of(made: BlendedModel) -> ErrorOverlap:
        found = evaluate(made.h1, made, data, **asked).comparison.overlap
        for each in asked_once:
            each.learns = False
        return found

    found = blend_by(made, overlap_of, price, how, settings, promise, confidence)
    model.h1, model.h2 = first, second
    return found


def distil(blend: Blend | nn.Module, h2: nn.Module, *, loss: Any = "imitation", **options: Any) -> Any:
    """Put a blend into one network: h2 is trained to answer as the blend does.

    ``BCLightningModule(h2, h1=the blend, loss="imitation")`` with names of its own for what is logged, as scores are
    against the blend then: ``blend_val_nfr``. To see those against h1 too, wrap once more,
    ``BCLightningModule(distilled, h1=h1, lambda_c=0)``.

    Args:
        blend: What `blend` returned, or its model.
        h2: The network to train: a copy of the plain h2, one anew, or one of a smaller kind.
        loss: A dissonance that imitates, such as "focal_distillation", or what else `BCLightningModule` takes.
        options: Of `BCLightningModule`: `lambda_c` (how much the imitation counts beside the labels), `optimizer` of a
            plain module, and so on.

    Returns:
        What ``trainer.fit`` takes.

    Raises:
        TypeError: `blend` is something else.
        ValueError: What `BCLightningModule` refuses.

    Example:
        >>> import torch
        >>> from bc_lightning import blended_model, distil, unwrap
        >>> h1, h2 = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> student = torch.nn.Linear(4, 3)
        >>> module = distil(blended_model(h1, h2, weight=0.5), student, lambda_c=4.0, optimizer=torch.optim.Adam)
        >>> unwrap(module) is student
        True
    """
    teacher = blend.model if isinstance(blend, Blend) else blend
    if not isinstance(teacher, nn.Module):
        raise TypeError(f"blend must be what blend() returned, or its model. Received: {type(blend).__name__}.")
    if isinstance(teacher, BlendedModel) and not teacher.form.multilabel:
        # A dissonance takes scores of classes for logits.
        teacher = copy.copy(teacher)
        teacher.form = teacher.form._replace(returns_logits=True)
    return BCLightningModule(h2, teacher, loss, **{"log_prefix": "blend_", **options})


def _models(
    h1: Any, h2: Any, reading: Mapping[str, Any]
) -> tuple[nn.Module, nn.Module, tuple[Any, Any], dict[str, Any]]:
    """Both networks, what picks their scores, and how data are read: as was said, else as h2 was trained."""
    if isinstance(h1, Reference) and (h1.class_map is not None or h1.is_stored):
        raise ValueError(
            "h1 is a Reference with a class map or of stored outputs, and a blend runs both models over the same "
            "classes: pass the old model itself, with h2's classes."
        )
    check_classes(h1, h2, "its answers")
    weights_behind(h1, "h1")
    old = h1.h1 if isinstance(h1, Reference) else h1
    read, state = dict(reading), trained_with(h2)
    if state is not None:
        _, options = reading_of(h2, None, None, None)
        binary = state.loss.base == "binary_cross_entropy"
        known = {
            **options, "multilabel": binary, "scores": state.scores, "inputs": state.options.inputs,
            "target": state.options.target, "class_axis": state.options.class_axis,
        }  # fmt: skip
        read = {**known, **{name: value for name, value in read.items() if value is not None}}
    if read.get("h1_scores") is None:
        alike = of_one_kind(old, h2) and callable(read.get("scores"))
        read["h1_scores"] = h1.scores if isinstance(h1, Reference) else read["scores"] if alike else None
    picks: list[Any] = []
    models = []
    for model, name in ((old, "h1_scores"), (h2, "scores")):
        network, pick = unwrap(copy_of(model)), read.get(name)
        if (part := only_network(network)) is not None and pick in (None, part):
            network, pick = network.get_submodule(part), None
        if isinstance(pick, str):
            raise ValueError(
                f"{name} must be a function of what the model returns, as a blend is deployed as it is: give the part "
                f"that answers, such as h2.{pick}, or a function. Received: {name}={pick!r}."
            )
        models.append(network)
        picks.append(pick)
    return models[0], models[1], (picks[0], picks[1]), read


def _as_it_is(output: Any) -> Any:
    """Scores that stand as h2's do."""
    return output


def _reader(model: Any, read: Mapping[str, Any], pick: Any = None) -> Reader:
    places = (read.get("ids"), read.get("inputs"), read.get("target"))
    return Reader(model, model, read.get("device"), places, reading_of(model, None, None, None), pick, pick, None)


def _form(
    old: nn.Module, new: nn.Module, picks: tuple[Any, Any], data: Any, read: Mapping[str, Any], said: tuple[Any, Any]
) -> Form:
    """How both models' scores are to be read, from what they say of the first batches."""
    seen: list[list[Tensor]] = [[], []]
    readers = [_reader(model, read, pick) for model, pick in zip((old, new), picks, strict=True)]
    with evaluating(old, new):
        for batch in _in_batches(data, read.get("batch_size") or BATCH_SIZE):
            for scores, reader, called in zip(seen, readers, ("h1", "h2"), strict=True):
                scores.append(scores_from_output(reader.ask_h2(batch), model=called).float().cpu())
            if sum(map(len, seen[0])) >= ENOUGH_SCORES:
                break
    if not seen[0]:
        raise ValueError("data must hold at least one batch of validation data. Received: none.")
    first, second = (torch.cat(scores) for scores in seen)
    binary = bool(read.get("multilabel")) or second.ndim == 1 or second.shape[1] == 1
    axis = read.get("class_axis")
    if second.ndim > 2 and not binary and axis is None:
        raise ValueError(
            f"h2's scores of shape {tuple(second.shape)} may hold the classes on axis 1 or on the last: say which, "
            "class_axis=1 or class_axis=-1."
        )
    if binary:
        told = [bool(read.get("from_logits")) if each is None else each for each in said]
        if told[0] != told[1]:
            raise ValueError(
                "Binary scores of h1 and h2 are read alike: let both return logits or both probabilities, such as "
                "h1=torch.nn.Sequential(h1, torch.nn.Sigmoid()). Received: h1_from_logits other than from_logits."
            )
    else:
        told = [
            not _are_distributions(scores, axis or 1) if each is None else each
            for scores, each in zip((first, second), said, strict=True)
        ]
    return Form(bool(read.get("multilabel")), told[0], told[1], axis or 1)


def _are_distributions(scores: Tensor, axis: int) -> bool:
    return bool((scores >= 0).all()) and bool(((scores.sum(axis) - 1).abs() < 1e-3).all())


def _price(old: nn.Module, new: nn.Module, made: nn.Module, data: Any, read: Mapping[str, Any], pick: Any) -> Price:
    """Parameters of both, and how long h2 and the blend take for the first batch."""
    batch = next(iter(_in_batches(data, read.get("batch_size") or BATCH_SIZE)))
    seconds = []
    with evaluating(new, made):
        for model, of_model in ((new, pick), (made, None)):
            reader = _reader(model, read, of_model)
            times = [_seconds(reader, batch) for _ in range(_TIMES)]
            seconds.append(min(times))
        output = _reader(made, read).ask_h2(batch)
    parameters = [sum(each.numel() for each in model.parameters()) for model in (old, new)]
    return Price(parameters[0], parameters[1], seconds[0], seconds[1], len(output))


def _seconds(reader: Reader, batch: Any) -> float:
    begun = time.perf_counter()
    output = reader.ask_h2(batch)
    if isinstance(output, Tensor) and output.is_cuda:
        torch.cuda.synchronize(output.device)
    return time.perf_counter() - begun
