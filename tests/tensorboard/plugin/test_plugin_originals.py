"""Sweeps of BackwardCompatibilityML in a log folder."""

import shutil
from pathlib import Path

from served_logs import BASE, ORIGINALS, index_of, local, log, refused

from bc_tensorboard import read_original_sweep
from bc_tensorboard.writing._format import decode


def test_a_sweep_of_the_original_is_shown_as_runs(tmp_path):
    folder = Path(shutil.copytree(ORIGINALS / "one_batch", tmp_path / "old"))
    log(tmp_path / "run", steps=(0,))
    client = local(tmp_path)
    index = index_of(client)
    assert len(index["series"]) == 13
    for evaluation in read_original_sweep(folder):
        run = f"old/lambda_c {evaluation.lambda_c:g}, {evaluation.dissonance}"
        [entry] = [e for e in index["series"] if (e["run"], e["dataset"]) == (run, evaluation.dataset)]
        cells = evaluation.comparison.overlap.counts.sum(axis=0).ravel().tolist()
        assert entry["steps"] == [[0, None, evaluation.lambda_c, *cells]]
        assert (entry["dissonance"], entry["num_classes"]) == (evaluation.dissonance, 3)
        query = {"run": run, "dataset": evaluation.dataset, "step": 0}
        header, columns = decode(client.get(f"{BASE}/table", query_string=query).data)
        assert header["uncertain_classes"] == [0, 1, 2]
        assert list(columns["ids"]) == evaluation.comparison.instances.ids.tolist()
        assert columns["metadata"] == evaluation.comparison.instances.metadata.tolist()
        refused(client.get(f"{BASE}/table", query_string={**query, "step": 1}), 404)
    [warning] = index["warnings"]
    assert "on testing data its strict imitation repeats its new error" in warning


def test_a_log_folder_can_be_a_sweep_itself(tmp_path):
    folder = Path(shutil.copytree(ORIGINALS / "one_batch", tmp_path / "old"))
    runs = {entry["run"] for entry in index_of(local(folder))["series"]}
    assert len(runs) == 6
    assert all(run.startswith("old/lambda_c ") for run in runs)


def test_a_sweep_that_grows_or_is_damaged_shows_the_rest_and_is_read_again_when_it_changes(tmp_path):
    folder = Path(shutil.copytree(ORIGINALS / "one_batch", tmp_path / "old"))
    whole = (folder / "5-evaluation-data.json").read_bytes()
    (folder / "5-evaluation-data.json").write_bytes(whole[:500])
    summary = (folder / "sweep_summary.json").read_bytes()
    (folder / "sweep_summary.json").unlink()
    client = local(tmp_path)
    index = index_of(client)
    assert len(index["series"]) == 11
    assert any("5-evaluation-data.json" in warning and "cut off" in warning for warning in index["warnings"])
    assert any("still running or was interrupted" in warning for warning in index["warnings"])
    (folder / "5-evaluation-data.json").write_bytes(whole)
    (folder / "sweep_summary.json").write_bytes(summary)
    index = index_of(client)
    assert len(index["series"]) == 12
    assert len(index["warnings"]) == 1


def test_a_sweep_is_not_read_twice(tmp_path, monkeypatch):
    from bc_tensorboard.plugin import _plugin_data

    shutil.copytree(ORIGINALS / "one_batch", tmp_path / "old")
    client = local(tmp_path)
    first = index_of(client)
    monkeypatch.setattr(_plugin_data, "read_finished_evaluations", lambda _: 1 / 0)
    assert index_of(client) == first


def test_a_sweep_whose_files_are_links_to_other_folders_is_refused(tmp_path):
    (tmp_path / "logs" / "old").mkdir(parents=True)
    for path in (ORIGINALS / "one_batch").iterdir():
        (tmp_path / "logs" / "old" / path.name).symlink_to(path)
    index = index_of(local(tmp_path / "logs"))
    assert index["series"] == []
    assert "is a link to another folder" in index["warnings"][0]
    (tmp_path / "logs" / "linked").symlink_to(ORIGINALS / "one_batch")
    assert not any("linked" in entry["run"] for entry in index_of(local(tmp_path / "logs"))["series"])
