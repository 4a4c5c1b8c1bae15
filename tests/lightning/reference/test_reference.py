"""The frozen h1, its fingerprint, and what it must never share with h2."""

from __future__ import annotations

import copy
import functools
import pickle

import pytest
import pytorch_lightning as pl
import torch
from reference_models import Net, labels_of_service, net
from torch import nn

from bc_core import ClassMap
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._shared_parameters import check_no_shared_parameters
from bc_lightning.reference._stored import StoredOutputs


class LitNet(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)


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
