"""Stored outputs whose making is stopped, or shared by several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from stored_in_torch import Counted, N, by_hand, data, trained, trainer_of
from warm_programs import run_program

from bc_lightning.reference._stored import store_outputs


class PressesCtrlC(Counted):
    """As `Counted`, but Ctrl-C is what stops it."""

    def forward(self, x):
        if self.asked + len(x) > self.limit:
            self.limit = float("inf")
            signal.raise_signal(signal.SIGINT)
        return super().forward(x)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("package", [lightning.pytorch, pytorch_lightning])
def test_ctrl_c_of_a_given_trainer_is_a_keyboard_interrupt_and_keeps_what_was_done(tmp_path, package):
    model = trained(PressesCtrlC)
    for press in (1, 2):
        # Also the second time: Lightning leaves Ctrl-C ignored after the first.
        model.limit = model.asked + 1 + 16
        with pytest.raises(KeyboardInterrupt):
            store_outputs(model, data(), tmp_path / "s", batch_size=8, trainer=trainer_of(package))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert np.load(tmp_path / "s" / "done.npy").sum() >= 8 * press
    before = model.asked
    stored = store_outputs(model, data(), tmp_path / "s")
    assert model.asked - before < N
    torch.testing.assert_close(stored[:], by_hand(trained(PressesCtrlC), data()))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes a small disk")
def test_a_disk_that_is_really_full_does_not_end_the_process(tmp_path):
    script = """
        import sys, torch
        from torch.utils.data import TensorDataset
        from bc_lightning import store_outputs
        try:
            store_outputs(torch.nn.Linear(4, 64), TensorDataset(torch.randn(20000, 4)), sys.argv[1], batch_size=1000)
        except OSError as error:
            print("told:", error)
    """
    program, place = tmp_path / "store.py", tmp_path / "small"
    program.write_text(textwrap.dedent(script))
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False).returncode:
        pytest.skip("no mount in this container")
    try:
        result = run_program(program, place / "h1")
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    assert (result.returncode, result.stdout.strip()[:28]) == (0, "told: [Errno 28] h1's output"), result.stderr


# Several processes


SCRIPT = """
    import os, signal, sys
    import torch
    import {package} as pl
    from torch import nn
    from torch.utils.data import TensorDataset
    from bc_core.reference import _stored_rows
    from bc_lightning.reference._stored import store_outputs

    class H1(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
            self.net(torch.randn(64, 4) * 3 + 1)
            self.asked = 0

        def forward(self, x):
            self.asked += len(x)
            if self.asked > int(os.environ.get("KILL_AFTER", "1000000")):
                os.kill(os.getpid(), signal.SIGKILL)
            print("asked", len(x), flush=True)
            return self.net(x)

    def items(n):
        generator = torch.Generator().manual_seed(1)
        return TensorDataset(torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator))

    if __name__ == "__main__":
        torch.set_num_threads(1)
        _stored_rows.FLUSH_SECONDS = 0.0
        strategy, devices, n = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
        trainer = pl.Trainer(
            accelerator="cpu", strategy=strategy, devices=devices, logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False,
        )
        stored = store_outputs(H1(), items(n), sys.argv[1], trainer=trainer, batch_size=4)
        h1 = H1().eval()
        with torch.no_grad():
            expected = torch.cat([h1(items(n)[i][0][None]) for i in range(n)])
        torch.testing.assert_close(stored[:], expected)
        stored.attach(items(n))
        # In one write: two processes share the pipe.
        os.write(1, f"complete {os.environ.get('LOCAL_RANK', '0')}\\n".encode())
"""


def run_script(tmp_path, strategy, devices, n, package="pytorch_lightning", processes=1, **environment):
    script = tmp_path / "store.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("{package}", package))
    arguments = [script, tmp_path / "stored", strategy, str(devices), str(n)]
    return run_program(*arguments, env={**os.environ, **environment}, processes=processes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "n", "package"),
    [("ddp", N, "pytorch_lightning"), ("ddp", 1, "lightning.pytorch"), ("ddp_spawn", N, "lightning.pytorch")],
)
def test_two_processes_share_the_work(tmp_path, strategy, n, package):
    # Lightning starts the other process itself, or both are there, as of torchrun.
    result = run_script(tmp_path, strategy, 2, n, package, processes=2 if n == 1 else 1)
    assert result.returncode == 0, result.stdout + result.stderr
    # The processes of "ddp_spawn" end with the work, and one goes on.
    assert result.stdout.count("complete") == (2 if strategy == "ddp" else 1)
    header = json.loads((tmp_path / "stored" / "header.json").read_text())
    assert header["complete"]
    assert np.load(tmp_path / "stored" / "done.npy").all()


@pytest.mark.slow
def test_killed_work_is_taken_up_where_it_stopped(tmp_path):
    killed = run_script(tmp_path, "auto", 1, N, KILL_AFTER="22")
    assert killed.returncode == -signal.SIGKILL
    # One item to learn the shape, then five whole batches of four.
    done = int(np.load(tmp_path / "stored" / "done.npy").sum())
    assert done == 20
    resumed = run_script(tmp_path, "ddp", 2, N, processes=2)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count("complete") == 2
