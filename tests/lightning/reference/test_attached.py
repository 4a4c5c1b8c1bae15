"""Data sets whose batches bring the rows of their items."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from stored_in_torch import CLASSES, Augmented, N, by_hand, data, trained
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from bc_core.reference import _stored_rows
from bc_lightning.batches._attached import WithReference, split_batch
from bc_lightning.reference._stored import store_outputs

# Attaching


@pytest.mark.parametrize(("num_workers", "context"), [(0, "fork"), (2, "fork"), (1, "spawn")])
def test_every_batch_brings_the_rows_of_its_items(stored, num_workers, context):
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        stored.attach(data()),
        batch_size=5,
        shuffle=True,
        generator=generator,
        num_workers=num_workers,
        multiprocessing_context=context if num_workers else None,
    )
    expected = by_hand(trained(), data())
    seen = []
    for batch in loader:
        assert isinstance(batch, WithReference)
        (x, y), (rows, indices, *_) = split_batch(batch)
        assert torch.equal(x, data()[:][0][indices])
        assert torch.equal(y, data()[:][1][indices])
        torch.testing.assert_close(rows, expected[indices])
        seen += indices.tolist()
    assert sorted(seen) == list(range(N))
    assert seen != sorted(seen)


def test_batches_that_no_attached_data_set_made_are_left_alone():
    for batch in ((1, 2), {"x": 1}, torch.zeros(2)):
        user_batch, brought = split_batch(batch)
        assert user_batch is batch
        assert brought is None


def test_pinned_batches_are_recognised(stored):
    batch = next(iter(DataLoader(stored.attach(data()), batch_size=3)))
    # What torch's pin_memory and Lightning's transfer do with a named tuple.
    rebuilt = type(batch)(*(part for part in batch))
    assert split_batch(rebuilt)[1].rows is batch.row.tensor


def test_batched_fetch_of_the_data_set_is_used(stored):
    calls = []

    class Batched(Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            return data()[i]

        def __getitems__(self, indices):
            calls.append(list(indices))
            return [data()[i] for i in indices]

    next(iter(DataLoader(stored.attach(Batched()), batch_size=4)))
    assert calls == [[0, 1, 2, 3]]


def test_single_items_negative_indices_and_the_end(stored):
    attached = stored.attach(data())
    assert len(attached) == N
    assert attached[-1].index == N - 1
    torch.testing.assert_close(attached[-1].row.tensor, by_hand(trained(), data())[-1])
    for index in (N, -N - 1):
        with pytest.raises(IndexError, match="outside a data set of 37 items"):
            attached[index]


def test_unbatched_loading_keeps_rows(stored):
    batch = next(iter(DataLoader(stored.attach(data()), batch_size=None)))
    _, (row, index, *_) = split_batch(batch)
    assert row.shape == (CLASSES,)
    assert int(index) == 0


def test_own_collate_functions_see_their_own_items(stored):
    Pair = namedtuple("Pair", ["xs", "ys"])

    def collate(items):
        assert all(isinstance(item, tuple) and len(item) == 2 for item in items)
        return Pair([x for x, _ in items], [int(y) for _, y in items])

    loader = DataLoader(stored.attach(data()), batch_size=4, collate_fn=stored.collate_fn(collate))
    batch, (rows, indices, *_) = split_batch(next(iter(loader)))
    assert type(batch) is Pair
    assert indices.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(rows, by_hand(trained(), data())[:4])
    default = DataLoader(stored.attach(data()), batch_size=4, collate_fn=stored.collate_fn())
    torch.testing.assert_close(next(iter(default)).row.tensor, rows)


def test_subsets_of_the_attached_data_set_keep_their_rows(stored):
    some = [30, 2, 17]
    batch = next(iter(DataLoader(Subset(stored.attach(data()), some), batch_size=3)))
    assert batch.index.tolist() == some
    torch.testing.assert_close(batch.row.tensor, by_hand(trained(), data())[some])


def test_a_subset_is_a_data_set_of_its_own(stored, tmp_path):
    subset = Subset(data(), range(10, 20))
    with pytest.raises(ValueError, match="has 10 items, but h1's outputs were stored for 37"):
        stored.attach(subset)
    own = store_outputs(trained(), subset, tmp_path / "subset")
    torch.testing.assert_close(own.attach(subset)[3].row.tensor, by_hand(trained(), data())[13])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_single_changed_item_is_found_when_it_is_read(stored, num_workers):
    sampled = _stored_rows.sampled(N)
    changed = next(i for i in range(N) if i not in sampled)
    tensors = [t.clone() for t in data().tensors]
    tensors[0][changed, 0] += 1e-3
    attached = stored.attach(TensorDataset(*tensors))
    with pytest.raises(ValueError, match=rf"item {changed} of the data set is not the one.*augments at random"):
        list(DataLoader(attached, batch_size=4, num_workers=num_workers))
    assert len(list(DataLoader(stored.attach(TensorDataset(*tensors), verify=False), batch_size=4))) == 10


def test_augmentation_added_later_is_found(stored):
    with pytest.raises(ValueError, match="augments at random"):
        stored.attach(Augmented(data()))
