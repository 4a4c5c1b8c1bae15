"""What models return and what batches hold."""

from __future__ import annotations

import dataclasses
from collections import UserDict, namedtuple

import pytest
import torch

from bc_lightning.batches._model_outputs import inputs_from_batch, scores_from_output, target_from_batch


@dataclasses.dataclass
class ClassifierOutput:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


AuxiliaryOutputs = namedtuple("AuxiliaryOutputs", ["logits", "aux_logits2", "aux_logits1"])
Batch = namedtuple("Batch", ["image", "label"])


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def test_tensor_is_returned_as_it_is(logits):
    assert scores_from_output(logits) is logits


def test_original_triple_gives_its_first_or_third_member(logits):
    triple = (logits, logits.softmax(1), logits.log_softmax(1))
    assert scores_from_output(triple) is triple[0]
    assert scores_from_output(list(triple), "log_probabilities") is triple[2]


@pytest.mark.parametrize(
    "make", [ClassifierOutput, lambda x: {"loss": None, "logits": x}, lambda x: UserDict(logits=x)]
)
def test_objects_and_mappings_give_their_logits(logits, make):
    assert scores_from_output(make(logits)) is logits
    torch.testing.assert_close(scores_from_output(make(logits), "log_probabilities"), logits.log_softmax(1))


def test_named_tuple_of_three_is_not_taken_for_the_triple(logits):
    output = AuxiliaryOutputs(logits, logits + 1, logits + 2)
    torch.testing.assert_close(scores_from_output(output, "log_probabilities"), logits.log_softmax(1))


def test_log_probabilities_pass_unchanged(logits):
    once = scores_from_output(logits, "log_probabilities")
    torch.testing.assert_close(scores_from_output(once, "log_probabilities"), once)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_log_probabilities_are_at_least_float32(logits, dtype):
    found = scores_from_output(logits.to(dtype), "log_probabilities")
    torch.testing.assert_close(found, logits.to(dtype).float().log_softmax(1))
    assert scores_from_output(logits.double(), "log_probabilities").dtype == torch.float64


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (None, "NoneType"),
        ((torch.zeros(2, 3), torch.zeros(2)), r"tuple of 2: \(tensor\(2, 3\), tensor\(2,\)\)"),
        ((torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3)), "tuple of 3"),
        ({"scores": torch.zeros(2, 3)}, "keys \\['scores'\\]"),
        (ClassifierOutput(logits=None), "ClassifierOutput"),
    ],
)
def test_other_outputs_are_refused_with_what_came(output, said):
    with pytest.raises(TypeError, match=said):
        scores_from_output(output)


def test_log_probabilities_need_columns_and_floats(logits):
    with pytest.raises(ValueError, match=r"shape \(N, C\), got shape \(5,\)"):
        scores_from_output(logits[:, 0], "log_probabilities")
    with pytest.raises(TypeError, match="integer labels hold no probabilities"):
        scores_from_output(torch.tensor([[1, 2]]), "log_probabilities")
    with pytest.raises(ValueError, match="want must be"):
        scores_from_output(logits, "probabilities")


X, Y, W = torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2)


@pytest.mark.parametrize(
    "batch", [(X, Y), [X, Y, W], Batch(X, Y), {"x": X, "label": Y}, {"x": X, "y": Y}, UserDict(x=X, targets=Y)]
)
def test_targets_are_found_by_default(batch):
    assert target_from_batch(batch) is Y


@pytest.mark.parametrize(
    ("batch", "target"),
    [
        ((X, W, Y), 2),
        ((X, W, Y), -1),
        ({"x": X, "digit": Y, "label": W}, "digit"),
        (Batch(X, Y), "label"),
        ({"meta": {"y": Y}}, lambda batch: batch["meta"]["y"]),
    ],
)
def test_targets_are_found_where_told(batch, target):
    assert target_from_batch(batch, target) is Y


@pytest.mark.parametrize(
    ("batch", "target", "error", "said"),
    [
        ((X,), None, ValueError, "no element 1"),
        ({"x": X}, None, ValueError, r"none of the keys target, .*keys \['x'\]"),
        (X, None, TypeError, "a tensor of shape"),
        ({"x": X}, "digit", ValueError, r"target='digit' is not in the batch, which is a dict with keys \['x'\]"),
        ((X, Y), 5, ValueError, "target=5 is not in the batch, which is a tuple of 2"),
        ((X, Y), "label", ValueError, "target='label' is not in the batch"),
        ((X, Y), 1.5, TypeError, "must be a key, an index or a function"),
        ((X, [0, 1]), None, TypeError, "the targets must be a tensor"),
    ],
)
def test_missing_targets_are_refused_with_what_the_batch_has(batch, target, error, said):
    with pytest.raises(error, match=said):
        target_from_batch(batch, target)


@pytest.mark.parametrize(
    ("batch", "inputs"),
    [(X, None), ((X, Y), None), ([X], None), ({"a": X}, "a"), ({"a": X}, lambda b: b["a"]), ((Y, X), 1)],
)
def test_inputs_are_found(batch, inputs):
    assert inputs_from_batch(batch, inputs) is X


@pytest.mark.parametrize(
    ("batch", "error", "said"),
    [({"a": X}, ValueError, 'give inputs="key"'), ((), ValueError, "empty"), (3, TypeError, "of type int")],
)
def test_inputs_that_cannot_be_told_are_refused(batch, error, said):
    with pytest.raises(error, match=said):
        inputs_from_batch(batch)
