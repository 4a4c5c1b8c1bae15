"""Rows on the disk: which damage is found, and when, and what stays where the disk is full."""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from bc_core import FullDiskError
from bc_core.reference import _row_files
from bc_core.reference._row_checksums import DamagedRowsError, row_checksums
from bc_core.reference._stored_rows import RowFolder, RowWriter

N = 2000


def contents(dtype=np.float32, width=64, n=N):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 9, (n, width)) if np.dtype(dtype).kind == "i" else rng.normal(size=(n, width))
    return rows.astype(dtype), rng.integers(0, 2**63, n).astype(np.uint64)


def stored(path, dtype=np.float32, width=64, n=N) -> RowFolder:
    rows, hashes = contents(dtype, width, n)
    folder = RowFolder(path, "example")
    folder.create("h1", n, (width,), dtype)
    with RowWriter(folder) as writer:
        # Not in order, and not all in runs.
        for indices in (np.arange(1, n, 2), np.arange(0, n, 2)[::-1]):
            writer.write(indices, hashes[indices], rows[indices])
    folder.finish()
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("rows") / "h1")


@pytest.fixture
def folder(whole, tmp_path):
    return RowFolder(shutil.copytree(whole.path, tmp_path / "h1"), "example")


def opened(folder):
    return folder.map(folder.complete_header())[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_rows_come_back_to_the_bit(tmp_path, dtype):
    rows, hashes = contents(dtype, 3, 50)
    found, there = stored(tmp_path / "h1", dtype, 3, 50).map(stored(tmp_path / "h1", dtype, 3, 50).complete_header())
    for indices in (3, -1, [5, 2, -3], slice(4, 40, 3), slice(None), np.arange(50) % 7 == 0, range(2)):
        np.testing.assert_array_equal(found[indices], rows[indices])
    np.testing.assert_array_equal(np.asarray(found), rows)
    np.testing.assert_array_equal(there, hashes)
    assert (found.shape, found.dtype, len(found)) == ((50, 3), dtype, 50)


def zeros(folder, name, start, length):
    with open(folder.path / name, "r+b") as file:
        file.seek(start)
        file.write(bytes(length))


@pytest.mark.parametrize(
    ("name", "start", "length"),
    [
        ("outputs.npy", 8192, 4096),
        ("outputs.npy", 128, N * 64 * 4),
        ("outputs.npy", 128 + 31 * 256, 4),
        ("item_hashes.npy", 4096, 512),
        ("checksums.npy", 4096, 512),
    ],
)
def test_zeros_in_place_of_a_page_are_found(folder, name, start, length):
    zeros(folder, name, start, length)
    rows = opened(folder)
    with pytest.raises(DamagedRowsError, match="the row of item \\d+ is not the one that was written.*overwrite=True"):
        rows.check()
    wrong = np.flatnonzero(~rows.intact())
    assert len(wrong)
    with pytest.raises(DamagedRowsError, match=f"item {wrong[0]} "):
        rows[int(wrong[0])]
    with pytest.raises(DamagedRowsError):
        np.asarray(rows)
    fine = np.flatnonzero(rows.intact())[:5]
    np.testing.assert_array_equal(rows[fine], contents()[0][fine])


def test_every_single_bit_of_a_row_counts(folder):
    size = os.path.getsize(folder.path / "outputs.npy")
    for position in np.random.default_rng(0).integers(128, size, 20).tolist():
        with open(folder.path / "outputs.npy", "r+b") as file:
            file.seek(position)
            [byte] = file.read(1)
            file.seek(position)
            file.write(bytes([byte ^ 1 << position % 8]))
            file.flush()
            assert np.flatnonzero(~opened(folder).intact()).tolist() == [(position - 128) // 256]
            file.seek(position)
            file.write(bytes([byte]))


def test_rows_that_changed_places_are_found(folder):
    content = bytearray((folder.path / "outputs.npy").read_bytes())
    content[128:384], content[384:640] = content[384:640], content[128:384]
    (folder.path / "outputs.npy").write_bytes(content)
    assert np.flatnonzero(~opened(folder).intact()).tolist() == [0, 1]


def test_the_checksum_is_part_of_the_format():
    # By hand, in Python's own integers.
    def factor(k):
        state = k * 0x9E3779B97F4A7C15 % 2**64
        for shift, times in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state = (state ^ state >> shift) * times % 2**64
        return (state ^ state >> 31) | 1

    row, index, item = np.array([[1.5, -2.0, 0.0]], np.float32), 7, 2**63 + 11
    values = [*map(int, row.view("<u4")[0]), index, item, 1]
    expected = sum(value * factor(k) for k, value in enumerate(values, 1)) % 2**64
    assert row_checksums(row, np.array([index]), np.array([item], np.uint64)).tolist() == [expected]


@pytest.mark.parametrize("name", ["outputs.npy", "item_hashes.npy", "checksums.npy"])
@pytest.mark.parametrize("length", [0, 5, 60, 3000, None])
def test_files_that_are_cut_off_or_missing_say_so(folder, name, length):
    if length is None:
        (folder.path / name).unlink()
    else:
        os.truncate(folder.path / name, length)
    with pytest.raises(DamagedRowsError, match=rf"damaged, .*{name}.*store_outputs\(\.\.\., overwrite=True\)"):
        opened(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("complete"),
        lambda header: header.update(complete="yes"),
        lambda header: header.update(shape="wide"),
        lambda header: header.update(shape=[N, -64]),
        lambda header: header.update(items=5),
        lambda header: header.update(dtype="object"),
        lambda header: header.update(h1=None),
        lambda header: header.update(format="exbmple"),
    ],
)
def test_a_damaged_header_is_told_and_can_be_replaced(folder, change):
    header = json.loads((folder.path / "header.json").read_text())
    change(header)
    (folder.path / "header.json").write_text(json.dumps(header))
    for read in (folder.complete_header, lambda: folder.header_to_keep(False)):
        with pytest.raises(DamagedRowsError, match=r"header\.json is damaged .*overwrite=True"):
            read()
    assert folder.header_to_keep(True) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "exam', b"\0" * 300, b"[1]", b"[" * 100_000])
def test_a_header_that_is_cut_off_does_not_block_the_folder(folder, content):
    (folder.path / "header.json").write_bytes(content)
    with pytest.raises(DamagedRowsError, match=r"header\.json is damaged"):
        folder.header()
    assert folder.header_to_keep(True) is None
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="give an empty or new folder"):
        folder.header_to_keep(True)


def test_what_a_kill_leaves_aside_does_not_block_the_folder(tmp_path):
    (tmp_path / ".header.json.0123abcd.part").write_text("{")
    (tmp_path / "outputs.npy.new").write_bytes(b"")
    (tmp_path / "store.lock").touch()
    folder = RowFolder(tmp_path, "example")
    assert folder.header_to_keep(False) is None
    stored(tmp_path, n=10)
    assert {entry.name for entry in tmp_path.iterdir()} == {
        *("header.json", "outputs.npy", "item_hashes.npy", "checksums.npy", "done.npy", "store.lock")
    }


def no_room(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_too_little_room_is_told_before_anything_is_lost(folder, monkeypatch):
    before = {entry.name: entry.read_bytes() for entry in folder.path.iterdir()}
    create = _row_files.allocate

    def until_full(file, size):
        # The first file finds room, the second none.
        no_room() if "hashes" in str(file.name) else create(file, size)

    monkeypatch.setattr(_row_files, "allocate", until_full)
    with pytest.raises(FullDiskError, match=r"outputs for 5000 items need 5\.2\d+ MB, .*Make room") as caught:
        folder.create("another h1", 5000, (256,), np.float32)
    assert caught.value.errno == errno.ENOSPC
    assert {entry.name: entry.read_bytes() for entry in folder.path.iterdir()} == before


def test_a_disk_that_is_full_after_all_keeps_what_was_done(tmp_path, monkeypatch):
    # File systems that copy on write may have no room where they said they had.
    rows, hashes = contents(width=4, n=40)
    folder = RowFolder(tmp_path / "h1", "example")
    folder.create("h1", 40, (4,), np.float32)
    write = _row_files.ArrayFile.write

    def until_full(self, indices, values):
        no_room() if indices[0] >= 20 else write(self, indices, values)

    monkeypatch.setattr(_row_files.ArrayFile, "write", until_full)
    with pytest.raises(FullDiskError, match="the rows that are done are kept. Make room"), RowWriter(folder) as writer:  # noqa: PT012
        writer.write(np.arange(20), hashes[:20], rows[:20])
        writer.write(np.arange(20, 40), hashes[20:], rows[20:])
    header = folder.header()
    assert folder.done(header).tolist() == [True] * 20 + [False] * 20
    assert folder.standing(header, folder.map(header)[0]).tolist() == [True] * 20 + [False] * 20


def test_rows_are_known_by_their_checksums_whatever_the_marks_say(folder):
    header = folder.header()
    zeros(folder, "outputs.npy", 128 + 256 * 3, 256)
    standing = folder.standing(header, folder.map(header)[0])
    assert np.flatnonzero(~standing).tolist() == [3]
    folder.go_on(header, standing)
    with pytest.raises(ValueError, match=f"incomplete, {N - 1} of {N} rows"):
        folder.complete_header()
    rows, hashes = contents()
    with RowWriter(folder) as writer:
        writer.write(np.array([3]), hashes[3:4], rows[3:4])
    folder.finish()
    np.testing.assert_array_equal(np.asarray(opened(folder)), rows)


@pytest.mark.parametrize("side", ["bc_lightning", "bc_keras"])
def test_folders_of_version_1_are_read(side, tmp_path):
    path = shutil.copytree(Path(__file__).parents[2] / "data" / "stored_outputs_version_1" / side, tmp_path / "h1")
    folder = RowFolder(path, f"{side}.stored_outputs")
    rows, hashes = folder.map(folder.complete_header())
    x = np.arange(36, dtype=np.float32).reshape(9, 4) / 8
    weights = (np.arange(12, dtype=np.float32).reshape(4, 3) - 5) / 4
    np.testing.assert_allclose(np.asarray(rows), x @ weights)
    rows.check()
    # One that was interrupted is finished as what it is.
    header = folder.header()
    folder.go_on(header, np.arange(9) < 5)
    with RowWriter(folder) as writer:
        writer.write(np.arange(5, 9), np.array(hashes[5:]), (x @ weights)[5:])
    folder.finish()
    np.testing.assert_allclose(np.asarray(opened(folder)), x @ weights)
    assert json.loads((path / "header.json").read_text())["version"] == 1


WAITING = """
    import os, sys, time
    from bc_core.reference._stored_rows import RowFolder
    folder = RowFolder(sys.argv[1], "example")
    with folder.locked():
        print("in", flush=True)
        sys.stdin.readline()
    print("out", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
def test_only_processes_that_were_started_together_wait_for_each_other(tmp_path, together):
    # As torchrun tells its processes who they are.
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    environment |= {"LOCAL_RANK": "0"} if together else {}
    command = [sys.executable, "-c", textwrap.dedent(WAITING), str(tmp_path / "h1")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, env=environment, **pipes)
    assert first.stdout.readline() == "in\n"
    second = subprocess.Popen(command, env=environment, **pipes)
    if together:
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=2)
    else:
        assert second.wait(timeout=60) == 1
        assert "Another process, or thread of this one, is at work in" in second.stderr.read()
    assert first.communicate("\n", timeout=60)[0] == "out\n"
    if together:
        assert second.communicate("\n", timeout=60)[0] == "in\nout\n"
    second.communicate()
