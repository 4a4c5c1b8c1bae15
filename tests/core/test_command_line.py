import subprocess
import sys

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
        (["--max-nfr", "5"], "for percent write 5%"),
        (["--max-nfr", "abc"], "expected a share such as 0.005 or 0.5%, got 'abc'"),
        (["--max-nfr", "nan"], "expected a share between 0 and 1, got 'nan'"),
        (["--min-btc", "101%"], "expected a share between 0 and 1, got '101%'"),
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
