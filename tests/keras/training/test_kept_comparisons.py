"""What CompatibilityCallback keeps: files by epoch, TensorBoard's scalars and dashboard, a line of text."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from backends import once
from compared_models import ROWS, Pieces, data, fit, net
from compared_models import quick as compiled

from bc_core import SCORES, Comparison, LinearLambda
from bc_keras.training._callback import CompatibilityCallback
from bc_keras.training._lambda_scheduler import LambdaScheduler
from bc_keras.training._model import BCModel


@pytest.fixture(autouse=True)
def _same_start():
    keras.utils.set_random_seed(7)


# What is kept ----------------------------------------------------------------------------------------------------


def test_files_by_epoch_survive_a_second_fit(tmp_path):
    x, y = data()
    folder = tmp_path / "made" / "here"
    callback = CompatibilityCallback((x, y), h1=net(), directory=folder)
    h2 = compiled(net())
    fit(h2, [callback], epochs=2)
    first = (folder / "comparison-epoch-0001.json").read_bytes()
    fit(h2, [callback], epochs=3, initial_epoch=2)
    assert sorted(path.name for path in folder.iterdir()) == [
        f"comparison-epoch-000{epoch}.json" for epoch in (1, 2, 3)
    ]
    assert Comparison.load(folder / "comparison-epoch-0003.json") == callback.comparison
    assert callback.comparison.step == 3
    assert list(callback.history) == [2]
    assert (folder / "comparison-epoch-0001.json").read_bytes() == first


def scalars_in(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }, events


def test_a_failure_loses_nothing_that_was_written(tmp_path):
    x, y = data()

    class Breaks(Pieces):
        def __getitem__(self, index):
            if self.reads == 1 + len(self) + 3:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    callback = CompatibilityCallback(Breaks(x, y), h1=net(), directory=tmp_path / "json", log_dir=tmp_path)
    with pytest.raises(OSError, match="the disk is gone"):
        fit(compiled(net()), [callback], epochs=2)
    (saved,) = (tmp_path / "json").iterdir()
    assert Comparison.load(saved) == callback.comparison
    assert list(callback.history) == [0]
    assert scalars_in(tmp_path / "compatibility")[0]["compatibility/nfr"] == [
        (0, pytest.approx(callback.comparison.overlap.nfr, rel=1e-6))
    ]


def test_tensorboard_reads_the_scores_back(tmp_path):
    x, y = data()
    callback = CompatibilityCallback((x, y), log_dir=tmp_path, settings={"start": "warm", "seed": 3})
    model = compiled(BCModel(net(), h1=net()))
    fit(model, [LambdaScheduler(LinearLambda(1.0, 3.0, epochs=2), per="epoch"), callback], epochs=3)
    scalars, events = scalars_in(tmp_path / "compatibility")
    assert set(scalars) == {f"compatibility/{name}" for name in (*SCORES, "lambda_c")}
    for name in SCORES:
        wanted = [(epoch, pytest.approx(scores[f"val_{name}"], rel=1e-6)) for epoch, scores in callback.history.items()]
        assert scalars[f"compatibility/{name}"] == wanted
        assert events.SummaryMetadata(f"compatibility/{name}").summary_description == SCORES[name].description
    assert scalars["compatibility/lambda_c"] == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert len(list((tmp_path / "compatibility").iterdir())) == 1
    told = json.loads(events.SummaryMetadata("backward_compatibility/val/counts").plugin_data.content)
    assert told["settings"] == {"start": "warm", "seed": 3.0}

    # A training that goes on from epoch 2 supersedes what was written of it before.
    fit(model, [callback], epochs=3, initial_epoch=2)
    scalars, _ = scalars_in(tmp_path / "compatibility")
    assert [step for step, _ in scalars["compatibility/nfr"]] == [0, 1, 2]
    assert scalars["compatibility/nfr"][2][1] == pytest.approx(callback.comparison.overlap.nfr, rel=1e-6)


def test_settings_that_are_none_are_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="settings: expected names with texts or finite numbers"):
        CompatibilityCallback(data(), log_dir=tmp_path, settings={"seed": float("nan")})


@pytest.mark.parametrize("full_size", [0, 1024])
def test_larger_pictures_are_kept_as_asked(tmp_path, full_size):
    pixels = np.zeros((ROWS, 120, 120), np.uint8)
    callback = CompatibilityCallback(data(), h1=net(), log_dir=tmp_path, images=pixels, full_size=full_size)
    fit(compiled(net()), [callback], epochs=1)
    assert any(tmp_path.rglob("*.media"))
    assert any(tmp_path.rglob("*.full")) == (full_size > 0)


@once  # on TensorFlow Keras itself imports it
def test_tensorboard_is_written_without_tensorflow(tmp_path):
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import bc_keras; from bc_tensorboard.writing._event_file import EventFile\n"
        f"EventFile({str(tmp_path)!r}).add(3, {{'a': 0.5}}, {{}})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert scalars_in(tmp_path)[0] == {"a": [(3, 0.5)]}


def test_log_dir_without_tensorboard_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    with pytest.raises(ImportError, match=r'pip install "backward-compat-ml\[tensorboard\]"'):
        CompatibilityCallback(data(), h1=net(), log_dir=tmp_path)
    CompatibilityCallback(data(), h1=net())


def test_verbose_prints_a_line(capsys):
    fit(compiled(net()), [CompatibilityCallback(data(), h1=net(), verbose=1, log_prefix="old_")])
    line = [line for line in capsys.readouterr().out.splitlines() if "nfr" in line]
    assert len(line) == 1
    assert line[0].startswith("Epoch 1: old_btc: 0.")


def test_comparisons_go_to_the_dashboard(tmp_path):
    """What TensorBoard's own reader finds is the comparison of each epoch, with texts and images once per instance."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from bc_tensorboard.writing._format import decode
    from bc_tensorboard.writing._media import read_media

    x, y = data()
    images = (np.random.default_rng(1).random((ROWS, 6, 6)) * 255).astype("uint8")
    model = compiled(BCModel(net(), h1=net(), dissonance="strict_imitation", lambda_c=3.0))
    callback = CompatibilityCallback(
        (x, y),
        log_dir=tmp_path,
        class_names=["a", "b", "c"],
        metadata=lambda i: f"row {i}",
        images=images,
        dataset="held out",
        directory=tmp_path / "files",
    )
    fit(model, [callback], epochs=3)
    events = EventAccumulator(str(tmp_path / "compatibility"), size_guidance={"tensors": 0})
    events.Reload()
    counts = events.Tensors("backward_compatibility/held%20out/counts")
    tables = events.Tensors("backward_compatibility/held%20out/table")
    assert [event.step for event in counts] == [event.step for event in tables] == [0, 1, 2]
    wrong = set()
    for epoch, table in enumerate(tables):
        header, columns = decode(table.tensor_proto.string_val[0])
        saved = Comparison.load(tmp_path / "files" / f"comparison-epoch-{epoch + 1:04d}.json")
        assert columns["ids"].tolist() == saved.instances.ids.tolist()
        assert header["class_names"] == ["a", "b", "c"]
        assert (header["dissonance"], header["lambda_c"], header["step"]) == ("strict imitation", 3.0, epoch)
        wrong |= set(saved.instances.ids.tolist())
    (pack,) = (tmp_path / "compatibility" / "plugins" / "backward_compatibility").iterdir()
    media = read_media(pack)
    assert {int(i): text for i, text in media.texts.items()} == {i: f"row {i}" for i in wrong}


def test_a_comparison_that_cannot_be_logged_does_not_end_the_training(tmp_path, monkeypatch):
    from bc_tensorboard import summary

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(summary, "comparison", full)
    callback = CompatibilityCallback(data(), h1=net(), log_dir=tmp_path)
    with pytest.warns(UserWarning, match="comparison of epoch 2 in .* was not written whole: OSError: no space left"):
        history = fit(compiled(net()), [callback], epochs=2)
    assert len(history.history["val_nfr"]) == 2
