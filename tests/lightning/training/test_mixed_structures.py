"""Mixed inputs of every structure: instances along another axis, or in something beside tensors; and lambda_c of 0."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import BCLightningModule, CompatibilityCallback

N, FEATURES, CLASSES = 6, 4, 3
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
DRAW = torch.Generator().manual_seed(0)
# As many steps in time as instances.
X, Y = torch.randn(N, N, FEATURES, generator=DRAW), torch.randint(0, CLASSES, (N,), generator=DRAW)


def mixture(values):
    """As the docs have it: golden-ratio shares of the first batch, and the batch in reverse."""
    share = (torch.arange(len(values), dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1).float()
    share = share.view(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values.flip(0)


class Net(nn.Module):
    """Reads its input in a way of its own."""

    def __init__(self, read, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.read, self.gru, self.head = read, nn.GRU(FEATURES, 5), nn.Linear(5, CLASSES)

    def forward(self, *args, **kwargs):
        x = self.read(*args, **kwargs)  # (time, N, features)
        return self.head(self.gru(x)[1][0])


class Calls(pl.LightningModule):
    """Calls h2 with what is made of a batch."""

    def __init__(self, net, made):
        super().__init__()
        self.net, self.made = net, made

    def forward(self, *args, **kwargs):
        return self.net(*args, **kwargs)

    def training_step(self, batch, batch_idx):
        args, kwargs = self.made(batch[0])
        return F.cross_entropy(self(*args, **kwargs), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def fitted(module, epochs=1, x=X, **more):
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", **QUIET, **more)
    trainer.fit(module, DataLoader(TensorDataset(x, Y), N))
    return trainer.callback_metrics


def trained_with(read, made, **options):
    h1, h2 = Net(read, 1), Net(read, 2)
    given = {"loss": "imitation", "unlabelled": "mixed", "mixed_labels": 0.0} | options
    logged = fitted(BCLightningModule(Calls(h2, made), h1, target=1, **given))
    return logged["train_unlabelled_dissonance"], h1, h2


def in_time(x):
    return x.movedim(0, 1)


# By name: how a network reads what it is called with, and what that is of a batch (N, time, features).
KNOWN = {
    "one tensor with as many steps as instances": (in_time, lambda x: ((x,), {})),
    "a list": (lambda parts: in_time(parts[0] + parts[1]), lambda x: (([x, 2 * x],), {})),
    "a dictionary of tuples, and scalars": (
        lambda parts, scale: in_time(parts["x"][0] + parts["x"][1]) * parts["by"] * scale,
        lambda x: ((), {"parts": {"x": (x, 2 * x), "by": torch.tensor(1.0)}, "scale": 1.0}),
    ),
}
REFUSED = {
    "time comes first": (lambda x: x, lambda x: ((in_time(x),), {})),
    "one of a list has time first": (lambda parts: parts[0] + in_time(parts[1]), lambda x: (([in_time(x), x],), {})),
    "a list of instances": (lambda parts: torch.stack(list(parts), 1), lambda x: ((list(x),), {})),
    "a dictionary with a tensor for all instances": (
        lambda x, shared: in_time(x) + shared.unsqueeze(1),
        lambda x: ((), {"x": x, "shared": torch.arange(N * 1.0).unsqueeze(1).repeat(1, FEATURES)}),
    ),
    "numbers beside the tensor": (
        lambda x, scales: in_time(x) * torch.tensor(scales).view(1, -1, 1),
        lambda x: ((x, [float(each) for each in range(N)]), {}),
    ),
    "an array beside the tensor": (
        lambda x, scales: in_time(x) * torch.as_tensor(scales).view(1, -1, 1),
        lambda x: ((x, np.arange(N, dtype="float32")), {}),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_instances_are_mixed_in_any_structure(name):
    read, made = KNOWN[name]
    logged, h1, h2 = trained_with(read, made)
    args, kwargs = made(mixture(X))
    expected = F.cross_entropy(h2(*args, **kwargs), h1(*args, **kwargs).softmax(1))
    torch.testing.assert_close(logged, expected.detach())


@pytest.mark.parametrize("name", REFUSED)
def test_what_are_no_instances_is_not_mixed_in_silence(name):
    read, made = REFUSED[name]
    with pytest.raises(ValueError, match=r"asked about the batch in reverse.*instances first.*unlabelled=loader"):
        trained_with(read, made)


def test_the_remedies_of_one_that_has_time_first_work():
    _, made = REFUSED["time comes first"]
    more = torch.randn(5, 4, FEATURES)
    logged, h1, h2 = trained_with(lambda x: x, made, unlabelled=[more], mixed_labels=0.5)
    torch.testing.assert_close(logged, F.cross_entropy(h2(more), h1(more).softmax(1)).detach())
    logged, *_ = trained_with(in_time, lambda x: ((x,), {}))
    assert logged > 0


def test_h2_is_looked_at_too_where_h1_is_asked_something_else():
    h1, h2 = Net(in_time, 1), Net(lambda x: x, 2)
    module = BCLightningModule(
        Calls(h2, lambda x: ((in_time(x),), {})), h1, "imitation", inputs=0, target=1, unlabelled="mixed"
    )
    with pytest.raises(ValueError, match="asked about the batch in reverse"):
        fitted(module)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_rounding_is_no_other_axis(precision):
    made = KNOWN["a list"]
    module = BCLightningModule(Calls(Net(made[0], 2), made[1]), Net(made[0], 1), "imitation", unlabelled="mixed")
    assert "train_unlabelled_dissonance" in fitted(module, precision=precision)


# lambda_c of 0


def noisy():
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(N * FEATURES, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES)
    )


class Noisy(pl.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net, self.calls = net, 0

    def forward(self, x):
        self.calls += self.training
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)


class Explodes(nn.Module):
    """An h1 whose answers give no finite dissonance."""

    def forward(self, x):
        return torch.full((len(x), CLASSES), 1e38) * torch.tensor([1.0, -1.0, 0.0])


def weights_after(module, callbacks=()):
    torch.manual_seed(3)
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", callbacks=list(callbacks), **QUIET)
    trainer.fit(module, DataLoader(TensorDataset(X, Y), 3, shuffle=True))
    return [*(value.clone() for value in module.state_dict().values()), torch.rand(2)]


@pytest.mark.parametrize("h1", [noisy, Explodes])
@pytest.mark.parametrize("unlabelled", ["mixed", [X]])
@pytest.mark.parametrize("kind", ["module", "callback", "plain"])
@pytest.mark.parametrize("lambda_c", [0.0, lambda epoch: 0.0])
def test_where_lambda_is_0_throughout_training_is_plain_to_the_bit(h1, unlabelled, kind, lambda_c):
    options = {"loss": "imitation", "lambda_c": lambda_c, "unlabelled": unlabelled}
    expected = weights_after(Noisy(noisy()))
    if kind == "callback":
        got = weights_after(module := Noisy(noisy()), [CompatibilityCallback(h1(), **options)])
    elif kind == "module":
        got = weights_after(module := BCLightningModule(Noisy(noisy()), h1(), **options))
    else:
        got = weights_after(
            BCLightningModule(noisy(), h1(), optimizer=lambda weights: torch.optim.Adam(weights, 0.1), **options)
        )
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    if kind != "plain":
        assert module.calls == 6


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("unlabelled", ["mixed", "loader"])
def test_a_schedule_asks_about_no_more_than_the_batch_while_it_gives_0(unlabelled, compiled):
    calls, given = [], []

    class Loader:
        def __iter__(self):
            given.append(1)
            return iter([X])

    def h1(x):
        calls.append(x.clone())
        return x[:, 0, :CLASSES]

    def schedule(epoch):
        return 0.0 if epoch < 2 else 1.0

    more = "mixed" if unlabelled == "mixed" else Loader()
    module = Noisy(noisy())
    wrapped = BCLightningModule(module, h1, "imitation", schedule, unlabelled=more)
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", **QUIET)
    trainer.fit(torch.compile(wrapped, backend="eager") if compiled else wrapped, DataLoader(TensorDataset(X, Y), N))
    assert len(calls) == 4
    # The first mixture is the first of the shares.
    torch.testing.assert_close(calls[-1], mixture(X) if more == "mixed" else X)
    assert len(given) == (more != "mixed")


# Options of what is not given


@pytest.mark.parametrize("door", [BCLightningModule, CompatibilityCallback])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unlabelled_weight": 0.5}, "unlabelled_weight without inputs.*unlabelled=None"),
        ({"mixed_labels": 0.25}, "mixed_labels without inputs.*unlabelled=None"),
        ({"mixed_labels": 0.0, "unlabelled": [X]}, "mixed_labels without inputs.*unlabelled='mixed'.*unlabelled=list"),
    ],
)
def test_what_is_said_of_inputs_that_are_not_given_is_refused(door, options, message):
    h1, model = noisy(), (Noisy(noisy()),) if door is BCLightningModule else ()
    before = copy.deepcopy([net.state_dict() for net in model])
    with pytest.raises(TypeError, match=message):
        door(*model, h1=h1, start_from="h1", **options)
    torch.testing.assert_close([net.state_dict() for net in model], before, rtol=0, atol=0)
    for each in ({"unlabelled_weight": 1.0, "mixed_labels": 0.5}, {**options, "unlabelled": "mixed"}):
        door(*(Noisy(noisy()) for _ in model), h1=h1, **each)
