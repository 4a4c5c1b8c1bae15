"""What makes another sweep, and what does not."""

from __future__ import annotations

import functools
import inspect
import json

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from sweep_training import Digits
from swept_modules import batches, few, rows_of, sweep_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_core.sweep import _folder
from bc_lightning import CompatibilityLoss, StoredOutputs, store_outputs, sweep
from bc_lightning.sweep._recipe import LightningRecipe


def adam(lr):
    return lambda parameters: torch.optim.Adam(parameters, lr)


class Slower(Digits):
    """Differs from its base by an attribute alone."""

    def __init__(self, lr=0.1):
        super().__init__()
        self.lr = lr


LINEAR = functools.partial(nn.Linear, 784, 10)
# What a recipe is given where the caller of `sweep` says nothing.
OF_THE_RUN = {
    *("folder", "lambdas", "seeds", "engine", "workers", "background", "progress_bar", "ray_options"),
    *("tensorboard", "mlflow", "trackers"),
}
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(sweep).parameters.items()
    if parameter.default is not inspect.Parameter.empty and name not in OF_THE_RUN
}


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ({"optimizer": adam(1e-3)}, {"optimizer": adam(1e-2)}, "optimizer"),
        (
            {"optimizer": functools.partial(torch.optim.SGD, lr=0.1)},
            {"optimizer": functools.partial(torch.optim.SGD, lr=0.2)},
            "optimizer",
        ),
        (
            {"optimizer": lambda p: torch.optim.Adam(p, 0.1)},
            {"optimizer": lambda p: torch.optim.NAdam(p, 0.1)},
            "optimizer",
        ),
        ({"h2": Slower}, {"h2": functools.partial(Slower, lr=0.5)}, "h2 before training"),
        (
            {"h2": lambda: nn.Sequential(nn.Linear(784, 10), nn.Dropout(0.1)), "optimizer": adam(1e-3)},
            {"h2": lambda: nn.Sequential(nn.Linear(784, 10), nn.Dropout(0.2)), "optimizer": adam(1e-3)},
            "h2 before training",
        ),
        (
            {"trainer": {"max_epochs": 1, "callbacks": [EarlyStopping("x", patience=1)]}},
            {"trainer": {"max_epochs": 1, "callbacks": [EarlyStopping("x", patience=2)]}},
            "trainer",
        ),
        (
            {"losses": {"a": CompatibilityLoss()}, "optimizer": adam(1e-3)},
            {"losses": {"b": CompatibilityLoss(label_smoothing=0.1)}, "optimizer": adam(1e-3)},
            "base of plain training",
        ),
        ({"performance_metric": lambda *_: 0.5}, {"performance_metric": lambda *_: 0.25}, "performance_metric"),
    ],
)
def test_whatever_changes_the_results_makes_another_sweep(tmp_path, h1, data, first, second, says):
    loader = DataLoader(data["train"], batch_size=100)

    def begun(options):
        given = {"h2": LINEAR if "optimizer" in options else Digits, "trainer": {"max_epochs": 1}, **options}
        recipe = LightningRecipe(h1=h1, train=loader, **{**DEFAULTS, **given})
        _folder.SweepFolder(tmp_path / "s").begin(recipe.describe(), ["new_error"], [])

    begun(first)
    begun(first)
    with pytest.raises(ValueError, match=f"another sweep: .*{says} was"):
        begun(second)


def test_other_labels_outside_any_sample_make_another_sweep(tmp_path, h1, data):
    x, y = data["train"].tensors
    other = y.clone()
    other[1234] = (other[1234] + 1) % 10
    sweep_of(Digits, tmp_path / "s", h1, data, lambdas=[0])
    with pytest.raises(ValueError, match="train data was"):
        sweep_of(Digits, tmp_path / "s", h1, {**data, "train": TensorDataset(x, other)}, lambdas=[0])


class Items(torch.utils.data.Dataset):
    """Items of its own making, which are no tensors of a TensorDataset."""

    def __init__(self, shift):
        self.shift = shift

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.full((4,), float(index + self.shift)), index % 3


def test_other_items_of_a_data_set_of_ones_own_make_another_sweep(tmp_path):
    def begun(train):
        few(train, h1, tmp_path / "s", evaluate_on_train=False, store_h1=False)

    h1 = nn.Linear(4, 3)
    begun(DataLoader(Items(0), batch_size=10))
    begun(DataLoader(Items(0), batch_size=10))
    with pytest.raises(ValueError, match="train data was 20 items"):
        begun(DataLoader(Items(1), batch_size=10))


def test_other_ids_beside_the_same_tensors_make_another_sweep(tmp_path):
    x, y = torch.zeros(2, 4), torch.tensor([0, 1])
    h1 = nn.Linear(4, 3)
    few([(["a", "b"], x, y)], h1, tmp_path / "s")
    with pytest.raises(ValueError, match="train data was 1 batches"):
        few([(["a", "c"], x, y)], h1, tmp_path / "s")


class Labelled(torch.utils.data.Dataset):
    """A data set of a class of the user's own."""

    def __init__(self, shift=0, number=400):
        self.x = torch.randn(number, 4, generator=torch.Generator().manual_seed(3))
        self.y = (self.x.argmax(1) + shift) % 3

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.x[index], int(self.y[index])


class Streamed(torch.utils.data.IterableDataset):
    def __init__(self, shift=0):
        self.inner = Labelled(shift)

    def __iter__(self):
        return iter([self.inner[index] for index in range(len(self.inner))])


def more(train, h1, folder, **options):
    return sweep(
        lambda: nn.Linear(4, 3), h1, train, folder=folder, lambdas=[0, 1, 2], losses=["new_error"],
        trainer={"max_epochs": 2, "accelerator": "cpu"}, optimizer=torch.optim.Adam, tensorboard=False,
        progress_bar=False, **options,
    )  # fmt: skip


def test_a_sweep_over_attached_rows_goes_on_with_rows_attached_anew(tmp_path):
    dataset, h1 = Labelled(), nn.Linear(4, 3)
    stored = store_outputs(h1, dataset, tmp_path / "h1")
    assert len(few(DataLoader(stored.attach(dataset), batch_size=10), stored, tmp_path / "s").points) == 2
    opened = StoredOutputs.open(tmp_path / "h1")
    assert len(more(DataLoader(opened.attach(Labelled()), batch_size=10), opened, tmp_path / "s").points) == 3


def test_other_labels_of_a_data_set_of_ones_own_are_another_sweep(tmp_path):
    h1 = nn.Linear(4, 3)
    few(DataLoader(Labelled(), batch_size=10), h1, tmp_path / "s")
    other = Labelled()
    other.y[100:300] = (other.y[100:300] + 1) % 3
    with pytest.raises(ValueError, match="folder of another sweep: train data was"):
        more(DataLoader(other, batch_size=10), h1, tmp_path / "s")
    other.y = Labelled().y.clone()
    # Where a look at a few items does not find it.
    other.y[101:300:2] = (other.y[101:300:2] + 1) % 3
    with pytest.raises(ValueError, match="folder of another sweep, or h1 changed: .*another data set"):
        more(DataLoader(other, batch_size=10), h1, tmp_path / "s")


def test_a_callable_h1_that_answers_otherwise_is_another_sweep(tmp_path):
    class Service:
        def __init__(self, sign):
            self.sign = sign

        def __call__(self, x):
            return self.sign * x[:, :3]

    train = DataLoader(Labelled(), batch_size=10)
    few(train, Service(1.0), tmp_path / "s")
    with pytest.raises(ValueError, match="another sweep: h1 was"):
        more(train, Service(-1.0), tmp_path / "s")
    # A folder that knows it by its name alone, as earlier ones do: its answers tell.
    header = json.loads((tmp_path / "s" / "sweep.json").read_bytes())
    header["recipe"]["h1"] = header["recipe"]["h1"].partition("#")[0]
    (tmp_path / "s" / "sweep.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match="h1 changed"):
        more(train, Service(-1.0), tmp_path / "s")
    assert len(more(train, Service(1.0), tmp_path / "s").points) == 3


def test_labels_that_change_in_a_stream_are_seen_by_h1s_right_answers(tmp_path):
    h1 = nn.Linear(4, 3)
    stream = {shift: DataLoader(Streamed(shift), batch_size=10) for shift in (0, 1)}
    few(stream[0], h1, tmp_path / "s", val=stream[0])
    with pytest.warns(RuntimeWarning, match="1 of 3 points failed.*h1 is right on .* of the val data"):
        found = more(stream[0], h1, tmp_path / "s", val=stream[1])
    assert {row["lambda_c"] for row in found.rows("val")} == {0.0, 1.0}


def test_code_that_changed_is_another_sweep(tmp_path):
    def module(rate):
        class Classifier(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = nn.Linear(4, 3)

            def forward(self, x):
                return self.net(x)

            def training_step(self, batch, batch_idx):
                return nn.functional.cross_entropy(self(batch[0]), batch[1])

            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters(), lr=rate)

        return Classifier

    h1 = nn.Linear(4, 3)

    def run_it(rate):
        return sweep(
            module(rate), h1, batches(0), folder=tmp_path / "s", lambdas=[0, 1], losses=["new_error"],
            trainer={"max_epochs": 1, "accelerator": "cpu"}, tensorboard=False, progress_bar=False,
        )  # fmt: skip

    first = run_it(0.01)
    assert rows_of(run_it(0.01)) == rows_of(first)
    with pytest.raises(ValueError, match="h2 before training was .*code"):
        run_it(0.5)


def test_what_a_trainer_shows_may_change(tmp_path):
    h1, given = nn.Linear(4, 3), {"max_epochs": 1, "accelerator": "cpu"}

    def run_it(trainer):
        return sweep(
            lambda: nn.Linear(4, 3), h1, batches(0), folder=tmp_path / "s", lambdas=[0], losses=["new_error"],
            trainer=trainer, optimizer=torch.optim.Adam, tensorboard=False, progress_bar=False,
        )  # fmt: skip

    assert rows_of(run_it(given)) == rows_of(run_it({**given, "log_every_n_steps": 3, "enable_model_summary": False}))
