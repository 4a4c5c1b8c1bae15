"""Each validation and test epoch leaves a comparison, which equals `compare` on the models' own predictions."""

from __future__ import annotations

import json
import warnings
from collections import UserDict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset
from user_code import CLASSES, FEATURES, UserModule, dataset, fit, loader, made, make_h1, make_trainer

from bc_core import Comparison, compare
from bc_lightning import BCLightningModule, CompatibilityCallback, LogComparisons, evaluate, store_outputs
from bc_tensorboard.writing._media import read_media

NAMES = ("ant", "bee", "cat")


def predictions(model, data):
    with torch.no_grad():
        return model.eval()(data.tensors[0]).argmax(1)


def saved(folder) -> dict[str, Comparison]:
    return {path.name: Comparison.load(path) for path in sorted(folder.glob("*.json"))}


def test_a_comparison_of_each_validation_epoch_equals_compare_on_the_predictions(tmp_path):
    val = dataset(50, seed=1)
    options = LogComparisons(class_names=NAMES, metadata=lambda i: f"photo {i}", directory=tmp_path / "files")
    h1 = make_h1()
    module = BCLightningModule(made(UserModule), h1=h1, lambda_c=2.0, comparisons=options)
    fit(module, tmp_path, val=loader(val))
    files = saved(tmp_path / "files")
    # 96 instances in batches of 20 are 5 steps an epoch; the sanity check before training leaves no file.
    assert list(files) == ["val-step-00000005.json", "val-step-00000010.json"]
    wanted = compare(
        val.tensors[1],
        predictions(h1, val),
        predictions(module, val),
        class_names=NAMES,
        metadata=lambda i: f"photo {i}",
        step=10,
        lambda_c=2.0,
    )
    assert files["val-step-00000010.json"].without_scores() == wanted
    assert 0 < len(wanted.instances) < 50


def test_the_callback_writes_them_too(tmp_path):
    val, h1 = dataset(50, seed=1), make_h1()
    module = made(UserModule)
    callback = CompatibilityCallback(h1=h1, comparisons=LogComparisons(directory=tmp_path / "files"))
    trainer = make_trainer(tmp_path, callbacks=[callback])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|torch")
        trainer.test(module, loader(val), verbose=False)
    wanted = compare(val.tensors[1], predictions(h1, val), predictions(module, val), step=0, lambda_c=1.0)
    (found,) = saved(tmp_path / "files").values()
    assert found.without_scores() == wanted


def sure_of(comparison):
    table = comparison.instances
    return np.stack([table.h1_confidence, table.h2_confidence, table.h1_of_truth, table.h2_of_truth])


def test_they_say_how_sure_the_models_are_and_how_slices_fare(tmp_path):
    val, h1 = dataset(50, seed=1), make_h1()
    metadata = {"country": ["de", "fr"] * 25, "path": [f"photo {i}" for i in range(50)], "age": np.arange(50) % 3}
    options = LogComparisons(directory=tmp_path / "files", metadata=metadata)
    module = BCLightningModule(made(UserModule), h1=h1, comparisons=options)
    fit(module, tmp_path, val=loader(val), max_epochs=1)
    (found,) = saved(tmp_path / "files").values()
    with torch.no_grad():
        p1, p2 = (torch.softmax(model.eval()(val.tensors[0]), 1).numpy() for model in (h1, module))
    wanted = compare(
        val.tensors[1], p1.argmax(1), p2.argmax(1), num_classes=CLASSES, h1_scores=p1, h2_scores=p2, metadata=metadata
    )
    np.testing.assert_allclose(sure_of(found), sure_of(wanted), atol=3e-6)
    assert found.calibration.counts.sum() == 100
    assert found.calibration.expected_error() == pytest.approx(wanted.calibration.expected_error(), abs=1e-5)
    assert found.slices == wanted.slices
    assert found.instances.slices["age"].tolist() == wanted.instances.slices["age"].tolist()
    assert [each.column for each in found.slices] == ["country", "age"]
    assert found.instances.metadata[0] == f"photo {found.instances.ids[0]}"


def test_their_slices_are_those_of_evaluate_and_ranges_are_of_the_whole_data_set(tmp_path):
    val, h1, ages = dataset(2000, seed=1), make_h1(), np.arange(2000.0)
    # Of labels that do not count; with these left out before, the ranges would begin elsewhere.
    val.tensors[1][:900] = -100
    metadata = {"age": ages, "half": ["first"] * 900 + ["second"] * 1100}
    options = LogComparisons(directory=tmp_path / "files", metadata=metadata)
    module = BCLightningModule(made(UserModule), h1=h1, comparisons=options)
    fit(module, tmp_path, val=loader(val), max_epochs=1)
    (found,) = saved(tmp_path / "files").values()
    wanted = evaluate(h1, module, val, metadata=metadata).comparison
    assert found.slices == wanted.slices
    assert found.found_slices == wanted.found_slices
    assert any(column == "class" for each in found.found_slices for column, _ in each.conditions)
    edges = [0, *np.quantile(ages, (0.2, 0.4, 0.6, 0.8)), 2000]
    held = [sum(low <= age < high and age >= 900 for age in ages) for low, high in pairwise(edges)]
    assert found.slices[0].counts.sum(axis=(1, 2)).tolist() == held == [0, 0, 300, 400, 400]
    assert found.slices[1].counts.sum(axis=(1, 2)).tolist() == [0, 1100]


def test_columns_of_metadata_need_places_in_the_data_set(tmp_path):
    options = LogComparisons(
        ids=lambda batch: [f"item {row.sum():.6f}" for row in batch[0]],
        metadata={"country": ["de"] * 50},
        directory=tmp_path / "files",
    )
    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
    with pytest.warns(UserWarning, match="the ids are not places in it, so they are left out"):
        fit(module, tmp_path, val=loader(dataset(50, seed=1)), max_epochs=1)
    (found,) = saved(tmp_path / "files").values()
    assert found.slices == ()
    with pytest.raises(ValueError, match="a value for each of the 2 instances"):
        LogComparisons(metadata={"a": [1, 2], "b": [1]})


def test_training_with_and_without_comparisons_gives_the_same_weights(tmp_path):
    weights = []
    for comparisons in (False, LogComparisons(directory=tmp_path / "files")):
        module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=comparisons)
        fit(module, tmp_path)
        weights.append(module.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_every_leaves_epochs_out_but_never_a_validation_asked_for_by_itself(tmp_path):
    options = LogComparisons(directory=tmp_path / "files", every=2)
    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
    fit(module, tmp_path, max_epochs=5)
    assert list(saved(tmp_path / "files")) == ["val-step-00000010.json", "val-step-00000020.json"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|torch")
        make_trainer(tmp_path).validate(module, loader(), verbose=False)
    assert "val-step-00000000.json" in saved(tmp_path / "files")


def test_several_validation_loaders_are_data_sets_of_their_own(tmp_path):
    first, second = dataset(30, seed=1), dataset(20, seed=2)

    class TwoLoaders(UserModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self(batch[0])

    module = BCLightningModule(made(TwoLoaders), h1=make_h1(), comparisons=LogComparisons(directory=tmp_path / "files"))
    fit(module, tmp_path, val=[loader(first), loader(second)], max_epochs=1)
    sizes = {name: comparison.dataset_size for name, comparison in saved(tmp_path / "files").items()}
    assert sizes == {"val-dataloader_idx_0-step-00000005.json": 30, "val-dataloader_idx_1-step-00000005.json": 20}


class WithIds(Dataset):
    """Brings an id with each instance."""

    def __init__(self, data: TensorDataset, ids: list):
        self.data, self.ids = data, ids

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        x, y = self.data[index]
        return {"x": x, "y": y, "id": self.ids[index]}


class DictModule(UserModule):
    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch["x"]), batch["y"])

    def validation_step(self, batch, batch_idx):
        self(batch["x"])


@pytest.mark.parametrize("make_id", [lambda i: 1000 + 7 * i, lambda i: f"käfer/{i}"], ids=["integers", "text"])
def test_ids_of_the_batch_name_instances_even_where_the_loader_shuffles(make_id, tmp_path):
    data, h1 = dataset(50, seed=1), make_h1()
    ids = [make_id(i) for i in range(50)]
    options = LogComparisons(ids="id", metadata=lambda i: f"text of {i}", directory=tmp_path / "files")
    module = BCLightningModule(made(DictModule), h1=h1, comparisons=options)
    fit(
        module,
        tmp_path,
        train=DataLoader(WithIds(data, ids), 25),
        val=DataLoader(WithIds(data, ids), 20, shuffle=True),
        max_epochs=1,
    )
    (found,) = saved(tmp_path / "files").values()
    wanted = compare(data.tensors[1], predictions(h1, data), predictions(module, data), ids=ids)
    rows = {row["id"]: (row["target"], row["h1_pred"], row["h2_pred"]) for row in wanted.instances}
    assert {row["id"]: (row["target"], row["h1_pred"], row["h2_pred"]) for row in found.instances} == rows
    assert {row["metadata"] for row in found.instances} == {f"text of {i}" for i in rows}


def batches_of_one_s_own(data):
    return DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 20, drop_last=False))


@pytest.mark.parametrize(
    "make", [lambda data: loader(data, shuffle=True), batches_of_one_s_own], ids=["shuffle", "batch_sampler"]
)
def test_a_loader_that_shuffles_gets_no_ids_that_look_like_positions_and_a_warning(make, tmp_path):
    options = LogComparisons(metadata=lambda i: f"photo {i}", directory=tmp_path / "files")
    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
    with pytest.warns(UserWarning, match=r"It is not known which items the batches of the val loader hold.*ids="):
        fit_with_warnings(module, tmp_path, make(dataset(50, seed=1)))
    (found,) = saved(tmp_path / "files").values()
    assert len(found.instances)
    assert all(str(i).startswith("no. ") for i in found.instances.ids)
    assert found.instances.metadata is None


def test_stored_outputs_name_instances_even_where_the_loader_shuffles(tmp_path):
    data, h1 = dataset(50, seed=1), make_h1()
    stored = store_outputs(h1, data, tmp_path / "h1")
    options = LogComparisons(directory=tmp_path / "files")
    module = BCLightningModule(made(UserModule), h1=stored, comparisons=options)
    attached = stored.attach(data)
    fit(module, tmp_path, train=loader(attached), val=loader(attached, shuffle=True), max_epochs=1)
    (found,) = saved(tmp_path / "files").values()
    wanted = compare(data.tensors[1], predictions(h1, data), predictions(module, data))
    assert sorted(found.instances.ids.tolist()) == wanted.instances.ids.tolist()


def test_each_label_of_a_multilabel_module_is_an_instance(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, FEATURES, generator=generator)
    data = TensorDataset(x, (x[:, :3] > 0).float())
    options = LogComparisons(directory=tmp_path / "files")
    h1, h2 = nn.Linear(FEATURES, 3), nn.Linear(FEATURES, 3)
    module = BCLightningModule(
        h2,
        h1=h1,
        loss="BCBinaryCrossEntropyLoss",
        loss_options={"from_logits": True},
        optimizer=torch.optim.Adam,
        comparisons=options,
    )
    fit(module, tmp_path, train=loader(data), val=loader(data), max_epochs=1)
    (found,) = saved(tmp_path / "files").values()
    assert found.dataset_size == 120
    with torch.no_grad():
        h1_pred, h2_pred = (h1(x) >= 0).long(), (h2(x) >= 0).long()
    wrong = ((h1_pred != data.tensors[1]) | (h2_pred != data.tensors[1])).nonzero().tolist()
    assert found.instances.ids.tolist() == [f"{row}, label {column}" for row, column in wrong]


def test_outputs_for_every_pixel_are_scored_but_not_listed(tmp_path):
    x = torch.randn(12, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, (x[:, 0] > 0).long())
    options = LogComparisons(directory=tmp_path / "files")
    module = BCLightningModule(
        nn.Conv2d(2, 2, 1), h1=nn.Conv2d(2, 2, 1), optimizer=torch.optim.Adam, comparisons=options
    )
    trainer = fit(module, tmp_path, train=loader(data), val=loader(data), max_epochs=1)
    assert "val_btc" in trainer.callback_metrics
    assert saved(tmp_path / "files") == {}


def test_ignored_targets_are_not_listed(tmp_path):
    data = dataset(50, seed=1)
    data.tensors[1][::5] = -100
    options = LogComparisons(directory=tmp_path / "files")
    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
    fit(module, tmp_path, val=loader(data), max_epochs=1)
    (found,) = saved(tmp_path / "files").values()
    assert found.dataset_size == 40
    assert not np.isin(found.instances.ids, np.arange(0, 50, 5)).any()


def test_a_full_disk_is_told_of_and_does_not_end_the_training(tmp_path):
    (tmp_path / "files").touch()  # where the folder would be
    options = LogComparisons(directory=tmp_path / "files")
    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
    with pytest.warns(UserWarning, match="comparison of step 5 .val. was not written whole"):
        trainer = fit_with_warnings(module, tmp_path)
    assert trainer.global_step == 5


def fit_with_warnings(module, root, val=None):
    trainer = make_trainer(root, max_epochs=1)
    trainer.fit(module, loader(), loader(dataset(50, seed=1)) if val is None else val)
    return trainer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a whole number >= 1"),
        ({"class_names": ["a", "a"]}, "every name once"),
        ({"class_names": []}, "at least one name"),
        ({"image_size": 0}, "image_size must be a whole number >= 1"),
        ({"max_images": -1}, "max_images must be a whole number >= 0"),
        ({"full_size": -1}, "full_size must be a whole number >= 0"),
        ({"settings": {"seed": None}}, "settings: expected names with texts or finite numbers"),
        ({"settings": ["warm"]}, "settings: expected a mapping"),
    ],
)
def test_bad_options_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        LogComparisons(**options)


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(TypeError, match="comparisons must be True, False or LogComparisons"):
        BCLightningModule(made(UserModule), h1=make_h1(), comparisons="val")
    with pytest.raises(TypeError, match="comparisons must be True, False or LogComparisons"):
        CompatibilityCallback(h1=make_h1(), comparisons=UserDict())
    module = BCLightningModule(
        made(UserModule), h1=make_h1(), comparisons=LogComparisons(class_names=["a"], directory=tmp_path / "files")
    )
    with pytest.raises(ValueError, match=f"expected {CLASSES} names"):
        fit(module, tmp_path)


@pytest.mark.parametrize("options", [{"images": 3}, {"images": "folder"}, {"metadata": 3}])
def test_what_cannot_be_asked_by_id_is_refused_before_training(options):
    with pytest.raises(TypeError, match=f"{next(iter(options))}: expected a function of the id, a mapping"):
        LogComparisons(**options)


def test_texts_may_be_a_list_over_the_data_set(tmp_path):
    texts = [f"photo {i}" for i in range(50)]
    options = LogComparisons(metadata=texts, directory=tmp_path / "files")
    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
    fit(module, tmp_path, val=loader(dataset(50, seed=1)), max_epochs=1)
    (found,) = saved(tmp_path / "files").values()
    assert found.instances.metadata.tolist() == [f"photo {i}" for i in found.instances.ids]


def test_texts_that_fail_cost_themselves_alone(tmp_path):
    options = LogComparisons(metadata=lambda i: 1 / (i % 2), directory=tmp_path / "files")
    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
    with pytest.warns(UserWarning, match=r"metadata: \d+ texts are left out; first \d+: ZeroDivisionError"):
        fit_with_warnings(module, tmp_path)
    (found,) = saved(tmp_path / "files").values()
    assert found.instances.metadata.tolist() == ["1.0" if i % 2 else "" for i in found.instances.ids]


def test_ids_that_come_twice_cost_the_comparison_and_not_the_training(tmp_path):
    options = LogComparisons(ids=1, directory=tmp_path / "files")  # the labels
    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
    with pytest.warns(UserWarning, match=r"no comparison of step 5 \(val\): .* comes twice.*LogComparisons\(ids="):
        trainer = fit_with_warnings(module, tmp_path)
    assert trainer.global_step == 5
    assert saved(tmp_path / "files") == {}


def validated_and_tested(module, tmp_path, val, test):
    """The comparisons of a validation and of a test, as saved, and the images of each."""
    logger = TensorBoardLogger(tmp_path / "logs")
    trainer = make_trainer(tmp_path, logger=logger)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning|torch")
        trainer.validate(module, val, verbose=False)
        trainer.test(module, test, verbose=False)
    found = {name.split("-step")[0]: each for name, each in saved(tmp_path / "files").items()}
    packs = {path.stem: read_media(path).images for path in Path(logger.log_dir).rglob("*.media")}
    return found, packs


def test_images_and_texts_are_those_of_validation_unless_the_data_set_is_named(tmp_path):
    val, test = dataset(50, seed=1), dataset(40, seed=2)
    plain = LogComparisons(
        metadata=lambda i: f"val {i}", images=lambda i: torch.zeros(2, 2), directory=tmp_path / "files"
    )
    named = LogComparisons(
        metadata={"val": lambda i: f"val {i}", "test": [f"test {i}" for i in range(40)]},
        images={"test": lambda i: torch.zeros(2, 2)},
        directory=tmp_path / "files",
    )
    for name, given in (("plain", plain), ("named", named)):
        where = tmp_path / name
        options = replace(given, directory=where / "files")
        module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
        if given is plain:
            with pytest.warns(UserWarning, match="images and metadata of LogComparisons .* other data than 'test'"):
                found, packs = validated_and_tested(module, where, loader(val), loader(test))
        else:
            found, packs = validated_and_tested(module, where, loader(val), loader(test))
        assert found["val"].instances.metadata.tolist() == [f"val {i}" for i in found["val"].instances.ids]
        if given is plain:
            assert found["test"].instances.metadata is None
            assert set(packs) == {"val"}
        else:
            assert found["test"].instances.metadata.tolist() == [f"test {i}" for i in found["test"].instances.ids]
            assert set(packs["test"]) == set(found["test"].instances.ids.tolist())
            assert not packs["val"]


@pytest.mark.parametrize("full_size", [0, 1024])
def test_settings_and_larger_pictures_are_logged(tmp_path, full_size):
    images, told = (lambda i: torch.zeros(120, 120)), {"start": "warm", "seed": 3}
    options = LogComparisons(images=images, full_size=full_size, settings=told)
    trainer = make_trainer(tmp_path, logger=TensorBoardLogger(tmp_path))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning|torch")
        trainer.validate(
            BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options), loader(), verbose=False
        )
    events = EventAccumulator(trainer.logger.log_dir).Reload()
    content = json.loads(events.SummaryMetadata("backward_compatibility/val/counts").plugin_data.content)
    assert content["settings"] == told
    assert any(tmp_path.rglob("*.media"))
    assert any(tmp_path.rglob("*.full")) == (full_size > 0)


def test_positions_of_several_loaders_are_not_taken_for_each_others(tmp_path):
    first, second = dataset(30, seed=1), dataset(20, seed=2)

    class TwoLoaders(UserModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self(batch[0])

    def texts(options):
        options = replace(options, directory=tmp_path / f"files{len(list(tmp_path.iterdir()))}")
        module = BCLightningModule(made(TwoLoaders), h1=make_h1(), comparisons=options)
        fit(module, tmp_path, val=[loader(first), loader(second)], max_epochs=1)
        return [comparison.instances.metadata for _, comparison in sorted(saved(options.directory).items())]

    with pytest.warns(UserWarning, match="other data than 'val/dataloader_idx_"):
        assert texts(LogComparisons(metadata=lambda i: f"photo {i}")) == [None, None]
    by_name = {f"val/dataloader_idx_{i}": lambda j, i=i: f"loader {i}, {j}" for i in range(2)}
    both = texts(LogComparisons(metadata=by_name))
    assert [found[0].split(",")[0] for found in both] == ["loader 0", "loader 1"]


def without_the_seventh(items):
    """Leaves a broken item out, as collate functions of users do."""
    kept = [item for item in items if not torch.equal(item[0], BROKEN)]
    return torch.stack([x for x, _ in kept]), torch.stack([y for _, y in kept])


BROKEN = dataset(50, seed=1).tensors[0][7]


def test_a_loader_that_leaves_items_out_gets_no_positions_for_ids(tmp_path):
    data = dataset(50, seed=1)
    options = LogComparisons(metadata=lambda i: f"photo {i}", directory=tmp_path / "files")
    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=options)
    with pytest.warns(UserWarning, match="leaves items out"):
        fit_with_warnings(module, tmp_path, DataLoader(data, 20, collate_fn=without_the_seventh))
    (found,) = saved(tmp_path / "files").values()
    assert found.dataset_size == 49
    assert all(str(i).startswith("no. ") for i in found.instances.ids)


@pytest.mark.parametrize("limit", [1, 2])
def test_an_epoch_that_is_cut_short_keeps_its_positions(limit, tmp_path):
    data, h1 = dataset(50, seed=1), make_h1()
    options = LogComparisons(directory=tmp_path / "files")
    module = BCLightningModule(made(UserModule), h1=h1, comparisons=options)
    fit(module, tmp_path, val=loader(data), max_epochs=1, limit_val_batches=limit)
    (found,) = saved(tmp_path / "files").values()
    cut = TensorDataset(data.tensors[0][: 20 * limit], data.tensors[1][: 20 * limit])
    wanted = compare(cut.tensors[1], predictions(h1, cut), predictions(module, cut), num_classes=CLASSES)
    assert found.without_scores().instances == wanted.instances


class UnknownFileSystemError(Exception):
    """As the errors of TensorFlow's file systems, which are no OSError."""


@pytest.mark.parametrize(
    "error", [ImportError("no module named tensorboard"), RuntimeError("writer is closed"), UnknownFileSystemError()]
)
def test_a_logger_that_fails_costs_neither_the_files_nor_the_training(tmp_path, monkeypatch, error):
    from bc_tensorboard import summary

    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(summary, "comparison", fails)
    from pytorch_lightning.loggers import TensorBoardLogger

    module = BCLightningModule(made(UserModule), h1=make_h1(), comparisons=LogComparisons(directory=tmp_path / "files"))
    trainer = make_trainer(tmp_path, max_epochs=1, logger=TensorBoardLogger(tmp_path))
    with pytest.warns(UserWarning, match=f"was not written whole: {type(error).__name__}: {error}"):
        trainer.fit(module, loader(), loader(dataset(50, seed=1)))
    assert len(saved(tmp_path / "files")) == 1
    assert "val_btc" in trainer.callback_metrics
