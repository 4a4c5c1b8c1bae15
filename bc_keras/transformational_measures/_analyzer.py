"""Analyzer: a measure against accuracy, over groups of transformations that grow."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bc_core._figure import DARK, LIGHT
from bc_core.invariance import TransformSet
from bc_core.invariance._plot import _H2, _WORSE, _dress, _figure_class, _finish
from bc_keras.transformational_measures._data_sets import DataSet, TransformationsDataSet
from bc_keras.transformational_measures._iterator import Iterator
from bc_keras.transformational_measures._measures import LayerValues, Measure, NormalizedVariance
from bc_keras.transformational_measures._model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Analysis:
    """What was found for one group of transformations.

    Attributes:
        group: Its name.
        transformations: Their number.
        accuracy: Accuracy under all of them.
        value: The measure, the mean over layers; nan of a single transformation, which has no spread.
        values: The measure of every layer, or None.
    """

    group: str
    transformations: int
    accuracy: float
    value: float
    values: LayerValues | None


class Analyzer:
    """How a measure and accuracy change together as the transformations reach farther.

    Args:
        model: The model, a `Model` or a Keras model.
        x: Samples (N, ...).
        y: Classes (N,).
        groups: Sets of transformations by name, from small to large; or a function of the share reached, such as
            ``lambda reach: mnist_transformations("rotations", reach)``, which is asked for a quarter, a half, three
            quarters and the whole.
        measure: The measure. Default: `NormalizedVariance`.
        batch_size: Inputs at a time.

    Raises:
        ValueError: If there is no group, or not one class for each sample.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.transformational_measures import Analyzer, mnist_transformations
        >>> net = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        >>> x, y = np.random.default_rng(0).normal(size=(6, 28, 28, 1)), np.arange(6)
        >>> analyzer = Analyzer(net, x, y, lambda reach: mnist_transformations("x", reach))
        >>> [row.group for row in analyzer.compute()]
        ['25%', '50%', '75%', '100%']
    """

    def __init__(
        self,
        model: Any,
        x: Any,
        y: Any,
        groups: Mapping[str, TransformSet] | Callable[[float], TransformSet],
        measure: Measure | None = None,
        batch_size: int = 256,
    ) -> None:
        if callable(groups):
            groups = {f"{reach:.0%}": groups(reach) for reach in (0.25, 0.5, 0.75, 1.0)}
        if not groups:
            raise ValueError("groups must hold one set of transformations at least. Received: none.")
        self.model = model if isinstance(model, Model) else Model(model)
        self.dataset = TransformationsDataSet(x, dict(groups), y)
        if self.dataset.y is None:
            raise ValueError("y must have one class for each sample, for accuracy. Received: y=None.")
        self.measure = NormalizedVariance() if measure is None else measure
        self.batch_size = batch_size

    def compute(self) -> list[Analysis]:
        """Measure and evaluate the model for each group.

        Returns:
            A row for each group, in order.
        """
        rows = []
        for name, transforms in self.dataset.groups.items():
            data: DataSet = TransformationsDataSet(
                self.dataset.x, transforms, self.dataset.y, data_format=self.dataset.data_format
            )
            values = self.measure.compute(Iterator(self.model, data)) if len(transforms) > 1 else None
            known = [] if values is None else [each for each in values.layers.values() if not math.isnan(each)]
            rows.append(
                Analysis(
                    name,
                    len(transforms),
                    self.model.evaluate(data, batch_size=self.batch_size),
                    float(np.mean(known)) if known else math.nan,
                    values,
                )
            )
        return rows

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        rows: list[Analysis] | None = None,
        dark: bool = False,
    ) -> Figure:
        """Draw the measure and accuracy over the groups.

        Args:
            path: File to write, its kind by its ending.
            rows: What `compute` returned. Default: computed now.
            dark: For a dark page.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        rows = self.compute() if rows is None else rows
        theme = DARK if dark else LIGHT
        figure = _figure_class()(figsize=(max(5.0, 2 + 0.8 * len(rows)), 3.6), layout="constrained")
        figure.set_facecolor(theme.paper)
        axes = figure.subplots()
        _dress(axes, theme)
        other = axes.twinx()
        _dress(other, theme)
        other.grid(visible=False)
        for place, side, marker, colours, values, label in (
            (axes, "left", "o", _WORSE, [row.value for row in rows], f"{type(self.measure).__name__}, mean of layers"),
            (other, "right", "s", _H2, [row.accuracy for row in rows], "accuracy"),
        ):
            place.plot(range(len(rows)), values, marker=marker, color=colours[dark])
            place.set_ylabel(label, color=colours[dark])
            place.tick_params(axis="y", colors=colours[dark])
            place.spines[side].set_visible(True)
        axes.set_xticks(range(len(rows)), [f"{row.group}\n({row.transformations})" for row in rows], fontsize=9)
        axes.set_xlabel("transformations, and their number", color=theme.ink)
        axes.set_ylim(bottom=0)
        other.set_ylim(0, 1)
        return _finish(figure, path)
