"""The notebook widgets of the original library under their names, as far as they need no framework."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc_core import Comparison, Sweep, SweepResults
from bc_core.sweep._folder import is_sweep_folder
from bc_tensorboard.original._manager import SweepArguments, SweepManager
from bc_tensorboard.pages._actions import Action
from bc_tensorboard.plugin._collection import Texts, point_name
from bc_tensorboard.plugin._original_sweep import (
    OriginalEvaluation,
    caveats,
    holds_original_sweep,
    read_finished_evaluations,
)

if TYPE_CHECKING:
    from bc_tensorboard.pages._view import ComparisonView


# How often the dashboard looks at a running sweep.
_LOOK_SECONDS = 0.5

_Comparisons = dict[str, dict[str, list[Comparison]]]


class CompatibilityAnalysis(SweepArguments):
    """A sweep over lambda_c in the notebook: `start` runs it in the background, and the dashboard shows how it goes.

    With what the training needs, the dashboard has a button that calls `start`, one that stops the sweep while it runs,
    and one that goes on with a sweep that is not finished.

    A folder that holds a sweep already is shown at once: one of `sweep`, finished or not, or one that
    `CompatibilityAnalysis` or `SweepManager` of BackwardCompatibilityML wrote, with every score computed from their
    counts (see `bc_tensorboard.read_original_sweep` for what of such a folder is exact). An empty or missing folder
    shows that there is nothing yet; `refresh` looks again.

    The arguments are taken as the original takes them, in the same order, so that the same call works; to open a
    folder none of them is needed. `start` needs those of the training: `number_of_epochs`, `h1`, `h2`, `training_set`,
    `test_set`, `lambda_c_stepsize` (lambda_c goes from 0 to 1), `OptimizerClass` with `optimizer_kwargs`, the two
    losses with their arguments, `performance_metric`. It calls `sweep`, which has more to say. There is no server:
    `port` means nothing any more.

    Args:
        folder_name: Folder of the sweep.
        number_of_epochs: Epochs of each training.
        h1: The model in use.
        h2: Its update, as it is before the training; it stays so.
        training_set: Training data: a data loader, or a list of batches ``(ids, x, y)`` as the original's.
        test_set: Test data, the same.
        batch_size_train: Rows at a time, where the data are arrays.
        batch_size_test: The same for the test data.
        lambda_c_stepsize: From one lambda_c to the next.
        OptimizerClass: Class of the optimiser. Default: SGD, as in the original.
        optimizer_kwargs: Its arguments.
        NewErrorLossClass: Loss of the one half of the trainings.
        StrictImitationLossClass: Loss of the other half.
        performance_metric: A function ``(model, dataset, device)``, for the sweep's table; accuracy is shown.
        port: Accepted with a DeprecationWarning.
        new_error_loss_kwargs: Its options.
        strict_imitation_loss_kwargs: Its options.
        get_instance_image_by_id: Image of an instance: a function of its id that returns an array, a PIL image, the
            bytes of an image file, or what Flask's `send_file` returned; or a mapping or an array of images.
        get_instance_metadata: Text of an instance: a function of its id. It takes the place of the texts in the folder,
            which the original asked for by another number wherever it used more than one batch.
        device: Where the training runs, such as "cpu" or "cuda:0"; by default where the framework chooses.
        use_ml_flow: Whether the sweep is tracked with MLflow.
        ml_flow_run_name: Name of its run.

    Attributes:
        evaluations: What was read of a folder of the original, as `bc_tensorboard.read_original_sweep` returns it.
        sweep: The `bc_core.Sweep` that `start` began, or the `bc_core.SweepResults` of the folder; None without one.
        sweep_manager: The same sweep under the method names of the original's `SweepManager`.
        view: The `bc_tensorboard.ComparisonView` that is shown.

    Raises:
        ImportError: If anywidget is not installed.

    Example:
        >>> from bc_tensorboard.original._widgets import CompatibilityAnalysis
        >>> CompatibilityAnalysis("no/such/folder")
        CompatibilityAnalysis('no/such/folder', no evaluations yet)
    """

    _Manager: type[SweepManager] = SweepManager

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
        warn_of_unused(port=port)
        self._take_arguments(locals())
        self.evaluations: list[OriginalEvaluation] = []
        self.sweep: SweepResults | None = None
        self.sweep_manager = self._Manager._of(self)
        self._options: dict[str, Any] = {}
        self.view = made_view(images=get_instance_image_by_id, metadata=get_instance_metadata)
        self.refresh()
        self.show()

    def start(self, **options: Any) -> Sweep:
        """Start the sweep in the background, or go on with the one in the folder; the dashboard follows it.

        Args:
            options: Further arguments of `sweep`, or other values for those that are given here.

        Returns:
            The sweep, with its `status`, `wait()` and `cancel()`.

        Raises:
            TypeError: An argument that the training needs is missing.
            ValueError: As `sweep`.
            RuntimeError: It is running already.
        """
        if self.is_running:
            raise RuntimeError("The sweep is running; wait for it with .sweep.wait(), or stop it with .sweep.cancel().")
        self._check_complete()
        sweep = self._begun({"background": True, "progress_bar": False, **options})
        self.sweep, self._options = sweep, options
        self._show_sweep(sweep, sweep.comparisons(), sweep.status if sweep.is_running else None)
        threading.Thread(target=self._follow, args=(sweep,), name="sweep view", daemon=True).start()
        return sweep

    @property
    def is_running(self) -> bool:
        """Whether the sweep that `start` began is at work."""
        return isinstance(self.sweep, Sweep) and self.sweep.is_running

    def _actions(self) -> list[Action]:
        """The buttons of the dashboard, for what can be done just now."""
        if self._missing() or type(self)._begun is SweepArguments._begun:
            return []
        sweep = self.sweep
        if isinstance(sweep, Sweep) and sweep.is_running:
            # It waits until the processes that train have ended.
            return [Action("Stop", "Stopping the sweep; what is finished stays", self._stop, background=True)]
        if sweep is not None:
            left = len(sweep.unfinished)
            note = f"{left} of its {left + len(sweep.points)} points are not finished."
            return [Action("Go on", "Going on with the sweep", self._start_again, note)] if left else []
        if self.evaluations:
            return []
        note = (
            f"It trains h2 with either loss at lambda_c from 0 to 1 in steps of {self.lambda_c_stepsize:g}, "
            f"{self.number_of_epochs} epoch{'' if self.number_of_epochs == 1 else 's'} each, in the background, and "
            f"keeps everything in {self.folder_name}."
        )
        return [Action("Start the sweep", "Starting the sweep", self.start, note)]

    def _start_again(self) -> None:
        self.start(**{**self._options, "background": True})

    def _stop(self) -> None:
        if isinstance(self.sweep, Sweep):
            self.sweep.cancel()
            self._show_sweep(self.sweep, self.sweep.comparisons(), None)

    def _follow(self, sweep: Sweep) -> None:
        shown: tuple[int, float] | None = None
        comparisons: _Comparisons = {}
        while sweep.is_running:
            now = len(sweep.points), round(sweep.status, 2)
            if now != shown:
                if shown is None or now[0] != shown[0]:
                    # Read only when there are more: progress is shown more often.
                    comparisons = sweep.comparisons()
                shown = now
                self._show_sweep(sweep, comparisons, sweep.status)
            time.sleep(_LOOK_SECONDS)
        # It may have been started again meanwhile.
        if self.sweep is sweep:
            self._show_sweep(sweep, sweep.comparisons(), None)

    def _show_sweep(self, sweep: SweepResults, comparisons: _Comparisons, progress: float | None) -> None:
        notes = [f"{failure.point.name} failed: {failure.error}" for failure in sweep.failures]
        error = sweep.error if isinstance(sweep, Sweep) else None
        if error is not None:
            notes.insert(0, f"The sweep ended: {type(error).__name__}: {error}")
        actions = self._actions()
        if progress is None and sweep.unfinished and not notes and not actions:
            notes.append(
                f"{len(sweep.unfinished)} of its points are not finished: it was interrupted, or runs elsewhere; "
                "start() goes on with it."
            )
        points, dissonances = _by_point(comparisons, sweep.dissonances())
        self.view.replace(points, warnings=notes, progress=progress, dissonance=dissonances or None, actions=actions)

    def refresh(self) -> None:
        """Read the folder again, and show what is in it now; what is looked at stays so."""
        if not self.is_running and is_sweep_folder(self.folder_name):
            self.sweep = self.sweep if isinstance(self.sweep, Sweep) else SweepResults.open(self.folder_name)
            self._show_sweep(self.sweep, self.sweep.comparisons(), None)
        elif not self.is_running:
            self.evaluations, notes = _read(Path(self.folder_name))
            actions = self._actions()
            # A folder that the button makes is missing for no reason worth a word.
            missing = bool(actions) and not Path(self.folder_name).is_dir()
            self.view.replace(self.evaluations, warnings=[] if missing else notes, actions=actions)

    def show(self) -> None:
        """Show the sweep below the cell that is running; outside of a notebook nothing happens."""
        display_in_notebook(self.view)

    def __repr__(self) -> str:
        if self.sweep is not None:
            return f"CompatibilityAnalysis({self.sweep!r})"
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
                f"{name} means nothing any more and is ignored: there is no server to run; leave it out",
                DeprecationWarning,
                stacklevel=3,
            )


def made_view(comparisons: Any = (), **options: Any) -> ComparisonView:
    """Make the widget; imported here, as it is for notebooks only."""
    from bc_tensorboard.pages._view import ComparisonView

    return ComparisonView(comparisons, **options)


def display_in_notebook(view: Any) -> None:
    """Show the widget, as the original's do when they are made."""
    # Where IPython was never imported there is no cell to show it below.
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        importlib.import_module("IPython.display").display(view)


def _by_point(comparisons: _Comparisons, dissonances: Mapping[str, str]) -> tuple[_Comparisons, dict[str, str]]:
    """A run for each point, and its dissonance: the name of the one that is looked at stays when there are more."""
    points: _Comparisons = {}
    named: dict[str, str] = {}
    for run, by_dataset in comparisons.items():
        for dataset, of_run in by_dataset.items():
            for comparison in of_run:
                name = run if comparison.lambda_c is None else point_name(run, comparison.lambda_c)
                points.setdefault(name, {}).setdefault(dataset, []).append(comparison)
                named[name] = dissonances[run]
    return points, named


def _read(folder: Path) -> tuple[list[OriginalEvaluation], list[str]]:
    """The evaluations of a folder, and what a person should know of it."""
    if not holds_original_sweep(folder):
        return [], [] if folder.is_dir() else [f"{folder} is no folder; a sweep is looked for there when refreshed."]
    try:
        evaluations, notes = read_finished_evaluations(folder)
    except ValueError as error:
        return [], [str(error)]
    return evaluations, [*notes, *caveats(folder, evaluations)]
