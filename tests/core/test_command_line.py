import collections
import gzip
import json
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from bc_core import Comparison, ErrorInstances, ErrorOverlap
from bc_core._cli import main


@pytest.fixture
def saved(tmp_path):
    """A function that saves a comparison of 1000 instances that h1 gets right, with so many negative flips."""

    def save(flips):
        table = ErrorInstances(range(flips), [0] * flips, [0] * flips, [1] * flips)
        overlap = ErrorOverlap([[[0, 0], [flips, 1000 - flips]], [[0, 0], [0, 0]]])
        return str(Comparison(overlap, table, ("cat ü", "dog"), "release").save(tmp_path / f"{flips}.json.gz"))

    return save


def test_without_a_budget_it_shows_the_comparison(saved, capsys):
    assert main([saved(20)]) == 0
    shown = capsys.readouterr().out
    assert "Comparison 'release'" in shown
    assert "98.00%" in shown
    assert "cat ü: 20 of 1000 instances broke" in shown


@pytest.mark.parametrize(
    ("flips", "options", "status"),
    [
        (0, ["--max-nfr", "0.5%"], 0),
        (0, ["--max-nfr", "0.005"], 0),
        (0, ["--max-nfr=0.2%"], 3),
        (0, ["--max-nfr=0.2%", "--confidence", "80%"], 0),
        (10, ["--max-nfr", "1%"], 3),
        (30, ["--max-nfr", "1%"], 1),
        (0, ["--min-btc", "99.5%"], 0),
        (10, ["--min-btc", "0.99"], 3),
        (30, ["--min-btc", "99%"], 1),
        (30, ["--max-nfr", "5%", "--min-btc", "99%"], 1),
        (10, ["--max-nfr", "5%", "--min-btc", "99%"], 3),
        (10, ["--max-nfr", "5%", "--min-btc", "90%"], 0),
        (30, ["--max-nfr", "3%", "--min-btc", "99%"], 1),
        (1000, ["--max-nfr", "0"], 1),
        (1000, ["--max-nfr", "100%"], 0),
    ],
)
def test_the_exit_status_is_the_verdict(saved, capsys, flips, options, status):
    assert main([saved(flips), *options]) == status
    shown = capsys.readouterr().out
    assert {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE"}[status] in shown


def test_a_file_that_cannot_be_read_is_bad_input(tmp_path, capsys):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for path, message in (
        (tmp_path / "none.json", "No such file"),
        (tmp_path, "Is a directory"),
        (broken, "not a saved comparison"),
    ):
        assert main([str(path)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"bc-compare: {path}: ")
        assert message in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-nfr", "0.5"], 'must have a % sign, "50%" or "0.5%"'),
        (["--max-nfr", "5"], "for percent write 5%"),
        (["--max-nfr", "abc"], "must be a share from 0 to 1, such as 0.005 or 0.5%, got 'abc'"),
        (["--max-nfr", "nan"], "must be a share from 0 to 1, such as 0.005 or 0.5%, got 'nan'"),
        (["--min-btc", "101%"], "must be a share from 0 to 1, such as 0.005 or 0.5%, got '101%'"),
        (["--confidence", "1"], "expected a confidence from 0.5 to below 1"),
        (["--confidence", "5%"], "expected a confidence from 0.5 to below 1"),
    ],
)
def test_a_wrong_option_is_bad_input(saved, capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        main([saved(0), *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_installed_command_exits_with_the_verdict_and_no_traceback(saved):
    def run(*arguments, **options):
        command = [sys.executable, "-m", "bc_core", *arguments]
        return subprocess.run(command, capture_output=True, check=False, **options)

    # An old terminal cannot show the class name, and must not hide the verdict.
    result = run(saved(30), "--max-nfr", "1%", env={"PYTHONIOENCODING": "ascii"})
    assert result.returncode == 1
    assert rb"cat \xfc" in result.stdout
    assert result.stderr == b""
    result = run("no-such-file.json")
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_reader_that_leaves_early_does_not_change_the_verdict(saved):
    process = subprocess.Popen(
        [sys.executable, "-m", "bc_core", saved(30), "--max-nfr", "1%"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def comparison_file(path, counts, **changes):
    instances = {"ids": [], "target": [], "h1_pred": [], "h2_pred": [], "metadata": None}
    captions = dict.fromkeys(("name", "step", "lambda_c", "class_names"))
    content = {"format": "backward-compat-comparison", "version": 1, **captions, "overlap": {"counts": counts}}
    path.write_text(json.dumps({**content, "instances": instances, **changes}))
    return str(path)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[[0, 0], [0, 2**63 - 1]]] * 2, "their sum is 2**63 or more"),
        # Wraps around to 1000 in 64 bits.
        ([[[0, 0], [0, 2**62]]] * 3 + [[[0, 0], [0, 2**62 + 1000]]], "their sum is 2**63 or more"),
        ([[[0, 0], [0, 2**63]]], "below 2**63"),
        ([[[0, 0], [0, 2**70]]], "counts"),
        ([[[0, 0], [0, 1e300]]], "below 2**63"),
        ([[[0, 0], [0, -1]]], "not negative"),
    ],
)
def test_counts_that_cannot_be_are_bad_input(tmp_path, capsys, counts, message):
    assert main([comparison_file(tmp_path / "c.json", counts), "--max-nfr", "0.5%"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_the_largest_counts_that_can_be_are_judged(tmp_path, capsys):
    assert main([comparison_file(tmp_path / "c.json", [[[0, 0], [0, 2**62]]]), "--max-nfr", "0.5%"]) == 0
    assert f"{2**62} instances" in capsys.readouterr().out


def test_a_file_that_unpacks_to_more_than_the_memory_is_bad_input(tmp_path, capsys, monkeypatch):
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b'{"format":"backward-compat-comparison","version":1,"name":"')
        for _ in range(65):
            file.write(b"a" * 2**20)
    with pytest.raises(ValueError, match=r"more than 67.11 MB when unpacked.*max_bytes"):
        Comparison.load(path, max_bytes=2**26)
    load, held = Comparison.load, []

    def measured(file):
        tracemalloc.start()
        try:
            return load(file, max_bytes=2**24)
        finally:
            held.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    monkeypatch.setattr(Comparison, "load", measured)
    assert main([str(path), "--max-nfr", "0.5%"]) == 2
    assert held[0] < 3 * 2**24
    assert "bomb.json.gz: not read" in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), ZeroDivisionError("of a kind")])
def test_whatever_goes_wrong_is_never_taken_for_a_verdict(saved, capsys, monkeypatch, error):
    def broken(self, *_):
        raise error

    monkeypatch.setattr(Comparison, "describe", broken)
    path = saved(30)
    assert main([path, "--max-nfr", "1%"]) == 2
    assert capsys.readouterr().err.startswith(f"bc-compare: {path}: ")


def test_damaged_files_never_end_in_a_verdict_that_nobody_reached(saved, capsys):
    path, rng = Path(saved(3)).with_suffix(""), random.Random(0)
    Comparison.load(saved(3)).save(path)
    content, statuses = path.read_bytes(), collections.Counter()
    for number in range(200):
        damaged = bytearray(content)
        place = rng.randrange(len(damaged))
        if number % 2:
            damaged[place] = rng.randrange(256)
        else:
            damaged[place : place + 20] = bytes(min(20, len(damaged) - place))
        path.write_bytes(damaged)
        statuses[main([str(path), "--max-nfr", "5%"])] += 1
        if statuses[2]:
            assert "Traceback" not in capsys.readouterr().err
    # Three flips in a thousand keep the budget, and damage cannot make them break it.
    assert set(statuses) <= {0, 2}
    assert statuses[2] > 150


def test_classes_that_the_old_model_did_not_know_are_shown_apart(tmp_path, capsys):
    rows = [("cat", "cat", "cat")] * 6 + [("cat", "cat", "dog")] + [("fox", "cat", "fox")] * 2 + [("fox", "dog", "cat")]
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("id,target,pred\n" + "".join(f"{i},{y},{h1}\n" for i, (y, h1, _) in enumerate(rows)))
    new.write_text("id,pred\n" + "".join(f"{i},{h2}\n" for i, (_, _, h2) in enumerate(rows)))
    told = "3 instances of classes that h1 did not know (fox): h2 is right on 66.67%. Without them h1 is right on 100"
    report = tmp_path / "report.json"
    assert main([str(old), str(new), "--new-classes", "fox", "--json", str(report)]) == 0
    assert told in capsys.readouterr().out
    found = json.loads(report.read_text())["new_classes"]
    assert (found["classes"], found["instances"], found["h2_right"]) == (["fox"], 3, 2)
    assert found["scores_without"]["nfr"] == pytest.approx(1 / 7)
    # By a policy, of a saved comparison too, and in Markdown.
    (tmp_path / "compat.toml").write_text('promise = "nfr <= 99%"\nnew_classes = ["fox"]\n')
    summary, kept = tmp_path / "summary.md", tmp_path / "kept.json"
    policy = ["--policy", str(tmp_path / "compat.toml"), "--markdown", str(summary)]
    assert main(["gate", str(old), str(new), *policy, "--save", str(kept)]) == 0
    assert "3 instances of classes that h1 did not know" in summary.read_text()
    assert Comparison.load(kept).new.total == 3
    capsys.readouterr()
    assert main([str(old), str(new), "--new-classes", "wolf"]) == 2
    assert "none of the classes" in capsys.readouterr().err
    assert main([str(old), str(new), "--new-classes", "cat"]) == 2
    assert "h1 is right about instances" in capsys.readouterr().err
