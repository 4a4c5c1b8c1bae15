"""Functions of a step, networks and steps that their owner compiles: the same numbers as without."""

import pytest
import torch
import torch.nn.functional as F
from user_code import Net, UserModule, fit, loader, made, make_h1
from users_modules import Base

from bc_lightning import BCLightningModule

pytestmark = pytest.mark.slow
COMPILED = {"backend": "aot_eager"}


class Plain(Base):
    """Without Dropout, which draws other random numbers where it is compiled."""

    def __init__(self):
        super().__init__()
        self.net = Net()
        self.net.layers[3].p = 0.0

    def forward(self, x):
        return self.net(x)

    def loss(self, x, y):
        return F.cross_entropy(self(x), y)

    def training_step(self, batch, batch_idx):
        return self.loss(*batch)

    def validation_step(self, batch, batch_idx):
        self.loss(*batch)


def compiled(how, **options):
    """The same module with something of it compiled."""
    options = {**COMPILED, **options}

    class Function(Plain):
        loss = torch.compile(Plain.loss, **options)

    class OfTheNetAlone(Plain):
        def __init__(self):
            super().__init__()
            self.step = torch.compile(self.of_the_net, **options)

        def of_the_net(self, x, y):
            return F.cross_entropy(self.net(x), y)

        def training_step(self, batch, batch_idx):
            return self.step(*batch)

        def validation_step(self, batch, batch_idx):
            self.step(*batch)

    class Forward(Plain):
        forward = torch.compile(Plain.forward, **options)

    class Step(Plain):
        training_step = torch.compile(Plain.training_step, **options)

    class Network(Plain):
        def __init__(self):
            super().__init__()
            self.net.compile(**options)

    class NetworkWithoutForward(Network):
        forward = UserModule.__mro__[1].forward

        def loss(self, x, y):
            return F.cross_entropy(self.net(x), y)

    class Module(Plain):
        def __init__(self):
            super().__init__()
            self.compile(**options)

    class Manual(Function):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.loss(*batch))
            optimizer.step()

    return {kind.__name__: kind for kind in locals().values() if isinstance(kind, type)}[how]


ALL = ["Function", "OfTheNetAlone", "Forward", "Step", "Network", "NetworkWithoutForward", "Module", "Manual"]
# Where h2 is called inside of what is compiled.
BROKEN = {"Function", "OfTheNetAlone", "Step", "Module", "Manual"}


def trained(kind, tmp_path, outer=False, h1=None, **options):
    torch._dynamo.reset()
    module = BCLightningModule(made(kind), h1=make_h1() if h1 is None else h1, **{"lambda_c": 2.0, **options})
    given = torch.compile(module, **COMPILED) if outer else module
    trainer = fit(given, tmp_path, loader(), loader(), max_epochs=1)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {name: value.clone() for name, value in module.net.state_dict().items()}, metrics


def check_alike(one, other):
    for ours, theirs in zip(one, other, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            # A compiled graph adds up in another order.
            torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ALL)
def test_the_same_as_without(how, tmp_path):
    check_alike(trained(compiled(how), tmp_path), trained(Plain, tmp_path))


@pytest.mark.parametrize("how", ["Function", "Forward", "Network", "Module", "Manual"])
def test_the_same_inside_of_a_compiled_module(how, tmp_path):
    check_alike(trained(compiled(how), tmp_path, outer=True), trained(Plain, tmp_path))


def test_inside_of_a_compiled_module_the_network_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"scores='name'"):
        trained(compiled("OfTheNetAlone"), tmp_path, outer=True)
    check_alike(trained(compiled("OfTheNetAlone"), tmp_path, outer=True, scores="net"), trained(Plain, tmp_path))


@pytest.mark.parametrize("how", ["Function", "Network"])
def test_a_lambda_of_nought_is_plain_training(how, tmp_path):
    torch._dynamo.reset()
    alone = made(compiled(how))
    fit(alone, tmp_path, loader(), loader(), max_epochs=1)
    weights, _ = trained(compiled(how), tmp_path, lambda_c=0.0)
    assert all(torch.equal(value, weights[name]) for name, value in alone.net.state_dict().items())


@pytest.mark.parametrize("how", ALL)
def test_a_whole_graph_stays_one_or_is_refused(how, tmp_path):
    if how in BROKEN:
        with pytest.raises(RuntimeError, match="fullgraph=True, and h1 is asked .* Leave out fullgraph=True"):
            trained(compiled(how, fullgraph=True), tmp_path)
    else:
        check_alike(trained(compiled(how, fullgraph=True), tmp_path), trained(Plain, tmp_path))


def test_two_h1s_beside_a_compiled_network(tmp_path):
    def both(kind):
        torch._dynamo.reset()
        module = BCLightningModule(made(kind), h1=make_h1(), lambda_c=1.0)
        module = BCLightningModule(module, h1=make_h1(seed=9), lambda_c=2.0, log_prefix="other_")
        trainer = fit(module, tmp_path, loader(), loader(), max_epochs=1)
        return module.net.state_dict(), {name: float(value) for name, value in trainer.callback_metrics.items()}

    check_alike(both(compiled("NetworkWithoutForward")), both(Plain))


def test_nothing_stays_on_a_compiled_network(tmp_path):
    module = made(compiled("Network"))
    before = module.net._compiled_call_impl
    fit(BCLightningModule(module, h1=make_h1(), lambda_c=1.0, scores="net"), tmp_path, loader(), [], max_epochs=1)
    assert module.net._compiled_call_impl is before
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())


@pytest.mark.parametrize(
    ("where", "changed"),
    [("the loss", lambda y: 2 - y), ("h2 and the loss", lambda y: y.roll(1)), ("the step", lambda y: y.roll(1))],
)
def test_labels_that_a_compiled_loss_changes_are_noticed(where, changed, tmp_path):
    def criterion(output, y):
        return F.cross_entropy(output, changed(y))

    def target(batch):
        return changed(batch[1])

    class Own(Plain):
        @torch.compile(**COMPILED)
        def criterion(self, output, y):
            return F.cross_entropy(output, changed(y))

        def loss(self, x, y):
            return self.criterion(self(x), y) if where == "the loss" else criterion(self(x), y)

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    if where == "h2 and the loss":
        Own.loss = torch.compile(Own.loss, **COMPILED)
    elif where == "the step":
        Own.training_step = torch.compile(Own.training_step, **COMPILED)

    class Eager(Plain):
        def loss(self, x, y):
            return criterion(self(x), y)

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    with pytest.raises(ValueError, match="is not the mean of our base loss.*target=lambda batch"):
        trained(Own, tmp_path)
    check_alike(trained(Own, tmp_path, target=target), trained(Eager, tmp_path, target=target))


def test_a_part_of_a_compiled_step_is_not_given_features(tmp_path):
    class Parts(Plain):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Linear(8, 8)

        def loss(self, x, y):
            return F.cross_entropy(self.net(self.body(x)), y)

        def training_step(self, batch, batch_idx):
            self.compatibility_target = batch[1]
            return self.loss(*batch)

    Parts.forward = UserModule.__mro__[1].forward
    with pytest.raises(ValueError, match="computed by another part of h2.*inputs=0"):
        trained(Parts, tmp_path, outer=True, scores="net")
