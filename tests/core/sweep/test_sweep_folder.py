"""The folder of a sweep after kills and damage: the same call goes on, or an error names the file and the remedy."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from bc_core import Comparison, FullDiskError, SweepPoint, SweepResults, compare
from bc_core.sweep._folder import SweepFolder, Trained

POINTS = [SweepPoint(None, 0.0, 0), SweepPoint("new_error", 1.0, 0)]
FILES = {
    "header": "sweep.json",
    "result": f"points/{POINTS[1].name}/result.json",
    "comparison": f"points/{POINTS[0].name}/comparison-test.json.gz",
    "failure": "failures/new_error,lambda_c=2.0,seed=0.json",
}


def trained(point, directory, report):
    compared = compare([0, 1, 1, 2], [0, 1, 0, 2], [0, 0, 1, 1], metadata=list("abcd"))
    return Trained({"val": compared, "test": compared}, {"test": (0.5, 0.6)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = SweepFolder(tmp_path_factory.mktemp("sweep") / "s")
    folder.begin({"h1": "sha256:1"}, ["new_error"], POINTS)
    for point in POINTS:
        folder.train(point, trained)
    folder.note_failure(SweepPoint("new_error", 2.0, 0), "diverged")
    return folder.path


@pytest.fixture
def path(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "s")


def read_all(path):
    """Whatever can be asked of a sweep."""
    found = SweepResults.open(path)
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows()]
    shown = [repr(found), rows, [failure.error for failure in found.failures], found.losses, found.unfinished]
    if found.points:
        shown += [str(found.best("nfr <= 100%")), found.comparisons("val"), found.comparisons("test")]
    return str(shown)


KILLED = """
    import os, signal, sys
    from bc_core.sweep._folder import SweepFolder
    from bc_core import SweepPoint

    real = os.{call}

    def killed(*arguments):
        real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    os.{call} = killed
    folder = SweepFolder(sys.argv[1])
    with folder.locked():
        folder.begin({{"h1": "sha256:1"}}, ["new_error"], [SweepPoint("new_error", 1.0, 0)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
def test_a_kill_at_any_first_write_does_not_block_the_folder(tmp_path, call):
    command = [sys.executable, "-c", textwrap.dedent(KILLED.format(call=call)), str(tmp_path / "s")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    folder = SweepFolder(tmp_path / "s")
    with folder.locked():
        folder.begin({"h1": "sha256:1"}, ["new_error"], POINTS)
    for point in POINTS:
        folder.train(point, trained)
    assert set(SweepResults.open(folder.path).points) == set(POINTS)
    assert not [entry for entry in folder.path.iterdir() if entry.name.endswith(".part")]


def test_what_somebody_else_left_still_refuses_the_folder(tmp_path):
    (tmp_path / ".thesis.tex.0123abcd.part").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds no sweep, but \.thesis\.tex"):
        SweepFolder(tmp_path).begin({}, ["new_error"], POINTS)
    assert len(list(tmp_path.iterdir())) == 1


VALUES = (None, 5, -1, 2**70, float("inf"), float("nan"), "x", [], {}, [[]], True, [1, 2])


def mutated(content, rng, is_json):
    """A file cut off, written over, or with another value in one place."""
    if is_json and rng.random() < 0.5:
        data = json.loads(content)
        places = [(data, key) for key in data]
        for holder, key in places:
            inner = holder[key]
            keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
            places += [(inner, one) for one in keys]
        holder, key = rng.choice(places)
        holder[key] = rng.choice(VALUES)
        return json.dumps(data).encode()
    damaged = bytearray(content)
    begin = rng.randrange(len(damaged))
    kind = rng.randrange(3)
    if kind == 0:
        return bytes(damaged[:begin])
    length = min(1 if kind == 1 else rng.randrange(1, 400), len(damaged) - begin)
    damaged[begin : begin + length] = bytes(rng.randrange(256) for _ in range(length)) if kind == 1 else bytes(length)
    return bytes(damaged)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_value_errors_that_name_them(path, name):
    read_all(path)
    file, rng = path / FILES[name], random.Random(0)
    content, refused, unnamed = file.read_bytes(), 0, []
    for _ in range(150):
        file.write_bytes(mutated(content, rng, file.suffix == ".json"))
        try:
            read_all(path)
        except ValueError as error:
            refused += 1
            unnamed += [error] * (str(file) not in str(error))
    assert not unnamed
    assert refused > 75


# A point without a result is one that is not finished.
@pytest.mark.parametrize(("name", "gone"), [("result", False), ("comparison", False), ("comparison", True)])
def test_the_remedy_for_a_damaged_point_trains_it_again(path, name, gone):
    before = read_all(path)
    file = path / FILES[name]
    file.unlink() if gone else os.truncate(file, 20)
    with pytest.raises(ValueError, match=r"is damaged .*Remove the folder .* trains the point .* once more") as caught:
        read_all(path)
    assert str(file) in str(caught.value)
    shutil.rmtree(file.parent)
    folder = SweepFolder(path)
    folder.begin({"h1": "sha256:1"}, ["new_error"], POINTS)
    for point in POINTS:
        if not folder.is_finished(point):
            folder.train(point, trained)
    assert read_all(path) == before


def test_a_result_of_another_point_is_refused(path):
    first, second = (path / "points" / point.name for point in POINTS)
    shutil.copy(first / "result.json", second / "result.json")
    with pytest.raises(ValueError, match="it is of another point"):
        read_all(path)


def test_a_damaged_neighbour_does_not_stop_a_training(path):
    os.truncate(path / FILES["result"], 20)
    point = SweepPoint("new_error", 4.0, 0)
    SweepFolder(path).train(point, trained)
    assert SweepFolder(path).is_finished(point)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError("Unable to flush file (error message = 'No space left on device')"),
        RuntimeError("RESOURCE_EXHAUSTED: /s/model.keras; No space left on device [Op:SaveV2]"),
    ],
)
def test_a_full_disk_is_told_in_whatever_words_it_comes(path, error):
    def full(point, directory, report):
        raise error

    point = SweepPoint("new_error", 4.0, 0)
    with pytest.raises(FullDiskError, match="No space is left for the point new_error,lambda_c=4.0,seed=0.*make room"):
        SweepFolder(path).train(point, full)
    assert not list((path / "running").iterdir())
    assert isinstance(Comparison.load(path / FILES["comparison"]), Comparison)
