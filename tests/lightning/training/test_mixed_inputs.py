"""Mixed inputs where h1 takes something else than h2, where labels are ignored, and of modules without a whole."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import BCLightningModule, CompatibilityCallback

N, FEATURES, CLASSES = 12, 5, 3
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
DRAW = torch.Generator().manual_seed(0)
X, Y = torch.randn(N, FEATURES, generator=DRAW), torch.randint(0, CLASSES, (N,), generator=DRAW)


def fitted(module, x=X, y=Y):
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **QUIET)
    trainer.fit(module, DataLoader(TensorDataset(x, y), N))
    return trainer.callback_metrics


def mixture(values):
    """As the docs have it: golden-ratio shares of the first batch, and the batch in reverse."""
    share = (torch.arange(len(values), dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1).float()
    share = share.view(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values.flip(0)


class Prepared(pl.LightningModule):
    """Prepares its input in the step; h1 does so by itself."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.given = []

    def forward(self, x):
        self.given.append(x.detach().clone())
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self((batch[0] - 3) * 2), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def test_h1_and_h2_are_each_asked_about_mixtures_of_what_they_take():
    torch.manual_seed(0)
    module, net, asked = Prepared(nn.Linear(FEATURES, CLASSES)), nn.Linear(FEATURES, CLASSES), []

    def old(x):
        asked.append(x.clone())
        return net((x - 3) * 2)

    wrapped = BCLightningModule(module, old, "imitation", inputs=0, unlabelled="mixed", mixed_labels=0)
    logged = fitted(wrapped)["train_unlabelled_dissonance"]
    torch.testing.assert_close(asked[1], mixture(X))
    torch.testing.assert_close(module.given[1], mixture((X - 3) * 2))
    said, z = net((mixture(X) - 3) * 2), module.net(mixture((X - 3) * 2))
    torch.testing.assert_close(logged, F.cross_entropy(z, said.softmax(1)).detach())


@pytest.mark.parametrize("ignored", [255, 0])
def test_another_label_than_torchs_may_be_the_one_that_is_ignored(ignored):
    """Where 0 is ignored, classes are counted from 0 all the same."""

    class Pixels(Prepared):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1], ignore_index=ignored)

    torch.manual_seed(1)
    h1, h2 = (nn.Conv2d(2, CLASSES, 1) for _ in range(2))
    x, masks = torch.randn(N, 2, 4, 4), torch.randint(0, CLASSES, (N, 4, 4))
    masks[::5] = ignored
    module = BCLightningModule(Pixels(h2), h1, "imitation", unlabelled="mixed", loss_options={"ignore_index": ignored})
    logged = fitted(module, x, masks)["train_unlabelled_dissonance"]
    known = masks != ignored
    labels = mixture(F.one_hot(masks.where(known, 0), CLASSES).movedim(-1, 1).float())
    said, both = h1(mixture(x)).softmax(1), (known & known.flip(0)).unsqueeze(1)
    expected = F.cross_entropy(h2(mixture(x)), torch.where(both, said / 2 + labels / 2, said))
    torch.testing.assert_close(logged, expected.detach())


class Parts(pl.LightningModule):
    """Without a forward its step calls a body and a head, with something between."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.scale = (nn.Linear(FEATURES, n) for n in (FEATURES, CLASSES, 1))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(self.body(batch[0]).relu()), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


class Whole(Parts):
    def forward(self, x):
        return self.head(self.body(x).relu())

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])


@pytest.mark.filterwarnings("ignore:.*calls h2 with something else")
@pytest.mark.parametrize("unlabelled", ["mixed", [X]])
def test_a_module_without_a_whole_is_refused_and_the_remedy_works(unlabelled):
    torch.manual_seed(2)
    old = Parts()
    options = {"scores": "head", "inputs": 0, "unlabelled": unlabelled, "loss": "imitation"}
    options |= {"mixed_labels": 0} if unlabelled == "mixed" else {}

    def h1(x):
        return old.head(old.body(x).relu())

    with pytest.raises(ValueError, match=r"'head' is called with what another part.*needs a module whose forward"):
        fitted(BCLightningModule(Parts(), h1, **options))
    module = Whole()
    logged = fitted(BCLightningModule(module, h1, **options))["train_unlabelled_dissonance"]
    x = mixture(X) if unlabelled == "mixed" else X
    torch.testing.assert_close(logged, F.cross_entropy(module(x), h1(x).softmax(1)).detach())


def plain(seed):
    torch.manual_seed(seed)
    return nn.Linear(FEATURES, CLASSES)


class Trained(Prepared):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("door", [True, False])
def test_a_fit_that_goes_on_mixes_the_next_shares_and_a_new_training_the_first(door):
    loader, h1 = DataLoader(TensorDataset(X, Y), 5), plain(1)
    options = {"h1": h1, "loss": "imitation", "unlabelled": "mixed"}

    def fits(module, callbacks, *epochs):
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=callbacks, **QUIET)
        for each in epochs:
            trainer.fit_loop.max_epochs = each
            trainer.fit(module, loader)
        return module.net.weight.detach().clone()

    def made():
        module = Trained(plain(2))
        callbacks = [] if door else [CompatibilityCallback(**options)]
        return (BCLightningModule(module, **options) if door else module), callbacks

    whole = fits(*made(), 4)
    module, callbacks = made()
    torch.testing.assert_close(fits(module, callbacks, 2, 4), whole, rtol=0, atol=0)
    module.net.load_state_dict(plain(2).state_dict())
    torch.testing.assert_close(fits(module, callbacks, 4), whole, rtol=0, atol=0)


class Texts(pl.LightningModule):
    """Of token ids, called with entries or with several elements of a batch."""

    def __init__(self, seed, by_name=True):
        super().__init__()
        torch.manual_seed(seed)
        self.table, self.layer = nn.Embedding(7, 4), nn.Linear(4, CLASSES)
        self.by_name = by_name

    def forward(self, ids, mask, labels=None):
        assert labels is None or len(labels) == N
        return self.layer((self.table(ids) * mask.unsqueeze(-1)).sum(1))

    def training_step(self, batch, batch_idx):
        if not self.by_name:
            return F.cross_entropy(self(*batch), batch[2])
        return F.cross_entropy(self(**batch), batch["labels"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.parametrize("by_name", [True, False])
def test_token_ids_are_refused_and_the_loader_that_is_named_instead_works(by_name):
    draw = torch.Generator().manual_seed(3)
    ids, mask, more = torch.randint(7, (N, 6), generator=draw), torch.ones(N, 6), torch.randint(7, (4, 6))
    rows = [{"ids": ids[i], "mask": mask[i], "labels": Y[i]} for i in range(N)]
    loader = DataLoader(rows if by_name else TensorDataset(ids, mask, Y), N)

    def fitted_with(unlabelled):
        module = Texts(0, by_name)
        wrapped = BCLightningModule(module, Texts(1), "imitation", unlabelled=unlabelled, target=None if by_name else 2)
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **QUIET)
        trainer.fit(wrapped, loader)
        return trainer.callback_metrics["train_unlabelled_dissonance"]

    with pytest.raises(TypeError, match="nothing between two token ids.*give inputs without labels"):
        fitted_with("mixed")
    # What the step calls labels are none of unlabelled inputs.
    batch = {"ids": more, "mask": mask[:4], "labels": Y[:4]} if by_name else (more, mask[:4], Y[:4])
    said, z = Texts(1)(more, mask[:4]), Texts(0)(more, mask[:4])
    torch.testing.assert_close(fitted_with([batch]), F.cross_entropy(z, said.softmax(1)).detach())


class Table(pl.LightningModule):
    """Of a table of floats, whose first column is a category."""

    def __init__(self, look_up):
        super().__init__()
        self.look_up, self.table, self.layer = look_up, nn.Embedding(4, 2), nn.Linear(FEATURES + 1, CLASSES)

    def forward(self, x):
        return self.layer(torch.cat([self.look_up(self.table, x[:, 0]), x[:, 1:]], 1))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    "look_up",
    [
        lambda table, column: table(column.long()),
        lambda table, column: table(column.to(torch.int64) % 4),
        lambda table, column: F.one_hot(column.int().long(), 4)[:, :2].float(),
        lambda table, column: table.weight[column.type(torch.long)],
    ],
)
@pytest.mark.parametrize("who", ["h1", "h2"])
def test_categories_in_a_table_of_floats_are_refused(look_up, who):
    x = torch.cat([torch.randint(4, (N, 1), generator=DRAW).float(), X[:, 1:]], 1)
    linear = nn.Linear(FEATURES, CLASSES)
    module = Table(look_up) if who == "h2" else Trained(linear)
    old = Table(look_up) if who == "h1" else linear
    with pytest.raises(TypeError, match="nothing between.*categories.*cut to whole numbers"):
        fitted(BCLightningModule(module, old, "imitation", unlabelled="mixed"), x)


def test_look_ups_of_places_and_of_bins_are_none_of_categories():
    """Places do not depend on the input; a bin is what a measured number lies in, by a function that says so."""

    def look_up(table, column):
        return table(torch.arange(2)).sum() * table(torch.bucketize(column, torch.tensor([-1.0, 0.0, 1.0])))

    logged = fitted(BCLightningModule(Table(look_up), Table(look_up), "imitation", unlabelled="mixed"))
    assert "train_unlabelled_dissonance" in logged
