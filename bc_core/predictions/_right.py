"""What counts as right, where that is not one label that equals another."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bc_core._user_functions import names_function
from bc_core.predictions._expressions import Expression
from bc_core.predictions._text_files import open_text

# Columns that say so of lm-eval's sample logs, and its usual measures of one sample.
_LM_EVAL = {"doc_id", "resps", "filtered_resps"}
_LM_EVAL_MEASURES = ("exact_match", "acc", "acc_norm")


@dataclass(frozen=True)
class Right:
    """A notion of right; nothing said is equality of labels.

    Attributes:
        threshold: Binary models: class 1 is where the score is at least that. Of `multilabel` that of each label.
        new_threshold: The same of the new model, where it differs.
        top_k: Whether the true class is among the k of the highest scores.
        multilabel: Whether an instance has several labels, each 0 or 1; it is right where all of them are.
        rule: An expression of columns, or `module:function` of the predictions and the true values.
        correct: A column of each file that says it, 0 or 1.
        filter: Of lm-eval's logs, the filter whose samples are meant.
        logs: Whether the files are such logs, which `of_lm_eval` sees.

    Raises:
        ValueError: Two notions at once, or one that says nothing.
    """

    threshold: float | None = None
    new_threshold: float | None = None
    top_k: int | None = None
    multilabel: bool = False
    rule: str | None = None
    correct: str | None = None
    filter: str | None = None
    logs: bool = False

    def __post_init__(self) -> None:
        said = {
            "threshold": (self.threshold is not None or self.new_threshold is not None) and not self.multilabel,
            "top_k": self.top_k is not None,
            "multilabel": self.multilabel,
            "rule": self.rule is not None,
            "correct": self.correct is not None,
        }
        if sum(said.values()) > 1:
            raise ValueError(
                f"several notions of what is right: {', '.join(n for n, is_said in said.items() if is_said)}; say one"
            )
        for value in (self.threshold, self.new_threshold):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"a threshold must be a finite number, got {value}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        _ = self.expression  # what cannot be read is refused before any file is

    @property
    def binary(self) -> bool:
        """Whether scores of class 1 are held to a threshold."""
        return not self.multilabel and (self.threshold is not None or self.new_threshold is not None)

    @property
    def graded(self) -> bool:
        """Whether each model's rows are judged by themselves, and there are no classes."""
        return self.rule is not None or self.correct is not None

    @property
    def function(self) -> str | None:
        """`module:function`, where the rule is one."""
        return self.rule if self.rule is not None and names_function(self.rule) else None

    @cached_property
    def expression(self) -> Expression | None:
        """The rule, where it is an expression."""
        return None if self.rule is None or self.function is not None else Expression(self.rule)

    @property
    def columns(self) -> tuple[str, ...]:
        """What it reads beside predictions and true values, by the names of columns."""
        if self.correct is not None:
            return (self.correct,)
        return tuple(n for n in (self.expression.names if self.expression else ()) if n not in ("pred", "target"))

    @property
    def reads(self) -> tuple[bool, bool]:
        """Whether it reads the predictions, and the true values."""
        if self.correct is not None:
            return False, False
        names = ("pred", "target") if self.expression is None else self.expression.names
        return "pred" in names, "target" in names

    def threshold_of(self, new: bool) -> float:
        """The threshold of one of the models."""
        of_new = self.new_threshold if new else None
        found = of_new if of_new is not None else self.threshold
        return 0.5 if found is None else found


def of_lm_eval(path: str, names: Sequence[str], right: Right | None) -> Right | None:
    """The notion of lm-eval's sample logs: the measure that each sample has.

    Returns:
        None where the columns are not theirs.

    Raises:
        ValueError: Several measures could be meant.
    """
    if not set(names) >= _LM_EVAL:
        return None
    right = replace(right or Right(), logs=True)
    if right != Right(filter=right.filter, logs=True):
        return right
    found = [name for name in _LM_EVAL_MEASURES if name in names]
    if len(found) != 1:
        told = f"the measures {', '.join(found)}" if found else "no measure that is 0 or 1"
        raise ValueError(
            f"{path}: samples of lm-eval with {told}; say which column counts by --correct NAME, or for one that is "
            'graded by --right "NAME >= 0.5"'
        )
    return replace(right, correct=found[0])


def first_names(path: str) -> list[str]:
    """Keys of the first line of a JSON Lines file; none where that is no object, which reading it says."""
    if not path.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        return []
    with open_text(path) as file:
        try:
            row = json.loads(file.readline())
        except (ValueError, RecursionError):
            return []
    return list(row) if isinstance(row, dict) else []
