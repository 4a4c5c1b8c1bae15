"""What a fingerprint sees of h1 and of data."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from reference_models import labels_of_service, net
from torch import nn

from bc_lightning.reference._fingerprint import fingerprint, fingerprint_data
from bc_lightning.reference._reference import Reference

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

    assert fingerprint(labels_of_service).partition("#")[0].endswith("reference_models.labels_of_service")
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
