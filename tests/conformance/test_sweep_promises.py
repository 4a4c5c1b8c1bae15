"""Sweeps over promises, and with a teacher, a plain h2 or unlabelled inputs, as both sides promise them.

Of Keras in a process that names a backend, of Lightning in any other.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from backends import once
from sweep_sides import VALIDATION, KerasSide, LightningSide, arrays

from bc_core import SweepResults

pytestmark = once


@pytest.fixture(scope="module")
def side():
    return KerasSide() if "KERAS_BACKEND" in os.environ else LightningSide()


@pytest.fixture(scope="module")
def h1(side):
    side.seed(11)
    return side.net()


def run(side, h1, folder, **options):
    given = {"val": VALIDATION, "losses": ["new_error", "imitation"], "lambdas": [0, 2], "train": arrays(), **options}
    return side.sweep(side.net, h1, given.pop("train"), folder, **given)


def rows_of(found):
    """The table without the times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows()]


def same(ours, theirs, tolerance=0.0):
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=tolerance, rtol=0)


# Promises


def test_promises_in_place_of_lambdas(side, h1, tmp_path):
    few = {"losses": "imitation", "promise_options": {"confidence": 0.5}}
    found = run(side, h1, tmp_path / "s", promises=["nfr <= 60%", "nfr <= 50%"], lambdas=None, **few)
    rows = found.rows("val")
    assert [(row["loss"], row["promise"]) for row in rows] == [
        ("imitation", None), ("imitation", "nfr <= 60%"), ("imitation", "nfr <= 50%")
    ]  # fmt: skip
    # Plain training to compare with; a promise has moved its lambda_c, and says how it came out.
    assert rows[0]["lambda_c"] == 0
    assert rows[0]["verdict"] is None
    assert all(row["lambda_c"] not in (0, 1) and row["verdict"] == "met" for row in rows[1:])
    comparison = found.comparison("imitation", promise="nfr <= 50%")
    assert comparison.lambda_c == rows[2]["lambda_c"]
    assert found.model_path("imitation", promise="nfr <= 50%").exists()
    chosen = found.best("nfr <= 99%")
    assert chosen.promise in (None, "nfr <= 60%", "nfr <= 50%")
    assert list(found.comparisons("val")) == ["imitation", "imitation, nfr <= 60%", "imitation, nfr <= 50%"]
    with pytest.raises(KeyError, match=r"finished are 'nfr <= 50%', 'nfr <= 60%'"):
        found.comparison("imitation", promise="nfr <= 1%")
    # The same call goes on: with another promise, and with lambdas too.
    more = run(side, h1, tmp_path / "s", promises="nfr <= 40%", lambdas=[1], **few)
    assert [point.promise for point in more.points] == [None, "nfr <= 60%", "nfr <= 50%", None, "nfr <= 40%"]
    again = SweepResults.open(tmp_path / "s")
    assert rows_of(again) == rows_of(more)
    assert again.plot() is not None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"promises": []}, ValueError, "at least one promise"),
        ({"promises": ["nfr <= 1%"], "val": None}, ValueError, r"sweep with val=\.\.\., or promise_data"),
        ({"promises": ["accuracy_h2 >= 90%"]}, ValueError, "not kept by a larger lambda_c"),
        ({"promise_options": {"keep": "last"}}, TypeError, "promise_options without promises"),
        ({"losses": ["churn"], "lambdas": [0, 2]}, ValueError, "at most 1"),
    ],
)
def test_promises_that_cannot_be_swept_are_refused(side, h1, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(side, h1, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_each_loss_has_a_grid_that_it_may_have(side, h1, tmp_path):
    found = run(side, h1, tmp_path / "s", losses=["churn", "imitation"], lambdas=None, epochs=1)
    grids = {loss: [row["lambda_c"] for row in found.rows("val") if row["loss"] == loss] for loss in found.losses}
    assert grids == {"churn": [0, 0.25, 0.5, 0.75, 1], "imitation": [0, 0.25, 0.5, 1, 2, 4, 8, 16]}


# Who is imitated, and on what


@pytest.mark.parametrize("who", ["teacher", "plain"])
def test_who_is_imitated_is_asked_once_for_all_points(side, h1, tmp_path, who):
    side.seed(5)
    other = side.counting(side.net())
    options = {"losses": ["new_error", "imitation"], "lambdas": [0, 1, 2], who: other}
    if side.name == "keras":
        options[who] = side.ours.Reference(other, from_logits=False)
    found = run(side, h1, tmp_path / "s", **options)
    # Of training and validation data, and what is looked at when these are stored.
    assert other.rows <= 2 * (40 + 24)
    without = run(side, h1, tmp_path / "without", losses=["new_error", "imitation"], lambdas=[0, 1, 2])
    kept, theirs = ([side.kept(each, loss, 2) for loss in found.losses] for each in (found, without))
    same(kept[0], theirs[0])  # new error imitates nobody
    assert any(np.abs(one - other).max() > 1e-4 for one, other in zip(kept[1], theirs[1], strict=True))
    # Asked live it is the same training.
    live = run(side, h1, tmp_path / "live", store_h1=False, **{**options, "lambdas": [2]})
    same(side.kept(live, "imitation", 2), kept[1], 5e-6)
    with pytest.raises(ValueError, match="another sweep"):
        run(side, h1, tmp_path / "s", **{**options, who: h1})


def test_a_teacher_that_nobody_imitates_is_refused(side, h1, tmp_path):
    with pytest.raises(ValueError, match="imitates nobody"):
        run(side, h1, tmp_path / "s", losses="new_error", teacher=h1)


@pytest.mark.parametrize("mixed", [False, True])
def test_unlabelled_inputs_take_part_in_all_points_but_plain_training(side, h1, tmp_path, mixed):
    x = arrays(16, 9)[0]
    unlabelled = "mixed" if mixed else x if side.name == "keras" else side.loader((x,))
    given = {"losses": "new_error", "lambdas": [0, 1]}
    found, without = (
        run(side, h1, tmp_path / name, unlabelled=one, **given)
        for name, one in (("with", unlabelled), ("without", None))
    )
    same(side.kept(found, "new_error", 0), side.kept(without, "new_error", 0))
    kept, theirs = (side.kept(each, "new_error", 1) for each in (found, without))
    assert any(np.abs(one - other).max() > 1e-4 for one, other in zip(kept, theirs, strict=True))
