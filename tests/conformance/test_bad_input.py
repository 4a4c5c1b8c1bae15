"""Bad input is refused at the door, on both sides alike: by the same kind of error, which says what came, what was
expected and what to do. Where the remedy is an argument or another input, it is tried.

Of Keras in a process that names a backend, of Lightning in any other. Losses and scores by themselves, stored outputs,
sweeps and invariance say theirs in their own files.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from bad_input_sides import Keras, Lightning
from evaluate_sides import batches

from bc_core import ClassMap

SIDE = Keras if "KERAS_BACKEND" in os.environ else Lightning


@pytest.fixture(scope="module")
def side():
    made = SIDE()
    yield made
    made.close()


X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 32)


def refused(kind, do, *says):
    """An error of this kind, whose message has each of these."""
    with pytest.raises(kind) as told:
        do()
    message = str(told.value)
    for each in says:
        assert re.search(each, message), f"{each!r} is not in {message!r}"


def with_label(label, dtype="int64", target=Y):
    target = target.astype(dtype)
    target[5] = label
    return target


# -------------------------------------------------------------------------------- wrapping


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_lambda_c_that_is_no_weight(side, value):
    refused(
        ValueError, lambda: side.wrap(side.net(1), side.net(), lambda_c=value),
        "lambda_c must be a finite number >= 0", "0 is plain training", f"Received: {value}",
    )  # fmt: skip


@pytest.mark.parametrize("value", ["1", True, [1.0]])
def test_a_lambda_c_of_another_type(side, value):
    refused(
        TypeError, lambda: side.wrap(side.net(1), side.net(), lambda_c=value),
        "lambda_c must be a number >= 0", f"Received: {re.escape(repr(value))}",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["hinge", "BCCrossEntropy"])
def test_an_unknown_loss_is_answered_with_the_known_ones(side, name):
    refused(ValueError, lambda: side.wrap(side.net(1), side.net(), loss=name), name, *side.known_losses)


def test_a_loss_that_is_none(side):
    refused(TypeError, lambda: side.wrap(side.net(1), side.net(), loss=3), "loss must be", "CompatibilityLoss", "Rec")


def test_a_misspelt_argument(side):
    refused(
        TypeError, lambda: side.wrap(side.net(1), side.net(), lamda_c=1.0),
        r"^(BCModel|BCLightningModule)\S*\(\) got an unexpected keyword argument 'lamda_c'",
    )  # fmt: skip


def test_h1_is_missing(side):
    refused(TypeError, lambda: side.wrap(side.net(1), None), "h1 is missing", r"Pass|pass", "h1=old_model")


@pytest.mark.parametrize("h1", ["h1.file", 3, dict], ids=repr)
def test_an_h1_that_cannot_be_asked(side, h1):
    came = {"h1.file": "h1.file|str", 3: "3|int", dict: "dict"}[h1]
    refused(
        TypeError, lambda: side.wrap(side.net(1), h1), "h1 must be a .*callable or stored outputs", r"load\w*", came
    )


@pytest.mark.parametrize("h2", [None, "h2.file", dict], ids=repr)
def test_an_h2_that_cannot_be_trained(side, h2):
    came = {None: "None", "h2.file": "h2.file|str", dict: "dict|type"}[h2]
    refused(TypeError, lambda: side.wrap(h2, side.net()), "must be a (Keras model|LightningModule)", "Received", came)


def test_an_h1_that_is_h2(side):
    model = side.net()
    refused(ValueError, lambda: side.wrap(model, model), "h1 and h2 are (the same object|one model)", "copy|clone")
    side.wrap(side.copied(model), model)


def test_an_h1_that_shares_weights_with_h2(side):
    h1 = side.net()
    refused(
        ValueError, lambda: side.wrap(side.sharing(h1), h1), "h1", "h2", "would change", "copy|clone", "weight|kernel"
    )
    side.wrap(side.sharing(side.copied(h1)), h1)


@pytest.mark.parametrize("class_map", [[-1, -1, -1], [0, -2, 1], []])
def test_a_class_map_that_names_no_classes(side, class_map):
    came = "-2" if -2 in class_map else re.escape(str(class_map))
    refused(
        ValueError, lambda: side.wrap(side.net(1), side.net(), class_map=class_map), "class_map must", "-1|least", came
    )


# -------------------------------------------------------------------------------- training


@pytest.mark.parametrize("label", [3, -1, -7, 10**9])
def test_training_on_a_label_that_is_no_class(side, label):
    refused(
        ValueError, lambda: side.train(side.wrap(side.net(1), side.net()), X, with_label(label)),
        rf"label {label} at index 5", r"class indices", r"0\.\.2",
    )  # fmt: skip


def test_training_against_an_h1_of_other_classes(side):
    h1 = side.net(classes=2)
    refused(
        ValueError, lambda: side.train(side.wrap(side.net(1), h1), X, Y),
        r"h1 has 2 classes|shape \(16, 2\)", "h2 has 3|h2's 3 classes", "class_map|class map",
    )  # fmt: skip
    side.train(side.wrap(side.net(1), h1, class_map=ClassMap([2, 0], new=[1])), X, Y)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("loss", [None, "StrictImitationCrossEntropyLoss"])
def test_training_against_an_h1_that_answers_for_other_instances(side, loss, rows):
    net = side.net()
    h1 = side.wrap(side.net(1), lambda x: net(x)[:rows], **({"loss": loss} if loss else {}))
    refused(ValueError, lambda: side.train(h1, X, Y), "h1", f"{rows}")


@pytest.mark.parametrize("class_map", [[0, 1], [0, 1, 7]])
def test_training_with_a_class_map_that_does_not_fit(side, class_map):
    came, expected = {
        2: (r"2 entries|\[0, 1\]", "one entry for each|one for each"),
        3: ("class 7", "3 classes, 0 to 2"),
    }[len(class_map)]
    refused(
        ValueError, lambda: side.train(side.wrap(side.net(1), side.net(), class_map=class_map), X, Y),
        "class_map", came, expected,
    )  # fmt: skip


def test_training_against_an_h1_that_says_nan(side):
    refused(
        ValueError, lambda: side.train(side.wrap(side.net(1), side.spoilt(side.net())), X, Y),
        "h1", "NaN", "finite scores", "half-loaded",
    )  # fmt: skip


def test_training_an_h2_that_says_nan(side):
    refused(
        ValueError, lambda: side.train(side.wrap(side.spoilt(side.net(1)), side.net()), X, Y),
        "h2", "NaN", "finite scores", "diverged",
    )  # fmt: skip


def test_training_on_data_that_stored_outputs_are_not_attached_to(side):
    stored = side.ours.StoredOutputs.from_table(Y)
    refused(
        ValueError, lambda: side.train(side.wrap(side.net(1), stored), X, Y),
        "h1 is (given as )?stored outputs", r"\.attach\(",
    )  # fmt: skip
    side.train(side.wrap(side.net(1), stored), X, Y, stored, num_classes=3)


def test_imitating_an_h1_that_is_known_by_its_labels(side):
    stored = side.ours.StoredOutputs.from_table(Y)

    def imitate():
        model = side.wrap(side.net(1), stored, loss="StrictImitationCrossEntropyLoss")
        side.train(model, X, Y, stored, num_classes=3)

    refused(ValueError, imitate, "h1", "labels only", "scores", "new-error|new_error")


# -------------------------------------------------------------------------------- evaluating


def evaluate(side, h1, h2, data, **options):
    return side.ours.evaluate(h1, h2, data, **options).comparison


def of_rows(side, answers, x, y):
    """An h1 that is what it said of rows: in Keras of arrays alone."""
    return side.ours.evaluate(answers, side.net(1), **side.in_threes(x, y))


@pytest.mark.parametrize(
    ("label", "dtype"),
    [
        (-1, "int64"), (-7, "int64"), (-101, "int32"), (3, "int64"), (10**9, "int64"), (2**32, "int64"),
        (2**62, "int64"), (2**63, "uint64"),
    ],
)  # fmt: skip
def test_evaluating_on_a_label_that_is_no_class(side, label, dtype):
    net, target = side.net(1), with_label(label, dtype)
    for data in (
        batches(X, target, size=16),
        batches(X, target, size=5),
        *(form for form, _ in side.forms(X, target, 16)),
    ):
        refused(
            ValueError, lambda data=data: evaluate(side, net, net, data), "(?i)target|label", str(label), "map the|Map"
        )


@pytest.mark.parametrize("label", [-1, -7, -101, 3, 10**9])
def test_a_label_that_is_to_be_left_out_is(side, label):
    options, h2 = side.ignoring(label)
    assert (
        evaluate(side, side.net(), h2 or side.net(1), batches(X, with_label(label), size=16), **options).dataset_size
        == 31
    )


@pytest.mark.parametrize("label", [0.5, float("nan"), float("inf")])
def test_evaluating_on_a_label_that_is_no_number_of_a_class(side, label):
    net = side.net(1)
    refused(
        ValueError, lambda: evaluate(side, net, net, batches(X, with_label(label, "float32"), size=16)),
        "(?i)target|label", "class number|[Cc]lass indices must be integers",
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["int64", "float32"])
@pytest.mark.parametrize("label", [-1, 2, 10**9, -100, float("nan")])
def test_evaluating_a_binary_model_on_a_label_that_is_none(side, label, dtype):
    if label != label:
        dtype = "float32"
    model = side.known(np.full((32, 1), 0.6, "float32"))
    number, target = np.arange(32, dtype="float32")[:, None], (np.arange(32) % 2).astype(dtype)
    for right in (target, np.linspace(0, 1, 32, dtype="float32")):
        assert evaluate(side, model, model, batches(number, right, size=16)).dataset_size == 32
    refused(
        ValueError, lambda: evaluate(side, model, model, batches(number, with_label(label, dtype, target), size=16)),
        "(?i)target|label", f"{label}", r"0 or 1|0\.\.1", "(?i)map the labels",
    )  # fmt: skip


@pytest.mark.parametrize("label", [-2, -7, 3, 10**9, 2**32])
def test_answers_of_h1_that_are_no_classes(side, label):
    refused(
        ValueError, lambda: of_rows(side, with_label(label), X, Y), "^h1", f" {label}",
        r"0\.\.2|classes of h2",
    )  # fmt: skip


@pytest.mark.parametrize(
    "answers", [Y[:31], Y[:2], np.append(Y, 0), np.eye(3)[Y[:31]], np.eye(3)[[*Y, 0]]], ids=np.shape
)
def test_answers_of_h1_of_another_number(side, answers):
    refused(
        ValueError, lambda: of_rows(side, answers, X, Y), "h1", "one (row )?for each",
        r"\d+ instances", str(len(answers)),
    )  # fmt: skip


@pytest.mark.parametrize("rows", [1, 5])
def test_an_h1_that_answers_for_other_instances(side, rows):
    net = side.net()
    h1 = lambda x: net(side.vector(np.asarray(x)))[:rows]  # noqa: E731
    refused(ValueError, lambda: evaluate(side, h1, side.net(1), batches(X, Y, size=16)), "h1", f"{rows}", "16")


def test_stored_outputs_that_the_data_are_not_attached_to(side):
    stored = side.ours.StoredOutputs.from_table(Y)
    refused(
        ValueError, lambda: evaluate(side, stored, side.net(1), batches(X, Y, size=16)),
        "h1 is (missing|stored outputs)", "attach",
    )  # fmt: skip


@pytest.mark.parametrize("data", [[], [(X[:0], Y[:0])]], ids=["no batch", "an empty one"])
def test_evaluating_on_no_data(side, data):
    h1, h2 = side.net(), side.net(1)
    before = side.state(h1)
    refused(ValueError, lambda: evaluate(side, h1, h2, data), "at least one batch|must be, or yield", "none|length 0")
    assert repr(side.state(h1)) == repr(before)


def test_an_id_that_comes_twice(side):
    names = [*range(31), 0]
    refused(ValueError, lambda: evaluate(side, side.net(), side.net(1), batches(X, Y, names)), "ids", "unique")


def test_an_h1_that_says_nan(side):
    refused(
        ValueError, lambda: evaluate(side, side.spoilt(side.net()), side.net(1), batches(X, Y, size=16)),
        "h1", "NaN", "half-loaded",
    )  # fmt: skip


@pytest.mark.parametrize("who", ["h2", "answers"])
def test_nan_is_no_prediction(side, who):
    scores = np.eye(3, dtype="float32")[Y]
    scores[4] = np.nan
    h1, h2 = (scores, side.net(1)) if who == "answers" else (side.net(), side.spoilt(side.net(1)))
    refused(
        ValueError, lambda: side.ours.evaluate(h1, h2, **side.in_threes(X, Y)), "h1" if who == "answers" else who,
        "NaN", "half-loaded",
    )  # fmt: skip


def test_an_h1_of_other_classes_needs_a_class_map(side):
    h1, h2, data = side.net(classes=2), side.net(1), batches(X, Y, size=16)
    refused(
        ValueError, lambda: evaluate(side, h1, h2, data), r"h1 has 2 classes|, 2\)", "h2 has 3|h2's 3 classes",
        "class_map",
    )  # fmt: skip
    assert evaluate(side, side.ours.Reference(h1, class_map=ClassMap([2, 0], new=[1])), h2, data).dataset_size == 32


@pytest.mark.parametrize("model", [None, "a.file", 3, dict], ids=repr)
def test_evaluating_what_cannot_be_asked(side, model):
    data, came = batches(X, Y), "dict" if model is dict else re.escape(repr(model))
    refused(TypeError, lambda: evaluate(side, side.net(), model, data), "^h2 must be a", came)
    if model is None and side.ours.__name__ == "bc_keras":
        # The labels may carry what h1 says.
        refused(ValueError, lambda: evaluate(side, model, side.net(), data), "^h1 is missing", r"evaluate\(old_model")
    else:
        refused(TypeError, lambda: evaluate(side, model, side.net(), data), "^h1 must be a", came, "load")


def test_a_generator_is_read_once(side):
    h1, h2, data = side.net(), side.net(1), batches(X, Y, size=5)
    passed = iter(data)
    assert evaluate(side, h1, h2, passed) == evaluate(side, h1, h2, data)
    refused(ValueError, lambda: evaluate(side, h1, h2, passed), "at least one batch", "none")
    asked_twice = lambda given: evaluate(side, h1, h2, given, performance_metric=lambda *_: 0.5)  # noqa: E731
    refused(TypeError, lambda: asked_twice(iter(data)), "performance_metric", "only once", r"list\(data\)")
    assert asked_twice(list(iter(data))).dataset_size == 32


def test_errors_of_evaluate_name_what_it_has(side):
    h1, h2, data = side.net(), side.net(1), batches(X, Y, size=16)
    told = []
    for do in (
        lambda: evaluate(side, h1, h2, batches(X, with_label(3))),
        lambda: evaluate(side, h1, h2, []),
        lambda: evaluate(side, h1, h2, {"x": X}),
        lambda: evaluate(side, side.spoilt(side.net()), h2, data),
        lambda: evaluate(side, h1, side.spoilt(side.net(1)), data),
        lambda: evaluate(side, None, h2, data),
        lambda: evaluate(side, Y[:3], h2, data),
        lambda: of_rows(side, with_label(3), X, Y),
        lambda: of_rows(side, Y[:3], X, Y),
        lambda: evaluate(side, h1, h2, data, ids=[1, 2]),
    ):
        with pytest.raises((TypeError, ValueError)) as error:
            do()
        told.append(str(error.value))
    for foreign in ("validation_data", "CompatibilityCallback", "num_classes", "ErrorOverlap", "NoneType"):
        assert not [message for message in told if foreign in message]


@pytest.mark.parametrize("threshold", [0.0, 1.0, 1.5, -0.2])
def test_a_threshold_that_is_no_probability(side, threshold):
    model = side.known(np.full((32, 1), 0.6, "float32"))
    data = batches(np.arange(32, dtype="float32")[:, None], Y % 2)
    refused(
        ValueError, lambda: evaluate(side, model, model, data, threshold=threshold), "threshold", "between 0 and 1",
        str(threshold),
    )  # fmt: skip


@pytest.mark.parametrize("batch_size", [0, -3, 2.5, True])
def test_a_batch_size_that_is_none(side, batch_size):
    [(data, _), *_] = side.forms(X, Y, 1)
    refused(
        ValueError, lambda: evaluate(side, side.net(), side.net(1), data, batch_size=batch_size),
        "batch_size must be a whole number >= 1", f"Received: batch_size={batch_size}",
    )  # fmt: skip


def test_binary_scores_that_are_no_probabilities(side):
    logits, sure = (side.known(np.full((32, 1), value, "float32")) for value in (3.0, 0.6))
    data = batches(np.arange(32, dtype="float32")[:, None], Y % 2)
    refused(
        ValueError, lambda: evaluate(side, logits, sure, data), "h1", "probabilities in 0..1", "3", "from_logits=True"
    )


def test_class_names_of_another_number(side):
    refused(
        ValueError, lambda: evaluate(side, side.net(), side.net(1), batches(X, Y, size=16), class_names=["a"]),
        "num_classes is 3", "1 class names",
    )  # fmt: skip


def test_targets_of_another_number_than_inputs(side):
    refused(
        ValueError, lambda: evaluate(side, side.net(), side.net(1), [(X[:3], Y[:2])]), r"shape \(3,\)", r"shape \(2,\)"
    )
