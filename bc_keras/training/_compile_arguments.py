"""The arguments of a compile, and which of its metrics are of this package."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from bc_keras.metrics._overlap import OverlapMetric
from bc_keras.training._plain_models import OnTarget


def by_name(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call by their names."""
    named: dict[str, Any] = {}
    signature = inspect.signature(function)
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            named.update(zip(("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics"), value, strict=False))
        else:
            named[name] = value
    return named


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
