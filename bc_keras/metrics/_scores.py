"""The scores of backward compatibility as Keras metrics.

Every score of `bc_core.SCORES` that names a metric has its documented, registered class here; those that type checkers
know by name are listed at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bc_core import SCORES
from bc_core.counting._score_texts import score_metrics
from bc_core.counting._scores import bec_name
from bc_keras.metrics._overlap import OverlapMetric
from bc_keras.metrics._score_docs import metric_docstring

SCORE_METRICS: dict[str, type[_Score]] = {}


class _Score(OverlapMetric):
    """A ratio of the counts. A direct subclass is that of the scores that name it; nothing else is needed."""

    score_name: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if _Score in cls.__bases__:
            scores = score_metrics()[cls.__name__]
            cls.score_name = scores[0].name
            cls.__doc__ = metric_docstring(cls.__name__, scores)
            keras.saving.register_keras_serializable(package="bc_keras")(cls)
            SCORE_METRICS[cls.__name__] = cls

    def __init__(
        self,
        threshold: float | None = None,
        from_logits: bool = False,
        multilabel: bool = False,
        zero_division: float = 0.0,
        ignore_class: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        new_classes: Sequence[int] = (),
    ) -> None:
        super().__init__(
            threshold,
            from_logits,
            multilabel,
            ignore_class,
            name=name or self.score_name,
            dtype=dtype,
            new_classes=new_classes,
        )
        if not (0 <= zero_division <= 1 or math.isnan(zero_division)):
            raise ValueError(
                f"zero_division must be a number in 0..1 or nan. Received: zero_division={zero_division!r}."
            )
        self.zero_division = zero_division
        higher_is_better = SCORES[self.score_name].higher_is_better
        if higher_is_better is not None:
            # Where Keras's callbacks look for mode="auto".
            self._direction = "up" if higher_is_better else "down"

    def result(self) -> Any:
        """The score of everything counted so far: a scalar."""
        score = SCORES[self.score_name]
        denominator = self._sum_of(score.denominator)
        ratio = ops.divide_no_nan(self._sum_of(score.numerator), denominator)
        return ops.cast(ops.where(denominator == 0, ops.full_like(ratio, self.zero_division), ratio), self.dtype)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "zero_division": self.zero_division}


class BackwardTrustCompatibility(_Score): ...


class BackwardErrorCompatibility(_Score):
    def __init__(
        self,
        threshold: float | None = None,
        from_logits: bool = False,
        multilabel: bool = False,
        zero_division: float = 0.0,
        ignore_class: int | None = None,
        given: str = "h1_wrong",
        name: str | None = None,
        dtype: Any = None,
        new_classes: Sequence[int] = (),
    ) -> None:
        self.score_name = bec_name(given)
        super().__init__(threshold, from_logits, multilabel, zero_division, ignore_class, name, dtype, new_classes)
        self.given = given

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "given": self.given}


class NegativeFlipRate(_Score): ...


class PositiveFlipRate(_Score): ...


class NegativeFlipImpact(_Score): ...


BTC = BackwardTrustCompatibility
BEC = BackwardErrorCompatibility

for _metric in score_metrics():
    if _metric not in SCORE_METRICS:
        type(_metric, (_Score,), {"__module__": __name__})
globals().update(SCORE_METRICS)
