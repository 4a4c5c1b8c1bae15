"""Who is imitated, and who is counted against: blends of models, and a teacher in place of h1.

What both sides promise: of Keras in a process that names a backend, of Lightning in any other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends import FEW_STEPS

from bc_core import ClassMap
from bc_core.losses._mixtures import first_share, shares

N, CLASSES = 24, 3
GENERATOR = np.random.default_rng(5)
X = GENERATOR.normal(size=(N, 4)).astype("float32")
Y = GENERATOR.integers(0, CLASSES, N)
ROUNDING = {"rtol": 2e-5, "atol": 1e-6}


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


class Lightning:
    def __init__(self) -> None:
        import torch

        import bc_lightning

        self.torch, self.package = torch, bc_lightning
        self.Reference, self.StoredOutputs = bc_lightning.Reference, bc_lightning.StoredOutputs

    def linear(self, weights: np.ndarray) -> Any:
        model = self.torch.nn.Linear(*weights.shape, bias=False)
        with self.torch.no_grad():
            model.weight.copy_(self.torch.tensor(weights.T))
        return model

    def ask(self, reference: Any, x: np.ndarray) -> np.ndarray:
        return reference(self.torch.tensor(x)).numpy()

    def store(self, h1: Any, path: Path, n: int = N) -> Any:
        data = self.torch.utils.data.TensorDataset(self.torch.tensor(X[:n]), self.torch.tensor(Y[:n]))
        return self.package.store_outputs(h1, data, path)

    def trained(
        self,
        h2: Any,
        h1: Any,
        dissonance: str,
        attached: Any = None,
        lambda_c: float = 1.0,
        epochs: int = 1,
        **options: Any,
    ):
        """Steps with the whole data for a batch: what is logged, and h2's weights after them."""
        import pytorch_lightning as pl

        torch = self.torch
        data: Any = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
        if attached is not None:
            data = attached(data)
        module = self.package.BCLightningModule(
            h2, h1=h1, loss=dissonance, lambda_c=lambda_c, optimizer=lambda p: torch.optim.SGD(p, 0.1), **options
        )
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = pl.Trainer(max_epochs=epochs, **quiet)
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=N))
        logged = {name.removeprefix("train_"): float(value) for name, value in trainer.callback_metrics.items()}
        return logged, h2.weight.detach().numpy().T


class Keras:
    def __init__(self) -> None:
        import keras

        import bc_keras

        self.keras, self.package = keras, bc_keras
        self.Reference, self.StoredOutputs = bc_keras.Reference, bc_keras.StoredOutputs

    def linear(self, weights: np.ndarray) -> Any:
        layers = self.keras.layers
        model = self.keras.Sequential(
            [layers.Input((weights.shape[0],)), layers.Dense(weights.shape[1], use_bias=False)]
        )
        model.set_weights([weights])
        return model

    def ask(self, reference: Any, x: np.ndarray) -> np.ndarray:
        return self.keras.ops.convert_to_numpy(reference(x))

    def store(self, h1: Any, path: Path, n: int = N) -> Any:
        return self.package.store_outputs(h1, X[:n], path, y=Y[:n], verbose=0)

    def trained(
        self,
        h2: Any,
        h1: Any,
        dissonance: str,
        attached: Any = None,
        lambda_c: float = 1.0,
        epochs: int = 1,
        **options: Any,
    ):
        data = (X, Y) if attached is None else attached(X, Y)
        model = self.package.BCModel(h2, h1=h1, dissonance=dissonance, lambda_c=lambda_c, **options)
        loss = self.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = [self.package.BTC(), self.package.NegativeFlipRate()]
        # Compiled, maps and teachers are tested among Keras's own.
        model.compile(self.keras.optimizers.SGD(0.1), loss=loss, metrics=metrics, **FEW_STEPS)
        history = model.fit(*data, batch_size=N, epochs=epochs, verbose=0, shuffle=False).history
        return {name: values[-1] for name, values in history.items()}, model.get_weights()[0]


SIDE = Keras if "KERAS_BACKEND" in os.environ else Lightning


@pytest.fixture(scope="module", params=[SIDE])
def side(request):
    return request.param()


def weights(seed: int, outputs: int = CLASSES) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, outputs)).astype("float32")


OLD, NEW, START = (X @ weights(seed) for seed in (1, 2, 3))


# -- blends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [CLASSES, 1])
@pytest.mark.parametrize("space", ["probability", "logit"])
def test_a_blend_is_the_weighted_mean_of_its_members(side, space, outputs):
    shares, members = (0.5, 0.2, 0.3), [weights(seed, outputs) for seed in (1, 2, 3)]
    reference = side.Reference([(side.linear(w), a) for w, a in zip(members, shares, strict=True)], blend=space)
    activation = softmax if outputs > 1 else sigmoid
    logits = [(X @ w).astype("float64") for w in members]
    if space == "probability":
        expected = sum(a * activation(z) for a, z in zip(shares, logits, strict=True))
    else:
        expected = activation(sum(a * z for a, z in zip(shares, logits, strict=True)))
    np.testing.assert_allclose(activation(side.ask(reference, X).astype("float64")), expected, **ROUNDING)


def test_models_without_weights_count_alike_and_weights_of_0_and_1_leave_one(side):
    one, two = side.linear(weights(1)), side.linear(weights(2))
    alike = softmax(side.ask(side.Reference([one, two]), X))
    np.testing.assert_allclose(alike, (softmax(OLD) + softmax(NEW)) / 2, **ROUNDING)
    for a, alone in ((0, OLD), (1, NEW)):
        np.testing.assert_allclose(softmax(side.ask(side.Reference.blend(two, one, a), X)), softmax(alone), **ROUNDING)
    some = softmax(side.ask(side.Reference.blend(two, one, 0.3), X))
    np.testing.assert_allclose(some, 0.3 * softmax(NEW) + 0.7 * softmax(OLD), **ROUNDING)


def test_several_labels_at_once_are_blended_each_by_itself(side):
    members = [(side.linear(weights(1)), 0.25), (side.linear(weights(2)), 0.75)]
    blend = sigmoid(side.ask(side.Reference(members, multilabel=True), X))
    np.testing.assert_allclose(blend, 0.25 * sigmoid(OLD) + 0.75 * sigmoid(NEW), **ROUNDING)


def test_a_member_of_other_classes_is_read_by_its_class_map(side):
    two_classes = side.Reference(side.linear(weights(4, 2)), class_map=ClassMap([2, 0], new=[1]))
    reference = side.Reference([(two_classes, 0.5), (side.linear(weights(1)), 0.5)])
    p = softmax(X @ weights(4, 2))
    mapped = np.stack([p[:, 1], 0 * p[:, 0], p[:, 0]], axis=1)
    blend = softmax(side.ask(reference, X))
    np.testing.assert_allclose(blend, 0.5 * mapped + 0.5 * softmax(OLD), rtol=1e-4, atol=1e-6)
    # In logits its certain no would be everybody's.
    with pytest.raises(ValueError, match="does not know class 1.*blend='probability'"):
        side.ask(side.Reference([(two_classes, 0.5), (side.linear(weights(1)), 0.5)], blend="logit"), X)
    with pytest.raises(ValueError, match="of different shapes.*class_map"):
        side.ask(side.Reference([side.linear(weights(4, 2)), side.linear(weights(1))]), X)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([2, 1], "must sum to 1, and sum to 3.*0.666667, 0.333333"),
        ([1.5, -0.5], "must be >= 0"),
        ([float("nan"), 1.0], "must be >= 0"),
        ([0, 0], "one above 0"),
        ([0.5, None], "Either each model of a blend has a weight"),
        ([], "at least one model"),
    ],
)
def test_weights_that_are_none_are_refused(side, given, says):
    models = [side.linear(weights(seed)) for seed in (1, 2)]
    pairs = [model if weight is None else (model, weight) for model, weight in zip(models, given, strict=False)]
    with pytest.raises(ValueError, match=says):
        side.Reference(pairs)


def test_what_cannot_be_blended_is_refused(side, tmp_path):
    one, two = side.linear(weights(1)), side.linear(weights(2))
    with pytest.raises(ValueError, match="Unknown blend: 'mean'. Known: 'probability', 'logit'"):
        side.Reference([one, two], blend="mean")
    with pytest.raises(TypeError, match="for several models"):
        side.Reference(one, blend="logit")
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1. Received: a=1.5"):
        side.Reference.blend(two, one, 1.5)
    with pytest.raises(ValueError, match="predicted labels only"):
        side.Reference([side.StoredOutputs.from_table([0, 1]), side.StoredOutputs.from_table([0, 1])])
    with pytest.raises(TypeError, match="either all models are stored outputs or none"):
        side.Reference([(side.store(one, tmp_path / "one"), 0.5), (two, 0.5)])


def test_a_blend_is_known_by_its_content(side):
    def name(*parts: tuple[int, float], **options: Any) -> str:
        return side.Reference([(side.linear(weights(seed)), a) for seed, a in parts], **options).fingerprint

    assert name((1, 0.3), (2, 0.7)) == name((2, 0.7), (1, 0.3))
    others = [name((1, 0.7), (2, 0.3)), name((1, 0.3), (3, 0.7)), name((1, 0.3), (2, 0.7), blend="logit")]
    assert len({name((1, 0.3), (2, 0.7)), *others}) == 4


def test_stored_members_give_what_the_models_do(side, tmp_path):
    models = [side.linear(weights(seed)) for seed in (1, 2)]
    stored = [side.store(model, tmp_path / str(place)) for place, model in enumerate(models)]
    live, kept = (side.Reference(list(zip(members, (0.3, 0.7), strict=True))) for members in (models, stored))
    assert kept.stored is not None
    assert len(kept.stored) == N
    assert kept.fingerprint == live.fingerprint
    np.testing.assert_allclose(np.asarray(kept.stored[:]), side.ask(live, X), **ROUNDING)
    np.testing.assert_allclose(np.asarray(kept.stored[3]), side.ask(live, X)[3], **ROUNDING)
    # And so does a blend that is stored as one.
    again = side.store(live, tmp_path / "blend")
    np.testing.assert_allclose(np.asarray(again[:]), side.ask(live, X), **ROUNDING)
    assert again.fingerprint == live.fingerprint


def test_members_stored_for_other_data_are_refused(side, tmp_path):
    model = side.linear(weights(1))
    whole, part = side.store(model, tmp_path / "whole"), side.store(model, tmp_path / "part", N - 1)
    with pytest.raises(ValueError, match="23 items, but h1's outputs were stored for 24"):
        side.Reference([whole, part])


# -- a teacher in place of h1 ------------------------------------------------------------------------------------------


def expected(dissonance: str) -> float:
    """Of h2 at its start, with the blend 0.3 new + 0.7 old for a teacher."""
    goal = 0.3 * softmax(NEW.astype("float64")) + 0.7 * softmax(OLD.astype("float64"))
    each = -(goal * np.log(softmax(START.astype("float64")))).sum(1)
    right = OLD.argmax(1) == Y
    return float((each * right).mean() if dissonance == "strict_imitation" else each.mean())


def after(dissonance: str, lambda_c: float) -> np.ndarray:
    """h2's weights after a step of gradient descent, by hand."""
    p2, goal = softmax(START.astype("float64")), 0.3 * softmax(NEW) + 0.7 * softmax(OLD)
    right = (OLD.argmax(1) == Y)[:, None] if dissonance == "strict_imitation" else 1.0
    slope = (p2 - np.eye(CLASSES)[Y]) + lambda_c * right * (p2 - goal)
    return weights(3) - 0.1 * X.T @ slope / N


@pytest.mark.parametrize("dissonance", ["imitation", "strict_imitation"])
def test_the_teacher_is_imitated_and_h1_is_counted_against(side, dissonance):
    h1, new, h2 = (side.linear(weights(seed)) for seed in (1, 2, 3))
    logged, learned = side.trained(h2, h1, dissonance, lambda_c=2.0, teacher=[(new, 0.3), (h1, 0.7)])
    np.testing.assert_allclose(logged["dissonance"], expected(dissonance), rtol=1e-5)
    np.testing.assert_allclose(learned, after(dissonance, 2.0), rtol=1e-4, atol=1e-6)
    right, kept = OLD.argmax(1) == Y, START.argmax(1) == Y
    np.testing.assert_allclose(logged["btc"], (right & kept).sum() / right.sum(), rtol=1e-6)
    if "nfr" in logged:
        np.testing.assert_allclose(logged["nfr"], (right & ~kept).mean(), rtol=1e-6)


def test_a_teacher_that_is_h1_changes_nothing(side):
    def run(**options: Any) -> np.ndarray:
        return side.trained(side.linear(weights(3)), side.linear(weights(1)), "strict_imitation", **options)[1]

    np.testing.assert_array_equal(run(), run(teacher=side.linear(weights(1))))


def test_without_a_weight_the_teacher_changes_nothing(side):
    def run(**options: Any) -> np.ndarray:
        return side.trained(side.linear(weights(3)), side.linear(weights(1)), "imitation", lambda_c=0.0, **options)[1]

    np.testing.assert_array_equal(run(), run(teacher=side.linear(weights(2))))


@pytest.mark.parametrize("which", ["both", "teacher", "h1"])
def test_h1_and_the_teacher_may_be_stored(side, tmp_path, which):
    h1, new, h2 = (side.linear(weights(seed)) for seed in (1, 2, 3))
    teacher: Any = side.Reference.blend(new, h1, 0.3)
    attached = None
    if which != "teacher":
        h1 = side.store(h1, tmp_path / "h1")
        attached = h1.attach
    if which != "h1":
        kept = teacher = side.store(teacher, tmp_path / "teacher")
        attached = teacher.attach
    if which == "both":

        def attached(*data: Any) -> Any:
            return h1.attach(*data, teacher=kept)

    logged, learned = side.trained(h2, h1, "strict_imitation", attached, lambda_c=2.0, teacher=teacher)
    np.testing.assert_allclose(logged["dissonance"], expected("strict_imitation"), rtol=1e-5)
    np.testing.assert_allclose(learned, after("strict_imitation", 2.0), rtol=1e-4, atol=1e-6)


def test_a_stored_teacher_that_no_batch_brings_is_refused(side, tmp_path):
    h1, new, h2 = (side.linear(weights(seed)) for seed in (1, 2, 3))
    teacher, old = side.store(new, tmp_path / "teacher"), side.store(h1, tmp_path / "h1")
    with pytest.raises(ValueError, match="teacher is (given as )?stored outputs.*attach"):
        side.trained(h2, h1, "imitation", teacher=teacher)
    with pytest.raises(ValueError, match="teacher.*attach"):
        side.trained(side.linear(weights(3)), old, "imitation", old.attach, teacher=teacher)


def test_an_h1_of_labels_may_have_a_teacher_of_scores(side):
    h1, new, h2 = (side.linear(weights(seed)) for seed in (1, 2, 3))
    said = OLD.argmax(1)
    attached = side.StoredOutputs.from_table(said)
    how = {"num_classes": CLASSES} if SIDE is Keras else {}
    logged, _ = side.trained(
        h2,
        attached,
        "strict_imitation",
        lambda *data: attached.attach(*data, **how),
        teacher=side.Reference.blend(new, h1, 0.3),
    )
    np.testing.assert_allclose(logged["dissonance"], expected("strict_imitation"), rtol=1e-5)


def test_teachers_that_are_none_are_refused(side):
    h1, h2 = side.linear(weights(1)), side.linear(weights(3))
    with pytest.raises(ValueError, match="new_error' imitates nobody"):
        side.trained(h2, h1, "new_error", teacher=side.linear(weights(2)))
    with pytest.raises(ValueError, match="Of the teacher.*copy"):
        side.trained(h2, h1, "imitation", teacher=h2)
    with pytest.raises(ValueError, match="Of the teacher.*copy"):
        side.trained(h2, h1, "imitation", teacher=[(h2, 0.5), (h1, 0.5)])
    with pytest.raises(ValueError, match="labels"):
        side.trained(h2, h1, "imitation", teacher=side.StoredOutputs.from_table([0] * N))


# MUSCLE: towards a plain h2 where h2 is right, else towards h1


def muscle_step(start: np.ndarray, lambda_c: float, imitated: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy towards the models that are imitated, and the weights after one step of the whole loss."""
    p2 = softmax(X @ start)
    dissonance = -(imitated * np.log(p2)).sum(-1).mean()
    gradient = X.T @ ((p2 - np.eye(CLASSES)[Y]) + lambda_c * (p2 - imitated)) / N
    return dissonance, start - 0.1 * gradient


@pytest.mark.parametrize("stored", ["", "h1", "plain", "both"])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_a_plain_h2_is_imitated_where_h2_is_right(side, tmp_path, stored, with_teacher):
    h1, plain = side.linear(weights(1)), side.linear(weights(2))
    teacher = side.linear(weights(4)) if with_teacher else None
    right = START.argmax(-1) == Y
    instead = softmax(X @ weights(4)) if with_teacher else softmax(OLD)
    dissonance, after = muscle_step(weights(3), 1.5, np.where(right[:, None], softmax(NEW), instead))
    rows = {name: side.store(model, tmp_path / name) for name, model in (("h1", h1), ("plain", plain))}
    options: dict[str, Any] = {"plain": rows["plain"] if stored in ("plain", "both") else plain}
    attached = None
    if stored:
        first = rows["plain" if stored == "plain" else "h1"]
        beside = {"plain": rows["plain"]} if stored == "both" else {}
        if with_teacher and stored == "both":
            beside["teacher"] = teacher = side.store(teacher, tmp_path / "teacher")
        attached = lambda *data: first.attach(*data, **beside)  # noqa: E731
    if teacher is not None:
        options["teacher"] = teacher
    h1 = rows["h1"] if stored in ("h1", "both") else h1
    logged, trained = side.trained(side.linear(weights(3)), h1, "imitation", attached, 1.5, **options)
    assert logged["dissonance"] == pytest.approx(dissonance, rel=2e-5)
    np.testing.assert_allclose(trained, after, **ROUNDING)
    # The scores are h1's.
    assert logged["nfr"] == pytest.approx(((OLD.argmax(-1) == Y) & ~right).mean())


def test_a_plain_h2_is_the_two_halves_of_muscle(side):
    """Another way to the same: each half on its own."""
    halves = [
        side.trained(side.linear(weights(3)), side.linear(weights(seed)), half)[0]["dissonance"]
        for seed, half in ((1, "where_h2_is_wrong"), (2, "where_h2_is_right"))
    ]
    whole, _ = side.trained(
        side.linear(weights(3)), side.linear(weights(1)), "imitation", plain=side.linear(weights(2))
    )
    assert whole["dissonance"] == pytest.approx(sum(halves), rel=2e-5)


@pytest.mark.parametrize(
    ("dissonance", "message"), [("new_error", "imitates nobody"), ("where_h2_is_wrong", "take 'imitation'")]
)
def test_a_plain_h2_that_would_not_be_imitated_is_refused(side, dissonance, message):
    with pytest.raises(ValueError, match=message):
        side.trained(side.linear(weights(3)), side.linear(weights(1)), dissonance, plain=side.linear(weights(2)))


def test_a_plain_h2_is_known_again(side, tmp_path):
    rows = side.store(side.linear(weights(1)), tmp_path / "h1")
    plain = side.store(side.linear(weights(2)), tmp_path / "plain")
    with pytest.raises(ValueError, match="plain"):
        side.trained(side.linear(weights(3)), rows, "imitation", rows.attach, plain=plain)


# -- mixtures of a batch's own inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("imitated", "labels"), [("h1", 0.0), ("teacher", 0.3)])
def test_mixtures_of_the_batch_are_imitated_too(side, imitated, labels):
    """Two steps, in float64: each instance with its partner, the batch in reverse, with other shares in each step."""
    who = {"teacher": side.linear(weights(2))} if imitated == "teacher" else {}
    options = {"lambda_c": 2.0, "unlabelled": "mixed", "unlabelled_weight": 0.5, "mixed_labels": labels, "epochs": 2}
    logged, after = side.trained(side.linear(weights(3)), side.linear(weights(1)), "imitation", **options, **who)
    goal, w, x = weights(2 if who else 1).astype("float64"), weights(3).astype("float64"), X.astype("float64")
    for step in range(2):
        share = shares(np.arange(float(N)), first_share(step))[:, None]
        assert 0 <= share.min() < 0.1
        assert 0.9 < share.max() < 1
        mixed = share * x + (1 - share) * x[::-1]
        of_labels = share * np.eye(CLASSES)[Y] + (1 - share) * np.eye(CLASSES)[Y][::-1]
        p, q = (1 - labels) * softmax(mixed @ goal) + labels * of_labels, softmax(mixed @ w)
        dissonance = -(p * np.log(q)).sum(1).mean()
        slope = x.T @ (softmax(x @ w) - np.eye(CLASSES)[Y] + 2 * (softmax(x @ w) - softmax(x @ goal)))
        w = w - 0.1 * (slope + 2 * 0.5 * mixed.T @ (q - p)) / N
    np.testing.assert_allclose(after, w, **ROUNDING)
    np.testing.assert_allclose(logged["unlabelled_dissonance"], dissonance, rtol=1e-4)


def test_mixtures_count_once_with_half_of_it_their_labels_unless_said_otherwise(side):
    h1, said = side.linear(weights(1)), {"unlabelled_weight": 1.0, "mixed_labels": 0.5}
    found = [
        side.trained(side.linear(weights(3)), h1, "new_error", unlabelled="mixed", **options)[1]
        for options in ({}, said)
    ]
    np.testing.assert_array_equal(*found)


def test_mixtures_cost_nothing_without_a_weight(side):
    h1 = side.linear(weights(1))
    found = [
        side.trained(side.linear(weights(3)), h1, "new_error", lambda_c=0.0, **options)[1]
        for options in ({}, {"unlabelled": "mixed"})
    ]
    np.testing.assert_array_equal(*found)


def test_what_cannot_be_mixed_is_refused(side, tmp_path):
    h1, h2 = side.linear(weights(1)), side.linear(weights(3))
    with pytest.raises(ValueError, match="Unknown unlabelled: 'mixup'. Known: 'mixed'"):
        side.trained(h2, h1, "imitation", unlabelled="mixup")
    with pytest.raises(ValueError, match="unlabelled_weight must be a number >= 0"):
        side.trained(h2, h1, "imitation", unlabelled="mixed", unlabelled_weight=-1.0)
    with pytest.raises(ValueError, match="mixed_labels must be a number >= 0 and < 1"):
        side.trained(h2, h1, "imitation", unlabelled="mixed", mixed_labels=1.0)
    with pytest.raises(ValueError, match="Stored outputs hold no answer to mixed inputs"):
        side.trained(h2, side.store(h1, tmp_path / "h1"), "imitation", unlabelled="mixed")
