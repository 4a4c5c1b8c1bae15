"""Which column of a file is the id, the prediction, the class scores and the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bc_core._texts import listed
from bc_core.predictions._right import Right
from bc_core.predictions._tables import Keep

IDS = ("id", "instance_id", "example_id", "sample_id")
PREDICTIONS = ("pred", "prediction", "predicted", "predicted_label", "y_pred")
TARGETS = ("target", "label", "y_true", "ground_truth", "truth")
SCORES = ("scores", "probabilities", "probs", "logits")
BINARY_SCORES = (*SCORES, "score", "prob", "probability", "y_score")
_SINGLE = {(name,) for name in SCORES}
LABEL_PREFIXES = ("pred_",)
TARGET_PREFIXES = ("target_", "label_", "true_")
SCORE_PREFIXES = ("score_", "prob_", "probability_", "logit_")


@dataclass(frozen=True)
class ColumnNames:
    """What the user said of the columns; None where the usual names are looked for.

    Attributes:
        id: Name of the ids.
        pred: Name of the predicted labels.
        new_pred: The same in the new file, where it differs.
        scores: Name of a column of lists, or what the names of a column a class begin with.
        target: Name of the true labels.
        weight: Name of the weights.
        cluster: Name of what instances belong to.
        slices: Names of columns whose values are slices.
        by_position: Whether rows are joined by their order instead of ids.
        right: What counts as right; None for equality of labels.
        columns_from: Of "old", "new" and "data", the file whose weights, clusters and slices count where several have
            the column; None where they must agree.
    """

    id: str | None = None
    pred: str | None = None
    new_pred: str | None = None
    scores: str | None = None
    target: str | None = None
    weight: str | None = None
    cluster: str | None = None
    slices: tuple[str, ...] = ()
    by_position: bool = False
    right: Right | None = None
    columns_from: str | None = None

    @property
    def further(self) -> dict[str, str]:
        """Weights, clusters and slices, each with the option that names it."""
        named = [*((name, "--slice") for name in self.slices), (self.cluster, "--cluster"), (self.weight, "--weight")]
        return {name: option for name, option in named if name is not None}


@dataclass(frozen=True)
class Roles:
    """Columns of one file by what they are for; empty or None where there is none.

    Attributes:
        id: Of the ids.
        pred: Of the predicted labels.
        scores: One of lists, or one a class, in the order of the file.
        prefix: What the names of `scores` begin with; empty for a column of lists.
        target: Of the true labels.
        others: Weights, clusters and slices, and what a notion of right reads.
        labels: Of the true labels, where an instance has several, each 0 or 1: a column each, or one of lists.
        label_prefix: What their names begin with; empty for a column of lists.
        scored: Whether `scores` are scores, and not labels of 0 and 1.
        unused_id: Of ids that rows are not joined by, and must not contradict.
    """

    id: str | None
    pred: str | None
    scores: tuple[str, ...]
    prefix: str
    target: str | None
    others: tuple[str, ...]
    labels: tuple[str, ...] = ()
    label_prefix: str = ""
    scored: bool = True
    unused_id: str | None = None

    @property
    def names(self) -> list[str]:
        """All of them, once."""
        named = [self.id, self.pred, *self.scores, self.target, *self.others, *self.labels, self.unused_id]
        return list(dict.fromkeys(name for name in named if name is not None))

    @property
    def classes(self) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        """Columns of class scores that begin alike, by class, and the names of these; None where they are numbers."""
        names = tuple(name.removeprefix(self.prefix) for name in self.scores)
        numbers = tuple(map(str, range(len(names))))
        if set(names) == set(numbers):
            return tuple(self.scores[names.index(number)] for number in numbers), None
        return self.scores, names


def roles_of(path: str, names: Sequence[str], said: ColumnNames, new: bool = False, predicts: bool = True) -> Roles:
    """Find the columns of a file.

    Args:
        path: The file, for messages.
        names: Its columns.
        said: What the user said.
        new: Whether it is the new model's.
        predicts: Whether it has predictions, and is not only of targets and metadata.

    Raises:
        ValueError: A column that was named, or one that is needed, is not there; or several could be meant.
    """
    roles = _roles(path, names, said, new, predicts)
    ids = [name for name in IDS if name in names and name not in roles.names] if said.by_position else []
    return replace(roles, unused_id=ids[0]) if len(ids) == 1 else roles


def _roles(path: str, names: Sequence[str], said: ColumnNames, new: bool, predicts: bool) -> Roles:
    right = said.right or Right()
    instance = None if said.by_position else _one(path, names, said.id, IDS, "--id")
    if instance is None and not said.by_position:
        raise ValueError(
            f"{path}: no column of ids ({', '.join(IDS)}); it has {listed(names)}. Name it by --id, or join rows by "
            "their order with --by-position"
        )
    wanted = [name for name in (said.weight, said.cluster, *said.slices, *right.columns) if name is not None]
    if right.logs:
        wanted += ["filter", "doc_hash"]
    others = tuple(name for name in wanted if name in names)
    pred, scores, prefix = _predictions(path, names, said, right, new) if predicts else (None, (), "")
    if right.multilabel:
        labels, label_prefix = _labels(path, [n for n in names if n not in (instance, *scores)], said.target)
        scored = said.pred is None and (said.scores is not None or prefix in SCORE_PREFIXES or scores[:1] in _SINGLE)
        return Roles(instance, pred, scores, prefix, None, others, labels, label_prefix, scored)
    if right.graded and not right.reads[1]:
        return Roles(instance, pred, scores, prefix, None, others)
    # What a model says, by whatever name, is never taken for the truth.
    said_by_models = (pred, said.pred, said.new_pred, *scores) if predicts else ()
    left = [name for name in names if name not in (instance, *said_by_models)]
    if said.target is None:
        target = _one(path, left, None, TARGETS, "--target")
    else:
        if said.target in said_by_models:
            raise ValueError(f"{path}: {said.target!r} is both a prediction and the true label; name one otherwise")
        # Where it is in another file, that is seen to when they are joined.
        target = said.target if said.target in left else None
    return Roles(instance, pred, scores, prefix, target, others)


def _predictions(
    path: str, names: Sequence[str], said: ColumnNames, right: Right, new: bool
) -> tuple[str | None, tuple[str, ...], str]:
    wanted = said.new_pred if new and said.new_pred is not None else said.pred
    if right.multilabel:
        return (None, *_several_labels(path, names, wanted, said.scores))
    if right.correct is not None:
        if right.correct not in names:
            raise ValueError(f"{path}: no column {right.correct!r} (of --correct); it has {listed(names)}")
        return None, (), ""
    if right.graded and not right.reads[0]:
        return None, (), ""
    scores, prefix = (
        ((), "") if right.graded else _scores(path, names, said.scores, BINARY_SCORES if right.binary else SCORES)
    )
    if scores and (right.binary or right.top_k is not None):
        return None, scores, prefix  # labels, whatever they are called, have no part in it
    pred = _one(path, names, wanted, PREDICTIONS, "--new-pred" if new and said.new_pred else "--pred")
    if right.graded:
        if pred is None:
            raise ValueError(f"{path}: no column of predictions ({', '.join(PREDICTIONS)}); name it by --pred")
        return pred, (), ""
    if right.top_k is not None:
        raise ValueError(
            f"{path}: no class scores ({', '.join(SCORES)}, or one a class such as score_cat), by which --top-k "
            f"ranks the classes; it has {listed(names)}. Name them by --scores"
        )
    if pred is None and not scores:
        raise ValueError(
            f"{path}: no column of predictions ({', '.join(PREDICTIONS)}) or class scores ({', '.join(SCORES)}, or one "
            f"a class such as score_cat); it has {listed(names)}. Name it by --pred or --scores"
        )
    return pred, scores, prefix


def _several_labels(
    path: str, names: Sequence[str], pred: str | None, scores: str | None
) -> tuple[tuple[str, ...], str]:
    """Columns of 0 and 1, or of scores, one a label; or one of lists."""
    if pred is not None or scores is None:
        found = _listed_or_prefixed(path, names, pred, PREDICTIONS, LABEL_PREFIXES, "--pred")
        if found[0]:
            return found
    columns, prefix = _scores(path, names, scores)
    if not columns:
        raise ValueError(
            f"{path}: no columns of labels (such as pred_cat and pred_dog, or pred with lists) or of their scores; it "
            f"has {listed(names)}. Say how they begin by --pred or --scores"
        )
    return columns, prefix


def _labels(path: str, names: Sequence[str], target: str | None) -> tuple[tuple[str, ...], str]:
    here = target is None or target in names or any(name.startswith(target.removesuffix("*")) for name in names)
    # Where they are in another file, that is seen to when they are joined.
    return _listed_or_prefixed(path, names, target, TARGETS, TARGET_PREFIXES, "--target") if here else ((), "")


def _listed_or_prefixed(
    path: str,
    names: Sequence[str],
    said: str | None,
    usual: Sequence[str],
    prefixes: Sequence[str],
    option: str,
    what: str = "labels",
) -> tuple[tuple[str, ...], str]:
    """A column of lists, or several whose names begin alike, and how they begin; nothing where there is none."""
    if said is not None and said in names:
        return (said,), ""
    if said is not None:
        prefix = said.removesuffix("*")
        columns = tuple(name for name in names if name.startswith(prefix))
        if len(columns) < 2:
            raise ValueError(
                f"{path}: no column {said!r}, nor two whose names begin so (of {option}); it has {listed(names)}"
            )
        return columns, prefix
    found: list[tuple[tuple[str, ...], str]] = [((name,), "") for name in usual if name in names]
    several = ((tuple(name for name in names if name.startswith(prefix)), prefix) for prefix in prefixes)
    found += [(columns, prefix) for columns, prefix in several if len(columns) > 1]
    if len(found) > 1:
        both = [f"{prefix}*" if prefix else columns[0] for columns, prefix in found]
        raise ValueError(f"{path}: {what} may be {' or '.join(both)}; say which by {option}")
    return found[0] if found else ((), "")


def listed_names(texts: Sequence[str] | None) -> list[str] | None:
    """Names that were given one by one, or several by commas."""
    return None if not texts else [name for text in texts for name in text.split(",")]


def keeping(path: str, said: ColumnNames, new: bool = False, predicts: bool = True) -> Keep:
    """The columns of a file that are read."""
    return lambda names: roles_of(path, names, said, new, predicts).names


def _one(path: str, names: Sequence[str], said: str | None, usual: Sequence[str], option: str) -> str | None:
    if said is not None:
        if said not in names:
            raise ValueError(f"{path}: no column {said!r} (of {option}); it has {listed(names)}")
        return said
    found = [name for name in usual if name in names]
    if len(found) > 1:
        raise ValueError(
            f"{path}: the columns {' and '.join(map(repr, found))} may both be meant; say which by {option}"
        )
    return found[0] if found else None


def _scores(
    path: str, names: Sequence[str], said: str | None, usual: Sequence[str] = SCORES
) -> tuple[tuple[str, ...], str]:
    return _listed_or_prefixed(path, names, said, usual, SCORE_PREFIXES, "--scores", "class scores")
