"""Weights that are made of others when a network is called: spectral and weight norm, pruning, orthogonal maps."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import BCLightningModule, MeanWeights, ProjectionCallback, blend, interpolate
from bc_lightning.after_training._mixture import Mixture, copy_of


def data(rows=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(1))


def nets(make, seeds=(0, 1)):
    made = []
    for seed in seeds:
        torch.manual_seed(seed)
        made.append(make())
    return made


def half(h1, h2):
    return interpolate(h1, h2, data(), "nfr <= 99%", alphas=[0.5]).model


def trained(net, steps=6, lr=0.3):
    """Some steps of SGD, the last of which leaves what its hooks have computed, with its history."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    x, y = data().tensors
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net


def two(made):
    return [trained(net, steps) for net, steps in zip(nets(made), (3, 6), strict=True)]


def of_layer(made):
    return lambda: nn.Sequential(made(nn.Linear(4, 6)), nn.ReLU(), made(nn.Linear(6, 3)))


def weight_of(layer):
    """As it is when the layer is called, read off its answers."""
    with torch.no_grad():
        return (layer(torch.eye(layer.in_features)) - layer(torch.zeros(1, layer.in_features))).T


@pytest.mark.parametrize("normed", [parametrizations.spectral_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_between_two_weights_a_spectral_norm_is_that_of_the_mixed_weight(normed, alpha):
    h1, h2 = two(of_layer(normed))
    before = copy.deepcopy([dict(net.state_dict()) for net in (h1, h2)])
    mixed = interpolate(h1, h2, data(), "nfr <= 99%", alphas=[alpha]).model
    name = "weight_orig" if normed is nn.utils.spectral_norm else "parametrizations.weight.original"
    for place in (0, 2):
        first, second = (dict(net[place].named_parameters())[name].detach() for net in (h1, h2))
        between = alpha * first + (1 - alpha) * second
        torch.testing.assert_close(weight_of(mixed[place]), between / torch.linalg.matrix_norm(between, 2))
        torch.testing.assert_close(mixed[place].weight.detach(), weight_of(mixed[place]))
    torch.testing.assert_close([dict(net.state_dict()) for net in (h1, h2)], before, rtol=0, atol=0)


@pytest.mark.parametrize("normed", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_vectors_at_a_right_angle_to_those_of_the_mixed_weight_are_no_trap(normed):
    h1, h2 = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    for net, values in ((h1, (3.0, 1.0)), (h2, (1.0, 2.0))):
        net.weight.data = torch.diag(torch.tensor(values))
        normed(net)
        for _ in range(50):
            net(torch.ones(1, 2))
    x = torch.eye(2).repeat(100, 1)
    mixed = interpolate(h1, h2, TensorDataset(x, x.argmax(1)), "nfr <= 99%", alphas=[0.75]).model
    torch.testing.assert_close(weight_of_plain(mixed), torch.diag(torch.tensor([2.5, 1.25])) / 2.5)


def weight_of_plain(layer):
    with torch.no_grad():
        return layer(torch.eye(layer.in_features)).T


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("normed", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_at_either_end_the_network_is_h1_or_h2_to_the_bit(normed, share):
    h1, h2 = two(of_layer(normed))
    mixture = Mixture(h1, h2, copy_of(h2), data(), None, {})
    mixture.mix(0.5)
    mixture.mix(share)
    torch.testing.assert_close(mixture.result().state_dict(), (h1 if share else h2).state_dict(), rtol=0, atol=0)


def test_by_layer_the_vectors_of_a_layer_that_is_one_models_own_are_its_own():
    h1, h2 = two(of_layer(parametrizations.spectral_norm))
    mixture = Mixture(h1, h2, copy_of(h2), data(), None, {})
    assert mixture.layers == ["0", "2"]
    mixture.mix({"0": 1.0, "2": 0.5})
    mixed = mixture.result()
    torch.testing.assert_close(mixed[0].state_dict(), h1[0].state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(torch.linalg.matrix_norm(weight_of(mixed[2]), 2), torch.tensor(1.0))


def pruned(layer):
    torch.manual_seed(layer.in_features)
    return prune.random_unstructured(layer, "weight", 5)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("made", [nn.utils.weight_norm, parametrizations.weight_norm, pruned])
def test_what_a_weight_is_made_of_is_mixed(made):
    h1, h2 = two(of_layer(made))
    mixed = half(h1, h2)
    for place in (0, 2):
        first, second, between = (dict(net[place].named_parameters()) for net in (h1, h2, mixed))
        for name, value in between.items():
            torch.testing.assert_close(value, (first[name] + second[name]) / 2)
        torch.testing.assert_close(mixed[place].weight.detach(), weight_of(mixed[place]))


def test_masks_and_bases_that_differ_are_refused_and_the_remedy_works():
    def orthogonal(layer):
        return parametrizations.orthogonal(layer)

    def otherwise_pruned(layer):
        return prune.l1_unstructured(layer, "weight", 5)

    for made, name in ((orthogonal, "base"), (otherwise_pruned, "weight_mask")):
        h1, h2 = two(of_layer(made))
        with pytest.raises(ValueError, match=rf"differ in '0\.\S*{name}', .* between whose values nothing lies.*blend"):
            half(h1, h2)
        assert blend(h1, h2, data(), "nfr <= 99%").promise.verdict == "met"


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("normed", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_models_that_older_hooks_have_left_a_history_in_are_blended(normed):
    h1, h2 = two(of_layer(normed))
    x = data().tensors[0]
    found = blend(h1, h2, data(), "nfr <= 99%", weight=0.25)
    said = [net.eval()(x).softmax(1) for net in (h1, h2)]
    torch.testing.assert_close(found.model(x).exp(), 0.25 * said[0] + 0.75 * said[1])


@pytest.mark.parametrize("normed", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_a_projected_training_goes_on_from_a_weight_of_its_own_norm(normed):
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = h2

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    h1, h2 = two(lambda: normed(nn.Linear(4, 3)))
    module = Module()
    callback = ProjectionCallback(h1, data(), "nfr <= 5.5%", alphas=[0.25, 0.5, 0.75])
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[callback], **off).fit(module, DataLoader(data(60), 10))
    assert callback.history == [0.5, 0.0]
    torch.testing.assert_close(torch.linalg.matrix_norm(weight_of(module.net.eval()), 2), torch.tensor(1.0))


@pytest.mark.parametrize("normed", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_a_mean_of_weights_has_the_spectral_norm_of_the_mean(normed):
    h1, h2 = nets(of_layer(normed))
    module = BCLightningModule(h2, h1=h1, loss="imitation", optimizer=lambda given: torch.optim.SGD(given, lr=1.0))
    trainer = pl.Trainer(
        max_epochs=4,
        callbacks=[MeanWeights(first_epoch=0)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data(), batch_size=100))
    name = "weight_orig" if normed is nn.utils.spectral_norm else "parametrizations.weight.original"
    for place in (0, 2):
        mean = dict(h2[place].named_parameters())[name].detach()
        torch.testing.assert_close(weight_of(h2[place].eval()), mean / torch.linalg.matrix_norm(mean, 2))
