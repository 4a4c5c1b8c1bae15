"""The arguments of a compile, and which of its metrics are of this package."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._losses import ModelLoss
from bc_keras.metrics._overlap import OverlapMetric
from bc_keras.training.compiled._compiled_loss import BaseLoss
from bc_keras.training.compiled._plain_models import OnTarget


def by_name(
    function: Callable[..., Any], of_keras: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Arguments of a call by their names, also of a method of the user's that passes on what it does not name itself.

    Args:
        function: what is called.
        of_keras: the same of `keras.Model`.
        args: arguments by position.
        kwargs: those by name.
    """
    named: dict[str, Any] = {}
    signature = inspect.signature(function)
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            names = list(inspect.signature(of_keras).parameters)[1:]
            # Those behind what it names itself.
            named.update(zip(names[len(args) - len(value) :], value, strict=False))
        else:
            named[name] = value
    return named


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a call may name such an argument."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


def made_metric(metric: Any) -> Any:
    """An instance of a metric of this package that was given as its class; Keras would make one that nobody feeds."""
    return metric() if isinstance(metric, type) and issubclass(metric, OverlapMetric) else metric


def without_ours(metrics: Any) -> Any:
    """The metrics of a compile that mean something for h2 alone."""
    if isinstance(metrics, dict):
        return {name: without_ours(given) for name, given in metrics.items()}
    if isinstance(metrics, list | tuple):
        return [without_ours(given) for given in metrics if not isinstance(given, OverlapMetric)]
    if isinstance(metrics, OnTarget):
        return metrics.get_config()["metric"]
    return None if isinstance(metrics, OverlapMetric) else metrics


def overlap_metrics(metrics: Any, weighted_metrics: Any) -> list[tuple[OverlapMetric, bool]]:
    """The metrics of this package among those of a compile, and whether they are weighted."""
    return [
        (metric, weighted)
        for given, weighted in ((metrics, False), (weighted_metrics, True))
        for metric in keras.tree.flatten(given)
        if isinstance(metric, OverlapMetric)
    ]


def base_in_compile(loss: Any, criterion: CompatibilityLoss | None) -> Any:
    """The base: what is given to ``compile``, else that of `BCModel`'s ``loss``."""
    for given in keras.tree.flatten(loss):
        if isinstance(given, CompatibilityLoss | ModelLoss):
            raise ValueError(
                f"The loss of compile() is the base, such as 'sparse_categorical_crossentropy'. Give a "
                f"compatibility loss to the model: BCModel(h2, h1=h1, loss=...). Received: loss={given!r}."
            )
    return BaseLoss(criterion) if loss is None and criterion is not None else loss


def compile_without_ours(model: keras.Model) -> None:
    """Compile a model as it is, without the metrics of this package."""
    given = {**model._compile_config.config, "optimizer": model.optimizer, "auto_scale_loss": False}
    given.update({name: without_ours(given.get(name)) or [] for name in ("metrics", "weighted_metrics")})
    keras.Model.compile(model, **given)
