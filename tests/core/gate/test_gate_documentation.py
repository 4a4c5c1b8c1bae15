"""The commands, the policy and the pipeline's step of docs/gate.md do what it says."""

import datetime
import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bc_core._cli import main

PAGE = (Path(__file__).parents[3] / "docs" / "gate.md").read_text("utf-8")
COMMANDS = [line.split("  #")[0] for line in re.findall(r"^(?:- run: )?(bc-compare .*)$", PAGE, re.MULTILINE)]
POLICY = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A folder as that of a pipeline; h2 breaks nothing, or the share that is asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))

    def write(broken):
        rng, size = np.random.default_rng(0), 6000
        y, region = rng.integers(0, 2, size), rng.choice(["eu", "us-west", "us-east", "asia"], size)
        h1 = np.where(rng.random(size) < 0.95, y, 1 - y)
        h2 = np.where((h1 == y) & (rng.random(size) < broken), 1 - y, np.where(rng.random(size) < 0.3, y, h1))
        names, age = np.array(["cat", "dog"]), rng.integers(1, 90, size)
        rows = zip(names[h1], names[y], region, age, strict=True)
        old = ["id,pred,label,region,age", *(f"im{n},{','.join(map(str, row))}" for n, row in enumerate(rows))]
        Path("old.csv").write_text("\n".join(old))
        Path("new.csv").write_text("\n".join(["id,pred", *(f"im{n},{names[h]}" for n, h in enumerate(h2))]))
        Path("new_scores.csv").write_text(
            "\n".join(["id,score", *(f"im{n},{0.9 - 0.8 * h}" for n, h in enumerate(h2))])
        )
        for name in ("old", "new"):
            Path(f"{name}_prices.csv").write_text("id,pred,target\n" + "".join(f"{n},{n + 1},{n}\n" for n in range(9)))
            keys = {"doc": {}, "resps": [], "filtered_resps": [], "exact_match": 1.0}
            samples = [json.dumps({"doc_id": number, **keys}) for number in range(9)]
            Path(f"samples_{name}.jsonl").write_text("\n".join(samples))
        Path("compat.toml").write_text(POLICY)
        whole = np.flatnonzero((h1 != y) | (h2 == y))[:5]
        Path("must_not_break.txt").write_text("\n".join(f"im{n}" for n in whole))
        Path("accepted.csv").write_text("id,reason,expires\n")

    return write


def run(command):
    later = str(datetime.date.today() + datetime.timedelta(days=2))
    command = re.sub(r"\d{4}-\d\d-\d\d", later, command)
    words = shlex.split(command.replace("$GITHUB_STEP_SUMMARY", "summary.md"))
    return main(words[1:])


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_runs(pipeline, capsys, command):
    pipeline(broken=0.0)
    assert run(command) == 0, capsys.readouterr().err


def test_the_step_of_a_pipeline_fails_a_bad_update_and_leaves_its_reports(pipeline, capsys):
    (step,) = (command for command in COMMANDS if "--junit" in command)
    pipeline(broken=0.05)
    assert run(step) == 1
    assert "FAIL: all instances: NFR at most 0.5% wanted" in capsys.readouterr().out
    assert Path("summary.md").read_text("utf-8").startswith("## ❌ Compatibility: fail")
    assert ElementTree.parse("compat.xml").getroot().get("failures") != "0"
    assert Path("compat.html").exists()


def test_the_page_names_every_flag_that_there_is(capsys):
    with pytest.raises(SystemExit):
        main(["gate", "--help"])
    flags = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help", "--name", "--policy"}
    assert flags <= set(re.findall(r"--[a-z][a-z-]+", PAGE))
