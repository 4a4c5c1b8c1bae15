"""InvarianceResult: what one pass found of every layer."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bc_core.files._files import write_whole
from bc_core.invariance._layer_measures import Kind, LayerMeasures, Level, Statistic
from bc_core.invariance._result_file import COLUMNS, FIRING, VERSION, packed, unpacked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DESCRIPTION = ("name", "shape", "feature_axis", "samples", "transformations")


class InvarianceResult(Mapping[str, LayerMeasures]):
    """Measures of all layers of one network on one data set under one set of transformations, in the network's order.

    Args:
        layers: What was found of each layer.
        transforms: Names of the transformations.
        sizes: How far each goes; nan where there is no such number.
        kind: `"invariance"`, of a_ij = f(t_j x_i); or `"same_equivariance"`, of b_ij = T_j^-1 f(t_j x_i).
        left_out: Layers that were not measured, and why.
        firing_rate: The share of samples that units were made to fire for, if that was asked for.

    Raises:
        ValueError: If there is no layer, a name comes twice, or the numbers do not fit each other.

    Example:
        >>> import numpy as np
        >>> from bc_core.invariance import InvarianceResult, LayerMeasures, StreamingMoments
        >>> moments = StreamingMoments(columns=2)
        >>> moments.update(np.random.default_rng(0).normal(size=(200, 5)).repeat(2, axis=0), rows=200)
        >>> layer = LayerMeasures.from_moments(moments.moments(), name="relu", shape=(5,))
        >>> result = InvarianceResult([layer], transforms=["identity", "identity"])
        >>> result
        InvarianceResult(invariance, 200 samples x 2 transformations)
        layer  shape  NV (std)  dead
        relu   (5,)   0         0%
        >>> result["relu"].summary()
        0.0
    """

    def __init__(
        self,
        layers: Iterable[LayerMeasures],
        transforms: Sequence[str],
        sizes: Sequence[float] | None = None,
        kind: Kind = "invariance",
        left_out: Mapping[str, str] | None = None,
        firing_rate: float | None = None,
    ) -> None:
        found = list(layers)
        if not found:
            raise ValueError("layers: expected at least one layer, got none")
        self._layers = {layer.name: layer for layer in found}
        if len(self._layers) != len(found):
            raise ValueError(f"layers: expected names that differ, got {[layer.name for layer in found]}")
        if kind not in ("invariance", "same_equivariance"):
            raise ValueError(f"kind: expected 'invariance' or 'same_equivariance', got {kind!r}")
        self.transforms = tuple(str(name) for name in transforms)
        self.sizes = (math.nan,) * len(self.transforms) if sizes is None else tuple(float(size) for size in sizes)
        for layer in found:
            if layer.transformations != len(self.transforms) or len(self.sizes) != len(self.transforms):
                raise ValueError(
                    f"layer {layer.name!r} was measured under {layer.transformations} transformations, but there are "
                    f"{len(self.transforms)} names and {len(self.sizes)} sizes"
                )
        self.kind: Kind = kind
        self.left_out = dict(left_out or {})
        self.firing_rate = firing_rate

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return tuple(self._layers)

    @property
    def samples(self) -> int:
        """Number of samples n."""
        return next(iter(self._layers.values())).samples

    def table(self, statistic: Statistic = "std", zero_division: float = math.nan) -> list[dict[str, Any]]:
        """One row for each layer, in order, ready for `pandas.DataFrame`.

        Args:
            statistic: The spread.
            zero_division: Value of dead units.

        Returns:
            Dictionaries with `layer`, `shape`, `units`, `features`, `transformation_variance` and `sample_variance`
            (means over units), `ratio_of_means`, `mean_of_ratios` and `dead_fraction`.
        """
        return [
            {
                "layer": layer.name,
                "shape": layer.shape,
                "units": layer.units,
                "features": layer.features,
                "transformation_variance": float(layer.transformation_variance(statistic).mean()),
                "sample_variance": float(layer.sample_variance(statistic).mean()),
                "ratio_of_means": layer.summary(statistic, "ratio_of_means", zero_division),
                "mean_of_ratios": layer.summary(statistic, "mean_of_ratios", zero_division),
                "dead_fraction": layer.dead_fraction,
            }
            for layer in self._layers.values()
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one `.npz` file, which appears whole or not at all.

        Args:
            path: Where to; the name is taken as it is.

        Example:
            >>> import tempfile, pathlib, numpy as np
            >>> from bc_core.invariance import InvarianceResult, LayerMeasures, StreamingMoments
            >>> moments = StreamingMoments(columns=2)
            >>> moments.update(np.arange(8.0).reshape(8, 1), rows=4)
            >>> result = InvarianceResult([LayerMeasures.from_moments(moments.moments(), name="a")], ["x", "y"])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     result.save(pathlib.Path(folder) / "result.npz")
            ...     InvarianceResult.load(pathlib.Path(folder) / "result.npz")["a"].sv_var
            array([6.66666667])
        """
        layers = [
            (
                {name: getattr(layer, name) for name in _DESCRIPTION},
                {column: values for column in (*COLUMNS, *FIRING) if (values := getattr(layer, column)) is not None},
            )
            for layer in self._layers.values()
        ]
        header = {
            "kind": self.kind,
            "transforms": self.transforms,
            "sizes": [None if math.isnan(size) else size for size in self.sizes],
            "left_out": self.left_out,
            "firing_rate": self.firing_rate,
        }
        write_whole(Path(path), packed(header, layers))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> InvarianceResult:
        """Read what `save` wrote.

        Raises:
            ValueError: If the file is no such result, damaged, or of a later version.
            OSError: If it cannot be read.
        """
        try:
            header, layers = unpacked(path)
            return cls(
                [LayerMeasures(**described, **columns) for described, columns in layers],
                header["transforms"],
                header["sizes"],
                header["kind"],
                header["left_out"],
                header["firing_rate"],
            )
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{os.fspath(path)!r} is no invariance result of version {VERSION} or earlier, or damaged ({error}); "
                "expected a file that InvarianceResult.save wrote"
            ) from error

    def __getitem__(self, name: str) -> LayerMeasures:
        try:
            return self._layers[name]
        except KeyError:
            why = f" (left out: {self.left_out[name]})" if name in self.left_out else ""
            raise KeyError(f"no layer {name!r}{why}; there are {', '.join(self._layers)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def plot_heat_map(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        level: Level = "feature",
        statistic: Statistic = "std",
        order: Literal["sorted", "index"] = "sorted",
        dark: bool = False,
    ) -> Figure:
        """Draw NV of all features, a row for each layer; dead ones are grey.

        Args:
            path: File to write, its kind by its ending. Default: none.
            level: `"feature"`, or `"unit"` for every single activation.
            statistic: The spread.
            order: `"sorted"`, within each layer from invariant to sensitive, or `"index"`, as they are numbered.
            dark: For a dark page.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        # Here, as matplotlib is optional and large.
        from bc_core.invariance._heat_maps import heat_map

        return heat_map(self, path, dark, level=level, statistic=statistic, order=order)

    def __repr__(self) -> str:
        rows = [("layer", "shape", "NV (std)", "dead")]
        rows += [
            (layer.name, str(layer.shape), f"{layer.summary():.4g}", f"{layer.dead_fraction:.0%}")
            for layer in self._layers.values()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        head = f"InvarianceResult({self.kind}, {self.samples} samples x {len(self.transforms)} transformations)"
        return "\n".join([head, *lines])
