"""`compare`: labels of two models, as a `Comparison`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core._arrays import id_array, label_array, matching_labels, text_objects, to_numpy
from bc_core.comparison._comparison import Comparison, Metadata, checked_names
from bc_core.comparison._confidence import MODELS, Confidence, Said, counted_confidence, said_by
from bc_core.comparison._error_instances import CONFIDENCES, ErrorInstances, refuse_duplicates
from bc_core.comparison._sliced import Sliced, sliced_by
from bc_core.counting._overlap import ErrorOverlap
from bc_core.slices._metadata import Columns


def compare(
    target: Any,
    h1_pred: Any,
    h2_pred: Any,
    *,
    ids: Any = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    metadata: Metadata | None = None,
    name: str | None = None,
    step: int | None = None,
    lambda_c: float | None = None,
    new_classes: Sequence[int] = (),
    h1_scores: Any = None,
    h2_scores: Any = None,
    threshold: float | tuple[float, float] = 0.5,
) -> Comparison:
    """Compare the predictions of h1 and h2 on one data set.

    Args:
        target: N true labels, shape (N,) or (N, 1): class numbers 0..C-1 or class names; list, array or tensor.
        h1_pred: N labels that h1 predicts.
        h2_pred: N labels that h2 predicts.
        ids: N unique ids, all integers or all text. Default: the positions 0..N-1. Shards that are to be merged
            need ids that are unique over the whole data set.
        num_classes: Number of classes C. Default: the number of class names, or the largest label plus one.
        class_names: Name of each class, by class number. Default for labels that are text: the sorted names that
            occur, so state it for shards that are to be merged.
        metadata: What to show about an instance: N texts, a mapping from id to text (no entry: empty text), or a
            function from id to text, which is called only for instances that h1 or h2 gets wrong. Or columns: a mapping
            from names to N values each, a data frame or a structured array. Few values, and numbers in ranges, make
            slices, which are counted and searched for those in which more breaks; texts of which there are more than
            200, or that mostly come once, such as paths, are what is shown about an instance.
        name: What is compared, for titles.
        step: Training step of h2.
        lambda_c: Weight of the dissonance that h2 was trained with.
        new_classes: Numbers of classes that h1 did not know, which are shown apart.
        h1_scores: Probabilities that h1 gives, shape (N, C), or (N,) for class 1 of two; its labels have to follow from
            them. A row of nan is not known. Kept are those of the answer and the truth where h1 or h2 is wrong, and
            counts over all instances: of how sure they are and how often right, and, for two classes, at each percent
            of a threshold.
        h2_scores: The same of h2.
        threshold: For two classes, the probability from which on a model says class 1; or a pair, of h1 and h2.

    Returns:
        The comparison; only instances that h1 or h2 gets wrong are kept one by one.

    Raises:
        ValueError: If lengths differ, there is no instance, a label is NaN, not whole or outside the classes, a
            name is not among `class_names`, an id comes twice, or labels do not follow from scores.
        TypeError: If labels are neither numbers nor text, or text is compared with numbers.

    Example:
        >>> from bc_core import compare
        >>> comparison = compare(
        ...     target=["cat", "dog", "dog"],
        ...     h1_pred=["cat", "dog", "cat"],
        ...     h2_pred=["cat", "cat", "dog"],
        ...     metadata=["a.png", "b.png", "c.png"],
        ... )
        >>> comparison.negative_flips().metadata.tolist()
        ['b.png']

        With probabilities and columns of metadata:

        >>> sure = compare(
        ...     [0, 1, 1],
        ...     [0, 1, 0],
        ...     [0, 0, 1],
        ...     metadata={"country": ["de", "fr", "fr"]},
        ...     h1_scores=[0.2, 0.9, 0.4],
        ...     h2_scores=[0.1, 0.3, 0.6],
        ... )
        >>> sure.negative_flips().h2_confidence, sure.slices[0].values
        (array([0.7]), ('de', 'fr'))
    """
    names = ("target", "h1_pred", "h2_pred")
    truth, h1, h2 = matching_labels(target, h1_pred, h2_pred, names)
    if class_names is not None:
        class_names = checked_names(class_names)
    if truth.dtype.kind == "U":
        if class_names is None:
            occurring = {text for array in (truth, h1, h2) for text in np.unique(array).tolist()}
            class_names = tuple(sorted(occurring))
        truth, h1, h2 = (
            _class_numbers(array, class_names, name) for array, name in zip((truth, h1, h2), names, strict=True)
        )
    if class_names is not None:
        if num_classes is not None and num_classes != len(class_names):
            raise ValueError(f"num_classes is {num_classes}, but there are {len(class_names)} class names")
        num_classes = len(class_names)
        highest = max(int(array.max()) for array in (truth, h1, h2))
        if highest >= num_classes:
            raise ValueError(
                f"class_names: expected a name for each class, got {num_classes} names and labels up to {highest}"
            )
    overlap = ErrorOverlap.from_predictions(truth, h1, h2, num_classes)

    size = len(truth)
    errors = np.flatnonzero((h1 != truth) | (h2 != truth))
    if ids is None:
        error_ids: NDArray[Any] = errors.astype(np.int64)
    else:
        all_ids = id_array(ids, "ids")
        if len(all_ids) != size:
            raise ValueError(f"ids: expected one id per instance ({size}), got {len(all_ids)}")
        refuse_duplicates(all_ids, "ids")
        error_ids = all_ids[errors]
    labels = None if class_names is None else tuple(class_names)
    columns = Columns.of(metadata, size, error_ids.tolist() if error_ids.dtype.kind == "O" else ())
    classes = labels or tuple(map(str, range(overlap.num_classes)))
    sliced = Sliced() if columns is None else sliced_by(columns, truth.astype(np.int64), h1, h2, classes)
    confidence, sure = _confidence((h1_scores, h2_scores), truth, (h1, h2), overlap.num_classes, threshold)
    instances = ErrorInstances(
        error_ids,
        truth[errors].astype(np.int64),
        h1[errors].astype(np.int64),
        h2[errors].astype(np.int64),
        metadata_of(metadata, errors, error_ids, size) if columns is None else columns.describe(errors),
        **{name: values[errors] for name, values in sure.items()},
        slices={} if columns is None else {column.name: column.codes[errors] for column in columns.sliced},
    )
    return Comparison(
        overlap,
        instances,
        labels,
        name,
        step,
        lambda_c,
        tuple(new_classes),
        sliced.counts,
        sliced.found,
        confidence,
    )


def compare_right(
    h1_right: Any,
    h2_right: Any,
    *,
    ids: Any = None,
    metadata: Metadata | None = None,
    name: str | None = None,
    step: int | None = None,
) -> Comparison:
    """Compare two models of which only is known what they get right: numbers, rankings, generated texts.

    Args:
        h1_right: N bools, or 0 and 1: whether h1 is right about each instance, by whatever notion.
        h2_right: The same of h2.
        ids: As for `compare`.
        metadata: As for `compare`.
        name: What is compared, for titles.
        step: Training step of h2.

    Returns:
        The comparison, of instances of the class "right" of which those that a model gets wrong are taken for "wrong".

    Raises:
        ValueError: Lengths differ, there is no instance, an entry is neither 0 nor 1, or an id comes twice.

    Example:
        >>> import numpy as np
        >>> from bc_core import compare_right
        >>> true, old, new = np.array([3.0, 5.0, 8.0]), np.array([3.5, 9.0, 8.0]), np.array([3.1, 5.0, 12.0])
        >>> c = compare_right(abs(old - true) <= 2, abs(new - true) <= 2)
        >>> c.overlap.nfr, c.negative_flips().ids.tolist()
        (0.333..., [2])
    """
    columns = [label_array(values, place) for values, place in ((h1_right, "h1_right"), (h2_right, "h2_right"))]
    for column, place in zip(columns, ("h1_right", "h2_right"), strict=True):
        if column.dtype.kind not in "iu" or not np.isin(column, (0, 1)).all():
            raise ValueError(f"{place}: expected True or False, or 1 or 0, of each instance")
    h1, h2 = (1 - column.astype(np.int64) for column in columns)
    names = ("right", "wrong")
    return compare(
        np.zeros(len(h1), np.int64), h1, h2, ids=ids, class_names=names, metadata=metadata, name=name, step=step
    )


def _confidence(
    scores: tuple[Any, Any],
    truth: NDArray[np.int64],
    answers: tuple[NDArray[np.int64], NDArray[np.int64]],
    num_classes: int,
    threshold: float | tuple[float, float],
) -> tuple[Confidence, dict[str, NDArray[np.float64]]]:
    """Counts of how sure the models are, and that of each instance by name of the column; nothing without scores."""
    in_use = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    if len(in_use) != 2 or not all(0 < float(each) < 1 for each in in_use):
        raise ValueError(f"threshold: expected a number between 0 and 1, or one for each model, got {threshold!r}")
    if all(each is None for each in scores):
        return Confidence(), {}
    edges = float(in_use[0]), float(in_use[1])
    # Small labels of one byte would wrap around where cells are numbered.
    truth, answers = truth.astype(np.int64), (answers[0].astype(np.int64), answers[1].astype(np.int64))
    h1, h2 = (
        Said.nothing(len(truth)) if given is None else said_by(given, truth, pred, num_classes, f"{name}_scores", edge)
        for given, pred, name, edge in zip(scores, answers, MODELS, edges, strict=True)
    )
    columns = zip(CONFIDENCES, (h1.answer, h2.answer, h1.truth, h2.truth), strict=True)
    return counted_confidence(truth, answers, (h1, h2), edges), dict(columns)


def metadata_of(
    metadata: Metadata | None, errors: NDArray[np.intp], error_ids: NDArray[Any], size: int
) -> NDArray[Any] | None:
    texts: list[Any]
    if metadata is None:
        return None
    if isinstance(metadata, Mapping):
        texts = [metadata.get(instance_id, "") for instance_id in error_ids.tolist()]
    elif callable(metadata):
        texts = [metadata(instance_id) for instance_id in error_ids.tolist()]
    else:
        if isinstance(metadata, (str, bytes)) or not hasattr(metadata, "__len__") or len(metadata) != size:
            got = len(metadata) if hasattr(metadata, "__len__") else type(metadata).__name__
            raise ValueError(f"metadata: expected one text per instance ({size}), a mapping or a function, got {got}")
        column = metadata if isinstance(metadata, (list, tuple)) else to_numpy(metadata, "metadata").tolist()
        texts = [column[position] for position in errors.tolist()]
    return text_objects([_text(value) for value in texts])


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _class_numbers(labels: NDArray[Any], class_names: Sequence[str], name: str) -> NDArray[np.int64]:
    known = np.asarray(class_names)
    order = np.argsort(known, kind="stable")
    slots = np.minimum(np.searchsorted(known, labels, sorter=order), len(known) - 1)
    numbers = order[slots]
    strange = known[numbers] != labels
    if strange.any():
        index = int(strange.argmax())
        raise ValueError(
            f"{name}: got {str(labels[index])!r} at position {index}, which is not among the class names "
            f"({', '.join(class_names[:10])}{', ...' if len(class_names) > 10 else ''}); add it to class_names"
        )
    return numbers.astype(np.int64)
