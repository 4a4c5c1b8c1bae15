"""LayerMeasures: what one pass found of a layer, from which all measures are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bc_core.invariance._accumulator import Floats, Moments, unit_blocks
from bc_core.invariance._distributions import f_upper_tail

Statistic = Literal["std", "var"]
Summary = Literal["ratio_of_means", "mean_of_ratios"]
Level = Literal["unit", "feature"]
Kind = Literal["invariance", "same_equivariance"]


@dataclass(frozen=True, eq=False, repr=False)
class LayerMeasures:
    """What is known of each of the K units of a layer, from n samples under m transformations.

    Arrays that are returned have the shape of the layer's activation for one input, or, of features, shape (C,).

    Attributes:
        name: Name of the layer; of further calls of one layer `"name:2"` and so on.
        shape: Shape of its activation for one input.
        feature_axis: Axis of `shape` that counts features (channels); the others are positions.
        samples: Number of samples n.
        transformations: Number of transformations m.
        tv_std: Shape (K,): mean over samples of the standard deviation over transformations.
        tv_var: Shape (K,): the same of the variance.
        sv_std: Shape (K,): mean over transformations of the standard deviation over samples.
        sv_var: Shape (K,): the same of the variance.
        between: Shape (K,): variance over transformations of the mean over samples.
        mean: Shape (K,): mean over everything.
        firing_local: Shape (K,) or None: of the samples that a unit fires for, the mean share of the other
            transformations for which it fires too (L of Goodfellow et al.).
        firing_global: Shape (K,) or None: share of samples that it fires for (G).

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import LayerMeasures, StreamingMoments
        >>> rng = np.random.default_rng(0)
        >>> a = rng.normal(size=(500, 1, 3)) + 0.5 * rng.normal(size=(1, 6, 3))  # sample effect + transformation effect
        >>> moments = StreamingMoments(columns=6)
        >>> moments.update(a.reshape(-1, 3), rows=500)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="fc", shape=(3,))
        >>> layer
        LayerMeasures('fc', shape=(3,), NV=0.3961, dead=0%)
    """

    name: str
    shape: tuple[int, ...]
    feature_axis: int
    samples: int
    transformations: int
    tv_std: Floats
    tv_var: Floats
    sv_std: Floats
    sv_var: Floats
    between: Floats
    mean: Floats
    firing_local: Floats | None = None
    firing_global: Floats | None = None

    @classmethod
    def from_moments(
        cls,
        moments: Moments,
        *,
        name: str = "layer",
        shape: Sequence[int] | None = None,
        feature_axis: int = 0,
        firing: tuple[Floats, Floats] | None = None,
    ) -> LayerMeasures:
        """Read off what the measures need.

        Args:
            moments: Of all rows, shards merged.
            name: Name of the layer, also for errors.
            shape: Shape of its activation for one input. Default: (K,).
            feature_axis: Axis of `shape` with the features.
            firing: Local and global firing rates, each (K,).

        Raises:
            ValueError: If there are fewer than two samples or transformations, the shape is not that of K units, or an
                activation was NaN, infinite or too large for its square.
        """
        columns, units = moments.mean.shape
        shape = (units,) if shape is None else tuple(int(length) for length in shape)
        if math.prod(shape) != units:
            raise ValueError(f"layer {name!r}: expected a shape of {units} units, got {shape}")
        if moments.count < 2 or columns < 2:
            raise ValueError(
                f"layer {name!r}: a spread needs at least two samples and two transformations, got {moments.count} "
                f"samples and {columns} transformations"
            )
        sv_std, sv_var, between, mean = (np.empty(units) for _ in range(4))
        bad = 0
        # In blocks, as a layer may fill a good part of the memory.
        for part in unit_blocks(columns, units):
            means, variances = moments.mean[:, part], moments.m2[:, part] / (moments.count - 1)
            # A NaN or infinity stays one in every sum.
            fine = np.isfinite(means.sum(axis=0)) & np.isfinite(variances.sum(axis=0))
            bad += int((~(fine & np.isfinite(moments.row_var[part]))).sum())
            if bad:
                continue
            sv_std[part] = np.sqrt(variances).mean(axis=0)
            sv_var[part] = variances.mean(axis=0)
            # Shifted by the first column for the sake of a unit whose means are all equal.
            between[part] = (means - means[:1]).var(axis=0, ddof=1)
            mean[part] = means.mean(axis=0)
        if bad:
            raise ValueError(
                f"layer {name!r}: {bad} of {units} units had activations that are NaN, infinite, or too "
                "large for their square; look for a diverged or half-loaded model or inputs that are NaN, or leave the "
                "layer out (layers=...)"
            )
        local, fired = (None, None) if firing is None else firing
        return cls(
            name=name,
            shape=shape,
            feature_axis=feature_axis % max(1, len(shape)),
            samples=moments.count,
            transformations=columns,
            tv_std=moments.row_std / moments.count,
            tv_var=moments.row_var / moments.count,
            sv_std=sv_std,
            sv_var=sv_var,
            between=between,
            mean=mean,
            firing_local=local,
            firing_global=fired,
        )

    @property
    def units(self) -> int:
        """Number of units K."""
        return len(self.tv_std)

    @property
    def features(self) -> int:
        """Number of features C."""
        return self.shape[self.feature_axis] if self.shape else 1

    @property
    def dead_fraction(self) -> float:
        """Share of units that no sample moves: SV is 0, so NV is not defined."""
        return float((self.sv_var == 0).mean())

    def transformation_variance(self, statistic: Statistic = "std") -> Floats:
        """TV, mean over samples of the spread over transformations, per unit."""
        return self._shaped(self._of("tv", statistic))

    def sample_variance(self, statistic: Statistic = "std") -> Floats:
        """SV, mean over transformations of the spread over samples, per unit."""
        return self._shaped(self._of("sv", statistic))

    def normalized_variance(self, statistic: Statistic = "std", zero_division: float = math.nan) -> Floats:
        """NV = TV / SV, per unit: 0 is invariant, about 1 as sensitive to the transformation as to the sample.

        With `"std"` unrelated activations give c4(m) / c4(n) rather than 1, as a standard deviation of few values is
        too small on average (c4(4) = 0.92); with `"var"` they give 1.

        Args:
            statistic: The spread: `"std"` or `"var"`, with ddof=1. Their values cannot be compared.
            zero_division: Value of dead units, for which SV is 0.
        """
        return self._shaped(_ratio(self._of("tv", statistic), self._of("sv", statistic), zero_division))

    def feature_transformation_variance(self, statistic: Statistic = "std") -> Floats:
        """TV of each feature, the mean over its positions; shape (C,)."""
        return self._by_feature(self._of("tv", statistic))

    def feature_sample_variance(self, statistic: Statistic = "std") -> Floats:
        """SV of each feature, the mean over its positions; shape (C,)."""
        return self._by_feature(self._of("sv", statistic))

    def feature_normalized_variance(self, statistic: Statistic = "std", zero_division: float = math.nan) -> Floats:
        """NV of each feature: TV and SV are averaged over positions, then divided; shape (C,)."""
        return _ratio(
            self.feature_transformation_variance(statistic), self.feature_sample_variance(statistic), zero_division
        )

    def summary(
        self,
        statistic: Statistic = "std",
        how: Summary = "ratio_of_means",
        zero_division: float = math.nan,
        level: Level = "unit",
    ) -> float:
        """NV of the whole layer.

        Args:
            statistic: The spread.
            how: `"ratio_of_means"`, mean TV / mean SV of all units, in which large activations weigh more, and where a
                unit that no sample changes (SV is 0) and a transformation does counts with its TV; or
                `"mean_of_ratios"`, the mean NV of the units that are not dead (of all, where `zero_division` is a
                number).
            zero_division: Value of dead units, and of a layer that has no others.
            level: Of what the mean of ratios is taken, `"unit"` or `"feature"`.

        Raises:
            ValueError: If an option has no such value.
        """
        if how not in ("ratio_of_means", "mean_of_ratios") or level not in ("unit", "feature"):
            raise ValueError(
                "expected how='ratio_of_means' or 'mean_of_ratios' and level='unit' or 'feature', "
                f"got how={how!r}, level={level!r}"
            )
        if how == "ratio_of_means":
            tv, sv = (np.asarray([self._of(part, statistic).mean()]) for part in ("tv", "sv"))
            return float(_ratio(tv, sv, zero_division)[0])
        per_unit = level == "unit"
        ratios = (self.normalized_variance if per_unit else self.feature_normalized_variance)(statistic, zero_division)
        known = ratios[~np.isnan(ratios)]
        return float(known.mean()) if known.size else math.nan

    def transformation_distance(self) -> Floats:
        """Mean squared distance of two transformations of one sample, over all pairs, per unit: 2 TV of `"var"`."""
        return self._shaped(2 * self.tv_var)

    def sample_distance(self) -> Floats:
        """Mean squared distance of two samples under one transformation, over all pairs, per unit: 2 SV of `"var"`."""
        return self._shaped(2 * self.sv_var)

    def anova_f(self) -> Floats:
        """F of a one-way analysis of variance with the transformations as groups, per unit; nan of constant units.

        n Var_j(mean_i a_ij) / mean_j Var_i(a_ij). It sees what a transformation does to the mean, and is blind to a
        pure interaction, where the transformation moves samples in different directions; NV is not.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._shaped(self.samples * self.between / self.sv_var)

    @property
    def anova_degrees(self) -> tuple[int, int]:
        """Degrees of freedom of F: m - 1 and m (n - 1)."""
        return self.transformations - 1, self.transformations * (self.samples - 1)

    def anova_p(self) -> Floats:
        """Chance of so large an F where the transformation does nothing to the mean, per unit; not yet corrected."""
        return f_upper_tail(self.anova_f(), *self.anova_degrees)

    @property
    def firing_ratio(self) -> Floats | None:
        """Goodfellow's S = L / G: 1 is unrelated, 1 / G invariant; nan where it never fires, None if unasked."""
        if self.firing_local is None or self.firing_global is None:
            return None
        return self._shaped(_ratio(self.firing_local, self.firing_global, math.nan))

    def _of(self, part: str, statistic: str) -> Floats:
        if statistic not in ("std", "var"):
            raise ValueError(f"statistic: expected 'std' or 'var', got {statistic!r}")
        found: Floats = getattr(self, f"{part}_{statistic}")
        return found

    def _shaped(self, values: Floats) -> Floats:
        return values.reshape(self.shape)

    def _by_feature(self, values: Floats) -> Floats:
        shaped = values.reshape(self.shape or (1,))
        means: Floats = np.moveaxis(shaped, self.feature_axis, 0).reshape(self.features, -1).mean(axis=1)
        return means

    def __repr__(self) -> str:
        return (
            f"LayerMeasures({self.name!r}, shape={self.shape}, NV={self.summary():.4g}, dead={self.dead_fraction:.0%})"
        )


def _ratio(above: Floats, below: Floats, zero_division: float) -> Floats:
    ratio = np.full(below.shape, zero_division, dtype=np.float64)
    np.divide(above, below, out=ratio, where=below != 0)
    return ratio
