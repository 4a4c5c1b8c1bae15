"""The notebook widgets of the original library under their names, as far as they need no framework."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc_core import Comparison
from bc_tensorboard._collection import Texts
from bc_tensorboard._original_sweep import (
    OriginalEvaluation,
    caveats,
    holds_original_sweep,
    read_finished_evaluations,
)

if TYPE_CHECKING:
    from bc_tensorboard._view import ComparisonView


class CompatibilityAnalysis:
    """A finished or interrupted lambda_c sweep, opened from its folder and shown in the notebook.

    The folder is one that `CompatibilityAnalysis` or `SweepManager` of BackwardCompatibilityML wrote. All evaluations
    are shown, with every score computed from their counts: see `bc_tensorboard.read_original_sweep` for what of such a
    folder is exact. An empty or missing folder shows that there is nothing yet; `refresh` looks again.

    This class opens and shows; **it starts no sweep.** The arguments of a training are taken as the original takes
    them, in the same order, so that the same call works, and are kept as attributes of the same names; none of them is
    needed. There is no server: `port` and the two arguments for MLflow mean nothing any more.

    Args:
        folder_name: Folder of the sweep.
        number_of_epochs: Kept.
        h1: Kept.
        h2: Kept.
        training_set: Kept.
        test_set: Kept.
        batch_size_train: Kept.
        batch_size_test: Kept.
        lambda_c_stepsize: Kept.
        OptimizerClass: Kept.
        optimizer_kwargs: Kept.
        NewErrorLossClass: Kept.
        StrictImitationLossClass: Kept.
        performance_metric: Kept; accuracy is shown.
        port: Accepted with a DeprecationWarning.
        new_error_loss_kwargs: Kept.
        strict_imitation_loss_kwargs: Kept.
        get_instance_image_by_id: Image of an instance: a function of its id that returns an array, a PIL image, the
            bytes of an image file, or what Flask's `send_file` returned; or a mapping or an array of images.
        get_instance_metadata: Text of an instance: a function of its id. It takes the place of the texts in the folder,
            which the original asked for by another number wherever it used more than one batch.
        device: Kept.
        use_ml_flow: Accepted with a DeprecationWarning.
        ml_flow_run_name: Accepted with a DeprecationWarning.

    Attributes:
        evaluations: What was read, as `bc_tensorboard.read_original_sweep` returns it.
        view: The `bc_tensorboard.ComparisonView` that is shown.

    Raises:
        ImportError: If anywidget is not installed.

    Example:
        >>> from bc_tensorboard._original_widgets import CompatibilityAnalysis
        >>> CompatibilityAnalysis("no/such/folder")
        CompatibilityAnalysis('no/such/folder', no evaluations yet)
    """

    def __init__(
        self,
        folder_name: str | os.PathLike[str],
        number_of_epochs: int | None = None,
        h1: Any = None,
        h2: Any = None,
        training_set: Any = None,
        test_set: Any = None,
        batch_size_train: int | None = None,
        batch_size_test: int | None = None,
        lambda_c_stepsize: float = 0.25,
        OptimizerClass: Any = None,
        optimizer_kwargs: Mapping[str, Any] | None = None,
        NewErrorLossClass: Any = None,
        StrictImitationLossClass: Any = None,
        performance_metric: Callable[..., Any] | None = None,
        port: int | None = None,
        new_error_loss_kwargs: Mapping[str, Any] | None = None,
        strict_imitation_loss_kwargs: Mapping[str, Any] | None = None,
        get_instance_image_by_id: Any = None,
        get_instance_metadata: Texts | None = None,
        device: Any = None,
        use_ml_flow: bool = False,
        ml_flow_run_name: str | None = None,
    ) -> None:
        warn_of_unused(port=port, use_ml_flow=use_ml_flow or None, ml_flow_run_name=ml_flow_run_name)
        self.folder_name = os.fspath(folder_name)
        self.number_of_epochs = number_of_epochs
        self.h1 = h1
        self.h2 = h2
        self.training_set = training_set
        self.test_set = test_set
        self.batch_size_train = batch_size_train
        self.batch_size_test = batch_size_test
        self.lambda_c_stepsize = lambda_c_stepsize
        self.OptimizerClass = OptimizerClass
        self.optimizer_kwargs = optimizer_kwargs
        self.NewErrorLossClass = NewErrorLossClass
        self.StrictImitationLossClass = StrictImitationLossClass
        self.performance_metric = performance_metric
        self.new_error_loss_kwargs = new_error_loss_kwargs
        self.strict_imitation_loss_kwargs = strict_imitation_loss_kwargs
        self.get_instance_image_by_id = get_instance_image_by_id
        self.get_instance_metadata = get_instance_metadata
        self.device = device

        self.evaluations: list[OriginalEvaluation] = []
        self.view = made_view(images=images_of(get_instance_image_by_id), metadata=get_instance_metadata)
        self.refresh()
        self.show()

    def refresh(self) -> None:
        """Read the folder again, and show what is in it now; what is looked at stays so."""
        self.evaluations, notes = _read(Path(self.folder_name))
        self.view.replace(self.evaluations, warnings=notes)

    def show(self) -> None:
        """Show the sweep below the cell that is running; outside of a notebook nothing happens."""
        display_in_notebook(self.view)

    def __repr__(self) -> str:
        number = len(self.evaluations)
        found = f"{number} evaluation{'' if number == 1 else 's'}" if number else "no evaluations yet"
        return f"CompatibilityAnalysis({self.folder_name!r}, {found})"


class ComparedModels:
    """h1 and h2 on one data set, shown as soon as they are compared: what `ModelComparison` is in both frameworks.

    Attributes:
        comparison: The `bc_core.Comparison` that is shown.
        view: The `bc_tensorboard.ComparisonView` that shows it.
        h1_performance: What `performance_metric` says of h1; without one its accuracy.
        h2_performance: The same of h2.
    """

    comparison: Comparison
    view: ComparisonView
    h1_performance: Any
    h2_performance: Any

    def _take(self, comparison: Comparison, dataset_name: str, images: Any, performances: tuple[Any, Any]) -> None:
        self.comparison = comparison
        self.h1_performance, self.h2_performance = performances
        self.view = made_view(comparison, dataset=dataset_name, images=images)
        self.show()

    def show(self) -> None:
        """Show the comparison below the cell that is running; outside of a notebook nothing happens."""
        display_in_notebook(self.view)

    def __repr__(self) -> str:
        said = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in (("h1_performance", self.h1_performance), ("h2_performance", self.h2_performance))
        )
        return f"ModelComparison({self.comparison!r}, {said})"


def warn_of_unused(**given: Any) -> None:
    """Tell the caller of a constructor which of its arguments mean nothing any more."""
    for name, value in given.items():
        if value is not None:
            warnings.warn(
                f"{name} means nothing any more and is ignored: there is no server to run, and no sweep is started "
                "here; leave it out",
                DeprecationWarning,
                stacklevel=3,
            )


def made_view(comparisons: Any = (), **options: Any) -> ComparisonView:
    """Make the widget; imported here, as it is for notebooks only."""
    from bc_tensorboard._view import ComparisonView

    return ComparisonView(comparisons, **options)


def display_in_notebook(view: Any) -> None:
    """Show the widget, as the original's do when they are made."""
    # Where IPython was never imported there is no cell to show it below.
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        importlib.import_module("IPython.display").display(view)


def images_of(get_instance_image_by_id: Any) -> Any:
    """Images as the rest of this package takes them, from what the original's functions return."""
    if not callable(get_instance_image_by_id) or hasattr(get_instance_image_by_id, "__getitem__"):
        return get_instance_image_by_id

    def image_of(instance: int | str) -> Any:
        image = get_instance_image_by_id(instance)
        if hasattr(image, "get_data"):
            # A response of Flask, which would keep a file that is passed through to itself.
            image.direct_passthrough = False
            return image.get_data()
        return image.getvalue() if hasattr(image, "getvalue") else image

    return image_of


def _read(folder: Path) -> tuple[list[OriginalEvaluation], list[str]]:
    """The evaluations of a folder, and what a person should know of it."""
    if not holds_original_sweep(folder):
        return [], [] if folder.is_dir() else [f"{folder} is no folder; a sweep is looked for there when refreshed."]
    try:
        evaluations, notes = read_finished_evaluations(folder)
    except ValueError as error:
        return [], [str(error)]
    return evaluations, [*notes, *caveats(folder, evaluations)]
