"""`pytest --bc-report`: what every assertion of a run came to, over processes too."""

import json
import re

import pytest

import bc_tensorboard.pages._page  # noqa: F401
from bc_core import assert_compatible, compare

# pytester forgets what a run imports, and numpy and scipy can be imported only once: all of them now.
assert_compatible(
    compare([0, 1] * 99, [0, 1] * 99, [0, 1] * 99), policy={"non_inferiority": "20%"}, promise="nfr <= 9%"
)

SUITE = """
import numpy as np
import pytest
from bc_core import assert_compatible, compare

def update(broken, size=2000):
    y = np.arange(size) % 2
    h2 = np.where(np.arange(size) < broken, 1 - y, y)
    return compare(y, y, h2, class_names=["cat", "<b>dog"], name="lone \\ud800")

def test_good(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_compatible(update(2), promise="nfr <= 1%")

def test_twice():
    assert_compatible(update(2), promise="nfr <= 1%")
    assert_compatible(update(200), policy={"promise": "nfr <= 1%", "per_class": {"promise": "nfr <= 20%"}})

def test_few():
    assert_compatible(update(18), promise="nfr <= 1%", inconclusive=True)

def test_unreadable():
    with pytest.raises(ValueError):
        assert_compatible(update(2), promise="nfr << 1%")
"""
WANTED = [
    ("test_few", "passed", "inconclusive", False),
    ("test_good", "passed", "pass", False),
    ("test_twice", "failed", "pass", False),
    ("test_twice", "failed", "fail", True),
    ("test_unreadable", "passed", "error", True),
]


def run(pytester, *options, suite=SUITE, how="inprocess"):
    pytester.makepyfile(test_update=suite)
    return getattr(pytester, f"runpytest_{how}")("-p", "bc_pytest", "-p", "no:cacheprovider", *options)


def told(path):
    found = json.loads(path.read_text("utf-8"))
    entries = found["assertions"]
    return found, [(e["test"].split("::")[1], e["outcome"], e["verdict"], e["raised"]) for e in entries]


def test_json_has_each_assertion(pytester):
    result = run(pytester, "--bc-report", "report.json")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["5 assertions of compatibility: 1 error, 1 fail, 1 inconclusive, 2 pass; written to *"]
    )
    found, entries = told(pytester.path / "report.json")
    assert entries == WANTED
    assert (found["format"], found["version"], found["verdict"]) == ("backward-compat-assertions", 1, "error")
    assert found["assertions"][3]["report"]["negative_flips"] == 200
    assert "A constraint reads like" in found["assertions"][4]["error"]


def test_markdown_and_page_name_what_broke(pytester):
    run(pytester, "--bc-report", "report.md")
    text = (pytester.path / "report.md").read_text("utf-8")
    assert "## `test_update.py::test_twice #2` (failed)" in text
    assert "| ✅ | class \\<b\\>dog | NFR at most 20% |" in text
    run(pytester, "--bc-report", "report.html")
    page = (pytester.path / "report.html").read_text("utf-8")
    assert "fail: test_update.py::test_twice #2</summary><p>2000 instances: 200 broke" in page
    assert "<td>class &lt;b&gt;dog</td><td>NFR at most 20%</td>" in page
    assert "test_unreadable: not judged</summary><p>ValueError: policy: A constraint reads like" in page


@pytest.mark.slow  # processes are the point
def test_workers_send_what_they_heard(pytester):
    pytest.importorskip("xdist")
    result = run(pytester, "--bc-report", "report.html", "-n", "2", how="subprocess")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["5 assertions of compatibility: 1 error, 1 fail, 1 inconclusive, 2 pass; written to *"]
    )
    page = (pytester.path / "report.html").read_text("utf-8")
    assert "fail: test_update.py::test_twice #2</summary><p>2000 instances: 200 broke" in page
    index = json.loads(re.search(r'id="bc-data">(.*?)</script>', page)[1])["index"]
    assert "test_update.py::test_twice #2" in json.dumps(index)  # its instances came too


def test_without_assertions_it_says_so_and_without_the_option_nothing_listens(pytester):
    from bc_core.gate._assertion import listeners

    suite = "def test_one():\n    from bc_core.gate._assertion import listeners\n    assert len(listeners) == {}"
    for number, options in ((0, ()), (1, ("--bc-report", "none.html")), (1, ("--bc-report", "none.json"))):
        run(pytester, *options, suite=suite.format(number)).assert_outcomes(passed=1)
        assert not listeners
    assert "No assertion of compatibility" in (pytester.path / "none.html").read_text("utf-8")
    assert json.loads((pytester.path / "none.json").read_text("utf-8"))["verdict"] is None


def test_a_report_that_cannot_be_written_fails_the_run(pytester):
    (pytester.path / "file").write_text("")
    result = run(pytester, "--bc-report", "file/report.json", suite="def test_one(): pass")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["--bc-report: not written, *"])


def test_another_ending_is_refused_before_anything_runs(pytester):
    result = run(pytester, "--bc-report", "report.xml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--bc-report report.xml: expected a name that ends in .html, .json, .md*"])
