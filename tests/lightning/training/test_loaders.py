"""Rows, ids and counts are the batch's own, whatever brings it."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from ddp_loaders import ITEMS, LOADERS, SHORT, Reversing, found_with
from test_ddp import SCRIPT, run
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, SequentialSampler, Subset
from user_code import UserModule, dataset, fit, made, make_h1, make_trainer

from bc_core import Comparison
from bc_lightning import BCLightningModule, LogComparisons, StoredOutputs, store_outputs

T, A = dataset(24), dataset(20, seed=1)


class ManyLoaders(UserModule):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self(batch[0])


class Wrapped:
    """A loader of the user's own kind."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)

    def __len__(self):
        return len(self.loader)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return store_outputs(make_h1(), T, folder / "t"), store_outputs(make_h1(), A, folder / "a")


def right(x, y):
    with torch.no_grad():
        return (make_h1()(x).argmax(1) == y).float()


KINDS = {
    "one": lambda t, a: DataLoader(a.attach(A), 8),
    "list": lambda t, a: [DataLoader(a.attach(A), 8)],
    "dict": lambda t, a: {"a": DataLoader(a.attach(A), 8)},
    "nested": lambda t, a: {"a": [DataLoader(a.attach(A), 8)]},
    "wrapped": lambda t, a: Wrapped(DataLoader(a.attach(A), 8)),
    "subset": lambda t, a: DataLoader(Subset(a.attach(A), range(20)), 8),
    "concatenated": lambda t, a: DataLoader(ConcatDataset([a.attach(A)]), 8),
    "batch sampler": lambda t, a: DataLoader(a.attach(A), batch_sampler=Reversing(SequentialSampler(A), 8, False)),
    "one by one": lambda t, a: DataLoader(a.attach(A), batch_size=None, collate_fn=_as_batch),
    "workers": lambda t, a: DataLoader(a.attach(A), 8, num_workers=1),
}


def _as_batch(item):
    x, y = item.sample
    return type(item)([x[None], y[None]], torch.tensor([item.index]), _row_of_one(item.row))


def _row_of_one(row):
    return type(row)(row.tensor[None], row.fingerprint, row.sources)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "16-true"])
@pytest.mark.parametrize("kind", KINDS)
def test_stored_rows_are_those_of_the_batch(kind, precision, stores, tmp_path):
    """The store given as h1 is another data set's; and rows are not rounded with the batch."""
    trainer = make_trainer(tmp_path, precision=precision)
    loaders = KINDS[kind](*stores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = trainer.validate(BCLightningModule(made(ManyLoaders), h1=stores[0]), loaders, verbose=False)[0]
    assert found["val_accuracy_h1"] == pytest.approx(right(*A.tensors).mean().item())


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_training_on_several_stores_in_one_loader(precision, stores, tmp_path):
    t, a = stores
    both = ConcatDataset([t.attach(T), a.attach(A)])
    module = BCLightningModule(made(UserModule), h1=t)
    trainer = fit(module, tmp_path, train=DataLoader(both, 11, shuffle=True), val=[], max_epochs=1, precision=precision)
    expected = torch.cat([right(*T.tensors), right(*A.tensors)]).mean().item()
    assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(expected)


def test_training_on_several_loaders(stores, tmp_path):
    t, a = stores

    class Two(UserModule):
        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self(batch["labelled"][0]), batch["labelled"][1])

    def train(**loaders):
        module = BCLightningModule(made(Two), h1=t, target=lambda batch: batch["labelled"][1])
        return fit(module, tmp_path, train=loaders, val=[], max_epochs=1)

    trainer = train(labelled=DataLoader(t.attach(T), 8), other=DataLoader(A, 8))
    assert trainer.callback_metrics["train_accuracy_h1"].item() == pytest.approx(right(*T.tensors).mean().item())
    with pytest.raises(ValueError, match=r"\['labelled', 'other'\] all bring stored outputs.*h1=old_model"):
        train(labelled=DataLoader(t.attach(T), 8), other=DataLoader(a.attach(A), 8))


def test_rows_of_another_h1_are_refused_in_every_collection(stores, tmp_path):
    other = store_outputs(make_h1(seed=11), A, tmp_path / "other")
    loader = DataLoader(other.attach(A), 8)
    mixed = DataLoader(ConcatDataset([stores[0].attach(T), other.attach(A)]), 44)
    for loaders in (loader, {"a": loader}, Wrapped(loader), DataLoader(Subset(other.attach(A), [1, 2]), 2), mixed):
        module = BCLightningModule(made(ManyLoaders), h1=stores[0])
        with pytest.raises(ValueError, match="of another h1|of different h1"):
            make_trainer(tmp_path).validate(module, loaders, verbose=False)


class OwnBatchSampler(BatchSampler):
    pass


@pytest.mark.parametrize(
    ("loaders", "ids"),
    [
        (lambda t, a: {"x": DataLoader(A, 8)}, range(20)),
        (lambda t, a: DataLoader(A, batch_sampler=OwnBatchSampler(SequentialSampler(A), 8, False)), range(20)),
        (lambda t, a: DataLoader(ConcatDataset([A, T]), 8), range(44)),
        (lambda t, a: DataLoader(ConcatDataset([a.attach(A), t.attach(T)]), 8), range(44)),
        (lambda t, a: DataLoader(Subset(a.attach(A), [5, 3, 9]), 2), [5, 3, 9]),
        (lambda t, a: Wrapped(DataLoader(a.attach(A), 8)), range(20)),
        (lambda t, a: Wrapped(DataLoader(A, 8)), None),
        (lambda t, a: DataLoader(A, batch_sampler=Reversing(SequentialSampler(A), 8, False)), None),
    ],
)
@pytest.mark.parametrize("h1", ["live", "stored"])
def test_ids_are_those_of_the_items(h1, loaders, ids, stores, tmp_path):
    given = loaders(*stores)
    if h1 == "stored" and not _brings_rows(given):
        pytest.skip("stored outputs need attached data: refused, as another test shows")
    options = LogComparisons(directory=tmp_path / "c")
    module = BCLightningModule(made(ManyLoaders), h1=make_h1() if h1 == "live" else stores[0], comparisons=options)
    said = (
        warnings.catch_warnings() if ids is not None else pytest.warns(UserWarning, match="It is not known which items")
    )
    with said:
        if ids is not None:
            warnings.filterwarnings("error", message="It is not known")
            warnings.filterwarnings("ignore", module="pytorch_lightning|torch")
        make_trainer(tmp_path).validate(module, given, verbose=False)
    (path,) = (tmp_path / "c").iterdir()
    table = Comparison.load(path).instances
    if ids is None:
        assert all(str(one).startswith("no. ") for one in table.ids.tolist())
        return
    whole = ConcatDataset([A, T])
    # Of these 44 items the first 20 are those of A.
    x, y = (torch.stack([whole[i][part] for i in ids]) for part in (0, 1))
    net = module.eval()
    with torch.no_grad():
        wrong = (make_h1()(x).argmax(1) != y) | (net.net(x).argmax(1) != y)
    assert sorted(table.ids.tolist()) == sorted(int(one) for one, bad in zip(ids, wrong.tolist(), strict=True) if bad)


def _brings_rows(loaders):
    loader = loaders["x"] if isinstance(loaders, dict) else getattr(loaders, "loader", loaders)
    return "row" in getattr(next(iter(loader)), "_fields", ())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_a_distributed_sampler_repeats_is_counted_once(tmp_path, monkeypatch):
    """29 items on two processes are 29 items, however their loader is made; so are 11 beside them."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    one, trained_by_one = found_with(1, str(tmp_path / "1"))
    done = run(SCRIPT.with_name("ddp_loaders.py"), str(tmp_path / "2"))
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    two, trained_by_two = json.loads(line.removeprefix("RESULT "))
    x, y = ITEMS.tensors
    refused = two.pop("order of its own")
    assert "repeats items" in refused
    assert "Trainer(devices=1)" in refused
    for name in two:
        assert two[name] == pytest.approx(one[name]), name
        assert two[name]["val_accuracy_h1"] == pytest.approx(right(x, y).mean().item()), name
        tables = [Comparison.load(next((tmp_path / devices / name).iterdir())).instances for devices in "12"]
        assert sorted(tables[0].ids.tolist()) == sorted(tables[1].ids.tolist()), name
    assert set(one) == set(LOADERS)
    check_training(trained_by_one, trained_by_two)


def check_training(one, two):
    # In the order in which a DistributedSampler of seed 0 goes through them in a first epoch.
    of_items, of_short = (
        right(*items.tensors)[torch.randperm(len(items), generator=torch.Generator().manual_seed(0))]
        for items in (ITEMS, SHORT)
    )
    # Two passes over the shorter beside one over the longer, on each of two processes.
    long, short = of_items.mean().item(), of_short.mean().item()
    expected = {
        "the longer": long,
        "a target of its own": long,
        "whole batches": long,
        "nested": short,
        "the shorter, several times": short,
        "the shortest ends it": of_items[:16].mean().item(),
    }
    for name, accuracy in expected.items():
        assert two[name] == {"train_accuracy_h1": pytest.approx(accuracy), "said": []}, name
    assert two["together"] == pytest.approx(short)
    # The second process leaves out the batches in which an item of either loader is a repeated one, its second and
    # fourth: the first counts 15 and twice 6 items, the second 8 and twice 3.
    counted = [of_items[::2], of_short[::2], of_short[::2]]
    counted += [of_items[1:8:2], of_items[17:24:2], of_short[1:6:2], of_short[1:6:2]]
    assert two["both"]["train_accuracy_h1"] == pytest.approx(torch.cat(counted).mean().item())
    (said,) = two["both"]["said"]
    assert "left out of the training's scores. Make the lengths" in said
    assert not one["both"]["said"]


def test_a_table_in_memory_travels_too(tmp_path):
    stored = StoredOutputs.from_table(make_h1()(A.tensors[0]).argmax(1))
    module = BCLightningModule(made(UserModule), h1=stored)
    found = make_trainer(tmp_path).validate(module, DataLoader(stored.attach(A), 8), verbose=False)[0]
    assert found["val_accuracy_h1"] == pytest.approx(right(*A.tensors).mean().item())
