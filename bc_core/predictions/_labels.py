"""Labels of files, from a column of labels or of class scores, brought to class numbers of one kind."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import text_objects
from bc_core._texts import listed, shown
from bc_core.counting._overlap import MOST_CLASSES
from bc_core.predictions._columns import Roles
from bc_core.predictions._right import Right
from bc_core.predictions._tables import Table, are_numbers, number_of

_ROUNDED_SUM = 1e-2
# As pandas, R and SQL write it.
_MISSING = frozenset({"NA", "N/A", "<NA>", "null", "NULL", "None", "nan", "NaN"})


@dataclass(frozen=True)
class Labels:
    """Labels of every row of a file.

    Attributes:
        table: The file.
        name: The column, for messages.
        values: Shape (N,): int64, or dtype object holding `str`.
        texts: The same as text, where the file has no types and numbers may have been meant as names.
        scores: Shape (N, C), class scores; None without.
        score_names: Name of the class of each score; None where they are numbers.
        thresholded: Whether the second of two scores was held to a threshold.
    """

    table: Table
    name: str
    values: NDArray[Any]
    texts: NDArray[Any] | None = None
    scores: NDArray[np.float64] | None = None
    score_names: tuple[str, ...] | None = None
    thresholded: bool = False

    def probabilities(self) -> NDArray[np.float64] | None:
        """Class scores as probabilities: as they are where rows sum to 1, else by softmax."""
        if self.scores is None:
            return None
        sums = self.scores.sum(axis=1)
        if self.thresholded and not ((self.scores >= 0) & (self.scores <= 1)).all():
            return None  # a score that is held to a threshold need be no logit
        if (self.scores >= 0).all() and (np.abs(sums - 1) < _ROUNDED_SUM).all():
            return self.scores
        raised = np.exp(self.scores - self.scores.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
        return probabilities


def labels_of(
    table: Table, roles: Roles, class_names: Sequence[str] | None, right: Right | None = None, new: bool = False
) -> Labels:
    """What a model predicts: its labels, or the class of the highest score where there are only scores.

    Args:
        table: The file.
        roles: Its columns.
        class_names: Name of each class.
        right: What counts as right.
        new: Whether it is the new model's.

    Raises:
        ValueError: A label or score is missing, NaN or not whole.
    """
    if right is not None and right.binary:
        if class_names is not None and len(class_names) != 2:
            raise ValueError(
                f"a threshold tells two classes apart, and there are {len(class_names)}: {listed(class_names)}"
            )
        if roles.scores:
            return _thresholded(table, roles, class_names, right.threshold_of(new))
    scores, score_names = _scores(table, roles, class_names)
    if roles.pred is not None:
        plain = target_of(table, roles.pred)
        return Labels(table, roles.pred, plain.values, plain.texts, scores, score_names)
    assert scores is not None
    best = scores.argmax(axis=1)
    name = roles.scores[0] if not roles.prefix else f"{roles.prefix}*"
    if score_names is None:
        return Labels(table, name, best.astype(np.int64), None, scores, None)
    return Labels(table, name, text_objects(score_names)[best], None, scores, score_names)


def _thresholded(table: Table, roles: Roles, class_names: Sequence[str] | None, threshold: float) -> Labels:
    """Class 1 where its score is at least the threshold."""
    name = roles.scores[0]
    if roles.prefix:
        scores, names = _scores(table, roles, class_names)
        assert scores is not None
        if names is not None:
            if class_names is None or set(names) != set(class_names):
                raise ValueError(
                    f"{table.path}: which of {listed(names)} is class 1, whose score is held to the threshold? Say "
                    "--classes with class 0 first"
                )
            scores = scores[:, [names.index(each) for each in class_names]]
        name = f"{roles.prefix}*"
    elif table.column(name).ndim == 2 or (table.untyped and str(table.texts(name)[0]).startswith(("[", "("))):
        scores = lists(table, name)
    else:
        ones = table.numbers(name)
        scores = np.stack([1 - ones, ones], axis=1)
    if scores.shape[1] != 2:
        raise ValueError(
            f"{table.path}: a threshold tells two classes apart, and {name!r} has scores of {scores.shape[1]}"
        )
    values = (scores[:, 1] >= threshold_as_scores(table, roles.scores, threshold)).astype(np.int64)
    return Labels(table, name, values, None, scores, None if class_names is None else tuple(class_names), True)


def threshold_as_scores(table: Table, columns: Sequence[str], threshold: float) -> float:
    """A threshold as exact as the scores: a model says 0.7 in 32 bits, which is less than 0.7 in 64."""
    kind = np.result_type(*(table.column(name).dtype for name in columns if table.column(name).dtype.kind == "f"), "f2")
    typed = all(table.column(name).dtype.kind == "f" for name in columns)
    return float(kind.type(threshold)) if typed else threshold


def top_k_labels(
    labels: Labels,
    target: NDArray[np.int64],
    best: NDArray[np.int64],
    rows: NDArray[np.intp],
    names: tuple[str, ...] | None,
    top_k: int,
) -> NDArray[np.int64]:
    """The true class where it is among the k highest scores, else the class of the highest one.

    Of equal scores the first class is the higher one, as for `argmax`.

    Raises:
        ValueError: There are not more classes than k, so that every answer would be right.
    """
    assert labels.scores is not None
    scores = labels.scores[rows]
    if top_k >= scores.shape[1]:
        raise ValueError(f"{labels.table.path}: with {scores.shape[1]} classes, the top {top_k} are all of them")
    columns = target
    if labels.score_names is not None and names is not None:
        known = {name: place for place, name in enumerate(labels.score_names)}
        columns = np.asarray([known.get(name, -1) for name in names])[target]
    known_column = (columns >= 0) & (columns < scores.shape[1])  # a model may not know a class
    places = np.where(known_column, columns, 0)
    of_target = scores[np.arange(len(scores)), places][:, None]
    before = np.arange(scores.shape[1])[None, :] < places[:, None]
    rank = (scores > of_target).sum(axis=1) + ((scores == of_target) & before).sum(axis=1)
    return np.where(known_column & (rank < top_k), target, best)


def _scores(
    table: Table, roles: Roles, class_names: Sequence[str] | None
) -> tuple[NDArray[np.float64] | None, tuple[str, ...] | None]:
    if not roles.scores:
        return None, None
    if roles.prefix:
        columns, names = roles.classes
        return np.stack([table.numbers(name) for name in columns], axis=1), names
    scores = lists(table, roles.scores[0])
    if class_names is not None and len(class_names) != scores.shape[1]:
        raise ValueError(
            f"{table.path}: column {roles.scores[0]!r} has {scores.shape[1]} scores a row, and there are "
            f"{len(class_names)} classes"
        )
    return scores, None if class_names is None else tuple(class_names)


def lists(table: Table, name: str) -> NDArray[np.float64]:
    """A column of lists of numbers, two or more, shape (N, C).

    Raises:
        ValueError: It holds something else, or NaN.
    """
    column = table.column(name)
    if column.dtype.kind == "O" and table.untyped:
        rows = []
        for row, text in enumerate(column.tolist()):
            try:
                rows.append([float(part) for part in text.strip(" []()").replace(",", " ").split()])
            except ValueError:
                raise table.fault(name, row, f"is {shown(text)}; expected a list such as [0.1, 0.9]") from None
            if len(rows[row]) != len(rows[0]):
                raise table.fault(name, row, f"has {len(rows[row])} scores, and {len(rows[0])} in the first row")
        column = np.asarray(rows)
    if column.ndim != 2 or column.shape[1] < 2 or column.dtype.kind not in "if":
        raise ValueError(f"{table.path}: column {name!r} must hold a list of class scores, two or more, in each row")
    scores = column.astype(np.float64)
    if not (finite := np.isfinite(scores).all(axis=1)).all():
        raise table.fault(
            name, int(finite.argmin()), "holds NaN or infinity; a model that outputs that predicts nothing"
        )
    return scores


def target_of(table: Table, name: str | None) -> Labels:
    """A column of labels.

    Raises:
        ValueError: A label is missing, NaN or not whole.
    """
    assert name is not None
    column = table.column(name)
    if column.ndim != 1:
        raise ValueError(f"{table.path}: column {name!r} must hold one label a row, got lists (for scores: --scores)")
    texts = table.texts(name) if table.untyped and column.dtype.kind != "O" else None
    if column.dtype.kind == "b":
        column = column.astype(np.int64)
    if column.dtype.kind == "O":
        for row, value in enumerate(column.tolist()):
            if not value.strip():
                raise table.fault(name, row, "is empty, and every row needs a label")
        if table.untyped and (numbers := _as_numbers(column)) is not None:
            texts, column = column, numbers
        elif table.untyped:
            _refuse_missing(table, name, column)
    if column.dtype.kind == "f":
        odd = ~np.isfinite(column) | (column != np.rint(column)) | (np.abs(column) >= 2**53)
        if odd.any():
            row = int(odd.argmax())
            raise table.fault(
                name,
                row,
                f"is {column[row]}, and labels are whole numbers or text (for scores: --scores; for one score of class "
                f"1: --threshold X --scores {name}; for numbers: --right RULE)",
            )
        column = column.astype(np.int64)
    if column.dtype.kind == "i" and (column < 0).any() and texts is None:
        row = int((column < 0).argmax())
        raise table.fault(name, row, f"is {column[row]}, and class numbers are 0 and above")
    return Labels(table, name, column, texts)


def _refuse_missing(table: Table, name: str, column: NDArray[Any]) -> None:
    """Refuse what stands for nothing among numbers: it would be one more class."""
    known = set(column.tolist())
    missing = known & _MISSING
    if missing and len(known) > len(missing) and are_numbers(known - missing):
        row = next(row for row, text in enumerate(column.tolist()) if text in missing)
        raise table.fault(name, row, f"is {shown(column[row])} among numbers, and every row needs a label")


def _as_numbers(column: NDArray[Any]) -> NDArray[np.float64] | None:
    """Text such as 1.0 among 1; None where anything is no number, so that it names classes."""
    try:
        return np.asarray([number_of(text) for text in column.tolist()])
    except ValueError:
        return None


def class_numbers(
    labels: Sequence[Labels], class_names: Sequence[str] | None
) -> tuple[list[NDArray[np.int64]], tuple[str, ...] | None, int]:
    """Labels of several files as class numbers, the names of the classes, and how many there are.

    Args:
        labels: Of each file.
        class_names: Name of each class; None for those that occur.

    Raises:
        ValueError: Text and numbers are mixed, or a label is outside the classes.
    """
    as_text = [each for each in labels if each.values.dtype.kind == "O"]
    if class_names is not None:
        _refuse_shifted(labels, class_names)
    named = (
        class_names is not None and any(each.texts is not None for each in labels) and not _numeric(labels, class_names)
    )
    if not as_text and not named:
        return _plain_numbers(labels, class_names)
    by_number = class_names is not None and _numeric(labels, class_names) and not any(map(_is_number, class_names))
    columns = [_texts_of(each, as_text, class_names, by_number) for each in labels]
    if class_names is None:
        refuse_numbers_among_names(
            [(each.table.path, each.name, set(texts.tolist())) for each, texts in zip(labels, columns, strict=True)]
        )
    occurring = sorted({text for column in columns for text in column.tolist()})
    refuse_look_alikes(occurring, class_names is not None)
    names = tuple(occurring) if class_names is None else tuple(class_names)
    numbers = {name: number for number, name in enumerate(names)}
    if strange := [text for text in occurring if text not in numbers]:
        for each, column in zip(labels, columns, strict=True):
            for row, text in enumerate(column.tolist()):
                if text not in numbers:
                    raise each.table.fault(
                        each.name, row, f"is {shown(text)}, which is none of the classes {listed(names)}"
                    )
        raise AssertionError(strange)  # each came from some column
    return [np.asarray([numbers[text] for text in column.tolist()], np.int64) for column in columns], names, len(names)


def _texts_of(
    labels: Labels, as_text: Sequence[Labels], class_names: Sequence[str] | None, by_number: bool
) -> NDArray[Any]:
    """Labels as names, of numbers those of the classes."""
    if labels.values.dtype.kind == "O":
        return labels.values
    if labels.texts is not None and not by_number:
        return labels.texts
    if class_names is None:
        text = as_text[0]
        raise _mixed((labels.table.path, labels.name), (text.table.path, text.name), text.values[0])
    _refuse_outside(labels, len(class_names))
    return text_objects(list(class_names))[labels.values.astype(np.int64)]


def refuse_look_alikes(names: Sequence[str], known: bool = False) -> None:
    """Refuse labels that look like one: they are one class, and would count as mistakes.

    Args:
        names: The labels that occur.
        known: Whether the classes were named, so that two which only their case tells apart are two.

    Raises:
        ValueError: Only a space, a sign that is not seen, the same letter written otherwise, a point and zeros, or the
            case of a word (not of a letter) tells two of them apart.
    """
    seen: dict[str, str] = {}
    words: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(_as_seen(name), name)) != name:
            space = other.strip() == name.strip()
            what = "differ by a space alone" if space else f"look alike ({other!a} and {name!a})"
            raise ValueError(f"the labels {shown(other)} and {shown(name)} {what}; write them alike")
        whole, point, zeros = name.strip().partition(".")
        if point and whole in names and whole.isdecimal() and not zeros.strip("0"):
            raise ValueError(f"the labels {shown(whole)} and {shown(name)} are one number; write them alike")
        word = _as_seen(name).casefold()
        if not known and len(word) > 1 and (other := words.setdefault(word, name)) != name:
            raise ValueError(
                f"the labels {shown(other)} and {shown(name)} differ by case alone; write them alike, or name all "
                "classes by --classes if they are two"
            )


def _as_seen(name: str) -> str:
    text = "".join(char for char in unicodedata.normalize("NFC", name) if char.isprintable() or char.isspace())
    return " ".join(text.split())


def refuse_numbers_among_names(columns: Sequence[tuple[str, str, Collection[str]]]) -> None:
    """Refuse class numbers in one file and names in another: all of them would count as mistakes.

    Args:
        columns: Of each its file, its name and the labels in it.

    Raises:
        ValueError: All labels of one column are numbers, and none of another.
    """
    numbers = next((each for each in columns if are_numbers(each[2])), None)
    names = next((each for each in columns if not any(map(_is_number, each[2]))), None)
    if numbers is not None and names is not None:
        raise _mixed(numbers[:2], names[:2], min(names[2]))


def refuse_texts_where_numbers_are_true(predicted: Sequence[Labels], true: Sequence[Labels]) -> None:
    """Refuse a prediction that is text, such as one damaged row of many, where all true labels are numbers.

    Args:
        predicted: What models predict, of files that say no types.
        true: True labels.

    Raises:
        ValueError: There is one; its line is named.
    """
    if not all(each.values.dtype.kind != "O" or are_numbers(set(each.values.tolist())) for each in true):
        return
    for each in predicted:
        if each.values.dtype.kind != "O" or not each.table.untyped:
            continue
        texts = {text for text in set(each.values.tolist()) if not _is_number(text)}
        if texts and len(texts) < len(set(each.values.tolist())):
            row = next(row for row, text in enumerate(each.values.tolist()) if text in texts)
            raise each.table.fault(
                each.name,
                row,
                f"is {shown(each.values[row])} among numbers, which all true labels are; name all classes by --classes "
                "if that is one",
            )


def _is_number(text: str) -> bool:
    return are_numbers([text])


def _mixed(numbers: tuple[str, str], names: tuple[str, str], name: str) -> ValueError:
    return ValueError(
        f"labels of mixed types: {numbers[0]} has numbers in {numbers[1]!r}, and {names[0]} text such as {shown(name)} "
        f"in {names[1]!r}; write them alike, or name the classes in the order of their numbers by --classes"
    )


def _refuse_shifted(labels: Sequence[Labels], class_names: Sequence[str]) -> None:
    """Where class 0 is called "1", nobody can tell whether the number 1 is meant as a name."""
    shifted = [name for place, name in enumerate(class_names) if name.isdecimal() and name != str(place)]
    for each in labels:
        if shifted and each.values.dtype.kind != "O" and each.texts is None:
            raise ValueError(
                f"{each.table.path}: column {each.name!r} holds class numbers, and a class that is not number "
                f"{shifted[0]} has that name; write its labels as text"
            )


def _numeric(labels: Sequence[Labels], class_names: Sequence[str]) -> bool:
    """Whether numbers of files without types are class numbers, and not names such as "2" that classes have."""
    names = set(class_names)
    return not all(text in names for each in labels if each.texts is not None for text in set(each.texts.tolist()))


def _plain_numbers(
    labels: Sequence[Labels], class_names: Sequence[str] | None
) -> tuple[list[NDArray[np.int64]], tuple[str, ...] | None, int]:
    scored = [each.scores.shape[1] for each in labels if each.scores is not None]
    highest = max(int(each.values.max()) + 1 for each in labels)
    if class_names is None and not scored and highest > MOST_CLASSES:
        each = next(each for each in labels if int(each.values.max()) + 1 == highest)
        row = int(each.values.argmax())
        raise each.table.fault(
            each.name,
            row,
            f"is {each.values[row]}, which would make more than {MOST_CLASSES} classes; map labels to 0..C-1",
        )
    size = len(class_names) if class_names is not None else max(scored, default=highest)
    for each in labels:
        _refuse_outside(each, size)
    return [each.values.astype(np.int64) for each in labels], None if class_names is None else tuple(class_names), size


def _refuse_outside(labels: Labels, size: int) -> None:
    outside = (labels.values < 0) | (labels.values >= size)
    if outside.any():
        row = int(outside.argmax())
        raise labels.table.fault(labels.name, row, f"is {labels.values[row]:g}, and classes are 0 to {size - 1}")
