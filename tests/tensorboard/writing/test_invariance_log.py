"""Invariance updates on their way to the dashboard: what is logged, served and put into a page is what was counted."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from invariance_updates import TURNS, layers, measured, predicted, served

from bc_core import compare
from bc_tensorboard import summary, to_html
from bc_tensorboard.plugin._collection import NotShownError
from bc_tensorboard.plugin._invariance import decode_invariance
from bc_tensorboard.plugin._loader import PLUGIN_NAME
from bc_tensorboard.writing._event_file import EventFile
from bc_tensorboard.writing._invariance import encode_invariance


def document(update, **options):
    return json.loads(decode_invariance(encode_invariance(update, **options)))


def data_of(path: Path):
    text = path.read_text("utf-8").partition('id="bc-data">')[2].partition("</script>")[0]
    return json.loads(text)


# The document


def test_counts_and_totals_are_those_of_the_update():
    update = predicted()
    found = document(update)
    assert found["samples"] == 80
    assert found["transforms"] == list(TURNS.names)
    assert [group["sizes"] for group in found["groups"]] == [[0, 15, 30]]
    kept = [pred == pred[:, [0]] for pred in (update.h1_pred, update.h2_pred)]
    for j, cells in enumerate(found["consistency"]):
        wanted = [int(((kept[0][:, j] == a) & (kept[1][:, j] == b)).sum()) for a in (0, 1) for b in (0, 1)]
        assert cells == wanted
    assert [cells[2] / 80 for cells in found["overlaps"]] == [row["nfr"] for row in update.table()]
    assert found["overall"]["negative_flip_rate"][0] == pytest.approx(update.negative_flip_rate, rel=1e-4)
    assert found["depth"] is None
    assert document(predicted(labels=False))["overlaps"] is None


def test_layers_have_their_nv_with_intervals_and_a_row_of_bytes():
    update = measured()
    depth = document(update, order="index")["depth"]
    assert depth["confidence"] == 0.95
    conv, fc = depth["layers"]
    assert [one["name"] for one in (conv, fc)] == ["conv", "fc"]
    assert conv["nv"] == [
        [pytest.approx(update.h1["conv"].summary(), rel=1e-4), 0.1, 0.9],
        [pytest.approx(update.h2["conv"].summary(), rel=1e-4), 0.2, 0.8],
    ]
    assert fc["nv"][0][1:] == [None, None]
    assert conv["dead"] == [pytest.approx(1 / 6, rel=1e-4)] * 2
    values = update.h1["conv"].feature_normalized_variance()
    cells = np.frombuffer(base64.b64decode(conv["heat"][0]), dtype=np.uint8)
    assert cells[0] == 255
    # Half a step of the scale, and its own rounding.
    np.testing.assert_allclose(
        cells[1:] / 254 * depth["end"], np.minimum(values[1:], depth["end"]), atol=depth["end"] / 500
    )
    change = np.frombuffer(base64.b64decode(conv["change"]), dtype=np.uint8)
    difference = update.h2["conv"].feature_normalized_variance() - values
    np.testing.assert_allclose(
        change[1:] / 127 * depth["reach"] - depth["reach"],
        np.clip(difference[1:], -depth["reach"], depth["reach"]),
        atol=depth["reach"] / 250,
    )


def test_layers_of_one_network_alone_are_kept():
    update = dataclasses.replace(measured(), h2=layers(["conv", "head"], 2))
    found = {layer["name"]: layer for layer in document(update)["depth"]["layers"]}
    assert found["fc"]["depth"] == [1, None]
    assert found["head"]["nv"][0] is None
    assert found["head"]["heat"][0] is None
    assert found["head"]["change"] is None


def test_many_wide_layers_stay_small():
    update = measured([f"block.{number}" for number in range(600)])
    wide = dataclasses.replace(
        update, **{which: layers(update.h1.layer_names, seed, 300) for seed, which in enumerate(("h1", "h2"))}
    )
    assert len(encode_invariance(wide)) < 200_000


@pytest.mark.parametrize("blob", [b"", b"not zlib", zlib.compress(b"[1]"), zlib.compress(b"{}" * 99)[:-3]])
def test_a_damaged_record_is_told_from_a_good_one(blob):
    with pytest.raises(NotShownError, match="damaged"):
        decode_invariance(blob)


# TensorBoard


def get(client, route, **query):
    return client.get(f"/data/plugin/{PLUGIN_NAME}/{route}", query_string=query)


def test_what_was_logged_is_listed_and_served(tmp_path):
    for step in (3, 7):
        summary.invariance(tmp_path / "run", measured(seed=step), step, dataset="välid/ated")
    summary.comparison(tmp_path / "run", compare([0, 1], [0, 1], [0, 0]), step=3)
    client = served(tmp_path)
    index = get(client, "index").json
    assert [series["dataset"] for series in index["series"]] == ["test"]
    [series] = index["invariance"]
    assert (series["run"], series["dataset"]) == ("run", "välid/ated")
    assert [step for step, _ in series["steps"]] == [3, 7]
    assert all(time > 1e9 for _, time in series["steps"])
    response = get(client, "invariance", run="run", dataset="välid/ated", step=7)
    assert response.json == document(measured(seed=7))
    assert response.headers["Content-Type"].startswith("application/json")
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ({"run": "run", "dataset": "test", "step": "4"}, 404, "no invariance of step 4; its last steps are 3"),
        ({"run": "other", "dataset": "test", "step": "3"}, 404, "Nothing was logged in the run 'other'"),
        ({"run": "run", "dataset": "test", "step": "x"}, 400, "expected a whole number"),
        ({"run": "run", "dataset": "test"}, 400, "'step' is missing"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, query, status, told):
    summary.invariance(tmp_path / "run", predicted(), 3)
    response = get(served(tmp_path), "invariance", **query)
    assert response.status_code == status
    assert told in response.json["error"]


def test_a_later_version_is_left_out_with_a_warning(tmp_path):
    pb = summary.invariance_pb(predicted())
    pb.value[0].metadata.plugin_data.content = b'{"version": 2}'
    EventFile(tmp_path / "run").add_summary(pb, 1)
    index = get(served(tmp_path), "index").json
    assert "invariance" not in index
    assert "newer release" in index["warnings"][0]


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"compare_invariance .* got dict"):
        summary.invariance(tmp_path / "run", {}, 0)
    with pytest.raises(ValueError, match="step: expected a number from 0"):
        summary.invariance(tmp_path / "run", predicted(), -1)
    with pytest.raises(ValueError, match="dataset: expected a name"):
        summary.invariance(tmp_path / "run", predicted(), 0, dataset="")
    with pytest.raises(ValueError, match="order: expected 'sorted' or 'index'"):
        summary.invariance(tmp_path / "run", measured(), 0, order="random")
    assert list(tmp_path.iterdir()) == []


# The page


def test_an_update_stands_beside_the_last_comparison_of_its_run(tmp_path):
    compared = [compare([0, 1], [0, 1], [0, 0], name="update", step=step) for step in (1, 5)]
    update = measured()
    data = data_of(to_html(compared, tmp_path / "a.html", invariance=update))
    assert data["index"]["invariance"] == [{"run": "update", "dataset": "test", "steps": [[5, None]]}]
    assert data["invariance"] == {"update\0test\x005": document(update)}


def test_updates_may_be_given_by_run_and_data_set_or_step(tmp_path):
    given = {"a": {"val": predicted(1)}, "b": {3: predicted(2), 4: predicted(3)}, "c": predicted(4)}
    data = data_of(to_html(None, tmp_path / "a.html", invariance=given, dataset="held out"))
    assert set(data["invariance"]) == {"a\0val\x000", "b\0held out\x003", "b\0held out\x004", "c\0held out\x000"}


def test_without_comparisons_the_page_has_the_update_alone_and_puts_it_into_words(tmp_path):
    path = to_html(None, tmp_path / "a.html", invariance=predicted())
    assert data_of(path)["index"]["series"] == []
    text = path.read_text("utf-8")
    assert "invariance negative flips:" in text
    assert "<title>Compatibility of update</title>" in text


def test_a_page_without_it_has_nothing_of_it(tmp_path):
    data = data_of(to_html(compare([0], [0], [0]), tmp_path / "a.html"))
    assert "invariance" not in data
    assert "invariance" not in data["index"]


def test_a_page_says_what_it_cannot_place(tmp_path):
    two = {"a": compare([0], [0], [0]), "b": compare([0], [0], [0])}
    with pytest.raises(ValueError, match="expected a mapping from the name of a run, as there are a, b"):
        to_html(two, tmp_path / "a.html", invariance=predicted())
    with pytest.raises(TypeError, match="got Comparison"):
        to_html(two, tmp_path / "a.html", invariance=two)
    with pytest.raises(TypeError, match="names of runs as keys, got 3"):
        to_html(two, tmp_path / "a.html", invariance={3: predicted()})
    with pytest.raises(ValueError, match="expected at least one"):
        to_html(None, tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []
