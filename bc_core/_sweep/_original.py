"""A sweep written in the files of BackwardCompatibilityML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc_core._files import is_left_aside, write_whole
from bc_core._sweep._folder import json_number

if TYPE_CHECKING:
    from bc_core._sweep._results import SweepResults

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
    rows = {(row["loss"], row["lambda_c"], row["dataset"]): row for row in results.rows() if row["seed"] == chosen}
    lambdas = sorted({lambda_c for _, lambda_c, _ in rows})
    entries: list[dict[str, Any]] = []
    performance = None
    for lambda_c in lambdas:
        for loss, dissonance in sorted(dissonances.items(), key=lambda item: str(item[1])):
            for dataset, flag in _DATASETS.items():
                if (loss, lambda_c, dataset) not in rows:
                    continue
                row = rows[loss, lambda_c, dataset]
                entry = _entry(results, row, chosen, len(entries), str(dissonance), flag)
                data = {**entry.pop("evaluation"), **entry}
                _write(folder / f"{entry['datapoint_index']}-evaluation-data.json", data)
                entries.append(
                    {key: value for key, value in entry.items() if key not in ("h1_performance", "h2_performance")}
                    | {"performance": entry["h2_performance"]}
                )
                if dataset == "test":
                    performance = entry["h1_performance"]
    _write(folder / "sweep_summary.json", {"data": entries, "h1_performance": performance})
    return folder


def _entry(
    results: SweepResults, row: dict[str, Any], seed: int | None, index: int, dissonance: str, flag: str
) -> dict[str, Any]:
    evaluation = results.comparison(row["loss"], row["lambda_c"], seed, row["dataset"]).to_dict()
    h1, h2 = (
        json_number(row[f"performance_{model}"]) if f"performance_{model}" in row else row[f"accuracy_{model}"]
        for model in ("h1", "h2")
    )
    return {
        "evaluation": evaluation,
        "datapoint_index": index,
        "lambda_c": row["lambda_c"],
        **{name: name == flag for name in _DATASETS.values()},
        **{name: name == dissonance for name in _DISSONANCES.values()},
        "h1_performance": h1,
        "h2_performance": h2,
        "btc": evaluation["btc"],
        "bec": evaluation["bec"],
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
