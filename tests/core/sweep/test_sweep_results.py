"""What a sweep's folder answers: table, choice, plot; against counts and brute force."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest

from bc_core import SweepPoint, SweepResults, clopper_pearson_interval, compare
from bc_core.sweep._folder import SweepFolder, Trained


def made(path, seeds=(0,), datasets=("train", "val", "test"), size=2000, metric=False):
    """A folder of points whose labels are drawn; each point breaks another share of what h1 gets right."""
    rng = np.random.default_rng(0)
    losses, lambdas = ["new_error", "strict_imitation"], [0.0, 1.0, 4.0, 16.0]
    points = list(
        dict.fromkeys(
            SweepPoint(None if value == 0 else loss, value, seed)
            for seed, value, loss in itertools.product(seeds, lambdas, losses)
        )
    )
    folder = SweepFolder(path)
    folder.begin({"h1": "abc"}, losses, points)
    y = {name: rng.integers(0, 3, size) for name in datasets}
    h1 = {name: np.where(rng.random(size) < 0.8, labels, (labels + 1) % 3) for name, labels in y.items()}
    for point in points:
        broken = {0.0: 0.05, 1.0: 0.02, 4.0: 0.01, 16.0: 0.001}[point.lambda_c] * rng.uniform(0.8, 1.2)
        mended = {0.0: 0.6, 1.0: 0.55, 4.0: 0.5, 16.0: 0.1}[point.lambda_c] * rng.uniform(0.9, 1.1)
        comparisons = {}
        for name, labels in y.items():
            right = h1[name] == labels
            keeps = np.where(right, rng.random(size) >= broken, rng.random(size) < mended)
            h2 = np.where(keeps, labels, (labels + 2) % 3)
            comparisons[name] = compare(labels, h1[name], h2, num_classes=3, lambda_c=point.lambda_c)
        performances = dict.fromkeys(datasets, (0.5, point.lambda_c)) if metric else {}
        folder.train(point, lambda *_, c=comparisons, p=performances: Trained(c, p))
    return SweepResults.open(path)


def test_the_table_holds_the_scores_of_every_comparison(tmp_path):
    found = made(tmp_path, seeds=(0, 1))
    table = found.table()
    assert len(table) == 2 * 2 * 4 * 3  # seeds, losses, lambdas, data sets
    for row in found.rows("val"):
        overlap = found.comparison(row["loss"], row["lambda_c"], row["seed"], "val").overlap
        assert (row["btc"], row["nfr"], row["accuracy_h2"]) == (overlap.btc, overlap.nfr, overlap.accuracy_h2)
        assert row["negative_flips"] == round(row["nfr"] * row["instances"])


@pytest.mark.parametrize("limit", [0.005, 0.02, 0.05, 0.1])
def test_best_is_the_most_accurate_whose_bound_keeps_the_limit(tmp_path, limit):
    found = made(tmp_path)
    passing = [
        (row["accuracy_h2"], row["loss"], row["lambda_c"])
        for row in found.rows("val")
        if clopper_pearson_interval(row["negative_flips"], row["instances"], 0.95, "upper")[1] <= limit
    ]
    if not passing:
        with pytest.raises(LookupError, match="No point keeps nfr <= "):
            found.best(f"nfr <= {limit:%}")
        return
    choice = found.best(f"nfr <= {limit:%}")
    best = max(passing)
    assert choice.overlap.accuracy_h2 == best[0]
    assert choice.lambda_c == best[2]
    assert choice.test == found.comparison(choice.loss, choice.lambda_c, dataset="test").overlap
    assert choice.comparison.overlap == choice.overlap
    assert "bound" in str(choice)


def test_a_promise_that_nobody_can_be_sure_to_keep_says_why(tmp_path):
    few = made(tmp_path / "few", size=50)
    with pytest.raises(LookupError, match="50 instances are too few"):
        few.best("nfr <= 0.5%")
    many = made(tmp_path / "many")
    with pytest.raises(LookupError, match="Try larger values of lambda_c"):
        many.best("accuracy_h2 >= 0.999")


def test_a_constraint_on_a_score_without_instances_says_so(tmp_path):
    folder = SweepFolder(tmp_path)
    point = SweepPoint(None, 0.0, 0)
    folder.begin({"h1": "never right"}, ["new_error"], [point])
    comparison = compare([0, 1, 2], [1, 2, 0], [0, 1, 2], num_classes=3)
    folder.train(point, lambda *_: Trained({"val": comparison}, {}))
    with pytest.raises(LookupError, match="btc is undefined at every point on the data set 'val'"):
        SweepResults.open(tmp_path).best("btc >= 0.98")


def test_all_constraints_hold_at_once(tmp_path):
    found = made(tmp_path)
    choice = found.best("nfr <= 5%", "btc >= 0.98")
    rows = [
        row
        for row in found.rows("val")
        if found.comparison(row["loss"], row["lambda_c"], dataset="val").overlap.gate("nfr", 0.05) == "pass"
        and found.comparison(row["loss"], row["lambda_c"], dataset="val").overlap.gate("btc", 0.98) == "pass"
    ]
    assert choice.overlap.accuracy_h2 == max(row["accuracy_h2"] for row in rows)


@pytest.mark.parametrize(("score", "sign"), [("btc", 1), ("nfr", -1)])
def test_the_front_is_what_no_other_point_beats(tmp_path, score, sign):
    found = made(tmp_path, seeds=(0, 1, 2))
    table = found.table("val").groupby(["loss", "lambda_c"], as_index=False)[[score, "accuracy_h2"]].mean()
    points = [(sign * row[score], row["accuracy_h2"]) for _, row in table.iterrows()]
    expected = {(a, b) for a, b in points if not any((c >= a and d > b) or (c > a and d >= b) for c, d in points)}
    front = found.pareto(score=score)
    found_points = sorted((sign * a, b) for a, b in zip(front[score], front["accuracy_h2"], strict=True))
    np.testing.assert_allclose(found_points, sorted(expected), rtol=1e-12)  # means, summed in another order
    assert set(front["seeds"]) == {3}


def test_choosing_needs_validation_data_or_a_word(tmp_path):
    found = made(tmp_path, datasets=("train", "test"))
    with pytest.raises(ValueError, match=r'no validation data.*dataset="test"'):
        found.best("nfr <= 5%")
    assert found.best("nfr <= 5%", dataset="test").test is None


@pytest.mark.parametrize(
    ("constraint", "error", "message"),
    [
        ("nfr < 0.5%", ValueError, 'Write "nfr <= 0.5%"'),
        ("nfr >= 0.5%", ValueError, 'Write "nfr <= 0.5%"'),
        ("btc >= 98", ValueError, "share from 0 to 1"),
        ("speed >= 0.5", ValueError, "Unknown score"),
        ("accuracy >= 0.5", ValueError, "Did you mean accuracy_h2"),
        ("bec_given_h1_wrong >= 0.5", ValueError, "neither high nor low"),
        ("low nfr", ValueError, "reads like"),
        (0.5, TypeError, "is a text"),
    ],
)
def test_constraints_that_cannot_be_read(tmp_path, constraint, error, message):
    with pytest.raises(error, match=message):
        made(tmp_path).best(constraint)


def test_the_callers_metric_can_decide(tmp_path):
    found = made(tmp_path, metric=True)
    assert found.best("nfr <= 10%", maximize="performance_h2").lambda_c == 16
    with pytest.raises(ValueError, match="given no metric"):
        made(tmp_path / "without").best(maximize="performance_h2")


def test_unknown_points_name_what_there_is(tmp_path):
    found = made(tmp_path, seeds=(0, 1))
    with pytest.raises(KeyError, match="has the seeds 0, 1: say which"):
        found.comparison("new_error", 4)
    with pytest.raises(KeyError, match="of this one lambda_c = 0.0, 1.0, 4.0, 16.0"):
        found.comparison("new_error", 5, 0)
    with pytest.raises(ValueError, match="There are 'train', 'val', 'test'"):
        found.table("validation")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_plot_has_a_line_for_each_loss_and_h1(tmp_path, dark, seeds):
    found = made(tmp_path / "sweep", seeds=seeds)
    figure = found.plot(tmp_path / "new" / "plot.png", dataset="test", score="nfr", dark=dark)
    assert (tmp_path / "new/plot.png").read_bytes().startswith(b"\x89PNG")
    [axes] = figure.axes
    drawn = [set(np.round(line.get_ydata(), 6)) for line in axes.lines]
    means = found.table("test").groupby(["loss", "lambda_c"])["accuracy_h2"].mean()
    for loss in found.losses:
        wanted = {round(float(value), 6) for value in means[loss]}
        assert any(wanted <= line or wanted <= {round(v / 100, 6) for v in line} for line in drawn), loss


def test_the_html_page_has_a_run_for_each_loss(tmp_path):
    page = made(tmp_path / "sweep").to_html(tmp_path / "sweep.html").read_text()
    assert "strict_imitation" in page
    assert "lambda_c" in page


def test_the_html_page_is_told_of_the_seed_and_of_the_caller_s_metric(tmp_path):
    found = made(tmp_path / "sweep", seeds=(0, 1), size=200, metric=True)
    page = found.to_html(tmp_path / "sweep.html").read_text()
    content = re.search(r'id="bc-data">(.*?)</script>', page)[1]
    rows = {(row["loss"], row["lambda_c"], row["seed"], row["dataset"]): row for row in found.rows()}
    series = json.loads(content)["index"]["series"]
    assert len(series) == len(rows)
    for each in series:
        loss, seed = re.match(r"(\w+), seed (\d)", each["run"]).groups()
        row = rows[loss, each["steps"][0][2], int(seed), each["dataset"]]
        assert each["settings"] == {"seed": row["seed"]}
        assert each["performance"] == [row["performance_h1"], row["performance_h2"]] == [0.5, row["lambda_c"]]
