"""What the losses read of targets and outputs: of every batch on the CPU, of the first where reading has to wait."""

import pickle
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.data import TensorDataset
from user_code import fit, loader

from bc_core import error_compatibility_score, trust_compatibility_score
from bc_lightning import BCLightningModule, CompatibilityLoss
from bc_lightning.training._state import Run
from bc_lightning.training.step._penalty import raise_what_was_noticed
from bc_lightning.training.step._target import notice
from bc_lightning.training.watching._tensors import other_labels

N, C = 8, 3


class Elsewhere(torch.Tensor):
    """A tensor that says that it is not on the CPU and counts how often the host asks for one of its values."""

    reads = 0
    device = property(lambda self: torch.device("xpu"))

    @staticmethod
    def __new__(cls, values):
        made = torch.Tensor._make_wrapper_subclass(cls, values.size(), strides=values.stride(), dtype=values.dtype)
        made.values = values.detach()
        return made

    def tolist(self):
        type(self).reads += 1
        return self.values.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        cls.reads += func is torch.ops.aten._local_scalar_dense.default
        args, kwargs = tree_map(lambda each: each.values if isinstance(each, cls) else each, (args, kwargs or {}))
        return tree_map(lambda each: cls(each) if isinstance(each, torch.Tensor) else each, func(*args, **kwargs))


@pytest.fixture(autouse=True)
def _reads():
    Elsewhere.reads = 0


def scores(seed, shape=(N, C)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def multilabel(seed=0, shape=(N, C)):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


LABELS = torch.arange(N) % C
TARGETS = {
    "cross_entropy": [LABELS, LABELS[:, None], scores(3).softmax(1), F.one_hot(LABELS, C).float()],
    "nll": [LABELS],
    "kl_divergence": [LABELS, scores(3).softmax(1)],
    "binary_cross_entropy": [multilabel(), multilabel().long(), torch.full((N, C), 0.3)],
}


@pytest.mark.parametrize("base", TARGETS)
def test_values_of_the_first_batch_alone_are_read_elsewhere(base):
    h2, h1 = scores(1), scores(2)
    if base == "nll":
        h2, h1 = h2.log_softmax(1), h1.log_softmax(1)
    for target in TARGETS[base]:
        loss = CompatibilityLoss(base, "strict_imitation", 2.0)
        here = loss(h2, target, h1)
        Elsewhere.reads = 0
        there = loss(Elsewhere(h2), Elsewhere(target), Elsewhere(h1))
        assert torch.equal(there.values, here)
        assert Elsewhere.reads
        Elsewhere.reads = 0
        there = loss(Elsewhere(h2), Elsewhere(target), Elsewhere(h1))
        assert torch.equal(there.values, here)
        loss.terms(Elsewhere(h2), Elsewhere(target), Elsewhere(h1))
        assert Elsewhere.reads == 0


WRONG = {
    "float multilabel": ("cross_entropy", multilabel(), "rows in 0..1 that sum to 1.*from_logits"),
    "float multilabel, kl": ("kl_divergence", multilabel(), "rows in 0..1 that sum to 1.*from_logits"),
    "float multilabel, dense": ("cross_entropy", multilabel(0, (N, C, 4)), "rows in 0..1 that sum to 1.*from_logits"),
    "percentages": ("cross_entropy", 100 * scores(3).softmax(1), "rows in 0..1 that sum to 1"),
    "label of no class": ("cross_entropy", LABELS + 1, r"label 3 at index 2, outside the classes 0..2"),
    "negative label": ("nll", LABELS - 1, "label -1"),
    "binary -1 and 1": ("binary_cross_entropy", 2 * multilabel() - 1, "must lie in 0..1"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", [lambda tensor: tensor, Elsewhere], ids=["here", "elsewhere"])
def test_values_that_would_train_nonsense(wrong, place):
    base, target, message = WRONG[wrong]
    shape = tuple(target.shape) if target.is_floating_point() else (N, C)
    loss = CompatibilityLoss(base)
    with pytest.raises(ValueError, match=message):
        loss(place(scores(1, shape)), place(target), place(scores(2, shape)))


KINDS = {
    "integer multilabel": ((N, C), multilabel().long(), "BCBinaryCrossEntropyLoss.*from_logits"),
    "boolean multilabel": ((N, C), multilabel().bool(), "BCBinaryCrossEntropyLoss.*from_logits"),
    "integer multilabel of other width": ((N, C), multilabel(0, (N, 5)).long(), "BCBinaryCrossEntropyLoss"),
    "float multilabel of other width": ((N, C), multilabel(0, (N, 5)), "BCBinaryCrossEntropyLoss"),
    "one-hot": ((N, C), F.one_hot(LABELS, C), r"target=lambda batch: batch\[1\].argmax\(1\)"),
    "float classes": ((N, C), LABELS.float(), r"target.long\(\)"),
    # A softmax over one class is 1: every loss 0, every answer right.
    "one score": ((N, 1), torch.zeros(N, dtype=torch.long), "one class.*BCBinaryCrossEntropyLoss"),
    "one score, dense": ((N, 1, 4), torch.zeros(N, 4, dtype=torch.long), "one class.*BCBinaryCrossEntropyLoss"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [lambda tensor: tensor, Elsewhere], ids=["here", "elsewhere"])
def test_kinds_that_show_in_dtype_and_shape(kind, place):
    shape, target, message = KINDS[kind]
    loss = CompatibilityLoss("cross_entropy")
    h2, h1 = place(scores(1, shape)), place(scores(2, shape))
    for _ in range(2):
        # In a later batch too, and without a look at values.
        with pytest.raises(ValueError, match=message):
            loss(h2, place(target), h1)
        loss._looked = True
    assert Elsewhere.reads == 0


def test_nothing_is_read_where_nothing_is_to_be_validated():
    loss = CompatibilityLoss("cross_entropy", validate_args=False)
    loss(Elsewhere(scores(1)), Elsewhere(multilabel()), Elsewhere(scores(2)))
    assert Elsewhere.reads == 0


def test_a_loss_that_has_looked_is_copied():
    loss = CompatibilityLoss()
    loss.look(scores(1), LABELS, scores(2))
    assert float(pickle.loads(pickle.dumps(loss))(scores(1), LABELS, scores(2))) == float(
        loss(scores(1), LABELS, scores(2))
    )


SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]])
PAIRS = [
    (LABELS, LABELS.float(), False),
    (LABELS, LABELS[:, None], False),
    (LABELS, C - 1 - LABELS, True),
    (LABELS, F.one_hot(LABELS, C).float() * 0.9 + 0.1 / C, False),
    (LABELS[:2], SOFT, True),
    (SOFT, SOFT.half(), False),
    (SOFT, SOFT.argmax(1), True),
    (SOFT, torch.tensor([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0]]), True),
    (LABELS % 2, 2 * (LABELS % 2) - 1, False),
    (LABELS % 2, 1 - 2 * (LABELS % 2), True),
    ((LABELS % 2).float(), (LABELS % 2) * 0.9 + 0.05, False),
]


@pytest.mark.parametrize("place", [lambda tensor: tensor, Elsewhere], ids=["here", "elsewhere"])
@pytest.mark.parametrize(("one", "other", "differ"), PAIRS)
def test_targets_are_compared_without_waiting(one, other, differ, place):
    found = [other_labels(place(a), place(b)) for a, b in ((one, other), (other, one))]
    assert Elsewhere.reads == 0
    assert [bool(each) for each in found] == [differ, differ]


def test_a_fault_of_a_later_batch_is_read_with_the_logs():
    run = Run()
    step = SimpleNamespace(first=False, run=run)
    for wrong in (False, True, False):
        notice(step, Elsewhere(torch.tensor(wrong)), "labels differ")
    assert Elsewhere.reads == 0
    with pytest.raises(ValueError, match="labels differ"):
        raise_what_was_noticed(run)
    with pytest.raises(ValueError, match="labels differ"):
        notice(step, torch.tensor(True), "labels differ")


class Multilabel(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, C)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.binary_cross_entropy_with_logits(self(batch[0]), batch[1].float())

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_the_remedy_for_multilabel_targets(dtype, tmp_path):
    x, y = scores(5, (32, 4)), multilabel(6, (32, C)).to(dtype)
    data, h1 = loader(TensorDataset(x, y), 8), nn.Linear(4, C)
    with pytest.raises(ValueError, match="loss='BCBinaryCrossEntropyLoss'.*loss_options=.'from_logits': True."):
        fit(BCLightningModule(Multilabel(), h1=h1), tmp_path, data, data)
    module = BCLightningModule(Multilabel(), h1=h1, loss="BCBinaryCrossEntropyLoss", loss_options={"from_logits": True})
    trainer = fit(module, tmp_path, data, data)
    with torch.no_grad():
        labels = [(network(x) >= 0).long().numpy().ravel() for network in (h1, module)]
    truth = y.long().numpy().ravel()
    found = trainer.callback_metrics
    assert float(found["val_btc"]) == pytest.approx(trust_compatibility_score(*labels, truth))
    assert float(found["val_bec_given_h1_wrong"]) == pytest.approx(error_compatibility_score(*labels, truth))


class Noted(CompatibilityLoss):
    looks: list[torch.Tensor] = []  # noqa: RUF012

    def look(self, h2_output, target, h1_output, *, outputs_checked=False):
        self.looks.append(target.clone())
        super().look(h2_output, target, h1_output, outputs_checked=outputs_checked)


def test_a_first_batch_is_looked_at_in_training_whatever_the_device(tmp_path):
    x = scores(5, (32, 4))
    y = x[:, :C].argmax(1)
    Noted.looks.clear()

    class Single(Multilabel):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    data = loader(TensorDataset(x, y), 8)
    fit(BCLightningModule(Single(), h1=nn.Linear(4, C), loss=Noted()), tmp_path, data, data)
    assert 1 <= len(Noted.looks) <= 2
    assert torch.equal(Noted.looks[0], y[:8])
