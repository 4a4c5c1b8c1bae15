"""The frozen h1, its fingerprint, and what it must never share with h2."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from bc_core import ClassMap
from bc_lightning.reference._fingerprint import fingerprint, fingerprint_data
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._shared_parameters import check_no_shared_parameters
from bc_lightning.reference._stored import StoredOutputs


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, classes)

    def forward(self, x, scale=1.0):
        return self.head(self.body(x)) * scale


class LitNet(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)


def labels_of_service(x: torch.Tensor) -> np.ndarray:
    return x.numpy().argmax(axis=1)


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    model = Net()
    # Statistics other than the initial ones, so that eval and train mode differ.
    model(torch.randn(64, 4) * 3 + 1)
    return model


X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


def by_hand(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """One instance at a time through a copy in eval mode."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return torch.cat([model(row[None]) for row in x])


# Asking


@pytest.mark.parametrize("kind", ["module", "lightning", "bound method", "partial", "function"])
def test_answers_are_those_of_h1_in_eval_mode(kind):
    model = net()
    expected = by_hand(model, X)
    if kind == "lightning":
        lit = LitNet()
        lit.net = model
    h1 = {
        "module": model,
        "lightning": lit if kind == "lightning" else None,
        "bound method": model.forward,
        "partial": functools.partial(model, scale=1.0),
        "function": lambda x, scale=1.0: model.eval()(x) * scale,
    }[kind]
    scores = Reference(h1)(X)
    torch.testing.assert_close(scores, expected)
    assert not scores.requires_grad


def test_eval_mode_is_enforced_before_every_call():
    model = net()
    reference = Reference(model)
    expected = by_hand(model, X)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for disturb in (model.train, model.body[1].train, model.body[3].train, lambda: None):
        disturb()
        torch.testing.assert_close(reference(X), expected)
        assert not any(module.training for module in model.modules())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_eval_mode_is_enforced_against_a_stubborn_train_method():
    class Stubborn(Net):
        def train(self, mode=True):
            super().train(mode)
            self.body[3].training = True
            return self

    model = Stubborn()
    reference = Reference(model)
    torch.testing.assert_close(reference(X), reference(X))


def test_exported_and_scripted_models_can_be_asked():
    model = net().eval()
    exported = torch.export.export(model, (X,)).module()
    torch.testing.assert_close(Reference(exported)(X), by_hand(model, X))
    frozen = torch.jit.freeze(torch.jit.trace(model, X))
    torch.testing.assert_close(Reference(frozen)(X), by_hand(model, X))


def test_asking_changes_no_gradients_or_flags():
    model = net()
    x = X.clone().requires_grad_()
    scores = Reference(model)(x)
    assert not scores.requires_grad
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    # Usable in a graph, which what inference mode makes is not.
    weight = torch.ones(3, requires_grad=True)
    (scores * weight).sum().backward()
    torch.testing.assert_close(weight.grad, scores.sum(0))


def test_arguments_are_passed_untouched():
    seen = {}

    def h1(*args, **kwargs):
        seen.update(args=args, kwargs=kwargs)
        return torch.zeros(2, 3)

    thing, other = object(), object()
    Reference(h1)(X, thing, mask=other)
    assert seen["args"][0] is X
    assert seen["args"][1] is thing
    assert seen["kwargs"]["mask"] is other


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_type_of_the_scores_is_kept(dtype):
    assert Reference(lambda x: x.to(dtype))(X).dtype == dtype
    assert Reference(lambda x: x.to(dtype), class_map=[3, 2, 1, 0])(X).dtype == dtype


def test_triple_and_numpy_answers_are_read():
    torch.testing.assert_close(Reference(lambda x: (x, x.softmax(1), x.log_softmax(1)))(X), X)
    answer = Reference(labels_of_service)(X)
    assert torch.equal(answer, X.argmax(1))


def test_h1_moves_to_the_device_of_the_first_tensor():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, options, batch):
            return self.net(batch["x"][0])

    for device in ("meta", "cpu"):
        model = Wrapped()
        with torch.inference_mode():
            answer = Reference(model)(None, {"x": [torch.zeros(2, 4, device=device)]})
        assert answer.device.type == model.net.head.weight.device.type == device
        assert not model.net.head.weight.is_inference()


def test_h1_follows_the_type_of_its_inputs_and_stays_as_it_is():
    model = net()
    reference = Reference(model)
    name = reference.fingerprint
    reference.apply(lambda t: t.double() if t.is_floating_point() else t)
    reference.apply(lambda t: t.to("meta"))
    assert model.head.weight.dtype == torch.float32
    assert model.head.weight.device.type == "cpu"
    with torch.no_grad():
        expected = copy.deepcopy(model).eval().double()(X.double())
    assert torch.equal(reference(X.double()), expected)
    assert reference(X).dtype == torch.float32
    assert reference.fingerprint == name
    assert pickle.loads(pickle.dumps(reference))(X).dtype == torch.float32
    Reference(labels_of_service).apply(lambda t: t.double())


def test_lightning_module_that_holds_a_reference_does_not_register_h1():
    owner = nn.Linear(1, 1)
    owner.reference = Reference(net())
    assert len(list(owner.parameters())) == 2
    assert set(owner.state_dict()) == {"weight", "bias"}
    h1 = owner.reference.module.eval()
    owner.train()
    assert not h1.training


def test_deep_copies_share_h1_and_pickles_carry_it():
    reference = Reference(net(), class_map=[2, 1, 0])
    assert copy.deepcopy(reference) is reference
    assert copy.copy(reference) is reference
    assert copy.deepcopy({"r": reference})["r"] is reference
    expected = reference(X)
    loaded = pickle.loads(pickle.dumps(reference))
    assert loaded.module is not reference.module
    torch.testing.assert_close(loaded(X), expected)
    assert loaded.fingerprint == reference.fingerprint


def test_of_returns_a_reference_as_it_is():
    reference = Reference(net(), class_map=ClassMap([0, 1, 3], new=[2]))
    assert Reference.of(reference) is reference
    assert Reference.of(reference, num_classes=4) is reference
    with pytest.raises(ValueError, match="give the class_map to its constructor"):
        Reference.of(reference, class_map=[0, 1, 2])
    with pytest.raises(ValueError, match="of 4 classes, but num_classes=5"):
        Reference.of(reference, num_classes=5)
    assert Reference.of(net()).class_map is None


@pytest.mark.parametrize("h1", [Net, "h1.ckpt", None])
def test_what_cannot_be_asked_is_refused(h1):
    with pytest.raises(TypeError, match="h1 must be a module, a callable or stored outputs"):
        Reference(h1)


def test_stored_outputs_answer_through_the_batch():
    reference = Reference(StoredOutputs.from_table([0, 1, 1]), class_map=[1, 0])
    assert reference.is_stored
    assert reference.labels_only
    assert reference.module is None
    assert reference.stored is reference.h1
    assert reference.map_classes(torch.tensor([0, 1, -1])).tolist() == [1, 0, -1]
    with pytest.raises(TypeError, match="wrap the data set with stored"):
        reference(X)


# Class maps


def test_class_map_moves_columns_and_gives_new_classes_probability_0():
    rows = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -0.5]], requires_grad=False)
    mapped = Reference(nn.Identity(), class_map=ClassMap([3, 0, 1], new=[2, 4]), num_classes=5)(rows)
    assert mapped.shape == (2, 5)
    expected = torch.zeros(2, 5)
    expected[:, [3, 0, 1]] = rows.softmax(1)
    torch.testing.assert_close(mapped.softmax(1), expected)
    assert torch.isfinite(mapped).all()
    assert torch.isfinite(mapped.log_softmax(1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_unknown_classes_stay_finite_in_every_type(dtype):
    mapped = Reference(nn.Identity(), class_map=ClassMap([0], new=[1]))(torch.tensor([[300.0], [-300.0]], dtype=dtype))
    assert torch.isfinite(mapped).all()
    assert torch.isfinite(mapped.log_softmax(1)).all()
    assert mapped.softmax(1)[:, 1].tolist() == [0, 0]


def test_dropped_and_merged_classes():
    logits = torch.randn(6, 4)
    reference = Reference(nn.Identity(), class_map=ClassMap([0, 1, 1, -1], merged=[1]))
    p = logits.softmax(1)
    left = torch.stack([p[:, 0], p[:, 1] + p[:, 2]], dim=1)
    torch.testing.assert_close(reference(logits).softmax(1), left / left.sum(1, keepdim=True))
    assert reference.map_classes(torch.tensor([0, 1, 2, 3])).tolist() == [0, 1, 1, -1]


def test_class_map_keeps_further_dimensions():
    scores = torch.randn(2, 3, 5, 5)
    mapped = Reference(nn.Identity(), class_map=[1, 2, 0])(scores)
    torch.testing.assert_close(mapped, scores[:, [2, 0, 1]])


@pytest.mark.parametrize(
    ("class_map", "num_classes", "said"),
    [
        ([0, -2], None, "got -2"),
        ([0, 1, 2, 3], 3, "names class 3, but h2 has 3 classes, 0 to 2.* or -1 "),
        ([-1, -1], None, "keep at least one"),
        ([], None, "keep at least one"),
        (None, 0, "num_classes must be at least 1"),
    ],
)
def test_wrong_class_maps_are_refused(class_map, num_classes, said):
    with pytest.raises(ValueError, match=said):
        Reference(nn.Identity(), class_map, num_classes)


def test_stored_labels_outside_the_class_map_are_refused():
    with pytest.raises(ValueError, match=r"class_map has 2 entries, .* stored labels go up to 2"):
        Reference(StoredOutputs.from_table([0, 2, 1]), class_map=[1, 0])


def test_scores_that_do_not_fit_the_classes_are_refused():
    with pytest.raises(ValueError, match=r"class_map has 2 entries, .* shape \(16, 4\)"):
        Reference(nn.Identity(), class_map=[0, 1])(X)
    with pytest.raises(ValueError, match="scores for 4 classes, but h2 has 5: give a class_map of 4 entries"):
        Reference(nn.Identity(), num_classes=5)(X)
    with pytest.raises(ValueError, match="but h2 has 6"):
        Reference(nn.Identity()).map_classes(X, num_classes=6)


# Sharing


def test_shared_parameters_are_named_on_both_sides():
    h2 = net()
    h1 = Net()
    h1.head.weight = h2.head.weight
    with pytest.raises(ValueError, match=r"h1's 'head\.weight' is the same memory as h2's 'head\.weight'.*deepcopy"):
        check_no_shared_parameters(h1, h2)


def test_shared_buffers_views_and_wrapped_models_are_found():
    h2 = net()
    h1 = copy.deepcopy(h2)
    check_no_shared_parameters(h1, h2)
    h1.body[1].running_mean = h2.body[1].running_mean
    with pytest.raises(ValueError, match=r"body\.1\.running_mean"):
        check_no_shared_parameters(h1, h2)
    h1 = copy.deepcopy(h2)
    h1.body[1].running_var = h2.body[1].running_var
    h1 = nn.Sequential(copy.deepcopy(h2))
    h1[0].head.bias = nn.Parameter(h2.head.bias.detach()[:])
    with pytest.raises(ValueError, match=r"h1's '0\.head\.bias' is the same memory as h2's 'head\.bias'"):
        check_no_shared_parameters(Reference(h1), h2)


@pytest.mark.parametrize("wrap", [lambda m: m, Reference, lambda m: m.forward])
def test_h1_that_is_h2_is_refused(wrap):
    h2 = net()
    with pytest.raises(ValueError, match="h1 and h2 are the same object"):
        check_no_shared_parameters(wrap(h2), h2)


def test_tables_functions_and_empty_tensors_share_nothing():
    h2 = net()
    check_no_shared_parameters(StoredOutputs.from_table([0, 1]), h2)
    check_no_shared_parameters(labels_of_service, h2)
    empty = nn.Module()
    empty.register_buffer("nothing", torch.empty(0))
    check_no_shared_parameters(copy.deepcopy(empty), empty)
    check_no_shared_parameters(nn.LazyLinear(3), h2)


# Fingerprints


def test_fingerprint_does_not_see_mode_gradients_layout_or_wrappers():
    model = net()
    name = fingerprint(model)
    assert name.startswith("sha256:")
    assert len(name) == 7 + 64
    assert fingerprint(copy.deepcopy(model)) == name
    assert fingerprint(model.eval()) == name
    assert fingerprint(model.requires_grad_(False)) == name
    assert fingerprint(torch.compile(model)) == name
    assert fingerprint(nn.DataParallel(model)) == name
    assert fingerprint(Reference(model)) == name
    model.body[0].weight.data = model.body[0].weight.data.t().contiguous().t()
    assert fingerprint(model) == name


def test_fingerprint_looks_through_an_inner_compiled_module():
    model = net()
    compiled = copy.deepcopy(model)
    compiled.body = torch.compile(compiled.body)
    assert set(compiled.state_dict()) != set(model.state_dict())
    assert fingerprint(compiled) == fingerprint(model)


def test_fingerprint_looks_through_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = net()
        assert fingerprint(nn.parallel.DistributedDataParallel(model)) == fingerprint(model)
    finally:
        torch.distributed.destroy_process_group()


def test_fingerprint_sees_every_weight_buffer_type_and_name():
    names = {fingerprint(net())}

    def changed(change):
        model = net()
        change(model)
        names.add(fingerprint(model))

    def swap(model):
        model.body[2] = nn.Tanh()

    def rename(model):
        model.classifier = model.head
        del model.head

    changed(lambda m: m.head.bias.data[0].add_(1e-6))
    changed(lambda m: m.body[1].running_mean[3].add_(1e-6))
    changed(lambda m: m.body[1].num_batches_tracked.add_(1))
    changed(lambda m: m.half())
    changed(lambda m: m.bfloat16())
    changed(lambda m: m.double())
    changed(swap)
    changed(rename)
    assert len(names) == 9


def test_fingerprint_does_not_depend_on_the_size_of_pieces(monkeypatch):
    model = net()
    name = fingerprint(model)
    monkeypatch.setattr("bc_lightning.reference._fingerprint._CHUNK_BYTES", 24)
    assert fingerprint(model) == name


def test_fingerprint_takes_sparse_complex_and_extra_state():
    class Odd(nn.Module):
        def __init__(self, extra):
            super().__init__()
            self.extra = extra
            self.register_buffer("sparse", torch.eye(3).to_sparse())
            self.register_buffer("waves", torch.ones(2, dtype=torch.complex64).conj())
            self.register_buffer("none", torch.empty(0, 3))
            self.register_buffer("truth", torch.tensor(True))

        def get_extra_state(self):
            return self.extra

        def set_extra_state(self, state):
            self.extra = state

    assert fingerprint(Odd({"a": [1, 2]})) == fingerprint(Odd({"a": [1, 2]}))
    assert fingerprint(Odd({"a": [1, 2]})) != fingerprint(Odd({"a": [1, 3]}))
    assert fingerprint(Odd(lambda: None)).startswith("sha256:")


def test_fingerprint_refuses_weights_without_values():
    for model in (nn.LazyLinear(3), nn.Linear(2, 2, device="meta")):
        with pytest.raises(ValueError, match=r"h1's '(weight|bias)' has no values yet"):
            fingerprint(model)


def test_fingerprint_of_callables():
    class Service:
        def __call__(self, x):
            return x

    class Named(Service):
        fingerprint = "service-7"

    class Asked(Service):
        def fingerprint(self):
            return "service-8"

    assert fingerprint(labels_of_service).partition("#")[0].endswith("test_reference.labels_of_service")
    assert fingerprint(labels_of_service).startswith("callable:")
    assert "Service" in fingerprint(Service())
    assert fingerprint(Named()) == "service-7"
    assert fingerprint(Asked()) == "service-8"
    a, b = net(0), net(1)
    assert fingerprint(a.forward) == fingerprint(copy.deepcopy(a).forward) != fingerprint(b.forward)
    assert fingerprint(functools.partial(a)) != fingerprint(functools.partial(b))


# Fingerprints of data


def items():
    x = torch.arange(12.0).reshape(3, 4)
    return {
        "tensor": x,
        "shape": x.reshape(4, 3),
        "dtype": x.double(),
        "value": x + 1e-6,
        "transposed": x.t(),
        "bfloat16": x.bfloat16(),
        "array": x.numpy(),
        "pair": (x, 1),
        "other label": (x, 2),
        "float label": (x, 1.0),
        "numpy label": (x, np.int64(1)),
        "numpy label of another type": (x, np.int32(1)),
        "label in the tensor": (x, torch.tensor(1)),
        "string": (x, "1"),
        "bytes": (x, b"1"),
        "none": (x, None),
        "strings": ("ab", "c"),
        "strings split otherwise": ("a", "bc"),
        "nested": ((x, x), x),
        "nested otherwise": (x, (x, x)),
        "mapping": {"x": x, "y": 1},
        "other key": {"x": x, "z": 1},
        "date": np.datetime64("2020-01-01"),
        "objects": np.array([None, "a"], dtype=object),
        "empty": torch.empty(0, 3),
        "empty otherwise": torch.empty(3, 0),
        "scalar": torch.tensor(3.0),
        "pickled": complex(1, 2),
    }


def test_data_fingerprints_tell_items_apart_and_repeat():
    first = {name: fingerprint_data(item) for name, item in items().items()}
    assert len(set(first.values())) == len(first)
    assert first == {name: fingerprint_data(item) for name, item in items().items()}
    assert all(0 <= value < 2**64 for value in first.values())


def test_data_fingerprint_reads_content_not_storage():
    x = torch.arange(12.0).reshape(3, 4)
    same = fingerprint_data(x)
    assert fingerprint_data(x.t().contiguous().t()) == same
    assert fingerprint_data(torch.cat([x, x])[3:]) == same
    assert fingerprint_data(x.clone().requires_grad_()) == same
    assert fingerprint_data(x.numpy()[::1].copy(order="F")) == fingerprint_data(x.numpy())
    assert fingerprint_data({"a": 1, "b": 2}) == fingerprint_data({"b": 2, "a": 1})


def test_data_fingerprint_of_images(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    image = image_module.fromarray(pixels)
    image.save(tmp_path / "a.png")
    from_file = image_module.open(tmp_path / "a.png")
    assert fingerprint_data(from_file) == fingerprint_data(image)
    assert fingerprint_data(image_module.fromarray(pixels + 1)) != fingerprint_data(image)


def test_data_fingerprint_refuses_what_it_cannot_read():
    with pytest.raises(TypeError, match="cannot hash a value of type generator"):
        fingerprint_data([1, (x for x in ())])
