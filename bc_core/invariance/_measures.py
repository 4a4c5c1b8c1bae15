"""The named measures: each reads the same `InvarianceResult`, so that asking for another one costs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bc_core.invariance._accumulator import Floats
from bc_core.invariance._distributions import f_limit
from bc_core.invariance._layer_measures import Kind, LayerMeasures, Statistic, Summary
from bc_core.invariance._result import InvarianceResult

Family = Literal["all", "layer"]


@dataclass(frozen=True, eq=False)
class MeasureValues:
    """One measure of every layer.

    Attributes:
        name: Name of the measure, for charts.
        units: Layer name to array: of the shape of the layer's activation, or (C,) for measures of features.
        layers: Layer name to one number.
    """

    name: str
    units: dict[str, Floats]
    layers: dict[str, float]


@dataclass(frozen=True)
class _Measure:
    """A measure that an `InvarianceResult` of the right kind holds."""

    title: ClassVar[str] = ""
    kind: ClassVar[Kind] = "invariance"

    def compute(self, result: InvarianceResult) -> MeasureValues:
        """Read the measure off.

        Args:
            result: What a pass found.

        Returns:
            The measure of every unit (or feature) and of every layer.

        Raises:
            ValueError: If the result is of another kind, or lacks what the measure needs.
        """
        if result.kind != self.kind:
            raise ValueError(
                f"{type(self).__name__} needs a result of kind {self.kind!r}, got {result.kind!r}; measure with "
                f"same_equivariance={self.kind == 'same_equivariance'}"
            )
        units = {layer.name: self._units(layer) for layer in result.values()}
        layers = {layer.name: self._layer(layer, units[layer.name]) for layer in result.values()}
        return MeasureValues(self.title or type(self).__name__, units, layers)

    def _units(self, layer: LayerMeasures) -> Floats:
        raise NotImplementedError

    def _layer(self, layer: LayerMeasures, units: Floats) -> float:
        return _mean(units)


@dataclass(frozen=True)
class Variance(_Measure):
    """Spread over transformations (`axis="transformation"`, TV) or over samples (`"sample"`, SV), not normalised.

    Args:
        axis: Of what the spread is taken.
        statistic: `"std"` or `"var"`, ddof=1.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, StreamingMoments, Variance
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> result = InvarianceResult([LayerMeasures.from_moments(moments.moments(), name="a")], ["x", "y"])
        >>> Variance(statistic="var").compute(result).layers
        {'a': 2.0}
        >>> Variance(axis="sample", statistic="var").compute(result).layers
        {'a': 0.5}
    """

    axis: Literal["transformation", "sample"] = "transformation"
    statistic: Statistic = "std"

    def _units(self, layer: LayerMeasures) -> Floats:
        return _by_axis(self.axis, layer.transformation_variance, layer.sample_variance)(self.statistic)


@dataclass(frozen=True)
class FeaturesVariance(Variance):
    """`Variance` of features: the mean over their positions; shape (C,).

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import FeaturesVariance, InvarianceResult, LayerMeasures, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="a")
        >>> FeaturesVariance(statistic="var").compute(InvarianceResult([layer], ["x", "y"])).layers
        {'a': 2.0}
    """

    def _units(self, layer: LayerMeasures) -> Floats:
        axes = (layer.feature_transformation_variance, layer.feature_sample_variance)
        return _by_axis(self.axis, *axes)(self.statistic)


@dataclass(frozen=True)
class NormalizedVariance(_Measure):
    """NV = TV / SV of every unit: 0 is invariant, about 1 as sensitive to the transformation as to the sample.

    Args:
        statistic: `"std"` or `"var"`, ddof=1.
        how: Summary of a layer, `"ratio_of_means"` or `"mean_of_ratios"`.
        zero_division: Value of dead units (SV = 0).

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, NormalizedVariance, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> result = InvarianceResult([LayerMeasures.from_moments(moments.moments(), name="a")], ["x", "y"])
        >>> NormalizedVariance(statistic="var").compute(result).layers
        {'a': 4.0}
    """

    statistic: Statistic = "std"
    how: Summary = "ratio_of_means"
    zero_division: float = math.nan

    def _units(self, layer: LayerMeasures) -> Floats:
        return layer.normalized_variance(self.statistic, self.zero_division)

    def _layer(self, layer: LayerMeasures, units: Floats) -> float:
        return layer.summary(self.statistic, self.how, self.zero_division)


@dataclass(frozen=True)
class NormalizedFeaturesVariance(NormalizedVariance):
    """`NormalizedVariance` of features: TV and SV are averaged over their positions, then divided; shape (C,).

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, NormalizedFeaturesVariance, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="a")
        >>> NormalizedFeaturesVariance(statistic="var").compute(InvarianceResult([layer], ["x", "y"])).layers
        {'a': 4.0}
    """

    def _units(self, layer: LayerMeasures) -> Floats:
        return layer.feature_normalized_variance(self.statistic, self.zero_division)

    def _layer(self, layer: LayerMeasures, units: Floats) -> float:
        return layer.summary(self.statistic, self.how, self.zero_division, level="feature")


@dataclass(frozen=True)
class SameEquivariance(Variance):
    """`Variance` of T_j^-1 f(t_j x_i): 0 where a feature map moves as the image does.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, SameEquivariance, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="a")
        >>> result = InvarianceResult([layer], ["x", "y"], kind="same_equivariance")
        >>> SameEquivariance(statistic="var").compute(result).layers
        {'a': 2.0}
    """

    kind: ClassVar[Kind] = "same_equivariance"


@dataclass(frozen=True)
class NormalizedSameEquivariance(NormalizedVariance):
    """`NormalizedVariance` of T_j^-1 f(t_j x_i).

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, NormalizedSameEquivariance, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="a")
        >>> result = InvarianceResult([layer], ["x", "y"], kind="same_equivariance")
        >>> NormalizedSameEquivariance(statistic="var").compute(result).layers
        {'a': 4.0}
    """

    kind: ClassVar[Kind] = "same_equivariance"


@dataclass(frozen=True)
class Distance(_Measure):
    """Mean squared distance over all pairs: of transformations of a sample, or of samples under a transformation.

    Exactly twice the variance, so no pair is ever formed.

    Args:
        axis: `"transformation"` or `"sample"`.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import Distance, InvarianceResult, LayerMeasures, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="a")
        >>> Distance().compute(InvarianceResult([layer], ["x", "y"])).layers
        {'a': 4.0}
    """

    axis: Literal["transformation", "sample"] = "transformation"

    def _units(self, layer: LayerMeasures) -> Floats:
        return _by_axis(self.axis, layer.transformation_distance, layer.sample_distance)()


@dataclass(frozen=True)
class NormalizedDistance(NormalizedVariance):
    """Transformation distance / sample distance: equal to `NormalizedVariance(statistic="var")`.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, NormalizedDistance, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="a")
        >>> NormalizedDistance().compute(InvarianceResult([layer], ["x", "y"])).layers
        {'a': 4.0}
    """

    statistic: Statistic = "var"

    def __post_init__(self) -> None:
        if self.statistic != "var":
            raise ValueError(f"squared distances are variances, so statistic must be 'var', got {self.statistic!r}")


@dataclass(frozen=True)
class SameEquivarianceDistance(Distance):
    """`Distance` of T_j^-1 f(t_j x_i).

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, SameEquivarianceDistance, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="a")
        >>> result = InvarianceResult([layer], ["x", "y"], kind="same_equivariance")
        >>> SameEquivarianceDistance().compute(result).layers
        {'a': 4.0}
    """

    kind: ClassVar[Kind] = "same_equivariance"


@dataclass(frozen=True)
class NormalizedSameEquivarianceDistance(NormalizedDistance):
    """`NormalizedDistance` of T_j^-1 f(t_j x_i).

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, StreamingMoments
        >>> from bc_core.invariance import NormalizedSameEquivarianceDistance
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="a")
        >>> result = InvarianceResult([layer], ["x", "y"], kind="same_equivariance")
        >>> NormalizedSameEquivarianceDistance().compute(result).layers
        {'a': 4.0}
    """

    kind: ClassVar[Kind] = "same_equivariance"


@dataclass(frozen=True)
class Anova(_Measure):
    """F of every unit, and of a layer the share of units whose mean the transformation moves for sure.

    A unit counts where its p-value is at most alpha / (number of tests) (Bonferroni), so the chance that any one of
    them is there by accident is at most alpha. Constant units are no tests. Blind to pure interaction; see `anova_f`.

    Args:
        alpha: Chance of any false alarm.
        family: What the tests are counted over: `"all"` layers of the result, or each `"layer"` for itself.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import Anova, InvarianceResult, LayerMeasures, StreamingMoments
        >>> a = np.random.default_rng(0).normal(size=(50, 3, 2))
        >>> a[:, 1, 0] += 2  # the second transformation moves the mean of the first unit
        >>> moments = StreamingMoments(columns=3)
        >>> moments.update(a.reshape(-1, 2), rows=50)
        >>> result = InvarianceResult([LayerMeasures.from_moments(moments.moments(), name="fc")], "abc")
        >>> Anova().compute(result).layers
        {'fc': 0.5}
    """

    alpha: float = 0.05
    family: Family = "all"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or self.family not in ("all", "layer"):
            raise ValueError(
                "expected alpha between 0 and 1 and family='all' or 'layer', "
                f"got alpha={self.alpha!r}, family={self.family!r}"
            )

    def compute(self, result: InvarianceResult) -> MeasureValues:
        """As of any measure; the share of a layer is of its units that are not constant (nan if all are)."""
        found = super().compute(result)
        tests = {name: int((~np.isnan(units)).sum()) for name, units in found.units.items()}
        layers = {}
        for name, units in found.units.items():
            family = sum(tests.values()) if self.family == "all" else tests[name]
            if not tests[name]:
                layers[name] = math.nan
                continue
            limit = f_limit(self.alpha / family, *result[name].anova_degrees)
            layers[name] = float((units >= limit).sum() / tests[name])
        return MeasureValues(found.name, found.units, layers)

    def _units(self, layer: LayerMeasures) -> Floats:
        return layer.anova_f()


@dataclass(frozen=True)
class Goodfellow(_Measure):
    """Goodfellow's firing-rate measure S = L / G, from thresholds that let a unit fire for a small share of samples.

    L is how often a unit that fires for a sample fires for its transformations, the identity excluded; G how often it
    fires for samples. The result must have been measured with a `firing_rate`.

    Args:
        best: Share of units, those of largest S, that a layer's number is the mean of; in the paper a few.

    Reference:
        Goodfellow, Lee, Le, Saxe and Ng, "Measuring Invariances in Deep Networks", NeurIPS 2009 (with s_i = 1:
        a unit fires when it is above its threshold).

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import Goodfellow, InvarianceResult, LayerMeasures, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.array([[0.0], [2.0], [1.0], [3.0]]), rows=2)
        >>> rates = np.array([0.5]), np.array([0.1])  # L and G, which `measure(..., firing_rate=0.1)` counts
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="a", firing=rates)
        >>> Goodfellow().compute(InvarianceResult([layer], ["x", "y"])).layers
        {'a': 5.0}
    """

    best: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.best <= 1:
            raise ValueError(f"best: expected a share of units above 0 and up to 1, got {self.best!r}")

    def _units(self, layer: LayerMeasures) -> Floats:
        ratio = layer.firing_ratio
        if ratio is None:
            raise ValueError(
                "Goodfellow needs firing rates, which take another pass over the data: measure with firing_rate=0.01"
            )
        return ratio

    def _layer(self, layer: LayerMeasures, units: Floats) -> float:
        known = np.sort(units[~np.isnan(units)])
        return _mean(known[len(known) - math.ceil(self.best * len(known)) :])


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _by_axis(
    axis: str, of_transformations: Callable[..., Floats], of_samples: Callable[..., Floats]
) -> Callable[..., Floats]:
    if axis not in ("transformation", "sample"):
        raise ValueError(f"axis: expected 'transformation' or 'sample', got {axis!r}")
    return of_transformations if axis == "transformation" else of_samples
