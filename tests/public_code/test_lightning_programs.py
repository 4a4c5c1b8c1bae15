"""Whole programs around a LightningModule: LightningCLI with a YAML file, two processes."""

from __future__ import annotations

import importlib
import warnings

import cli_project
import pytest
import torch
import yaml
from lightning_patterns import LIGHTNING_PATTERNS, LIGHTNING_TABLE
from public_table import PAGE, counted, rows, rows_on_the_page
from test_lightning_patterns import LAMBDA, SCORES, fit, h1_predicted, predicted, scores_by_numpy, wrapped


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_lightning_cli_with_the_callback_in_its_yaml(package, tmp_path, monkeypatch):
    prefix = "Pl" if package == "pytorch_lightning" else "Lightning"
    module, data = getattr(cli_project, f"{prefix}Module"), getattr(cli_project, f"{prefix}Data")
    torch.manual_seed(7)
    h1 = cli_project.OldNet()
    torch.save(h1.state_dict(), tmp_path / "h1.ckpt")
    options = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    load = {"module": {"class_path": "cli_project.OldNet"}, "checkpoint": str(tmp_path / "h1.ckpt")}
    reference = {"class_path": "bc_lightning.load_h1", "init_args": load}
    callback = {
        "class_path": "bc_lightning.CompatibilityCallback",
        "init_args": {"h1": reference, "lambda_c": LAMBDA},
    }

    def run(*callbacks):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"seed_everything": 3, "trainer": {**options, "callbacks": list(callbacks)}}))
        cli = importlib.import_module(f"{package}.cli").LightningCLI
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning|torch|jsonargparse")
            return cli(module, data, args=["fit", "--config", str(path)], save_config_callback=None)

    plain, ours = run(), run(callback)
    assert not torch.equal(plain.model.net.weight, ours.model.net.weight)
    assert type(ours.model) is module
    x, y = torch.cat([b[0] for b in data().val_dataloader()]), torch.cat([b[1] for b in data().val_dataloader()])
    with torch.no_grad():
        preds = [model(x).argmax(1).numpy() for model in (h1, ours.model)]
    for name, value in scores_by_numpy(*preds, y.numpy()).items():
        assert ours.trainer.callback_metrics[f"val_{name}"].item() == pytest.approx(value, abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BoltsStyleWithDataModule", "TorchmetricsInADict", "ManualOptimisation"])
def test_two_processes_log_the_scores_of_the_whole_data_set(name):
    (pattern,) = [pattern for pattern in LIGHTNING_PATTERNS if pattern.module.__name__ == name]
    module = wrapped(pattern, LAMBDA)
    # 13 rows on two processes: the sampler repeats one, which must not count.
    trainer = fit(pattern, module, strategy="ddp_fork", devices=2, num_sanity_val_steps=0)
    train, val = pattern.loaders()
    if val is None:
        train.setup("fit")
        val = train.val_dataloader()
    h2, target = predicted(pattern, module, val)
    expected = scores_by_numpy(h1_predicted(pattern, val), h2, target)
    for score in SCORES:
        assert trainer.callback_metrics[f"val_{score}"].item() == pytest.approx(expected[score], abs=1e-6), score


def test_the_table_of_the_docs_is_this_list():
    assert rows_on_the_page("LightningModules") == rows(LIGHTNING_TABLE)
    assert counted(LIGHTNING_TABLE) in PAGE.read_text(encoding="utf-8")
