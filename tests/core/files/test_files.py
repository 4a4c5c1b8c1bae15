import errno
import gzip
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from bc_core import FullDiskError
from bc_core.files._files import TooLargeError, allocate, is_full_disk, is_left_aside, locked, read_bounded, write_whole

HOLDER = """
    import sys, time
    from pathlib import Path
    from bc_core.files._files import locked
    with locked(Path(sys.argv[1]), "here"):
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a lock."""
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / "lock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_a_lock_keeps_other_processes_out_and_ends_with_the_process(tmp_path, holder):
    with pytest.raises(RuntimeError, match="Another process.* is at work in there"), locked(tmp_path / "lock", "there"):
        raise AssertionError("inside")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "lock", "there"):
        pass


def test_a_lock_keeps_others_of_this_process_out_and_can_be_taken_again(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "lock", "there"), pytest.raises(RuntimeError, match="at work in there"):  # noqa: SIM117
            with locked(tmp_path / "lock", "there"):
                raise AssertionError("inside")


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def none(file, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.warns(RuntimeWarning, match="without locks"), locked(tmp_path / "lock", "there"):
        pass


@pytest.mark.parametrize("falls_back", [False, True])
def test_room_is_really_taken(tmp_path, monkeypatch, falls_back):
    def cannot(descriptor, offset, length):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if falls_back:
        monkeypatch.setattr(os, "posix_fallocate", cannot)
    with open(tmp_path / "file", "wb") as file:
        file.write(b"head")
        allocate(file, 3_000_000)
    status = os.stat(tmp_path / "file")
    # Blocks of 512 bytes, whatever the file system's own are: a sparse file has none.
    assert status.st_size == 3_000_000 <= status.st_blocks * 512
    content = (tmp_path / "file").read_bytes()
    assert content[:4] == b"head"
    assert not content[4:].strip(b"\0")


def test_an_older_file_stays_where_there_is_no_room_for_a_new_one(tmp_path, monkeypatch):
    write_whole(tmp_path / "a.json", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FullDiskError, match=r"No space is left to write 2.2 kB; .* kept.*a\.json") as caught:
        write_whole(tmp_path / "a.json", b"new " * 550)
    assert caught.value.errno == errno.ENOSPC
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"a.json": b"old"}


def test_a_full_disk_is_known_by_number_and_by_words():
    def chained(inner):
        try:
            try:
                raise inner
            except Exception as error:
                raise RuntimeError("the model was not saved") from error
        except RuntimeError as error:
            return error

    words = (
        "Unable to synchronously create file (file write failed: errno = 28, error message = 'No space left on device')"
    )
    assert is_full_disk(OSError(errno.ENOSPC, "any"))
    assert is_full_disk(OSError(errno.EDQUOT, "any"))
    assert is_full_disk(OSError(words))
    assert is_full_disk(chained(OSError(words)))
    assert not is_full_disk(OSError(errno.EACCES, "any"))
    assert not is_full_disk(chained(ValueError("no number")))


def test_what_a_killed_process_leaves_is_known():
    assert is_left_aside(".sweep.json.0123abcd.part", ["sweep.json"])
    assert not is_left_aside(".sweep.json.0123abcd.part", ["header.json"])
    assert not is_left_aside("sweep.json.part", ["sweep.json"])


@pytest.mark.parametrize("compressed", [False, True])
def test_no_more_is_read_than_allowed(tmp_path, compressed):
    path = tmp_path / "file"
    content = os.urandom(1000) * 3000
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert read_bounded(path, 3_000_000) == content
    with pytest.raises(TooLargeError, match=r"more than 3 MB" + " when unpacked" * compressed):
        read_bounded(path, 2_999_999)
