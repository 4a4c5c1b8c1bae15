"""Weights mixed in torch: what its networks hold beside plain weights, and a Trainer around them."""

import copy
import logging

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import (
    BCLightningModule,
    MeanWeights,
    ProjectionCallback,
    Reference,
    blend,
    evaluate,
    interpolate,
    warm_start,
)
from bc_lightning.after_training._mixture import Mixture, copy_of
from bc_lightning.training._wrapped import compatibilities_of


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


def half(h1, h2, **options):
    return interpolate(h1, h2, data(), "nfr <= 99%", alphas=[0.5], **options).model


class Tied(nn.Module):
    """An encoder and a decoder of one matrix."""

    def __init__(self, tied=True):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        if tied:
            self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.first(x).relu())


def test_tied_weights_stay_tied():
    h1, h2 = nets(Tied)
    mixed = half(h1, h2)
    assert mixed.last.weight is mixed.first.weight
    torch.testing.assert_close(mixed.first.weight, (h1.first.weight + h2.first.weight) / 2)


def test_a_tied_weight_has_one_share_by_layer():
    h1, h2 = nets(lambda: nn.Sequential(nn.Linear(4, 4), Tied()))
    mixture = Mixture(h1, h2, copy_of(h2), data(), None, {})
    assert mixture.layers == ["0", "1.first"]
    mixture.mix({"0": 0.25, "1.first": 0.75})
    mixed = mixture.result()
    torch.testing.assert_close(mixed[0].bias, 0.25 * h1[0].bias + 0.75 * h2[0].bias)
    torch.testing.assert_close(mixed[1].last.weight, 0.75 * h1[1].last.weight + 0.25 * h2[1].last.weight)


def test_refuses_weights_tied_in_one_alone():
    h1, h2 = Tied(tied=False), Tied()
    with pytest.raises(ValueError, match=r"last\.weight \(h1: the tensor of last\.weight, h2: the tensor of first"):
        half(h1, h2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_of_h2_and_no_rounding_on_the_way(dtype):
    h1, h2 = nets(lambda: nn.Linear(4, 3))
    h2.to(dtype)
    mixture = Mixture(h1, h2, copy_of(h2), data(), None, {})
    mixture.mix(0.5)
    mixed = mixture.result()
    expected = (0.5 * h1.weight.double() + 0.5 * h2.weight.double()).to(dtype)
    assert mixed.weight.dtype == dtype
    torch.testing.assert_close(mixed.weight, expected, rtol=torch.finfo(dtype).eps, atol=0)


class WithBuffers(nn.Module):
    """A float buffer that is not saved, and one of whole numbers."""

    def __init__(self, places=(0, 1, 2, 3), scale=1.0):
        super().__init__()
        self.register_buffer("places", torch.tensor(places))
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.net = nn.Linear(4, 3)

    def forward(self, x):
        return self.net(x[:, self.places] * self.scale)


def test_buffers_are_mixed_and_whole_numbers_kept_or_refused():
    mixed = half(WithBuffers(scale=1.0), WithBuffers(scale=2.0))
    assert (mixed.scale.item(), mixed.places.tolist()) == (1.5, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="differ in 'places', a buffer of torch.int64.*blend"):
        half(WithBuffers(), WithBuffers(places=(3, 2, 1, 0)))


def test_refuses_an_embedding_of_another_size_and_other_layers():
    with pytest.raises(ValueError, match=r"0\.weight \(h1: \(10, 4\), h2: \(12, 4\)\)"):
        half(nn.Sequential(nn.Embedding(10, 4)), nn.Sequential(nn.Embedding(12, 4)))
    first, second = (nn.Sequential(nn.Linear(4, 3), kind(), nn.Linear(3, 3)) for kind in (nn.ReLU, nn.Tanh))
    with pytest.raises(ValueError, match=r"1 \(h1: ReLU\(\), h2: Tanh\(\)\)"):
        half(first, second)
    with pytest.raises(ValueError, match="lazy layers"):
        half(nn.LazyLinear(3), nn.LazyLinear(3))


def test_dropout_of_another_rate_is_no_other_architecture():
    h1, h2 = (nn.Sequential(nn.Linear(4, 3), nn.Dropout(rate)) for rate in (0.1, 0.5))
    torch.testing.assert_close(half(h1, h2)[0].weight, (h1[0].weight + h2[0].weight) / 2)


def test_statistics_with_dropout_are_those_without_it():
    """An oracle with dropout in eval mode: torch's own has it at work."""

    def make():
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    h1, h2 = nets(make)
    for each in (h1, h2):
        each(torch.randn(32, 4))  # moves the statistics apart
    h2[2].momentum = 0.3
    loader = DataLoader(data(), 50)
    mixed = half(h1, h2, statistics=loader)
    by_hand = copy.deepcopy(mixed)
    by_hand[1] = nn.Identity()
    torch.optim.swa_utils.update_bn(loader, by_hand)
    torch.testing.assert_close(mixed[2].running_var, by_hand[2].running_var)
    torch.testing.assert_close(mixed[2].running_mean, by_hand[2].running_mean)
    assert mixed[2].momentum == 0.3
    assert not any(layer.training for layer in mixed)
    assert all(layer.training for layer in h2)
    # Inputs alone will do.
    alone = half(h1, h2, statistics=DataLoader(data().tensors[0], 50))
    torch.testing.assert_close(mixed[2].running_var, alone[2].running_var)


def test_statistics_that_were_frozen_in_both_stay():
    h1, h2 = nets(lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    for each in (h1, h2):
        each[1].running_mean.fill_(0.5)
    assert half(h1, h2)[1].running_mean.eq(0.5).all()


def test_statistics_without_a_batch_are_refused():
    h1, h2 = nets(lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    h1(torch.randn(32, 4))
    with pytest.raises(ValueError, match="at least one batch"):
        half(h1, h2, statistics=[])
    with pytest.raises(TypeError, match="got tensors themselves; pass TensorDataset"):
        half(h1, h2, statistics=data().tensors[0])


class Classifier(pl.LightningModule):
    """A user's own module around a network."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Linear(4, 3)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


def trainer(**options):
    given = {"enable_checkpointing": False, "max_epochs": 1} | options
    return pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", **given)


def test_a_trained_and_wrapped_h2_gives_the_users_own_module():
    """h1 is the plain network inside; the Trainer is not copied along."""
    h1, h2 = nn.Linear(4, 3), Classifier()
    module = BCLightningModule(h2, h1=h1, lambda_c=1.0)
    trainer().fit(module, DataLoader(data(), 50))
    mixed = half(h1, module)
    assert type(mixed) is Classifier
    assert mixed._trainer is None
    assert module._trainer is not None
    torch.testing.assert_close(mixed.net.weight, (h1.weight + module.net.weight) / 2)


def test_projection_comes_before_validation_and_checkpoints(tmp_path):
    """What is saved keeps the promise too."""
    h1 = Classifier(3)
    trainer().fit(h1, DataLoader(data(40), 10))
    h2 = Classifier(1)
    h1 = h1.net.eval()
    warm_start(h2, h1)
    seen = []

    class Module(Classifier):
        def validation_step(self, batch, batch_idx):
            seen.append(self.net.weight.clone())

    module = Module(1)
    warm_start(module, h1)
    held_out = DataLoader(data(2000, 5), 500)
    callback = ProjectionCallback(h1, held_out, "nfr <= 1%")
    saving = pl.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1)
    train = TensorDataset(*(part[:60] for part in data(60, 9).tensors))
    trainer(max_epochs=3, callbacks=[callback, saving], enable_checkpointing=True, num_sanity_val_steps=0).fit(
        module, DataLoader(train, 10), DataLoader(data(20), 20)
    )
    assert len(callback.history) == 3
    assert any(callback.history)
    files = sorted(tmp_path.glob("*.ckpt"))
    assert len(files) == 3
    for file, weight in zip(files, seen, strict=True):
        saved = torch.load(file, weights_only=True)["state_dict"]
        assert torch.equal(saved["net.weight"], weight)
        h2.load_state_dict(saved)
        assert evaluate(h1, h2, held_out).comparison.overlap.gate("nfr", 0.01) == "pass"


def test_projection_asks_for_statistics_before_the_first_epoch():
    class Normalised(Classifier):
        def __init__(self, seed=0):
            super().__init__(seed)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))

    h1, module = Normalised(), Normalised(1)
    warm_start(module, h1)  # the same statistics, until the first step
    loader = DataLoader(data(), 50)
    with pytest.raises(ValueError, match="statistics="):
        trainer(callbacks=[ProjectionCallback(h1, data(), "nfr <= 99%")]).fit(module, loader)
    callback = ProjectionCallback(h1, data(), "nfr <= 99%", statistics=loader)
    trainer(callbacks=[callback]).fit(module, loader)
    assert callback.verdict.verdict == "met"


def test_projection_every_other_epoch_and_other_arguments():
    h1, module = nn.Linear(4, 3), Classifier()
    callback = ProjectionCallback(h1, data(), "nfr <= 99%", every=2)
    trainer(max_epochs=5, callbacks=[callback]).fit(module, DataLoader(data(), 100))
    assert len(callback.history) == 3  # at the end too
    stopped = ProjectionCallback(h1, data(), "nfr <= 99%")
    trainer(max_epochs=-1, max_steps=6, callbacks=[stopped]).fit(module, DataLoader(data(), 100))
    assert len(stopped.history) == 2  # after an epoch of four steps, and after the last two
    with pytest.raises(ValueError, match="every must be"):
        ProjectionCallback(h1, data(), "nfr <= 1%", every=0)
    with pytest.raises(TypeError, match="data is missing"):
        ProjectionCallback(h1, None, "nfr <= 1%")
    with pytest.raises(TypeError, match="h1 must be a module"):
        ProjectionCallback(len, data(), "nfr <= 1%")


# The start


def test_a_network_inside_of_a_module_is_found(caplog):
    net, module = nn.Linear(4, 3), Classifier()
    report = warm_start(module, net)
    assert report.copied == ("net.weight", "net.bias")
    assert torch.equal(module.net.weight, net.weight)
    assert warm_start(nn.Linear(4, 3), module).copied == ("weight", "bias")


def test_warm_start_is_said_and_works_under_an_optimiser():
    h1, h2 = nn.Linear(4, 3), nn.Linear(4, 3)
    optimizer = torch.optim.SGD(h2.parameters(), lr=0.1)
    module = BCLightningModule(h2, h1=h1, start_from="h1", optimizer=optimizer)
    assert torch.equal(h2.weight, h1.weight)
    trainer().fit(module, DataLoader(data(), 50))
    assert not torch.equal(h2.weight, h1.weight)
    adam = torch.optim.Adam(h2.parameters())
    h2(torch.ones(1, 4)).sum().backward()
    adam.step()
    with pytest.raises(ValueError, match="optimiser has made steps.*anew"):
        BCLightningModule(copy.deepcopy(h2), h1=h1, start_from="h1", optimizer=adam, log_prefix="b")


def test_the_callback_starts_once_and_never_over_a_checkpoint(tmp_path, caplog):
    from bc_lightning import CompatibilityCallback

    h1, h2 = nn.Linear(4, 3), Classifier()

    class First(pl.Callback):
        def on_fit_start(self, trainer, module):
            starts.append(module.net.weight.clone())

    starts = []
    callback = CompatibilityCallback(h1, scores="net", start_from="h1", lambda_c=1.0)
    loader = DataLoader(data(), 50)
    first = trainer(callbacks=[callback, First()])
    with caplog.at_level(logging.INFO):
        first.fit(h2, loader)
    assert torch.equal(starts[0], h1.weight)
    assert not compatibilities_of(h2)
    trained = h2.net.weight.clone()
    first.save_checkpoint(tmp_path / "saved.ckpt")
    # It goes on with what was trained.
    again = trainer(max_epochs=2, callbacks=[callback, First()])
    again.fit(h2, loader)
    assert torch.equal(starts[1], trained)
    # A new callback resumes what was saved.
    fresh = Classifier(8)
    later = CompatibilityCallback(h1, scores="net", start_from="h1", lambda_c=1.0)
    trainer(max_epochs=2, callbacks=[later, First()]).fit(fresh, loader, ckpt_path=tmp_path / "saved.ckpt")
    assert torch.equal(starts[2], trained)
    assert not torch.equal(fresh.net.weight, h1.weight)


def test_start_from_is_checked_where_it_is_given():
    from bc_lightning import CompatibilityCallback

    with pytest.raises(ValueError, match="start_from must be"):
        CompatibilityCallback(nn.Linear(4, 3), start_from="zero")
    with pytest.raises(TypeError, match="h1 must be a module"):
        CompatibilityCallback(lambda x: x, start_from="h1")
    same = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="same object"):
        warm_start(same, same)


def test_every_point_of_a_sweep_starts_from_h1(tmp_path):
    from bc_lightning import sweep

    torch.manual_seed(0)
    h1 = nn.Linear(4, 3)
    found = sweep(
        lambda: nn.Linear(4, 3), h1, DataLoader(data(40), 40), folder=tmp_path, lambdas=[0, 1], losses="new_error",
        seeds=[0, 1], optimizer=lambda of: torch.optim.SGD(of, lr=0.0), start_from="h1", tensorboard=False,
        trainer={"max_epochs": 1}, progress_bar=False,
    )  # fmt: skip
    for seed in (0, 1):
        saved = torch.load(found.model_path("new_error", 1, seed), weights_only=True)
        assert torch.equal(saved["weight"], h1.weight)
    assert {row["nfr"] for row in found.rows()} == {0.0}


def test_classes_in_another_order_are_refused_and_the_remedy_works():
    (h1, h2), order = nets(lambda: nn.Linear(4, 3)), [2, 0, 1]
    module = BCLightningModule(h2, h1=h1, class_map=order)
    for given in (h1, Reference(h1, class_map=order)):
        for mix in (interpolate, blend):
            with pytest.raises(ValueError, match="class map"):
                mix(given, module, data(), "nfr <= 9%")
    with pytest.raises(ValueError, match=r"Reference\(copy\)"):
        pl.Trainer(max_epochs=1, logger=False, callbacks=[ProjectionCallback(h1, data(), "nfr <= 9%")]).fit(
            BCLightningModule(nn.Linear(4, 3), h1=h1, class_map=order, optimizer=torch.optim.Adam), DataLoader(data())
        )
    reordered = copy.deepcopy(h1)
    reordered.load_state_dict({name: value[torch.tensor(order).argsort()] for name, value in h1.state_dict().items()})
    found = interpolate(Reference(reordered), module, data(), "nfr <= 99%", alphas=[0.5])
    x, y = data().tensors
    with torch.no_grad():
        right_1, right_2 = reordered(x).argmax(1) == y, found.model(x).argmax(1) == y
    assert found.promise.value == pytest.approx((right_1 & ~right_2).float().mean().item())
    assert blend(Reference(reordered), module, data(), "nfr <= 99%", weight=1.0).promise.value == 0


def test_a_mean_of_weights_goes_on_where_a_checkpoint_was_written(tmp_path):
    loader = DataLoader(data(60), 20)

    def trained(module, epochs, **options):
        saving = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        run = trainer(max_epochs=epochs, callbacks=[MeanWeights(1), saving], enable_checkpointing=True)
        run.fit(module, loader, loader, **options)
        return module.net.weight

    whole = trained(Classifier(1), 5)
    # Written when the mean was of two epochs of four.
    resumed = trained(Classifier(2), 5, ckpt_path=tmp_path / "epoch=2.ckpt")
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_frozen_statistics_stay_as_they_are():
    module = Classifier()
    module.net = nn.Sequential(nn.BatchNorm1d(4).eval(), nn.Linear(4, 3))
    trainer(max_epochs=2, callbacks=[MeanWeights()]).fit(module, DataLoader(data(60), 20))
    torch.testing.assert_close(module.net[0].running_mean, torch.zeros(4), rtol=0, atol=0)


def test_statistics_of_a_mean_are_read_in_the_precision_of_the_training():
    module = Classifier()
    module.net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    train = data(60)
    mean = MeanWeights(statistics=DataLoader(train, 60))
    trainer(max_epochs=2, callbacks=[mean], precision="64-true").fit(module, DataLoader(train, 20))
    torch.testing.assert_close(module.net[0].running_mean, train.tensors[0].double().mean(0))
