"""The runs of a sweep in MLflow: one for the sweep, and below it one for each point; their ids stay in the folder."""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bc_core.files._files import write_whole
from bc_core.sweep._folder import SweepFolder
from bc_core.sweep._points import PLAIN, Point

# In the folder of the sweep: the run of the sweep, and the runs of its points.
_PARENT, _CHILDREN = "mlflow.json", "mlflow"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# What MLflow takes; the rest of a name or value is cut.
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-. /")
_LONGEST_NAME, _LONGEST_VALUE, _LONGEST_TAG = 250, 6000, 5000


class Runs:
    """Writes to MLflow by explicit run ids: a run of the caller's own that is active is left alone.

    Args:
        folder: Folder of the sweep.
        tracking_uri: Where MLflow writes.
        experiment: Name of the experiment; it is made if it is not there.
        experiment_id: Its id, where there is no name.

    Attributes:
        run_id: The run of the sweep, once it is open.
    """

    def __init__(self, folder: Path, tracking_uri: str, experiment: str | None, experiment_id: str | None) -> None:
        self.folder = folder
        self.tracking_uri = tracking_uri
        self.experiment_id = experiment_id
        self.run_id: str | None = None
        self._experiment = experiment
        self._made: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    @property
    def client(self) -> Any:
        """MLflow's client, made anew in every process."""
        if self._made is None:
            self._made = importlib.import_module("mlflow").MlflowClient(tracking_uri=self.tracking_uri)
        return self._made

    # That of the sweep

    def open(self, name: str) -> Mapping[str, str]:
        """Open the run of the sweep; that of an interrupted sweep in the same folder is taken up again.

        Returns:
            The parameters that it has already.
        """
        if self._experiment is not None:
            self.experiment_id = self._named_experiment(self._experiment)
        run = self._known_run()
        there: Mapping[str, str] = {} if run is None else run.data.params
        if run is None:
            tags = {**_context_tags(), "mlflow.note.content": f"Sweep over lambda_c in {self.folder}"}
            run = self.client.create_run(self.experiment_id, tags=tags, run_name=name)
        else:
            self.client.update_run(run.info.run_id, status="RUNNING")
        self.run_id = run.info.run_id
        _write(self.folder / _PARENT, {"run_id": self.run_id, **self._where()})
        return there

    def check_database(self) -> None:
        """mlflow-skinny comes without what its own default place, a database, needs, and its error does not say so.

        Raises:
            ImportError: It is not installed.
        """
        if self.tracking_uri.startswith(_DATABASES):
            try:
                importlib.import_module("sqlalchemy")
                importlib.import_module("alembic")
            except ImportError as error:
                raise ImportError(
                    f"MLflow at {self.tracking_uri} is a database: pip install sqlalchemy alembic. A server needs "
                    "neither: tracking_uri='http://...'."
                ) from error

    def end(self, status: str, error: BaseException | None) -> None:
        """End the run of the sweep, and before it those of points that are open."""
        for child in self._open_children():
            self.end_child(child, "KILLED")
        if error is not None:
            self.tag(self.run_id, "error", said(error))
        self.client.set_terminated(self.run_id, status)

    def _named_experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name))
            except Exception:
                # Made by somebody else in between.
                found = self.client.get_experiment_by_name(name)
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
            run = self.client.get_run(content["run_id"])
        except exceptions.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    # Those of its points

    def child(self, point: Point) -> dict[str, Any]:
        """What is known of the run of a point; it is opened where there is none at work."""
        child = self.known_child(point)
        if child is not None and child["status"] == "RUNNING":
            return child
        tags = {"mlflow.parentRunId": self.run_id, "sweep.point": point.name}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=point.name)
        child = {"run_id": run.info.run_id, "parent": self.run_id, "point": point.to_dict(), "status": "RUNNING"}
        self._note(child)
        self.name_child(child, point)
        return child

    def name_child(self, child: Mapping[str, Any], point: Point) -> None:
        """Tell what the point is."""
        loss = PLAIN if point.loss is None else point.loss
        held_to: dict[str, Any] = {"lambda_c": point.lambda_c} if point.promise is None else {"promise": point.promise}
        self.log_params(child["run_id"], {"loss": loss, **held_to, "seed": point.seed})

    def known_child(self, point: Point) -> dict[str, Any] | None:
        """What is known of the run of a point, if it has one."""
        child = _read(self.folder / _CHILDREN / f"{point.name}.json")
        # Of a run that was deleted, or of another place.
        return child if child is not None and child.get("parent") == self.run_id else None

    def end_child(self, child: Mapping[str, Any], status: str) -> None:
        """End the run of a point."""
        self.client.set_terminated(child["run_id"], status)
        self._note({**child, "status": status})

    def end_left_behind(self) -> None:
        """End the runs that an interrupted call left open: their points begin anew, in runs of their own.

        One whose point had just finished is logged in the end.
        """
        folder = SweepFolder(self.folder)
        for child in self._open_children():
            if not folder.is_finished(Point.from_dict(child["point"])):
                self.end_child(child, "KILLED")

    def _open_children(self) -> Iterator[dict[str, Any]]:
        for path in sorted((self.folder / _CHILDREN).glob("*.json")):
            child = _read(path)
            if child and child["parent"] == self.run_id and child["status"] == "RUNNING":
                yield child

    def _note(self, child: Mapping[str, Any]) -> None:
        _write(self.folder / _CHILDREN / f"{Point.from_dict(child['point']).name}.json", child)

    # What they say

    def log(self, run_id: str | None, numbers: Mapping[str, float], step: int) -> None:
        """Log numbers under names that MLflow takes; what is not finite is left out."""
        entities = importlib.import_module("mlflow.entities")
        now = int(time.time() * 1000)
        metrics = [
            entities.Metric(known_name(name), float(value), now, step)
            for name, value in numbers.items()
            if math.isfinite(value)
        ]
        # MLflow takes 1000 at a time.
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000])

    def log_params(self, run_id: str | None, values: Mapping[str, object]) -> None:
        """Log parameters, which cannot be changed."""
        param = importlib.import_module("mlflow.entities").Param
        params = [param(name, str(value)[:_LONGEST_VALUE]) for name, value in values.items()]
        # MLflow takes 100 at a time.
        for start in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[start : start + 100])

    def tag(self, run_id: str | None, name: str, value: str) -> None:
        """Set a tag of a run."""
        self.client.set_tag(run_id, name, value[:_LONGEST_TAG])


def known_name(name: str) -> str:
    """A name that MLflow takes."""
    return "".join(character if character in _NAME_CHARACTERS else "_" for character in name)[:_LONGEST_NAME]


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _context_tags() -> dict[str, str]:
    """Who and what made the run, as MLflow itself says it."""
    with suppress(Exception):
        return dict(importlib.import_module("mlflow.tracking.context.registry").resolve_tags())
    return {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1).encode("utf-8"))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
