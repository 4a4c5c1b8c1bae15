"""A sweep in MLflow: what its runs are told of the plan, of the points and of the whole."""

from __future__ import annotations

import csv
import importlib
import itertools
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bc_core._extras import need
from bc_core.counting._scores import SCORES
from bc_core.sweep._folder import Failure, comparison_name
from bc_core.sweep._mlflow_runs import Runs, known_name, said
from bc_core.sweep._points import Point
from bc_core.sweep._trackers import Logger, Plan, Tracker

if TYPE_CHECKING:
    from bc_core.sweep._results import SweepResults

T = TypeVar("T")

_OPTIONS = ("experiment", "run_name", "tracking_uri")
# Names of the data sets in the metrics of BackwardCompatibilityML, and of the one that it does not know.
_DATASETS = {"train": "training", "val": "validation", "test": "testing"}


class MLflowTracker(Tracker):
    """Tells MLflow of a sweep.

    After `begin` no method raises for MLflow's sake: when it fails, that is said once, the sweep goes on, and `finish`
    makes up for what is missing if MLflow is back by then.

    Args:
        runs: Where the runs are.
        run_name: Name of the run of the sweep.
    """

    def __init__(self, runs: Runs, run_name: str) -> None:
        self.runs = runs
        self._run_name = run_name
        self._plan = Plan({}, [], [], [])
        # Whether MLflow failed and is left alone for now, and whether that was said.
        self._lost = self._told = False

    @classmethod
    def of(cls, mlflow: bool | str | Mapping[str, Any] | None, folder: str | os.PathLike[str]) -> MLflowTracker | None:
        """How a sweep is tracked.

        Args:
            mlflow: None or False for not at all; True for MLflow as it is set up; the name of an experiment; or a
                mapping with any of `experiment`, `run_name`, `tracking_uri`.
            folder: Folder of the sweep.

        Raises:
            ImportError: MLflow is not installed.
            TypeError: `mlflow` is something else.
            ValueError: An option has another name, or no text.

        Example:
            >>> from bc_core.sweep._mlflow import MLflowTracker
            >>> MLflowTracker.of(None, "sweep") is None
            True
        """
        if mlflow is None or mlflow is False:
            return None
        options = _checked(mlflow)
        need("mlflow", "Tracking", "mlflow")
        module = importlib.import_module("mlflow")
        # Settled here, as workers in other processes have settings of their own.
        uri = options.get("tracking_uri")
        uri = module.get_tracking_uri() if uri is None else os.fspath(uri)
        if "://" not in uri and not uri.startswith(("file:", "databricks", "uc:")):
            uri = Path(uri).resolve().as_uri()
        place, experiment = Path(folder).resolve(), options.get("experiment")
        current = None if experiment is not None else _current_experiment(uri, module)
        return cls(Runs(place, uri, experiment, current), options.get("run_name") or place.name)

    # The sweep

    def begin(self, results: SweepResults, plan: Plan) -> None:
        """Open the run of the sweep, and tell what it is about.

        Raises:
            ImportError: MLflow writes to a database, and what it needs for it is not installed.
            RuntimeError: MLflow cannot be reached, or refuses.
        """
        self._plan = plan
        self.runs.check_database()
        try:
            self._describe(self.runs.open(self._run_name))
            self.runs.end_left_behind()
        except Exception as error:
            raise RuntimeError(
                f"MLflow at {self.runs.tracking_uri} cannot be written to: {said(error)}. Nothing was trained yet. "
                "Check tracking_uri and experiment, or leave mlflow out."
            ) from error

    def _describe(self, there: Mapping[str, str]) -> None:
        """Parameters cannot be changed, and the plan of a sweep may grow: what changes is told by tags too."""
        plan = {
            "losses": ", ".join(self._plan.losses),
            "lambdas": ", ".join(f"{value:g}" for value in self._plan.lambdas),
            "seeds": ", ".join(map(str, self._plan.seeds)),
            **({"promises": "; ".join(self._plan.promises)} if self._plan.promises else {}),
        }
        step = _stepsize(self._plan.lambdas)
        told = {**self._plan.recipe, **plan} | ({} if step is None else {"lambda_c_stepsize": f"{step:g}"})
        new = {known_name(name): value for name, value in told.items() if known_name(name) not in there}
        self.runs.log_params(self.runs.run_id, new)
        for name, value in {**plan, "folder": str(self.runs.folder)}.items():
            self.runs.tag(self.runs.run_id, f"sweep.{name}", value)

    def finish(self, results: SweepResults) -> None:
        """Attach the table, the report and the picture, and end the run of the sweep.

        Points that are not there yet are added: those that finished while MLflow was away, or before it was asked for.
        The run ends as FINISHED, as FAILED if points failed, as KILLED if the sweep was cancelled.
        """
        # Once more, as MLflow may be back.
        self._lost, was_lost = False, self._lost

        def work() -> None:
            points = [point for point in results.points if self._is_mine(point)]
            for point in points:
                self._track(results, point)
            if points:
                self._attach(results)

        self._try(work)
        if not was_lost:
            # What failed may have been one file.
            self._lost = False
        failed = {failure.point for failure in results.failures if self._is_mine(failure.point)}
        cancelled = any(self._is_mine(point) and point not in failed for point in results.unfinished)
        self._try(lambda: self.runs.end("KILLED" if cancelled else "FAILED" if failed else "FINISHED", None))

    def close(self, error: BaseException) -> None:
        """End the run of a sweep that did not come to its end: KILLED for an interrupt, else FAILED."""
        killed = isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))
        self._lost = False
        self._try(lambda: self.runs.end("KILLED" if killed else "FAILED", error))

    # Its points

    def logger(self, point: Point) -> Logger | None:
        """The run of a point at work, opened where there is none yet; None if MLflow failed."""
        run_id = self._try(lambda: str(self.runs.child(point)["run_id"]))
        if run_id is None:
            return None
        arguments = {"run_id": run_id, "tracking_uri": self.runs.tracking_uri}
        # Whoever opened the run closes it.
        return Logger("MLFlowLogger", arguments, closes=False, beside_own=True)

    def log_epoch(self, point: Point, epoch: int, logs: Mapping[str, Any] | None) -> None:
        """Log what a framework tells at the end of an epoch; what is no finite number is left out."""
        numbers: dict[str, float] = {}
        for name, value in (logs or {}).items():
            with suppress(TypeError, ValueError):
                numbers[name] = float(value)
        self._try(lambda: self.runs.log(self.runs.child(point)["run_id"], numbers, epoch))

    def point_finished(self, results: SweepResults, point: Point) -> None:
        """Log a finished point: its scores, its files, and the metrics of BackwardCompatibilityML in the sweep's run.

        One that is logged already is passed over.
        """
        self._try(lambda: self._track(results, point))

    def point_failed(self, failure: Failure) -> None:
        """End the run of a point as FAILED, with its error and traceback."""

        def work() -> None:
            child = self.runs.child(failure.point)
            self.runs.tag(child["run_id"], "error", failure.error)
            if failure.traceback:
                self.runs.client.log_text(child["run_id"], failure.traceback, "traceback.txt")
            self.runs.end_child(child, "FAILED")

        self._try(work)

    # Inside

    def _try(self, work: Callable[[], T]) -> T | None:
        """Do it unless MLflow is lost; after a failure no more is tried, as each waits for minutes for a server."""
        if self._lost or self.runs.run_id is None:
            return None
        try:
            return work()
        except Exception as error:
            self._lost = True
            if not self._told:
                self._told = True
                warnings.warn(
                    f"MLflow at {self.runs.tracking_uri} failed, and the sweep goes on without it: {said(error)}. "
                    "What is missing there is added at the end of the sweep, or when the same call is made again.",
                    RuntimeWarning,
                    stacklevel=3,
                )
            return None

    def _is_mine(self, point: Point) -> bool:
        """Whether the point was asked for by this call; the folder may hold more."""
        mine = point.loss is None or point.loss in self._plan.losses
        held_to = (
            point.lambda_c in self._plan.lambdas if point.promise is None else point.promise in self._plan.promises
        )
        return mine and held_to and point.seed in self._plan.seeds

    def _track(self, results: SweepResults, point: Point) -> None:
        known = self.runs.known_child(point)
        if known is not None and known["status"] == "FINISHED":
            return
        child = self.runs.child(point)
        # Once more, as MLflow may have failed just after the run was opened.
        self.runs.name_child(child, point)
        result = results._folder.result(point)
        metrics: dict[str, float] = {"seconds": result["seconds"]}
        if point.promise is not None:
            metrics["lambda_c"] = result["lambda_c"]
            self.runs.tag(child["run_id"], "promise.verdict", result["verdict_text"] or result["verdict"])
        for dataset, data in result["datasets"].items():
            metrics |= {f"{dataset}/{score}": data["overlap"].score(score) for score in SCORES}
            performances = zip(("h1", "h2"), data["performance"] or (), strict=False)
            metrics |= {f"{dataset}/performance_{model}": value for model, value in performances if value is not None}
        self.runs.log(child["run_id"], metrics, 0)
        files = [comparison_name(dataset) for dataset in result["datasets"]]
        for name in files if result["model"] is None else [*files, result["model"]]:
            path = results._folder.folder_of(point) / name
            if path.is_dir():
                self.runs.client.log_artifacts(child["run_id"], str(path), name)
            else:
                self.runs.client.log_artifact(child["run_id"], str(path))
        self._track_as_original(results, point)
        self.runs.end_child(child, "FINISHED")

    def _track_as_original(self, results: SweepResults, point: Point) -> None:
        """The curves of BackwardCompatibilityML over the number of lambda_c; of several seeds their mean, at the last.

        As there, steps begin with 1, performance is accuracy unless there is a metric, and BEC is given h1 wrong.
        """
        plan = self._plan
        group = [Point(point.loss, point.lambda_c, seed) for seed in plan.seeds]
        if point.promise is not None or point.lambda_c not in plan.lambdas or not set(group) <= set(results.points):
            return
        losses = plan.losses if point.loss is None else [point.loss]
        metrics = {"lambda_c": point.lambda_c} if losses[0] == plan.losses[0] else {}
        members = [results._folder.result(one)["datasets"] for one in group]
        for dataset, told in _DATASETS.items():
            there = [member[dataset] for member in members if dataset in member]
            if len(there) < len(members):
                continue
            values = {
                "performance": [_performance(data) for data in there],
                "btc": [data["overlap"].btc for data in there],
                "bec": [data["overlap"].bec(given="h1_wrong") for data in there],
            }
            for loss in losses:
                metrics |= {f"{loss}_{told}_{name}": sum(of) / len(of) for name, of in values.items()}
        self.runs.log(self.runs.run_id, metrics, list(plan.lambdas).index(point.lambda_c) + 1)

    def _attach(self, results: SweepResults) -> None:
        with tempfile.TemporaryDirectory() as folder:
            rows = results.rows()
            columns = list(dict.fromkeys(name for row in rows for name in row))
            with open(Path(folder, "table.csv"), "w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)
            _make("report.html", lambda: results.to_html(Path(folder, "report.html")))
            _make("tradeoff.png", lambda: results.plot(Path(folder, "tradeoff.png")))
            self.runs.client.log_artifacts(self.runs.run_id, folder)


def _checked(mlflow: Any) -> dict[str, Any]:
    """What is asked of MLflow, as options."""
    if isinstance(mlflow, Mapping):
        options = dict(mlflow)
    elif isinstance(mlflow, str):
        options = {"experiment": mlflow}
    elif mlflow is True:
        options = {}
    else:
        raise TypeError(
            'mlflow must be True, the name of an experiment, or a mapping such as {"experiment": "updates", '
            f'"tracking_uri": "http://localhost:5000"}}. Received: mlflow={mlflow!r}.'
        )
    for name, value in options.items():
        if name not in _OPTIONS:
            raise ValueError(f"mlflow takes the options {', '.join(_OPTIONS)}. Received: {name!r}.")
        if value is not None and not (isinstance(value, (str, os.PathLike)) and os.fspath(value)):
            raise ValueError(f"mlflow: {name} must be a text. Received: {value!r}.")
    return options


def _make(name: str, make: Callable[[], object]) -> None:
    """Make a file that the run is complete without: its package may not be installed."""
    try:
        with suppress(ImportError):
            make()
    except Exception as error:
        warnings.warn(f"{name} could not be made for MLflow: {said(error)}", RuntimeWarning, stacklevel=2)


def _current_experiment(uri: str, module: Any) -> str:
    """Where a run of the caller's own would go: set_experiment, the environment, else the default experiment."""
    active = module.active_run()
    if active is not None and module.get_tracking_uri() == uri:
        return str(active.info.experiment_id)
    with suppress(Exception):
        if module.get_tracking_uri() != uri:
            return "0"
        # No public function tells it.
        return str(importlib.import_module("mlflow.tracking.fluent")._get_experiment_id())
    return "0"


def _performance(data: Mapping[str, Any]) -> float:
    if data["performance"] is None:
        return float(data["overlap"].accuracy_h2)
    value = data["performance"][1]
    return math.nan if value is None else float(value)


def _stepsize(lambdas: Sequence[float]) -> float | None:
    """From one lambda_c to the next, where it is the same all along."""
    steps = [right - left for left, right in itertools.pairwise(lambdas)]
    if not steps or max(steps) - min(steps) > 1e-9 * max(steps):
        return None
    return steps[0]
