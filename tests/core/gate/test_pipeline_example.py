"""examples/pipeline: the workflow's steps, and promotion in a model registry, pass a good update and fail a bad one."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "pipeline"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((EXAMPLE / "compatibility.yml").read_text("utf-8"))["jobs"]["gate"]
    return {step["name"]: step["run"] for step in job["steps"] if "run" in step}


def run_step(script, folder, update):
    """As GitHub does: bash that stops at what fails."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    command = bin_folder / "bc-compare"  # whatever is installed, this checkout is tested
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bc_core "$@"\n')
    command.chmod(0o755)
    paths = [str(bin_folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE.parents[1]), os.environ.get("PYTHONPATH", "")]),
        "UPDATE": update,
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("update", "status"), [("good", 0), ("bad", 1)])
def test_the_workflow_passes_a_good_update_and_names_what_a_bad_one_breaks(folder, update, status):
    names = steps()
    assert names.pop("Install") == "pip install backward-compat-ml"  # the only one that is not run here
    predict, gate = names.values()
    assert run_step(predict, folder, update).returncode == 0
    result = run_step(gate, folder, update)
    assert result.returncode == status, result.stderr
    broken = [case for case in ElementTree.parse("compat.xml").iter("testcase") if len(case)]
    where = {case.get("classname") for case in broken}
    summary, page = Path("summary.md").read_text("utf-8"), Path("compat.html").read_text("utf-8")
    if update == "good":
        assert (where, summary.splitlines()[0]) == (set(), "## ✅ Compatibility: pass")
    else:
        assert where == {f"bc-compare.{name}" for name in ("all instances", "class eel", "slice light=night")}
        assert "| ❌ | class eel | NFR at most 1.5% |" in summary
        assert "- light=night, class=eel: " in summary
        assert "<td>slice light=night</td><td>NFR at most 2%</td>" in page


def test_an_alias_moves_only_where_the_policy_passes_too(folder, capsys, monkeypatch):
    pytest.importorskip("mlflow", reason="pip install 'backward-compat-ml[mlflow]'")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (folder / "store").as_uri())
    client = MlflowClient(*[(folder / "store").as_uri()] * 2)
    client.create_registered_model("pictures")
    for _ in range(3):
        client.create_model_version("pictures", str(folder))
    client.set_registered_model_alias("pictures", "champion", "1")
    predict, promotion = (runpy.run_path(str(folder / f"{name}.py")) for name in ("predict", "promote"))
    for update, version, champion in (("bad", "2", "1"), ("good", "3", "3")):
        predict["main"](["old.csv", "new.csv", "--update", update])
        assert promotion["promote"]("pictures", version, "old.csv", "new.csv", "compat.toml", client=client) == (
            update == "good"
        )
        assert str(client.get_model_version_by_alias("pictures", "champion").version) == champion
        tried = client.get_model_version("pictures", version)
        assert tried.tags == {"compatible": "yes" if update == "good" else "no"}
        if update == "bad":
            # More accurate than the model in use, so that MLflow's own validation lets it through.
            assert "PASS: all instances: change of accuracy above" in tried.description
            assert "FAIL: slice light=night: NFR at most 2% wanted" in tried.description
    # Nor does it move where accuracy alone is lost, whatever the policy allows.
    predict["main"](["new.csv", "old.csv", "--update", "good"])
    loose = {"promise": "nfr <= 90%", "columns": {"target": "target"}}
    assert not promotion["promote"]("pictures", "2", "old.csv", "new.csv", loose, client=client)
    assert "accuracy_score" in client.get_model_version("pictures", "2").description
