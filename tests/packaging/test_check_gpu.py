"""The check for accelerators as far as a CPU goes, and that it says what fails and what it leaves out."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
SCRIPT = Path(__file__).parents[2] / "scripts" / "check_gpu.py"
SPEC = importlib.util.spec_from_file_location("check_gpu", SCRIPT)
check_gpu = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check_gpu)
# These start processes; `make check-gpu` has them, and other tests train with two processes and in Keras.
PROCESSES = {"two processes, one device", "Keras on torch", "Keras on JAX"}
LEFT_OUT = {
    "no waiting for the device": "a CPU has nothing to wait for",
    "training in fp16, with a scaler": "for CUDA",
    "torch.compile": "the short form compiles nothing",
    "step time": "the short form measures no time",
}


def setting(seconds=300):
    return check_gpu.Setting("cpu", True, time.monotonic() + seconds)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in check_gpu.CHECKS if name not in PROCESSES])
def test_a_check_passes_or_says_why_not(name):
    if name not in LEFT_OUT:
        assert check_gpu.CHECKS[name](setting())
        return
    with pytest.raises(check_gpu.LeftOutError, match=LEFT_OUT[name]):
        check_gpu.CHECKS[name](setting())


def test_the_table_tells_pass_failure_and_what_was_left_out(monkeypatch, capsys):
    def fails(setting):
        raise ValueError("0.9 against 0.8")

    def leaves_out(setting):
        raise check_gpu.LeftOutError("not here")

    checks = {"one": lambda setting: "as numpy's", "two": fails, "three": leaves_out}
    monkeypatch.setattr(check_gpu, "CHECKS", checks)
    assert check_gpu.run(setting(), "") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines[1:4]] == ["pass", "FAIL", "left out"]
    assert lines[2].endswith("0.9 against 0.8")
    assert lines[3].endswith("not here")
    # With no time left nothing is begun, and that is no failure.
    assert check_gpu.run(setting(0), "") == 0
    assert capsys.readouterr().out.count("no time left") == 3
