import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_BLOB_SEQUENCE,
    DATA_CLASS_TENSOR,
    Summary,
    SummaryMetadata,
)
from tensorboard.data import server_ingester
from tensorboard.plugins import base_plugin
from tensorboard.util import grpc_util, tensor_util
from werkzeug.test import Client

from bc_core import compare
from bc_tensorboard import read_original_sweep
from bc_tensorboard.plugin import _plugin
from bc_tensorboard.plugin._loader import KEPT_STEPS, PLUGIN_NAME, BackwardCompatibilityLoader
from bc_tensorboard.plugin._plugin_data import LogFolders
from bc_tensorboard.writing._event_file import EventFile
from bc_tensorboard.writing._format import decode, encode_comparison
from bc_tensorboard.writing._media import EXCERPT, Media, append_media, full_path, media_path

BASE = f"/data/plugin/{PLUGIN_NAME}"
ORIGINALS = Path(__file__).parents[2] / "data" / "original_sweep"
PNG = b"\x89PNG\r\n\x1a\n and the rest"


def comparison(seed=0, step=None, size=40):
    rng = np.random.default_rng(seed)
    return compare(*rng.integers(0, 3, (3, size)), ids=np.arange(size) + 100, num_classes=3, step=step)


def write(event_file, step, compared, tag="test", weight=0.5, version=1, table=None):
    """Write the two summaries of a comparison, spelt out: what the plugin has to read, whoever wrote it."""
    content = {"version": version, "dataset": "test", "dissonance": "new error", "num_classes": 3}
    metadata = {"plugin_name": "backward_compatibility", "content": json.dumps(content).encode()}
    counts = [*compared.overlap.counts.sum(axis=0).ravel(), weight]
    blob = encode_comparison(compared, dataset="test") if table is None else table
    values = [
        ("counts", DATA_CLASS_TENSOR, np.array(counts, dtype=np.float64)),
        ("table", DATA_CLASS_BLOB_SEQUENCE, np.array([blob], dtype=object)),
    ]
    event_file.add_summary(
        Summary(
            value=[
                Summary.Value(
                    tag=f"backward_compatibility/{tag}/{name}",
                    tensor=tensor_util.make_tensor_proto(array),
                    metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(**metadata), data_class=kind),
                )
                for name, kind, array in values
            ]
        ),
        step,
    )


def log(folder, steps=(0, 1), **options):
    events = EventFile(folder)
    for step in steps:
        write(events, step, comparison(step, step), **options)
    return events


def python_provider(logdir, spec=None):
    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: KEPT_STEPS})
    for name, folder in spec or [(None, logdir)]:
        multiplexer.AddRunsFromDirectory(str(folder), name)
    multiplexer.Reload()
    return data_provider.MultiplexerDataProvider(multiplexer, str(logdir))


@contextlib.contextmanager
def rust_provider(logdir):
    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=str(logdir),
        reload_interval=0,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
        samples_per_plugin={PLUGIN_NAME: KEPT_STEPS},
    )
    ingester.start()
    try:
        # The server answers at once and reads meanwhile.
        state, deadline = None, time.monotonic() + 20
        while time.monotonic() < deadline:
            runs = ingester.data_provider.list_tensors(None, experiment_id="", plugin_name=PLUGIN_NAME)
            if runs and runs == state:
                break
            state = runs
            time.sleep(0.2)
        yield ingester.data_provider
    finally:
        ingester._stdin_handle.close()


@pytest.fixture(params=["python", "rust"])
def serve(request):
    with contextlib.ExitStack() as stack:

        def start(logdir, **options):
            if request.param == "python" or options.get("spec"):
                provider = python_provider(logdir, options.get("spec"))
            else:
                provider = stack.enter_context(rust_provider(logdir))
            return client_of(logdir, provider, options.get("logdir_spec", ""))

        yield start


def client_of(logdir, provider, logdir_spec="", plugin=BackwardCompatibilityLoader):
    flags = Namespace(
        logdir="" if logdir_spec else str(logdir),
        logdir_spec=logdir_spec,
        samples_per_plugin={},
        window_title="",
        path_prefix="",
    )
    return Client(application.TensorBoardWSGIApp(flags, [plugin], provider))


def local(logdir):
    return client_of(logdir, python_provider(logdir))


def index_of(client):
    response = client.get(f"{BASE}/index")
    assert response.status_code == 200
    return response.json


def refused(response, status):
    assert response.status_code == status
    assert set(response.json) == {"error", "advice"}
    assert "Traceback" not in response.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return response.json["error"]


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


def test_texts_and_images_come_from_the_pack_beside_the_run(tmp_path, serve):
    for run, ids in (("numbers", [7, 8]), ("texts", ["7", "../8"])):
        log(tmp_path / run, steps=(0,))
        append_media(media_path(tmp_path / run, "test"), [(ids[0], "a text")], [(ids[0], PNG), (ids[1], b"<svg/>")])
    client = serve(tmp_path)
    assert [entry["has_media"] for entry in index_of(client)["series"]] == [True, True]
    header, columns = decode(client.get(f"{BASE}/media?run=numbers&dataset=test").data)
    assert header["kind"] == "media"
    assert [list(columns[name]) for name in ("ids", "text", "has_image")] == [[7, 8], ["a text", ""], [1, 1]]
    for run in ("numbers", "texts"):
        response = client.get(f"{BASE}/image?run={run}&dataset=test&id=7")
        assert (response.status_code, response.mimetype, response.data) == (200, "image/png", PNG)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "immutable" in response.headers["Cache-Control"]
    # A picture is what it starts like; nothing that a browser could run is served.
    assert "damaged" in refused(client.get(f"{BASE}/image?run=texts&dataset=test&id=../8"), 404)
    assert "no image of the instance 9" in refused(client.get(f"{BASE}/image?run=texts&dataset=test&id=9"), 404)


def test_larger_pictures_and_whole_texts_are_served_on_demand(tmp_path, serve):
    log(tmp_path / "run", steps=(0,))
    path = media_path(tmp_path / "run", "test")
    larger = PNG + b" and larger"
    append_media(path, [(7, "t" * 500 + "</script> Käfer"), (8, "short Käfer")], [(7, PNG), (8, PNG), (9, PNG)])
    append_media(full_path(path), [], [(7, larger), (9, b"<svg onload=alert(1)>")], [8])
    client = serve(tmp_path)
    _, columns = decode(client.get(f"{BASE}/media?run=run&dataset=test").data)
    assert [list(columns[name]) for name in ("ids", "has_image", "is_longer")] == [[7, 8, 9], [3, 4, 3], [1, 0, 0]]
    assert columns["text"][0] == "t" * EXCERPT
    for full, instance, wanted in (("", 7, PNG), ("&full=1", 7, larger), ("&full=1", 8, PNG), ("&full=0", 7, PNG)):
        assert client.get(f"{BASE}/image?run=run&dataset=test&id={instance}{full}").data == wanted
    # Whatever is in the file, nothing is served that a browser could run.
    refused(client.get(f"{BASE}/image?run=run&dataset=test&id=9&full=1"), 404)
    response = client.get(f"{BASE}/text?run=run&dataset=test&id=7")
    assert (response.mimetype, response.json) == ("application/json", {"text": "t" * 500 + "</script> Käfer"})
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get(f"{BASE}/text?run=run&dataset=test&id=8").json == {"text": "short Käfer"}
    assert "no text of the instance 9" in refused(client.get(f"{BASE}/text?run=run&dataset=test&id=9"), 404)
    query = {"run": "run", "dataset": "test", "text": "KÄFER"}
    assert client.get(f"{BASE}/search", query_string=query).json == {"ids": ["7"]}
    assert client.get(f"{BASE}/search", query_string={**query, "text": "*"}).json == {"ids": []}
    refused(client.get(f"{BASE}/search?run=run&dataset=test"), 400)


def test_larger_pictures_that_are_damaged_or_lie_elsewhere_cost_nothing_else(tmp_path):
    log(tmp_path / "logs" / "run", steps=(0,))
    path = media_path(tmp_path / "logs" / "run", "test")
    append_media(path, [], [(1, PNG)])
    full_path(path).write_bytes(b"something else")
    address = f"{BASE}/image?run=run&dataset=test&id=1&full=1"
    assert local(tmp_path / "logs").get(address).data == PNG
    outside = tmp_path / "outside.full"
    append_media(outside, [], [(1, PNG + b" secret")])
    full_path(path).unlink()
    full_path(path).symlink_to(outside)
    assert local(tmp_path / "logs").get(address).data == PNG


def test_a_run_whose_folder_is_a_link_says_why_it_has_no_pictures(tmp_path):
    log(tmp_path / "elsewhere", steps=(0,))
    append_media(media_path(tmp_path / "elsewhere", "test"), [(1, "text")], [])
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run").symlink_to(tmp_path / "elsewhere")
    index = index_of(local(tmp_path / "logs"))
    assert [entry["has_media"] for entry in index["series"]] == [False]
    [warning] = index["warnings"]
    assert warning.startswith("Run run: its texts and images are not shown, as its folder is a link")
    assert str(tmp_path) not in warning, "where the link leads is nobody's business"
    # The remedy.
    spec = [("run", tmp_path / "elsewhere")]
    client = client_of(tmp_path, python_provider(tmp_path, spec), logdir_spec=f"run:{tmp_path / 'elsewhere'}")
    index = index_of(client)
    assert ([entry["has_media"] for entry in index["series"]], index["warnings"]) == ([True], [])


def test_long_texts_of_many_instances_are_a_small_answer_made_once(tmp_path, monkeypatch):
    log(tmp_path / "run", steps=(0,))
    letters = np.random.default_rng(0).integers(97, 123, (3000, 4096), dtype=np.uint8)
    append_media(media_path(tmp_path / "run", "test"), [(i, bytes(row).decode()) for i, row in enumerate(letters)], [])
    client = local(tmp_path)
    content = client.get(f"{BASE}/media?run=run&dataset=test").data
    assert len(content) < 2_000_000 * len(letters) / 20_000
    monkeypatch.setattr(Media, "encode", lambda *_: 1 / 0)
    assert client.get(f"{BASE}/media?run=run&dataset=test").data == content


def test_a_new_text_shows_without_a_restart(tmp_path):
    log(tmp_path / "run", steps=(0,))
    client = local(tmp_path)
    for count in (1, 2):
        append_media(media_path(tmp_path / "run", "test"), [(count, "text")], [])
        assert len(decode(client.get(f"{BASE}/media?run=run&dataset=test").data)[1]["text"]) == count


def test_a_damaged_pack_is_said_to_be(tmp_path):
    log(tmp_path / "run", steps=(0,))
    path = media_path(tmp_path / "run", "test")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    message = refused(local(tmp_path).get(f"{BASE}/media?run=run&dataset=test"), 404)
    assert "damaged" in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize(
    ("head", "mimetype"), [(b"\xff\xd8\xff\xe0", "image/jpeg"), (b"RIFF1234WEBPVP8 ", "image/webp")]
)
def test_jpeg_and_webp_are_images_too(tmp_path, head, mimetype):
    log(tmp_path / "run", steps=(0,))
    append_media(media_path(tmp_path / "run", "test"), [], [(-3, head)])
    assert local(tmp_path).get(f"{BASE}/image?run=run&dataset=test&id=-3").mimetype == mimetype


def test_no_name_leads_out_of_the_log_folder(tmp_path):
    outside = tmp_path / "outside"
    append_media(media_path(outside, "test"), [(1, "secret")], [(1, PNG)])
    shutil.copy(media_path(outside, "test"), tmp_path / "secret.media")
    logdir = tmp_path / "logs"
    log(logdir / "run", steps=(0,), tag="..%2F..%2F..%2F..%2Fsecret")
    log(logdir / "linked", steps=(0,))
    media_path(logdir / "linked", "test").parent.mkdir(parents=True)
    media_path(logdir / "linked", "test").symlink_to(media_path(outside, "test"))
    log(outside, steps=(0,))
    client = local(logdir)
    assert not any(entry["has_media"] for entry in index_of(client)["series"])
    for run, dataset in [
        ("run", "../../../../secret"),
        ("linked", "test"),
        ("../outside", "test"),
        (str(outside), "test"),
        ("run/../../outside", "test"),
        ("run\0", "test"),
    ]:
        for route in ("media", "image", "text", "search"):
            query = {"run": run, "dataset": dataset, "id": "1", "text": "s", "full": "1"}
            refused(client.get(f"{BASE}/{route}", query_string=query), 404)
    for path in ("static/../_plugin.py", "static/%2e%2e/_plugin.py", "static/page.js", "static/"):
        assert client.get(f"{BASE}/{path}").status_code == 404


def test_a_log_folder_behind_a_link_has_its_media(tmp_path):
    log(tmp_path / "real" / "run", steps=(0,))
    append_media(media_path(tmp_path / "real" / "run", "test"), [(1, "text")], [])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert index_of(local(tmp_path / "link"))["series"][0]["has_media"]


def test_events_in_the_log_folder_itself_have_their_media(tmp_path, serve):
    log(tmp_path, steps=(0,))
    append_media(media_path(tmp_path, "test"), [(1, "text")], [])
    client = serve(tmp_path)
    assert [(entry["run"], entry["has_media"]) for entry in index_of(client)["series"]] == [(".", True)]
    assert client.get(f"{BASE}/media?run=.&dataset=test").status_code == 200


def test_named_log_folders_have_their_media(tmp_path):
    spec = [("first", tmp_path / "one"), ("second", tmp_path / "two")]
    for _, folder in spec:
        log(folder / "run", steps=(0,))
    append_media(media_path(tmp_path / "two" / "run", "test"), [(1, "text")], [])
    text = ",".join(f"{name}:{folder}" for name, folder in spec)
    client = client_of(tmp_path, python_provider(tmp_path, spec), logdir_spec=text)
    found = {entry["run"]: entry["has_media"] for entry in index_of(client)["series"]}
    assert found == {os.path.join("first", "run"): False, os.path.join("second", "run"): True}


@pytest.mark.parametrize(
    "spec", ["/a", "/a,/b", "x:/a", "x:/a,y:/b,/c", "/a:b/c", "x:/a:b", "x:relative,also", "gs://bucket/a,x:/a", ""]
)
def test_log_folders_are_named_as_tensorboard_names_them(spec):
    from tensorboard.backend.event_processing.data_ingester import _parse_event_files_spec

    theirs = {(name, path) for path, name in _parse_event_files_spec(spec or None).items() if "://" not in path}
    assert set(LogFolders("", spec).roots) == theirs


@pytest.mark.parametrize("route", ["index", "table", "media", "image", "text", "search", "static/index.js"])
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


def test_a_sweep_of_the_original_is_shown_as_runs(tmp_path):
    folder = Path(shutil.copytree(ORIGINALS / "one_batch", tmp_path / "old"))
    log(tmp_path / "run", steps=(0,))
    client = local(tmp_path)
    index = index_of(client)
    assert len(index["series"]) == 13
    for evaluation in read_original_sweep(folder):
        run = f"old/lambda_c {evaluation.lambda_c:g}, {evaluation.dissonance}"
        [entry] = [e for e in index["series"] if (e["run"], e["dataset"]) == (run, evaluation.dataset)]
        cells = evaluation.comparison.overlap.counts.sum(axis=0).ravel().tolist()
        assert entry["steps"] == [[0, None, evaluation.lambda_c, *cells]]
        assert (entry["dissonance"], entry["num_classes"]) == (evaluation.dissonance, 3)
        query = {"run": run, "dataset": evaluation.dataset, "step": 0}
        header, columns = decode(client.get(f"{BASE}/table", query_string=query).data)
        assert header["uncertain_classes"] == [0, 1, 2]
        assert list(columns["ids"]) == evaluation.comparison.instances.ids.tolist()
        assert columns["metadata"] == evaluation.comparison.instances.metadata.tolist()
        refused(client.get(f"{BASE}/table", query_string={**query, "step": 1}), 404)
    [warning] = index["warnings"]
    assert "on testing data its strict imitation repeats its new error" in warning


def test_a_log_folder_can_be_a_sweep_itself(tmp_path):
    folder = Path(shutil.copytree(ORIGINALS / "one_batch", tmp_path / "old"))
    runs = {entry["run"] for entry in index_of(local(folder))["series"]}
    assert len(runs) == 6
    assert all(run.startswith("old/lambda_c ") for run in runs)


def test_a_sweep_that_grows_or_is_damaged_shows_the_rest_and_is_read_again_when_it_changes(tmp_path):
    folder = Path(shutil.copytree(ORIGINALS / "one_batch", tmp_path / "old"))
    whole = (folder / "5-evaluation-data.json").read_bytes()
    (folder / "5-evaluation-data.json").write_bytes(whole[:500])
    summary = (folder / "sweep_summary.json").read_bytes()
    (folder / "sweep_summary.json").unlink()
    client = local(tmp_path)
    index = index_of(client)
    assert len(index["series"]) == 11
    assert any("5-evaluation-data.json" in warning and "cut off" in warning for warning in index["warnings"])
    assert any("still running or was interrupted" in warning for warning in index["warnings"])
    (folder / "5-evaluation-data.json").write_bytes(whole)
    (folder / "sweep_summary.json").write_bytes(summary)
    index = index_of(client)
    assert len(index["series"]) == 12
    assert len(index["warnings"]) == 1


def test_a_sweep_is_not_read_twice(tmp_path, monkeypatch):
    from bc_tensorboard.plugin import _plugin_data

    shutil.copytree(ORIGINALS / "one_batch", tmp_path / "old")
    client = local(tmp_path)
    first = index_of(client)
    monkeypatch.setattr(_plugin_data, "read_finished_evaluations", lambda _: 1 / 0)
    assert index_of(client) == first


def test_a_sweep_whose_files_are_links_to_other_folders_is_refused(tmp_path):
    (tmp_path / "logs" / "old").mkdir(parents=True)
    for path in (ORIGINALS / "one_batch").iterdir():
        (tmp_path / "logs" / "old" / path.name).symlink_to(path)
    index = index_of(local(tmp_path / "logs"))
    assert index["series"] == []
    assert "is a link to another folder" in index["warnings"][0]
    (tmp_path / "logs" / "linked").symlink_to(ORIGINALS / "one_batch")
    assert not any("linked" in entry["run"] for entry in index_of(local(tmp_path / "logs"))["series"])


def test_the_loader_asks_for_enough_steps_and_leaves_the_users_number_alone():
    loader = BackwardCompatibilityLoader()
    for given, expected in [
        ({}, KEPT_STEPS),
        ({"images": 3}, KEPT_STEPS),
        ({PLUGIN_NAME: 7}, 7),
        ({PLUGIN_NAME: 0}, 0),
    ]:
        flags = Namespace(samples_per_plugin=given)
        loader.fix_flags(flags)
        assert flags.samples_per_plugin == {**given, PLUGIN_NAME: expected}


def test_the_loader_module_imports_nothing_that_could_fail():
    code = (
        "import sys, bc_tensorboard.plugin._loader\n"
        "heavy = {'numpy', 'bc_core', 'torch', 'tensorflow', 'keras', 'PIL', 'werkzeug'} & set(sys.modules)\n"
        "ours = {m for m in sys.modules if m.startswith('bc_tensorboard.')}\n"
        "assert not heavy and ours == {'bc_tensorboard.plugin', 'bc_tensorboard.plugin._loader'}, (heavy, ours)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plugin_that_cannot_be_loaded_leaves_the_other_tabs_alone(tmp_path, monkeypatch, caplog):
    from tensorboard.plugins.scalar import scalars_plugin

    monkeypatch.setitem(sys.modules, "bc_tensorboard.plugin._plugin", None)
    context = base_plugin.TBContext(logdir=str(tmp_path), flags=Namespace(logdir_spec=""))
    assert BackwardCompatibilityLoader().load(context) is None
    [record] = caplog.records
    assert "The compatibility tab is off" in record.getMessage()
    assert record.exc_info is None
    flags = Namespace(logdir=str(tmp_path), samples_per_plugin={}, window_title="", path_prefix="")
    plugins = [BackwardCompatibilityLoader, scalars_plugin.ScalarsPlugin]
    app = application.TensorBoardWSGIApp(flags, plugins, python_provider(tmp_path))
    assert set(Client(app).get("/data/plugins_listing").json) == {"scalars"}


def test_tensorboard_finds_the_loader_by_its_entry_point():
    from importlib.metadata import entry_points

    [found] = [point for point in entry_points(group="tensorboard_plugins") if point.name == PLUGIN_NAME]
    loader = application.make_plugin_loader(found.load())
    assert isinstance(loader, BackwardCompatibilityLoader)


def test_the_writing_half_and_the_plugin_mean_the_same_name_and_version():
    from bc_tensorboard import summary
    from bc_tensorboard.plugin._plugin_data import EVENTS_VERSION

    assert (summary.PLUGIN_NAME, summary.VERSION) == (PLUGIN_NAME, EVENTS_VERSION)
    assert media_path("run", "a/b") == Path("run", "plugins", PLUGIN_NAME, "a%2Fb.media")
