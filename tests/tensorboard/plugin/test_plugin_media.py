"""Texts and images of instances, as the plugin serves them."""

import os
import shutil

import pytest
from served_logs import BASE, PNG, client_of, index_of, local, log, python_provider, refused

from bc_tensorboard.plugin._plugin_data import LogFolders
from bc_tensorboard.writing._format import decode
from bc_tensorboard.writing._media import append_media, media_path


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
        for route in ("media", "image"):
            query = {"run": run, "dataset": dataset, "id": "1"}
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
