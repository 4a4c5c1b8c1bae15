"""Stored rows belong to the items that a loader brought: what moves the items afterwards is refused in every stage."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, Subset, TensorDataset
from user_code import UserModule, dataset, fit, made, make_h1, make_trainer

from bc_core.reference import _stored_rows
from bc_lightning import BCLightningModule, StoredOutputs, store_outputs
from bc_lightning.batches._attached import split_batch

STAGES = ("train", "val", "test")
HOOK_STAGES = {"train": "train", "val": "validation", "test": "test"}
DATA = dataset(24)
ONE_CLASS = TensorDataset(DATA.tensors[0], torch.ones(24, dtype=torch.long))


def flipped(batch):
    batch[0], batch[1] = batch[0].flip(0), batch[1].flip(0)


def flipped_in_place(batch):
    for part in batch:
        part.copy_(part.flip(0))


def two_swapped(batch):
    order = torch.arange(len(batch[0]))
    order[[0, 3]] = order[[3, 0]]
    batch[0], batch[1] = batch[0][order], batch[1][order]


def drawn_anew(batch):
    order = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6])[: len(batch[0])]
    batch[0], batch[1] = batch[0][order], batch[1][order]


def scaled_and_flipped(batch):
    batch[0], batch[1] = 2 * batch[0].flip(0), batch[1].flip(0)


def scaled(batch):
    batch[0] = 2 * batch[0]


def scaled_in_place(batch):
    batch[0].mul_(2)


def noisy(batch):
    batch[0] = batch[0] + 0.01 * torch.randn(batch[0].shape)


def module_of(where, change, only):
    """A user's module that changes its batches in one hook, in one stage."""

    def changed(self, batch):
        stage = self.trainer.state.stage
        if (getattr(stage, "value", stage) or "").startswith({"val": "valid"}.get(only, only)):
            change(batch)
        return batch

    if where in ("on_before_batch_transfer", "on_after_batch_transfer"):
        members = {where: lambda self, batch, dataloader_idx: changed(self, batch)}
    elif where == "on_batch_start":
        # What it returns of training batches says whether to go on.
        members = {
            f"on_{name}_batch_start": lambda self, batch, *_: changed(self, batch) and None
            for name in HOOK_STAGES.values()
        }
    else:
        members = {
            name: lambda self, batch, batch_idx: F.cross_entropy(self(changed(self, batch)[0]), batch[1])
            for name in ("training_step", "validation_step", "test_step")
        }
    return made(type("Changing", (UserModule,), members))


def run(stage, module, data, tmp_path, **options):
    load = DataLoader(data, batch_size=8)
    if stage == "train":
        return fit(module, tmp_path, train=load, val=[], max_epochs=1, **options).callback_metrics
    trainer = make_trainer(tmp_path, **options)
    return getattr(trainer, {"val": "validate"}.get(stage, stage))(module, load, verbose=False)[0]


def h1_right(data):
    x, y = data.tensors
    with torch.no_grad():
        return (make_h1()(x).argmax(1) == y).float().mean().item()


PLACES = ["on_before_batch_transfer", "on_after_batch_transfer", "on_batch_start", "the step"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("data", [DATA, ONE_CLASS], ids=["classes", "one class"])
@pytest.mark.parametrize("change", [flipped, flipped_in_place, two_swapped, drawn_anew])
def test_items_that_are_moved_are_refused_and_the_remedy_works(change, data, where, stage, tmp_path):
    copies = TensorDataset(*(part.clone() for part in data.tensors))
    stored = StoredOutputs.from_table(make_h1()(data.tensors[0]).detach(), kind="logits")
    with pytest.raises(ValueError, match=r"in another order|inputs and targets of its own|another target") as refused:
        run(stage, BCLightningModule(module_of(where, change, stage), h1=stored), stored.attach(copies), tmp_path)
    if "another target" in str(refused.value):
        return
    assert "h1=old_model" in str(refused.value)
    found = run(stage, BCLightningModule(module_of(where, change, stage), h1=make_h1()), data, tmp_path)
    # Of those that were drawn anew some count twice.
    if change is not drawn_anew:
        assert float(found[f"{stage}_accuracy_h1"]) == pytest.approx(h1_right(data))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("where", ["on_before_batch_transfer", "on_after_batch_transfer"])
def test_items_that_are_changed_and_moved_are_told_by_their_targets(where, stage, tmp_path):
    stored = StoredOutputs.from_table(make_h1()(DATA.tensors[0]).detach(), kind="logits")
    module = BCLightningModule(module_of(where, scaled_and_flipped, stage), h1=stored)
    with pytest.raises(ValueError, match="in another order"):
        run(stage, module, stored.attach(DATA), tmp_path)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("where", PLACES[:3])
@pytest.mark.parametrize("change", [scaled, scaled_in_place, noisy])
def test_items_that_are_augmented_in_their_places_keep_their_rows(change, where, stage, tmp_path):
    copies = TensorDataset(*(part.clone() for part in DATA.tensors))
    stored = StoredOutputs.from_table(make_h1()(DATA.tensors[0]).detach(), kind="logits")
    found = run(stage, BCLightningModule(module_of(where, change, stage), h1=stored), stored.attach(copies), tmp_path)
    assert float(found[f"{stage}_accuracy_h1"]) == pytest.approx(h1_right(DATA))


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_of_one_class_in_another_precision(precision, tmp_path):
    stored = StoredOutputs.from_table(make_h1()(DATA.tensors[0]).detach(), kind="logits")
    module = BCLightningModule(module_of("on_after_batch_transfer", flipped, "val"), h1=stored)
    with pytest.raises(ValueError, match="in another order"):
        run("val", module, stored.attach(ONE_CLASS), tmp_path, precision=precision)


class Reorders(pl.Callback):
    def on_validation_batch_start(self, trainer, module, batch, *_):
        flipped(batch)


def test_a_callback_that_moves_items(tmp_path):
    stored = StoredOutputs.from_table(make_h1()(DATA.tensors[0]).detach(), kind="logits")
    module = BCLightningModule(made(UserModule), h1=stored)
    with pytest.raises(ValueError, match="in another order"):
        run("val", module, stored.attach(ONE_CLASS), tmp_path, callbacks=[Reorders()])


class Sentences(Dataset):
    """Of different lengths, so that people sort them."""

    def __init__(self):
        self.lengths = [int(n) for n in torch.randint(1, 9, (24,), generator=torch.Generator().manual_seed(2))]

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return torch.full((self.lengths[i],), float(i)), i % 3


def padded(items):
    return torch.nn.utils.rnn.pad_sequence([x for x, _ in items], batch_first=True), [y for _, y in items]


def sorted_in_place(items):
    items.sort(key=lambda item: -len(item[0]))
    return padded(items)


def without_short_ones(items):
    items[:] = [item for item in items if len(item[0]) > 2]
    return padded(items)


@pytest.mark.parametrize("collate", [padded, sorted_in_place, without_short_ones])
def test_collate_functions_that_change_their_list_take_the_rows_along(collate):
    stored = StoredOutputs.from_table(torch.arange(24))
    seen = 0
    for batch in DataLoader(stored.attach(Sentences()), batch_size=8, collate_fn=stored.collate_fn(collate)):
        (x, y), brought = split_batch(batch)
        # The first entry of each is its index.
        assert x[:, 0].tolist() == brought.rows.tolist() == brought.indices.tolist()
        assert [index % 3 for index in brought.indices.tolist()] == y
        seen += len(y)
    assert seen == (24 if collate is not without_short_ones else sum(n > 2 for n in Sentences().lengths))


@pytest.mark.parametrize("where", ["tuple", "dict"])
def test_collate_functions_that_make_another_order_are_refused(where):
    def collate(items):
        items = sorted(items, key=lambda item: -len(item[0]))
        x, y = padded(items)
        if where == "dict":
            return {"length": torch.tensor([len(x) for x, _ in items]), "y": y}
        return x, y

    class Items(Sentences):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            return {"x": x, "y": y} if where == "dict" else (x, y)

    given = collate if where != "dict" else lambda items: collate([(item["x"], item["y"]) for item in items])
    stored = StoredOutputs.from_table(torch.arange(24))
    loader = DataLoader(stored.attach(Items()), batch_size=8, collate_fn=stored.collate_fn(given))
    with pytest.raises(ValueError, match=r"another order.*items\.sort.*h1=old_model"):
        list(loader)


def test_collate_functions_that_map_labels_are_no_reordering():
    def collate(items):
        return torch.stack([x for x, _ in items]), torch.tensor([1 - y for _, y in items])

    stored = StoredOutputs.from_table(torch.arange(24))
    items = TensorDataset(DATA.tensors[0], torch.arange(24) % 2)
    loader = DataLoader(stored.attach(items), batch_size=8, collate_fn=stored.collate_fn(collate))
    assert torch.cat([split_batch(batch)[1].rows for batch in loader]).tolist() == list(range(24))


# Data sets that are asked for a batch at once


class Columns(Dataset):
    """As of the `datasets` library: a dict of columns for several indices, of numbers for one."""

    def __init__(self, sort=False):
        self.sort = sort

    def __len__(self):
        return 24

    def __getitem__(self, i):
        if isinstance(i, list):
            i = sorted(i) if self.sort else i
        return {"x": DATA.tensors[0][i], "y": DATA.tensors[1][i], "name": f"n{i}" if isinstance(i, int) else i}


@pytest.mark.parametrize("kind", [lambda: DATA, Columns, lambda: Subset(DATA, range(24))])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_that_the_data_set_makes_bring_their_rows(kind, num_workers, tmp_path):
    h1 = make_h1()
    data = kind()
    where = {"inputs": "x"} if isinstance(data, Columns) else {}
    collate = {"collate_fn": lambda items: {"x": torch.stack([item["x"] for item in items])}} if where else {}
    stored = store_outputs(h1, data, tmp_path / "s", **where, **collate)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1)).tolist()
    loader = DataLoader(
        stored.attach(data), batch_size=None, sampler=BatchSampler(order, 5, drop_last=False), num_workers=num_workers
    )
    seen = []
    for batch in loader:
        user, brought = split_batch(batch)
        x = user["x"] if isinstance(user, dict) else user[0]
        torch.testing.assert_close(brought.rows, h1(x).detach())
        assert torch.equal(x, DATA.tensors[0][brought.indices])
        seen += brought.indices.tolist()
    assert seen == order
    own = DataLoader(
        stored.attach(data), batch_size=None, sampler=BatchSampler(order, 5, False), collate_fn=stored.collate_fn(list)
    )
    assert isinstance(split_batch(next(iter(own)))[0], list)


def test_training_on_them(tmp_path):
    stored = StoredOutputs.from_table(make_h1()(DATA.tensors[0]).detach(), kind="logits")
    sampler = BatchSampler(torch.utils.data.RandomSampler(DATA), 5, drop_last=False)
    loader = DataLoader(stored.attach(DATA), batch_size=None, sampler=sampler)
    found = fit(BCLightningModule(made(UserModule), h1=stored), tmp_path, train=loader, val=loader, max_epochs=1)
    for stage in ("train", "val"):
        assert float(found.callback_metrics[f"{stage}_accuracy_h1"]) == pytest.approx(h1_right(DATA))


def test_items_of_such_batches_are_verified(tmp_path):
    stored = store_outputs(make_h1(), DATA, tmp_path / "s")
    x = DATA.tensors[0].clone()
    at = next(i for i in range(24) if i not in _stored_rows.sampled(24))
    x[at] += 1
    changed = TensorDataset(x, DATA.tensors[1])
    loader = DataLoader(stored.attach(changed), batch_size=None, sampler=BatchSampler(range(24), 4, False))
    with pytest.raises(ValueError, match=f"item {at} of the data set is not the one"):
        list(loader)
    columns = {"inputs": "x", "collate_fn": lambda items: {"x": torch.stack([item["x"] for item in items])}}
    sorting = Columns(sort=True)
    stored = store_outputs(make_h1(), Nameless(sorting), tmp_path / "t", **columns)
    with pytest.raises(ValueError, match="is not the one that h1's output was stored for"):
        stored.attach(Nameless(sorting))[[7, 3, 4]]


class Nameless(Dataset):
    def __init__(self, columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns)

    def __getitem__(self, i):
        return {key: value for key, value in self.columns[i].items() if key != "name"}


@pytest.mark.parametrize("index", [[3, -1], slice(2, 6), torch.tensor([4, 1]), range(2), [], torch.arange(24) < 3])
def test_several_items_at_once(index):
    stored = StoredOutputs.from_table(torch.arange(24))
    batch = stored.attach(DATA)[index]
    expected = torch.arange(24)[torch.as_tensor(list(index)).long() if isinstance(index, (list, range)) else index]
    assert batch.index.tolist() == batch.row.tensor.tolist() == expected.tolist()
    assert torch.equal(batch.sample[0], DATA.tensors[0][expected])
    with pytest.raises(IndexError, match="index 24 is outside a data set of 24 items"):
        stored.attach(DATA)[[1, 24]]


@pytest.mark.parametrize("part", [slice(0, 4), slice(4, 8)])
def test_a_step_that_asks_h2_of_some_items_is_refused_and_the_remedy_works(part, tmp_path):
    class Some(UserModule):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0][part]), batch[1][part])

    h1 = make_h1()
    stored = store_outputs(h1, DATA, tmp_path / "h1")
    with pytest.raises(ValueError, match=r"not all of them.*h1=old_model"):
        fit(BCLightningModule(made(Some), h1=stored), tmp_path, DataLoader(stored.attach(DATA), 8), [])
    trainer = fit(BCLightningModule(made(Some), h1=h1), tmp_path, DataLoader(DATA, 8), [], max_epochs=1)
    with torch.no_grad():
        right = (h1(DATA.tensors[0]).argmax(1) == DATA.tensors[1]).view(3, 8)[:, part].float().mean()
    assert float(trainer.callback_metrics["train_accuracy_h1"]) == pytest.approx(float(right))


class Named(Dataset):
    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        return dict(zip("xy", DATA[index], strict=True))


def _of_pairs(items):
    return [torch.stack(part) for part in zip(*((x, y) for x, y in items), strict=True)]


def _of_names(items):
    return [torch.stack([item[name] for item in items]) for name in "xy"]


def _of_samples(items):
    return _of_pairs([item[0] for item in items])


@pytest.mark.parametrize(
    ("data", "collate", "works"), [(DATA, _of_pairs, True), (Named(), _of_names, True), (DATA, _of_samples, False)]
)
@pytest.mark.parametrize("stage", ["train", "val"])
def test_a_collate_function_that_knows_nothing_of_rows(data, collate, works, stage, tmp_path):
    stored = store_outputs(make_h1(), data, tmp_path / "h1", inputs=None if data is DATA else "x")

    def run(collate_fn):
        given = DataLoader(stored.attach(data), 8, collate_fn=collate_fn)
        plain = DataLoader(stored.attach(data), 8, collate_fn=stored.collate_fn(_of_pairs if data is DATA else collate))
        loaders = (given, plain) if stage == "train" else (plain, given)
        return fit(BCLightningModule(made(UserModule), h1=stored), tmp_path, *loaders, max_epochs=1)

    with pytest.raises(TypeError, match=rf"{collate.__name__} knows nothing.*collate_fn=stored.collate_fn\("):
        run(collate)
    if works:
        trainer = run(stored.collate_fn(collate))
        accuracy = (make_h1()(DATA.tensors[0]).argmax(1) == DATA.tensors[1]).float().mean()
        assert float(trainer.callback_metrics[f"{stage}_accuracy_h1"]) == pytest.approx(float(accuracy))


def test_a_collate_function_that_calls_ours_is_one_for_both(tmp_path):
    stored = store_outputs(make_h1(), DATA, tmp_path / "h1")

    def both(items):
        return stored.collate_fn(_of_pairs)(items)

    data = DataLoader(stored.attach(DATA), 8, collate_fn=both)
    fit(BCLightningModule(made(UserModule), h1=stored), tmp_path, data, data, max_epochs=1)
