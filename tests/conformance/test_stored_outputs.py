"""h1's outputs, computed once: right rows, for the right items, of the right h1, also after an interruption.

What both sides promise: of Keras in a process that names a backend, of Lightning in any other.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_sides import CLASSES, Keras, Lightning, PressesCtrlC, Service

from bc_core import FullDiskError
from bc_core.reference import _stored_rows

N = 37
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module", params=[Keras if "KERAS_BACKEND" in os.environ else Lightning])
def side(request):
    return request.param()


def data(n: int = N, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(CLASSES, size=n)


def rows(stored: Any) -> np.ndarray:
    return np.asarray(stored[:])


def done(path: Path) -> int:
    return int(np.load(path / "done.npy").sum())


def change_header(path: Path, **entries: Any) -> None:
    file = path / "header.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.fixture
def stored(side, tmp_path):
    return side.store(Service(), *data(), tmp_path / "stored", batch_size=8)


# Computing


def test_rows_are_those_of_h1_in_inference_mode(side, tmp_path):
    h1, (x, y) = side.model(), data()
    expected, before = side.by_hand(h1, x), side.weights(h1)
    stored = side.store(h1, x, y, tmp_path / "s", batch_size=8)
    np.testing.assert_allclose(rows(stored), expected, **ROUNDING)
    assert rows(stored).dtype == np.float32
    assert (len(stored), stored.shape, stored.num_classes, stored.labels_only) == (N, (N, CLASSES), CLASSES, False)
    assert stored.fingerprint == side.fingerprint(h1)
    assert all(np.array_equal(was, now) for was, now in zip(before, side.weights(h1), strict=True))


@pytest.mark.parametrize(("dtype", "kept"), [("float64", "float64"), ("float16", "float32"), ("bfloat16", "float32")])
def test_types_are_widened_never_narrowed(side, tmp_path, dtype, kept):
    x, y = data()
    # Whole numbers are the same in each of these types.
    x = np.rint(x * 8)
    stored = side.store(lambda x: side.cast(x, dtype), x, y, tmp_path / "s")
    assert rows(stored).dtype == kept
    np.testing.assert_array_equal(rows(stored), x)


def test_labels_and_binary_scores_can_be_stored(side, tmp_path):
    x, y = data()
    labels = side.store(side.argmax, x, y, tmp_path / "labels")
    assert (labels.labels_only, labels.num_classes, rows(labels).dtype) == (True, None, np.int64)
    np.testing.assert_array_equal(rows(labels), x.argmax(1))
    binary = side.store(lambda x: x[:, 0], x, y, tmp_path / "binary")
    assert (binary.shape, binary.labels_only, binary.num_classes) == ((N,), False, None)


def test_labels_of_every_position_have_no_class_columns(side, tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 4, 6)).astype("float32")
    dense = side.store(side.argmax, x, None, tmp_path / "s")
    assert (dense.shape, dense.labels_only, dense.num_classes) == ((5, 6), True, None)


# Reusing and resuming


def test_finished_outputs_are_reused(side, tmp_path):
    h1 = Service()
    first = side.store(h1, *data(), tmp_path / "s")
    asked = h1.asked
    assert asked == N + side.asked_first
    again = side.store(h1, *data(), tmp_path / "s")
    # Eight items are asked about again, to be sure.
    assert h1.asked - asked == _stored_rows.SAMPLED_ITEMS
    assert np.array_equal(rows(first), rows(again))


def test_interrupted_work_is_taken_up_where_it_stopped(side, tmp_path):
    (x, y), path = data(), tmp_path / "s"
    with pytest.raises(RuntimeError, match="power cut"):
        side.store(Service(limit=18 + side.asked_first), x, y, path, batch_size=4)
    assert done(path) == 16
    with pytest.raises(ValueError, match=r"incomplete, 16 of 37 rows: call store_outputs again"):
        side.StoredOutputs.open(path)
    rest = Service()
    stored = side.store(rest, x, y, path, batch_size=4)
    assert rest.asked == N - 16 + _stored_rows.SAMPLED_ITEMS
    assert np.array_equal(rows(stored), 2 * x)
    assert np.array_equal(side.read(stored, x, y), 2 * x)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_is_a_keyboard_interrupt_and_keeps_what_was_done(side, tmp_path):
    (x, y), path = data(), tmp_path / "s"
    h1 = PressesCtrlC()
    # Also the second time.
    for press in (1, 2):
        h1.limit = h1.asked + 18
        with pytest.raises(KeyboardInterrupt):
            side.store(h1, x, y, path, batch_size=4)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert done(path) >= 8 * press
    before = h1.asked
    assert np.array_equal(rows(side.store(h1, x, y, path, batch_size=4)), 2 * x)
    assert h1.asked - before < N


def test_work_stopped_before_its_last_line_is_finished(side, stored):
    change_header(stored.path, complete=False)
    h1 = Service()
    assert np.array_equal(rows(side.store(h1, *data(), stored.path)), rows(stored))
    assert h1.asked == _stored_rows.SAMPLED_ITEMS
    assert json.loads((stored.path / "header.json").read_text())["complete"]


def test_files_without_a_header_are_begun_anew(side, stored):
    (stored.path / "header.json").unlink()
    assert np.array_equal(rows(side.store(Service(), *data(), stored.path)), 2 * data()[0])


def test_another_h1_or_data_set_is_refused_unless_overwritten(side, tmp_path):
    (x, y), h1, path = data(), side.model(), tmp_path / "s"
    side.store(h1, x, y, path)
    with pytest.raises(ValueError, match=r"outputs of another h1: .*overwrite=True"):
        side.store(side.model(5), x, y, path)
    with pytest.raises(ValueError, match=r"another data set, of 37 items where this one has 36; .*overwrite=True"):
        side.store(h1, *data(36), path)
    with pytest.raises(ValueError, match=r"another data set; .*overwrite=True.*item \d+"):
        side.store(h1, *data(seed=2), path)
    stored = side.store(side.model(5), *data(36, seed=2), path, overwrite=True)
    np.testing.assert_allclose(rows(stored), side.by_hand(side.model(5), data(36, seed=2)[0]), **ROUNDING)


def test_a_callable_of_the_same_name_with_other_answers_is_refused(side, stored):
    with pytest.raises(ValueError, match=r"h1 now answers otherwise about item \d+"):
        side.store(Service(factor=3), *data(), stored.path)


def test_folders_of_somebody_else_are_left_alone(side, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds no stored outputs; give an empty or new folder"):
            side.store(Service(), *data(), tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "header.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a header of stored outputs"):
        side.store(Service(), *data(), tmp_path, overwrite=True)


def test_a_second_store_into_one_folder_is_told_at_once(side, tmp_path):
    told = []

    class Nested(Service):
        def __call__(self, x):
            with pytest.raises(RuntimeError, match="is at work in") as caught:
                side.store(Service(), *data(), tmp_path / "s")
            told.append(caught.value)
            return super().__call__(x)

    stored = side.store(Nested(), *data(), tmp_path / "s", batch_size=8)
    assert told
    assert np.array_equal(rows(stored), 2 * data()[0])


def test_no_room_for_all_rows_is_told_before_the_work(side, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    h1 = Service()
    with pytest.raises(FullDiskError, match="37 items need .* Make room") as caught:
        side.store(h1, *data(), tmp_path / "s", batch_size=8)
    assert isinstance(caught.value, OSError)
    assert h1.asked == side.asked_before_room
    monkeypatch.undo()
    assert np.array_equal(rows(side.store(h1, *data(), tmp_path / "s")), 2 * data()[0])


# Refusals while computing


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_refused_by_item(side, tmp_path, bad):
    x, y = data()
    x[29, 2] = bad
    with pytest.raises(ValueError, match="output for item 29 is NaN or infinite"):
        side.store(Service(), x, y, tmp_path / "s", batch_size=8)


def test_wrong_numbers_of_rows_are_refused(side, tmp_path):
    with pytest.raises(ValueError, match=r"returned \(1, 4\) for items 0 to 7, expected \(8, 4\)"):
        side.store(lambda x: x[:1], *data(), tmp_path / "s", batch_size=8)


def test_stored_outputs_cannot_be_asked_and_batches_have_items(side, tmp_path):
    with pytest.raises(TypeError, match="give the old model itself"):
        side.store(side.StoredOutputs.from_table([0, 1]), *data(), tmp_path / "s")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        side.store(Service(), *data(), tmp_path / "s", batch_size=0)
    with pytest.raises(ValueError, match="data set is empty"):
        side.store(Service(), *data(0), tmp_path / "s")
    assert not (tmp_path / "s").exists()


# Opening


def test_opening_and_verifying_check_h1_and_the_items(side, tmp_path):
    h1, (x, y) = side.model(), data()
    stored = side.store(h1, x, y, tmp_path / "s")
    for path in (stored.path, str(stored.path)):
        assert np.array_equal(rows(side.StoredOutputs.open(path, h1=h1)), rows(stored))
    with pytest.raises(ValueError, match="outputs of another h1"):
        side.StoredOutputs.open(stored.path, h1=side.model(4))
    side.verify(stored, h1, x, y)
    with pytest.raises(ValueError, match="outputs of another h1"):
        side.verify(stored, side.model(2), x, y)
    with pytest.raises(ValueError, match="is not the one that h1's output was stored for"):
        side.verify(stored, h1, data(seed=2)[0], y)
    with pytest.raises(ValueError, match="has 36 items, but h1's outputs were stored for 37"):
        side.verify(stored, h1, x[:36], y[:36])


def test_opening_refuses_what_is_no_store(side, tmp_path, stored):
    with pytest.raises(FileNotFoundError, match="make it with store_outputs"):
        side.StoredOutputs.open(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"header\.json is missing"):
        side.StoredOutputs.open(tmp_path / "empty")
    version = json.loads((stored.path / "header.json").read_text())["version"]
    change_header(stored.path, version=99)
    with pytest.raises(ValueError, match="version 99 of the format"):
        side.StoredOutputs.open(stored.path)
    change_header(stored.path, version=version, shape=[N, 9])
    with pytest.raises(ValueError, match="the folder is damaged"):
        side.StoredOutputs.open(stored.path)


def test_a_folder_of_the_other_side_is_refused(side, tmp_path):
    other = {"bc_keras": "bc_lightning", "bc_lightning": "bc_keras"}[side.name]
    _stored_rows.RowFolder(tmp_path, f"{other}.stored_outputs").create("h1", 2, (3,), np.float32)
    with pytest.raises(ValueError, match="is not a header of stored outputs"):
        side.StoredOutputs.open(tmp_path)


def test_outputs_of_version_1_are_opened_and_verified(side):
    path = Path(__file__).parents[1] / "data" / "stored_outputs_version_1" / side.name
    h1 = side.linear((np.arange(12, dtype="float32").reshape(4, 3) - 5) / 4)
    x = np.arange(36, dtype="float32").reshape(9, 4) / 8
    stored = side.StoredOutputs.open(path, h1)
    side.verify(stored, h1, x)
    np.testing.assert_allclose(rows(stored), side.by_hand(h1, x), rtol=1e-6)


@pytest.mark.parametrize("indices", [3, -1, [3, 5], np.array([3, 5]), slice(2, 9), range(3)])
def test_rows_are_read_by_any_index_as_copies(side, stored, indices):
    expected = 2 * data()[0][indices if isinstance(indices, slice) else np.asarray(indices)]
    given = stored[indices]
    assert np.array_equal(np.asarray(given), expected)
    given[:] = 0
    assert np.array_equal(np.asarray(stored[indices]), expected)
    if isinstance(indices, (int, list)):
        assert np.array_equal(np.asarray(stored[side.tensor(indices)]), expected)


def test_pickles_hold_the_path_and_not_the_rows(side, stored):
    pickled = pickle.dumps(stored)
    assert len(pickled) < 400 < rows(stored).nbytes
    again = pickle.loads(pickled)
    assert type(again) is side.StoredOutputs
    assert np.array_equal(rows(again), rows(stored))
    table = side.StoredOutputs.from_table([1, 0, 2])
    assert np.array_equal(rows(pickle.loads(pickle.dumps(table))), rows(table))
    assert pickle.loads(pickle.dumps(table)).fingerprint == table.fingerprint


# Damage


def test_damaged_rows_are_found_when_read_and_computed_again(side, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 64)).astype("float32"), np.zeros(2000, np.int64)
    side.store(Service(), x, y, tmp_path / "s")
    with open(tmp_path / "s" / "outputs.npy", "r+b") as file:
        file.seek(8192)
        file.write(b"\0" * 4096)
    stored = side.StoredOutputs.open(tmp_path / "s")
    reads: list[Callable[[], Any]] = [
        lambda: stored[:],
        lambda: side.read(stored, x, y),
        lambda: side.verify(stored, Service(), x, y),
    ]
    for read in reads:
        with pytest.raises(ValueError, match="row of item 31 is not the one that was written"):
            read()
    # The remedy that is named, which asks about the damaged rows and a few others.
    h1 = Service()
    again = side.store(h1, x, y, tmp_path / "s")
    side.verify(again, Service(), x, y)
    assert np.array_equal(rows(again), x * 2)
    assert h1.asked < 50


@pytest.mark.parametrize("name", ["outputs.npy", "header.json", "item_hashes.npy", "checksums.npy"])
@pytest.mark.parametrize("length", [0, 50])
def test_files_that_were_cut_off_name_the_remedy_and_it_works(side, stored, name, length):
    os.truncate(stored.path / name, length)
    reads: list[Callable[[], Any]] = [
        lambda: side.StoredOutputs.open(stored.path),
        lambda: side.store(Service(), *data(), stored.path),
    ]
    for read in reads:
        with pytest.raises(ValueError, match=rf"damaged.*{name}|{name} is damaged") as caught:
            read()
        assert "store_outputs(..., overwrite=True)" in str(caught.value)
    again = side.store(Service(), *data(), stored.path, overwrite=True)
    assert np.array_equal(rows(again), 2 * data()[0])


def test_a_changed_hash_is_told_as_damage_and_not_as_another_item(side, stored):
    path = stored.path / "item_hashes.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(ValueError, match="is damaged: the row of item 36"):
        side.read(side.StoredOutputs.open(stored.path), *data())


# Attaching


@pytest.mark.parametrize("item", [i for i in range(N) if i not in _stored_rows.sampled(N)][:: N // 3])
def test_a_single_changed_item_is_found(side, stored, item):
    x, y = data()
    changed = x.copy()
    changed[item, 2] = np.nextafter(changed[item, 2], 9, dtype=np.float32)
    with pytest.raises(ValueError, match=rf"item {item} of the data set is not the one.*augments at random"):
        side.read(stored, changed, y)
    assert np.array_equal(side.read(stored, changed, y, verify=False), 2 * x)
    other = y.copy()
    other[item] += 1
    with pytest.raises(ValueError, match=rf"item {item} of"):
        side.read(stored, x, other)


@pytest.mark.parametrize("verify", [True, False])
def test_moved_items_are_found_and_where_they_were_is_told(side, stored, verify):
    x, y = data()
    with pytest.raises(ValueError, match=r"it is the item that was stored as \d+.*reordered"):
        side.read(stored, x[::-1].copy(), y[::-1].copy(), verify)


def test_another_number_of_items_is_found(side, stored):
    table = side.StoredOutputs.from_table(np.zeros(N, np.int64))
    for each in (stored, table):
        with pytest.raises(ValueError, match="has 36 items, but h1's outputs were stored for 37"):
            side.read(each, *data(36))


def test_a_table_is_attached_by_order_alone(side):
    x, y = data()
    table = side.StoredOutputs.from_table(2 * x, kind="logits")
    for order in (slice(None), slice(None, None, -1)):
        assert np.array_equal(side.read(table, x[order].copy(), y[order].copy()), 2 * x)


# Tables


def test_table_of_labels(side):
    for given in ([1, 0, -1], side.tensor([1, 0, -1]), np.array([[1], [0], [-1]], dtype=np.int8)):
        table = side.StoredOutputs.from_table(given)
        assert (rows(table).tolist(), rows(table).dtype) == ([1, 0, -1], np.int64)
        assert (table.shape, table.labels_only, table.num_classes, table.path) == ((3,), True, None, None)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_table_of_scores_gives_back_the_probabilities(side, dtype):
    p = np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]], dtype)
    with np.errstate(divide="ignore"):
        logarithms = np.log(p)
    for table in (
        side.StoredOutputs.from_table(p, kind="probabilities"),
        side.StoredOutputs.from_table(logarithms, kind="log_probabilities"),
    ):
        found = rows(table)
        assert found.dtype == ("float64" if dtype == "float64" else "float32")
        assert np.isfinite(found).all()
        np.testing.assert_allclose(np.exp(found), p, rtol=2e-3, atol=1e-6)
        assert table.num_classes == 3
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    assert np.array_equal(rows(side.StoredOutputs.from_table(logits, kind="logits")), logits)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_binary_table_gives_back_the_probabilities(side, shape):
    p = np.array([0.0, 0.3, 1.0], "float32").reshape(shape)
    table = side.StoredOutputs.from_table(p, kind="probabilities")
    assert (table.shape, table.num_classes) == (shape, None)
    assert np.isfinite(rows(table)).all()
    np.testing.assert_allclose(1 / (1 + np.exp(-rows(table).astype("float64"))), p, rtol=1e-6, atol=1e-6)


def test_tables_are_named_by_their_content(side):
    one, same, other = (side.StoredOutputs.from_table(labels) for labels in ([1, 0, 2], [1, 0, 2], [1, 0, 1]))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_verify_compares_a_table_with_a_model(side):
    h1, (x, y) = side.model(), data()
    expected = side.by_hand(h1, x)
    side.verify(side.StoredOutputs.from_table(expected, kind="logits"), h1, x, y)
    with pytest.raises(ValueError, match="answers otherwise"):
        side.verify(side.StoredOutputs.from_table(expected[::-1].copy(), kind="logits"), h1, x, y)


@pytest.mark.parametrize(
    ("table", "kind", "said"),
    [
        ([], None, "labels of shape"),
        (np.zeros((2, 3, 4)), "logits", "labels of shape"),
        ([0, -2], None, "label -2 of row 1 is no class"),
        ([[0, 1]], None, "integers of shape"),
        ([True, False], None, "got bool"),
        ([0, 1], "logits", "is for scores"),
        ([[0.5, 0.5]], None, "say what the scores are"),
        ([[0.5, 0.5]], "odds", "say what the scores are"),
        ([[0.5, 0.5], [0.5, float("nan")]], "logits", "row 1 of the predictions is NaN"),
        ([[0.5, 0.5], [0.5, float("inf")]], "logits", "row 1 of the predictions is NaN or infinite"),
        ([[0.5, 0.5], [2.5, 0.1]], "probabilities", 'row 1 .*for logits say kind="logits"'),
        ([[0.5, 0.5], [-0.5, 1.5]], "probabilities", "row 1 of the predictions holds no probabilities"),
        ([[-1.0, 2.0]], "log_probabilities", "holds no log probabilities"),
        ([0.5, 1.5], "probabilities", "row 1"),
        ([-0.5, -0.1], "log_probabilities", "logit or the probability of class 1"),
    ],
)
def test_tables_that_hold_no_predictions_are_refused(side, table, kind, said):
    with pytest.raises(ValueError, match=said):
        side.StoredOutputs.from_table(table, kind)
