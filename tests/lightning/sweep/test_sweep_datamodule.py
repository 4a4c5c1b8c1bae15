"""Sweeps over a LightningDataModule: the same data at every point, through the module's own hooks."""

import random
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from user_code import CLASSES, FEATURES, dataset, make_h1, make_trainer

from bc_core import SweepResults, compare
from bc_lightning import BCLightningModule, sweep, unwrap

TRAIN, VAL, TEST = dataset(96), dataset(40, seed=1), dataset(56, seed=2)
SCORES = ("instances", "btc", "nfr", "accuracy_h1", "accuracy_h2")


class Small(pl.LightningModule):
    """A classifier with dropout, so that random numbers matter."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self(x), y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class TrainOnly(pl.LightningDataModule):
    """A data module that makes its data sets in `setup`, as Lightning asks, and notes what is called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def prepare_data(self):
        self.calls.append("prepare_data")

    def setup(self, stage):
        self.calls.append(stage)
        if stage == "fit":
            self.train_set, self.val_set = TRAIN, VAL
        if stage == "test":
            self.test_set = TEST

    def train_dataloader(self):
        return DataLoader(self.train_set, batch_size=16, shuffle=True)


class WithoutTest(TrainOnly):
    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=16)


class Whole(WithoutTest):
    def test_dataloader(self):
        return DataLoader(self.test_set, batch_size=16)


class WithoutVal(TrainOnly):
    def test_dataloader(self):
        return DataLoader(self.test_set, batch_size=16)


def loaders(train=TRAIN):
    return {
        "train": DataLoader(train, batch_size=16, shuffle=True),
        "val": DataLoader(VAL, batch_size=16),
        "test": DataLoader(TEST, batch_size=16),
    }


def run(data, folder, h2=Small, **options):
    given = {
        "lambdas": [0, 2],
        "losses": ["new_error"],
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "progress_bar": False,
        "tensorboard": False,
        **options,
    }
    return sweep(h2, make_h1(), data, folder=folder, **given)


def rows_of(found):
    """The table without the times."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows()]


def weights_of(found, lambda_c, seed=0):
    return torch.load(found.model_path("new_error", lambda_c, seed=seed))


def assert_same_weights(first, second, atol=0.0):
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=atol)


def seeded(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def by_hand(lambda_c, data_module, root, h2=Small):
    """The same point, as a Trainer trains it on a data module."""
    h1 = make_h1()  # draws random numbers itself
    seeded(0)
    module = BCLightningModule(h2(), h1=h1, loss="BCCrossEntropyLoss", lambda_c=lambda_c, comparisons=False)
    make_trainer(root).fit(module, datamodule=data_module)
    return unwrap(module).eval()


# Which data there are


def test_a_data_module_is_the_same_as_its_loaders(tmp_path):
    found = run(Whole(), tmp_path / "module")
    given = loaders()
    wanted = run(given["train"], tmp_path / "loaders", val=given["val"], test=given["test"])
    assert [row["dataset"] for row in found.rows() if row["lambda_c"] == 2] == ["train", "val", "test"]
    for ours, theirs in zip(found.rows(), wanted.rows(), strict=True):
        assert {name: ours[name] for name in SCORES} == {name: theirs[name] for name in SCORES}
    for lambda_c in (0, 2):
        # Kept scores of h1, which loaders are given with, are of another batch size: sums in another order.
        assert_same_weights(weights_of(found, lambda_c), weights_of(wanted, lambda_c), atol=1e-5)
    # Ids are positions in the data set, although the training data are shuffled.
    x, y = TRAIN.tensors
    h2 = Small().eval()
    h2.load_state_dict(weights_of(found, 2))
    with torch.no_grad():
        expected = compare(y, make_h1()(x).argmax(1), h2(x).argmax(1), num_classes=CLASSES)
    comparison = found.comparison("new_error", 2, dataset="train")
    assert comparison.overlap == expected.overlap
    assert comparison.instances.ids.tolist() == expected.instances.ids.tolist()


# Lightning's own `test_dataloader` raises where a module has none: that is no test data, as where none are given.
def test_without_test_data_there_are_none(tmp_path):
    found = run(WithoutTest(), tmp_path / "module")
    given = loaders()
    wanted = run(given["train"], tmp_path / "loaders", val=given["val"])
    assert [row["dataset"] for row in found.rows()] == [row["dataset"] for row in wanted.rows()]
    assert {row["dataset"] for row in found.rows()} == {"train", "val"}
    assert found.best("btc >= 0%").lambda_c == wanted.best("btc >= 0%").lambda_c
    assert_same_weights(weights_of(found, 2), weights_of(wanted, 2), atol=1e-5)


@pytest.mark.parametrize(("module", "names"), [(WithoutVal, ["train", "test"]), (TrainOnly, ["train"])])
def test_without_validation_data_there_are_none(tmp_path, module, names):
    found = run(module(), tmp_path / "module", lambdas=[2])
    assert [row["dataset"] for row in found.rows()] == names
    given = loaders()
    wanted = run(given["train"], tmp_path / "loaders", test=given["test"], lambdas=[2])
    assert_same_weights(weights_of(found, 2), weights_of(wanted, 2), atol=1e-5)


@pytest.mark.parametrize("nothing", [None, []])
def test_a_loader_that_is_none_is_none(tmp_path, nothing):
    class Empty(Whole):
        def test_dataloader(self):
            return nothing

    found = run(Empty(), tmp_path / "s", lambdas=[0])
    assert [row["dataset"] for row in found.rows()] == ["train", "val"]


class Failing(Whole):
    def test_dataloader(self):
        raise FileNotFoundError("test.csv is not there")


def test_an_error_in_a_loader_of_the_callers_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="test.csv is not there"):
        run(Failing(), tmp_path / "s")


def test_data_are_prepared_once_and_set_up_by_stage(tmp_path):
    module = Whole()
    run(module, tmp_path / "s", lambdas=[0, 1, 2])
    assert module.calls == ["prepare_data", "fit", "test"]
    # Without test data there is nothing to set up for them.
    module = WithoutTest()
    run(module, tmp_path / "without", lambdas=[0, 1])
    assert module.calls[:2] == ["prepare_data", "fit"]
    assert module.calls.count("fit") == 1


def test_other_data_beside_a_data_module_are_refused(tmp_path):
    with pytest.raises(TypeError, match="leave out val and test"):
        run(Whole(), tmp_path / "s", val=loaders()["val"])
    assert not (tmp_path / "s").exists()


def test_the_callers_data_module_works_afterwards(tmp_path):
    module = Whole()
    run(module, tmp_path / "s", lambdas=[0])
    assert module.trainer is None
    model = by_hand(1.0, module, tmp_path)
    assert_same_weights(model.state_dict(), by_hand(1.0, Whole(), tmp_path).state_dict())


# A setup that draws random numbers


class Split(pl.LightningDataModule):
    """Draws its validation data from the global generators, as most do."""

    def setup(self, stage):
        self.train_set, self.val_set = random_split(TRAIN, [64, 32])

    def train_dataloader(self):
        return DataLoader(self.train_set, batch_size=16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=16)


class Noting(Small):
    """Notes the rows that a training sees."""

    trainings = []  # noqa: RUF012 - shared by all that are made

    def on_train_start(self):
        Noting.trainings.append(set())

    def training_step(self, batch, batch_idx):
        Noting.trainings[-1] |= set(batch[0][:, 0].tolist())
        return super().training_step(batch, batch_idx)


def test_a_random_split_is_the_same_at_every_point_and_seed(tmp_path):
    Noting.trainings.clear()
    found = run(Split(), tmp_path / "s", Noting, lambdas=[0, 1, 2], seeds=[0, 1])
    assert len(Noting.trainings) == 6
    assert len(Noting.trainings[0]) == 64
    assert all(seen == Noting.trainings[0] for seen in Noting.trainings)
    # What is compared is what was trained on, and the rest of it.
    assert {(row["dataset"], row["instances"]) for row in found.rows()} == {("train", 64), ("val", 32)}
    accuracies = {(row["dataset"], row["accuracy_h1"]) for row in found.rows()}
    assert len(accuracies) == 2
    rows = torch.tensor([value in Noting.trainings[0] for value in TRAIN.tensors[0][:, 0].tolist()])
    x, y = TRAIN.tensors
    with torch.no_grad():
        right = make_h1()(x).argmax(1) == y
    assert accuracies == {
        ("train", right[rows].double().mean().item()), ("val", right[~rows].double().mean().item()),
    }  # fmt: skip


def test_points_of_a_random_split_get_the_same_batches_in_the_same_order(tmp_path):
    found = run(Split(), tmp_path / "s", lambdas=[1e-12, 2e-12])
    # So small a lambda_c changes nothing in float32: other batches would.
    assert_same_weights(weights_of(found, 1e-12), weights_of(found, 2e-12))


def test_a_random_split_is_the_same_after_an_interruption_wherever_the_callers_generators_are(tmp_path):
    seeded(1)
    whole = run(Split(), tmp_path / "whole", lambdas=[0, 1, 2])
    for number, lambdas in enumerate(([0], [0, 2], [0, 1, 2])):
        seeded(10 + number)
        parts = run(Split(), tmp_path / "parts", lambdas=lambdas)
    assert rows_of(parts) == rows_of(whole)


def test_the_callers_random_numbers_go_on_undisturbed_by_a_setup(tmp_path):
    def drawn():
        return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002

    h1 = make_h1()  # draws random numbers itself
    seeded(5)
    expected = drawn()
    seeded(5)
    sweep(
        Small, h1, Split(), folder=tmp_path / "s", lambdas=[0], trainer={"max_epochs": 1, "accelerator": "cpu"},
        progress_bar=False, tensorboard=False,
    )  # fmt: skip
    assert drawn() == expected


@pytest.fixture
def _travelling_tests():
    """This file is no module that a worker could import."""
    cloudpickle = pytest.importorskip("cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow
@pytest.mark.usefixtures("_travelling_tests")
def test_processes_draw_the_same_split(tmp_path):
    pytest.importorskip("loky")
    here = run(Split(), tmp_path / "here")
    there = run(Split(), tmp_path / "there", engine="processes", workers=1)
    assert rows_of(there) == rows_of(here)


# Hooks that change the batch


def doubled(batch):
    return [batch[0] * 2 + 1, batch[1]]


class AfterTransfer(Whole):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return doubled(batch)


class BeforeTransfer(Whole):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return doubled(batch)


class Transfer(Whole):
    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return super().transfer_batch_to_device(doubled(batch), device, dataloader_idx)


class OfTheModel(Small):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return doubled(batch)


@pytest.mark.parametrize(
    ("data_module", "h2"),
    [(AfterTransfer, Small), (BeforeTransfer, Small), (Transfer, Small), (Whole, OfTheModel)],
    ids=["after", "before", "transfer", "the model's own"],
)
def test_batches_go_through_transfer_hooks_in_training_and_in_comparisons(tmp_path, data_module, h2):
    found = run(data_module(), tmp_path / "s", h2, lambdas=[2])
    expected = by_hand(2, data_module(), tmp_path, h2)
    assert_same_weights(weights_of(found, 2), expected.state_dict(), atol=1e-5)
    for name, data in {"train": TRAIN, "val": VAL, "test": TEST}.items():
        x, y = doubled(data.tensors)
        with torch.no_grad():
            wanted = compare(y, make_h1()(x).argmax(1), expected(x).argmax(1), num_classes=CLASSES)
            untouched = compare(y, make_h1()(x).argmax(1), expected(data.tensors[0]).argmax(1), num_classes=CLASSES)
        overlap = found.comparison("new_error", 2, dataset=name).overlap
        assert overlap == wanted.overlap
        # It would show if the hook were left out.
        assert wanted.overlap != untouched.overlap


def test_a_hook_of_the_model_with_loaders_is_the_same_as_in_the_data_set(tmp_path):
    given = loaders()
    hooked = run(given["train"], tmp_path / "hooked", OfTheModel, val=given["val"], test=given["test"])
    inside = {name: TensorDataset(*doubled(data.tensors)) for name, data in (("t", TRAIN), ("v", VAL), ("e", TEST))}
    wanted = run(
        DataLoader(inside["t"], batch_size=16, shuffle=True), tmp_path / "inside", val=DataLoader(inside["v"], 16),
        test=DataLoader(inside["e"], 16),
    )  # fmt: skip
    for ours, theirs in zip(hooked.rows(), wanted.rows(), strict=True):
        assert {name: ours[name] for name in SCORES} == {name: theirs[name] for name in SCORES}
    assert_same_weights(weights_of(hooked, 2), weights_of(wanted, 2), atol=1e-5)


class Augmenting(Whole):
    """Noise in training alone, as Lightning's documentation of the hook has it."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return [x + 3 * torch.randn_like(x), y] if self.trainer.training else batch


def test_a_hook_that_augments_in_training_alone_leaves_comparisons_alone(tmp_path):
    found = run(Augmenting(), tmp_path / "s", lambdas=[2])
    h2 = by_hand(2, Augmenting(), tmp_path)
    assert_same_weights(weights_of(found, 2), h2.state_dict(), atol=1e-5)
    for name, data in {"train": TRAIN, "val": VAL, "test": TEST}.items():
        x, y = data.tensors
        with torch.no_grad():
            wanted = compare(y, make_h1()(x).argmax(1), h2(x).argmax(1), num_classes=CLASSES)
        assert found.comparison("new_error", 2, dataset=name).overlap == wanted.overlap


def test_the_same_sweep_is_taken_up_and_another_data_module_is_refused(tmp_path):
    first = rows_of(run(Whole(), tmp_path / "s"))
    assert rows_of(run(Whole(), tmp_path / "s")) == first
    assert len(SweepResults.open(tmp_path / "s").points) == 2

    class Other(Whole):
        def setup(self, stage):
            super().setup(stage)
            self.train_set = dataset(96, seed=9)

    with pytest.raises(ValueError, match="train data was"):
        run(Other(), tmp_path / "s")


class InLists(Split):
    """Gives its loaders in lists, as Lightning lets it."""

    def val_dataloader(self):
        return [super().val_dataloader()]


def test_a_list_of_one_loader_is_that_loader(tmp_path):
    found = run(InLists(), tmp_path / "list", lambdas=[1])
    alone = run(Split(), tmp_path / "alone", lambdas=[1])
    assert rows_of(found) == rows_of(alone)


def test_several_loaders_of_one_kind_are_refused(tmp_path):
    class Two(Split):
        def val_dataloader(self):
            return [super().val_dataloader()] * 2

    with pytest.raises(TypeError, match="val must be one data loader. Received from val_dataloader: 2 of them"):
        run(Two(), tmp_path / "s", lambdas=[1])


class OwnGenerator(pl.LightningDataModule):
    """Shuffles, and splits, by a generator of its own."""

    def __init__(self):
        super().__init__()
        self.random = torch.Generator().manual_seed(5)

    def setup(self, stage):
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        data = TensorDataset(x, x.argmax(1) % 3)
        self.part, self.rest = torch.utils.data.random_split(data, [40, 20], generator=self.random)

    def train_dataloader(self):
        return DataLoader(self.part, batch_size=10, shuffle=True, generator=self.random)

    def val_dataloader(self):
        return DataLoader(self.rest, batch_size=10)


def test_a_generator_of_the_data_module_begins_anew_at_every_point_and_call(tmp_path):
    torch.manual_seed(0)
    h1 = nn.Linear(4, 3)

    def run_it(data, folder, lambdas):
        found = sweep(
            lambda: nn.Linear(4, 3), h1, data, folder=tmp_path / folder, lambdas=lambdas, losses=["new_error"],
            trainer={"max_epochs": 2, "accelerator": "cpu"}, optimizer=torch.optim.Adam, tensorboard=False,
            progress_bar=False,
        )  # fmt: skip
        return torch.load(found.model_path("new_error", 2.0))

    data = OwnGenerator()
    after_others = run_it(data, "all", [0, 1, 2])
    # The same object again, and a new one: alone, so that none was trained before.
    for again in (run_it(data, "again", [2]), run_it(OwnGenerator(), "new", [2])):
        for key, value in after_others.items():
            assert torch.equal(value, again[key])
