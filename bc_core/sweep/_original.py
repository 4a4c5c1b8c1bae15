"""A sweep written in the files of BackwardCompatibilityML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc_core.files._files import is_left_aside, write_whole
from bc_core.sweep._folder import json_number

if TYPE_CHECKING:
    from bc_core.sweep._results import SweepResults

# Names of the losses there, and which of ours they are.
_DISSONANCES = {"new_error": "new-error", "strict_imitation": "strict-imitation"}
_DATASETS = {"train": "training", "test": "testing"}


def write_original(results: SweepResults, folder: Path, seed: int | None) -> Path:
    """Write the files; the summary last, as it stands for a whole sweep."""
    seeds = sorted({point.seed for point in results.points})
    if seed is None and len(seeds) > 1:
        raise ValueError(f"BackwardCompatibilityML knows no seeds. Say which of {seeds} to write: seed=...")
    if seed is not None and seed not in seeds:
        raise ValueError(f"There is no finished point of seed {seed!r}. There are {seeds}.")
    chosen = seeds[0] if seed is None and seeds else seed
    dissonances = {loss: _dissonance(loss) for loss in results.losses}
    if None in dissonances.values() or len(set(dissonances.values())) < len(dissonances):
        raise ValueError(
            "BackwardCompatibilityML knows one loss of new error and one of strict imitation. Received: "
            f"{', '.join(map(repr, results.losses))}."
        )
    unfinished = [point.name for point in results.unfinished if point.seed == chosen]
    missing = [name for name in _DATASETS if name not in results.datasets]
    if unfinished or missing or not results.points:
        raise ValueError(
            "The sweep must be finished on training and test data. Missing: "
            f"{', '.join(unfinished[:5] + [f'data set {name!r}' for name in missing]) or 'all points'}."
        )
    there = list(folder.iterdir()) if folder.is_dir() else []
    # Of a process that was killed while it wrote the first file.
    left = [path for path in there if is_left_aside(path.name, ["0-evaluation-data.json"])]
    if len(left) < len(there):
        raise ValueError(f"{folder} is not empty. Give a new folder.")
    for path in left:
        path.unlink(missing_ok=True)
    entries = Entries(results, chosen)
    for index in entries.finished():
        _write(folder / f"{index}-evaluation-data.json", entries.evaluation(index))
    _write(folder / "sweep_summary.json", entries.summary())
    return folder


class Entries:
    """The evaluations of a sweep, numbered as there; those that are not finished have their number already.

    They go by lambda_c, then new error before strict imitation, then training before testing.

    Args:
        results: The sweep.
        seed: Which one; by default the first.
    """

    def __init__(self, results: SweepResults, seed: int | None = None) -> None:
        self._results = results
        # There a point is a lambda_c; promises have no place.
        plan = [point for point in [*results.points, *results.unfinished] if point.promise is None]
        seeds = [point.seed for point in plan]
        self._seed = min(seeds, default=0) if seed is None else seed
        dissonances = sorted((str(_dissonance(loss)), loss) for loss in results.losses if _dissonance(loss) is not None)
        self._places = [
            (loss, lambda_c, dataset)
            for lambda_c in sorted({point.lambda_c for point in plan if point.seed == self._seed})
            for _, loss in dissonances
            for dataset in _DATASETS
        ]
        self._rows = {
            (row["loss"], row["lambda_c"], row["dataset"]): row
            for row in results.rows()
            if row["seed"] == self._seed and row.get("promise") is None
        }

    def finished(self) -> list[int]:
        """Numbers of those that are finished."""
        return [index for index, place in enumerate(self._places) if place in self._rows]

    def summary(self) -> dict[str, Any]:
        """`data`, a row for each that is finished, and `h1_performance`, on the test data."""
        data, performance = [], None
        for index in self.finished():
            entry = self._entry(index)
            h1, h2 = entry.pop("h1_performance"), entry.pop("h2_performance")
            data.append(entry | {"performance": h2})
            if entry["testing"]:
                performance = h1
        return {"data": data, "h1_performance": performance}

    def evaluation(self, index: int) -> dict[str, Any]:
        """One of them, with its instances.

        Raises:
            FileNotFoundError: There is none of this number, or not yet.
        """
        if index not in self.finished():
            raise FileNotFoundError(
                f"There is no evaluation {index!r} in {self._results.path}, or not yet; finished are "
                f"{', '.join(map(str, self.finished())) or 'none'}."
            )
        loss, lambda_c, dataset = self._places[index]
        return self._results.comparison(loss, lambda_c, self._seed, dataset).to_dict() | self._entry(index)

    def _entry(self, index: int) -> dict[str, Any]:
        loss, lambda_c, dataset = self._places[index]
        row = self._rows[self._places[index]]
        h1, h2 = (
            json_number(row[f"performance_{model}"]) if f"performance_{model}" in row else row[f"accuracy_{model}"]
            for model in ("h1", "h2")
        )
        return {
            "datapoint_index": index,
            "lambda_c": lambda_c,
            **{flag: name == dataset for name, flag in _DATASETS.items()},
            **{flag: flag == _dissonance(loss) for flag in _DISSONANCES.values()},
            "h1_performance": h1,
            "h2_performance": h2,
            "btc": row["btc"],
            "bec": row["bec_given_h1_wrong"],
        }


def _dissonance(loss: str) -> str | None:
    """Which of the two a loss is, by its name: a dissonance, or one of the eight."""
    if loss in _DISSONANCES:
        return _DISSONANCES[loss]
    if loss.endswith("Loss"):
        return "strict-imitation" if "StrictImitation" in loss else "new-error"
    return None


def _write(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, allow_nan=False).encode("ascii"))
