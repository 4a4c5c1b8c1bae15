"""An h1 of other classes: new, merged, split and removed ones, in training and in comparisons.

What both sides promise: of Keras in a process that names a backend, of Lightning in any other.
"""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from backends import once_but
from test_teachers import CLASSES, SIDE, START, N, X, Y, softmax, weights

from bc_core import ClassMap


@pytest.fixture(scope="module", params=[SIDE])
def side(request):
    return request.param()


OF_TWO = X @ weights(4, 2)
OF_FOUR = X @ weights(5, 4)


def support_and_goal(kind: str) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """A class map, h1's weights, whether h1 is right about each instance, and its probabilities in h2's classes."""
    p2, p4, none = softmax(OF_TWO.astype("float64")), softmax(OF_FOUR.astype("float64")), np.zeros(N)
    if kind == "split":
        # h1's class 1 became the classes 1 and 2.
        right = np.where(Y == 0, p2[:, 0] > p2[:, 1], p2[:, 1] > p2[:, 0])
        goal = np.stack([p2[:, 0], p2[:, 1] / 2, p2[:, 1] / 2], 1)
        return ClassMap([0, (1, 2)]), weights(4, 2), right, goal
    if kind == "split as h2 says":
        # h1 says no more than the whole, whose parts are as likely as h2 has them.
        _, of_h1, right, _ = support_and_goal("split")
        parts = softmax(START.astype("float64"))[:, 1:]
        parts = parts / parts.sum(1, keepdims=True)
        return ClassMap([0, (1, 2)], shares="h2"), of_h1, right, np.concatenate([p2[:, :1], p2[:, 1:] * parts], 1)
    if kind == "new":
        goal = np.stack([p2[:, 1], none, p2[:, 0]], 1)
        return ClassMap([2, 0], new=[1]), weights(4, 2), goal.argmax(1) == Y, goal
    if kind == "merged":
        goal = np.stack([p4[:, 0], p4[:, 1] + p4[:, 3], p4[:, 2]], 1)
        return ClassMap([0, 1, 2, 1], merged=[1]), weights(5, 4), goal.argmax(1) == Y, goal
    # Its last class is gone: it chooses among the others.
    goal = p4[:, :3] / p4[:, :3].sum(1, keepdims=True)
    return [0, 1, 2, -1], weights(5, 4), goal.argmax(1) == Y, goal


KINDS = ("split", "split as h2 says", "new", "merged", "removed")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dissonance", ["new_error", "strict_imitation", "imitation"])
def test_support_and_imitation_are_in_h2s_classes(side, kind, dissonance):
    class_map, of_h1, right, goal = support_and_goal(kind)
    assert 0 < right.sum() < N
    h1, h2 = side.linear(of_h1), side.linear(weights(3))
    logged, _ = side.trained(h2, h1, dissonance, class_map=class_map)
    logs = np.log(softmax(START.astype("float64")))
    each = -logs[np.arange(N), Y] if dissonance == "new_error" else -(goal * logs).sum(1)
    expected = each.mean() if dissonance == "imitation" else (each * right).mean()
    np.testing.assert_allclose(logged["dissonance"], expected, rtol=1e-5)
    kept = START.argmax(1) == Y
    np.testing.assert_allclose(logged["btc"], (right & kept).sum() / right.sum(), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_outputs_are_mapped_alike(side, tmp_path, kind):
    class_map, of_h1, right, _ = support_and_goal(kind)
    stored = side.store(side.linear(of_h1), tmp_path / "h1")
    logged, _ = side.trained(side.linear(weights(3)), stored, "imitation", stored.attach, class_map=class_map)
    kept = START.argmax(1) == Y
    np.testing.assert_allclose(logged["btc"], (right & kept).sum() / right.sum(), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_counts_alike(side, kind):
    class_map, of_h1, right, _ = support_and_goal(kind)
    h1, h2 = side.Reference(side.linear(of_h1), class_map=class_map), side.linear(weights(3))
    if SIDE.__name__ == "Keras":
        found = side.package.evaluate(h1, h2, (X, Y), from_logits=True)
    else:
        tensors = [side.torch.tensor(part) for part in (X, Y)]
        loader = side.torch.utils.data.DataLoader(side.torch.utils.data.TensorDataset(*tensors), 5)
        found = side.package.evaluate(h1, h2, loader)
    kept = START.argmax(1) == Y
    overlap = found.comparison.overlap
    counted = (overlap.both_right, overlap.h1_only_right, overlap.h2_only_right)
    assert counted == ((right & kept).sum(), (right & ~kept).sum(), (~right & kept).sum())
    # What h1 did not know is shown apart.
    is_new = (Y == 1) if kind == "new" else np.zeros(N, bool)
    assert found.comparison.new_classes == ((1,) if kind == "new" else ())
    assert (found.comparison.new.total, found.comparison.new.h2_only_right) == (is_new.sum(), (is_new & kept).sum())
    assert found.comparison.known.accuracy_h1 == pytest.approx(right.sum() / (~is_new).sum())


def test_an_instance_of_a_new_class_is_never_in_the_support(side):
    _, _, right, _ = support_and_goal("new")
    assert (Y == 1).any()
    assert not right[Y == 1].any()


def test_labels_that_h1_gives_are_said_by_parts_too(side):
    said = OF_TWO.argmax(1)
    stored = side.StoredOutputs.from_table(said)
    how = {"num_classes": 2} if SIDE.__name__ == "Keras" else {}
    logged, _ = side.trained(
        side.linear(weights(3)),
        stored,
        "new_error",
        lambda *data: stored.attach(*data, **how),
        class_map=ClassMap([0, (1, 2)]),
    )
    right, kept = np.where(Y == 0, said == 0, said == 1), START.argmax(1) == Y
    np.testing.assert_allclose(logged["btc"], (right & kept).sum() / right.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("entries", "more", "says"),
    [
        ([0, 1, 1], {}, r"sends classes 1, 2 of h1 to class 1.*ClassMap\(\[0, 1, 1\], merged=\[1\]\)"),
        ([0, 2], {}, r"no class of h1 that is class 1 of h2.*ClassMap\(\[0, 2\], new=\[1\]\)"),
        ([0, 3], {}, r"classes 1, 2 of h2.*new=\[1, 2\]"),
        ([0, 3], {"new": [1]}, r"class 2 of h2.*new=\[1, 2\]"),
        ([0, 1, 1, 0], {}, r"merged=\[0, 1\]"),
        ([0, 1], {"new": [1]}, "class 1 of h2 is new, and that it was one of h1's"),
        ([0, 1, 1], {"merged": [0, 1]}, "merged to class 0 of h2, and sends 1 there"),
        ([0, (1, 2), 2], {}, "a part of one that was split"),
        ([0, (1, 1)], {}, "two or more of h2's class indices, each once"),
        ([0, (1,)], {}, "two or more"),
        ([0, (1, -1)], {}, "two or more"),
        ([-1, -1], {}, "keep at least one"),
        ([], {}, "keep at least one"),
        ([0, -2], {}, "got -2"),
        ([0, (1, 2)], {"shares": "all"}, "must be 'equal' or 'h2'"),
        ([0, 1], {"shares": "h2"}, "those of classes that were split"),
    ],
)
def test_slips_are_refused_and_the_remedy_works(entries, more, says):
    def for_its_classes() -> None:
        made = ClassMap(entries, **more)
        made.check(made.num_classes)

    with pytest.raises(ValueError, match=says) as told:
        for_its_classes()
    remedy = str(told.value).partition("say so: ")[2].partition(". Received")[0]
    if remedy:
        made = eval(remedy, {"ClassMap": ClassMap})
        assert list(made) == entries


def test_a_map_that_leaves_out_a_class_of_h2_is_refused_where_h2_is_known(side):
    # h2 has three classes, and of the last nothing is said.
    with pytest.raises(ValueError, match=r"class 2 of h2.*ClassMap\(\[0, 1\], new=\[2\]\)"):
        side.trained(side.linear(weights(3)), side.linear(weights(4, 2)), "imitation", class_map=[0, 1])
    with pytest.raises(ValueError, match="names class 3, but h2 has 3 classes"):
        side.trained(side.linear(weights(3)), side.linear(weights(5, 4)), "imitation", class_map=[0, 1, 2, 3])


def test_maps_are_kept_whole():
    split = ClassMap([0, (1, 2)], shares="h2")
    for made in (ClassMap([0, (1, 2), -1, 3, 3], new=[4], merged=[3]), ClassMap([1, 0]), split):
        for again in (
            pickle.loads(pickle.dumps(made)),
            copy.deepcopy(made),
            ClassMap.of(made),
            ClassMap.of(json.loads(json.dumps(made.as_given()))),
            eval(repr(made), {"ClassMap": ClassMap}),
        ):
            assert (again, again.new, again.merged) == (made, made.new, made.merged)
            assert again.shares == made.shares
    with pytest.raises(ValueError, match="has the keys map, new, merged and shares"):
        ClassMap.of({"map": [0, 1], "news": [2]})
    assert ClassMap([0, (1, 2)]).num_classes == CLASSES


def test_a_teacher_divides_by_its_own_map(side):
    _, of_h1, _, goal = support_and_goal("split as h2 says")
    teacher = side.Reference(side.linear(of_h1), class_map=ClassMap([0, (1, 2)], shares="h2"))
    logged, _ = side.trained(side.linear(weights(3)), side.linear(weights(1)), "imitation", teacher=teacher)
    expected = -(goal * np.log(softmax(START.astype("float64")))).sum(1).mean()
    np.testing.assert_allclose(logged["dissonance"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="not known to the models of a blend"):
        side.ask(side.Reference([teacher, side.linear(weights(1))]), X)


# A start from h1's weights


HEADS = [
    # Rows of h1 that each class of h2 is made of; none for those that are its own.
    (ClassMap([0, 1], new=[2]), [[0], [1], []]),
    (ClassMap([2, 0], new=[1]), [[1], [], [0]]),
    (ClassMap([0, (1, 2)]), [[0], [1], [1]]),
    ([2, 0, 1], [[1], [2], [0]]),
    (ClassMap([0, 1, 2, 1], merged=[1]), [[0], [1, 3], [2]]),
    ([0, 2, -1, 1], [[0], [3], [1]]),
]


# Rows are put together in numpy, whatever the backend.
@pytest.mark.parametrize(("class_map", "of_h2"), once_but([HEADS[1], HEADS[4]], HEADS))
def test_the_head_is_started_class_by_class(side, class_map, of_h2):
    of_h1, own = weights(7, len(class_map)), weights(3)
    h1, h2 = side.linear(of_h1), side.linear(own)
    report = side.package.warm_start(h2, h1, class_map)
    expected = np.stack([of_h1[:, rows].mean(1) if rows else own[:, c] for c, rows in enumerate(of_h2)], 1)
    started = h2.get_weights()[0] if SIDE.__name__ == "Keras" else h2.weight.detach().numpy().T
    np.testing.assert_allclose(started, expected, rtol=1e-6)
    fresh = [c for c, rows in enumerate(of_h2) if not rows]
    assert f"{3 - len(fresh)} of 3 classes of h2 from h1" in str(report)
    assert report.numbers == (4 * (3 - len(fresh)), 12)
    assert ("fresh are" in str(report)) == bool(fresh)
    # So does a training that starts from h1; at lambda_c = 0 it is one step of plain training away from there.
    first, second = side.linear(own), side.linear(own)
    _, after = side.trained(first, h1, "imitation", lambda_c=0.0, class_map=class_map, start_from="h1")
    side.package.warm_start(second, side.Reference(h1, class_map))
    _, expected = side.trained(second, side.linear(weights(9)), "imitation", lambda_c=0.0)
    np.testing.assert_array_equal(after, expected)


def test_a_head_that_cannot_be_told_is_not_started(side):
    if SIDE.__name__ == "Keras":
        layers = side.keras.layers

        def net():
            return side.keras.Sequential([layers.Input((3,)), layers.Dense(3), layers.Dense(3)])
    else:

        def net():
            return side.torch.nn.Sequential(side.torch.nn.Linear(3, 3), side.torch.nn.Linear(3, 3))

    with pytest.raises(ValueError, match="which layer that is cannot be told") as told:
        side.package.warm_start(net(), net(), [2, 0, 1])
    assert "warm_start(h2, copy)" in str(told.value)
    # Classes in the order that they had are copied as all weights are.
    assert not side.package.warm_start(net(), net(), [0, 1, 2]).head
