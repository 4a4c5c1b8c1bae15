"""A sweep in MLflow: a run for the sweep, and below it one for each point."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bc_core.counting._scores import SCORES
from bc_core.files._files import write_whole
from bc_core.sweep._folder import Failure, SweepFolder, comparison_name
from bc_core.sweep._points import PLAIN, Point

if TYPE_CHECKING:
    from bc_core.sweep._results import SweepResults

T = TypeVar("T")

_OPTIONS = ("experiment", "run_name", "tracking_uri")
# In the folder of the sweep: the run of the sweep, and the runs of its points.
_PARENT, _CHILDREN = "mlflow.json", "mlflow"
# Names of the data sets in the metrics of BackwardCompatibilityML, and of the one that it does not know.
_DATASETS = {"train": "training", "val": "validation", "test": "testing"}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# What MLflow takes; the rest of a name or value is cut.
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-. /")
_LONGEST_NAME, _LONGEST_VALUE, _LONGEST_TAG = 250, 6000, 5000


def tracking_of(
    mlflow: bool | str | Mapping[str, Any] | None,
    folder: str | os.PathLike[str],
    recipe: Mapping[str, Any],
    losses: Sequence[str],
    lambdas: Sequence[float],
    seeds: Sequence[int],
) -> Tracking | None:
    """How a sweep is tracked.

    Args:
        mlflow: None or False for not at all; True for MLflow as it is set up; the name of an experiment; or a mapping
            with any of `experiment`, `run_name`, `tracking_uri`.
        folder: Folder of the sweep.
        recipe: What decides its results: the parameters of the run.
        losses: Names of the losses.
        lambdas: Values of lambda_c.
        seeds: Seeds.

    Raises:
        ImportError: MLflow is not installed.
        TypeError: `mlflow` is something else.
        ValueError: An option has another name, or no text.

    Example:
        >>> from bc_core.sweep._tracking import tracking_of
        >>> tracking_of(None, "sweep", {}, ["new_error"], [0.0, 1.0], [0]) is None
        True
    """
    if mlflow is None or mlflow is False:
        return None
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
    try:
        module = importlib.import_module("mlflow")
    except ImportError as error:
        raise ImportError('Tracking needs MLflow: pip install "backward-compat-ml[mlflow]".') from error
    # Settled here, as workers in other processes have settings of their own.
    uri = options.get("tracking_uri")
    uri = module.get_tracking_uri() if uri is None else os.fspath(uri)
    if "://" not in uri and not uri.startswith(("file:", "databricks", "uc:")):
        uri = Path(uri).resolve().as_uri()
    experiment = options.get("experiment")
    return Tracking(
        folder=Path(folder).resolve(),
        recipe={str(name): str(value) for name, value in recipe.items()},
        losses=list(losses),
        lambdas=sorted(lambdas),
        seeds=list(seeds),
        tracking_uri=uri,
        experiment=experiment,
        experiment_id=None if experiment is not None else _current_experiment(uri, module),
        run_name=options.get("run_name") or Path(folder).resolve().name,
    )


class Tracking:
    """Writes a sweep to MLflow, by explicit run ids: a run of the caller's own that is active is left alone.

    It can be pickled, and after `start` be used in the worker processes of the sweep, for which `child_run` and
    `log_epoch` are made. After `start` no method raises for MLflow's sake: when it fails, that is said once, the sweep
    goes on, and `finish` makes up for what is missing if MLflow is back by then.

    Args:
        folder: Folder of the sweep; the ids of the runs are kept in it.
        recipe: What decides the results.
        losses: Names of the losses.
        lambdas: Values of lambda_c, ascending.
        seeds: Seeds.
        tracking_uri: Where MLflow writes.
        experiment: Name of the experiment; it is made if it is not there.
        experiment_id: Its id, where there is no name.
        run_name: Name of the run of the sweep.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Mapping[str, str],
        losses: Sequence[str],
        lambdas: Sequence[float],
        seeds: Sequence[int],
        tracking_uri: str,
        experiment: str | None,
        experiment_id: str | None,
        run_name: str,
    ) -> None:
        self.folder = folder
        self.tracking_uri = tracking_uri
        self.experiment_id = experiment_id
        self.run_id: str | None = None
        self._experiment = experiment
        self._run_name = run_name
        self._recipe = dict(recipe)
        self._losses, self._lambdas, self._seeds = list(losses), list(lambdas), list(seeds)
        # Whether MLflow failed and is left alone for now, and whether that was said.
        self._lost = self._told = False
        self._made: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    # The sweep

    def start(self) -> None:
        """Open the run of the sweep; that of an interrupted sweep in the same folder is taken up again.

        Raises:
            ImportError: MLflow writes to a database, and what it needs for it is not installed.
            RuntimeError: MLflow cannot be reached, or refuses.
        """
        self._check_database()
        try:
            if self._experiment is not None:
                self.experiment_id = self._named_experiment(self._experiment)
            known = self._known_run()
            if known is None:
                tags = {**_context_tags(), "mlflow.note.content": f"Sweep over lambda_c in {self.folder}"}
                run = self._client.create_run(self.experiment_id, tags=tags, run_name=self._run_name)
                there: Mapping[str, str] = {}
            else:
                run, there = known, known.data.params
                self._client.update_run(run.info.run_id, status="RUNNING")
            self.run_id = run.info.run_id
            content = {"run_id": self.run_id, **self._where()}
            write_whole(self.folder / _PARENT, json.dumps(content, indent=1).encode("utf-8"))
            self._describe(there)
            folder = SweepFolder(self.folder)
            for child in self._open_children():
                # Left behind by an interrupted call: the point begins anew, in a run of its own. One that had just
                # finished is logged in the end.
                if not folder.is_finished(Point.from_dict(child["point"])):
                    self._end_child(child, "KILLED")
        except Exception as error:
            raise RuntimeError(
                f"MLflow at {self.tracking_uri} cannot be written to: {_said(error)}. Nothing was trained yet. Check "
                "tracking_uri and experiment, or leave mlflow out."
            ) from error

    def finish(self, results: SweepResults) -> None:
        """Attach the table, the report and the picture, and end the run of the sweep.

        Points that are not there yet are added: those that finished while MLflow was away, or before it was asked for.

        Args:
            results: The sweep. Its run ends as FINISHED, as FAILED if points failed, as KILLED if it was cancelled.
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
        self._end("KILLED" if cancelled else "FAILED" if failed else "FINISHED", None)

    def close(self, error: BaseException | None) -> None:
        """End the run of a sweep that did not come to its end.

        Args:
            error: Why: KILLED for an interrupt, else FAILED.
        """
        killed = error is None or isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))
        self._lost = False
        self._end("KILLED" if killed else "FAILED", error)

    def _end(self, status: str, error: BaseException | None) -> None:
        def work() -> None:
            for child in self._open_children():
                self._end_child(child, "KILLED")
            if error is not None:
                self._client.set_tag(self.run_id, "error", _said(error)[:_LONGEST_TAG])
            self._client.set_terminated(self.run_id, status)

        self._try(work)

    # Its points

    def child_run(self, point: Point) -> tuple[str, str] | None:
        """The run of a point at work, for loggers of the framework; it is opened where there is none yet.

        Returns:
            Its id and the tracking URI, or None if MLflow failed.

        Example of use, in a worker: `MLFlowLogger(run_id=run_id, tracking_uri=uri)` of Lightning.
        """
        run_id = self._try(lambda: str(self._child(point)["run_id"]))
        return None if run_id is None else (run_id, self.tracking_uri)

    def log_epoch(self, point: Point, epoch: int, logs: Mapping[str, Any] | None) -> None:
        """Log what a framework tells at the end of an epoch, into the run of the point.

        Args:
            point: Which one.
            epoch: Its number.
            logs: Value by name, such as Keras hands to callbacks; what is no finite number is left out.
        """
        numbers: dict[str, float] = {}
        for name, value in (logs or {}).items():
            with suppress(TypeError, ValueError):
                numbers[_name(name)] = float(value)
        self._try(lambda: self._log(str(self._child(point)["run_id"]), numbers, epoch))

    def point_finished(self, results: SweepResults, point: Point) -> None:
        """Log a finished point: its scores, its files, and the metrics of BackwardCompatibilityML in the sweep's run.

        Args:
            results: The sweep.
            point: Which point; one that is logged already is passed over.
        """
        self._try(lambda: self._track(results, point))

    def point_failed(self, failure: Failure) -> None:
        """End the run of a point as FAILED, with its error and traceback."""

        def work() -> None:
            child = self._child(failure.point)
            self._client.set_tag(child["run_id"], "error", failure.error[:_LONGEST_TAG])
            if failure.traceback:
                self._client.log_text(child["run_id"], failure.traceback, "traceback.txt")
            self._end_child(child, "FAILED")

        self._try(work)

    # Inside

    @property
    def _client(self) -> Any:
        if self._made is None:
            self._made = importlib.import_module("mlflow").MlflowClient(tracking_uri=self.tracking_uri)
        return self._made

    def _try(self, work: Callable[[], T]) -> T | None:
        """Do it unless MLflow is lost; after a failure no more is tried, as each waits for minutes for a server."""
        if self._lost or self.run_id is None:
            return None
        try:
            return work()
        except Exception as error:
            self._lost = True
            if not self._told:
                self._told = True
                warnings.warn(
                    f"MLflow at {self.tracking_uri} failed, and the sweep goes on without it: {_said(error)}. What is "
                    "missing there is added at the end of the sweep, or when the same call is made again.",
                    RuntimeWarning,
                    stacklevel=3,
                )
            return None

    def _check_database(self) -> None:
        """mlflow-skinny comes without what its own default place, a database, needs, and its error does not say so."""
        if self.tracking_uri.startswith(_DATABASES):
            try:
                importlib.import_module("sqlalchemy")
                importlib.import_module("alembic")
            except ImportError as error:
                raise ImportError(
                    f"MLflow at {self.tracking_uri} is a database: pip install sqlalchemy alembic. A server needs "
                    "neither: tracking_uri='http://...'."
                ) from error

    def _named_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except Exception:
                # Made by somebody else in between.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise ValueError(f"the experiment {name!r} is deleted; restore it, or take another name")
        return str(found.experiment_id)

    def _where(self) -> dict[str, Any]:
        return {"tracking_uri": self.tracking_uri, "experiment_id": self.experiment_id}

    def _known_run(self) -> Any:
        """The run that the folder names, if it is of this place and still there."""
        content = _read(self.folder / _PARENT)
        if content is None or any(content.get(key) != value for key, value in self._where().items()):
            return None
        exceptions = importlib.import_module("mlflow.exceptions")
        try:
            run = self._client.get_run(content["run_id"])
        except exceptions.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _describe(self, there: Mapping[str, str]) -> None:
        """Parameters cannot be changed, and the plan of a sweep may grow: what changes is told by tags too."""
        plan = {
            "losses": ", ".join(self._losses),
            "lambdas": ", ".join(f"{value:g}" for value in self._lambdas),
            "seeds": ", ".join(map(str, self._seeds)),
        }
        step = _stepsize(self._lambdas)
        parameters = {**self._recipe, **plan} | ({} if step is None else {"lambda_c_stepsize": f"{step:g}"})
        entities = importlib.import_module("mlflow.entities")
        new = {_name(name): value[:_LONGEST_VALUE] for name, value in parameters.items() if _name(name) not in there}
        items = [entities.Param(name, value) for name, value in new.items()]
        tags = [entities.RunTag(f"sweep.{name}", value[:_LONGEST_TAG]) for name, value in plan.items()]
        tags.append(entities.RunTag("sweep.folder", str(self.folder)))
        # MLflow takes 100 parameters at a time.
        for start in range(0, len(items), 100):
            self._client.log_batch(self.run_id, params=items[start : start + 100])
        self._client.log_batch(self.run_id, tags=tags)

    def _is_mine(self, point: Point) -> bool:
        """Whether the point was asked for by this call; the folder may hold more."""
        mine = point.loss is None or point.loss in self._losses
        return mine and point.lambda_c in self._lambdas and point.seed in self._seeds

    def _child(self, point: Point) -> dict[str, Any]:
        """What is known of the run of a point; it is opened where there is none at work."""
        child = self._known_child(point)
        if child is not None and child["status"] == "RUNNING":
            return child
        tags = {"mlflow.parentRunId": self.run_id, "sweep.point": point.name}
        run = self._client.create_run(self.experiment_id, tags=tags, run_name=point.name)
        child = {"run_id": run.info.run_id, "parent": self.run_id, "point": point.to_dict(), "status": "RUNNING"}
        self._note(child)
        self._name_child(child, point)
        return child

    def _name_child(self, child: Mapping[str, Any], point: Point) -> None:
        param = importlib.import_module("mlflow.entities").Param
        values = {"loss": PLAIN if point.loss is None else point.loss, "lambda_c": point.lambda_c, "seed": point.seed}
        self._client.log_batch(child["run_id"], params=[param(name, str(value)) for name, value in values.items()])

    def _known_child(self, point: Point) -> dict[str, Any] | None:
        child = _read(self.folder / _CHILDREN / f"{point.name}.json")
        # Of a run that was deleted, or of another place.
        return child if child is not None and child.get("parent") == self.run_id else None

    def _open_children(self) -> list[dict[str, Any]]:
        found = [_read(path) for path in sorted((self.folder / _CHILDREN).glob("*.json"))]
        return [child for child in found if child and child["parent"] == self.run_id and child["status"] == "RUNNING"]

    def _note(self, child: Mapping[str, Any]) -> None:
        path = self.folder / _CHILDREN / f"{Point.from_dict(child['point']).name}.json"
        write_whole(path, json.dumps(child, indent=1).encode("utf-8"))

    def _end_child(self, child: Mapping[str, Any], status: str) -> None:
        self._client.set_terminated(child["run_id"], status)
        self._note({**child, "status": status})

    def _track(self, results: SweepResults, point: Point) -> None:
        known = self._known_child(point)
        if known is not None and known["status"] == "FINISHED":
            return
        child = self._child(point)
        # Once more, as MLflow may have failed just after the run was opened.
        self._name_child(child, point)
        run_id = child["run_id"]
        result = results._folder.result(point)
        metrics: dict[str, float] = {"seconds": result["seconds"]}
        for dataset, data in result["datasets"].items():
            metrics |= {f"{dataset}/{score}": data["overlap"].score(score) for score in SCORES}
            h1, h2 = data["performance"] or (None, None)
            performances = {f"{dataset}/performance_h1": h1, f"{dataset}/performance_h2": h2}
            metrics |= {name: value for name, value in performances.items() if value is not None}
        self._log(run_id, {_name(name): value for name, value in metrics.items()}, 0)
        place = results._folder.folder_of(point)
        paths = [place / comparison_name(dataset) for dataset in result["datasets"]]
        if result["model"] is not None:
            paths.append(place / result["model"])
        for path in paths:
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), path.name)
            else:
                self._client.log_artifact(run_id, str(path))
        self._track_as_original(results, point)
        self._end_child(child, "FINISHED")

    def _track_as_original(self, results: SweepResults, point: Point) -> None:
        """The curves of BackwardCompatibilityML over the number of lambda_c; of several seeds their mean, at the last.

        As there, steps begin with 1, performance is accuracy unless there is a metric, and BEC is given h1 wrong.
        """
        finished = set(results.points)
        group = [Point(point.loss, point.lambda_c, seed) for seed in self._seeds]
        if point.lambda_c not in self._lambdas or not set(group) <= finished:
            return
        losses = self._losses if point.loss is None else [point.loss]
        metrics = {"lambda_c": point.lambda_c} if losses[0] == self._losses[0] else {}
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
        step = self._lambdas.index(point.lambda_c) + 1
        self._log(str(self.run_id), {_name(name): value for name, value in metrics.items()}, step)

    def _log(self, run_id: str, numbers: Mapping[str, float], step: int) -> None:
        entities = importlib.import_module("mlflow.entities")
        now = int(time.time() * 1000)
        metrics = [
            entities.Metric(name, float(value), now, step) for name, value in numbers.items() if math.isfinite(value)
        ]
        # MLflow takes 1000 at a time.
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(run_id, metrics=metrics[start : start + 1000])

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
            self._client.log_artifacts(self.run_id, folder)


def _make(name: str, make: Callable[[], object]) -> None:
    """Make a file that the run is complete without: its package may not be installed."""
    try:
        with suppress(ImportError):
            make()
    except Exception as error:
        warnings.warn(f"{name} could not be made for MLflow: {_said(error)}", RuntimeWarning, stacklevel=2)


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


def _context_tags() -> dict[str, str]:
    """Who and what made the run, as MLflow itself says it."""
    with suppress(Exception):
        return dict(importlib.import_module("mlflow.tracking.context.registry").resolve_tags())
    return {}


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


def _name(name: str) -> str:
    """A name that MLflow takes."""
    return "".join(character if character in _NAME_CHARACTERS else "_" for character in name)[:_LONGEST_NAME]


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
