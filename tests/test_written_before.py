"""Files that an earlier revision wrote are opened by this one, and hold what the arrays that made them say.

`tests/fixtures/written_before` has one of every kind, and the script that wrote it. Those of Keras are opened in
`tests/keras/test_written_before.py`, once for each backend.
"""

from __future__ import annotations

import base64
import configparser
import importlib
import json
import re
import shutil
import struct
import zlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from written_before import recipes
from written_before.expected import (
    GIVEN,
    WRITTEN,
    check_comparison,
    check_golden,
    check_invariance,
    check_sweep,
    counts,
    state_of,
    trained,
    transformed,
)

from bc_core import Comparison, SweepResults, compare
from bc_core.invariance import InvarianceResult
from bc_tensorboard import read_original_sweep, to_html


@pytest.fixture
def written(tmp_path):
    """A copy of the fixtures, which what is resumed may write into."""
    return shutil.copytree(WRITTEN, tmp_path / "written", ignore=shutil.ignore_patterns("*.py", "__pycache__"))


# Comparisons


@pytest.mark.parametrize("name", ["full.json", "full.json.gz"])
def test_a_comparison_with_everything(name, tmp_path):
    comparison = Comparison.load(WRITTEN / "core" / name)
    check_comparison(comparison, GIVEN.text_ids, GIVEN.y, GIVEN.h1, GIVEN.h2)
    assert comparison.class_names == recipes.NAMES
    assert (comparison.name, comparison.step, comparison.lambda_c) == ("update", 5, 0.5)
    assert comparison.instances.metadata.tolist() == [f"text of {each}" for each in comparison.instances.ids]
    assert Comparison.load(comparison.save(tmp_path / name)) == comparison


def test_a_comparison_is_written_as_it_was(tmp_path):
    comparison = Comparison.load(WRITTEN / "core" / "full.json")
    written = comparison.save(tmp_path / "full.json")
    assert written.read_bytes() == (WRITTEN / "core" / "full.json").read_bytes()


def test_comparisons_of_other_tasks():
    plain = Comparison.load(WRITTEN / "core" / "plain.json")
    check_comparison(plain, np.arange(24), GIVEN.y, GIVEN.h1, GIVEN.h2, classes=5)
    assert (plain.class_names, plain.instances.metadata, plain.step) == (None, None, None)
    binary = Comparison.load(WRITTEN / "core" / "binary.json")
    check_comparison(binary, GIVEN.ids, *((each > 0).astype(int) for each in (GIVEN.y, GIVEN.h1, GIVEN.h2)), classes=2)
    multilabel = Comparison.load(WRITTEN / "lightning" / "multilabel.json")
    y, h1, h2 = (
        (each >= least).astype(int).ravel()
        for each, least in ((GIVEN.multilabel, 1), (GIVEN.h1_scores, 0), (GIVEN.h2_scores, 0))
    )
    check_comparison(multilabel, np.arange(72), y, h1, h2, classes=2)


def test_bc_compare_judges_a_comparison(capsys):
    scripts = setup()["options.entry_points"]["console_scripts"]
    module, name = re.search(r"bc-compare = (\S+):(\S+)", scripts).groups()
    main = getattr(importlib.import_module(module), name)
    nfr = ((GIVEN.h1 == GIVEN.y) & (GIVEN.h2 != GIVEN.y)).mean()
    assert main([str(WRITTEN / "core" / "full.json.gz"), "--max-nfr", "0.01%"]) == 1
    assert f"measured {nfr:.4%}" in capsys.readouterr().out


def setup():
    """What the package says of itself, as the installed copy of it may be older."""
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[1] / "setup.cfg")
    return parser


# What the dashboard is given


def columns_of(blob):
    """The header and columns of a table of the dashboard, by its description alone."""
    magic, version, length = struct.unpack_from("<4sII", blob)
    assert (magic, version) == (b"BCMP", 1)
    header = json.loads(blob[12 : 12 + length])
    body, found, at = zlib.decompress(blob[12 + length :]), {}, 0
    for column in header["columns"]:
        part = body[at : at + column["bytes"]]
        at += column["bytes"]
        if column["type"] == "text":
            lengths = np.frombuffer(part, "<u4", column["length"])
            ends = 4 * len(lengths) + np.cumsum(lengths, dtype=int)
            found[column["name"]] = [part[end - size : end].decode() for end, size in zip(ends, lengths, strict=True)]
        else:
            values = np.frombuffer(part, f"<{column['type']}").astype(int)
            found[column["name"]] = (np.cumsum(values) if column.get("delta") else values).tolist()
    assert at == len(body)
    return header, found


def check_table(blob, ids):
    header, columns = columns_of(blob)
    wrong = (GIVEN.h1 != GIVEN.y) | (GIVEN.h2 != GIVEN.y)
    assert columns["counts"] == counts(GIVEN.y, GIVEN.h1, GIVEN.h2).ravel().tolist()
    assert columns["ids"] == np.asarray(ids)[wrong].tolist()
    for name, values in (("target", GIVEN.y), ("h1", GIVEN.h1), ("h2", GIVEN.h2)):
        assert columns[name] == values[wrong].tolist()
    assert header["class_names"] == list(recipes.NAMES)
    assert header["lambda_c"] == 0.5
    return header


def client_of(logdir):
    """TensorBoard's server with the plugin that setup.cfg names."""
    from tensorboard.backend import application
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from werkzeug.test import Client

    entry = setup()["options.entry_points"]["tensorboard_plugins"]
    module, name = re.search(r"backward_compatibility = (\S+):(\S+)", entry).groups()
    loader = getattr(importlib.import_module(module), name)
    events = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"backward_compatibility": 0})
    events.AddRunsFromDirectory(str(logdir))
    events.Reload()
    provider = data_provider.MultiplexerDataProvider(events, str(logdir))
    flags = Namespace(logdir=str(logdir), logdir_spec="", samples_per_plugin={}, window_title="", path_prefix="")
    return Client(application.TensorBoardWSGIApp(flags, [loader], provider)), provider


def asked(client, route, **query):
    response = client.get(f"/data/plugin/backward_compatibility/{route}", query_string=query)
    assert response.status_code == 200, response.text
    return response


def test_event_log_of_comparisons():
    client, _ = client_of(WRITTEN / "core" / "tensorboard")
    index = asked(client, "index").json
    shown = {(series["run"], series["dataset"]): series for series in index["series"]}
    assert set(shown) == {("run", "test"), ("run", "held out/käfer")}
    table = asked(client, "table", run="run", dataset="test", step=5).data
    assert check_table(table, GIVEN.text_ids)["dissonance"] == "strict imitation"
    table = asked(client, "table", run="run", dataset="held out/käfer", step=0).data
    assert check_table(table, GIVEN.ids)["dissonance"] == "new error"


def test_texts_and_images_beside_an_event_log():
    import io

    from PIL import Image

    client, _ = client_of(WRITTEN / "core" / "tensorboard")
    wrong = (GIVEN.h1 != GIVEN.y) | (GIVEN.h2 != GIVEN.y)
    _, media = columns_of(asked(client, "media", run="run", dataset="held out/käfer").data)
    # In any order.
    assert dict(zip(media["ids"], media["text"], strict=True)) == {each: f"text {each}" for each in GIVEN.ids[wrong]}
    assert all(media["has_image"])
    for number in np.flatnonzero(wrong):
        query = {"run": "run", "dataset": "held out/käfer", "id": int(GIVEN.ids[number])}
        image = Image.open(io.BytesIO(asked(client, "image", **query).data))
        assert np.array_equal(np.asarray(image.convert("L")), GIVEN.images[number])
    _, media = columns_of(asked(client, "media", run="run", dataset="test").data)
    expected = {each: f"text of {each}" for each in np.array(GIVEN.text_ids)[wrong].tolist()}
    assert dict(zip(media["ids"], media["text"], strict=True)) == expected


def test_event_log_of_invariance():
    client, _ = client_of(WRITTEN / "core" / "tensorboard")
    told = asked(client, "invariance", run="run", dataset="test", step=5).json
    h1, h2 = ((transformed() @ w + b).argmax(2) for w, b in ((GIVEN.h1_w, GIVEN.h1_b), (GIVEN.h2_w, GIVEN.h2_b)))
    same = [(each[1] == each[0]).astype(int) for each in (h1, h2)]
    expected = np.zeros((2, 2), int)
    np.add.at(expected, tuple(same), 1)
    assert expected.ravel().tolist() in numbers_in(told)


def numbers_in(told):
    """Every list of four whole numbers, flattened, in a JSON document."""
    if isinstance(told, dict):
        return [found for each in told.values() for found in numbers_in(each)]
    if not isinstance(told, list):
        return []
    flat = np.array(told, dtype=object).ravel().tolist() if told else []
    own = [flat] if len(flat) == 4 and all(isinstance(each, int) for each in flat) else []
    return own + [found for each in told for found in numbers_in(each)]


def test_invariance_result(tmp_path):
    result = InvarianceResult.load(WRITTEN / "lightning" / "invariance.npz")
    assert result.layer_names == ("1",)
    check_invariance(result, "1")
    assert result.transforms == ("identity", "flip left-right")
    result.save(tmp_path / "again.npz")
    assert InvarianceResult.load(tmp_path / "again.npz").table() == result.table()


def embedded(page):
    """The data of an HTML page, with its tables read."""
    data = json.loads(re.search(r'<script type="application/json" id="bc-data">(.*?)</script>', page)[1])
    tables = {key: columns_of(base64.b64decode(blob)) for key, blob in data["tables"].items()}
    # Each run had its own texts and images once; now runs on a data set share a pack.
    packs = {key: each if isinstance(each, dict) else data["packs"][each] for key, each in data["media"].items()}
    media = {key: (columns_of(base64.b64decode(each["blob"])), list(each["images"])) for key, each in packs.items()}
    return {"index": data["index"], "tables": tables, "media": media}, data


def test_html_page_holds_what_one_of_today_would(tmp_path):
    # The dashboard is in the page, so that an old page needs nothing of ours: its script is cut out of the fixture.
    old, data = embedded((WRITTEN / "core" / "page.html").read_text("utf-8"))
    (table,) = data["tables"].values()
    check_table(base64.b64decode(table), GIVEN.ids)
    texts = {each: f"text {each}" for each in GIVEN.ids.tolist()}
    numbered = compare(
        GIVEN.y,
        GIVEN.h1,
        GIVEN.h2,
        ids=GIVEN.ids,
        metadata=texts,
        class_names=recipes.NAMES,
        name="update",
        step=5,
        lambda_c=0.5,
    )
    images = dict(zip(GIVEN.ids.tolist(), GIVEN.images, strict=True))
    new, _ = embedded(to_html(numbered, tmp_path / "page.html", images=images).read_text("utf-8"))
    assert old == new


# Sweeps


POINTS = [(loss, lambda_c) for loss in ("new_error", "strict_imitation") for lambda_c in (0.0, 1.0)]


def test_sweep_folder_is_opened():
    import torch

    results = SweepResults.open(WRITTEN / "lightning" / "sweep")
    check_sweep(results, POINTS, 0.125, [recipes.FAILING])
    assert [failure.point.lambda_c for failure in results.failures] == [0.0, 1.0]
    assert all("Shapes differ" in failure.error and failure.traceback for failure in results.failures)
    assert results.unfinished
    for loss, lambda_c in POINTS:
        state = torch.load(results.model_path(loss, lambda_c), weights_only=True)
        for values, expected in zip(state.values(), trained(loss, lambda_c, 0.125), strict=True):
            np.testing.assert_allclose(values.numpy().T, expected, atol=1e-5)


def test_sweep_is_resumed_without_training_anew(written):
    folder = written / "lightning" / "sweep"
    before = state_of(folder / "points") | state_of(folder / "h1")
    with pytest.warns(RuntimeWarning, match="2 of 6 points failed"):
        found = recipes.lightning_sweep(folder, losses=recipes.SWEPT)
    assert state_of(folder / "points") | state_of(folder / "h1") == before
    check_sweep(found, POINTS, 0.125, [recipes.FAILING])


def test_sweep_that_was_finished_is_resumed(written):
    folder = written / "lightning" / "sweep_finished"
    before = state_of(folder / "points")
    found = recipes.lightning_sweep(folder, **recipes.FINISHED)
    assert not found.failures
    assert state_of(folder / "points") == before
    check_sweep(found, [("new_error", 1.0)], 0.125)


def test_sweep_is_continued(written):
    folder = written / "lightning" / "sweep_finished"
    before = state_of(folder / "points")
    found = recipes.lightning_sweep(folder, **{**recipes.FINISHED, "lambdas": [1.0, 4.0]})
    after = state_of(folder / "points")
    assert len(after) == 2 * len(before)
    assert before.items() <= after.items()
    check_sweep(found, [("new_error", 1.0), ("new_error", 4.0)], 0.125)


def test_event_log_of_a_sweep():
    from tensorboard.context import RequestContext

    client, provider = client_of(WRITTEN / "lightning" / "sweep" / "tensorboard")
    series = asked(client, "index").json["series"]
    names = {f"{loss},lambda_c={lambda_c},seed=0" for loss, lambda_c in POINTS}
    assert {(each["run"], each["dataset"]) for each in series} == {(name, "test") for name in names}
    for loss, lambda_c in POINTS:
        w, b = trained(loss, lambda_c, 0.125)
        (shown,) = (each for each in series if each["run"] == f"{loss},lambda_c={lambda_c},seed=0")
        (step,) = {each[0] if isinstance(each, list) else each["step"] for each in shown["steps"]}
        _, columns = columns_of(asked(client, "table", run=shown["run"], dataset="test", step=step).data)
        assert columns["counts"] == counts(GIVEN.y, GIVEN.h1, (GIVEN.x @ w + b).argmax(1)).ravel().tolist()
    # What TensorBoard's own plugins read: curves and hyperparameters.
    scalars = provider.list_scalars(RequestContext(), experiment_id="", plugin_name="scalars")
    assert names <= set(scalars)


def test_sweep_written_in_the_originals_format():
    w, b = trained("new_error", 1.0, 0.125)
    h2 = (GIVEN.x @ w + b).argmax(1)
    evaluations = read_original_sweep(WRITTEN / "lightning" / "original")
    assert evaluations
    for each in evaluations:
        assert each.comparison.overlap.h1_only_right == ((GIVEN.h1 == GIVEN.y) & (h2 != GIVEN.y)).sum()
        assert each.comparison.overlap.h2_only_right == ((GIVEN.h1 != GIVEN.y) & (h2 == GIVEN.y)).sum()


# Lightning: stored outputs, checkpoints


def lightning_data():
    import torch
    from torch.utils.data import TensorDataset

    return TensorDataset(torch.from_numpy(GIVEN.x), torch.from_numpy(GIVEN.y))


def test_stored_outputs_are_opened_and_attached():
    from torch.utils.data import DataLoader

    from bc_lightning import StoredOutputs

    h1 = recipes.torch_dense(GIVEN.h1_w, GIVEN.h1_b)
    stored = StoredOutputs.open(WRITTEN / "lightning" / "stored", h1)
    stored.verify(h1, lightning_data())
    assert np.array_equal(stored[:].numpy(), GIVEN.h1_scores)
    (batch,) = DataLoader(stored.attach(lightning_data()), batch_size=24)
    assert np.array_equal(batch.row.tensor.numpy(), GIVEN.h1_scores)
    labels = StoredOutputs.open(WRITTEN / "lightning" / "stored_labels")
    assert labels.labels_only
    assert labels[:].tolist() == GIVEN.h1.tolist()
    # By which a sweep knows a table again.
    name = (WRITTEN / "lightning" / "table.txt").read_text().strip()
    assert StoredOutputs.from_table(GIVEN.h1).fingerprint == name


def test_stored_outputs_are_not_computed_anew(written):
    from bc_lightning import store_outputs

    h1 = recipes.torch_dense(GIVEN.h1_w, GIVEN.h1_b)
    for name, asked_h1 in (("stored", h1), ("stored_labels", recipes.Labels(h1))):
        folder = written / "lightning" / name
        before = state_of(folder)
        stored = store_outputs(asked_h1, lightning_data(), folder, batch_size=10)
        assert len(stored) == 24
        assert state_of(folder) == before


def test_interrupted_stored_outputs_are_completed(written):
    from bc_lightning import StoredOutputs, store_outputs

    folder = written / "lightning" / "stored_in_part"
    with pytest.raises(ValueError, match="complete"):
        StoredOutputs.open(folder)
    h1 = recipes.Stopped(recipes.torch_dense(GIVEN.h1_w, GIVEN.h1_b), calls=24)
    stored = store_outputs(h1, lightning_data(), folder, batch_size=5)
    assert np.array_equal(stored[:].numpy(), GIVEN.h1_scores)
    # Some rows are looked at again.
    assert 0 < sum(h1.seen) < 24


def test_checkpoint_is_h1():
    from bc_lightning import load_h1

    checkpoint = WRITTEN / "lightning" / "module.ckpt"
    h1 = load_h1(recipes.torch_dense(GIVEN.h1_w, GIVEN.h1_b), checkpoint)
    w, b = trained("new_error", 0.5, 0.125, epochs=2, momentum=0.5)
    np.testing.assert_allclose(h1.weight.detach().numpy().T, w, atol=1e-5)
    np.testing.assert_allclose(h1.bias.detach().numpy(), b, atol=1e-5)


def test_training_goes_on_from_a_checkpoint():
    module, loader = recipes.checkpointed()
    trainer = recipes.quiet_trainer(max_epochs=4)
    trainer.fit(module, loader, ckpt_path=WRITTEN / "lightning" / "module.ckpt")
    assert trainer.global_step == 12
    w, b = trained("new_error", 0.5, 0.125, epochs=4, momentum=0.5)
    state = {name: values.numpy() for name, values in module.state_dict().items()}
    np.testing.assert_allclose(state["weight"].T, w, atol=1e-5)
    np.testing.assert_allclose(state["bias"], b, atol=1e-5)


def test_training_takes_the_steps_it_took():
    check_golden(WRITTEN / "lightning" / "golden.json", recipes.golden_lightning())
