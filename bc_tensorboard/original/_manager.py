"""`SweepManager` of the original library, as far as it needs no framework."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bc_core import Sweep, SweepResults
from bc_core.sweep._folder import is_sweep_folder
from bc_core.sweep._original import Entries
from bc_tensorboard.writing._images import images_by_id, thumbnail


class SweepArguments:
    """What the original's sweep is told, under its names, and how it is begun."""

    folder_name: str
    number_of_epochs: int | None
    h1: Any
    h2: Any
    training_set: Any
    test_set: Any
    batch_size_train: int | None
    batch_size_test: int | None
    lambda_c_stepsize: float
    OptimizerClass: Any
    optimizer_kwargs: Mapping[str, Any] | None
    NewErrorLossClass: Any
    StrictImitationLossClass: Any
    performance_metric: Callable[..., Any] | None
    new_error_loss_kwargs: Mapping[str, Any] | None
    strict_imitation_loss_kwargs: Mapping[str, Any] | None
    get_instance_image_by_id: Any
    get_instance_metadata: Any
    device: Any
    use_ml_flow: bool
    ml_flow_run_name: str | None

    def _take_arguments(self, given: Mapping[str, Any]) -> None:
        for name in SweepArguments.__annotations__:
            setattr(self, name, given[name])
        self.folder_name = os.fspath(given["folder_name"])

    def _begun(self, options: dict[str, Any]) -> Sweep:
        raise TypeError(
            f"A sweep is started by the {type(self).__name__} of bc_lightning or of bc_keras; this one opens."
        )

    def _missing(self) -> list[str]:
        return [name for name in ("number_of_epochs", "h1", "h2", "training_set") if getattr(self, name) is None]

    def _check_complete(self) -> None:
        if missing := self._missing():
            raise TypeError(f"To start a sweep {type(self).__name__} needs {', '.join(missing)}. Received: None.")

    def _losses(self, new_error: Any, strict_imitation: Any) -> dict[str, Any]:
        """The two losses by name, as they are on outputs; the given ones where the caller named none."""
        given = {
            "new_error": (self.NewErrorLossClass or new_error, self.new_error_loss_kwargs),
            "strict_imitation": (
                self.StrictImitationLossClass or strict_imitation,
                self.strict_imitation_loss_kwargs,
            ),
        }
        # What is no loss on models is for the sweep to take or to refuse.
        return {
            name: loss.on_outputs(1.0, **(options or {}))
            if isinstance(loss, type) and hasattr(loss, "on_outputs")
            else loss
            for name, (loss, options) in given.items()
        }

    def _mlflow(self) -> Any:
        if not self.use_ml_flow:
            return None
        return True if self.ml_flow_run_name is None else {"run_name": self.ml_flow_run_name}


class SweepManager(SweepArguments):
    """A sweep over lambda_c under the names of the original library, without a dashboard.

    The arguments are those of the original, in its order; `sweep` has more to say. What the methods return has the
    original's form, with every score from counts over the whole data set.

    Args:
        folder_name: Folder of the sweep: a new one, or one with a sweep of `sweep` or of the original.
        number_of_epochs: Epochs of each training.
        h1: The model in use.
        h2: Its update, as it is before the training; it stays so.
        training_set: Training data: a data loader, or a list of batches ``(ids, x, y)`` as the original's.
        test_set: Test data, the same.
        batch_size_train: Rows at a time, where the data are arrays.
        batch_size_test: The same for the test data.
        OptimizerClass: Class of the optimiser. Default: SGD.
        optimizer_kwargs: Its arguments.
        NewErrorLossClass: Loss of the one half of the trainings. Default: `BCCrossEntropyLoss`.
        StrictImitationLossClass: Loss of the other half. Default: `StrictImitationCrossEntropyLoss`.
        lambda_c_stepsize: From one lambda_c to the next, from 0 to 1.
        new_error_loss_kwargs: Options of the first loss.
        strict_imitation_loss_kwargs: Options of the second.
        performance_metric: A function ``(model, dataset, device)``. Default: accuracy.
        get_instance_image_by_id: Image of an instance, as in `CompatibilityAnalysis`.
        get_instance_metadata: Text of an instance: a function of its id.
        device: Where the training runs, such as "cpu" or "cuda:0"; by default where the framework chooses.
        use_ml_flow: Whether the sweep is tracked with MLflow.
        ml_flow_run_name: Name of its run.

    Example:
        >>> from bc_tensorboard.original._manager import SweepManager
        >>> manager = SweepManager("no/such/folder")
        >>> manager.is_running(), manager.get_sweep_status(), manager.get_sweep_summary()["data"]
        (False, 0.0, [])
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
        OptimizerClass: Any = None,
        optimizer_kwargs: Mapping[str, Any] | None = None,
        NewErrorLossClass: Any = None,
        StrictImitationLossClass: Any = None,
        lambda_c_stepsize: float = 0.25,
        new_error_loss_kwargs: Mapping[str, Any] | None = None,
        strict_imitation_loss_kwargs: Mapping[str, Any] | None = None,
        performance_metric: Callable[..., Any] | None = None,
        get_instance_image_by_id: Any = None,
        get_instance_metadata: Any = None,
        device: Any = None,
        use_ml_flow: bool = False,
        ml_flow_run_name: str | None = None,
    ) -> None:
        self._take_arguments(locals())
        self._sweep: SweepResults | None = None
        # The dashboard that is to follow what is started, if there is one.
        self._shown_by: Any = None

    @classmethod
    def _of(cls, analysis: SweepArguments) -> SweepManager:
        """The manager of a dashboard: of one sweep with it."""
        manager = cls(**{name: getattr(analysis, name) for name in SweepArguments.__annotations__})
        manager._shown_by = analysis
        return manager

    @property
    def sweep(self) -> SweepResults | None:
        """The sweep: a `bc_core.Sweep` once it was started, else what is in the folder; None without one."""
        begun = self._sweep if self._shown_by is None else self._shown_by.sweep
        if begun is None and is_sweep_folder(self.folder_name):
            return SweepResults.open(self.folder_name)
        return begun

    def start_sweep(self) -> None:
        """Start the sweep in the background, or go on with the one in the folder.

        Raises:
            TypeError: An argument that the training needs is missing.
            ValueError: As `sweep`.
            RuntimeError: It is running already.
        """
        self._start(background=True)

    def start_sweep_synchronous(self) -> None:
        """The same, and wait until it is finished; raises what `sweep` does."""
        self._start(background=False)

    def _start(self, background: bool) -> None:
        if self._shown_by is not None:
            self._shown_by.start(background=background)
            return
        self._check_complete()
        if self.is_running():
            raise RuntimeError("The sweep is running; wait for it with .sweep.wait(), or stop it with .sweep.cancel().")
        self._sweep = self._begun({"background": background, "progress_bar": False})

    def is_running(self) -> bool:
        """Whether the sweep is at work in the background."""
        sweep = self.sweep
        return isinstance(sweep, Sweep) and sweep.is_running

    def get_sweep_status(self) -> float:
        """The share that is done, from 0 to 1.

        Raises:
            BaseException: What ended the sweep in the background, such as a full disk or `bc_core.SweepFailedError`.
        """
        sweep = self.sweep
        if isinstance(sweep, Sweep):
            if sweep.error is not None:
                raise sweep.error
            return sweep.status
        if sweep is None:
            return float(self._original_file("sweep_summary.json").is_file())
        return len(sweep.points) / max(1, len(sweep.points) + len(sweep.unfinished))

    def get_sweep_summary(self) -> dict[str, Any]:
        """What ``sweep_summary.json`` held: `data`, a row for each finished evaluation, and `h1_performance`."""
        metric = getattr(self.performance_metric, "__name__", "model_accuracy")
        summary: dict[str, Any] = {"h1_performance": None, "performance_metric": metric, "data": []}
        sweep = self.sweep
        if sweep is not None:
            return summary | Entries(sweep).summary()
        path = self._original_file("sweep_summary.json")
        return summary | json.loads(path.read_text(encoding="utf-8")) if path.is_file() else summary

    def get_evaluation(self, evaluation_id: int) -> dict[str, Any]:
        """What ``{evaluation_id}-evaluation-data.json`` held; the number is a row's `datapoint_index`.

        Raises:
            FileNotFoundError: There is no such evaluation, or not yet.
        """
        sweep = self.sweep
        if sweep is None:
            path = self._original_file(f"{evaluation_id}-evaluation-data.json")
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
        return Entries(sweep).evaluation(evaluation_id)

    def get_instance_image(self, instance_id: Any) -> bytes:
        """Image of an instance as a PNG or JPEG file; a white one where there is none."""
        images = self.get_instance_image_by_id
        content = None if images is None else thumbnail(images_by_id(images)(instance_id))
        if content is not None:
            return content
        from PIL import Image

        buffer = io.BytesIO()
        Image.new("L", (30, 30), 255).save(buffer, "PNG")
        return buffer.getvalue()

    def _original_file(self, name: str) -> Path:
        return Path(self.folder_name) / name
