"""`evaluate` in Lightning, beside what tests/conformance has: modes, loaders, devices and labels of torch."""

import copy
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from user_code import make_trainer

from bc_core import ClassMap
from bc_lightning import BCLightningModule, Reference, StoredOutputs, evaluate, store_outputs

# Eight instances by hand. Right: both 0, 4; h1 alone 1, 2, 5; h2 alone 3, 6; none 7.
TARGET = [0, 0, 1, 1, 2, 2, 0, 1]
H1 = [0, 0, 1, 0, 2, 2, 2, 2]
H2 = [0, 1, 2, 1, 2, 0, 0, 0]


class Table(nn.Module):
    """A model that knows its answers: its input is the number of an instance. Notes its mode at each question."""

    def __init__(self, answers, classes=3):
        super().__init__()
        self.register_buffer("scores", torch.eye(classes)[torch.tensor(answers)])
        self.asked = []

    def forward(self, x):
        self.asked.append((x.reshape(-1).long().tolist(), self.training, torch.is_grad_enabled()))
        return self.scores[x.reshape(-1).long()]

    @property
    def rows(self):
        return Counter(row for rows, *_ in self.asked for row in rows)


class Normalised(nn.Module):
    """BatchNorm, Dropout and a frozen part, as many who finetune have it."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x):
        return self.head(self.body(x))


class Items(torch.utils.data.Dataset):
    """Items as a function of their index makes them."""

    def __init__(self, item, size=8):
        self.item, self.size = item, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if not 0 <= index < self.size:
            raise IndexError
        return self.item(index)


def data(target=TARGET):
    return TensorDataset(torch.arange(float(len(target)))[:, None], torch.tensor(target))


def images(rows=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(rows, 6, generator=generator), torch.randint(0, 3, (rows,), generator=generator))


def modes(module):
    return {name: child.training for name, child in module.named_modules()}


def by_hand(comparison, ids=range(8)):
    """Whether a comparison is the one that was counted by hand."""
    ids = list(ids)
    overlap = comparison.overlap
    assert (overlap.both_right, overlap.h1_only_right, overlap.h2_only_right, overlap.both_wrong) == (2, 3, 2, 1)
    assert (overlap.btc, overlap.nfr, overlap.accuracy_h1, overlap.accuracy_h2) == (2 / 5, 3 / 8, 5 / 8, 4 / 8)
    table = {row["id"]: (row["target"], row["h1_pred"], row["h2_pred"]) for row in comparison.instances}
    assert table == {ids[index]: (TARGET[index], H1[index], H2[index]) for index in (1, 2, 3, 5, 6, 7)}
    return True


@pytest.fixture
def _torch_warns_each_time():
    """Not once in a process, in whichever test is the first."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


# One question per batch


def test_the_data_are_read_once():
    read = []

    def item(index):
        read.append(index)
        return torch.tensor([float(index)]), TARGET[index]

    evaluate(Table(H1), Table(H2), Items(item), batch_size=3)
    assert read == list(range(8))


def test_the_network_of_a_wrapped_module_is_asked_once(h1):
    module = BCLightningModule(nn.Linear(8, 3), h1=h1, lambda_c=1.0, optimizer=torch.optim.SGD, comparisons=False)
    asked = []
    module.register_forward_hook(lambda *_: asked.append(None))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 8, generator=generator)
    found = evaluate(h1, module, DataLoader(TensorDataset(x, torch.arange(30) % 3), batch_size=10))
    assert len(asked) == 3
    with torch.no_grad():
        assert found.h2_performance == accuracy_score(torch.arange(30) % 3, module(x).argmax(1))


# Modes, gradients and statistics


@pytest.mark.parametrize("training", [True, False])
def test_models_are_run_in_eval_mode_without_gradients(training):
    h1, h2 = Table(H1).train(training), Table(H2).train(training)
    evaluate(h1, h2, data())
    assert {(mode, gradients) for model in (h1, h2) for _, mode, gradients in model.asked} == {(False, False)}
    assert (h1.training, h2.training) == (training, training)
    assert torch.is_grad_enabled()


def mixed():
    """Two models, each with submodules in another mode than the whole."""
    h1, h2 = Normalised(1).train(), Normalised(2).eval()
    h1.body.eval()
    h1.body[2].train()
    h2.head.train()
    h2.body[1].train()
    return h1, h2


def test_submodules_are_in_the_modes_they_were_in():
    h1, h2 = mixed()
    before = modes(h1), modes(h2)
    assert len(set(before[0].values())) == len(set(before[1].values())) == 2
    evaluate(h1, h2, images())
    assert (modes(h1), modes(h2)) == before


def test_submodules_are_in_the_modes_they_were_in_after_a_metric_that_changed_them():
    def metric(model, dataset, device):
        model.train()
        return 0.5

    h1, h2 = mixed()
    before = modes(h1), modes(h2)
    evaluate(h1, h2, images(), performance_metric=metric)
    assert (modes(h1), modes(h2)) == before


# The caller's metric


def test_a_metric_gets_the_model_the_batches_and_the_device():
    given = []
    h1, h2, loader = Table(H1), Table(H2), DataLoader(data(), batch_size=3)

    def metric(model, dataset, device):
        given.append((model, dataset, device, model.training, torch.is_grad_enabled()))
        return 0.0

    evaluate(h1, h2, loader, performance_metric=metric)
    evaluate(h1, h2, loader, performance_metric=metric, device=torch.device("cpu"))
    assert given == [
        (h1, loader, "cpu", False, False), (h2, loader, "cpu", False, False),
        (h1, loader, torch.device("cpu"), False, False), (h2, loader, torch.device("cpu"), False, False),
    ]  # fmt: skip


# Data


def test_a_loader_that_shuffles_gives_the_same_counts_and_no_positions():
    shuffled = DataLoader(data(), batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(4))
    found = evaluate(Table(H1), Table(H2), shuffled).comparison
    assert found.overlap == evaluate(Table(H1), Table(H2), data()).comparison.overlap
    rows = sorted((row["target"], row["h1_pred"], row["h2_pred"]) for row in found.instances)
    assert rows == sorted((TARGET[index], H1[index], H2[index]) for index in (1, 2, 3, 5, 6, 7))
    # A number would be taken for a position in the data set.
    assert all(isinstance(name, str) for name in found.instances.ids.tolist())


class OfKeyword(Table):
    """Takes its input by name, as the models of Hugging Face do."""

    def forward(self, number):
        return super().forward(number)


@pytest.mark.parametrize("model", [Table, OfKeyword])
def test_batches_that_are_dictionaries(model):
    def item(index):
        return {"name": f"scan-{index}", "number": torch.tensor([float(index)]), "label": TARGET[index]}

    inputs = "number" if model is Table else (lambda batch: {"number": batch["number"]})
    h1, h2 = model(H1), model(H2)
    for options, names in (({}, range(8)), ({"ids": "name"}, [f"scan-{index}" for index in range(8)])):
        found = evaluate(h1, h2, DataLoader(Items(item), batch_size=3), inputs=inputs, target="label", **options)
        assert by_hand(found.comparison, names)


def test_a_dictionary_without_a_place_of_the_inputs_is_refused_with_its_keys():
    items = Items(lambda index: {"number": torch.tensor([float(index)]), "label": TARGET[index]})
    with pytest.raises(ValueError, match="number"):
        evaluate(Table(H1), Table(H2), items)


def test_an_iterable_data_set_and_a_list_of_batches_of_numpy():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.tensor([float(index)]), TARGET[index]) for index in range(8)])

    batches = [
        (np.arange(start, min(start + 3, 8))[:, None].astype("float32"), np.array(TARGET[start : start + 3]))
        for start in (0, 3, 6)
    ]
    assert by_hand(evaluate(Table(H1), Table(H2), batches).comparison)
    found = evaluate(Table(H1), Table(H2), DataLoader(Stream(), batch_size=3)).comparison
    assert found.overlap == evaluate(Table(H1), Table(H2), data()).comparison.overlap


def unwritable(values, dtype=None):
    """As jax and memory maps hand out arrays."""
    array = np.array(values, dtype)
    array.setflags(write=False)
    return array


# Of arrays that may not be written to torch makes tensors with a warning, which is nothing that a caller could act on;
# bc_core's arrays of lists are among them.
@pytest.mark.usefixtures("_torch_warns_each_time")
@pytest.mark.parametrize("what", ["inputs", "target", "a list as target", "h1's answers", "scores of a callable"])
def test_arrays_that_may_not_be_written_to_cause_no_warning(what):
    h1, x, y = Table(H1), np.arange(8, dtype="float32")[:, None], np.array(TARGET)
    if what == "inputs":
        x = unwritable(x)
    elif what == "target":
        y = unwritable(y)
    elif what == "a list as target":
        y = TARGET
    elif what == "h1's answers":
        h1 = unwritable(np.eye(3)[H1])
    else:
        scores = unwritable(np.eye(3)[H1])
        h1 = lambda x: scores  # noqa: E731 - a callable among models
    assert by_hand(evaluate(h1, Table(H2), [(x, y)]).comparison)


# h1 that is no model


def test_stored_outputs_answer_for_h1_in_any_order(tmp_path):
    model = Table(H1)
    stored = store_outputs(model, data(), tmp_path / "h1", batch_size=4)
    model.asked.clear()
    h2 = Table(H2)
    attached = stored.attach(data())
    for given in (attached, DataLoader(attached, batch_size=3, shuffle=True)):
        for h1 in (stored, Reference(stored), StoredOutputs.open(tmp_path / "h1")):
            # The index comes with each item, so that it is named however the data are shuffled.
            assert by_hand(evaluate(h1, h2, given).comparison)
    assert not model.asked
    assert set(h2.rows.values()) == {6}


def test_answers_and_a_loader_that_shuffles_are_refused():
    with pytest.raises(ValueError, match="in order"):
        evaluate(H1, Table(H2), DataLoader(data(), batch_size=3, shuffle=True))


# Labels that are none


def of_four(target, **options):
    net = nn.Linear(4, 4)
    batches = [(torch.eye(4).repeat(3, 1), target)]
    return evaluate(net, net, batches, **options).comparison


@pytest.mark.parametrize("which", ["h1", "h2"])
def test_a_model_of_other_inputs_is_named_with_a_remedy(which):
    models = {"h1": nn.Linear(4, 3), "h2": nn.Linear(4, 3)}
    wide = models[which] = nn.Linear(5, 3)
    batches = [(torch.randn(20, 4), torch.arange(20) % 3)]
    with pytest.raises(
        RuntimeError, match=rf"{which} failed on .*shape \[\(20, 4\)\]\): mat1 .*{which}=lambda x: model"
    ):
        evaluate(**models, data=batches)
    # The remedy that is named.
    models[which] = lambda x: wide(nn.functional.pad(x, (0, 1)))
    expected = (wide(nn.functional.pad(batches[0][0], (0, 1))).argmax(1) == batches[0][1]).float().mean().item()
    assert getattr(evaluate(**models, data=batches), f"{which}_performance") == pytest.approx(expected)


def test_an_h1_of_one_score_beside_an_h2_of_two():
    h1, h2 = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), nn.Linear(4, 2)
    batches = [(torch.randn(20, 4), torch.arange(20) % 2)]
    with pytest.raises(ValueError, match=r"h1 has one score, .* h1_scores=lambda z: torch.cat"):
        evaluate(h1, h2, batches)

    def of_two(p):
        z = torch.logit(p)
        return torch.cat([torch.zeros_like(z), z], 1)

    expected = ((h1(batches[0][0])[:, 0] >= 0.5) == batches[0][1]).float().mean().item()
    assert evaluate(h1, h2, batches, h1_scores=of_two).h1_performance == pytest.approx(expected)


def test_a_class_map_where_h1_has_fewer_classes():
    h1, h2 = nn.Linear(4, 2), nn.Linear(4, 3)
    batches = [(torch.randn(20, 4), torch.arange(20) % 3)]
    with pytest.raises(ValueError, match=r"h1=Reference\(h1, class_map=\[...\]\)"):
        evaluate(h1, h2, batches)
    expected = (torch.tensor([2, 0])[h1(batches[0][0]).argmax(1)] == batches[0][1]).float().mean().item()
    assert evaluate(Reference(h1, class_map=ClassMap([2, 0], new=[1])), h2, batches).h1_performance == pytest.approx(
        expected
    )


@pytest.mark.parametrize("label", [-7, 2**62])
def test_the_remedy_for_a_label_that_is_no_class(label):
    target = torch.arange(12) % 4
    target[3] = label
    with pytest.raises(ValueError, match=rf"expected classes 0\.\.3, got {label}\..*ignore_index={label} .it is -100"):
        of_four(target)
    # The remedy that is named.
    assert of_four(target, ignore_index=label).dataset_size == 11


def test_the_label_that_torch_ignores_is_left_out_and_another_on_request():
    target = torch.arange(12) % 4
    target[:5] = -100
    left = of_four(target)
    assert left.dataset_size == 7
    assert left.instances.ids.min() >= 5
    with pytest.raises(ValueError, match="got -100"):
        of_four(target, ignore_index=255)
    with pytest.raises(ValueError, match="every instance is left out"):
        of_four(torch.full((12,), -100))


def test_labels_too_large_for_torch_do_not_become_negative():
    target = (np.arange(12) % 4).astype(np.uint64)
    assert of_four(target).dataset_size == of_four(torch.as_tensor(target)).dataset_size == 12
    target[3] = 2**63
    for given in (target, torch.as_tensor(target)):
        with pytest.raises(ValueError, match=f"got {2**63}"):
            of_four(given)


# Batches of three, and empty ones


def _batches(*parts, size=3):
    return [tuple(part[start : start + size] for part in parts) for start in range(0, len(parts[0]), size)]


def _nets():
    torch.manual_seed(5)
    return nn.Linear(4, 3), nn.Linear(4, 3)


X, Y = torch.randn(10, 4, generator=torch.Generator().manual_seed(3)), torch.arange(10) % 3


def _expected(h1, h2):
    right = [(h(X).argmax(1) == Y).tolist() for h in (h1, h2)]
    return {pair: sum(both == pair for both in zip(*right, strict=True)) for pair in product([True, False], repeat=2)}


def _found(overlap):
    counts = overlap.both_right, overlap.h1_only_right, overlap.h2_only_right, overlap.both_wrong
    return dict(zip(product([True, False], repeat=2), counts, strict=True))


@pytest.mark.parametrize("weight", [torch.linspace(0.2, 4, 10), torch.linspace(0.1, 1, 10)])
def test_inputs_target_and_weight_as_training_reads_them(weight, tmp_path):
    h1, h2 = _nets()
    batches = _batches(X, Y, weight)
    found = evaluate(h1, h2, batches)
    assert _found(found.comparison.overlap) == _expected(h1, h2)
    # What training on the same batches counts.
    module = BCLightningModule(copy.deepcopy(h2), h1=h1, optimizer=lambda parameters: torch.optim.SGD(parameters, 0.0))
    logged = make_trainer(tmp_path).validate(module, DataLoader(TensorDataset(X, Y, weight), 3), verbose=False)[0]
    assert logged["val_btc"] == pytest.approx(found.comparison.overlap.btc)


class Nodes(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Embedding(10, 3)

    def forward(self, node):
        return self.table(node)


def test_nodes_that_could_be_ids():
    h1, h2, node = Nodes(1), Nodes(2), torch.arange(10)
    expected = evaluate(h1, h2, _batches(node, Y)).comparison.overlap
    assert evaluate(h1, h2, _batches(node, Y, torch.linspace(0.2, 4, 10))).comparison.overlap == expected
    for last in (torch.ones(10), Y):
        with pytest.raises(ValueError, match="ids=0, inputs=1, target=2, or inputs=0, target=1"):
            evaluate(h1, h2, _batches(node, Y, last))
        assert evaluate(h1, h2, _batches(node, Y, last), inputs=0, target=1).comparison.overlap == expected


@pytest.mark.parametrize("place", [0, 1, 4])
@pytest.mark.parametrize("kind", ["pairs", "ids", "weights", "answers", "soft"])
def test_empty_batches_hold_nothing(kind, place):
    h1, h2 = _nets()
    target = nn.functional.one_hot(Y, 3).float() if kind == "soft" else Y
    parts = {"ids": [torch.arange(10), X, target], "weights": [X, target, torch.linspace(0.2, 4, 10)]}
    batches = _batches(*parts.get(kind, [X, target]))
    batches.insert(place, tuple(part[:0] for part in batches[0]))
    found = evaluate(h1(X).argmax(1) if kind == "answers" else h1, h2, batches)
    assert _found(found.comparison.overlap) == _expected(h1, h2)
    with pytest.raises(ValueError, match="at least one batch with instances"):
        evaluate(h1, h2, [batches[place]])
