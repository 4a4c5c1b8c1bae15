"""Parameters that are sharded over processes: what works does as by hand, what was not shown to work is refused."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from sharded_training import CLASSES, FEATURES, data
from torch import nn
from user_code import UserModule, loader, made, make_trainer
from warm_programs import run_program

from bc_lightning import BCLightningModule, CompatibilityCallback

SCRIPT = Path(__file__).parents[1] / "sharded_training.py"


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--package", "lightning.pytorch"], ["--package", "pytorch_lightning", "--whole"]])
def test_fully_sharded_parameters(options, tmp_path):
    out = tmp_path / "found.pt"
    done = run_program(SCRIPT, "--out", out, *options, processes=2)
    assert done.returncode == 0, done.stderr[-4000:]
    found = torch.load(out)
    for ours, by_hand in (("wrapped", "by hand"), ("resumed", "by hand, 3 epochs")):
        for name, weight in found[by_hand].items():
            torch.testing.assert_close(found[ours][name], weight, rtol=0, atol=1e-6)

    h1 = nn.Linear(FEATURES, CLASSES)
    h1.load_state_dict(found["h1"])
    h2 = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    h2.load_state_dict({name.removeprefix("net."): weight for name, weight in found["wrapped"].items()})
    x, y = data(3).tensors
    right1, right2 = h1(x).argmax(1) == y, h2(x).argmax(1) == y
    assert found["metrics"]["val_btc"] == pytest.approx(((right1 & right2).sum() / right1.sum()).item())
    assert found["metrics"]["val_nfr"] == pytest.approx((right1 & ~right2).float().mean().item())


def strategy(name):
    """One that runs here and is, by its classes' names, one that does not."""
    for package in ("pytorch_lightning", "lightning.pytorch"):
        assert isinstance(getattr(importlib.import_module(f"{package}.strategies"), name), type)
    theirs = type(name, (SingleDeviceStrategy,), {})
    return type("TheUsersOwn", (theirs,), {})(device=torch.device("cpu"))


@pytest.mark.parametrize("how", ["wrapped", "callback"])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [("FSDPStrategy", r"ModelParallelStrategy\(\), and fully_shard"), ("DeepSpeedStrategy", "'ddp'")],
)
def test_strategies_that_were_not_shown_to_work_are_refused(name, remedy, how, h1, tmp_path):
    module, callbacks = made(UserModule), []
    if how == "wrapped":
        module = BCLightningModule(module, h1=h1)
    else:
        callbacks = [CompatibilityCallback(h1)]
    trainer = make_trainer(tmp_path, strategy=strategy(name), callbacks=callbacks)
    for run in (trainer.fit, trainer.validate):
        with pytest.raises(ValueError, match=f"TheUsersOwn was not shown.*{remedy}"):
            run(module, loader())
