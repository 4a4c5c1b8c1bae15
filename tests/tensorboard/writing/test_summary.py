"""A comparison logged by every kind of writer, read back by TensorBoard's own readers."""

from __future__ import annotations

import dataclasses
import io
import math
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.data import server_ingester
from tensorboard.util import grpc_util

from bc_core import compare
from bc_tensorboard import summary
from bc_tensorboard.writing._event_file import EventFile
from bc_tensorboard.writing._format import decode
from bc_tensorboard.writing._media import full_path, media_path, read_image, read_media

DATASET = "held out/käfer"
TAGS = [f"backward_compatibility/held%20out%2Fk%C3%A4fer/{name}" for name in ("counts", "table")]
IMAGES = np.random.default_rng(1).integers(0, 256, (60, 8, 8), dtype=np.uint8)


def comparison(step=5, seed=0, size=60, **options):
    random = np.random.default_rng(seed)
    target = random.integers(0, 4, size)
    h1, h2 = (np.where(random.random(size) < 0.3, random.integers(0, 4, size), target) for _ in range(2))
    return compare(target, h1, h2, num_classes=4, step=step, lambda_c=2.0, **options)


def provider(logdir):
    multiplexer = EventMultiplexer(tensor_size_guidance={"backward_compatibility": 0})
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(logdir))


def logged(logdir):
    """Counts and decoded tables by run and step, as a plugin gets them from a data provider."""
    data, asked = provider(logdir), {"experiment_id": "x", "plugin_name": "backward_compatibility"}
    counts = data.read_tensors(RequestContext(), **asked, downsample=1000)
    tables = data.read_blob_sequences(RequestContext(), **asked, downsample=1000)
    found = {}
    for run, tags in counts.items():
        assert list(tags) == [TAGS[0]]
        assert list(tables[run]) == [TAGS[1]]
        for datum in tags[TAGS[0]]:
            found[run, datum.step] = [datum.numpy]
        for datum in tables[run][TAGS[1]]:
            blob = data.read_blob(RequestContext(), blob_key=datum.values[0].blob_key)
            found[run, datum.step].append(decode(blob))
    return found


def torch_writer(folder):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "run"))


def lightning_logger(folder):
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="run", version="")


def other_lightning_logger(folder):
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="run", version="")


def keras_callback(folder):
    import keras

    return keras.callbacks.TensorBoard(str(folder / "run"))


def a_folder(folder):
    return folder / "run"


def an_event_file(folder):
    return EventFile(folder / "run")


@pytest.mark.parametrize(
    "make", [torch_writer, lightning_logger, other_lightning_logger, keras_callback, a_folder, an_event_file]
)
def test_every_writer_writes_the_same(make, tmp_path):
    texts = {i: f"photo {i}" for i in range(60)}
    writer = make(tmp_path)
    made = [comparison(step, seed=step, metadata=texts) for step in (3, 7, 7, 12)]
    for each in made:
        summary.comparison(writer, each, dataset=DATASET, dissonance="new error", images=IMAGES)
    found = logged(tmp_path)
    run = "run/compatibility" if make is keras_callback else "run"
    assert sorted(found) == [(run, 3), (run, 7), (run, 12)]
    wrong = set()
    for each in made:
        counts, (header, columns) = found[run, each.step]
        np.testing.assert_array_equal(counts, [*each.overlap.counts.sum(axis=0).ravel(), 2.0])
        assert columns["ids"].tolist() == each.instances.ids.tolist()
        assert (header["step"], header["dataset"], header["dissonance"]) == (each.step, DATASET, "new error")
        # Texts are kept once, beside the events.
        assert "metadata" not in columns
        wrong |= set(each.instances.ids.tolist())
    path = media_path(tmp_path / run, DATASET)
    media = read_media(path)
    assert media.texts == {i: texts[i] for i in wrong}
    assert set(media.images) == wrong
    assert read_image(path, media, min(wrong)).startswith(b"\x89PNG")


def test_of_a_step_that_is_logged_twice_the_default_reader_shows_the_last(tmp_path):
    first, last = comparison(7, seed=1), comparison(7, seed=2)
    for each in (first, last, comparison(8)):
        summary.comparison(tmp_path / "run", each, dataset=DATASET)
    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=str(tmp_path),
        reload_interval=0,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
        samples_per_plugin={"backward_compatibility": 2**30},
    )
    ingester.start()
    try:
        data, asked = ingester.data_provider, {"experiment_id": "", "plugin_name": "backward_compatibility"}
        counts, deadline = [], time.monotonic() + 60
        while len(counts) < 2 and time.monotonic() < deadline:  # it answers at once and reads meanwhile
            runs = data.read_tensors(None, **asked, downsample=1000)
            counts = runs.get("run", {}).get(TAGS[0], ())
        tables = data.read_blob_sequences(None, **asked, downsample=1000)["run"][TAGS[1]]
        assert [datum.step for datum in counts] == [datum.step for datum in tables] == [7, 8]
        assert counts[0].numpy[:4].tolist() == last.overlap.counts.sum(axis=0).ravel().tolist()
        _, columns = decode(data.read_blob(None, blob_key=tables[0].values[0].blob_key))
        assert columns["ids"].tolist() == last.instances.ids.tolist() != first.instances.ids.tolist()
    finally:
        ingester._stdin_handle.close()


def test_a_tf_summary_writer_writes_the_same_and_needs_to_be_told_its_folder_for_images(tmp_path):
    import tensorflow as tf

    folder = str(tmp_path / "run")
    writer = tf.summary.create_file_writer(folder)
    each = comparison(metadata=lambda i: f"photo {i}")
    with pytest.raises(ValueError, match="does not tell which; say it: .*folder="):
        summary.comparison(writer, each, dataset=DATASET, images=IMAGES)
    summary.comparison(writer, each, dataset=DATASET)
    summary.comparison(writer, each, 6, dataset=DATASET, images=IMAGES, folder=folder)
    found = logged(tmp_path)
    # Without a folder the texts travel in the table.
    assert found["run", 5][1][1]["metadata"] == each.instances.metadata.tolist()
    assert "metadata" not in found["run", 6][1][1]
    assert set(read_media(media_path(folder, DATASET)).images) == set(each.instances.ids.tolist())


def test_what_other_writers_log_in_the_same_file_stays(tmp_path):
    with torch_writer(tmp_path) as writer:
        writer.add_scalar("loss", 0.5, 5)
        summary.comparison(writer, comparison(), dataset=DATASET)
        writer.add_scalar("loss", 0.25, 6)
    scalars = provider(tmp_path).read_tensors(
        RequestContext(), experiment_id="x", plugin_name="scalars", downsample=1000
    ) or provider(tmp_path).read_scalars(RequestContext(), experiment_id="x", plugin_name="scalars", downsample=1000)
    assert [datum.step for datum in scalars["run"]["loss"]] == [5, 6]
    assert len(logged(tmp_path)) == 1


def test_a_larger_picture_is_kept_beside_its_thumbnail(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 120, 120), dtype=np.uint8)
    run = tmp_path / "run"
    summary.comparison(run, comparison(), 0, images=noise)
    path = media_path(run, "test")
    small, full = read_media(path), read_media(full_path(path))
    assert set(small.images) == set(full.images) == set(comparison().instances.ids.tolist())
    instance = next(iter(full.images))
    pixels = np.asarray(Image.open(io.BytesIO(read_image(full_path(path), full, instance))))
    assert (pixels == noise[instance]).all()
    summary.comparison(tmp_path / "small", comparison(), 0, images=noise, full_size=0)
    assert not full_path(media_path(tmp_path / "small", "test")).exists()


def test_each_image_is_asked_for_once_and_only_where_a_model_is_wrong(tmp_path):
    asked = []

    def image(instance):
        asked.append(instance)
        return IMAGES[instance]

    made = [comparison(step, seed=step) for step in (1, 2)]
    for each in made:
        summary.comparison(tmp_path / "run", each, images=image)
    assert sorted(asked) == sorted(set(asked)) == sorted({i for each in made for i in each.instances.ids.tolist()})


def test_images_beyond_the_most_are_left_out_with_a_word(tmp_path):
    each = comparison()
    with pytest.warns(UserWarning, match="images of 10 are kept; raise max_images"):
        summary.comparison(tmp_path / "run", each, images=IMAGES, max_images=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once, not at every step
        summary.comparison(tmp_path / "run", comparison(6, seed=1), images=IMAGES, max_images=10)
    media = read_media(media_path(tmp_path / "run", "test"))
    assert len(media.images) == 10
    assert set(each.negative_flips().ids.tolist()) <= set(media.images), "those come first"
    both = {*each.instances.ids.tolist(), *comparison(6, seed=1).instances.ids.tolist()}
    assert media.left_out == both - set(media.images)
    _, columns = decode(media.encode())
    kinds = dict(zip(columns["ids"].tolist(), columns["has_image"].tolist(), strict=True))
    assert kinds == {instance: 1 if instance in media.images else 2 for instance in both}


def test_an_image_that_fails_costs_itself_alone(tmp_path):
    each = comparison()
    bad = each.instances.ids.tolist()[0]

    def image(instance):
        if instance == bad:
            raise OSError("no such file")
        return IMAGES[instance]

    with pytest.warns(UserWarning, match=f"1 images could not be made and are left out; first {bad}: OSError"):
        summary.comparison(tmp_path / "run", each, dataset=DATASET, images=image)
    assert len(logged(tmp_path)) == 1
    assert set(read_media(media_path(tmp_path / "run", DATASET)).images) == set(each.instances.ids.tolist()) - {bad}


def test_a_warning_that_is_made_an_error_costs_no_comparison(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="images could not be made"):
            summary.comparison(tmp_path / "run", comparison(), dataset=DATASET, images=lambda i: 1 / 0)
    assert len(logged(tmp_path)) == 1


def test_captions_go_through_unchanged(tmp_path):
    name = "</script><b>\"'&\n🐱" * 700
    each = dataclasses.replace(comparison(metadata=lambda i: name), name=name, class_names=(name, "", "'", "<i>"))
    summary.comparison(tmp_path / "run", each, dataset=name, dissonance=name)
    (tags,) = (
        provider(tmp_path)
        .read_tensors(RequestContext(), experiment_id="x", plugin_name="backward_compatibility", downsample=10)
        .values()
    )
    assert len(tags) == 1
    pb = summary.comparison_pb(each, dataset=name, dissonance=name)
    header, _ = decode(pb.value[1].tensor.string_val[0])
    assert [header[key] for key in ("name", "dataset", "dissonance")] == [name] * 3
    assert header["class_names"] == [name, "", "'", "<i>"]
    assert set(read_media(media_path(tmp_path / "run", name)).texts.values()) == {name}


def test_a_step_of_the_comparison_and_one_given(tmp_path):
    each = comparison()
    summary.comparison(tmp_path / "run", each, dataset=DATASET)
    summary.comparison(tmp_path / "run", each, np.int64(9), dataset=DATASET)
    assert [key[1] for key in logged(tmp_path)] == [5, 9]
    assert each.step == 5


def test_a_lambda_that_is_not_known_is_nan(tmp_path):
    summary.comparison(tmp_path / "run", dataclasses.replace(comparison(), lambda_c=None), dataset=DATASET)
    counts, (header, _) = logged(tmp_path)["run", 5]
    assert math.isnan(counts[4])
    assert header["lambda_c"] is None


def test_a_comparison_without_any_error(tmp_path):
    summary.comparison(tmp_path / "run", compare([0, 1], [0, 1], [0, 1]), 0, dataset=DATASET, images=IMAGES)
    counts, (_, columns) = logged(tmp_path)["run", 0]
    assert counts[:4].tolist() == [0, 0, 0, 2]
    assert len(columns["ids"]) == 0


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((object(), comparison()), {}, TypeError, "writer: expected a torch SummaryWriter.*got object"),
        ((None, comparison()), {}, TypeError, "got NoneType"),
        (("run", [1]), {}, TypeError, "expected what bc_core.compare returns, got list"),
        (("run", comparison(step=None)), {}, ValueError, "the comparison has none; give one"),
        (("run", comparison(), -1), {}, ValueError, "from 0 to below .*, got -1"),
        (("run", comparison(), 1.5), {}, ValueError, "expected a whole number, got 1.5"),
        (("run", comparison(), 2**63), {}, ValueError, "from 0 to below .*, got 9223372036854775808"),
        (("run", comparison()), {"dataset": ""}, ValueError, "dataset: expected a name"),
        (("run", comparison()), {"dataset": "half \ud83d"}, ValueError, "a name that is valid Unicode"),
        (("run", comparison()), {"dissonance": 1.0}, ValueError, "dissonance: expected a text"),
        (("run", comparison()), {"images": IMAGES, "image_size": 0}, ValueError, "image_size: .* at least 1, got 0"),
        (("run", comparison()), {"images": IMAGES, "max_images": -1}, ValueError, "max_images: .* at least 0, got -1"),
        (("run", comparison()), {"images": "folder"}, TypeError, "images: expected a function of the id"),
        (("run", comparison()), {"full_size": -1}, ValueError, "full_size: .* at least 0, got -1"),
        (("run", comparison()), {"settings": {"seeds": [0]}}, ValueError, "settings: expected names with texts"),
        (("run", comparison()), {"settings": {1: "a"}}, ValueError, "settings: expected names with texts"),
        (("run", comparison()), {"settings": {"a": float("nan")}}, ValueError, "settings: .* finite numbers"),
        (("run", comparison()), {"performance": (1, 2, 3)}, ValueError, "performance: expected that of h1 and of h2"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    arguments, options, error, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        summary.comparison(*arguments, **options)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_that_was_removed_gets_a_new_file(tmp_path):
    import shutil

    summary.comparison(tmp_path / "run", comparison(), dataset=DATASET)
    shutil.rmtree(tmp_path / "run")
    summary.comparison(tmp_path / "run", comparison(step=6), dataset=DATASET)
    assert list(logged(tmp_path)) == [("run", 6)]


def test_a_folder_written_after_a_callback_voids_none_of_its_steps(tmp_path):
    events = EventFile(tmp_path / "run")
    for step in (0, 1, 2):
        summary.comparison(events, comparison(step), dataset=DATASET)
    summary.comparison(tmp_path / "run", comparison(1, seed=9), 3, dataset=DATASET)
    assert [key[1] for key in logged(tmp_path)] == [0, 1, 2, 3]


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("torch", "tensorflow", "keras", "tensorboard", "PIL", "anywidget", "ipywidgets", "pytorch_lightning")
    code = f"import sys, bc_tensorboard; print(*(name for name in {heavy!r} if name in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []


def test_writing_to_a_folder_needs_no_tensorflow(tmp_path):
    code = (
        "import sys, types; sys.modules['tensorflow'] = None\n"
        "from bc_core import compare; from bc_tensorboard import summary\n"
        f"summary.comparison({str(tmp_path / 'run')!r}, compare([0, 1], [0, 1], [0, 0]), 3, dataset={DATASET!r})\n"
        "print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.stdout.split() == ["False"], out.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(logged(tmp_path)) == [("run", 3)]


def test_files_of_one_second_are_read_in_the_order_they_were_made(tmp_path):
    files = [EventFile(tmp_path / "run") for _ in range(12)]
    for step, file in enumerate(files):
        file.add(step, {"loss": 0.5}, {})
    made = [file.path for file in files]
    assert sorted(made) == made
