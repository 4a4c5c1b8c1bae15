"""Reader of the sweep folders that the original library, BackwardCompatibilityML, left behind."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core import Comparison, ErrorInstances, ErrorOverlap
from bc_core._arrays import twins
from bc_core._texts import shown
from bc_core.counting._scores import count_cells
from bc_tensorboard.plugin._original_entries import (
    NEW_ERROR,
    STRICT_IMITATION,
    TESTING,
    TRAINING,
    Label,
    dataset_of,
    dissonance_of,
    instance_id_of,
    is_number,
    label_of,
    lambda_of,
    part,
    read_json,
    whole,
)

SUMMARY_NAME = "sweep_summary.json"
FIRST_EVALUATION_NAME = "0-evaluation-data.json"
EVALUATION_NAME = re.compile(r"(0|[1-9][0-9]{0,8})-evaluation-data\.json")


@dataclass(frozen=True)
class OriginalEvaluation:
    """One evaluation of a sweep of the original library.

    Attributes:
        comparison: h1 and h2 on the data set; every score is read from it.
        dataset: `"training"` or `"testing"`.
        dissonance: How h2 was trained: `"new error"` or `"strict imitation"`.
        lambda_c: Weight of the dissonance that h2 was trained with.
        datapoint_index: Number of the evaluation in its sweep.
        uncertain_classes: Classes whose total was not recorded, by class number. Their negative and positive flips
            and common errors are exact, as is every score over all classes; how many instances of each both models
            get right is a guess.
    """

    comparison: Comparison
    dataset: str
    dissonance: str
    lambda_c: float
    datapoint_index: int
    uncertain_classes: tuple[int, ...] = ()


def read_original_sweep(folder: str | os.PathLike[str]) -> list[OriginalEvaluation]:
    """Read a folder that a compatibility sweep of BackwardCompatibilityML 1.4.2, or of its later sources, wrote.

    The error instances and the size of the data set are taken over, and every score is computed from their counts.
    The original averaged accuracy, BTC and BEC over batches, so its own figures differ a little wherever it used
    more than one batch; they are not used.

    Three things in such a folder are as the original left them:

    - Version 1.4.2 did not record how many instances a class has. What is not recorded, and does not follow from the
      rest, is spread evenly and named in `uncertain_classes`.
    - Version 1.4.2 evaluated the new-error model where it says "strict imitation" on testing data.
    - The original asked for an instance's metadata by its place in the batch, so with several batches a text may
      belong to another instance.

    A sweep that was interrupted has no summary yet; the evaluations that it finished are read all the same.

    Args:
        folder: The folder of the sweep, with files such as `0-evaluation-data.json` and `sweep_summary.json`.

    Returns:
        The evaluations in the order of `datapoint_index`. Classes are numbered alike in all of them: by their labels
        where these are 0..C-1, otherwise the labels are the class names.

    Raises:
        ValueError: If there is no sweep in the folder, a file is missing or damaged, or its parts contradict each
            other; the message names the file.

    Example:
        >>> import json, pathlib, tempfile
        >>> from bc_tensorboard import read_original_sweep
        >>> error = {"instance_id": 7, "metadata": "", "ground_truth": 1, "h1_prediction": 1, "h2_prediction": 0}
        >>> written = {"lambda_c": 0.5, "training": False, "testing": True, "datapoint_index": 0,
        ...            "dataset_size": 4, "sorted_classes": [0, 1], "error_instances": [error]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "0-evaluation-data.json").write_text(json.dumps(written))
        ...     [evaluation] = read_original_sweep(folder)
        >>> evaluation.dataset, evaluation.lambda_c, evaluation.comparison.overlap.accuracy_h2
        ('testing', 0.5, 0.75)
        >>> evaluation.uncertain_classes
        (0, 1)
    """
    evaluations, problems = read_finished_evaluations(folder)
    if problems:
        raise ValueError(problems[0])
    return evaluations


def read_finished_evaluations(folder: str | os.PathLike[str]) -> tuple[list[OriginalEvaluation], list[str]]:
    """Read what can be read of a sweep folder.

    Returns:
        The evaluations, and for each file that cannot be read a sentence that names it and says why.

    Raises:
        ValueError: If there is no sweep in the folder.
    """
    path = Path(folder)
    entries, problems = _listed_evaluations(path)
    records = []
    for index, entry in entries.items():
        file = path / f"{index}-evaluation-data.json"
        with _noted(problems, file):
            records.append(_read_record(file, index, entry))
    # One numbering for the whole sweep: an evaluation need not meet every class.
    try:
        numbers, names = _numbered({label for record in records for label in record.labels()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    counted: dict[tuple[str, int, frozenset[Label]], list[_Counted]] = {}
    for record in records:
        of_one_data_set = (record.entry.dataset, record.size, record.present)
        with _noted(problems, record.path):
            counted.setdefault(of_one_data_set, []).append(_counted(record, numbers))
    evaluations = []
    for members in filter(None, counted.values()):
        with _noted(problems, members[0].record.path):
            totals, uncertain = _class_totals(members)
            for member in members:
                with _noted(problems, member.record.path):
                    evaluations.append(_evaluation(member, totals, uncertain, names, path.resolve().name))
    return sorted(evaluations, key=lambda evaluation: evaluation.datapoint_index), problems


@contextmanager
def _noted(problems: list[str], path: Path) -> Iterator[None]:
    """Note what is wrong with a file and go on with the next."""
    try:
        yield
    except ValueError as error:
        problems.append(f"{path}: {error}")


def holds_original_sweep(folder: str | os.PathLike[str]) -> bool:
    """Tell, from the names of files only, whether a folder is one of a sweep of the original library."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (SUMMARY_NAME, FIRST_EVALUATION_NAME))


@dataclass(frozen=True)
class _Entry:
    """What the summary says of one evaluation."""

    lambda_c: float
    dataset: str
    dissonance: str


@dataclass(frozen=True)
class _Record:
    """One evaluation file as it was written, checked part by part, with its labels not yet numbered."""

    path: Path
    index: int
    entry: _Entry
    size: int
    present: frozenset[Label]
    ids: list[int | str]
    texts: list[str]
    target: list[Label]
    h1: list[Label]
    h2: list[Label]
    accuracies: tuple[dict[Label, float], dict[Label, float]]

    def labels(self) -> set[Label]:
        return {*self.present, *self.target, *self.h1, *self.h2}


def _listed_evaluations(folder: Path) -> tuple[dict[int, _Entry | None], list[str]]:
    summary = folder / SUMMARY_NAME
    problems: list[str] = []
    if summary.is_file():
        with _noted(problems, summary):
            return _summarised(read_json(summary)), problems
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be read as a folder ({error.strerror})") from error
    found = sorted(int(match[1]) for name in names if (match := EVALUATION_NAME.fullmatch(name)))
    if not found and not problems:
        raise ValueError(
            f"{folder}: no sweep of BackwardCompatibilityML here; expected {SUMMARY_NAME} and files such as "
            f"{FIRST_EVALUATION_NAME}"
        )
    return dict.fromkeys(found), problems


def _summarised(summary: Mapping[str, Any]) -> dict[int, _Entry | None]:
    rows = part(summary, "data")
    if not isinstance(rows, list):
        raise ValueError(f"expected a list under 'data', got {shown(rows)}")
    entries: dict[int, _Entry | None] = {}
    for row in rows:
        index = whole(part(row, "datapoint_index"), "datapoint_index")
        if index in entries:
            raise ValueError(f"the datapoint_index {index} comes twice")
        entries[index] = _Entry(lambda_of(row), dataset_of(row), dissonance_of(row))
    return dict(sorted(entries.items()))


def _read_record(path: Path, index: int, entry: _Entry | None) -> _Record:
    data = read_json(path)
    own_index = data.get("datapoint_index", index)
    if own_index != index:
        raise ValueError(f"it says that it is evaluation {shown(own_index)}")
    if entry is None:
        # Without a summary the order tells: two evaluations of new error, then two of strict imitation.
        entry = _Entry(lambda_of(data), dataset_of(data), NEW_ERROR if index % 4 < 2 else STRICT_IMITATION)
    elif "lambda_c" in data and (lambda_of(data), dataset_of(data)) != (entry.lambda_c, entry.dataset):
        raise ValueError(
            f"it is of lambda_c {lambda_of(data):g} on {dataset_of(data)} data, but {SUMMARY_NAME} says "
            f"{entry.lambda_c:g} on {entry.dataset} data"
        )
    rows = part(data, "error_instances")
    if not isinstance(rows, list):
        raise ValueError(f"expected a list under 'error_instances', got {shown(rows)}")
    classes = part(data, "sorted_classes")
    if not isinstance(classes, list) or not classes:
        raise ValueError(f"expected a list of classes under 'sorted_classes', got {shown(classes)}")
    record = _Record(
        path,
        index,
        entry,
        whole(part(data, "dataset_size"), "dataset_size"),
        frozenset(map(label_of, classes)),
        [instance_id_of(part(row, "instance_id")) for row in rows],
        ["" if row.get("metadata") is None else str(row["metadata"]) for row in rows],
        [label_of(part(row, "ground_truth")) for row in rows],
        [label_of(part(row, "h1_prediction")) for row in rows],
        [label_of(part(row, "h2_prediction")) for row in rows],
        (_accuracies(data, "h1_accuracy_by_class"), _accuracies(data, "h2_accuracy_by_class")),
    )
    _check_overlap(record, data.get("models_error_overlap"))
    return record


@dataclass(frozen=True)
class _Counted:
    """The rows of a record by class number, their counts, and the class totals that the record tells (else -1)."""

    record: _Record
    target: NDArray[np.int64]
    h1: NDArray[np.int64]
    h2: NDArray[np.int64]
    counts: NDArray[np.int64]
    totals: NDArray[np.int64]


def _counted(record: _Record, numbers: Mapping[Label, int]) -> _Counted:
    target, h1, h2 = (
        np.array([numbers[label] for label in column], dtype=np.int64)
        for column in (record.target, record.h1, record.h2)
    )
    counts = count_cells(h1 == target, h2 == target, target, len(numbers))
    if counts[:, 1, 1].any():
        position = int(((h1 == target) & (h2 == target)).argmax())
        raise ValueError(f"the error instance {record.ids[position]!r} is one that both models get right")
    h1_wrong, h2_wrong = counts[:, 0].sum(axis=1), counts[:, :, 0].sum(axis=1)
    totals = np.full(len(numbers), -1, dtype=np.int64)
    for label, c in numbers.items():
        if label not in record.present:
            if counts[c].any():
                raise ValueError(f"there are error instances of the class {label!r}, which sorted_classes leaves out")
            totals[c] = 0
            continue
        known = [accuracies.get(label) for accuracies in record.accuracies]
        total = _class_total(label, [int(h1_wrong[c]), int(h2_wrong[c])], known)
        if total is not None:
            if total < counts[c].sum():
                raise ValueError(f"by its accuracy the class {label!r} has {total} instances, but more errors")
            totals[c] = total
    return _Counted(record, target, h1, h2, counts, totals)


def _class_totals(members: list[_Counted]) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Settle how many instances of each class a data set has, from all evaluations of it.

    Returns:
        Instances by class, and the numbers of the classes where that is a guess.
    """
    totals = np.max([member.totals for member in members], axis=0)
    for member in members:
        if ((member.totals >= 0) & (member.totals != totals)).any():
            raise ValueError(f"its accuracies by class contradict those of {member.record.path.name}")
    unknown = np.flatnonzero(totals < 0)
    # A class has at least the instances that one evaluation shows to be errors.
    totals[unknown] = np.max([member.counts.sum(axis=(1, 2)) for member in members], axis=0)[unknown]
    size = members[0].record.size
    rest = size - int(totals.sum())
    if rest < 0 or (rest and not len(unknown)):
        raise ValueError(
            f"dataset_size is {size}, but the classes have {'at least ' if len(unknown) else ''}{size - rest} instances"
        )
    if len(unknown):
        each, extra = divmod(rest, len(unknown))
        totals[unknown] += each
        totals[unknown[:extra]] += 1
    # One class takes all the rest, and no rest leaves no choice either.
    return totals, tuple(unknown.tolist()) if rest and len(unknown) > 1 else ()


def _evaluation(
    member: _Counted,
    totals: NDArray[np.int64],
    uncertain: tuple[int, ...],
    names: tuple[str, ...] | None,
    sweep: str,
) -> OriginalEvaluation:
    record, entry = member.record, member.record.entry
    counts = member.counts.copy()
    counts[:, 1, 1] = totals - counts.sum(axis=(1, 2))
    if counts.min() < 0:
        raise ValueError(f"{record.path.name} has more errors in a class than the class has instances")
    texts = np.array(record.texts, dtype=object) if any(record.texts) else None
    comparison = Comparison(
        ErrorOverlap(counts),
        ErrorInstances(_id_column(record.ids), member.target, member.h1, member.h2, texts),
        class_names=names,
        name=f"{sweep}, {entry.dissonance}",
        lambda_c=entry.lambda_c,
    )
    return OriginalEvaluation(comparison, entry.dataset, entry.dissonance, entry.lambda_c, record.index, uncertain)


def _id_column(ids: list[int | str]) -> NDArray[Any]:
    if all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in ids):
        return np.array(ids, dtype=np.int64)
    return np.array([str(value) for value in ids], dtype=object)


def _class_total(label: Label, wrong: list[int], accuracies: list[float | None]) -> int | None:
    """Instances of a class: a model of accuracy a that is wrong n times saw n / (1 - a) of them."""
    totals = set()
    for n, accuracy in zip(wrong, accuracies, strict=True):
        if accuracy is None or (accuracy == 1 and n == 0):
            continue
        total = round(n / (1 - accuracy)) if accuracy < 1 else 0
        # The tolerance is that of accuracies in single precision. No errors at all fit a class without instances only.
        if abs(total * (1 - accuracy) - n) > 1e-5 * total or (n == 0 and accuracy != 0):
            raise ValueError(f"an accuracy of {accuracy:g} on the class {label!r} contradicts {n} errors")
        totals.add(total)
    if len(totals) > 1:
        raise ValueError(f"the accuracies of h1 and h2 on the class {label!r} belong to different numbers of instances")
    return totals.pop() if totals else None


def _check_overlap(record: _Record, overlap: object) -> None:
    if overlap is None:
        return
    h1_wrong = [a != y for a, y in zip(record.h1, record.target, strict=True)]
    h2_wrong = [b != y for b, y in zip(record.h2, record.target, strict=True)]
    counted = [sum(h1_wrong), sum(h2_wrong), sum(a and b for a, b in zip(h1_wrong, h2_wrong, strict=True))]
    if not isinstance(overlap, list) or not all(isinstance(ids, list) for ids in overlap):
        raise ValueError(f"expected three lists of ids under 'models_error_overlap', got {shown(overlap)}")
    if [len(ids) for ids in overlap] != counted:
        raise ValueError(
            f"models_error_overlap lists {[len(ids) for ids in overlap]} errors of h1, of h2 and of both, but the "
            f"error_instances hold {counted}"
        )


def _numbered(labels: Iterable[Label]) -> tuple[dict[Label, int], tuple[str, ...] | None]:
    found = sorted(
        labels, key=lambda label: (isinstance(label, str), label if isinstance(label, int) else 0, str(label))
    )
    numbers = {label: number for number, label in enumerate(found)}
    if all(label == number for label, number in numbers.items()):
        return numbers, None
    names = tuple(map(str, found))
    if twice := twins(names):
        raise ValueError(f"the class {twice[0]} is a number in one place and a text in another")
    return numbers, names


def _accuracies(data: Mapping[str, Any], key: str) -> dict[Label, float]:
    rows = data.get(key, [])
    if not isinstance(rows, list):
        raise ValueError(f"expected a list under {key!r}, got {shown(rows)}")
    accuracies = {}
    for row in rows:
        value = part(row, "accuracy")
        if value is None or (isinstance(value, float) and math.isnan(value)):
            continue  # a class without instances
        if not is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"expected accuracies from 0 to 1 under {key!r}, got {shown(value)}")
        accuracies[label_of(part(row, "class"))] = float(value)
    return accuracies


def caveats(folder: str | os.PathLike[str], evaluations: Sequence[OriginalEvaluation]) -> list[str]:
    """What a person who looks at a sweep should know of it."""
    found = []
    if not (Path(folder) / SUMMARY_NAME).is_file():
        found.append(
            f"it is still running or was interrupted, as there is no {SUMMARY_NAME} yet; shown are the "
            f"{len(evaluations)} evaluations so far."
        )
    if _repeats_new_error(evaluations):
        found.append(
            "on testing data its strict imitation repeats its new error. BackwardCompatibilityML 1.4.2 evaluated the "
            "new-error models there; only the training data tells about strict imitation."
        )
    return found


def _repeats_new_error(evaluations: Sequence[OriginalEvaluation]) -> bool:
    by_key = {(e.lambda_c, e.dataset, e.dissonance): e.comparison.instances for e in evaluations}

    def same(dataset: str) -> list[bool]:
        pairs = [
            (by_key[key], by_key[key[0], dataset, NEW_ERROR])
            for key in by_key
            if key[0] > 0 and key[1:] == (dataset, STRICT_IMITATION) and (key[0], dataset, NEW_ERROR) in by_key
        ]
        return [a == b for a, b in pairs]

    testing = same(TESTING)
    return bool(testing) and all(testing) and not all(same(TRAINING))
