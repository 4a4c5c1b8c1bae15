"""Sweeps, as both sides promise them: equal to training by hand, whoever trains and whatever interrupts it.

Of Keras in a process that names a backend, of Lightning in any other.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import warnings

import numpy as np
import pytest
from backends import once
from sweep_sides import EPOCHS, VALIDATION, Hearing, KerasSide, LightningSide, arrays

from bc_core import FullDiskError, SweepFailedError, SweepResults, compare
from bc_core.sweep import _folder


@pytest.fixture(scope="module")
def side():
    return KerasSide() if "KERAS_BACKEND" in os.environ else LightningSide()


@pytest.fixture(scope="module")
def h1(side):
    side.seed(11)
    return side.net()


GRID = {"lambdas": [0, 2], "losses": ["new_error", "strict_imitation"]}


@pytest.fixture(scope="module")
def small(side, h1, tmp_path_factory):
    """A finished sweep of three points, as plain training stands for both losses."""
    return run(side, h1, tmp_path_factory.mktemp("small") / "sweep")


def run(side, h1, folder, **options):
    given = {"val": VALIDATION, "test": arrays(32, 2), "h2": side.net, "train": arrays(), **GRID, **options}
    if given["val"] is None:
        del given["val"]
    return side.sweep(given.pop("h2"), h1, given.pop("train"), folder, **given)


def rows_of(found):
    """The table without the times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows()]


def same(ours, theirs, tolerance=0.0):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=tolerance, rtol=0)


# What is trained


@pytest.mark.parametrize(("loss", "lambda_c"), [(None, 0), ("new_error", 2), ("strict_imitation", 4), ("imitation", 1)])
def test_a_point_is_what_training_by_hand_gives(side, h1, tmp_path, loss, lambda_c):
    name = loss or "new_error"
    found = run(side, h1, tmp_path / "s", lambdas=[lambda_c], losses=[name], seeds=3)
    h2, expected = side.by_hand(h1, arrays(), loss, lambda_c, 3)
    # Kept scores of h1 are those of another batch size: sums of float32 in another order.
    same(side.kept(found, name, lambda_c), expected, 5e-6)
    if side.name == "lightning":
        h1.eval()
    for dataset, given in (("train", (40, 0)), ("val", (24, 1)), ("test", (32, 2))):
        x, y = arrays(*given)
        wanted = compare(y, side.predicted(h1, x), side.predicted(h2, x), num_classes=3)
        comparison = found.comparison(name, lambda_c, dataset=dataset)
        assert (comparison.overlap, comparison.lambda_c, comparison.name) == (wanted.overlap, lambda_c, loss or "plain")
        assert comparison.instances.ids.tolist() == wanted.instances.ids.tolist()


@once
def test_plain_training_is_done_once_and_stands_for_every_loss(small):
    assert [point.loss for point in small.points] == [None, "new_error", "strict_imitation"]
    zero = [row for row in small.rows("test") if row["lambda_c"] == 0]
    assert [row["loss"] for row in zero] == ["new_error", "strict_imitation"]
    assert zero[0]["nfr"] == zero[1]["nfr"]


def test_points_depend_neither_on_order_nor_on_each_other(side, h1, small, tmp_path):
    alone = run(side, h1, tmp_path / "s", lambdas=[2], losses=["strict_imitation"])
    same(side.kept(alone, "strict_imitation", 2), side.kept(small, "strict_imitation", 2))
    assert alone.comparison("strict_imitation", 2) == small.comparison("strict_imitation", 2)


@once
def test_seeds_differ_and_may_be_added_in_any_order(side, h1, tmp_path):
    given = {"lambdas": [0], "losses": ["new_error"], "val": None}
    run(side, h1, tmp_path / "s", seeds=3, **given)
    found = run(side, h1, tmp_path / "s", seeds=[1, 3], **given)
    assert sorted(point.seed for point in found.points) == [1, 3]
    first, second = (side.kept(found, "new_error", 0, seed) for seed in (1, 3))
    assert not np.allclose(first[0], second[0])


def test_the_model_itself_is_copied_with_its_weights_and_stays_as_it_is(side, h1, tmp_path):
    h2 = side.net()
    before = side.weights(h2)
    found = run(side, h1, tmp_path / "s", h2=h2, rate=0.0)
    same(side.weights(h2), before)
    for point in (("new_error", 0), ("new_error", 2), ("strict_imitation", 2)):
        same(side.kept(found, *point), before)


def test_the_callers_random_numbers_go_on_undisturbed(side, h1, tmp_path):
    def drawn(between):
        side.seed(5)
        between()
        return side.drawn()

    assert drawn(lambda: None) == drawn(lambda: run(side, h1, tmp_path / "s", lambdas=[0]))


@once
def test_h1_is_asked_once_about_each_row_for_the_whole_sweep(side, h1, tmp_path):
    counting = side.counting(h1)
    run(side, counting, tmp_path / "s", val=None)
    assert counting.rows == 40 + 32 + side.asked_more


def test_a_training_that_diverges_is_a_failure(side, h1, tmp_path):
    with pytest.raises(SweepFailedError, match="diverged"):
        run(side, h1, tmp_path / "s", lambdas=[0], rate=1e30)


@once
def test_losses_have_the_names_that_they_are_given(side, h1, tmp_path):
    run(side, h1, tmp_path / "s", losses={"mine": "new_error"})
    with pytest.raises(ValueError, match="another sweep: .*loss mine was .*new_error.*, and is now .*imitation"):
        run(side, h1, tmp_path / "s", losses={"mine": "imitation"}, lambdas=[4])


# The folder


@once
def test_more_points_may_be_added_to_a_folder(side, h1, small, tmp_path):
    first = run(side, h1, tmp_path / "s", lambdas=[0], losses=["new_error"])
    assert len(first.points) == 1
    began = time.time()
    assert rows_of(run(side, h1, tmp_path / "s")) == rows_of(small)
    assert (tmp_path / "s/points/plain,lambda_c=0.0,seed=0/result.json").stat().st_mtime < began


@once
def test_a_finished_sweep_is_read_and_not_trained_again(side, h1, tmp_path):
    first = run(side, h1, tmp_path / "s")
    assert first.rows() == run(side, h1, tmp_path / "s").rows()
    assert first.status == 1


@once
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": arrays(seed=9)}, "train data was"),
        ({"test": arrays(32, 9)}, "test data was"),
        ({"epochs": 3}, "(trainer|fit) was .*epochs: 2.*is now .*epochs: 3"),
        ({"rate": 0.3}, "(optimizer|compile) was"),
        ({"class_names": ["a", "b", "c"]}, "class_names was None"),
        ({"performance_metric": lambda *_: 0.5}, "performance_metric was None"),
        ({"evaluate_on_train": False}, "evaluated on training data was True"),
    ],
)
def test_a_folder_of_another_sweep_is_refused_and_says_what_differs(side, h1, small, changes, says):
    with pytest.raises(ValueError, match=f"another sweep: .*{says}"):
        run(side, h1, small.path, **changes)


@once
def test_another_h1_or_h2_is_another_sweep(side, h1, small):
    with pytest.raises(ValueError, match="h1 was"):
        run(side, side.net(), small.path)
    with pytest.raises(ValueError, match="h2 before training was"):
        run(side, h1, small.path, h2=side.net())


@once
def test_a_folder_with_other_files_is_refused(side, h1, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds no sweep, but thesis\.tex"):
        run(side, h1, tmp_path)


@once
def test_two_sweeps_never_write_into_one_folder(side, h1, small):
    with _folder.SweepFolder(small.path).locked(), pytest.raises(RuntimeError, match="is at work in"):
        run(side, h1, small.path)


# Errors and interruptions


def failing_above(limit):
    def fail(epoch, lambda_c):
        if lambda_c > limit:
            raise ArithmeticError("no such epoch")

    return fail


@pytest.fixture
def _travelling_tests():
    """This file is no module that a worker could import."""
    cloudpickle = pytest.importorskip("cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@once
@pytest.mark.usefixtures("_travelling_tests")
@pytest.mark.parametrize("options", [{}, pytest.param({"engine": "processes", "workers": 1}, marks=pytest.mark.slow)])
def test_an_error_in_one_point_is_reported_and_the_others_finish(side, h1, tmp_path, options):
    given = {"lambdas": [0, 1, 16], "losses": ["new_error"], "within": failing_above(5), **options}
    # A second time it is tried again, which is the same wherever it was tried.
    for _ in range(1 if options else 2):
        with pytest.warns(RuntimeWarning, match="1 of 3 points failed.*no such epoch"):
            found = run(side, h1, tmp_path / "s", **given)
    assert [failure.point.lambda_c for failure in found.failures] == [16]
    assert "ArithmeticError: no such epoch" in found.failures[0].traceback
    assert [point.lambda_c for point in found.points] == [0, 1]
    assert found.status == 1


@once
def test_where_all_fail_the_reason_is_raised(side, h1, tmp_path):
    with pytest.raises(SweepFailedError, match="All 2 points failed.*no such epoch"):
        run(side, h1, tmp_path / "s", lambdas=[16], within=failing_above(5))


@once
def test_a_full_disk_ends_the_sweep_and_keeps_what_is_finished(side, h1, small, tmp_path, monkeypatch):
    write, written = _folder.write_whole, []

    def until_full(path, content):
        if path.name == "result.json":
            written.append(path)
            if len(written) > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    monkeypatch.setattr(_folder, "write_whole", until_full)
    with pytest.raises(FullDiskError, match=r"The finished points are kept: make room"):
        run(side, h1, tmp_path / "s")
    monkeypatch.undo()
    assert len(SweepResults.open(tmp_path / "s").points) == 2
    assert not list((tmp_path / "s/running").iterdir())
    assert rows_of(run(side, h1, tmp_path / "s")) == rows_of(small)


@once
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_sweep_and_the_same_call_goes_on(side, h1, tmp_path, capsys):
    # Whoever calls back makes Keras validate, which draws random numbers.
    whole = run(side, h1, tmp_path / "whole", within=lambda epoch, lambda_c: None)
    epochs = []

    def interrupt(epoch, lambda_c):
        epochs.append(epoch)
        # In the middle of the second point.
        if len(epochs) == EPOCHS + 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(side, h1, tmp_path / "s", within=interrupt)
    assert "1 of 3 points are finished and kept" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    found = run(side, h1, tmp_path / "s", within=interrupt)
    # The second began anew.
    assert len(epochs) == 3 * EPOCHS + 1
    assert rows_of(found) == rows_of(whole)


# The caller's metric, ids and classes


@once
@pytest.mark.parametrize("kind", ["float", "float32", "0-d array", "tensor"])
def test_the_callers_metric_is_asked_about_h1_and_h2(side, h1, tmp_path, kind):
    kinds = {"float": float, "float32": np.float32, "0-d array": np.array, "tensor": side.tensor}
    asked = []

    def metric(model, dataset, device):
        asked.append(model)
        return kinds[kind](0.25 if model is h1 else 0.5)

    found = run(side, h1, tmp_path / "s", val=None, lambdas=[0], performance_metric=metric)
    assert {(row["performance_h1"], row["performance_h2"]) for row in found.rows()} == {(0.25, 0.5)}
    assert sum(model is h1 for model in asked) == 2
    # The folder tells it too, and h1 is not asked again.
    run(side, h1, tmp_path / "s", val=None, lambdas=[0, 2], performance_metric=metric)
    assert sum(model is h1 for model in asked) == 2


@once
@pytest.mark.filterwarnings("ignore:performance_metric")
def test_a_metric_that_says_nan_stays_nan(side, h1, tmp_path):
    found = run(side, h1, tmp_path / "s", lambdas=[0], performance_metric=lambda *_: float("nan"))
    assert all(np.isnan(row["performance_h2"]) for row in found.rows())
    assert '"performance": null' in (found.to_original(tmp_path / "o") / "sweep_summary.json").read_text()
    with pytest.raises(LookupError):
        found.best(dataset="test", maximize="performance_h2")


@once
def test_a_metric_that_returns_no_number_or_fails_is_told_before_anything_is_trained(side, h1, tmp_path):
    with pytest.raises(TypeError, match=r"must return one number for h1 .*Received: 'good'"):
        run(side, h1, tmp_path / "text", lambdas=[0], performance_metric=lambda *_: "good")

    def broken(model, dataset, device):
        raise KeyError("label")

    with pytest.raises(ValueError, match=r"performance_metric\(h1, train data, 'cpu'\) raised KeyError: 'label'"):
        run(side, h1, tmp_path / "s", lambdas=[0], performance_metric=broken)
    assert not SweepResults(tmp_path / "s").points


@once
def test_a_class_that_is_absent_has_no_instances(side, h1, tmp_path):
    x, y = arrays(32, 5)
    given = {"lambdas": [2], "losses": ["new_error"], "val": None, "class_names": ["a", "b", "c"]}
    comparison = run(side, h1, tmp_path / "s", test=(x[y != 1], y[y != 1]), **given).comparison("new_error", 2)
    assert comparison.class_names == ("a", "b", "c")
    assert comparison.overlap.total_by_class.tolist()[1] == 0


@once
def test_texts_are_asked_for_by_id(side, h1, tmp_path):
    found = run(side, h1, tmp_path / "s", lambdas=[2], losses=["new_error"], metadata=lambda id: f"text of {id}")
    table = found.comparison("new_error", 2).instances
    assert len(table)
    assert all(row["metadata"] == f"text of {row['id']}" for row in table)


# Trackers


@once
def test_tensorboard_has_the_points_and_their_curves(side, h1, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = run(side, h1, tmp_path / "s", tensorboard=True, lambdas=[0, 2], losses=["new_error"])
    rows = {row["lambda_c"]: row for row in found.rows("test")}
    for point in found.points:
        folder = found.path / "tensorboard" / point.name
        summary, curves = (EventAccumulator(str(place)).Reload() for place in (folder, folder / "training"))
        assert "hparams" in {each.plugin_data.plugin_name for each in summary.summary_metadata.values()}
        assert "hparams" not in {each.plugin_data.plugin_name for each in curves.summary_metadata.values()}
        tags = curves.Tags()
        assert any("loss" in tag for tag in (*tags["scalars"], *tags["tensors"]))
        tags = summary.Tags()
        [entry] = summary.Tensors("test/btc") if "test/btc" in tags["tensors"] else summary.Scalars("test/btc")
        value = entry.value if hasattr(entry, "value") else entry.tensor_proto.float_val[0]
        assert value == pytest.approx(rows[point.lambda_c]["btc"], abs=1e-6)  # written in float32


@once
def test_a_tensorboard_that_cannot_be_written_costs_no_training(side, h1, small, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from bc_tensorboard.writing import _sweep_log

    def broken(*_):
        raise RuntimeError("no such file system")

    monkeypatch.setattr(_sweep_log, "write_point", broken)
    with pytest.warns(
        RuntimeWarning,
        match="SweepLog failed at point_trained, and the sweep goes on: .*no such",
    ):
        found = run(side, h1, tmp_path / "s", tensorboard=True)
    assert rows_of(found) == rows_of(small)


@once
def test_trackers_of_ones_own_hear_of_the_sweep_and_cost_no_training(side, h1, tmp_path):
    of_a_point = ["point_begun", "point_trained", "point_finished"]
    for fails_at in (None, *of_a_point, "finish"):
        tracker = Hearing(fails_at)
        given = {"losses": ["new_error"], "trackers": [tracker]}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = run(side, h1, tmp_path / str(fails_at), **given)
        assert len(found.points) == 2
        assert tracker.heard == ["begin", *of_a_point, *of_a_point, "finish"]
        told = [str(each.message) for each in caught if "the sweep goes on" in str(each.message)]
        assert set(told) == (
            {f"Hearing failed at {fails_at}, and the sweep goes on: OSError: no such place"}
            - {"Hearing failed at None, and the sweep goes on: OSError: no such place"}
        )
    with pytest.raises(OSError, match="no such place"):
        run(side, h1, tmp_path / "begin", losses=["new_error"], trackers=[Hearing("begin")])
    assert not SweepResults(tmp_path / "begin").points


# Engines


@pytest.mark.slow
@pytest.mark.usefixtures("_travelling_tests")
def test_processes_find_what_this_process_finds(side, h1, small, tmp_path):
    pytest.importorskip("loky")
    assert rows_of(run(side, h1, tmp_path / "s", engine="processes", workers=2)) == rows_of(small)


# What is refused


@once
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lambdas": [-1]}, ValueError, "finite number >= 0"),
        ({"lambdas": []}, ValueError, "at least one lambda_c"),
        ({"lambdas": "0.5"}, TypeError, "list of numbers"),
        ({"seeds": [0.5]}, TypeError, "whole numbers"),
        ({"seeds": []}, ValueError, "at least one seed"),
        (
            {"losses": ["new-error"]},
            ValueError,
            "losses must be of 'new_error', .*; perhaps 'new_error'.* Received: 'new",
        ),
        ({"losses": []}, ValueError, "at least one loss"),
        ({"losses": {1: "new_error"}}, TypeError, "a dictionary of names"),
        ({"losses": 3}, TypeError, "losses must be names"),
        ({"engine": "threads"}, ValueError, "'in_process', 'processes', 'ray'"),
        ({"workers": 2}, ValueError, "engine='processes'"),
        ({"background": True, "engine": "in_process"}, ValueError, "leave engine out"),
        ({"store_h1": "no"}, ValueError, "store_h1 must be True, False or 'auto'"),
        ({"performance_metric": "f1"}, TypeError, "performance_metric must be a function"),
        ({"mlflow": 3}, TypeError, "name of an experiment"),
    ],
)
def test_bad_arguments_are_refused_before_any_training(side, h1, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(side, h1, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


@once
def test_h2_and_train_of_a_wrong_kind_are_refused(side, h1, tmp_path):
    for changes, message in (
        ({"h2": 3}, f"h2 must be {side.called}, or a function that makes one. Received: h2=3"),
        ({"h2": lambda: 3}, rf"h2 must make {side.called}. Received from h2\(\): int"),
        ({"train": None}, f"train is missing: pass {side.train_kind}"),
    ):
        with pytest.raises(TypeError, match=message):
            run(side, h1, tmp_path / "s", **changes)
    assert not (tmp_path / "s").exists()


def test_h2_must_be_new_and_alike_at_each_call(side, h1, tmp_path):
    one, made = side.net(), []
    with pytest.raises(ValueError, match="gave the same one twice"):
        run(side, h1, tmp_path / "same", h2=lambda: one)

    def other():
        made.append(side.net())
        # Random numbers that no seed is set for.
        side.seed(len(made))
        made[-1] = side.net()
        return made[-1]

    with pytest.raises(ValueError, match="made two different ones"):
        run(side, h1, tmp_path / "other", h2=other)
