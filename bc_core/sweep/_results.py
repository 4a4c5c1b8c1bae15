"""`SweepResults`: what a sweep found, read from its folder: table, comparisons, choice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bc_core._extras import need
from bc_core._pages import to_html
from bc_core.comparison._comparison import Comparison
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import SCORES
from bc_core.promise._grammar import Promise
from bc_core.sweep._choice import Candidate, Choice, best_of, front, means_over_seeds
from bc_core.sweep._folder import DATASETS, Failure, SweepFolder
from bc_core.sweep._points import Point, checked_lambdas, lambda_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Columns of the table in their order; scores are shares.
_FIRST = ("accuracy_h1", "accuracy_h2", "btc", "bec_given_h1_wrong", "bec_given_h2_wrong", "nfr", "pfr", "nfi")
SCORE_COLUMNS = (*_FIRST, *(name for name in SCORES if name not in _FIRST))


class _Told(NamedTuple):
    """A comparison with what it was trained with, and what the caller's own metric says of h1 and h2."""

    comparison: Comparison
    settings: dict[str, int]
    performance: Sequence[float | None] | None


class SweepResults:
    """The points of a sweep that are finished, read from its folder; those of a running sweep appear as they finish.

    `table` has a row for each loss, lambda_c, seed and data set; `comparison` names the instances behind a row;
    `pareto` and `best` choose; `plot` shows the trade-off. Nothing here needs the framework that trained the models.

    Attributes:
        path: The folder.

    Raises:
        FileNotFoundError: There is no sweep in the folder.
        ValueError: The folder holds something else.

    Example:
        >>> from bc_core import SweepResults
        >>> SweepResults.open("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: no/such/folder holds no sweep ...
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._folder = SweepFolder(path)
        if self._folder.header() is None:
            raise FileNotFoundError(
                f"{os.fspath(path)} holds no sweep (sweep.json is missing). Run one: bc_lightning.sweep(..., "
                "folder=...) or bc_keras.sweep(..., folder=...); for a sweep of BackwardCompatibilityML use "
                "bc_tensorboard.read_original_sweep."
            )
        self._known: dict[Point, dict[str, Any]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SweepResults:
        """Open the folder of a sweep, finished or not."""
        return SweepResults(path)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    @property
    def losses(self) -> list[str]:
        """Names of the losses, in the order in which they were given."""
        return self._folder.losses

    @property
    def points(self) -> list[Point]:
        """The finished trainings, in the order of the plan; plain training, which all losses share, once per seed."""
        return [point for point in self._folder.plan if self._is_finished(point)]

    @property
    def unfinished(self) -> list[Point]:
        """The points of the plan that are not finished: still to come, or failed."""
        return [point for point in self._folder.plan if not self._is_finished(point)]

    @property
    def failures(self) -> list[Failure]:
        """The points that ended in an error, with it; the next call of the sweep tries them again."""
        return self._folder.failures()

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets that the finished points were evaluated on: "train", "val", "test"."""
        found = {dataset for point in self.points for dataset in self._result(point)["datasets"]}
        return [dataset for dataset in DATASETS if dataset in found]

    def rows(self, dataset: str | None = None) -> list[dict[str, Any]]:
        """The table as a list of dictionaries, for those who have no pandas.

        Args:
            dataset: Rows of this data set only.

        Raises:
            ValueError: No point was evaluated on that data set.
        """
        if dataset in DATASETS and not self.points:
            return []
        wanted = self.datasets if dataset is None else [self._checked_dataset(dataset)]
        rows, promised = [], any(point.promise is not None for point in self._folder.plan)
        for name in wanted:
            for loss, point in self._by_loss():
                result = self._result(point)
                if name not in result["datasets"]:
                    continue
                data = result["datasets"][name]
                overlap: ErrorOverlap = data["overlap"]
                performances = data["performance"]
                row: dict[str, Any] = {
                    "loss": loss,
                    "lambda_c": lambda_of(point, result),
                    **({"promise": point.promise, "verdict": result.get("verdict")} if promised else {}),
                    "seed": point.seed,
                    "dataset": name,
                    **{score: overlap.score(score) for score in SCORE_COLUMNS},
                    "negative_flips": overlap.h1_only_right,
                    "instances": overlap.total,
                }
                if performances is not None:
                    h1, h2 = (float("nan") if value is None else value for value in performances)
                    row |= {"performance_h1": h1, "performance_h2": h2}
                row["seconds"] = result["seconds"]
                rows.append(row)
        return rows

    def table(self, dataset: str | None = None) -> pd.DataFrame:
        """All finished points as a pandas table, a row for each loss, lambda_c, seed and data set.

        Plain training, lambda_c = 0, was done once for each seed and has a row for every loss. Scores are shares, read
        from counts over the whole data set; `seconds` is the time of the training with its evaluation.

        Args:
            dataset: Rows of this data set only.

        Returns:
            Columns `loss`, `lambda_c`, `seed`, `dataset`, `accuracy_h1`, `accuracy_h2`, `btc`, `bec_given_h1_wrong`,
            `bec_given_h2_wrong`, `nfr`, `pfr`, `nfi`, `negative_flips`, `instances`, `performance_h1` and
            `performance_h2` where the caller gave a metric, `seconds`; where promises were swept also `promise`, such
            as "nfr <= 0.5%", and its `verdict` on the data that steered the training, and lambda_c is that at its end.

        Raises:
            ImportError: pandas is not installed; `rows` needs none.
            ValueError: No point was evaluated on that data set.
        """
        rows = self.rows(dataset)
        columns = ["loss", "lambda_c", "seed", "dataset", *SCORE_COLUMNS, "negative_flips", "instances", "seconds"]
        return _frame(rows, None if rows else columns)

    def comparison(
        self,
        loss: str,
        lambda_c: float | None = None,
        seed: int | None = None,
        dataset: str | None = None,
        *,
        promise: str | None = None,
    ) -> Comparison:
        """The comparison of h1 with one of the trained models.

        Args:
            loss: Name of the loss.
            lambda_c: Its weight; or give `promise`.
            seed: Its seed; may be left out where there is one.
            promise: What it was held to.
            dataset: Name of the data set. Default: the test data, else the validation data, else the training data.

        Returns:
            The comparison, with its error instances.

        Raises:
            KeyError: There is no such point, or it is not finished.
            ValueError: It was not evaluated on that data set.
        """
        point = self._find(loss, lambda_c, seed, promise)
        name = self.datasets[-1] if dataset is None else self._checked_dataset(dataset)
        return self._folder.comparison(point, name)

    def model_path(
        self, loss: str, lambda_c: float | None = None, seed: int | None = None, *, promise: str | None = None
    ) -> Path:
        """Where the model of a point was saved: for torch its state dict, for Keras a `.keras` file.

        Raises:
            KeyError: There is no such point, it is not finished, or models were not kept.
        """
        point = self._find(loss, lambda_c, seed, promise)
        name = self._result(point)["model"]
        if name is None:
            raise KeyError(f"the model of {point.name} was not kept; sweep with save_models=True")
        return self._folder.folder_of(point) / str(name)

    def comparisons(self, dataset: str | None = None) -> dict[str, dict[str, list[Comparison]]]:
        """All comparisons as `bc_tensorboard.to_html` and `ComparisonView` take them, by run and data set.

        A run is a loss (and a seed, where there are several); its comparisons are the values of lambda_c. What was
        trained with a promise is a run of its own, which its name tells.
        """
        wanted = self.datasets if dataset is None else [self._checked_dataset(dataset)]
        runs: dict[str, dict[str, list[Comparison]]] = {}
        for run, _, point in self._runs():
            for name in wanted:
                if name in self._result(point)["datasets"]:
                    runs.setdefault(run, {}).setdefault(name, []).append(self._folder.comparison(point, name))
        return runs

    def dissonances(self) -> dict[str, str]:
        """How h2 was trained, by run: the second thing that `to_html` and `ComparisonView` take."""
        return {run: loss.replace("_", " ") for run, loss, _ in self._runs()}

    def _runs(self) -> list[tuple[str, str, Point]]:
        """Each finished point with its loss and the run that it is shown in."""
        pairs = self._by_loss()
        # Of the plan, so that names stay as they are while points finish.
        several = len({point.seed for point in self._folder.plan}) > 1
        runs = []
        for loss, point in pairs:
            parts = [loss, point.promise, f"seed {point.seed}" if several else None]
            runs.append((", ".join(part for part in parts if part is not None), loss, point))
        return runs

    def to_html(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the dashboard with all points as one HTML file.

        Args:
            path: The file, ending in `.html`.
            options: As for `bc_tensorboard.to_html`, such as `title` and `images`.

        Raises:
            ValueError: No point is finished.
        """
        self._check_any()
        options = {"title": f"Sweep over lambda_c: {self.path.name}", "dissonance": self.dissonances(), **options}
        return to_html(self._told(), path, options)

    def _told(self) -> dict[str, dict[str, list[_Told]]]:
        """The comparisons with what a page tells of their trainings beside them."""
        runs: dict[str, dict[str, list[_Told]]] = {}
        for run, _, point in self._runs():
            for name, found in self._result(point)["datasets"].items():
                told = _Told(self._folder.comparison(point, name), {"seed": point.seed}, found["performance"])
                runs.setdefault(run, {}).setdefault(name, []).append(told)
        return runs

    # The choice

    def pareto(self, dataset: str | None = None, score: str = "btc", performance: str = "accuracy_h2") -> pd.DataFrame:
        """The points that no other point beats in both compatibility and performance.

        Several seeds of a loss and lambda_c are one point, at their mean.

        Args:
            dataset: Data set to choose on. Default: the validation data; where there are none, name one.
            score: What compatibility is: "btc", "nfr" or another score with a direction.
            performance: What performance is: "accuracy_h2", or "performance_h2", the caller's own metric (more is
                better).

        Returns:
            Rows by rising compatibility: `loss`, `lambda_c`, `seeds`, the two columns, and their standard deviation
            over the seeds.

        Raises:
            ValueError: An unknown score, or no data set to choose on.
        """
        rows = front(
            means_over_seeds(self.rows(self._choosing_dataset(dataset)), score, performance), score, performance
        )
        return _frame(rows)

    def best(
        self,
        *constraints: str,
        dataset: str | None = None,
        maximize: str = "accuracy_h2",
        confidence: float = 0.95,
    ) -> Choice:
        """The best model among those that certainly keep a promise, such as "NFR at most 0.5 %".

        A model keeps it if the one-sided Clopper-Pearson bound of the score does, on the data to choose on; so that a
        model that breaks it is taken for one that keeps it with a probability of at most 1 - `confidence`. That holds
        for each model alone: among many, luck is chosen too, which is why `Choice.test` tells the scores on the test
        data, that took no part.

        Args:
            constraints: One or several, such as `"nfr <= 0.5%"`, `"btc >= 0.98"`, `"bec_given_h2_wrong >= 60%"`,
                `"accuracy_h2 >= 0.9"`.
            dataset: Data set to choose on. Default: the validation data; where there are none, name one.
            maximize: What is best among these: a score, or "performance_h2", the caller's own metric.
            confidence: Of each constraint's bound.

        Returns:
            The choice: its point, comparison, model, and what the test data say.

        Raises:
            ValueError: A constraint that cannot be read, or no data set to choose on.
            LookupError: No model keeps the promise for certain; says which comes nearest, and whether it is broken or
                the instances are too few to tell.
        """
        name = self._choosing_dataset(dataset)
        candidates = [
            Candidate(loss, point, result["datasets"][name]["overlap"], result["datasets"][name]["performance"])
            for loss, point in self._by_loss()
            if name in (result := self._result(point))["datasets"]
        ]
        candidate, verdicts = best_of(candidates, constraints, maximize, confidence, name)
        others = self._result(candidate.point)["datasets"]
        model = self._result(candidate.point)["model"]
        return Choice(
            loss=candidate.loss,
            lambda_c=lambda_of(candidate.point, self._result(candidate.point)),
            promise=candidate.point.promise,
            seed=candidate.point.seed,
            dataset=name,
            overlap=candidate.overlap,
            test=others["test"]["overlap"] if "test" in others and name != "test" else None,
            verdicts=verdicts,
            comparison_path=self._folder.comparison_path(candidate.point, name),
            model_path=None if model is None else self._folder.folder_of(candidate.point) / model,
        )

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        dataset: str | None = None,
        score: str = "btc",
        performance: str = "accuracy_h2",
        dark: bool = False,
    ) -> Figure:
        """Draw performance against compatibility: a line for each loss over lambda_c, h1, and the Pareto front.

        Bars are the standard deviation over seeds, where there are several, else the 95 % interval of the score.

        Args:
            path: File to write, its kind by its ending. Default: none.
            dataset: Which data. Default: the validation data, as `best` and `pareto`, else the test data.
            score: What compatibility is: "btc", "nfr", ...
            performance: "accuracy_h2", or "performance_h2".
            dark: For a dark page.

        Returns:
            The figure.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: An unknown score, or no finished point.
        """
        from bc_core.sweep._plot import tradeoff

        self._check_any()
        name = self._checked_dataset(dataset) if dataset is not None else self.datasets[-1]
        if dataset is None and "val" in self.datasets:
            name = "val"
        rows = means_over_seeds(self.rows(name), score, performance)
        return tradeoff(rows, self.rows(name), score, performance, name, path, dark)

    def to_original(self, folder: str | os.PathLike[str], seed: int | None = None) -> Path:
        """Write the sweep as BackwardCompatibilityML does: `sweep_summary.json` and `{i}-evaluation-data.json`.

        Args:
            folder: Where to; new or empty.
            seed: Whose points; may be left out where there is one.

        Returns:
            The folder.

        Raises:
            ValueError: The losses are others than new error and strict imitation, there are several seeds, points are
                missing on training or test data, or the folder holds other files.
        """
        from bc_core.sweep._original import write_original

        return write_original(self, Path(folder), seed)

    # Reading

    def _is_finished(self, point: Point) -> bool:
        return point in self._known or self._folder.is_finished(point)

    def _result(self, point: Point) -> dict[str, Any]:
        if point not in self._known:
            self._known[point] = self._folder.result(point)
        return self._known[point]

    def _by_loss(self) -> list[tuple[str, Point]]:
        """Each loss with its finished points, lambda_c ascending; plain training stands for every loss at 0."""
        points = self.points
        return [
            (loss, point)
            for loss in self.losses
            for point in sorted(points, key=lambda point: (point.seed, point.promise is not None, point.lambda_c))
            if point.loss in (None, loss)
        ]

    def _find(self, loss: str, lambda_c: float | None, seed: int | None, promise: str | None) -> Point:
        if (lambda_c is None) == (promise is None):
            raise TypeError(f"Say lambda_c or promise. Received: lambda_c={lambda_c!r}, promise={promise!r}.")
        wanted: float | str = checked_lambdas([lambda_c])[0] if lambda_c is not None else str(Promise.of(promise or ""))

        def held_to(point: Point) -> float | str | None:
            """Its promise or its lambda_c, whichever was asked for; None where it was trained by the other."""
            if promise is not None:
                return point.promise
            return point.lambda_c if point.promise is None else None

        mine = [point for name, point in self._by_loss() if name == loss]
        found = [point for point in mine if held_to(point) == wanted and seed in (None, point.seed)]
        if len(found) == 1:
            return found[0]
        told = f"lambda_c = {wanted!r}" if promise is None else f"the promise {wanted!r}"
        if found:
            seeds = ", ".join(str(point.seed) for point in found)
            raise KeyError(f"{loss} with {told} has the seeds {seeds}: say which, seed=...")
        values: list[Any] = sorted({value for point in mine if (value := held_to(point)) is not None})
        known = ", ".join(map(repr, values)) or "none"
        if promise is not None and not values:
            known = f"none with a promise, and the losses {', '.join(map(repr, self.losses))} with lambda_c=..."
        elif promise is None:
            known = f"the losses {', '.join(map(repr, self.losses))}, of this one lambda_c = {known}"
        with_seed = "" if seed is None else f" and seed {seed}"
        raise KeyError(f"no finished point of loss {loss!r} with {told}{with_seed}; finished are {known}")

    def _check_any(self) -> None:
        if not self.points:
            raise ValueError(f"No point of the sweep in {self.path} is finished yet.")

    def _checked_dataset(self, dataset: str) -> str:
        self._check_any()
        if dataset not in self.datasets:
            raise ValueError(
                f"No point was evaluated on the data set {dataset!r}. There are {', '.join(map(repr, self.datasets))}."
            )
        return dataset

    def _choosing_dataset(self, dataset: str | None) -> str:
        if dataset is None:
            self._check_any()
            if "val" not in self.datasets:
                raise ValueError(
                    "There are no validation data to choose on. Sweep with val=..., or name the data, such as "
                    'dataset="test"; then what the choice is measured by took part in it, and looks better than it is.'
                )
            return "val"
        return self._checked_dataset(dataset)

    def __repr__(self) -> str:
        finished, plan = len(self.points), len(self._folder.plan)
        failed = len(self.failures)
        return f"{type(self).__name__}({str(self.path)!r}, {finished} of {plan} points" + (
            f", {failed} failed)" if failed else ")"
        )


def _frame(rows: list[dict[str, Any]], columns: list[str] | None = None) -> pd.DataFrame:
    need("sweep", "A table, unlike rows(),", "pandas")
    import pandas as pd

    return pd.DataFrame(rows, columns=columns)
