"""Batches ``(ids, x, y)``, as the original's data sets are: known, or told of with a remedy that works."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bc_lightning import BCLightningModule, CompatibilityAnalysis, ModelComparison, evaluate, sweep

SGD = torch.optim.SGD


def batches(ids=list, offset=0, seed=0):
    torch.manual_seed(seed)
    return [(ids(range(offset + 8 * i, offset + 8 * i + 8)), torch.randn(8, 5), torch.arange(8) % 3) for i in range(3)]


KINDS = {
    "numbers": list,
    "tensors": lambda numbers: torch.tensor(list(numbers)),
    "arrays": lambda numbers: np.array(list(numbers)),
    "text": lambda numbers: [f"n{number}" for number in numbers],
}


def net():
    torch.manual_seed(1)
    return nn.Linear(5, 3)


def wrong_ids(h1, h2, data):
    found = []
    for ids, x, y in data:
        wrong = (h1(x).argmax(1) != y) | (h2(x).argmax(1) != y)
        found += [
            str(each.item() if hasattr(each, "item") else each) for each, bad in zip(ids, wrong, strict=True) if bad
        ]
    return found


def trainer():
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


def options(folder):
    return {
        "folder": folder, "lambdas": [0, 1], "losses": ["new_error"], "optimizer": SGD, "tensorboard": False,
        "trainer": {"max_epochs": 1, "accelerator": "cpu"}, "progress_bar": False,
    }  # fmt: skip


def trained_by_hand(h2, data, rate=0.1):
    optimizer = SGD(h2.parameters(), rate)
    for _, x, y in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(h2(x), y).backward()
        optimizer.step()
    return h2


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_the_widget_and_a_sweep_know_them_in_a_list(tmp_path, kind):
    h1, h2, data = nn.Linear(5, 3), net(), batches(KINDS[kind])
    wanted = wrong_ids(h1, h2, data)
    for found in (evaluate(h1, h2, data), ModelComparison(h1, h2, data)):
        assert list(map(str, found.comparison.instances.ids)) == wanted
    found = sweep(net(), h1, data, test=data, **options(tmp_path / "s"))
    model = net()
    model.load_state_dict(torch.load(found.model_path("new_error", 0.0)))
    for dataset in ("train", "test"):
        comparison = found.comparison("new_error", 0.0, dataset=dataset)
        assert list(map(str, comparison.instances.ids)) == wrong_ids(h1, model, data)


def test_a_sweep_trains_on_the_second_towards_the_third(tmp_path):
    data = batches()
    given = {**options(tmp_path / "s"), "optimizer": lambda parameters: SGD(parameters, 0.1)}
    found = sweep(net(), nn.Linear(5, 3), data, test=data, **given)
    trained = torch.load(found.model_path("new_error", 0.0))
    for key, value in trained_by_hand(net(), data).state_dict().items():
        torch.testing.assert_close(trained[key], value)


def test_items_of_a_data_set_that_look_like_them_are_refused_and_the_remedy_works(tmp_path):
    data = batches()
    x, y = (torch.cat([batch[part] for batch in data]) for part in (1, 2))
    loader = DataLoader(TensorDataset(torch.arange(100, 124), x, y), batch_size=8)
    h1 = nn.Linear(5, 3)
    with pytest.raises(ValueError, match="say what they are, ids=0, inputs=1, target=2"):
        sweep(net(), h1, loader, test=loader, **options(tmp_path / "s"))
    found = sweep(net(), h1, loader, test=loader, ids=0, inputs=1, target=2, **options(tmp_path / "s"))
    assert min(found.comparison("new_error", 1.0, dataset="test").instances.ids) >= 100


@pytest.mark.parametrize("as_loader", [False, True])
def test_ids_that_name_two_instances_are_told_before_training_and_left_out_as_advised(tmp_path, as_loader):
    # Each batch begins with the last instance of the one before, as in the original's demonstration.
    data = [([8 * i + j - i for j in range(8)], x, y) for i, (_, x, y) in enumerate(batches())]

    class NotTrained(nn.Linear):
        def forward(self, x):
            assert not self.training
            return super().forward(x)

    h1 = nn.Linear(5, 3)
    places = {}
    given = data
    if as_loader:
        ids, x, y = ([*part] for part in zip(*data, strict=True))
        given = DataLoader(TensorDataset(torch.tensor(ids).reshape(-1), torch.cat(x), torch.cat(y)), batch_size=8)
        places = {"ids": 0, "inputs": 1, "target": 2}
    with pytest.raises(ValueError, match="must be unique.*7, 14 more than once, 2 of 22 different ids") as told:
        sweep(NotTrained(5, 3), h1, given, test=given, **places, **options(tmp_path / "s"))
    assert "[(x, y) for ids, x, y in batches]" in str(told.value)
    left_out = [(x, y) for ids, x, y in data]
    found = sweep(net(), h1, left_out, test=left_out, **options(tmp_path / "t"))
    assert found.comparison("new_error", 1.0, dataset="test").dataset_size == 24


def test_the_widget_tells_of_them_when_it_is_started(tmp_path):
    data = batches() + batches(offset=23)
    given = (1, nn.Linear(5, 3), net(), batches(), data, 8, 8)
    shown = CompatibilityAnalysis(tmp_path / "s", *given, lambda_c_stepsize=1.0)
    with pytest.raises(ValueError, match="ids of test_set must be unique.*23 more than once"):
        shown.start()
    shown.test_set = [(x, y) for ids, x, y in data]
    shown.training_set = [(x, y) for ids, x, y in shown.training_set]
    assert len(shown.start(background=False, tensorboard=False).points) == 3


def test_three_parts_that_are_no_ids_are_refused_by_the_widget_before_training(tmp_path):
    weighed = [(x, y, torch.ones(8)) for _, x, y in batches()]
    shown = CompatibilityAnalysis(tmp_path / "s", 1, nn.Linear(5, 3), net(), weighed, None, 8, 8)
    with pytest.raises((TypeError, ValueError), match="ids of training_set"):
        shown.start()


def test_fit_of_a_plain_module_says_where_things_are_and_the_remedy_works():
    data, h1 = batches(), nn.Linear(5, 3)
    common = {"h1": h1, "lambda_c": 0.0, "optimizer": lambda parameters: SGD(parameters, 0.1)}
    loader = DataLoader(data, batch_size=None)
    with pytest.raises(ValueError, match="inputs=1, target=2"):
        trainer().fit(BCLightningModule(net(), **common), loader)
    h2 = net()
    trainer().fit(BCLightningModule(h2, inputs=1, target=2, **common), loader, loader)
    for found, known in zip(h2.parameters(), trained_by_hand(net(), data).parameters(), strict=True):
        torch.testing.assert_close(found, known)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("stage", ["train", "val", "test"])
def test_batches_in_a_list_are_several_loaders_to_lightning_and_that_is_told(pairs, stage):
    data = [batch[1:] for batch in batches()] if pairs else batches()
    places = {} if pairs else {"inputs": 1, "target": 2}
    loader = DataLoader(data, batch_size=None)

    def wrapped():
        return BCLightningModule(net(), h1=nn.Linear(5, 3), lambda_c=1.0, optimizer=SGD, **places)

    module = wrapped()
    with pytest.raises(TypeError, match=r"DataLoader\(batches, batch_size=None\)"):
        trainer().test(module, data, verbose=False) if stage == "test" else trainer().fit(
            module, *((data, None) if stage == "train" else (loader, data))
        )
    module = wrapped()
    trainer().fit(module, loader, loader)
    trainer().test(module, loader, verbose=False)


def test_an_input_of_numbers_beside_others_is_taken_when_it_is_named():
    torch.manual_seed(0)
    words, other, y = torch.arange(8) % 4, torch.randn(8, 2), torch.arange(8) % 3
    loader = DataLoader([(words, other, y)], batch_size=None)
    module = BCLightningModule(
        nn.Embedding(4, 3), h1=nn.Embedding(4, 3), lambda_c=1.0, optimizer=SGD, inputs=0, target=2
    )
    trainer().fit(module, loader)
