"""What is promised for every version and for both names of Lightning; small, so that it runs with the lowest too."""

import copy
import importlib
import pickle
import sys
import textwrap
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from warm_programs import run_program

from bc_core.invariance import TransformSet
from bc_lightning import BCLightningModule, CompatibilityCallback, unwrap
from bc_lightning._packages import CompleteName, logged_name
from bc_lightning.invariance import InvarianceCallback

BOTH = ["pytorch_lightning", "lightning.pytorch"]
FEATURES, CLASSES = 4, 3


@pytest.fixture(params=BOTH)
def package(request):
    return importlib.import_module(request.param)


def data(seed, n=24):
    x = torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :CLASSES].argmax(1))


def loader(seed, n=24):
    return DataLoader(data(seed, n), 8)


def user_module(package):
    class User(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(FEATURES, CLASSES)

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    torch.manual_seed(0)
    return User()


def reference():
    torch.manual_seed(1)
    return nn.Linear(FEATURES, CLASSES)


def trainer_of(package, root, **options):
    return package.Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": root,
            **options,
        }
    )


def fit(trainer, module, val, **options):
    with warnings.catch_warnings():
        # Lightning's own advice on workers and log intervals; warnings of ours stay errors.
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning|torch")
        trainer.fit(module, loader(2), val, **options)


def scores(network, h1, seed):
    """BTC, NFR and accuracies by plain comparison."""
    x, y = data(seed).tensors
    with torch.no_grad():
        right1, right2 = h1(x).argmax(1) == y, network(x).argmax(1) == y
    return {
        "btc": (right1 & right2).sum().item() / max(1, right1.sum().item()),
        "nfr": (right1 & ~right2).sum().item() / len(y),
        "accuracy_h1": right1.sum().item() / len(y),
        "accuracy_h2": right2.sum().item() / len(y),
    }


@pytest.mark.parametrize("how", ["wrapped", "callback"])
def test_scores_and_weights_by_hand(package, how, tmp_path):
    module, h1 = user_module(package), reference()
    by_hand = copy.deepcopy(module.net)
    callbacks = [CompatibilityCallback(h1, lambda_c=2.0)] if how == "callback" else []
    given = BCLightningModule(module, h1=h1, lambda_c=2.0) if how == "wrapped" else module
    trainer = trainer_of(package, tmp_path, callbacks=callbacks)
    fit(trainer, given, loader(3))

    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.5)
    for _ in range(2):
        for x, y in loader(2):
            each = F.cross_entropy(by_hand(x), y, reduction="none")
            loss = (each * (1 + 2.0 * (h1(x).argmax(1) == y))).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert torch.allclose(module.net.weight, by_hand.weight, atol=1e-6)
    for name, value in scores(by_hand, h1, 3).items():
        assert float(trainer.callback_metrics[f"val_{name}"]) == pytest.approx(value)
    assert isinstance(given, BCLightningModule) is (how == "wrapped")
    assert type(unwrap(given)).__name__ == "User"


def test_several_validation_loaders(package, tmp_path):
    module, h1 = user_module(package), reference()
    trainer = trainer_of(package, tmp_path)
    fit(trainer, BCLightningModule(module, h1=h1), [loader(3), loader(4)])
    for index, seed in enumerate((3, 4)):
        for name, value in scores(module.net, h1, seed).items():
            assert float(trainer.callback_metrics[f"val_{name}/dataloader_idx_{index}"]) == pytest.approx(value)


def test_a_checkpoint_of_one_loader_among_several(package, tmp_path):
    best = package.callbacks.ModelCheckpoint(
        dirpath=tmp_path, filename="best", monitor="val_btc/dataloader_idx_1", mode="max"
    )
    module = user_module(package)
    trainer = trainer_of(
        package, tmp_path, enable_checkpointing=True, callbacks=[CompatibilityCallback(reference()), best]
    )
    fit(trainer, module, [loader(3), loader(4)])
    assert best.best_model_path.endswith("best.ckpt")
    saved = torch.load(best.best_model_path, weights_only=False)
    assert set(saved["state_dict"]) == {"net.weight", "net.bias"}
    again = trainer_of(package, tmp_path, max_epochs=3, callbacks=[CompatibilityCallback(reference())])
    fit(again, user_module(package), [loader(3), loader(4)], ckpt_path=best.best_model_path)
    assert again.current_epoch == 3


def test_a_plain_module_with_the_package_that_is_named(package, tmp_path):
    net, h1 = nn.Linear(FEATURES, CLASSES), reference()
    module = BCLightningModule(net, h1=h1, optimizer=torch.optim.Adam, lightning_module=package.LightningModule)
    trainer = trainer_of(package, tmp_path)
    fit(trainer, module, loader(3))
    assert float(trainer.callback_metrics["val_btc"]) == pytest.approx(scores(net, h1, 3)["btc"])


def test_callbacks_are_those_of_either_package(package):
    watch = InvarianceCallback(nn.Flatten(), torch.zeros(2, 1, 4, 4), TransformSet.c4())
    for callback in (CompatibilityCallback(reference()), watch):
        assert isinstance(callback, package.Callback)
        # A single callback is taken only if it is one; a list is taken as it is.
        assert callback in package.Trainer(callbacks=callback, logger=False, accelerator="cpu").callbacks
        assert pickle.loads(pickle.dumps(type(callback))) is type(callback)


def test_a_module_of_one_package_stays_free_of_the_other():
    for here, there in (BOTH, BOTH[::-1]):
        module = BCLightningModule(user_module(importlib.import_module(here)), h1=reference())
        assert not isinstance(module, importlib.import_module(there).LightningModule)
        assert isinstance(module, BCLightningModule)
        assert not isinstance(unwrap(module), BCLightningModule)


def test_what_is_logged_of_several_loaders_is_saved_and_loaded_without_this_package(package, tmp_path):
    trainer = trainer_of(package, tmp_path, max_epochs=1)
    fit(trainer, BCLightningModule(user_module(package), h1=reference()), [loader(3), loader(4)])
    copied = pickle.loads(pickle.dumps(dict(trainer.callback_metrics)))
    assert "val_btc/dataloader_idx_1" in copied
    assert b"bc_lightning" not in pickle.dumps(dict(trainer.callback_metrics))
    assert {type(name) for name in copied} == {str}


def test_a_name_that_older_lightning_does_not_look_into():
    name = CompleteName("val_btc/dataloader_idx_0")
    assert "/dataloader_idx_" not in name
    assert "val_" in name
    assert {name: 1}["val_btc/dataloader_idx_0"] == 1
    assert type(pickle.loads(pickle.dumps(name))) is str
    assert name.split("/dataloader_idx_") == ["val_btc", "0"]
    assert type(logged_name("val_btc")) is str


@pytest.mark.slow
def test_without_the_lightning_package(tmp_path):
    (tmp_path / "lightning.py").write_text("raise ImportError('not installed')")
    code = """
        import sys
        import bc_lightning, pytorch_lightning, torch
        assert "lightning.pytorch" not in sys.modules
        callback = bc_lightning.CompatibilityCallback(torch.nn.Linear(2, 2))
        assert type(callback).__mro__[1] is pytorch_lightning.Callback
        print("fine")
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    done = run_program("program.py", cwd=tmp_path)
    assert done.stdout == "fine\n", done.stderr[-2000:]


PROGRAM = """
    {first}
    import {package} as pl
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    from {package}.cli import LightningCLI


    class Net(nn.Linear):
        def __init__(self, classes: int = 3):
            super().__init__(4, classes)


    class User(pl.LightningModule):
        def __init__(self, classes: int = 3):
            super().__init__()
            self.save_hyperparameters()
            self.net = Net(classes)

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)


    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
            return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 16)

        val_dataloader = train_dataloader


    def run(model_class, arguments=None):
        cli = LightningCLI(model_class, Data, args=arguments, save_config_kwargs={{"overwrite": True}})
        h1 = nn.Linear(4, 3)
        h1.load_state_dict(torch.load("h1.ckpt"))
        x, y = Data().val_dataloader().dataset.tensors
        net = getattr(cli.model, "net", cli.model)
        right1, right2 = h1(x).argmax(1) == y, net(x).argmax(1) == y
        found = cli.trainer.callback_metrics
        assert abs(found["val_btc"].item() - ((right1 & right2).sum() / right1.sum()).item()) < 1e-6, found
        assert abs(found["val_nfr"].item() - (right1 & ~right2).float().mean().item()) < 1e-6, found
        print("as by hand")
"""

H1 = """
        h1:
          class_path: bc_lightning.load_h1
          init_args: {module: {class_path: program.Net}, checkpoint: h1.ckpt}
        lambda_c: {class_path: bc_lightning.LinearLambda, init_args: {end: 4.0, epochs: 2}}
        loss: StrictImitationCrossEntropyLoss
"""
TRAINER = """
seed_everything: 1
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  enable_checkpointing: false
"""
CONFIGS = {
    "callback": TRAINER
    + "  callbacks:\n    - class_path: bc_lightning.CompatibilityCallback\n      init_args:"
    + H1
    + "model:\n  classes: 3\n",
    "module": TRAINER + "model:\n  model:\n    class_path: program.User" + textwrap.dedent(H1).replace("\n", "\n  "),
    "plain module": TRAINER
    + "model:\n  model:\n    class_path: program.Net\n  optimizer:\n    class_path: torch.optim.Adam"
    + textwrap.dedent(H1).replace("\n", "\n  "),
}


def write_program(folder, package, config, model, first=""):
    """A program as a user has it; returns its arguments."""
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM).format(package=package, first=first))
    (folder / "main.py").write_text(f"import program\nif __name__ == '__main__':\n    program.run({model})\n")
    (folder / "config.yaml").write_text(CONFIGS[config])
    torch.save(reference().state_dict(), folder / "h1.ckpt")
    return ["fit", "--config", "config.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("first", ["", "import bc_lightning"])
def test_the_callback_in_a_program_with_lightning_cli(name, first, tmp_path):
    # Named in the YAML alone, or imported before the package of the Trainer, as sorted imports have it.
    arguments = write_program(tmp_path, name, "callback", "program.User", first)
    done = run_program("main.py", *arguments, cwd=tmp_path)
    assert "as by hand" in done.stdout, done.stderr[-3000:]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("config", CONFIGS)
def test_lightning_cli(name, config, tmp_path, monkeypatch, capsys):
    arguments = write_program(tmp_path, name, config, "User")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "program", raising=False)
    program = importlib.import_module("program")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning|torch|jsonargparse")
        program.run(program.User if config == "callback" else BCLightningModule, arguments)
    assert "as by hand" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "program")
