"""What is done with h1 and h2 after training, as both sides promise it: weights mixed, answers blended, warm starts.

Of Keras in a process that names a backend, of Lightning in any other. The oracles are numpy over what the models say
and hold.
"""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
from after_training_sides import CLASSES, KerasSide, LightningSide, arrays

from bc_core import ErrorOverlap


@pytest.fixture(scope="module")
def side():
    return KerasSide() if "KERAS_BACKEND" in os.environ else LightningSide()


@pytest.fixture(scope="module")
def pair(side):
    """h1, and an h2 that was trained on from it: better, with some new errors."""
    x, y = arrays(80)
    h1 = side.trained(side.net(0), x, y, 30)
    h2 = side.net(1)
    side.set_weights(h2, side.weights(h1))
    return h1, side.trained(h2, *arrays(400, 3), 60)


def overlap_of(target, h1, h2):
    return ErrorOverlap.from_predictions(target, h1.argmax(1), h2.argmax(1), num_classes=CLASSES)


def kept(model, side):
    return [each.copy() for each in side.weights(model)]


# Weights


def test_every_alpha_is_what_averaging_by_hand_gives(side, pair):
    """In numpy; and the one that is taken is the most accurate of those before the first that breaks the promise."""
    h1, h2 = pair
    x, y = arrays(3000, 7)
    before = kept(h1, side), kept(h2, side)
    alphas = [0, 0.2, 0.4, 0.6, 0.8, 1]
    found = side.ours.interpolate(h1, h2, side.data(x, y), "nfr <= 2%", alphas=alphas)

    by_hand, best = side.net(9), None
    on_the_way = True
    assert [trial.setting for trial in found.trials] == alphas[::-1]
    for trial in found.trials:
        alpha = trial.setting
        mixed = [alpha * a + (1 - alpha) * b for a, b in zip(*before, strict=True)]
        side.set_weights(by_hand, mixed)
        expected = overlap_of(y, side.probabilities(h1, x), side.probabilities(by_hand, x))
        assert trial.overlap == expected
        on_the_way &= expected.gate("nfr", 0.02) == "pass"
        if (on_the_way or (alpha == 0 and expected.gate("nfr", 0.02) == "pass")) and (
            best is None or expected.accuracy_h2 > best[1].accuracy_h2
        ):
            best = alpha, expected, mixed
    assert found.trials[-1].overlap.nfr > 0.02  # plain training does not keep it
    assert (found.alpha, found.overlap) == best[:2]
    assert 0 < found.alpha < 1
    assert found.promise.verdict == "met"
    for got, expected in zip(side.weights(found.model), best[2], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    # h1 and h2 are as they were, and share nothing with the result.
    side.set_weights(found.model, [np.full_like(each, 7) for each in best[2]])
    for model, held in zip((h1, h2), before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(side.weights(model), held, strict=True))


def test_the_ends_are_the_models_themselves(side, pair):
    h1, h2 = pair
    data = side.data(*arrays(300, 7))
    for alpha, model in ((0.0, h2), (1.0, h1)):
        found = side.ours.interpolate(h1, h2, data, "nfr <= 50%", alphas=[alpha])
        assert all(np.array_equal(a, b) for a, b in zip(side.weights(found.model), side.weights(model), strict=True))
        assert found.model is not model


def test_a_promise_that_none_keeps_is_said_to_be_missed(side, pair):
    h1, h2 = pair
    found = side.ours.interpolate(h1, h2, side.data(*arrays(600, 7)), "btc >= 100%", alphas=[0, 0.05, 0.1])
    assert found.promise.verdict == "missed"
    assert "missed" in str(found)
    assert "nearest" in str(found)
    bounds = [row["bound"] for row in found.rows()]
    assert found.promise.bound == max(bounds)


def test_by_layer_is_never_worse_and_bounded(side, pair):
    h1, h2 = pair
    data = side.data(*arrays(3000, 7))
    alphas = [0, 0.25, 0.5, 0.75, 1]
    found = side.ours.interpolate(h1, h2, data, "nfr <= 3%", alphas=alphas, by_layer=True, max_trials=10)
    assert len(found.layer_trials) <= 10
    assert found.confidence == pytest.approx(1 - 0.025 if found.layers is None else 1 - 0.025 / 10)
    whole = max((t for t in found.trials if t.eligible), key=lambda t: t.overlap.accuracy_h2)
    assert found.overlap.accuracy_h2 >= whole.overlap.accuracy_h2
    assert found.overlap.gate("nfr", 0.03, found.confidence) == "pass"
    shares = found.layers or dict.fromkeys(range(2), found.alpha)
    assert len(shares) == 2
    mixed = [
        share * a + (1 - share) * b
        for share, a, b in zip(np.repeat(list(shares.values()), 2), side.weights(h1), side.weights(h2), strict=True)
    ]
    for got, expected in zip(side.weights(found.model), mixed, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_running_statistics_are_those_of_the_mixed_weights(side):
    x, y = arrays(400, 3)
    h1 = side.trained(side.net(0, batch_norm=True), *arrays(80), 30)
    h2 = side.trained(side.net(0, batch_norm=True), x, y, 60)
    data = side.data(*arrays(300, 7))
    with pytest.raises(ValueError, match="statistics="):
        side.ours.interpolate(h1, h2, data, "nfr <= 90%")
    given = {"batch_size": 100}
    statistics = side.data(x, y, 100)
    found = side.ours.interpolate(h1, h2, data, "nfr <= 90%", alphas=[0.5], statistics=statistics, **given)
    for got, expected in zip(side.statistics(found.model), side.statistics_of(found.model, x, 100), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)
    # The ends keep their own.
    own = side.statistics(h2)
    found = side.ours.interpolate(h1, h2, data, "nfr <= 90%", alphas=[0], statistics=statistics, **given)
    assert all(np.array_equal(a, b) for a, b in zip(side.statistics(found.model), own, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(side.statistics(h2), own, strict=True))


@pytest.mark.parametrize("other", [{"hidden": 9}, {"classes": 5}, {"batch_norm": True}])
def test_refuses_other_architectures_by_layer_and_shape(side, other):
    with pytest.raises(ValueError, match=r"Weights are mixed one by one, and h1 and h2 differ in .*h1: .*h2: .*blend"):
        side.ours.interpolate(side.net(0), side.net(1, **other), side.data(*arrays()), "nfr <= 1%")


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"data": None}, TypeError, "data is missing"),
        ({"data": "iterator"}, TypeError, "read only once"),
        ({"data": "nfr <= 2%", "promise": [arrays()]}, TypeError, "data come before the promise"),
        ({"promise": "nfr < 1"}, ValueError, "nfr <= 1"),
        ({"alphas": [2]}, ValueError, "alphas"),
        ({"confidence": 1}, ValueError, "confidence"),
        ({"by_layer": True, "max_trials": 0}, ValueError, "max_trials"),
        ({"h1": len}, TypeError, "h1 must be a"),
    ],
)
def test_refuses_by_saying_what_to_do(side, pair, wrong, error, says):
    given = {"h1": pair[0], "h2": pair[1], "data": side.data(*arrays()), "promise": "nfr <= 1%"} | wrong
    if given["data"] == "iterator":
        given["data"] = iter([arrays()])
    with pytest.raises(error, match=says):
        side.ours.interpolate(**given)


def test_after_each_epoch_back_until_the_promise_holds(side, pair):
    h1 = pair[0]
    h2 = side.net(5)
    side.ours.warm_start(h2, h1)
    before = kept(h1, side)
    validation = arrays(3000, 7)
    callback = side.projected(h1, h2, *arrays(400, 3), validation, "nfr <= 1%", epochs=6)
    x, y = validation
    after = overlap_of(y, side.probabilities(h1, x), side.probabilities(h2, x))
    assert after.gate("nfr", 0.01) == "pass"
    assert callback.verdict.verdict == "met"
    assert callback.verdict.overlap == after
    assert callback.verdict.looks == len(callback.history) == 6
    assert any(0 < share < 1 for share in callback.history)
    assert after.accuracy_h2 > after.accuracy_h1
    assert all(np.array_equal(a, b) for a, b in zip(side.weights(h1), before, strict=True))


def test_projection_refuses_a_promise_that_h1_itself_cannot_keep(side, pair):
    h2 = side.net(5)
    side.ours.warm_start(h2, pair[0])
    before = kept(h2, side)
    with pytest.raises(ValueError, match="h1 itself does not keep the promise.*more"):
        side.projected(pair[0], h2, *arrays(), arrays(100, 7), "nfr <= 0.5%", epochs=1)
    assert all(np.array_equal(a, b) for a, b in zip(side.weights(h2), before, strict=True))


# Answers


def mixed_by_hand(how, setting, p1, p2):
    if how == "gate":
        return np.where((p2.max(1) > setting * p1.max(1))[:, None], p2, p1)
    if how == "probability":
        return setting * p1 + (1 - setting) * p2
    mean = np.exp(setting * np.log(p1) + (1 - setting) * np.log(p2))
    return mean / mean.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("how", "settings"), [("probability", [0, 0.3, 0.6, 1]), ("logit", [0.25, 0.75]), ("gate", [0.5, 1, 1.25, 2])]
)
def test_blends_are_what_numpy_makes_of_both_answers(side, pair, how, settings):
    h1, h2 = pair
    x, y = arrays(3000, 7)
    before = kept(h1, side), kept(h2, side)
    name = "ratio" if how == "gate" else "weight"
    found = side.ours.blend(h1, h2, side.data(x, y), "nfr <= 3%", how=how, **{name: settings})
    p1, p2 = side.probabilities(h1, x), side.probabilities(h2, x)
    assert [trial.setting for trial in found.trials] == settings[::-1]
    for trial in found.trials:
        assert trial.overlap == overlap_of(y, p1, mixed_by_hand(how, trial.setting, p1, p2))
    assert found.promise.verdict == "met"
    assert found.overlap.gate("nfr", 0.03) == "pass"
    chosen = getattr(found, name)
    eligible = [trial for trial in found.trials if trial.eligible]
    assert found.overlap.accuracy_h2 == max(trial.overlap.accuracy_h2 for trial in eligible)
    assert chosen == found.chosen.setting
    got = side.probabilities(found.model, x)
    np.testing.assert_allclose(got, mixed_by_hand(how, chosen, p1, p2), rtol=2e-5, atol=1e-6)
    for model, held in zip((h1, h2), before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(side.weights(model), held, strict=True))


def test_a_larger_ratio_breaks_less(side, pair):
    found = side.ours.blend(*pair, side.data(*arrays(2000, 7)), "nfr <= 1%", how="gate")
    flips = [trial.overlap.h1_only_right for trial in found.trials]
    assert flips == sorted(flips)
    assert flips[0] < flips[-1]


def test_blends_networks_of_other_architectures_and_says_the_price(side, pair):
    h2 = side.trained(side.net(4, hidden=16), *arrays(400, 3), 60)
    found = side.ours.blend(pair[0], h2, side.data(*arrays(1000, 7)), "nfr <= 5%")
    count = [sum(each.size for each in side.weights(model)) for model in (pair[0], h2)]
    assert [found.price.parameters_h1, found.price.parameters_h2] == count
    assert found.price.seconds_blend > 0
    assert str(sum(count)) in str(found)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"how": "gate", "ratio": 0}, ValueError, "above 0"),
        ({"how": "gate", "ratio": [1, -2]}, ValueError, "above 0"),
        ({"how": "gate", "weight": 0.5}, ValueError, "weight is of an average"),
        ({"ratio": 2}, ValueError, "ratio of a gate"),
        ({"weight": 1.5}, ValueError, "from 0 to 1"),
        ({"how": "mean"}, ValueError, "probability"),
        ({"data": None}, TypeError, "data is missing"),
        ({"h1": len}, TypeError, "h1 must be a"),
    ],
)
def test_blend_refuses_by_saying_what_to_do(side, pair, wrong, error, says):
    given = {"h1": pair[0], "h2": pair[1], "data": side.data(*arrays()), "promise": "nfr <= 1%"} | wrong
    with pytest.raises(error, match=says):
        side.ours.blend(**given)


def test_blend_refuses_other_classes(side, pair):
    with pytest.raises(ValueError, match="same classes"):
        side.ours.blend(side.net(1, classes=5), pair[1], side.data(*arrays()), "nfr <= 1%")


def test_distilled_into_one_network_of_its_own_kind(side, pair):
    x, y = arrays(400, 3)
    blend = side.ours.blend(*pair, side.data(*arrays(2000, 7)), "nfr <= 90%", weight=0.5)
    teacher = kept(blend.model, side)
    held, _ = arrays(1000, 8)

    def distance(model):
        return np.abs(side.probabilities(model, held) - side.probabilities(blend.model, held)).sum(1).mean()

    plain = side.distilled(blend, side.net(6, hidden=16), 0.0, x, y, 40)
    taught = side.distilled(blend, side.net(6, hidden=16), 8.0, x, y, 40)
    assert distance(taught) < 0.8 * distance(plain)
    assert all(np.array_equal(a, b) for a, b in zip(side.weights(blend.model), teacher, strict=True))


def test_distil_refuses_what_is_no_blend(side):
    with pytest.raises(TypeError, match="blend must be what blend"):
        side.ours.distil(3, side.net(0))


# The start


def test_warm_start_copies_what_fits_and_says_what_not(side):
    h1, h2 = side.net(0), side.net(1, classes=5)
    head = kept(h2, side)[2:]
    report = side.ours.warm_start(h2, h1)
    assert (len(report.copied), len(report.left)) == (2, 2)
    assert all("in h1" in why and "in h2" in why for why in report.left.values())
    assert report.numbers == (4 * 8 + 8, 4 * 8 + 8 + 8 * 5 + 5)
    assert "2 of 4 weights copied" in str(report)
    assert all(np.array_equal(a, b) for a, b in zip(side.weights(h2)[:2], side.weights(h1)[:2], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(side.weights(h2)[2:], head, strict=True))
    # Nothing is shared.
    held = kept(h1, side)
    side.set_weights(h2, [np.full_like(each, 7) for each in side.weights(h2)])
    assert all(np.array_equal(a, b) for a, b in zip(side.weights(h1), held, strict=True))


def test_warm_start_copies_running_statistics_too(side):
    h1 = side.trained(side.net(0, batch_norm=True), *arrays(80), 5)
    h2 = side.net(1, batch_norm=True)
    report = side.ours.warm_start(h2, h1)
    assert not report.left
    assert all(np.array_equal(a, b) for a, b in zip(side.statistics(h1), side.statistics(h2), strict=True))


def test_warm_start_refuses_where_nothing_fits(side):
    with pytest.raises(ValueError, match="no weight of the same name and shape"):
        side.ours.warm_start(side.net(0, hidden=9, classes=5), side.net(1))
    with pytest.raises(TypeError, match="h1 must be a"):
        side.ours.warm_start(side.net(0), len)


def test_start_from_h1_is_a_training_that_begins_with_its_weights(side, pair):
    """To the bit the training of an h2 into which h1's weights were put by hand."""
    h1 = pair[0]
    x, y = arrays(200, 3)
    by_hand, by_name = side.net(5), side.net(6)
    side.set_weights(by_hand, side.weights(h1))
    for h2, options in ((by_hand, {}), (by_name, {"start_from": "h1"})):
        side.fit(side.wrapped(h2, h1, lambda_c=1.0, **options), x, y)
    assert all(np.array_equal(a, b) for a, b in zip(side.weights(by_hand), side.weights(by_name), strict=True))
    assert not np.array_equal(side.weights(by_name)[0], side.weights(h1)[0])


@pytest.mark.parametrize("start_from", ["h2", True, 1])
def test_start_from_is_h1_or_nothing(side, pair, start_from):
    with pytest.raises(ValueError, match="start_from must be 'h1' or None"):
        side.wrapped(side.net(1), pair[0], start_from=start_from)


def test_start_from_needs_weights(side, pair):
    with pytest.raises(TypeError, match="h1 must be a"):
        side.wrapped(side.net(1), functools.partial(side.probabilities, pair[0]), start_from="h1")


# Means of weights


@pytest.mark.parametrize(("first", "kept_from"), [(None, 2), (4, 4)])
def test_a_training_ends_with_the_mean_of_its_later_weights(side, first, kept_from):
    h2 = side.net(1)
    model = side.wrapped(h2, side.net(0))
    seen = []
    looking = side.after_each_epoch(lambda: seen.append(kept(h2, side)))
    side.fit(model, *arrays(60), 5, [side.ours.MeanWeights(first), looking])
    assert len(seen) == 5
    for got, *each in zip(kept(h2, side), *seen[kept_from:], strict=True):
        np.testing.assert_allclose(got, np.mean(each, axis=0, dtype="float64"), rtol=1e-6, atol=1e-7)


def test_statistics_are_those_of_the_mean(side):
    x, y = arrays(200)
    h2 = side.net(1, batch_norm=True)
    model = side.wrapped(h2, side.net(0, batch_norm=True))
    with pytest.raises(ValueError, match=r"keeps running statistics.*MeanWeights\(statistics=train_data\)"):
        side.fit(model, x, y, 2, [side.ours.MeanWeights()])
    data = (
        [(x[i : i + 50], y[i : i + 50]) for i in range(0, 200, 50)]
        if "KERAS_BACKEND" in os.environ
        else side.data(x, y, 50)
    )
    side.fit(model, x, y, 2, [side.ours.MeanWeights(statistics=data)])
    for got, expected in zip(side.statistics(h2), side.statistics_of(h2, x, 50), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_epochs_that_do_not_come_are_told(side):
    h2 = side.net(1)
    model = side.wrapped(h2, side.net(0))
    with pytest.raises(ValueError, match="would average nothing: the training has 2 epochs"):
        side.fit(model, *arrays(60), 2, [side.ours.MeanWeights(2)])
    with pytest.raises(ValueError, match="first_epoch must be a whole number >= 0"):
        side.ours.MeanWeights(-1)
    last = []
    looking = side.after_each_epoch(lambda: last.append(kept(h2, side)), stop_after=1)
    with pytest.warns(UserWarning, match="ended before epoch 2, from which on weights are averaged"):
        side.fit(model, *arrays(60), 4, [side.ours.MeanWeights(), looking])
    same_weights(kept(h2, side), last[-1])


def same_weights(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
