"""LambdaScheduler moves lambda_c as it says, and FrozenH1Check sees every change of h1."""

import keras
import numpy as np
import pytest
from compared_models import CLASSES, compiled, data, deep_net, fit, net

from bc_core import LinearLambda
from bc_keras.training._frozen_check import FrozenH1Check
from bc_keras.training._lambda_scheduler import LambdaScheduler
from bc_keras.training._model import BCModel


@pytest.fixture(autouse=True)
def _same_start():
    keras.utils.set_random_seed(7)


# LambdaScheduler -------------------------------------------------------------------------------------------------


def constant_terms():
    """A model whose base loss b and dissonance d are the same in every batch, so that loss = b + mean(lambda_c) d."""
    x, y = np.ones((40, 4), "float32"), np.ones(40, "int64")

    def linear():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES, activation="softmax")])

    h1 = linear()
    h1.layers[0].bias.assign([-50.0, 50.0, -50.0])
    return compiled(BCModel(linear(), h1=h1), keras.optimizers.SGD(0.0)), x, y


@pytest.mark.parametrize("per", ["batch", "epoch"])
def test_lambda_c_of_every_batch_reaches_the_compiled_step(per):
    model, x, y = constant_terms()
    schedule = LinearLambda(1.0, 9.0, epochs=2)
    history = model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[LambdaScheduler(schedule, per=per)]).history
    steps = [[epoch + (batch / 5 if per == "batch" else 0) for batch in range(5)] for epoch in range(3)]
    for epoch in range(3):
        mean = np.mean([schedule(step) for step in steps[epoch]])
        assert history["dissonance"][epoch] > 0.01
        wanted = history["base_loss"][epoch] + mean * history["dissonance"][epoch]
        assert history["loss"][epoch] == pytest.approx(wanted, rel=1e-5)
    assert history["lambda_c"] == pytest.approx([schedule(step[-1]) for step in steps], rel=1e-6)


def test_a_schedule_leaves_the_rest_of_training_alone():
    x, y = data(40)

    def trained(*callbacks):
        keras.utils.set_random_seed(3)
        # h1 is never right, so lambda_c has nothing to weigh.
        model = compiled(BCModel(net(), h1=lambda x: keras.ops.cast(0 * x[:, 0], "int32") + 2))
        model.fit(x, np.minimum(y, 1), batch_size=8, epochs=2, verbose=0, callbacks=list(callbacks))
        return model.h2.get_weights()

    for plain, scheduled in zip(trained(), trained(LambdaScheduler(lambda epoch: 1 + epoch)), strict=True):
        np.testing.assert_array_equal(plain, scheduled)


def test_a_resumed_schedule_goes_on():
    model, x, y = constant_terms()
    seen = []

    def schedule(epoch):
        seen.append(epoch)
        return np.float32(epoch)

    model.fit(x, y, batch_size=20, epochs=4, initial_epoch=2, verbose=0, callbacks=[LambdaScheduler(schedule)])
    assert seen == [2.0, 2.5, 3.0, 3.5]
    assert model.lambda_c == 3.5


def test_without_a_known_number_of_batches_lambda_c_moves_by_the_epoch():
    model, x, y = constant_terms()
    seen = []
    batches = ((x[:8], y[:8]) for _ in range(100))
    scheduler = LambdaScheduler(lambda epoch: seen.append(epoch) or epoch)

    class Unknown(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            assert scheduler.params["steps"] in (None, 3)
            scheduler.set_params({**scheduler.params, "steps": None})

    model.fit(batches, steps_per_epoch=3, epochs=2, verbose=0, callbacks=[Unknown(), scheduler])
    assert seen == [0.0, 1.0]


def test_scheduler_says_what_it_sets(capsys):
    model, x, y = constant_terms()
    model.fit(x, y, verbose=0, callbacks=[LambdaScheduler(LinearLambda(2.0, 2.0), verbose=1)])
    assert "Epoch 1: LambdaScheduler setting lambda_c to 2.0." in capsys.readouterr().out


@pytest.mark.parametrize(("value", "error"), [(-1.0, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_schedule_must_give_a_weight(value, error):
    model, x, y = constant_terms()
    with pytest.raises(error, match="lambda_c must be a.*Received"):
        model.fit(x, y, verbose=0, callbacks=[LambdaScheduler(lambda epoch: value)])


def test_scheduler_refuses_wrong_arguments_and_models():
    with pytest.raises(TypeError, match=r"BCModel\(lambda_c=\.\.\.\).*Received: schedule=2.0"):
        LambdaScheduler(2.0)
    with pytest.raises(ValueError, match="Received: per='step'"):
        LambdaScheduler(LinearLambda(), per="step")
    with pytest.raises(ValueError, match=r"BCModel.*Received: model=Sequential"):
        fit(compiled(net()), [LambdaScheduler(LinearLambda())])


@keras.saving.register_keras_serializable(package="test_callbacks")
def halved(epoch):
    return epoch / 2


@pytest.mark.parametrize("schedule", [LinearLambda(0.0, 4.0, epochs=2.0, delay=1.0), halved])
def test_scheduler_comes_back_from_its_config(schedule):
    config = keras.saving.serialize_keras_object(LambdaScheduler(schedule, verbose=1, per="epoch"))
    back = keras.saving.deserialize_keras_object(config)
    assert isinstance(back, LambdaScheduler)
    assert (back.schedule, back.verbose, back.per) == (schedule, 1, "epoch")


# FrozenH1Check ---------------------------------------------------------------------------------------------------


def bump(model):
    """The smallest change of one number of h1's moving averages."""
    weight = model.h1.layers[1].moving_mean
    values = keras.ops.convert_to_numpy(weight).copy()
    values[0] = np.nextafter(values[0], np.float32(1))
    weight.assign(values)


def test_a_frozen_h1_passes():
    h1 = deep_net()
    h1.trainable = True
    check = FrozenH1Check()
    fit(compiled(BCModel(net(), h1=h1)), [check, LambdaScheduler(LinearLambda())], epochs=2)
    assert check._hashes is None


@pytest.mark.parametrize(("every", "seen_in"), [(1, "in epoch 2 or before"), (3, "during the training")])
def test_the_smallest_change_of_h1_is_seen(every, seen_in):
    model = compiled(BCModel(net(), h1=deep_net()))
    change = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: bump(model) if epoch == 1 else None,
    )
    with pytest.raises(RuntimeError, match=f"h1 has changed {seen_in}.*Received: other values of .*moving_mean"):
        fit(model, [change, FrozenH1Check(every)], epochs=2)
    # A second fit takes h1 as it is then.
    fit(model, [FrozenH1Check(every)], epochs=1)


def test_an_h1_that_is_trained_is_refused():
    class Careless(keras.Model):
        def __init__(self, h1, h2, **options):
            super().__init__(**options)
            self.h1, self.h2 = h1, h2

        def call(self, x, training=None):
            return self.h2(x, training=training) + self.h1(x, training=training)

    with pytest.raises(RuntimeError, match=r"are trained.*Received: .*kernel, .*bias\."):
        fit(compiled(Careless(net(), net())), [FrozenH1Check()])
    h1 = net()
    h1.trainable = False
    # Frozen weights may be shared, as nothing changes them.
    fit(compiled(Careless(h1, keras.Sequential([*h1.layers, keras.layers.Dense(3)]))), [FrozenH1Check()])


def test_of_a_callable_there_is_nothing_to_watch(capsys):
    h1 = net()
    fit(compiled(BCModel(net(), h1=h1.call)), [FrozenH1Check()])
    assert "no weights to watch" in capsys.readouterr().out


def test_frozen_check_needs_an_h1_and_comes_back_from_its_config():
    with pytest.raises(ValueError, match="Received: model=Sequential"):
        fit(compiled(net()), [FrozenH1Check()])
    with pytest.raises(ValueError, match="Received: every=True"):
        FrozenH1Check(True)
    back = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(FrozenH1Check(every=5)))
    assert isinstance(back, FrozenH1Check)
    assert back.every == 5
