"""Mixed precision, torch.compile, averaging callbacks, both Lightning packages, LightningCLI."""

from __future__ import annotations

import copy
import textwrap
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from user_code import CLASSES, FEATURES, Net, UserModule, dataset, fit, loader, made, make_h1
from warm_programs import run_program

from bc_lightning import BCLightningModule, CompatibilityCallback, CompatibilityLoss, StoredOutputs, load_h1, unwrap
from bc_lightning.training._wrapped import compatibilities_of


@pytest.mark.parametrize("name", ["BCCrossEntropyLoss", "StrictImitationKLDivergenceLoss", "BCNLLLoss"])
def test_bf16_mixed_computes_the_loss_in_float32(name, h1, tmp_path):
    wide, mixed = (BCLightningModule(made(UserModule), h1=h1, loss=name, lambda_c=2.0) for _ in range(2))
    trainer = fit(wide, tmp_path)
    mixed_trainer = fit(mixed, tmp_path, precision="bf16-mixed")
    for metric in ("train_base_loss", "train_dissonance", "val_base_loss"):
        value = mixed_trainer.callback_metrics[metric]
        assert value.dtype == torch.float32
        # bfloat16 keeps 8 bits: outputs are off by up to 2^-8, losses of about 1 by a few hundredths after 10 steps.
        assert value.item() == pytest.approx(trainer.callback_metrics[metric].item(), abs=0.05), metric
    assert all(parameter.dtype == torch.float32 for parameter in h1.parameters())


def test_bf16_mixed_lambda_zero_is_plain(h1, tmp_path):
    plain, wrapped = made(UserModule), BCLightningModule(made(UserModule), h1=h1, lambda_c=0.0)
    fit(plain, tmp_path, precision="bf16-mixed")
    fit(wrapped, tmp_path, precision="bf16-mixed")
    for one, other in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_true_precision_leaves_the_callers_h1_as_it_is(precision, tmp_path):
    h1 = make_h1()
    before = copy.deepcopy(h1.state_dict())
    module = BCLightningModule(made(UserModule), h1=h1, lambda_c=2.0)
    trainer = fit(module, tmp_path, precision=precision)
    after = h1.state_dict()
    assert all(torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items())
    assert trainer.callback_metrics["train_dissonance"] > 0


def test_a_cast_copy_of_h2_does_not_disturb_the_h1_they_share(h1, tmp_path):
    module, alone = (BCLightningModule(made(UserModule), h1=h1, lambda_c=2.0) for _ in range(2))
    fit(alone, tmp_path)
    before = copy.deepcopy(h1.state_dict())
    copy.deepcopy(module).half()
    for name, value in h1.state_dict().items():
        assert (value.dtype, value.tolist()) == (before[name].dtype, before[name].tolist())
    fit(module, tmp_path)
    for one, other in zip(module.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_stored_rows_are_not_rounded_by_the_trainers_precision(tmp_path):
    x, y = dataset(40).tensors
    # In bfloat16 1.001 is 1, and the first of equal scores wins.
    scores = torch.tensor([[1.0, 1.001, 0.0]]).repeat(40, 1)
    table = StoredOutputs.from_table(scores, kind="logits")
    data = table.attach(TensorDataset(x, y))
    module = BCLightningModule(made(UserModule), h1=table, loss="StrictImitationKLDivergenceLoss")
    trainer = fit(module, tmp_path, train=loader(data), val=loader(data), precision="bf16-true")
    expected = (y == 1).float().mean().item()
    assert trainer.callback_metrics["val_accuracy_h1"].item() == pytest.approx(expected, rel=1e-6)
    assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"loss": "StrictImitationKLDivergenceLoss"}, {"class_map": [0, 1, 2]}])
@pytest.mark.parametrize("scheduled", [False, True])
def test_a_training_step_reads_no_value_from_the_device(options, scheduled):
    """On the device "meta" there are no values, so an `.item()` or a shape that depends on data is an error."""

    class Silent(UserModule):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    lambda_c = (lambda epoch: 1.0 + epoch) if scheduled else 2.0
    old = make_h1().to("meta")

    # As a function: a module without values has no fingerprint.
    def h1(x):
        return old(x)

    module = BCLightningModule(made(Silent).to("meta"), h1=h1, lambda_c=lambda_c, **options)
    module.to("meta")
    module._trainer = SimpleNamespace(
        world_size=1, global_step=0, current_epoch=0, num_training_batches=10, log_every_n_steps=50
    )
    # The look at the first batch, once in a training, is the exception.
    state = compatibilities_of(module)[0]
    state.run.looked_at.add("train")
    batch = (torch.zeros(20, FEATURES, device="meta"), torch.zeros(20, dtype=torch.long, device="meta"))
    for batch_idx in range(3):
        module.on_train_batch_start(batch, batch_idx)
        module.training_step(batch, batch_idx).backward()
        module.on_train_batch_end(None, batch, batch_idx)
    assert state.run.epochs["train"].records[0].counts.device.type == "meta"


def test_bf16_true_keeps_lambda_and_class_weights_in_float32(tmp_path):
    # 1.001 is 1 in bfloat16.
    loss = CompatibilityLoss("cross_entropy", weight=[1.001, 1.001, 1.001])
    module = BCLightningModule(made(UserModule), h1=make_h1(), loss=loss, lambda_c=lambda epoch: 1.001)
    trainer = fit(module, tmp_path, precision="bf16-true")
    assert trainer.callback_metrics["lambda_c"].item() == pytest.approx(1.001, abs=1e-6)
    assert compatibilities_of(module)[0].loss.options["weight"].tolist() == pytest.approx([1.001] * 3, abs=1e-6)


def test_double_takes_h1_and_class_weights_along(tmp_path):
    loss = CompatibilityLoss("cross_entropy", weight=[1.0, 2.0, 3.0])
    module = BCLightningModule(made(UserModule), h1=make_h1(), loss=loss)
    trainer = fit(module, tmp_path, precision="64-true")
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float64}
    assert trainer.callback_metrics["train_dissonance"] > 0


def test_to_empty_spares_h1(h1):
    before = copy.deepcopy(h1.state_dict())
    module = BCLightningModule(made(UserModule), h1=h1)
    module.to_empty(device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in h1.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [False, True])
def test_compiled_trains_like_eager(h1, tmp_path, schedule):
    class NoDropout(UserModule):
        def __init__(self):
            super().__init__()
            self.net.layers[3].p = 0.0  # compiled dropout draws other random numbers

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])  # self.log in a compiled step is Lightning's to fix

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    lambda_c = (lambda epoch: 1.0 + epoch) if schedule else 2.0
    eager, compiled = (
        BCLightningModule(made(NoDropout), h1=h1, loss="StrictImitationCrossEntropyLoss", lambda_c=lambda_c)
        for _ in range(2)
    )
    trainer = fit(eager, tmp_path)
    compiled_trainer = fit(torch.compile(compiled, backend="aot_eager"), tmp_path)
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for name, value in trainer.callback_metrics.items():
        torch.testing.assert_close(compiled_trainer.callback_metrics[name], value, rtol=1e-4, atol=1e-5)


def test_the_loss_compiles_to_one_graph():
    loss = CompatibilityLoss("cross_entropy", "strict_imitation", 2.0)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    h2, target, h1 = torch.randn(8, 3, requires_grad=True), torch.randint(3, (8,)), torch.randn(8, 3)
    torch.testing.assert_close(compiled(h2, target, h1), loss(h2, target, h1))


needs_ema = pytest.mark.skipif(not hasattr(pl.callbacks, "EMAWeightAveraging"), reason="Lightning has it since 2.6")


@pytest.mark.parametrize("callback", [pytest.param("EMA", marks=needs_ema), "SWA"])
def test_averaging_callbacks(callback, h1, tmp_path):
    def averaging():
        if callback == "SWA":
            return pl.callbacks.StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)
        return pl.callbacks.EMAWeightAveraging(decay=0.9)

    plain, wrapped = made(UserModule), BCLightningModule(made(UserModule), h1=h1, lambda_c=0.0)
    fit(plain, tmp_path, max_epochs=3, callbacks=[averaging()])
    trainer = fit(wrapped, tmp_path, max_epochs=3, callbacks=[averaging()])
    for one, other in zip(plain.parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(one, other)
    assert "val_btc" in trainer.callback_metrics


@needs_ema
def test_ema_of_a_plain_module_saves_and_loads(h1, tmp_path):
    module = BCLightningModule(made(Net), h1=h1, optimizer=torch.optim.Adam)
    trainer = fit(module, tmp_path, callbacks=[pl.callbacks.EMAWeightAveraging(decay=0.9)])
    trainer.save_checkpoint(tmp_path / "ema.ckpt")
    Net().load_state_dict(torch.load(tmp_path / "ema.ckpt", weights_only=True)["state_dict"])


@pytest.mark.parametrize("how", ["wrap", "callback"])
def test_modules_of_the_lightning_package(how, h1, tmp_path):
    import lightning.pytorch

    class Other(lightning.pytorch.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module, callbacks = made(Other), []
    if how == "wrap":
        module = BCLightningModule(module, h1=h1, lambda_c=2.0)
    else:
        callbacks = [CompatibilityCallback(h1, lambda_c=2.0)]
    trainer = lightning.pytorch.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, loader(), loader(dataset(50, seed=1)))
    assert {"train_btc", "val_nfr", "val_dissonance"} <= set(trainer.callback_metrics)
    copy.deepcopy(module)
    assert type(unwrap(module)) is Other


@pytest.mark.slow
@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_a_plain_module_is_trained_by_the_package_of_the_caller(package, tmp_path):
    # Both are imported, the other one only by a library; the program itself uses one of them.
    (tmp_path / "library.py").write_text("import lightning.pytorch, pytorch_lightning")
    code = f"""
        import library
        import torch
        from {package} import Trainer
        from torch.utils.data import DataLoader, TensorDataset
        from bc_lightning import BCLightningModule
        import copy, pickle

        data = DataLoader(TensorDataset(torch.randn(8, 2), torch.randint(2, (8,))), 4)
        module = BCLightningModule(torch.nn.Linear(2, 2), h1=torch.nn.Linear(2, 2), optimizer=torch.optim.Adam)
        trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.fit(module, data, data)
        assert type(pickle.loads(pickle.dumps(module))) is type(copy.deepcopy(module)) is type(module)
        print("trained", "val_btc" in trainer.callback_metrics)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    done = run_program(tmp_path / "program.py", cwd=tmp_path)
    assert "trained True" in done.stdout, done.stderr[-3000:]


CLI_PROGRAM = """
    import torch
    from lightning_program import Data  # noqa
    from pytorch_lightning.cli import LightningCLI
    from bc_lightning import BCLightningModule
    from bc_lightning.training._wrapped import compatibilities_of

    cli = LightningCLI(BCLightningModule, Data, save_config_kwargs={"overwrite": True})
    print("btc", cli.trainer.callback_metrics["val_btc"].item())
    loss = compatibilities_of(cli.model)[0].loss
    print("lambda", float(loss.lambda_c), loss.dissonance)
"""

CLI_MODULE = """
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset


    class Net(nn.Module):
        def __init__(self, width: int = 16):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))

        def forward(self, x):
            return self.layers(x)


    class User(pl.LightningModule):
        def __init__(self, width: int = 16, lr: float = 0.1):
            super().__init__()
            self.save_hyperparameters()
            self.net = Net(width)

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


    class Data(pl.LightningDataModule):
        def loader(self):
            x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
            return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 16)

        train_dataloader = val_dataloader = loader
"""

CLI_TRAINER = """
    seed_everything: 1
    trainer:
      max_epochs: 1
      accelerator: cpu
      logger: false
      enable_checkpointing: false
      enable_progress_bar: false
      enable_model_summary: false
    model:
      h1:
        class_path: bc_lightning.load_h1
        init_args:
          module:
            class_path: lightning_program.Net
            init_args: {width: 4}
          checkpoint: h1.ckpt
          prefix: "net."
      loss: StrictImitationKLDivergenceLoss
"""

CLI_MODELS = {
    "lightning module": """
      model:
        class_path: lightning_program.User
        init_args: {width: 12, lr: 0.05}
      lambda_c:
        class_path: bc_lightning.LinearLambda
        init_args: {start: 1.0, end: 5.0, epochs: 0.5}
    """,
    "plain module": """
      model: {class_path: lightning_program.Net}
      lambda_c: 5.0
      optimizer:
        class_path: torch.optim.Adam
        init_args: {lr: 0.01}
      lr_scheduler:
        class_path: torch.optim.lr_scheduler.ExponentialLR
        init_args: {gamma: 0.9}
    """,
    "focal_distillation": """
      model: {class_path: lightning_program.User}
      lambda_c: 5.0
      loss_options: {temperature: 4.0}
    """,
}


CLI_CALLBACK = """
    seed_everything: 1
    trainer:
      max_epochs: 1
      accelerator: cpu
      logger: false
      enable_progress_bar: false
      enable_model_summary: false
      callbacks:
        - class_path: bc_lightning.CompatibilityCallback
          init_args:
            h1:
              class_path: bc_lightning.load_h1
              init_args:
                module: {class_path: lightning_program.Net, init_args: {width: 4}}
                checkpoint: h1.ckpt
                prefix: "net."
            loss: StrictImitationCrossEntropyLoss
            lambda_c: {class_path: bc_lightning.LinearLambda, init_args: {end: 4.0, epochs: 2}}
        - class_path: pytorch_lightning.callbacks.ModelCheckpoint
          init_args: {dirpath: saved, filename: best, monitor: val_btc, mode: max}
"""


@pytest.mark.slow
def held_out(rows: int = 100) -> DataLoader:
    return loader(dataset(rows))


class OldNet(nn.Linear):
    def __init__(self, seed: int = 0):
        super().__init__(FEATURES, CLASSES)
        with torch.no_grad():
            self.weight.copy_(torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(seed)))


class OwnData(pl.LightningDataModule):
    def train_dataloader(self):
        return loader(dataset(20))


def test_every_option_of_a_method_can_be_said_in_a_configuration(tmp_path):
    from pytorch_lightning.cli import LightningCLI

    def made_of(name, **init):
        return {"class_path": f"{__name__}.{name}", "init_args": init}

    said = {
        "h1": made_of("OldNet", seed=1),
        "loss": "focal_distillation",
        "loss_options": {"beta": 2.0},
        "promise": ["nfr <= 90%", "btc >= 1%"],
        "promise_data": made_of("held_out", rows=60),
        "promise_options": {"average": False, "most": 4.0},
        "teacher": [[made_of("OldNet", seed=1), 0.5], [made_of("OldNet", seed=2), 0.5]],
        "unlabelled": made_of("held_out", rows=8),
        "unlabelled_weight": 0.5,
        "class_map": {"map": list(range(CLASSES))},
    }
    trainer = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(tmp_path)}
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    given = {"trainer": trainer | quiet, "model": {"model": made_of("OldNet"), "optimizer": optimizer, **said}}
    cli = LightningCLI(BCLightningModule, OwnData, args=given, run=False, save_config_callback=None)
    cli.trainer.fit(cli.model, cli.datamodule)
    state = compatibilities_of(cli.model)[0]
    assert cli.model.promise.overlap.total == 60
    assert str(cli.model.promise.promise) == "nfr <= 90%, btc >= 1%"
    assert state.loss.options["beta"] == 2.0
    assert state.options.teacher is not None
    assert cli.trainer.callback_metrics["train_unlabelled_dissonance"] > 0


def test_the_callback_from_yaml_and_again_from_its_checkpoint(tmp_path):
    (tmp_path / "lightning_program.py").write_text(textwrap.dedent(CLI_MODULE))
    (tmp_path / "program.py").write_text(
        "from lightning_program import Data, User\nfrom pytorch_lightning.cli import LightningCLI\n"
        "cli = LightningCLI(User, Data, save_config_kwargs={'overwrite': True})\n"
        "print('btc', cli.trainer.callback_metrics['val_btc'].item())\n"
    )
    (tmp_path / "config.yaml").write_text(textwrap.dedent(CLI_CALLBACK))
    old = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)).state_dict()
    torch.save({"state_dict": {f"net.layers.{name}": value for name, value in old.items()}}, tmp_path / "h1.ckpt")
    command = ["program.py", "fit", "--config", "config.yaml", "--model.width", "12"]
    for more in ([], ["--ckpt_path", "saved/best.ckpt", "--trainer.max_epochs", "2"]):
        done = run_program(*command, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        assert 0 <= float(done.stdout.split("btc ")[1].split()[0]) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLI_MODELS)
def test_lightning_cli_from_yaml(kind, tmp_path):
    (tmp_path / "lightning_program.py").write_text(textwrap.dedent(CLI_MODULE))
    (tmp_path / "program.py").write_text(textwrap.dedent(CLI_PROGRAM))
    model = textwrap.indent(textwrap.dedent(CLI_MODELS[kind]).strip(), "  ")
    given, dissonance = textwrap.dedent(CLI_TRAINER).rstrip(), "strict_imitation"
    if kind == "focal_distillation":
        given, dissonance = given.replace("StrictImitationKLDivergenceLoss", kind), kind
    (tmp_path / "config.yaml").write_text(given + "\n" + model + "\n")
    torch.manual_seed(0)
    old = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)).state_dict()
    torch.save({"state_dict": {f"net.layers.{name}": value for name, value in old.items()}}, tmp_path / "h1.ckpt")
    done = run_program("program.py", "fit", "--config", "config.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"lambda 5.0 {dissonance}" in done.stdout
    assert 0 <= float(done.stdout.split("btc ")[1].split()[0]) <= 1
    assert (tmp_path / "config.yaml").exists()


def test_load_h1_is_public_and_gives_eval_mode(tmp_path):
    net = nn.Linear(FEATURES, CLASSES)
    torch.save({"state_dict": {f"net.{name}": value for name, value in net.state_dict().items()}}, tmp_path / "a.ckpt")
    h1 = load_h1(nn.Linear(FEATURES, CLASSES), tmp_path / "a.ckpt", prefix="net.")
    assert torch.equal(h1.weight, net.weight)
    assert not h1.training
