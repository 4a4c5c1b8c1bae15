"""h1's outputs by way of the Trainer and into its loaders; what both sides promise is in `tests/conformance`."""

from __future__ import annotations

import json
import warnings

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from stored_in_torch import CLASSES, Augmented, Counted, N, by_hand, data, trained, trainer_of
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from bc_core.reference import _stored_rows
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._stored import StoredOutputs, store_outputs

# Computing


@pytest.mark.parametrize("package", [None, pytorch_lightning, lightning.pytorch])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_are_those_of_h1_in_eval_mode(tmp_path, package, num_workers):
    model = trained().train()
    expected = by_hand(model, data())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    trainer = package and trainer_of(package)
    stored = store_outputs(model, data(), tmp_path / "stored", trainer=trainer, batch_size=8, num_workers=num_workers)
    torch.testing.assert_close(stored[:], expected)
    assert stored[:].dtype == torch.float32
    assert (len(stored), stored.shape, stored.num_classes, stored.labels_only) == (N, (N, CLASSES), CLASSES, False)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert not any(module.training for module in model.modules())
    assert stored.fingerprint == Reference(model).fingerprint


def test_original_triples_mappings_and_custom_batches_are_understood(tmp_path):
    class Items(Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            x, y = data()[i]
            return {"pixels": x, "label": y, "name": f"item {i}"}

    def collate(items):
        return {"pixels": torch.stack([item["pixels"] for item in items]), "names": [item["name"] for item in items]}

    stored = store_outputs(
        lambda x: (x, x.softmax(1), x.log_softmax(1)), Items(), tmp_path, inputs="pixels", collate_fn=collate
    )
    assert torch.equal(stored[:], data()[:][0])


def test_a_trainer_in_true_half_precision_neither_changes_h1_nor_rounds_it(tmp_path):
    model = trained()
    expected = by_hand(model, data())
    stored = store_outputs(model, data(), tmp_path / "s", trainer=trainer_of(pytorch_lightning, precision="bf16-true"))
    torch.testing.assert_close(stored[:], expected)
    assert model.head.weight.dtype == torch.float32


def test_a_reference_is_stored_in_its_own_classes(tmp_path):
    model = trained()
    stored = store_outputs(Reference(model, class_map=[4, 3, 2]), data(), tmp_path / "s")
    assert stored.num_classes == CLASSES
    torch.testing.assert_close(stored[:], by_hand(model, data()))


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    model = trained()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    stored = store_outputs(model, data(), tmp_path / "s")
    stored.attach(data())
    store_outputs(model, data(), tmp_path / "s")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


# Reusing and resuming


def test_interrupted_work_is_taken_up_where_it_stopped(tmp_path):
    model = trained(Counted)

    def stop(x, forward=model.forward):
        if model.asked >= 17:
            raise KeyboardInterrupt
        return forward(x)

    model.forward = stop
    # Lightning turns the interruption into its own way of stopping.
    with pytest.raises((RuntimeError, KeyboardInterrupt, SystemExit)):
        store_outputs(model, data(), tmp_path / "s", batch_size=4)
    del model.forward
    assert np.load(tmp_path / "s" / "done.npy").sum() == 16
    model.asked = 0
    stored = store_outputs(model, data(), tmp_path / "s", batch_size=4)
    # The rest, one item to learn the shape at most, and eight that are asked again.
    assert model.asked <= N - 16 + 1 + _stored_rows.SAMPLED_ITEMS
    torch.testing.assert_close(stored[:], by_hand(trained(), data()))
    stored.attach(data())


def test_a_callable_of_the_same_name_with_other_answers_is_refused(tmp_path):
    weights = torch.ones(4)

    def service(x):
        return x * weights

    store_outputs(service, data(), tmp_path / "s")
    weights.mul_(2)
    for read in (
        lambda: store_outputs(service, data(), tmp_path / "s"),
        lambda: StoredOutputs.open(tmp_path / "s", service),
        lambda: StoredOutputs.open(tmp_path / "s").verify(service, data()),
    ):
        with pytest.raises(ValueError, match="outputs of another h1"):
            read()
    weights.div_(2)
    StoredOutputs.open(tmp_path / "s", service)


class Scaled:
    """What holds its weights where nobody can look."""

    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor


def test_a_callable_that_cannot_be_read_is_told_by_its_answers(tmp_path):
    weights = Scaled(1.0)

    def service(x):
        return x * weights.factor

    store_outputs(service, data(), tmp_path / "s")
    with pytest.warns(UserWarning, match=r"by its name alone.*h1\.fingerprint = "):
        StoredOutputs.open(tmp_path / "s", service)
    weights.factor = 2.0
    with pytest.raises(ValueError, match=r"h1 now answers otherwise about item \d+"):
        store_outputs(service, data(), tmp_path / "s")
    # The remedy that is named.
    service.fingerprint = "service-2026-11"
    store_outputs(service, data(), tmp_path / "s", overwrite=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StoredOutputs.open(tmp_path / "s", service)
    service.fingerprint = "service-2026-12"
    with pytest.raises(ValueError, match="outputs of another h1"):
        StoredOutputs.open(tmp_path / "s", service)


def test_outputs_of_a_callable_that_an_earlier_version_stored_are_read(tmp_path):
    def service(x):
        return x * 2

    store_outputs(service, data(), tmp_path / "s")
    header = json.loads((tmp_path / "s" / "header.json").read_text())
    (tmp_path / "s" / "header.json").write_text(json.dumps({**header, "h1": header["h1"].partition("#")[0]}))
    with pytest.warns(UserWarning, match="by its name alone"):
        stored = StoredOutputs.open(tmp_path / "s", service)
    stored.verify(service, data())

    store_outputs(service, data(), tmp_path / "s")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(data())


def test_random_augmentation_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"item \d+ .* differs when it is read twice.*without random augmentation"):
        store_outputs(trained(), Augmented(data()), tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("dataset", "error", "said"),
    [
        (Stream(), TypeError, "an iterable data set has none"),
        (DataLoader(data()), TypeError, "give the data set, not its data loader"),
        (TensorDataset(torch.zeros(0, 4)), ValueError, "empty"),
    ],
)
def test_data_sets_without_an_index_are_refused(tmp_path, stored, dataset, error, said):
    with pytest.raises(error, match=said):
        store_outputs(trained(), dataset, tmp_path / "s")
    with pytest.raises(error, match=said):
        stored.attach(dataset)


def test_wrong_numbers_of_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(2, 4\) for a batch of one item"):
        store_outputs(lambda x: torch.cat([x, x]), data(), tmp_path / "s")


@pytest.mark.parametrize(
    "option", [{"limit_predict_batches": 1}, {"limit_predict_batches": 0.5}, {"fast_dev_run": True}]
)
def test_trainers_that_leave_items_out_are_refused(tmp_path, option):
    with pytest.raises(ValueError, match="predicts a part of the data only"):
        store_outputs(trained(), data(), tmp_path / "s", trainer=trainer_of(pytorch_lightning, **option))


def test_other_trainers_and_batch_sizes_are_refused(tmp_path):
    class Trainer:
        limit_predict_batches, num_nodes = 1.0, 2

    with pytest.raises(ValueError, match="several machines"):
        store_outputs(trained(), data(), tmp_path / "s", trainer=Trainer())
    Trainer.num_nodes = 1
    with pytest.raises(TypeError, match=r"Trainer of pytorch_lightning or lightning\.pytorch, got Trainer"):
        store_outputs(trained(), data(), tmp_path / "s", trainer=Trainer())
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        store_outputs(trained(), data(), tmp_path / "s", batch_size=0)


# Opening


def test_opening_and_verifying_take_a_reference(stored):
    StoredOutputs.open(stored.path, h1=Reference(trained())).verify(Reference(trained()), data())
    with pytest.raises(ValueError, match="outputs of another h1"):
        StoredOutputs.open(stored.path, h1=Reference(trained(seed=4)))


# Tables


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_table_of_scores_gives_back_the_probabilities(dtype):
    p = torch.tensor([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]], dtype=dtype)
    tables = [StoredOutputs.from_table(p, kind="probabilities"), StoredOutputs.from_table(p.log(), "log_probabilities")]
    for table in tables:
        assert torch.isfinite(table[:]).all()
        assert torch.isfinite(table[:].log_softmax(1)).all()
        torch.testing.assert_close(table[:].softmax(1), p.to(table[:].dtype), rtol=2e-3, atol=1e-6)
        assert table.num_classes == 3
    logits = torch.randn(4, 3, dtype=dtype)
    assert torch.equal(StoredOutputs.from_table(logits, kind="logits")[:], logits.to(table[:].dtype))


def test_tables_are_named_by_their_content():
    column = np.array([1, 0, 2])
    column.flags.writeable = False  # as pandas gives one
    table = StoredOutputs.from_table(column)
    assert Reference(table).fingerprint == table.fingerprint
