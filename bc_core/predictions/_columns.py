"""Which column of a file is the id, the prediction, the class scores and the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bc_core.predictions._tables import Keep, listed

IDS = ("id", "instance_id", "example_id", "sample_id")
PREDICTIONS = ("pred", "prediction", "predicted", "predicted_label", "y_pred")
TARGETS = ("target", "label", "y_true", "ground_truth", "truth")
SCORES = ("scores", "probabilities", "probs", "logits")
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


@dataclass(frozen=True)
class Roles:
    """Columns of one file by what they are for; empty or None where there is none.

    Attributes:
        id: Of the ids.
        pred: Of the predicted labels.
        scores: One of lists, or one a class, in the order of the file.
        prefix: What the names of `scores` begin with; empty for a column of lists.
        target: Of the true labels.
        others: Weights, clusters and slices.
    """

    id: str | None
    pred: str | None
    scores: tuple[str, ...]
    prefix: str
    target: str | None
    others: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All of them, once."""
        named = [self.id, self.pred, *self.scores, self.target, *self.others]
        return list(dict.fromkeys(name for name in named if name is not None))


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
    instance = None if said.by_position else _one(path, names, said.id, IDS, "--id")
    if instance is None and not said.by_position:
        raise ValueError(
            f"{path}: no column of ids ({', '.join(IDS)}); it has {listed(names)}. Name it by --id, or join rows by "
            "their order with --by-position"
        )
    wanted = [name for name in (said.weight, said.cluster, *said.slices) if name is not None]
    others = tuple(name for name in wanted if name in names)
    pred, scores, prefix = _predictions(path, names, said, new) if predicts else (None, (), "")
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
    path: str, names: Sequence[str], said: ColumnNames, new: bool
) -> tuple[str | None, tuple[str, ...], str]:
    wanted = said.new_pred if new and said.new_pred is not None else said.pred
    pred = _one(path, names, wanted, PREDICTIONS, "--new-pred" if new and said.new_pred else "--pred")
    scores, prefix = _scores(path, names, said.scores)
    if pred is None and not scores:
        raise ValueError(
            f"{path}: no column of predictions ({', '.join(PREDICTIONS)}) or class scores ({', '.join(SCORES)}, or one "
            f"a class such as score_cat); it has {listed(names)}. Name it by --pred or --scores"
        )
    return pred, scores, prefix


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


def _scores(path: str, names: Sequence[str], said: str | None) -> tuple[tuple[str, ...], str]:
    if said is not None:
        if said in names:
            return (said,), ""
        prefix = said.removesuffix("*")
        columns = tuple(name for name in names if name.startswith(prefix))
        if len(columns) < 2:
            raise ValueError(
                f"{path}: no column {said!r}, nor two whose names begin so (of --scores); it has {listed(names)}"
            )
        return columns, prefix
    single = [name for name in SCORES if name in names]
    several = [(tuple(n for n in names if n.startswith(prefix)), prefix) for prefix in SCORE_PREFIXES]
    several = [(columns, prefix) for columns, prefix in several if len(columns) > 1]
    if len(single) + len(several) > 1:
        both = [*single, *(f"{prefix}*" for _, prefix in several)]
        raise ValueError(f"{path}: class scores may be {' or '.join(both)}; say which by --scores")
    if single:
        return (single[0],), ""
    return several[0] if several else ((), "")
