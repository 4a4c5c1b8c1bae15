"""h1 as a reference: frozen, asked as it is, and said in h2's classes.

What both sides promise: of Keras in a process that names a backend, of Lightning in any other.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from bc_core import ClassMap


class Lightning:
    forms = ("logits",)

    def __init__(self) -> None:
        import torch

        from bc_lightning import Reference, StoredOutputs

        self.torch, self.Reference, self.StoredOutputs = torch, Reference, StoredOutputs

    def model(self) -> Any:
        nn = self.torch.nn
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        model(self.torch.randn(64, 4) * 3 + 1)
        return model.train()

    def weights(self, model: Any) -> list[np.ndarray]:
        return [value.numpy().copy() for value in model.state_dict().values()]

    def ask(self, h1: Any, x: np.ndarray, **options: Any) -> np.ndarray:
        answer = self.Reference(h1, **options)(self.torch.tensor(x))
        assert not answer.requires_grad
        return answer.numpy()

    def by_hand(self, model: Any, x: np.ndarray) -> np.ndarray:
        import copy

        with self.torch.no_grad():
            return copy.deepcopy(model).eval()(self.torch.tensor(x)).numpy()

    def mapped(self, p: np.ndarray, form: str, class_map: list[int], num_classes: int) -> np.ndarray:
        """Probabilities of h2's classes, of an h1 that says `p` in one form."""
        logits = self.torch.tensor(np.log(p))
        return self.Reference(lambda x: logits, class_map, num_classes)(logits).softmax(1).numpy()

    def mapped_labels(self, labels: list[int], class_map: list[int]) -> list[int]:
        return (
            self.Reference(self.StoredOutputs.from_table([0]), class_map)
            .map_classes(self.torch.tensor(labels))
            .tolist()
        )


class Keras:
    forms = ("logits", "probabilities")

    def __init__(self) -> None:
        import keras

        from bc_keras import Reference, StoredOutputs

        self.keras, self.Reference, self.StoredOutputs = keras, Reference, StoredOutputs

    def model(self) -> Any:
        layers = self.keras.layers
        hidden = [layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]
        return self.keras.Sequential([layers.Input((4,)), *hidden])

    def weights(self, model: Any) -> list[np.ndarray]:
        return [weight.copy() for weight in model.get_weights()]

    def ask(self, h1: Any, x: np.ndarray, **options: Any) -> np.ndarray:
        return self.keras.ops.convert_to_numpy(self.Reference(h1, **options)(x))

    def by_hand(self, model: Any, x: np.ndarray) -> np.ndarray:
        return self.keras.ops.convert_to_numpy(model(x, training=False))

    def mapped(self, p: np.ndarray, form: str, class_map: list[int], num_classes: int) -> np.ndarray:
        """Probabilities of h2's classes, of an h1 that says `p` in one form."""
        ops, logits = self.keras.ops, form == "logits"
        given = np.log(p) if logits else p
        answer = self.Reference(lambda x: ops.convert_to_tensor(given), class_map)(given, num_classes, logits)
        return ops.convert_to_numpy(ops.softmax(answer, axis=-1) if logits else answer)

    def mapped_labels(self, labels: list[int], class_map: list[int]) -> list[int]:
        given = self.keras.ops.convert_to_tensor(np.array(labels, "int32"))
        reference = self.Reference(self.StoredOutputs.from_table([0]), class_map)
        return self.keras.ops.convert_to_numpy(reference.in_classes_of_h2(given, None, False)).tolist()


SIDE = Keras if "KERAS_BACKEND" in os.environ else Lightning


@pytest.fixture(scope="module", params=[SIDE])
def side(request):
    return request.param()


def probabilities(classes: int) -> np.ndarray:
    p = np.exp(np.random.default_rng(0).normal(size=(6, classes)))
    return (p / p.sum(1, keepdims=True)).astype("float32")


X = np.random.default_rng(1).normal(size=(16, 4)).astype("float32")


def test_answers_are_those_of_inference_and_leave_h1_as_it_was(side):
    model = side.model()
    before = side.weights(model)
    np.testing.assert_allclose(side.ask(model, X), side.by_hand(model, X), rtol=1e-5, atol=1e-6)
    assert all(np.array_equal(was, now) for was, now in zip(before, side.weights(model), strict=True))


def test_callables_may_answer_in_numpy(side):
    np.testing.assert_array_equal(side.ask(lambda x: np.asarray(x) * 2, X), X * 2)


def test_what_cannot_be_asked_is_refused(side):
    for h1 in (object, "h1.ckpt", None):
        with pytest.raises(TypeError, match="h1 must be a .*callable or stored outputs"):
            side.Reference(h1)


def test_stored_outputs_come_with_the_batch(side):
    stored = side.StoredOutputs.from_table([0, 1, 1])
    assert side.Reference(stored).stored is stored
    with pytest.raises((TypeError, ValueError), match=r"h1 is stored outputs.*\.attach\("):
        side.ask(stored, X)


@pytest.mark.parametrize("form", SIDE.forms)
@pytest.mark.parametrize(
    ("class_map", "num_classes", "columns"),
    [
        # Moved, beside classes that are new.
        (ClassMap([3, 0, 1], new=[2, 4]), 5, lambda p: [p[:, 1], p[:, 2], 0 * p[:, 0], p[:, 0], 0 * p[:, 0]]),
        # Two became one.
        (ClassMap([0, 1, 1], merged=[1]), 2, lambda p: [p[:, 0], p[:, 1] + p[:, 2]]),
        # One is gone: h1 has to choose among those that are left.
        ([0, 1, -1], 2, lambda p: [p[:, 0] / (p[:, 0] + p[:, 1]), p[:, 1] / (p[:, 0] + p[:, 1])]),
        # One became two, each part with its share, beside one that is new.
        (ClassMap([(1, 3), 0], new=[2]), 4, lambda p: [p[:, 1], p[:, 0] / 2, 0 * p[:, 0], p[:, 0] / 2]),
    ],
    ids=["moved", "merged", "dropped", "split"],
)
def test_class_map_says_probabilities_in_h2s_classes(side, form, class_map, num_classes, columns):
    p = probabilities(len(class_map))
    mapped = side.mapped(p, form, class_map, num_classes)
    np.testing.assert_allclose(mapped, np.stack(columns(p), axis=1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(mapped.sum(1), 1, rtol=1e-5)


def test_class_map_of_labels(side):
    # -1 is no class, before the map and after it.
    assert side.mapped_labels([0, 1, 2, -1], ClassMap([2, 0, -1], new=[1])) == [2, 0, -1, -1]


@pytest.mark.parametrize("class_map", [[0, -2], [-1, -1], []])
def test_wrong_class_maps_are_refused(side, class_map):
    with pytest.raises(ValueError, match=r"class_map must .*"):
        side.Reference(lambda x: x, class_map)


def test_a_class_map_of_another_number_of_classes_is_refused(side):
    with pytest.raises(ValueError, match="one entry for each|one for each class of h1"):
        side.ask(lambda x: x, X, class_map=[0, 1])
