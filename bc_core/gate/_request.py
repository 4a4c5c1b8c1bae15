"""What a command line asks for: predictions read and joined, held to a policy, and reported."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core._pages import to_tensorboard
from bc_core._texts import listed
from bc_core.comparison._compare import compare
from bc_core.comparison._comparison import Comparison
from bc_core.comparison._confidence import Said
from bc_core.counting._noise import NoiseFloor, noise_floor
from bc_core.files._files import write_whole
from bc_core.gate._evidence import Rows
from bc_core.gate._id_files import AcceptedFlip
from bc_core.gate._judging import Counted, Judgement, Subject, judge_policy
from bc_core.gate._large import read_large
from bc_core.gate._policy import Policy
from bc_core.gate._report import Report, report_of
from bc_core.gate._room import refuse_what_does_not_fit
from bc_core.gate._shown import junit, markdown
from bc_core.gate._slices import plain_values, slices_of
from bc_core.predictions._aligned import Joined
from bc_core.predictions._columns import ColumnNames
from bc_core.predictions._joining import id_texts, join
from bc_core.predictions._reading import FORMATS
from bc_core.predictions._right import Right
from bc_core.predictions._tables import Progress
from bc_core.slices._columns import SliceColumn
from bc_core.slices._metadata import MOST_COLUMNS
from bc_core.slices._search import find_slices

# Of fewer instances a class may be missed by a model that knows it.
_MANY = 30


@dataclass(frozen=True)
class Inputs:
    """Files of predictions, and which columns are what.

    Attributes:
        old: What h1 predicts; or a saved comparison, where `new` is None.
        new: What h2 predicts.
        columns: Which columns are what.
        data: True labels and metadata.
        noise: What further trainings of h1 predict.
        classes: Name of each class, in order.
        allow_unmatched: Whether ids that are not in every file are left out.
        name: What is compared, for titles.
        new_classes: Names of classes that h1 did not know, which are shown apart.
    """

    old: str
    new: str | None = None
    columns: ColumnNames = field(default_factory=ColumnNames)
    data: str | None = None
    noise: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    allow_unmatched: bool = False
    name: str | None = None
    new_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Read:
    """What was read: the subject of a judgement, and what else a report shows."""

    subject: Subject
    sureness: NDArray[np.float64] | None = None
    noise: NoiseFloor | None = None
    notes: tuple[str, ...] = ()


def read(inputs: Inputs, confidence: float, progress: Progress = lambda path, rows: None) -> Read:
    """Read what is to be compared.

    Raises:
        ValueError: Something about a file is not as it should be; the message names file and place. Or a class that h1
            is said not to know is none, or one that h1 is right about.
        ImportError: What reads a Parquet or Arrow file is not installed.
        OSError: A file cannot be read.
    """
    found = _read(inputs, confidence, progress)
    if not inputs.new_classes:
        return found
    comparison = found.subject.comparison
    assert isinstance(comparison, Comparison)
    labels = [str(label) for label in comparison.labels]
    if strange := [name for name in inputs.new_classes if name not in labels]:
        raise ValueError(f"new classes that are none of the classes {listed(labels)}: {listed(strange)}")
    apart = replace(comparison, new_classes=tuple(labels.index(name) for name in inputs.new_classes))
    return replace(found, subject=replace(found.subject, comparison=apart))


def _read(inputs: Inputs, confidence: float, progress: Progress) -> Read:
    """The same without the classes that h1 is said not to know.

    Raises:
        ValueError: Something about a file is not as it should be; the message names file and place.
        ImportError: What reads a Parquet or Arrow file is not installed.
        OSError: A file cannot be read.
    """
    if inputs.new is None:
        if inputs.old.lower().removesuffix(".gz").endswith(FORMATS):
            raise ValueError(f"{inputs.old}: one file of predictions; give that of the new model too, as in OLD NEW")
        return Read(Subject(Comparison.load(inputs.old)))
    name = inputs.name or Path(inputs.new).name.split(".")[0]
    if not inputs.noise and not inputs.allow_unmatched:
        large = read_large(inputs.old, inputs.new, inputs.data, inputs.columns, inputs.classes, name, progress=progress)
        if large is not None:
            _refuse_itself(inputs)
            counted = "Counted by DuckDB, as the files are large: new mistakes are in no order"
            return Read(large, notes=(counted, *_suspicious(large.comparison), *_never_said(large.comparison, inputs)))
    given = [inputs.old, inputs.new, *inputs.noise, *([inputs.data] if inputs.data is not None else [])]
    refuse_what_does_not_fit(given, inputs.columns, _one_by_one(inputs))
    joined = join(
        inputs.old,
        inputs.new,
        inputs.columns,
        data=inputs.data,
        noise=inputs.noise,
        class_names=inputs.classes,
        allow_unmatched=inputs.allow_unmatched,
        progress=progress,
    )
    _refuse_itself(inputs)
    rows, notes = _rows(joined, inputs.columns)
    if inputs.columns.right is not None and (function := inputs.columns.right.function) is not None:
        notes.append(f"What is right is said by {function}, which was imported")
    notes += _seeds_twice(inputs, joined)
    slices = {name: slices_of(joined.columns[name], rows.h1_right, rows.h2_right) for name in inputs.columns.slices}
    thresholds = _thresholds(inputs.columns)
    sure = [None if each is None or thresholds is None else Said(*each) for each in joined.sure]
    comparison = compare(
        joined.target,
        joined.h1_pred,
        joined.h2_pred,
        ids=joined.ids,
        num_classes=joined.num_classes,
        class_names=joined.class_names,
        metadata=_described(slices, joined),
        name=name,
        h1_scores=sure[0],
        h2_scores=sure[1],
        threshold=thresholds or 0.5,
    )

    notes += [*_suspicious(comparison), *_never_said(comparison, inputs)]

    def unknown(ids: Sequence[str]) -> list[str]:
        known = set(id_texts(joined.ids).tolist())
        return [each for each in ids if each not in known]

    subject = Subject(comparison, rows, joined.target, slices, unknown, joined.labels, joined.told, joined.plain)
    noise = None
    if joined.other_seeds:
        noise = noise_floor(joined.target, joined.h1_pred, joined.other_seeds, joined.h2_pred, confidence)
    return Read(subject, joined.sureness, noise, tuple(notes))


def _one_by_one(inputs: Inputs) -> list[str]:
    """What was asked that needs every instance, and not their counts."""
    columns = inputs.columns
    asked = {
        "another notion of what is right": columns.right is not None,
        "weights": columns.weight is not None,
        "clusters": columns.cluster is not None,
        "rows without ids": columns.by_position,
        "other seeds": bool(inputs.noise),
        "unmatched ids that are allowed": inputs.allow_unmatched,
    }
    return [what for what, is_asked in asked.items() if is_asked]


def _suspicious(comparison: Comparison | Counted) -> list[str]:
    """What nothing is wrong with, and hardly anybody means."""
    assert isinstance(comparison, Comparison)
    overlap, errors, notes = comparison.overlap, comparison.instances, []
    if np.array_equal(errors.h1_pred, errors.h2_pred):  # whatever is no error, both predict alike
        notes.append("The new model predicts exactly what the old one does")
    for which, right in (("old", overlap.h1_only_right), ("new", overlap.h2_only_right)):
        if not overlap.both_right + right:
            notes.append(f"The {which} model is right on no instance: look at how its labels are written")
    return notes


def _never_said(comparison: Comparison | Counted, inputs: Inputs) -> list[str]:
    """Classes that are frequent and the old model never predicts, as one that does not know them."""
    if inputs.columns.right is not None or inputs.new_classes:
        return []
    assert isinstance(comparison, Comparison)
    counts, labels = comparison.overlap.counts, [str(label) for label in comparison.labels]
    is_said = counts[:, 1].sum(axis=1) > 0
    predicted = comparison.instances.h1_pred
    is_said[predicted[predicted >= 0]] = True
    found = [labels[number] for number in np.flatnonzero(~is_said & (counts.sum(axis=(1, 2)) >= _MANY))]
    if not found or not is_said.any():
        return []
    it = "it" if len(found) == 1 else "them"
    return [
        f"The old model never predicts {listed(found)}: if it does not know {it}, nothing of that could break, and NFR "
        f"looks smaller than it is; say --new-classes {','.join(found)}"
    ]


def _seeds_twice(inputs: Inputs, joined: Joined) -> list[str]:
    others = [joined.h1_pred, joined.h2_pred, *joined.other_seeds]
    return [
        f"{path} predicts exactly what another file does, and is hardly another seed"
        for place, path in enumerate(inputs.noise, 2)
        if any(np.array_equal(others[place], other) for other in others[:place])
    ]


def _thresholds(columns: ColumnNames) -> tuple[float, float] | None:
    """From which probability on each model says class 1; None where no probability is the edge."""
    if columns.right is None or not columns.right.binary:
        return 0.5, 0.5
    old, new = columns.right.threshold_of(False), columns.right.threshold_of(True)
    return (old, new) if 0 < old < 1 and 0 < new < 1 else None


def _refuse_itself(inputs: Inputs) -> None:
    """Refuse predictions that are compared with themselves: whatever is promised, they keep it."""
    assert inputs.new is not None
    columns, right = inputs.columns, inputs.columns.right or Right()
    named = columns.new_pred not in (None, columns.pred) and (not right.graded or right.reads[0])
    if right.binary or right.top_k is not None:
        named = right.threshold_of(False) != right.threshold_of(True)
    for place, path in enumerate(inputs.noise):
        for other in (inputs.old, inputs.new, *inputs.noise[:place]):
            if os.path.samefile(path, other):
                raise ValueError(f"{path}: another seed's predictions are in a file of their own; it is given twice")
    if os.path.samefile(inputs.old, inputs.new) and not named:
        raise ValueError(
            f"{inputs.new}: compared with itself; where both models are in one file, say --pred and --new-pred"
        )


def _rows(joined: Joined, columns: ColumnNames) -> tuple[Rows, list[str]]:
    weights = clusters = None
    notes = [f"{lost} ids of {path} are not in every file, and are left out" for path, lost in joined.unmatched.items()]
    if columns.weight is not None:
        weights = joined.columns[columns.weight].numbers
        if weights.ndim != 1:
            raise ValueError(f"column {columns.weight!r} holds lists, and an instance has one weight")
        if (weights < 0).any() or not weights.any():
            raise ValueError(f"column {columns.weight!r}: expected weights of at least 0, and some above it")
        if not 1e-100 < (largest := float(weights.max())) < 1e100:
            weights = weights / largest  # only how they compare matters, and their squares must be numbers
        effective = float(weights.sum()) ** 2 / float(np.square(weights).sum())
        notes.append(
            f"Scores and verdicts are weighted by {columns.weight!r}: worth {effective:.0f} plain instances. Classes "
            "and slices show plain counts"
        )
    if columns.cluster is not None:
        values = joined.columns[columns.cluster].values
        if values.ndim != 1:
            raise ValueError(f"column {columns.cluster!r} holds lists, and an instance is in one cluster")
        _, clusters = np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)
        notes.append(f"{len(joined)} instances of {int(clusters.max()) + 1} {columns.cluster!r}, which go together")
    return Rows(joined.h1_pred == joined.target, joined.h2_pred == joined.target, weights, clusters), notes


def _described(slices: Mapping[str, SliceColumn], joined: Joined) -> Any:
    """Columns of the slices, or a text for each instance where there are no classes: what the dashboard shows of it."""
    if joined.told is None:
        return {name: plain_values(joined.columns[name]) for name in islice(slices, MOST_COLUMNS)} or None
    wrong = np.flatnonzero((joined.h1_pred != joined.target) | (joined.h2_pred != joined.target))
    texts = text_objects([""] * len(joined))
    told = zip(*joined.told(wrong), strict=True)
    texts[wrong] = text_objects([f"true {true}, old {old}, new {new}" for true, old, new in told])
    for column in slices.values():
        assert column.codes is not None
        texts = texts + ", " + text_objects(column.names)[column.codes]
    return texts.tolist()


def report(
    found: Read,
    confidence: float,
    policy: Policy | None = None,
    today: datetime.date | None = None,
    search: bool = False,
    accepted: Sequence[AcceptedFlip] | None = None,
) -> Report:
    """Judge what was read, and gather what is shown.

    Args:
        found: What was read.
        confidence: Of intervals.
        policy: What it is held to; None where nothing is judged.
        today: From which on accepted flips count again. Default: today.
        search: Whether slices of one and two columns are looked for.
        accepted: Flips that do not count, in place of those of the policy's file.

    Raises:
        ValueError: The policy asks about what is not there.
        OSError: A file of ids cannot be read.
    """
    judgement: Judgement | None = None
    if policy is not None:
        judgement = judge_policy(policy, found.subject, today or this_day(), accepted)
    subject, slices = found.subject, []
    if search:
        if subject.rows is None or not subject.slices or subject.target is None:
            raise ValueError(
                "--search looks at instances one by one, by the columns of --slice: name some, of two files of "
                "predictions of less than a million rows"
            )
        slices = find_slices(
            [*subject.slices.values(), _classes(subject)], subject.rows.h1_right, subject.rows.h2_right, confidence
        )
    return report_of(subject, confidence, judgement, found.sureness, found.noise, found.notes, slices)


def this_day() -> datetime.date:
    """Today, wherever the machine is."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def _classes(subject: Subject) -> SliceColumn:
    """True classes as one more column to look at."""
    labels = tuple(str(label) for label in subject.comparison.labels)
    flips = subject.comparison.negative_flips().target
    return SliceColumn("class", labels, subject.comparison.overlap.counts, flips, subject.target)


@dataclass(frozen=True)
class Outputs:
    """Files to write a report to; None for none.

    Attributes:
        json: All of it, for programs.
        html: The dashboard as one file.
        markdown: A summary of one screen.
        junit: One test case a check.
        tensorboard: Folder of a run.
        save: The comparison, as `Comparison.save` writes it.
    """

    json: str | None = None
    html: str | None = None
    markdown: str | None = None
    junit: str | None = None
    tensorboard: str | None = None
    save: str | None = None


def write(found: Report, outputs: Outputs) -> str | None:
    """Write a report; returns that whose path is `-`, to be printed.

    Raises:
        ValueError: A path has another ending.
        ImportError: Nothing that is installed writes pages or TensorBoard's events.
        OSError: A file cannot be written.
    """
    paths = [path for path in vars(outputs).values() if path is not None]
    if len(set(paths)) < len(paths):
        raise ValueError(f"two reports of one name: {', '.join(paths)}")
    printed = None
    for path, made in ((outputs.json, as_json), (outputs.markdown, markdown), (outputs.junit, junit)):
        if path == "-":
            printed = made(found).rstrip("\n")
        elif path is not None:
            write_whole(Path(path), made(found).encode("utf-8", "backslashreplace"))
    comparison = found.comparison
    assert isinstance(comparison, Comparison)  # counts alone come from a cluster, not from a command line
    if outputs.html is not None:
        comparison.to_html(outputs.html, reports=found)
    if outputs.save is not None:
        comparison.save(outputs.save)
    if outputs.tensorboard is not None:
        to_tensorboard(outputs.tensorboard, comparison if comparison.step is not None else replace(comparison, step=0))
    return printed


def as_json(found: Report) -> str:
    """The report as JSON."""
    return json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"


def merged(keys: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """A policy's keys, where a flag that was given takes the place of the key of its name."""
    result = {
        **keys,
        **{key: value for key, value in flags.items() if value is not None and key not in ("columns", "right")},
    }
    for table in ("columns", "right"):
        if flags[table]:
            result[table] = {**(result.get(table) or {}), **flags[table]}
    bounds = {"min_gain", "non_inferiority"}  # of one number, so that one takes the place of the other
    if bounds & set(flags):
        for other in bounds - set(flags):
            result.pop(other, None)
    return result


def found_policy(path: str | None) -> str | None:
    """The policy file to read: that which was named, else a pyproject.toml here that has one."""
    if path is not None:
        return path
    here = Path("pyproject.toml")
    try:
        return os.fspath(here) if b"[tool.bc-compare" in here.read_bytes() else None
    except OSError:
        return None
