"""What the plugin serves of comparisons."""

import os
import shutil
import time

import numpy as np
import pytest
from invariance_updates import measured
from served_logs import (
    BASE,
    ORIGINALS,
    PNG,
    client_of,
    comparison,
    index_of,
    local,
    log,
    python_provider,
    refused,
    rust_provider,
    write,
)
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_TENSOR,
    Summary,
    SummaryMetadata,
)
from tensorboard.util import tensor_util

from bc_tensorboard import summary
from bc_tensorboard.plugin import _plugin
from bc_tensorboard.plugin._loader import KEPT_STEPS, PLUGIN_NAME
from bc_tensorboard.writing._event_file import EventFile
from bc_tensorboard.writing._format import decode, encode_comparison
from bc_tensorboard.writing._media import append_media, media_path


def test_the_index_lists_the_counts_of_every_step_of_every_run(tmp_path, serve):
    log(tmp_path / "b", steps=(3, 10))
    log(tmp_path / "a" / "nested", steps=(0,), weight=float("nan"), tag="my%20data%2Fset")
    index = index_of(serve(tmp_path))
    assert (index["warnings"], index["progress"]) == ([], None)
    nested, b = index["series"]
    assert {key: value for key, value in b.items() if key != "steps"} == {
        "run": "b",
        "dataset": "test",
        "dissonance": "new error",
        "num_classes": 3,
        "has_media": False,
    }
    assert [row[0] for row in b["steps"]] == [3, 10]
    for step, wall_time, weight, *cells in b["steps"]:
        assert abs(wall_time - time.time()) < 60
        assert weight == 0.5
        assert cells == comparison(step).overlap.counts.sum(axis=0).ravel().tolist()
    assert (nested["run"], nested["dataset"], nested["steps"][0][2]) == (
        os.path.join("a", "nested"),
        "my data/set",
        None,
    )


def test_a_table_is_passed_on_byte_for_byte(tmp_path, serve):
    log(tmp_path / "run", steps=(2, 5))
    client = serve(tmp_path)
    response = client.get(f"{BASE}/table", query_string={"run": "run", "dataset": "test", "step": 5})
    assert (response.status_code, response.mimetype) == (200, "application/octet-stream")
    assert response.data == encode_comparison(comparison(5, 5), dataset="test")
    assert decode(response.data)[0]["step"] == 5
    # What does not decode is the browser's to report; the server does not look into it.
    log(tmp_path / "odd", steps=(0,), table=b"\x00\xff no table")
    response = serve(tmp_path).get(f"{BASE}/table?run=odd&dataset=test&step=0")
    assert response.data == b"\x00\xff no table"


def test_what_is_not_there_is_answered_with_advice(tmp_path, serve):
    log(tmp_path / "run")
    client = serve(tmp_path)
    for query, status, message in [
        ("run=run&dataset=test&step=9", 404, "no table of step 9; its last steps are 0, 1"),
        ("run=run&dataset=train&step=0", 404, "Nothing was logged in the run 'run' on the data set 'train'"),
        ("run=other&dataset=test&step=0", 404, "Nothing was logged in the run 'other'"),
        ("run=run&dataset=test&step=one", 400, "step: expected a whole number, got 'one'"),
        ("run=run&dataset=test", 400, "The argument 'step' is missing"),
        ("", 400, "The argument 'run' is missing"),
    ]:
        assert message in refused(client.get(f"{BASE}/table?{query}"), status)
    for route in ("media", "image"):
        for query in ("run=run&dataset=train&id=1", "run=none&dataset=test&id=1", "run=run&dataset=test&id=1"):
            refused(client.get(f"{BASE}/{route}?{query}"), 404)


ASKED = {"run": "run", "dataset": "test", "step": "0", "id": "1", "text": "e", "full": "1"}
HOSTILE = [
    "",
    "\0",
    "../../secret",
    "/",
    "NaN",
    "-1",
    "1e9",
    "9" * 4000,
    "9" * 5000,
    "x" * 100_000,
    "<script>alert(1)</script>",
]


@pytest.mark.parametrize("route", ["table", "invariance", "media", "image", "text", "search"])
def test_whatever_is_asked_for_is_answered_or_refused(tmp_path, route):
    log(tmp_path / "run", steps=(0,))
    summary.invariance(tmp_path / "run", measured(), 0)
    append_media(media_path(tmp_path / "run", "test"), [(1, "a text" * 100)], [(1, PNG)])
    (tmp_path / "secret").write_text("secret")
    client = local(tmp_path)
    assert client.get(f"{BASE}/{route}", query_string=ASKED).status_code == 200
    for name in ASKED:
        for value in HOSTILE:
            query = {**ASKED, name: value}
            response = client.get(
                f"{BASE}/{route}", query_string=query, headers={"Origin": "https://elsewhere.example"}
            )
            assert "Access-Control-Allow-Origin" not in response.headers
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            if response.status_code != 200:
                assert len(refused(response, 400 if response.status_code == 400 else 404)) < 500
                assert response.mimetype == "application/json"
            assert str(tmp_path).encode() not in response.data
            assert b"secret" not in response.data.replace(b"../../secret", b"")


def test_every_step_is_kept_up_to_the_bound_and_beyond_it_each_step_has_its_table(tmp_path, serve):
    events = EventFile(tmp_path / "run")
    compared = comparison()
    for step in range(KEPT_STEPS + 100):
        write(events, step, compared, table=b"table %d" % step)
    client = serve(tmp_path)
    steps = [row[0] for row in index_of(client)["series"][0]["steps"]]
    assert len(steps) == KEPT_STEPS
    assert steps[-1] == KEPT_STEPS + 99
    for step in (*steps[:3], *steps[::50], steps[-1]):
        response = client.get(f"{BASE}/table?run=run&dataset=test&step={step}")
        assert response.data == b"table %d" % step


def test_a_run_that_goes_back_loses_later_steps_in_the_default_loader_only(tmp_path):
    """As docs/dashboard.md says; TensorBoard's own doing."""
    events = EventFile(tmp_path / "run")
    for step in (0, 10, 20, 30, 15, 40):
        write(events, step, comparison(step, step))

    def steps(provider):
        return [row[0] for row in index_of(client_of(tmp_path, provider))["series"][0]["steps"]]

    assert steps(python_provider(tmp_path)) == [0, 10, 15, 20, 30, 40]
    with rust_provider(tmp_path) as provider:
        assert steps(provider) == [0, 10, 15, 40]


def test_a_run_of_a_newer_format_is_left_out_with_a_warning(tmp_path, serve):
    log(tmp_path / "new", version=2)
    log(tmp_path / "old")
    client = serve(tmp_path)
    index = index_of(client)
    assert [entry["run"] for entry in index["series"]] == ["old"]
    [warning] = index["warnings"]
    assert "Run new, data set test" in warning
    assert "update backward-compat-ml" in warning
    assert "newer release" in refused(client.get(f"{BASE}/table?run=new&dataset=test&step=0"), 404)


def test_an_event_file_that_is_cut_off_shows_what_is_whole(tmp_path, serve):
    events = log(tmp_path / "run", steps=(0, 1, 2))
    content = events.path.read_bytes()
    events.path.write_bytes(content[:-100])
    index = index_of(serve(tmp_path))
    assert [row[0] for row in index["series"][0]["steps"]] == [0, 1]


def test_counts_that_are_no_counts_cost_only_their_step(tmp_path, serve):
    events = log(tmp_path / "run", steps=(0, 1))
    proto = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=b'{"version": 1}'),
        data_class=DATA_CLASS_TENSOR,
    )
    tag = f"{PLUGIN_NAME}/test/counts"
    for step, values in [(2, np.zeros(3)), (3, np.full(5, np.inf))]:
        value = Summary.Value(tag=tag, tensor=tensor_util.make_tensor_proto(values), metadata=proto)
        events.add_summary(Summary(value=[value]), step)
    index = index_of(serve(tmp_path))
    assert [row[0] for row in index["series"][0]["steps"]] == [0, 1]
    assert "2 steps left out" in index["warnings"][0]


@pytest.mark.parametrize(
    "route", ["index", "table", "media", "image", "text", "search", "invariance", "static/index.js"]
)
def test_only_reading_is_allowed(tmp_path, route):
    log(tmp_path / "run")
    client = local(tmp_path)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        response = client.open(f"{BASE}/{route}", method=method)
        refused(response, 405)
        assert response.headers["Allow"] == "GET, HEAD"


def test_head_tells_the_length_without_the_content(tmp_path):
    log(tmp_path / "run")
    response = local(tmp_path).head(f"{BASE}/table?run=run&dataset=test&step=0")
    assert (response.status_code, response.data) == (200, b"")
    assert int(response.headers["Content-Length"]) == len(encode_comparison(comparison(0, 0), dataset="test"))


def test_a_browser_keeps_images_only(tmp_path):
    log(tmp_path / "run")
    append_media(media_path(tmp_path / "run", "test"), [], [(1, PNG)])
    client = local(tmp_path)
    for route in ("index", "table?run=run&dataset=test&step=0", "media?run=run&dataset=test"):
        assert client.get(f"{BASE}/{route}").headers["Cache-Control"] == "no-store"
    assert "immutable" in client.get(f"{BASE}/image?run=run&dataset=test&id=1").headers["Cache-Control"]


def test_a_failure_of_ours_shows_no_trace_to_the_browser(tmp_path, monkeypatch, caplog):
    log(tmp_path / "run")
    client = local(tmp_path)
    monkeypatch.setattr(_plugin.LoggedComparisons, "series", lambda *_: 1 / 0)
    refused(client.get(f"{BASE}/index"), 500)
    assert "ZeroDivisionError" in caplog.text


def test_the_script_is_served_as_a_module(tmp_path, monkeypatch):
    monkeypatch.setattr(_plugin, "STATIC", tmp_path)
    client = local(tmp_path)
    refused(client.get(f"{BASE}/static/index.js"), 404)
    (tmp_path / "index.js").write_text("export function render() {}")
    response = client.get(f"{BASE}/static/index.js")
    assert (response.mimetype, response.text) == ("text/javascript", "export function render() {}")


def listing(client):
    return client.get("/data/plugins_listing").json[PLUGIN_NAME]


def test_the_tab_is_on_only_where_there_is_something_to_show(tmp_path, serve):
    (tmp_path / "empty").mkdir()
    assert not listing(local(tmp_path / "empty"))["enabled"]
    assert index_of(local(tmp_path / "empty")) == {"series": [], "warnings": [], "progress": None}
    log(tmp_path / "logged" / "run")
    assert listing(serve(tmp_path / "logged"))["enabled"]
    shutil.copytree(ORIGINALS / "one_batch", tmp_path / "swept" / "sweep")
    entry = listing(local(tmp_path / "swept"))
    assert entry["enabled"]
    assert entry["loading_mechanism"]["module_path"] == f"{BASE}/static/index.js"
