"""Comparison: the overlap of two models' errors plus the table of the instances one of them got wrong."""

from __future__ import annotations

import dataclasses
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import EqualByFields, text_objects, twins
from bc_core._pages import to_html
from bc_core.comparison._comparison_extras import extras_to_json
from bc_core.comparison._comparison_file import packed, unpacked
from bc_core.comparison._confidence import Calibration, Confidence, ThresholdCounts
from bc_core.comparison._error_instances import CONFIDENCES, ErrorInstances, merged_confidences, refuse_duplicates
from bc_core.comparison._shown import in_html, in_words
from bc_core.comparison._sliced import SliceCounts, check_slices, merged_slices
from bc_core.counting._overlap import ErrorOverlap
from bc_core.counting._scores import count_cells
from bc_core.files._files import write_whole
from bc_core.slices._search import FoundSlice

Id = int | str
# Texts, or columns: a mapping from names to values, a data frame, or another table.
Metadata = Sequence[str] | Mapping[Any, Any] | Callable[[Any], str]


@dataclass(frozen=True)
class ClassFlips:
    """What the update did to one class; `Comparison.worst_classes` returns these.

    Attributes:
        label: Class name, or class number where there are no names.
        index: Class number.
        negative_flips: Instances that h1 gets right and h2 gets wrong.
        positive_flips: Instances that h1 gets wrong and h2 gets right.
        total: Instances of the class.
        share: This class's share of all negative flips.
    """

    label: Id
    index: int
    negative_flips: int
    positive_flips: int
    total: int
    share: float


@dataclass(frozen=True, eq=False)
class Comparison(EqualByFields):
    """h1 and h2 on one data set: counts of all instances, and a table of those that either got wrong.

    `compare` builds one; `save` and `load` keep it; `+` merges two shards of a data set.

    Attributes:
        overlap: Counts by class; every score is read from it.
        instances: The instances that h1 or h2 got wrong, in the order of the data.
        class_names: Name of each class, or None where classes are only numbers.
        name: What was compared, for titles.
        step: Training step of h2.
        lambda_c: Weight of the dissonance h2 was trained with.
        new_classes: Classes that h1 did not know, so that it is wrong about each of their instances; `known` and `new`
            are the counts without them and theirs alone.
        slices: All instances, counted by the columns of metadata.
        found_slices: Of one and two columns, true classes among them, those in which more breaks than elsewhere, found
            on one half of the instances and tried on the other. Merged shards have none.
        confidence: All instances, counted by how sure the models are; see `calibration` and `thresholds`.

    Raises:
        ValueError: If the table and the counts disagree, an id comes twice, or there are not as many names as classes.

    Example:
        >>> from bc_core import compare
        >>> c = compare([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], class_names=["cat", "dog"])
        >>> c.overlap.nfr, c.negative_flips().ids.tolist(), c.worst_classes(1)[0].label
        (0.2, [3], 'dog')
    """

    overlap: ErrorOverlap
    instances: ErrorInstances
    class_names: tuple[str, ...] | None = None
    name: str | None = None
    step: int | None = None
    lambda_c: float | None = None
    new_classes: tuple[int, ...] = ()
    slices: tuple[SliceCounts, ...] = ()
    found_slices: tuple[FoundSlice, ...] = ()
    confidence: Confidence = field(default_factory=Confidence)

    def __post_init__(self) -> None:
        self._normalise_captions()
        object.__setattr__(self, "new_classes", tuple(sorted({operator.index(c) for c in self.new_classes})))
        if self.new.h1_only_right or self.new.both_right:
            raise ValueError(
                f"h1 is right about instances of the classes {list(self.new_classes)}, so it knew them: leave them out "
                "of new_classes"
            )
        if self.class_names is not None:
            object.__setattr__(self, "class_names", checked_names(self.class_names))
            if len(self.class_names) != self.overlap.num_classes:
                raise ValueError(
                    f"expected one class name per class, got {len(self.class_names)} names "
                    f"for {self.overlap.num_classes} classes"
                )
        table, num_classes = self.instances, self.overlap.num_classes
        for column, name in ((table.target, "target"), (table.h1_pred, "h1_pred"), (table.h2_pred, "h2_pred")):
            if len(column) and not (column.min() >= 0 and column.max() < num_classes):
                raise ValueError(f"the error instances hold a {name} outside 0..{num_classes - 1}")
        counted = count_cells(table.h1_pred == table.target, table.h2_pred == table.target, table.target, num_classes)
        expected = self.overlap.counts.copy()
        expected[:, 1, 1] = 0  # the table leaves out what both get right
        if not np.array_equal(counted, expected):
            raise ValueError("the error instances do not add up to the counts of the overlap")
        refuse_duplicates(table.ids, "the error instances")
        check_slices(self.slices, table, self.overlap)

    def _normalise_captions(self) -> None:
        # Steps and weights often come as numpy scalars, which JSON does not know.
        if self.name is not None:
            object.__setattr__(self, "name", str(self.name))
        if self.step is not None:
            object.__setattr__(self, "step", operator.index(self.step))
        if self.lambda_c is not None:
            object.__setattr__(self, "lambda_c", float(self.lambda_c))
            if not 0 <= self.lambda_c < math.inf:
                raise ValueError(f"lambda_c: expected a finite number of at least 0, got {self.lambda_c}")

    @property
    def known(self) -> ErrorOverlap:
        """Counts of the instances of classes that h1 knew."""
        return self.overlap.of_classes([c for c in range(self.overlap.num_classes) if c not in self.new_classes])

    @property
    def new(self) -> ErrorOverlap:
        """Counts of the instances of classes that h1 did not know."""
        return self.overlap.of_classes(self.new_classes)

    @property
    def calibration(self) -> Calibration | None:
        """How often the models are right, by how sure they are, over all instances; None without scores."""
        return self.confidence.calibration

    @property
    def thresholds(self) -> ThresholdCounts | None:
        """Counts of binary models at other thresholds; None of other models, and without scores."""
        return self.confidence.thresholds

    @property
    def dataset_size(self) -> int:
        """Number of instances compared, errors or not."""
        return self.overlap.total

    @property
    def labels(self) -> list[Any]:
        """Name of each class, or its number where there are no names."""
        return list(range(self.overlap.num_classes)) if self.class_names is None else list(self.class_names)

    def negative_flips(self) -> ErrorInstances:
        """Instances that h1 gets right and h2 gets wrong: what the update broke."""
        return self.instances.select(self.instances.h1_pred == self.instances.target)

    def positive_flips(self) -> ErrorInstances:
        """Instances that h1 gets wrong and h2 gets right: what the update repaired."""
        return self.instances.select(self.instances.h2_pred == self.instances.target)

    def common_errors(self) -> ErrorInstances:
        """Instances that both models get wrong."""
        table = self.instances
        return table.select((table.h1_pred != table.target) & (table.h2_pred != table.target))

    def worst_classes(self, n: int = 5) -> list[ClassFlips]:
        """Return the classes with the most negative flips, worst first; classes without any are left out.

        Args:
            n: How many at most.

        Example:
            >>> from bc_core import compare
            >>> compare([0, 1, 1], [0, 1, 1], [0, 0, 0]).worst_classes()
            [ClassFlips(label=1, index=1, negative_flips=2, positive_flips=0, total=2, share=1.0)]
        """
        flips, gains = self.overlap.h1_only_right_by_class, self.overlap.h2_only_right_by_class
        totals, shares, labels = self.overlap.total_by_class, self.overlap.incompatible_share_by_class, self.labels
        worst = np.argsort(-flips, kind="stable")[: max(0, n)].tolist()
        return [
            ClassFlips(labels[i], i, int(flips[i]), int(gains[i]), int(totals[i]), float(shares[i]))
            for i in worst
            if flips[i]
        ]

    def without_scores(self) -> Comparison:
        """Return it without how sure the models are, which makes a file smaller and labels alone comparable.

        Example:
            >>> from bc_core import compare
            >>> labels = [0, 1], [0, 1], [0, 0]
            >>> compare(*labels, h2_scores=[0.2, 0.4]).without_scores() == compare(*labels)
            True
        """
        unknown: dict[str, Any] = dict.fromkeys(CONFIDENCES)
        instances = dataclasses.replace(self.instances, **unknown)
        return dataclasses.replace(self, instances=instances, confidence=Confidence())

    def merge(self, other: Comparison) -> Comparison:
        """Merge two shards of one data set: instances that the two comparisons do not share.

        An id that both shards hold is refused; it can be seen only where one of the models was wrong, as
        instances that both get right are counted without their ids.

        Args:
            other: A comparison of the same two models on other instances. A name that differs is dropped, and so is
                what only one of them knows of slices and scores.

        Returns:
            The comparison of both shards together, this one's error instances first.

        Raises:
            ValueError: If classes, step or lambda_c differ, or an id is in both.

        Example:
            >>> from bc_core import compare
            >>> first = compare([0, 1], [0, 1], [0, 0], ids=[10, 11])
            >>> second = compare([0, 1], [1, 1], [0, 1], ids=[12, 13])
            >>> (first + second).instances.ids.tolist()
            [11, 12]
        """
        for caption in ("class_names", "step", "lambda_c", "new_classes"):
            mine, theirs = getattr(self, caption), getattr(other, caption)
            if mine != theirs:
                raise ValueError(
                    f"cannot merge comparisons whose {caption} differs: {mine!r} and {theirs!r}; "
                    "give compare the same value for every shard"
                )
        a, b = self.instances, other.instances
        if len(a) and len(b) and a.ids.dtype != b.ids.dtype:
            raise ValueError("cannot merge integer ids with text ids; give every shard ids of one kind")
        overlap = self.overlap + other.overlap
        if len(a) and len(b):
            refuse_duplicates(
                np.concatenate([a.ids, b.ids]), "two shards", "; pass ids= that are unique over the whole data set"
            )
        slices, codes = merged_slices([(self.slices, a), (other.slices, b)])
        metadata = None
        if a.metadata is not None or b.metadata is not None:
            metadata = text_objects(
                [text for t in (a, b) for text in ([""] * len(t) if t.metadata is None else t.metadata)]
            )
        instances = ErrorInstances(
            np.concatenate([table.ids for table in (a, b) if len(table)] or [a.ids]),
            np.concatenate([a.target, b.target]),
            np.concatenate([a.h1_pred, b.h1_pred]),
            np.concatenate([a.h2_pred, b.h2_pred]),
            metadata,
            **merged_confidences(a, b),
            slices=codes,
        )
        name = self.name if self.name == other.name else None
        return Comparison(
            overlap,
            instances,
            self.class_names,
            name,
            self.step,
            self.lambda_c,
            self.new_classes,
            slices,
            confidence=self.confidence.merged(other.confidence),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain Python values under the keys of BackwardCompatibilityML, ready for JSON.

        `bec` is given h1 wrong, as in that library. Classes are named where there are class names, else numbered.
        Every class is listed; one that is absent from the data has accuracy None, since 0 would say "all wrong".
        `lambda_c` is there only if it is known.

        Example:
            >>> from bc_core import compare
            >>> data = compare([0, 1, 1], [0, 1, 0], [0, 0, 1]).to_dict()
            >>> data["models_error_overlap"], data["h2_incompatible_instance_ids_by_class"][1]
            ([[2], [1], []], {'class': 1, 'incompatibleInstanceIds': [1]})
        """
        table, labels = self.instances, self.labels
        h1_wrong, h2_wrong = table.h1_pred != table.target, table.h2_pred != table.target
        metadata = [""] * len(table) if table.metadata is None else table.metadata.tolist()
        totals = self.overlap.total_by_class.tolist()

        def accuracies(score: str, wrong: NDArray[np.bool_]) -> list[dict[str, Any]]:
            values = self.overlap.per_class(score).tolist()
            return [
                {"class": label, "accuracy": value if total else None, "error_instance_ids": ids}
                for label, value, total, ids in zip(labels, values, totals, self._ids_by_class(wrong), strict=True)
            ]

        data: dict[str, Any] = {
            "models_error_overlap": [
                table.ids[h1_wrong].tolist(),
                table.ids[h2_wrong].tolist(),
                table.ids[h1_wrong & h2_wrong].tolist(),
            ],
            "h2_incompatible_instance_ids_by_class": [
                {"class": label, "incompatibleInstanceIds": ids}
                for label, ids in zip(labels, self._ids_by_class(~h1_wrong), strict=True)
            ],
            "sorted_classes": labels,
            "h1_accuracy_by_class": accuracies("accuracy_h1", h1_wrong),
            "h2_accuracy_by_class": accuracies("accuracy_h2", h2_wrong),
            "h1_performance": self.overlap.accuracy_h1,
            "h2_performance": self.overlap.accuracy_h2,
            "btc": self.overlap.btc,
            "bec": self.overlap.bec(given="h1_wrong"),
            "error_instances": [
                {
                    "instance_id": instance_id,
                    "metadata": text,
                    "h1_prediction": labels[h1],
                    "h2_prediction": labels[h2],
                    "ground_truth": labels[truth],
                }
                for instance_id, text, h1, h2, truth in zip(
                    table.ids.tolist(),
                    metadata,
                    table.h1_pred.tolist(),
                    table.h2_pred.tolist(),
                    table.target.tolist(),
                    strict=True,
                )
            ],
            "dataset_size": self.dataset_size,
        }
        if self.lambda_c is not None:
            data["lambda_c"] = self.lambda_c
        return data

    def _ids_by_class(self, rows: NDArray[np.bool_]) -> list[list[Id]]:
        ids, target = self.instances.ids[rows], self.instances.target[rows]
        order = np.argsort(target, kind="stable")
        ends = np.cumsum(np.bincount(target, minlength=self.overlap.num_classes))
        return [group.tolist() for group in np.split(ids[order], ends[:-1])]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one JSON file that `load` reads back exactly.

        The file appears whole or not at all: it is written aside in the same folder, then renamed over what was
        there. Missing folders are made.

        Args:
            path: Ends in `.json`, or `.json.gz` to compress.

        Returns:
            The path written.

        Raises:
            ValueError: If the ending is another one.
            OSError: If the file cannot be written; an older file of that name is then left as it was.

        Example:
            >>> import tempfile
            >>> from bc_core import Comparison, compare
            >>> comparison = compare([0, 1, 1], [0, 1, 0], [0, 0, 1])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     Comparison.load(comparison.save(folder + "/update.json.gz")) == comparison
            True
        """
        path = Path(path)
        if not path.name.endswith((".json", ".json.gz")):
            raise ValueError(f"{path}: expected a name that ends in .json or .json.gz")
        over_all = extras_to_json(self.slices, self.found_slices, self.confidence)
        content = packed({**self._captions(), **over_all}, self.overlap, self.instances, path.name.endswith(".gz"))
        write_whole(path, content)
        return path

    def to_html(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write one HTML file with the dashboard and this comparison in it; it opens from disk and loads nothing.

        Args:
            path: The file, ending in `.html`.
            options: As for `bc_tensorboard.to_html`, such as `title` and `images`.

        Returns:
            The path written.

        Raises:
            TypeError: If there is no such option.
            ValueError: If the path has another ending, or an option is out of range.
            OSError: If the file cannot be written; an older file of that name is then left as it was.

        Example:
            >>> import tempfile
            >>> from bc_core import compare
            >>> comparison = compare([0, 1, 1], [0, 1, 0], [0, 0, 1], class_names=["cat", "dog"])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     comparison.to_html(f"{folder}/update.html", title="Cats and dogs").name
            'update.html'
        """
        return to_html(self, path, options)

    @classmethod
    def load(cls, path: str | os.PathLike[str], max_bytes: int = 2**28) -> Comparison:
        """Read a file that `save` wrote, and check that its table and counts agree.

        Args:
            path: The file; whether it is compressed is seen from its content.
            max_bytes: Bytes of JSON at most, after decompression; no more are held in memory. A million error
                instances take about 30 MB, so that some eight million are read unless more are allowed for.

        Returns:
            The comparison, equal to the one saved.

        Raises:
            ValueError: If the file is cut off, is something else, is larger than `max_bytes`, is of another version
                or contradicts itself.
            OSError: If it cannot be read.

        Example:
            >>> from bc_core import Comparison
            >>> Comparison.load("no/such/file.json")
            Traceback (most recent call last):
            FileNotFoundError: [Errno 2] No such file or directory: 'no/such/file.json'
        """
        captions, overlap, instances = unpacked(path, max_bytes)
        try:
            return cls(overlap, instances, **captions)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path}: a damaged comparison, {error}") from error

    def _captions(self) -> dict[str, Any]:
        captions = {name: getattr(self, name) for name in ("name", "step", "lambda_c", "class_names")}
        return {**captions, "new_classes": list(self.new_classes)} if self.new_classes else captions

    def __add__(self, other: object) -> Comparison:
        return self.merge(other) if isinstance(other, Comparison) else NotImplemented

    def __radd__(self, other: object) -> Comparison:
        # sum() starts from the number 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __repr__(self) -> str:
        overlap = self.overlap
        return (
            f"Comparison(name={self.name!r}, step={self.step}, dataset_size={self.dataset_size}, "
            f"btc={overlap.btc:.4f}, nfr={overlap.nfr:.4f}, error_instances={len(self.instances)})"
        )

    def describe(self, confidence: float = 0.95) -> str:
        """Lay the comparison out for a person: title, scores with intervals, and the classes that lost most.

        Args:
            confidence: Coverage of the intervals.

        Example:
            >>> from bc_core import compare
            >>> print(compare([0, 1, 1], [0, 1, 0], [0, 0, 1], name="night run").describe())
            Comparison 'night run'
            3 instances, 2 classes
            1 both right, 1 only h1 (negative flips), 1 only h2 (positive flips), 0 both wrong
            ...
            Classes that lost most
              1: 1 of 2 instances broke, 1 repaired (100.0% of all negative flips)
        """
        return in_words(self, confidence)

    def __str__(self) -> str:
        return self.describe()

    def _repr_html_(self) -> str:
        return in_html(self)


def checked_names(class_names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(class_names, str):
        raise TypeError(f"class_names: expected a sequence of names, got the single text {class_names!r}")
    names = tuple(str(name) for name in class_names)
    if not names:
        raise ValueError("class_names: expected at least one name, got none")
    if twice := twins(names):
        raise ValueError(f"class_names: expected every name once, got {twice[0]!r} twice")
    return names
