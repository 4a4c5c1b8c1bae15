"""The pack of texts and images: it only grows, and a crash costs at most its last record."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bc_tensorboard.writing import _media
from bc_tensorboard.writing._format import decode
from bc_tensorboard.writing._media import (
    EXCERPT,
    Media,
    append_media,
    media_path,
    read_image,
    read_media,
    read_text,
    search_longer,
)

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def test_texts_and_images_come_back_from_several_calls(tmp_path):
    path = media_path(tmp_path, "test")
    append_media(path, [(1, "one"), (2, "")], [(1, IMAGE)])
    append_media(path, [(-3, "käfer 🐱")], iter([(2, b"\xff\xd8\xff"), (2**60, IMAGE)]))
    media = read_media(path)
    assert media.texts == {1: "one", 2: "", -3: "käfer 🐱"}
    assert {i: read_image(path, media, i) for i in media.images} == {1: IMAGE, 2: b"\xff\xd8\xff", 2**60: IMAGE}
    assert read_image(path, media, 99) is None
    assert media.end == path.stat().st_size


def test_integer_and_text_ids_stay_apart(tmp_path):
    path = media_path(tmp_path, "test")
    append_media(path, [("7", "text"), (7, "number")], [])
    assert read_media(path).texts == {"7": "text", 7: "number"}


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_record_that_was_cut_off_is_passed_over_and_overwritten(cut, tmp_path):
    path = media_path(tmp_path, "test")
    append_media(path, [("first", "whole")], [])
    whole = path.read_bytes()
    append_media(path, [("second", "a text of some length, to be cut off")], [])
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_media(path).texts == {"first": "whole"}
    append_media(path, [("third", "after the crash")], [])
    assert read_media(path).texts == {"first": "whole", "third": "after the crash"}
    assert path.read_bytes().startswith(whole)


def test_a_pack_that_was_cut_off_in_its_first_bytes_starts_anew(tmp_path):
    path = media_path(tmp_path, "test")
    append_media(path, [(1, "one")], [])
    path.write_bytes(path.read_bytes()[:5])
    assert read_media(path) == Media({}, {}, 0)
    append_media(path, [(2, "two")], [])
    assert read_media(path).texts == {2: "two"}


def test_another_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "x.media"
    path.write_bytes(b"somebody's own data")
    with pytest.raises(ValueError, match="not a file of texts and images"):
        append_media(path, [(1, "one")], [])
    assert path.read_bytes() == b"somebody's own data"


def test_an_image_that_cannot_be_made_leaves_what_came_before(tmp_path):
    path = media_path(tmp_path, "test")

    def images():
        yield 1, IMAGE
        raise RuntimeError("the data set is gone")

    with pytest.raises(RuntimeError, match="the data set is gone"):
        append_media(path, [(1, "one")], images())
    media = read_media(path)
    assert (media.texts, set(media.images)) == ({1: "one"}, {1})


def test_many_pieces_are_one_pack(tmp_path, monkeypatch):
    monkeypatch.setattr(_media, "_PIECE", 100)
    path = media_path(tmp_path, "test")
    append_media(path, [(i, "t" * i) for i in range(60)], ((i, bytes([i]) * 70) for i in range(60)))
    media = read_media(path)
    assert media.texts == {i: "t" * i for i in range(60)}
    assert all(read_image(path, media, i) == bytes([i]) * 70 for i in range(60))
    assert media.end == path.stat().st_size


def test_an_image_is_made_while_no_file_is_held(tmp_path):
    path = media_path(tmp_path, "test")

    def images():
        append_media(path, [(2, "somebody else's")], [])  # it would wait for ever for a lock that is held
        yield 1, IMAGE

    append_media(path, [(1, "one")], images())
    media = read_media(path)
    assert (media.texts, set(media.images)) == ({1: "one", 2: "somebody else's"}, {1})


@pytest.mark.skipif(sys.platform == "win32", reason="there is no lock to take turns by")
def test_two_processes_lose_nothing_of_each_other(tmp_path):
    path = media_path(tmp_path, "test")
    code = (
        "import sys; from bc_tensorboard.writing import _media\n"
        "_media._PIECE, first = 2000, int(sys.argv[2])\n"
        "print(flush=True); sys.stdin.readline()\n"
        "for i in range(first, first + 300, 3):\n"
        "    _media.append_media(sys.argv[1], [(i, str(i))], ((i + k, b'%d;' % (i + k) * 200) for k in range(3)))\n"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, str(path)]
    both = [subprocess.Popen([*command, first], stdin=pipe, stdout=pipe) for first in ("1000", "2000")]
    for each in both:
        each.stdout.readline()  # ready, so that they start at once
    for each in both:
        each.stdin.write(b"\n")
        each.stdin.flush()
    for each in both:
        each.communicate(timeout=60)
    assert [each.returncode for each in both] == [0, 0]
    media = read_media(path)
    ids = [*range(1000, 1300), *range(2000, 2300)]
    assert media.texts == {i: str(i) for first in (1000, 2000) for i in range(first, first + 300, 3)}
    assert {i: read_image(path, media, i) for i in media.images} == {i: b"%d;" % i * 200 for i in ids}
    assert media.end == path.stat().st_size


def test_long_names_of_data_sets_are_kept_apart(tmp_path):
    for dataset in ("🐱" * 100, "🐱" * 101, "x" * 10_000):
        append_media(media_path(tmp_path, dataset), [(len(dataset), dataset)], [])
        assert read_media(media_path(tmp_path, dataset)).texts == {len(dataset): dataset}


@pytest.mark.parametrize("dataset", ["../../etc/passwd", "a/b", "quotes\"'", "🐱", "..", "a b"])
def test_a_data_set_s_name_never_leaves_the_folder(dataset, tmp_path):
    path = media_path(tmp_path, dataset)
    assert path.parent == tmp_path / "plugins" / "backward_compatibility"
    append_media(path, [(1, "one")], [])
    assert path.resolve().parent == (tmp_path / "plugins" / "backward_compatibility").resolve()


def test_what_the_dashboard_gets(tmp_path):
    path = media_path(tmp_path, "test")
    append_media(path, [(5, "five")], [(5, IMAGE), (6, IMAGE)])
    _, columns = decode(read_media(path).encode())
    assert columns["ids"].tolist() == [5, 6]
    assert (columns["text"], columns["has_image"].tolist()) == (["five", ""], [1, 1])


def test_of_long_texts_the_beginnings_are_listed_and_the_whole_is_read_on_demand(tmp_path):
    path = media_path(tmp_path, "test")
    whole = {1: "short", 2: "ä" * EXCERPT, 3: "x" * EXCERPT + " and a Käfer at the end", 4: "y" * 5000}
    append_media(path, [(3, "an earlier, short text"), *whole.items()], [])
    media = read_media(path, EXCERPT)
    assert media.texts == {each: text[:EXCERPT] for each, text in whole.items()}
    assert set(media.longer) == {3, 4}
    assert {each: read_text(path, media, each) for each in whole} == whole
    assert list(search_longer(path, media, "KÄFER")) == [3]
    _, columns = decode(media.encode())
    assert columns["is_longer"].tolist() == [int(each in (3, 4)) for each in columns["ids"]]
    # A text that is logged again, and is short now, is not the old one's beginning.
    append_media(path, [(4, "short now")], [])
    media = read_media(path, EXCERPT)
    assert (media.texts[4], set(media.longer)) == ("short now", {3})
