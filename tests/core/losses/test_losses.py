"""The definition of losses: numpy's form against golden vectors, weights and conditions, options, documentation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bc_core.losses._dissonances import DISSONANCES, Answer, Dissonance, Given, Option, weigh
from bc_core.losses._documentation import with_dissonances
from bc_core.losses._numpy_loss import numpy_loss
from bc_core.losses._operations import NumpyOperations
from bc_core.losses._options import check_loss

GOLDEN = json.loads((Path(__file__).parents[2] / "data" / "losses.json").read_text())


def test_numpy_gives_the_golden_losses():
    for case in GOLDEN:
        h2, target, h1 = (np.array(case[name]) for name in ("h2_logits", "target", "h1_logits"))
        options = [case[name] for name in ("base", "dissonance", "lambda_c", "normalization")]
        assert numpy_loss(h2.astype(float), target, h1.astype(float), *options) == pytest.approx(
            case["loss"], rel=1e-12
        )


def test_class_weights_against_a_loop():
    random = np.random.default_rng(0)
    h2, h1 = random.normal(size=(2, 40, 3))
    target, weight = random.integers(3, size=40), np.array([0.2, 1.0, 3.0])
    base = penalty = held = 0.0
    for z2, y, z1 in zip(h2, target, h1, strict=True):
        log_p2, p1 = z2 - np.log(np.exp(z2).sum()), np.exp(z1) / np.exp(z1).sum()
        base -= weight[y] * log_p2[y]
        if z1.argmax() == y:
            penalty -= (weight * p1 * log_p2).sum()
            held += weight[y]
    total = weight[target].sum()
    options = ("cross_entropy", "strict_imitation", 2.0)
    assert numpy_loss(h2, target, h1, *options, weight=weight) == pytest.approx((base + 2 * penalty) / total)
    value = numpy_loss(h2, target, h1, *options, "support", weight=weight)
    assert value == pytest.approx(base / total + 2 * penalty / held)


def row(**changes):
    told = {"title": "t", "summary": "s", "formula": "f", "source": "nobody"}
    return Dissonance("toy", lambda given: given.base, **told, **changes)


def given(**options):
    base, right = np.array([1.0, np.inf, 3.0]), np.array([True, False, True])
    labels = np.array([0, 1, 0])
    return Given(NumpyOperations(), base, lambda goal: base, right, labels, Answer(None, None), None, options)


@pytest.mark.parametrize(
    ("changes", "options", "held", "weighed"),
    [
        ({}, {}, [True, False, True], [1, 0, 3]),
        ({"beta": 2.0}, {}, [True, False, True], [2, 0, 6]),
        ({"alpha": 1.0, "beta": 0.0}, {}, [True, True, True], [1, np.inf, 3]),
        ({"alpha": 1.0, "beta": 5.0}, {}, [True, True, True], [6, np.inf, 18]),
        ({"alpha": 1.0, "beta": 5.0}, {"alpha": 0.5, "beta": 0.25}, [True, True, True], [0.75, np.inf, 2.25]),
        ({"condition": lambda given: given.labels == 1}, {}, [False, True, False], [0, np.inf, 0]),
        ({"condition": lambda given: given.labels == 1, "alpha": 1.0}, {}, [True] * 3, [1, np.inf, 3]),
    ],
)
def test_weights(changes, options, held, weighed):
    for counted in (None, np.array([True, True, False])):
        which, values = weigh(row(**changes), given(**options), counted)
        keep = [True] * 3 if counted is None else counted
        assert which.tolist() == [one and bool(other) for one, other in zip(held, keep, strict=True)]
        assert values.tolist() == [value if kept else 0.0 for value, kept in zip(weighed, keep, strict=True)]


def test_options_of_a_dissonance(monkeypatch):
    margin = Option(0.5, "a number >= 0", lambda value: value >= 0)
    monkeypatch.setitem(DISSONANCES, "toy", row(options={"margin": margin}))
    check_loss("nll", "toy", "batch", {"margin": 1.0, "own": 3}, {"nll": ("own",)})
    with pytest.raises(ValueError, match="margin must be a number >= 0. Received: margin=-1"):
        check_loss("nll", "toy", "batch", {"margin": -1}, {"nll": ("own",)})
    with pytest.raises(TypeError, match="base='nll' with dissonance='toy' has no option 'm'. Known options: 'own'"):
        check_loss("nll", "toy", "batch", {"m": 1}, {"nll": ("own",)})
    with pytest.raises(TypeError, match="no option 'margin'"):
        check_loss("nll", "new_error", "batch", {"margin": 1.0}, {"nll": ("own",)})


def test_a_row_is_in_the_docstrings(monkeypatch):
    options = {"margin": Option(0.5, "a number >= 0", lambda value: value >= 0)}
    monkeypatch.setitem(DISSONANCES, "toy", row(alpha=1.0, beta=5.0, options=options))

    @with_dissonances
    def documented():
        """First line.

        Example:
            >>> documented()
        """

    assert '``"toy"``: s.' in documented.__doc__
    assert "weight :math:`1 + 5 c_i`. nobody." in documented.__doc__
    assert "Option ``margin``: a number >= 0. Defaults to 0.5." in documented.__doc__
    assert documented.__doc__.index("toy") < documented.__doc__.index(">>> documented()")
