"""Two models under the same transformations: what they are given, and what is left as it was."""

import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_core.invariance import TransformSet, compare_predictions, make_tile
from bc_lightning import BCLightningModule, Reference, unwrap
from bc_lightning.invariance import InvarianceCallback, TorchSpatial, compare_invariance, measure

C4 = TransformSet.c4()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def images(n=40):
    return torch.randn(n, 1, 8, 8)


def net(classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes)).eval()


def test_a_transformation_that_draws_random_numbers_is_the_same_for_both():
    noise = TransformSet.from_functions({"noise": lambda x: x + torch.randn_like(x)})
    h1 = net()
    update = compare_invariance(h1, h1, images(), TransformSet.identity() | noise)
    # A network compared with itself: every difference comes from what the two were given.
    assert update.negative_flip_rate == 0
    assert update.consistency_h1 < 1
    assert [row["difference"] for row in update.depth_table()] == [0.0] * len(update.depth_table())


def test_a_network_that_begins_in_place_leaves_the_other_its_inputs():
    h1 = nn.Sequential(nn.ReLU(inplace=True), net())
    h2 = net()
    x = images()
    update = compare_invariance(h1, h2, x, C4, layers=[])
    tile = make_tile(C4, x, ops=TorchSpatial())
    with torch.no_grad():
        expected = compare_predictions(
            h1(tile.clone()).argmax(1).reshape(40, 4).numpy(), h2(tile).argmax(1).reshape(40, 4).numpy(), transforms=C4
        )
    assert (update.h1_pred == expected.h1_pred).all()
    assert (update.h2_pred == expected.h2_pred).all()


class Recurrent(nn.Module):
    """Its state has the layers in front, and the inputs behind them."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 5, num_layers=2, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.lstm(x[:, 0])[0][:, -1])


@pytest.mark.parametrize("batch_size", [1, 256])
def test_an_axis_as_long_as_the_transformations_is_not_taken_for_the_inputs(batch_size):
    # Two layers and two transformations: the state of one sample has shape (2, 2, 5).
    flips = TransformSet.identity() | TransformSet.from_functions({"flip": lambda x: x.flip(-1)})
    result = measure(Recurrent(), images(), flips, batch_size=batch_size)
    assert result.layer_names == ("lstm[0]", "out")
    assert {"lstm[1][0]", "lstm[1][1]"} <= set(result.left_out)
    assert "for 3 inputs has no axis of theirs in front" in result.left_out["lstm[1][0]"]
    with pytest.raises(ValueError, match=r"'lstm\[1\]\[0\]' cannot be measured"):
        measure(Recurrent(), images(), flips, layers=["lstm[1][0]"])


def test_random_numbers_are_the_callers():
    loader = DataLoader(TensorDataset(images(), torch.arange(40) % 3), batch_size=8, shuffle=True)
    model = net()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    measure(model, loader, C4)
    compare_invariance(model, model, loader, C4)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]  # noqa: NPY002


def test_a_reference_without_layers_is_refused():
    with pytest.raises(TypeError, match=r"h1: expected a torch\.nn\.Module"):
        compare_invariance(Reference(lambda x: x.flatten(1)), net(), images(), C4)


def test_a_function_that_changes_its_input_is_caught():
    own = TransformSet.from_functions({"doubled": lambda x: x.mul_(2)})
    with pytest.raises(ValueError, match="'doubled' changed its input in place"):
        measure(net(), images(), own)


def test_a_scripted_module_is_refused():
    with pytest.raises(TypeError, match="module: a scripted module cannot be watched"):
        measure(torch.jit.script(net()), images(), C4)


class Binary(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.binary_cross_entropy_with_logits(self(batch["x"]), batch["y"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def test_a_wrapped_update_is_read_as_it_is_trained():
    batches = [{"x": images(), "y": (torch.arange(40) % 2).float()[:, None]}]
    h1 = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    h2 = BCLightningModule(
        Binary(), h1=h1, loss="BCBinaryCrossEntropyLoss", lambda_c=1.0, inputs="x", target="y",
        loss_options={"from_logits": True},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"probabilities in 0\.\.1 were expected"):
        compare_invariance(h1, h2, batches, C4, from_logits=False)
    found = compare_invariance(h1, h2, batches, C4)
    told = {"inputs": "x", "target": "y", "from_logits": True}
    assert found.table() == compare_invariance(h1, unwrap(h2), batches, C4, **told).table()
    row = found.depth_table()[-1]
    assert row["layer"] == "net.1"
    assert np.isfinite(row["difference"])


def test_several_labels_are_no_class():
    h1 = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    h2 = BCLightningModule(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), h1=h1, loss="BCBinaryCrossEntropyLoss", lambda_c=1.0,
        optimizer=torch.optim.Adam,
    )  # fmt: skip
    with pytest.raises(ValueError, match="got 3 labels"):
        compare_invariance(h1, h2, images(), C4, layers=[])


def test_what_does_not_fit_is_told_before_the_first_epoch():
    h1, x = net(), images()
    trained = []

    class Classifier(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            trained.append(batch_idx)
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    def fit(watch):
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[watch],
        )  # fmt: skip
        trainer.fit(Classifier(), DataLoader(TensorDataset(x, torch.arange(40) % 3), batch_size=20))

    with pytest.raises(ValueError, match="layers: no layer 'conv'"):
        fit(InvarianceCallback(h1, x, C4, layers=["conv"]))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(InvarianceCallback(h1, DataLoader(torch.randn(10, 1, 4, 4)), C4))
    assert not trained
    watch = InvarianceCallback(h1, DataLoader(x, batch_size=16), C4)
    fit(watch)
    assert trained
    assert [epoch for epoch, _ in watch.history] == [0]


def test_arrays_of_numpy_are_brought_to_the_type_of_the_network():
    x = images()
    assert measure(net(), x.double().numpy(), C4)["1"].features == 16
    double = net().double()
    assert measure(double, x.double().numpy(), C4)["1"].summary() > 0


def test_layers_of_a_network_inside_of_the_other_are_probed_by_the_same_units():
    # 576 units, of which 256 are chosen by the layer's name.
    inner = nn.Sequential(nn.Conv2d(1, 16, 3), nn.Flatten(), nn.Linear(576, 3)).eval()

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = inner

        def forward(self, x):
            return self.net(x)

    update = compare_invariance(inner, Outer(), images(), C4)
    row = update.depth_table()[0]
    assert row["layer"] == "net.0"
    assert row["difference_interval"] == (0.0, 0.0)
