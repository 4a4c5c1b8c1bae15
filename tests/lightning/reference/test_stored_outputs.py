"""h1's outputs by way of the Trainer and into its loaders; what both sides promise is in `tests/conformance`."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections import namedtuple

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from bc_core.reference import _stored_rows
from bc_lightning.batches._attached import WithReference, split_batch
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._stored import StoredOutputs, store_outputs

N, CLASSES = 37, 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(self.body(x))


class Counted(Net):
    """Counts the instances that it was asked about, and stops working after some."""

    def __init__(self, limit: float = float("inf")) -> None:
        super().__init__()
        self.asked, self.limit = 0, limit

    def forward(self, x):
        if self.asked + len(x) > self.limit:
            raise RuntimeError("power cut")
        self.asked += len(x)
        return super().forward(x)


def trained(kind: type[Net] = Net, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    model = kind()
    model(torch.randn(64, 4) * 3 + 1)
    if isinstance(model, Counted):
        model.asked = 0
    return model


def data(n: int = N, seed: int = 1) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, 4, generator=generator), torch.randint(CLASSES, (n,), generator=generator))


def by_hand(model: nn.Module, dataset: Dataset) -> torch.Tensor:
    """One instance at a time through a copy in eval mode."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return torch.cat([model(dataset[i][0][None]) for i in range(len(dataset))])


def trainer_of(package, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    return package.Trainer(**{**quiet, "enable_model_summary": False, "devices": 1, **options})


@pytest.fixture
def stored(tmp_path) -> StoredOutputs:
    return store_outputs(trained(), data(), tmp_path / "stored", batch_size=8)


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


# Refusals while computing


class Augmented(Dataset):
    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        x, y = self.inner[i]
        return x + 0.01 * torch.randn(4), y


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


# Attaching


@pytest.mark.parametrize(("num_workers", "context"), [(0, "fork"), (2, "fork"), (2, "spawn")])
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


class PressesCtrlC(Counted):
    """As `Counted`, but Ctrl-C is what stops it."""

    def forward(self, x):
        if self.asked + len(x) > self.limit:
            self.limit = float("inf")
            signal.raise_signal(signal.SIGINT)
        return super().forward(x)


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal; processes in the background begin with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("package", [lightning.pytorch, pytorch_lightning])
def test_ctrl_c_of_a_given_trainer_is_a_keyboard_interrupt_and_keeps_what_was_done(tmp_path, package):
    model = trained(PressesCtrlC)
    for press in (1, 2):
        # Also the second time: Lightning leaves Ctrl-C ignored after the first.
        model.limit = model.asked + 1 + 16
        with pytest.raises(KeyboardInterrupt):
            store_outputs(model, data(), tmp_path / "s", batch_size=8, trainer=trainer_of(package))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert np.load(tmp_path / "s" / "done.npy").sum() >= 8 * press
    before = model.asked
    stored = store_outputs(model, data(), tmp_path / "s")
    assert model.asked - before < N
    torch.testing.assert_close(stored[:], by_hand(trained(PressesCtrlC), data()))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes a small disk")
def test_a_disk_that_is_really_full_does_not_end_the_process(tmp_path):
    script = """
        import sys, torch
        from torch.utils.data import TensorDataset
        from bc_lightning import store_outputs
        try:
            store_outputs(torch.nn.Linear(4, 64), TensorDataset(torch.randn(20000, 4)), sys.argv[1], batch_size=1000)
        except OSError as error:
            print("told:", error)
    """
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("no mount in this container")
    try:
        command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "h1")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
    assert (result.returncode, result.stdout.strip()[:28]) == (0, "told: [Errno 28] h1's output"), result.stderr


# Several processes


SCRIPT = """
    import os, signal, sys
    import torch
    import {package} as pl
    from torch import nn
    from torch.utils.data import TensorDataset
    from bc_core.reference import _stored_rows
    from bc_lightning.reference._stored import store_outputs

    class H1(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
            self.net(torch.randn(64, 4) * 3 + 1)
            self.asked = 0

        def forward(self, x):
            self.asked += len(x)
            if self.asked > int(os.environ.get("KILL_AFTER", "1000000")):
                os.kill(os.getpid(), signal.SIGKILL)
            print("asked", len(x), flush=True)
            return self.net(x)

    def items(n):
        generator = torch.Generator().manual_seed(1)
        return TensorDataset(torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator))

    if __name__ == "__main__":
        torch.set_num_threads(1)
        _stored_rows.FLUSH_SECONDS = 0.0
        strategy, devices, n = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
        trainer = pl.Trainer(
            accelerator="cpu", strategy=strategy, devices=devices, logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False,
        )
        stored = store_outputs(H1(), items(n), sys.argv[1], trainer=trainer, batch_size=4)
        h1 = H1().eval()
        with torch.no_grad():
            expected = torch.cat([h1(items(n)[i][0][None]) for i in range(n)])
        torch.testing.assert_close(stored[:], expected)
        stored.attach(items(n))
        # In one write: two processes share the pipe.
        os.write(1, f"complete {os.environ.get('LOCAL_RANK', '0')}\\n".encode())
"""


def run_script(tmp_path, strategy, devices, n, package="pytorch_lightning", **environment):
    script = tmp_path / "store.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("{package}", package))
    return subprocess.run(
        [sys.executable, str(script), str(tmp_path / "stored"), strategy, str(devices), str(n)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "n", "package"),
    [("ddp", N, "pytorch_lightning"), ("ddp", 1, "lightning.pytorch"), ("ddp_spawn", N, "lightning.pytorch")],
)
def test_two_processes_share_the_work(tmp_path, strategy, n, package):
    result = run_script(tmp_path, strategy, 2, n, package)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "complete 0" in result.stdout
    header = json.loads((tmp_path / "stored" / "header.json").read_text())
    assert header["complete"]
    assert np.load(tmp_path / "stored" / "done.npy").all()


@pytest.mark.slow
def test_killed_work_is_taken_up_where_it_stopped(tmp_path):
    killed = run_script(tmp_path, "auto", 1, N, KILL_AFTER="22")
    assert killed.returncode == -signal.SIGKILL
    # One item to learn the shape, then five whole batches of four.
    done = int(np.load(tmp_path / "stored" / "done.npy").sum())
    assert done == 20
    resumed = run_script(tmp_path, "ddp", 2, N)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "complete 0" in resumed.stdout
