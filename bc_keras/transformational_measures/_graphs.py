"""Graphs: lines, and heat maps with a column for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bc_core._arrays import to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEAD = "#9aa1aa"


class Graphs:
    """Pictures of what the measures found, as figures of pyplot: `plt.show()` or `plt.savefig(...)` come next.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from bc_keras.transformational_measures import Graphs
        >>> figure = Graphs().heatmap_list2D([[0.1, 0.2], [0.3]], columns_names=["conv", "head"], title="variance")
        >>> [axes.get_title() for axes in figure.axes][:2]
        ['conv', 'head']
    """

    def plot(self, x: Sequence[Any], y: Sequence[float], title: str | None = None) -> Figure:
        """A line.

        Args:
            x: Where, numbers or names such as those of layers.
            y: How high.
            title: Title.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        figure: Figure = pyplot().figure()
        axes = figure.subplots()
        axes.plot(list(x), to_numpy(list(y), "y"))
        axes.set_title(title or "")
        return figure

    def heatmap_list2D(  # noqa: N802  # the name of the older package
        self,
        list2D: Sequence[Any],
        columns_names: Sequence[str] | None = None,
        title: str | None = None,
    ) -> Figure:
        """A column for each list, which may be of different lengths; what is not a number is grey.

        Args:
            list2D: Numbers by column, such as `variance_layers_features`.
            columns_names: Name of each column.
            title: Title.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If there is no column, or not one name for each.
        """
        columns = [to_numpy(column, "list2D").astype(np.float64).reshape(-1, 1) for column in list2D]
        if not columns or (columns_names is not None and len(columns_names) != len(columns)):
            raise ValueError(
                "A heat map needs one column at least, and one name for each. Received: "
                f"{len(columns)} columns, columns_names={columns_names!r}."
            )
        known = np.concatenate([column[np.isfinite(column)] for column in columns])
        least = max(0.0, float(known.min())) if known.size else 0.0
        most = float(known.max()) if known.size else 1.0
        plt = pyplot()
        figure, places = plt.subplots(
            1, len(columns), squeeze=False, figsize=(max(4.0, 1.5 + 0.7 * len(columns)), 4.0), layout="constrained"
        )
        colours = plt.get_cmap("inferno").with_extremes(bad=_DEAD)
        shown: Any = None
        for number, (axes, column) in enumerate(zip(places[0], columns, strict=True)):
            shown = axes.imshow(
                np.ma.masked_invalid(column), vmin=least, vmax=max(most, least), cmap=colours, aspect="auto"
            )
            axes.axis("off")
            if columns_names is not None:
                axes.set_title(columns_names[number], fontsize=8, rotation=45, ha="left")
        figure.colorbar(shown, ax=list(places[0]))
        if title is not None:
            figure.suptitle(title)
        found: Figure = figure
        return found

    def heatmap_matrix(
        self, matrix: Any, columns_names: Sequence[str] | None = None, title: str | None = None
    ) -> Figure:
        """A column for each column of a matrix.

        Args:
            matrix: Numbers, (rows, columns).
            columns_names: Name of each column.
            title: Title.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If it is no matrix, or there is not one name for each column.
        """
        array = to_numpy(matrix, "matrix")
        if array.ndim != 2:
            raise ValueError(f"matrix must have rows and columns. Received: shape {array.shape}.")
        return self.heatmap_list2D(list(array.T), columns_names, title)


def pyplot() -> Any:
    """Matplotlib's pyplot, which notebooks and `plt.show()` know.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('Graphs need matplotlib: pip install "backward-compat-ml[sweep]".') from error
    return plt
