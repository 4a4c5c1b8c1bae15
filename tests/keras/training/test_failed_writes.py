"""What cannot be written is told of and ends no training, and what can be written still is."""

from __future__ import annotations

import shutil
import warnings

import keras
import numpy as np
import pytest
from backends import once
from user_models import data, net

from bc_core import Comparison
from bc_keras import BCModel, CompatibilityCallback
from bc_keras.invariance import InvarianceCallback, TransformSet
from bc_tensorboard import summary
from bc_tensorboard.writing._event_file import EventFile

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


# What writes knows no backend; TensorFlow has errors of its own.
pytestmark = pytest.mark.skipif(keras.backend.backend() == "jax", reason="shown by two backends")


class UnknownFileSystemError(Exception):
    """As the errors of TensorFlow's file systems, which are no OSError."""


def errors():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [tf.errors.ResourceExhaustedError(None, None, "no space left on device")]
    return [
        OSError(28, "No space left on device"),
        ValueError("I/O operation on closed file"),
        UnknownFileSystemError(),
    ]


class AtEpoch(keras.callbacks.Callback):
    """Does something when an epoch begins."""

    def __init__(self, epoch, do):
        super().__init__()
        self.epoch, self.do = epoch, do

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.do()


def told_and_trained(callback, epoch=1, do=lambda: None, plain=False, epochs=3):
    """What was warned of in a training of three epochs, which must come to its end."""
    x, y = data(32)
    model = net(1) if plain else BCModel(net(1), h1=net(0))
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        history = model.fit(x, y, epochs=epochs, verbose=0, callbacks=[AtEpoch(epoch, do), callback])
    assert len(history.epoch) == epochs
    assert all(len(values) == epochs for values in history.history.values())
    return [str(each.message) for each in seen if "not written whole" in str(each.message)]


def scalars(folder):
    return [
        (event.step, event.value)
        for event in event_accumulator.EventAccumulator(str(folder / "compatibility"))
        .Reload()
        .Scalars("compatibility/nfr")
    ]


@once
@pytest.mark.parametrize("plain", [True, False])
def test_a_log_folder_that_is_removed_is_made_anew(tmp_path, plain):
    callback = CompatibilityCallback(data(32), h1=net(0), log_dir=tmp_path / "logs", directory=tmp_path / "files")
    told = told_and_trained(callback, do=lambda: shutil.rmtree(tmp_path / "logs"), plain=plain)
    assert len(told) == 1
    assert "comparison of epoch 2" in told[0]
    assert str(tmp_path / "logs") in told[0]
    # The epoch after is there again, and so are the files elsewhere.
    assert scalars(tmp_path / "logs") == [(2, pytest.approx(callback.history[2]["val_nfr"], rel=1e-6))]
    assert len(list((tmp_path / "files").iterdir())) == 3


@once
def test_a_comparison_folder_that_is_removed_is_made_anew(tmp_path):
    callback = CompatibilityCallback(data(32), directory=tmp_path / "files")
    assert told_and_trained(callback, do=lambda: shutil.rmtree(tmp_path / "files")) == []
    assert sorted(path.name[-6] for path in (tmp_path / "files").iterdir()) == ["2", "3"]


@once
@pytest.mark.parametrize("place", ["log_dir", "directory"])
def test_a_file_where_the_folder_should_be(tmp_path, place):
    (tmp_path / "taken").touch()
    kept = {"log_dir": "directory", "directory": "log_dir"}[place]
    callback = CompatibilityCallback(data(32), **{place: tmp_path / "taken", kept: tmp_path / "kept"})
    assert len(told_and_trained(callback)) == 3
    if kept == "directory":
        saved = sorted((tmp_path / "kept").iterdir())
        assert Comparison.load(saved[-1]) == callback.comparison
    else:
        assert [step for step, _ in scalars(tmp_path / "kept")] == [0, 1, 2]


@pytest.mark.parametrize("error", errors(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("broken", ["scalars", "comparison", "file"])
def test_whatever_a_writer_raises(tmp_path, monkeypatch, broken, error):
    def fails(*args, **kwargs):
        raise error

    target, name = {
        "scalars": (EventFile, "add"),
        "comparison": (summary, "comparison"),
        "file": (Comparison, "save"),
    }[broken]
    callback = CompatibilityCallback(data(32), log_dir=tmp_path / "logs", directory=tmp_path / "files")
    told = told_and_trained(callback, do=lambda: monkeypatch.setattr(target, name, fails), epochs=2)
    assert len(told) == 1
    assert type(error).__name__ in told[0]
    assert len(list((tmp_path / "files").iterdir())) == (1 if broken == "file" else 2)


@once
def test_half_a_record_spoils_no_later_one(tmp_path):
    callback = CompatibilityCallback(data(32), log_dir=tmp_path)
    add = EventFile.add

    def half(self, step, scalars, descriptions):
        add(self, step, scalars, descriptions)
        if step == 1:
            whole = self.path.read_bytes()
            self.path.write_bytes(whole[:-7])
            raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventFile, "add", half)
        assert len(told_and_trained(callback)) == 1
    assert [step for step, _ in scalars(tmp_path)] == [0, 2]


def image_net(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])


@pytest.mark.parametrize("error", errors()[-2:], ids=lambda error: type(error).__name__)
def test_an_invariance_that_cannot_be_written(tmp_path, monkeypatch, error):
    x = np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype("float32")
    y = np.arange(8) % 3

    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(summary, "invariance", fails)
    model = image_net(1)
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    watch = InvarianceCallback(image_net(0), (x, y), TransformSet.c4(), log_dir=tmp_path)
    with pytest.warns(UserWarning, match=f"invariance of epoch 2 .* was not written whole: {type(error).__name__}"):
        history = model.fit(x, y, epochs=2, verbose=0, callbacks=[watch])
    assert len(history.history["val_invariance_negative_flip_rate"]) == 2
