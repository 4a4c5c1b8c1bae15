"""A sweep in TensorBoard: each point in the HParams tab, and its comparisons in the compatibility tab."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc_core import SCORES
from bc_core.sweep._mlflow import MLflowTracker
from bc_core.sweep._points import PLAIN
from bc_core.sweep._trackers import Logger, Plan, Tracker
from bc_tensorboard.writing import summary
from bc_tensorboard.writing._event_file import EventFile
from bc_tensorboard.writing._media import media_path

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

    from bc_core.sweep._folder import Trained
    from bc_core.sweep._points import Point
    from bc_core.sweep._results import SweepResults

# Where the runs of the points are, in the folder of their sweep.
_RUNS = "tensorboard"
# The run with the curves of a point, below that of the point.
_TRAINING = "training"
# In the order of the columns: what one chooses by comes first.
_FIRST = ("accuracy_h2", "btc", "nfr", "bec_given_h1_wrong", "bec_given_h2_wrong", "pfr", "nfi", "accuracy_h1")
_METRICS = (*_FIRST, *(name for name in SCORES if name not in _FIRST))
_PERFORMANCES = {"performance_h2": "Performance of h2", "performance_h1": "Performance of h1"}
# Ends the names of our files, so that another writer's in the same folder are told apart.
_ENDING = ".sweep"


class SweepLog(Tracker):
    """Writes a sweep for TensorBoard, under `tensorboard` in its folder.

    Args:
        folder: Folder of the sweep.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._runs = Path(folder).resolve() / _RUNS
        # The points whose curves are written here, and those whose writing failed.
        self._curves: dict[Point, EventFile] = {}
        self._lost: set[Point] = set()

    def begin(self, results: SweepResults, plan: Plan) -> None:
        """Say for the HPARAMS tab what the sweep tries, all that was ever planned.

        Raises:
            ImportError: tensorboard is not installed.
        """
        points = [*results.points, *results.unfinished]
        lambdas = {point.lambda_c for point in points if point.promise is None}
        seeds = {point.seed for point in points}
        promises = dict.fromkeys(point.promise for point in points if point.promise is not None)
        write_experiment(
            self._runs,
            results.losses,
            lambdas,
            seeds,
            plan.datasets,
            performance=plan.has_performance,
            promises=list(promises),
        )

    def point_begun(self, point: Point) -> None:
        """Remove the curves of an interrupted attempt."""
        self._curves.pop(point, None)
        shutil.rmtree(self._runs / point.name / _TRAINING, ignore_errors=True)

    def logger(self, point: Point) -> Logger | None:
        """Lightning's own logger, unless the caller brings one."""
        return Logger(
            "TensorBoardLogger",
            {"save_dir": self._runs, "name": point.name, "version": _TRAINING, "default_hp_metric": False},
        )

    def log_epoch(self, point: Point, epoch: int, logs: Mapping[str, Any] | None) -> None:
        """Write what was logged of an epoch; what cannot be written is told once, and ends no training."""
        if point in self._lost:
            return
        try:
            file = self._curves.setdefault(point, EventFile(self._runs / point.name / _TRAINING, supersedes=False))
            file.add(epoch, {name: float(value) for name, value in (logs or {}).items()}, {})
        except Exception as error:  # a file system of TensorFlow's has errors of its own
            self._lost.add(point)
            warnings.warn(f"The curves of the point {point.name} are not logged: {error}", RuntimeWarning, stacklevel=2)

    def point_trained(self, point: Point, trained: Trained) -> None:
        """Write the run of a point."""
        self._curves.pop(point, None)
        write_point(self._runs / point.name, point, trained, (point.loss or PLAIN).replace("_", " "))


def trackers_of(folder: str | os.PathLike[str], tensorboard: bool | None, mlflow: Any) -> list[Tracker]:
    """Who is told of a sweep.

    Args:
        folder: Folder of the sweep.
        tensorboard: Whether TensorBoard is; None for where it is installed.
        mlflow: Whether and how MLflow is, as `sweep` takes it.

    Raises:
        ImportError: MLflow is wanted and not installed.
        TypeError: `mlflow` is something else than it may be.
        ValueError: It has other options.

    Example:
        >>> from bc_tensorboard.writing._sweep_log import trackers_of
        >>> trackers_of("sweep", False, None)
        []
    """
    if tensorboard is None:
        tensorboard = importlib.util.find_spec("tensorboard") is not None
    found = [SweepLog(folder) if tensorboard else None, MLflowTracker.of(mlflow, folder)]
    return [tracker for tracker in found if tracker is not None]


def write_point(logdir: Path, point: Point, trained: Trained, dissonance: str) -> None:
    """Write what the training of a point led to, as one event file; one that an earlier training left is removed.

    Args:
        logdir: Folder of the point's run. It may hold the curves of the training, whose writer must be closed.
        point: Which one.
        trained: Its comparisons and performances.
        dissonance: How h2 was trained, such as "new error"; the dashboard tells sweeps apart by it.

    Raises:
        ImportError: tensorboard is not installed.
        OSError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from bc_core import SweepPoint, compare
        >>> from bc_core.sweep._folder import Trained
        >>> from bc_tensorboard.writing._sweep_log import write_point
        >>> trained = Trained({"test": compare([0, 1, 1], [0, 1, 0], [0, 0, 1], lambda_c=4.0)})
        >>> point = SweepPoint("new_error", 4.0, 0)
        >>> with tempfile.TemporaryDirectory() as logdir:
        ...     write_point(Path(logdir) / point.name, point, trained, "new error")
    """
    file = EventFile(logdir, supersedes=False)
    values = [*_session(point, trained)]
    for dataset, given in trained.comparisons.items():
        weight = point.lambda_c if given.lambda_c is None else given.lambda_c
        comparison = dataclasses.replace(given, step=0, lambda_c=weight)
        scores = {name: comparison.overlap.score(name) for name in SCORES}
        performances = zip(("performance_h1", "performance_h2"), trained.performances.get(dataset, ()), strict=False)
        values += [_scalar(dataset, name, value) for name, value in {**scores, **dict(performances)}.items()]
        # What the table refers to comes before it.
        summary._keep_media(media_path(logdir, dataset), comparison, None, 96, 0, 0)
        values += summary.comparison_pb(
            comparison,
            dataset=dataset,
            dissonance=dissonance,
            metadata=False,
            settings={"seed": point.seed},
            performance=trained.performances.get(dataset),
        ).value
    _replace(file, [value for value in values if value is not None])


def write_experiment(
    logdir_root: Path,
    losses: Iterable[str],
    lambdas: Iterable[float],
    seeds: Iterable[int],
    datasets: Sequence[str],
    *,
    performance: bool = False,
    promises: Sequence[str] = (),
) -> None:
    """Say what the HParams tab shows of a sweep: its hyperparameters with their values, and its metrics.

    Args:
        logdir_root: The folder above those of the points.
        losses: Names of the losses.
        lambdas: Values of lambda_c.
        seeds: Seeds.
        datasets: Names of the data sets the points are evaluated on.
        performance: Whether there is a metric of the caller's own.
        promises: What further points are held to; lambda_c has no list of values then, as they move it.

    Raises:
        ImportError: tensorboard is not installed.
        OSError: The file cannot be written.
    """
    file = EventFile(logdir_root, supersedes=False)
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    weights = sorted({float(value) for value in lambdas})
    names = [*([PLAIN] if 0 in weights else []), *losses]
    number, text = api_pb2.DATA_TYPE_FLOAT64, api_pb2.DATA_TYPE_STRING
    hparams: list[tuple[str, int, Sequence[Any], str]] = [
        ("loss", text, list(dict.fromkeys(names)), "How h2 is held to h1"),
        ("lambda_c", number, [] if promises else weights, "Weight of the dissonance"),
        *([("promise", text, list(promises), "What moves lambda_c")] if promises else []),
        ("seed", number, sorted(set(seeds)), "Seed of the training"),
    ]
    experiment = api_pb2.Experiment(time_created_secs=time.time())
    for name, kind, domain, description in hparams:
        # TensorBoard shows first what differs between runs.
        info = api_pb2.HParamInfo(name=name, type=kind, description=description, differs=len(domain) != 1)
        info.domain_discrete.extend(domain)
        experiment.hparam_infos.append(info)
    # The test data, which are last, are what one looks at first.
    for dataset in reversed(list(datasets)):
        for score in [*_METRICS, *(_PERFORMANCES if performance else ())]:
            known = SCORES.get(score)
            title = _PERFORMANCES[score] if known is None else known.title
            metric = api_pb2.MetricInfo(
                name=api_pb2.MetricName(tag=f"{dataset}/{score}"),
                display_name=f"{title} ({dataset})",
                description="The metric that the sweep was given." if known is None else known.description,
            )
            experiment.metric_infos.append(metric)
    data = plugin_data_pb2.HParamsPluginData(experiment=experiment)
    _replace(file, [_empty(metadata.EXPERIMENT_TAG, data)])


def _session(point: Point, trained: Trained) -> list[Summary.Value]:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    now = time.time()
    start = plugin_data_pb2.SessionStartInfo(group_name=point.name, start_time_secs=now)
    start.hparams["loss"].string_value = PLAIN if point.loss is None else point.loss
    start.hparams["lambda_c"].number_value = point.lambda_c if trained.lambda_c is None else trained.lambda_c
    if point.promise is not None:
        start.hparams["promise"].string_value = point.promise
    start.hparams["seed"].number_value = point.seed
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=now)
    return [
        _empty(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start)),
        _empty(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end)),
    ]


def _empty(tag: str, data: Any) -> Summary.Value:
    """A summary that is all description, as the HParams tab reads it."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    return Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)


def _scalar(dataset: str, name: str, value: float) -> Summary.Value | None:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    if not math.isfinite(value):
        return None
    return Summary.Value(
        tag=f"{dataset}/{name}",
        simple_value=value,
        metadata=SummaryMetadata(
            plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"),
            summary_description=SCORES[name].description if name in SCORES else "",
        ),
    )


def _replace(file: EventFile, values: list[Summary.Value]) -> None:
    """Write all in one event, whole or not at all, in place of what was written before."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    for old in file.folder.glob(f"events.out.tfevents.*{_ENDING}"):
        old.unlink(missing_ok=True)
    file.add_summary(Summary(value=values), 0)
    if file.path is not None:
        file.path = file.path.rename(f"{file.path}{_ENDING}")
