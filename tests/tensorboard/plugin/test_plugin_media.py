"""Texts and images of instances, as the plugin serves them."""

import os
import shutil

import numpy as np
import pytest
from served_logs import BASE, PNG, client_of, index_of, local, log, python_provider, refused

from bc_tensorboard.plugin._plugin_data import LogFolders
from bc_tensorboard.writing._format import decode
from bc_tensorboard.writing._media import EXCERPT, Media, append_media, full_path, media_path


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
