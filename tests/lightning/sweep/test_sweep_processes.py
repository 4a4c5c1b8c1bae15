"""The same table whoever trains the points and whatever interrupts them."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sweep_training import run
from swept_modules import GRID, batches, few, rows_of
from torch import nn
from warm_programs import Program

from bc_core import SweepFailedError, SweepResults
from bc_lightning import sweep

PROGRAM = Path(__file__).parents[1] / "sweep_training.py"


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_undisturbed_table(tmp_path):
    whole = run(tmp_path / "whole")
    rng = random.Random(7)  # any seed: the moments below are random all the same, as processes start at their own pace
    kills, folder = 0, tmp_path / "killed"
    while kills < 3:
        options = ["processes", "2"] if kills == 1 else []
        process = Program(PROGRAM, folder, *options)
        before = len(SweepResults.open(folder).points) if (folder / "sweep.json").exists() else 0
        deadline = time.time() + 300
        while time.time() < deadline and process.poll() is None:
            if (folder / "sweep.json").exists() and len(SweepResults.open(folder).points) > before:
                break
            time.sleep(0.02)
        # A point takes a fraction of a second.
        time.sleep(rng.random() / 4)
        process.kill()
        process.wait()
        kills += 1
    there = SweepResults.open(folder)
    assert 3 <= len(there.points) < 11
    assert rows_of(run(folder)) == rows_of(whole)


@pytest.mark.slow
def test_the_background_gives_the_same_table(tmp_path, small):
    behind = run(tmp_path / "background", background=True, **GRID)
    assert behind.is_running
    statuses = []
    while behind.is_running:
        statuses.append(behind.status)
        time.sleep(0.05)
    assert statuses == sorted(statuses)
    assert rows_of(behind.wait(60)) == rows_of(small)
    assert behind.status == 1


@pytest.mark.slow
def test_a_sweep_in_the_background_can_be_cancelled_and_reports_its_end(tmp_path):
    behind = run(tmp_path / "s", background=True)
    while behind.is_running and not behind.points:
        time.sleep(0.05)
    behind.cancel()
    assert not behind.is_running
    assert 0 < len(behind.points) < 11
    assert behind.wait() is behind


@pytest.mark.slow
def test_ray_gives_the_same_table_and_is_gone_afterwards(tmp_path, small):
    ray = pytest.importorskip("ray")
    found = run(tmp_path / "ray", engine="ray", workers=1, **GRID)
    assert rows_of(found) == rows_of(small)
    assert not ray.is_initialized()


def test_a_worker_that_cannot_make_the_models_says_what_is_missing(tmp_path, monkeypatch):
    place = tmp_path / "modules"
    place.mkdir()
    (place / "only_here.py").write_text("import torch\n\ndef new():\n    return torch.nn.Linear(4, 3)\n")
    monkeypatch.syspath_prepend(place)
    new = importlib.import_module("only_here").new
    (place / "only_here.py").unlink()
    shutil.rmtree(place / "__pycache__", ignore_errors=True)
    with pytest.raises(SweepFailedError, match="No module named 'only_here'.*must be importable there"):
        sweep(
            new, nn.Linear(4, 3), batches(0), folder=tmp_path / "s", lambdas=[0, 1], losses=["new_error"],
            trainer={"max_epochs": 1, "accelerator": "cpu"}, optimizer=torch.optim.Adam, tensorboard=False,
            progress_bar=False, engine="processes",
        )  # fmt: skip


def test_the_background_draws_nothing_from_the_callers_random_numbers(tmp_path):
    h1 = nn.Linear(4, 3)
    states = [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002
    seen = set()
    running = few(batches(0), h1, tmp_path / "s", background=True)
    while running.is_running:
        seen.add(torch.equal(torch.get_rng_state(), states[0]))
        time.sleep(0.001)
    running.wait()
    assert seen <= {True}
    assert [random.getstate(), np.random.get_state()[1].tolist()] == states[1:]  # noqa: NPY002


def test_ctrl_c_in_the_terminal_leaves_a_sweep_in_the_background_alone(tmp_path):
    running = few(batches(0, 40), nn.Linear(4, 3), tmp_path / "s", background=True)
    workers = set()
    while running.is_running:
        found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "LokyProcess"], capture_output=True, text=True)
        for pid in {int(line) for line in found.stdout.split()} - workers:
            if running.status > 0:
                workers.add(pid)
                os.kill(pid, signal.SIGINT)
        time.sleep(0.02)
    running.wait()
    assert workers
    assert len(running.points) == 2
