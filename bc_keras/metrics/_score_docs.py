"""Docstrings of the score metrics: one text, filled in by the rows of `bc_core.SCORES`."""

from __future__ import annotations

from bc_core import Score, score_from_counts
from bc_core.counting._score_texts import introduction, sources, when_undefined

_METRIC = """{introduction}
{source}
Args:
    threshold: a binary or multilabel score is class 1 from this probability on. Defaults to `None`: 0.5, or in a
        `BCModel` the threshold of the model.
    from_logits: whether binary or multilabel scores are logits. Defaults to `False`.
    multilabel: whether each of h2's columns is a label of its own, 0 or 1. Defaults to `False`.
    zero_division: score {when_undefined}, a number in 0..1 or nan. Defaults to `0.0`.
    ignore_class: instances with this target are left out. Defaults to `None`.
{given}    name: name of the metric. Defaults to {names}.
    dtype: dtype of the result. Defaults to `keras.config.floatx()`.
    new_classes: classes that h1 did not know, whose instances are left out. Defaults to `()`.

Raises:
    ValueError: an argument out of its range.

Example:
    Standalone usage, on labels that carry h1's scores, for a multiclass, a binary and a multilabel model:

    >>> import numpy as np
    >>> from bc_keras import attach_h1
    >>> from bc_keras.metrics import {metric}
{examples}

    Usage with the `compile()` API, where the model asks h1:

    ```python
    model = BCModel(h2, h1=h1)
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy", {metric}()])
    {stop}
    model.fit(x, y, validation_data=(x_val, y_val), callbacks=[stop])
    ```

    and in any other Keras model, where the label carries h1's output:

    ```python
    x, y = attach_h1(h1, x, y)
    h2.compile(
        "adam",
        loss=TargetLoss("sparse_categorical_crossentropy"),
        metrics=[OnTarget("accuracy"), {metric}()],
    )
    h2.fit(x, y)
    ```
"""

# One example for each task: options, h1, h2, y, and the counts that these come to.
_EXAMPLES = (
    ("", "np.eye(3)[[0, 2, 2, 2, 0]]", "np.eye(3)[[0, 1, 2, 0, 0]]", "[0, 1, 2, 2, 1]", [[1, 1], [1, 2]]),
    ("", "np.array([0.8, 0.7, 0.1])", "np.array([0.9, 0.2, 0.8])", "[1, 1, 0]", [[0, 0], [2, 1]]),
    (
        "multilabel=True",
        "np.array([[0.9, 0.1], [0.2, 0.3]])",
        "np.array([[0.8, 0.6], [0.1, 0.7]])",
        "[[1, 0], [1, 1]]",
        [[1, 1], [1, 1]],
    ),
)


def metric_docstring(metric: str, scores: tuple[Score, ...]) -> str:
    """Docstring of the class `metric`."""
    lines = []
    for number, (options, h1, h2, y, counts) in enumerate(_EXAMPLES):
        score = scores[-1 if number == len(_EXAMPLES) - 1 else 0]
        given = [] if score is scores[0] else [f'given="{score.given}"']
        lines += [
            f">>> h1, h2 = {h1}, {h2}",
            f">>> metric = {metric}({', '.join(filter(None, [options, *given]))})",
            f">>> metric.update_state(attach_h1(h1, h2, np.array({y}))[1], h2)",
            ">>> round(float(metric.result()), 4)",
            repr(round(float(score_from_counts(score.name, counts)), 4)),
        ]
    mode = "" if scores[0].higher_is_better is not None else ', mode="min"'
    stop = f'stop = keras.callbacks.EarlyStopping("val_{scores[0].name}", patience=3{mode})'
    choices = " or ".join(f'``"{score.given}"``' for score in scores)
    return _METRIC.format(
        metric=metric,
        introduction=introduction(scores),
        source=f"Source: {sources(scores)}\n" if sources(scores) else "",
        when_undefined=when_undefined(scores),
        given=f'    given: {choices}. Defaults to `"{scores[0].given}"`.\n' if len(scores) > 1 else "",
        names=" or ".join(f'`"{score.name}"`' for score in scores),
        stop=stop if mode else f"{stop}  # knows which way is better",
        examples="\n".join("    " + line for line in lines),
    )
