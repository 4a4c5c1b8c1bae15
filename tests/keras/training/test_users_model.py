"""A wrapped model is the user's model: what Keras checks of its own models, of wrapped ones beside plain ones."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from user_models import data, net

from bc_keras import BTC, BCModel, CompatibilityCallback, NegativeFlipRate, OnTarget, StoredOutputs, evaluate, unwrap

BACKEND = keras.backend.backend()
SPARSE = "sparse_categorical_crossentropy"
KINDS = ["sequential", "functional", "subclassed"]


@keras.saving.register_keras_serializable(package="bc_keras_tests")
class Subclassed(keras.Model):
    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.h1 = layers.Dense(units, activation="relu", name="h1")  # a name that is also ours
        self.dropout = layers.Dropout(0.5, name="dropout")
        self.out = layers.Dense(3, activation="softmax", name="out")

    def build(self, input_shape):
        self.h1.build(input_shape)
        self.out.build((None, self.units))

    def call(self, inputs, training=False):
        return self.out(self.dropout(self.h1(inputs), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def made(kind, seed=1):
    keras.utils.set_random_seed(seed)
    if kind == "subclassed":
        model = Subclassed(name="mine")
        model.build((None, 4))
        return model
    inputs = keras.Input((4,), name="features")
    stack = [layers.Dense(8, activation="relu", name="hidden"), layers.Dropout(0.5, seed=3, name="dropout")]
    stack.append(layers.Dense(3, activation="softmax", name="out"))
    if kind == "sequential":
        return keras.Sequential([inputs, *stack], name="mine")
    output = inputs
    for layer in stack:
        output = layer(output)
    return keras.Model(inputs, output, name="mine")


def plain_and_wrapped(kind, **options):
    plain = made(kind)
    return plain, BCModel(made(kind), h1=net(0), **{"lambda_c": 0.0, **options})


def compiled(model, metrics=("accuracy",), **options):
    model.compile(keras.optimizers.Adam(0.01), loss=SPARSE, metrics=list(metrics), **options)
    return model


def fit(model, epochs=1, seed=5, **options):
    keras.utils.set_random_seed(seed)
    x, y = data(48)
    return model.fit(x, y, batch_size=16, epochs=epochs, verbose=0, **options)


def same_weights(first, second):
    return all((a == b).all() for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


@pytest.fixture(scope="module", params=KINDS)
def trained(request):
    """A plain and a wrapped model of one kind after the same training, with dropout and shuffling."""
    plain, wrapped = (compiled(model) for model in plain_and_wrapped(request.param))
    x, y = data(48)
    histories = [fit(model, 2, validation_data=(x, y)).history for model in (plain, wrapped)]
    return plain, wrapped, histories


# Training and evaluation


def test_lambda_0_is_plain_fit_to_the_bit_with_dropout_and_shuffling(trained):
    plain, wrapped, (expected, got) = trained
    assert same_weights(plain, wrapped)
    assert {name: got[name] for name in expected} == expected
    assert got.keys() - expected.keys() == {"base_loss", "dissonance", "val_base_loss", "val_dissonance"}
    variables = zip(plain.optimizer.variables, wrapped.optimizer.variables, strict=True)
    assert all((ops.convert_to_numpy(a) == ops.convert_to_numpy(b)).all() for a, b in variables)


def test_what_evaluate_and_the_methods_on_batches_return(trained):
    plain, wrapped, _ = trained
    x, y = data(48)
    loss, accuracy = wrapped.evaluate(x, y, verbose=0)
    assert [loss, accuracy] == plain.evaluate(x, y, verbose=0)
    assert wrapped.test_on_batch(x[:8], y[:8]) == plain.test_on_batch(x[:8], y[:8])
    named = wrapped.evaluate(x, y, verbose=0, return_dict=True)
    expected = plain.evaluate(x, y, verbose=0, return_dict=True)
    assert {name: named[name] for name in expected} == expected
    assert named.keys() - expected.keys() == {"base_loss", "dissonance"}
    assert [each.name for each in wrapped.metrics] == [each.name for each in plain.metrics]
    assert wrapped.metrics_names == plain.metrics_names
    assert (wrapped.predict(x, verbose=0) == plain.predict(x, verbose=0)).all()
    assert (wrapped.predict_on_batch(x[:8]) == plain.predict_on_batch(x[:8])).all()


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"steps_per_execution": 2}])
def test_train_on_batch_and_ways_of_running(options):
    if BACKEND == "torch" and "steps_per_execution" in options:
        pytest.skip("Keras has no steps_per_execution on torch")
    plain, wrapped = (compiled(model, **options) for model in plain_and_wrapped("functional"))
    x, y = data(16)
    keras.utils.set_random_seed(1)
    expected = [plain.train_on_batch(x, y), plain.train_on_batch(x, y, return_dict=True)]
    keras.utils.set_random_seed(1)
    got = [wrapped.train_on_batch(x, y), wrapped.train_on_batch(x, y, return_dict=True)]
    assert got[0] == expected[0]
    assert {name: got[1][name] for name in expected[1]} == expected[1]
    fit(plain), fit(wrapped)
    assert same_weights(plain, wrapped)
    assert [wrapped.run_eagerly, wrapped.steps_per_execution] == [plain.run_eagerly, plain.steps_per_execution]


def test_a_loss_without_metrics_is_a_number():
    x, y = data(16)
    plain, wrapped = plain_and_wrapped("sequential")
    for model in (plain, wrapped):
        model.compile("sgd", loss=SPARSE)
    assert wrapped.evaluate(x, y, verbose=0) == plain.evaluate(x, y, verbose=0)
    assert isinstance(wrapped.evaluate(x, y, verbose=0), float)


def test_metrics_are_those_of_the_last_compile_once_each():
    x, y = data(48)
    plain, wrapped = plain_and_wrapped("functional")
    compiled(wrapped, ["accuracy", BTC(), NegativeFlipRate])
    named = {"loss", "base_loss", "dissonance"}
    assert set(fit(wrapped).history) == named | {"accuracy", "btc", "nfr"}
    tree = wrapped.get_state_tree()  # which refuses two of one name
    assert {"btc", "nfr"} <= set(tree["metrics_variables"])
    wrapped.set_state_tree(tree)
    for metrics in (["accuracy"], []):
        compiled(plain, metrics), compiled(wrapped, metrics)
        history = fit(wrapped, validation_data=(x, y)).history
        assert {name for name in history if not name.startswith("val_")} == named | set(metrics)
        assert [each.name for each in wrapped.metrics] == [each.name for each in plain.metrics]
    compiled(wrapped, ["accuracy", BTC()])
    wrapped.compile("sgd", loss=SPARSE)  # Keras keeps the metrics that it had; ours nobody has named
    assert "btc" not in fit(wrapped).history
    for name in ("dissonance", "base_loss"):
        with pytest.raises(ValueError, match="name the metric otherwise"):
            compiled(wrapped, [keras.metrics.SparseCategoricalAccuracy(name=name)])


def test_a_compiled_model_keeps_its_compile():
    x, y = data(48)
    plain, again = made("functional"), made("functional")
    for model in (plain, again):
        compiled(model, ["accuracy"])
        fit(model)
    optimizer = again.optimizer
    wrapped = BCModel(again, h1=net(0), lambda_c=0.0)
    assert wrapped.optimizer is optimizer
    assert wrapped.loss == SPARSE
    fit(plain), fit(wrapped)
    assert same_weights(plain, wrapped)
    assert wrapped.evaluate(x, y, verbose=0) == plain.evaluate(x, y, verbose=0)
    wrapped.lambda_c = 5.0
    assert fit(wrapped).history["dissonance"][0] > 0
    # Metrics of this package that the plain model was compiled with are fed from now on.
    told = BCModel(compiled(made("sequential"), [BTC()]), h1=net(0))
    stored = StoredOutputs.compute(net(0), x, y)
    by_labels = BCModel(compiled(made("sequential"), [BTC()]), h1=stored)
    expected = by_labels.evaluate(*stored.attach(x, y), verbose=0, return_dict=True)
    assert told.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)
    without_loss = made("sequential")
    without_loss.compile("sgd")
    with pytest.raises(ValueError, match="compiled without a loss"):
        BCModel(without_loss, h1=net(0)).fit(x, y)


def test_training_can_be_stopped_and_callbacks_see_the_model():
    plain, wrapped = (compiled(model) for model in plain_and_wrapped("subclassed"))
    seen = {}
    for model in (plain, wrapped):
        logs = seen[model is wrapped] = []

        class Stop(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None, told=logs):
                told.append(set(logs))
                self.model.stop_training = batch == 1

        assert len(fit(model, 3, callbacks=[Stop()]).epoch) == 1
        assert len(logs) == 2
    assert seen[True][0] - seen[False][0] == {"base_loss", "dissonance"}


# Structure


def test_layers_inputs_and_weights(trained):
    plain, wrapped, _ = trained
    assert isinstance(wrapped, (BCModel, type(plain)))
    assert type(wrapped).__name__ == type(plain).__name__
    assert wrapped.name == plain.name == "mine"
    assert [layer.name for layer in wrapped.layers] == [layer.name for layer in plain.layers]
    assert wrapped.get_layer("out") is wrapped.layers[-1]
    assert [v.path for v in wrapped.weights] == [v.path for v in plain.weights]
    assert len(wrapped.variables) == len(plain.variables)
    assert [v.shape for v in wrapped.trainable_variables] == [v.shape for v in plain.trainable_variables]
    assert wrapped.count_params() == plain.count_params()
    lines = ([], [])
    for model, told in zip((plain, wrapped), lines, strict=True):
        model.summary(print_fn=lambda text, **_: told.append(text))  # noqa: B023
    assert lines[0] == lines[1]
    for name in ("input", "output", "inputs", "outputs", "input_shape", "output_shape", "output_names"):
        assert hasattr(wrapped, name) == hasattr(plain, name), name
    if hasattr(plain, "input_shape"):
        assert (wrapped.input_shape, wrapped.output_shape) == (plain.input_shape, plain.output_shape)
        features = keras.Model(wrapped.inputs, wrapped.get_layer("hidden").output)
        assert features.predict(data(4)[0], verbose=0).shape == (4, 8)
        for name in ("input", "output", "output_names"):
            assert str(getattr(wrapped, name, None)).count("shape") == str(getattr(plain, name, None)).count("shape")
    assert (wrapped.get_config(), wrapped.dtype_policy.name) == (plain.get_config(), plain.dtype_policy.name)
    assert wrapped.to_json().replace("bc_keras_tests", "").count("bc_keras") == 0


def test_freezing_the_last_layers_is_freezing_those_of_h2():
    h1, model = net(0), made("functional")
    for layer in model.layers:
        layer.trainable = False
    model = BCModel(model, h1=h1)
    assert model.trainable_variables == []
    for layer in model.layers[-1:]:
        layer.trainable = True
    before = model.get_weights()
    compiled(model)
    fit(model, 1)
    changed = [not (a == b).all() for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False, False, True, True]
    assert all(variable.trainable for variable in h1.trainable_variables)


def test_users_attributes_of_our_names_are_the_users():
    reference = net(0)
    model = BCModel(made("subclassed"), h1=reference)
    assert model.h1 is model.layers[0]
    assert model._reference.h1 is reference
    model.h1 = model.h1
    assert BCModel(made("sequential"), h1=reference).h1 is reference
    own = type("Own", (Subclassed,), {"lambda_c": 3})
    with pytest.raises(TypeError, match="'lambda_c'"):
        BCModel(own(), h1=reference)


def test_an_unbuilt_model_is_built_as_it_is(tmp_path):
    x, y = data(32)
    h1, path = net(0), tmp_path / "a.weights.h5"
    for build in (True, False):
        model = BCModel(keras.Sequential([layers.Dense(3, activation="softmax")]), h1=h1)
        assert not model.built
        with pytest.raises(ValueError, match="not yet been built"):
            model.save_weights(path)
        if build:
            model.build((None, 4))
            assert model.built
            assert len(model.weights) == 2
        compiled(model).fit(x, y, verbose=0)
        model.save_weights(path)
        again = BCModel(keras.Sequential([layers.Dense(3, activation="softmax")]), h1=h1)
        again.build((None, 4))
        again.load_weights(path)
        assert (again.predict(x, verbose=0) == model.predict(x, verbose=0)).all()


def test_quantize_is_of_h2_alone():
    h1 = net(0)
    before = h1.get_weights()
    plain, wrapped = plain_and_wrapped("sequential")
    x, _ = data(16)
    for model in (plain, wrapped):
        model.quantize("int8")
    assert (wrapped.predict(x, verbose=0) == plain.predict(x, verbose=0)).all()
    assert all((a == b).all() for a, b in zip(before, h1.get_weights(), strict=True))
    assert wrapped._reference.h1.layers[0].dtype_policy.quantization_mode is None


# Copies and files


def test_copies_are_h2_alone(trained):
    plain, wrapped, _ = trained
    x, _ = data(16)
    clone = keras.models.clone_model(wrapped)
    assert type(clone) is type(keras.models.clone_model(plain))
    clone.set_weights(wrapped.get_weights())
    copies = [clone, copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))]
    copies.append(type(wrapped).from_config(wrapped.get_config()))
    if not copies[-1].built:
        copies[-1].build((None, 4))
    copies[-1].set_weights(wrapped.get_weights())
    for each in copies:
        assert type(each) is type(plain)
        assert (each.predict(x, verbose=0) == wrapped.predict(x, verbose=0)).all()
    assert isinstance(wrapped, BCModel)


def test_files_are_h2s_and_load_as_it(trained, tmp_path):
    plain, wrapped, _ = trained
    x, y = data(16)
    expected = wrapped.predict(x, verbose=0)
    wrapped.save(tmp_path / "m.keras")
    keras.saving.save_model(wrapped, tmp_path / "n.keras")
    for name in ("m.keras", "n.keras"):
        loaded = keras.models.load_model(tmp_path / name)
        assert type(loaded) is type(plain)
        assert (loaded.predict(x, verbose=0) == expected).all()
        assert loaded.evaluate(x, y, verbose=0) == wrapped.evaluate(x, y, verbose=0)
    if not isinstance(plain, Subclassed):
        wrapped.save(tmp_path / "old.h5")
        assert (keras.models.load_model(tmp_path / "old.h5").predict(x, verbose=0) == expected).all()
    wrapped.save_weights(tmp_path / "m.weights.h5")
    plain.save_weights(tmp_path / "p.weights.h5")
    assert (tmp_path / "m.weights.h5").stat().st_size == (tmp_path / "p.weights.h5").stat().st_size
    other = made({"Sequential": "sequential", "Functional": "functional"}.get(type(plain).__name__, "subclassed"), 9)
    other.load_weights(tmp_path / "m.weights.h5")
    assert (other.predict(x, verbose=0) == expected).all()
    again = BCModel(compiled(other), h1=net(3))
    for name in ("p.weights.h5", "m.keras"):
        again.set_weights([np.zeros_like(each) for each in again.get_weights()])
        again.load_weights(tmp_path / name)
        assert (again.predict(x, verbose=0) == expected).all()


def test_checkpoints_of_callbacks(tmp_path):
    x, y = data(48)
    model = compiled(BCModel(made("functional"), h1=net(0), lambda_c=2.0), [OnTarget("accuracy"), BTC()])
    checkpoints = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_btc", save_best_only=True, mode="max"),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
        keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False),
    ]
    fit(model, 2, validation_data=(x, y), callbacks=checkpoints)
    best = keras.models.load_model(tmp_path / "best.keras")
    assert type(best) is type(made("functional"))
    assert len(best.evaluate(x, y, verbose=0)) == 2  # loss and accuracy
    last = made("functional", 7)
    last.load_weights(tmp_path / "2.weights.h5")
    assert same_weights(last, model)
    # And from its checkpoint a training goes on: the compile and the state of the optimiser are in the file.
    resumed = BCModel(best, h1=net(0), lambda_c=2.0)
    assert int(resumed.optimizer.iterations) > 0
    assert np.isfinite(fit(resumed).history["dissonance"][0])


@pytest.mark.slow
def test_checkpoints_load_without_the_package(tmp_path):
    x, _ = data(16)
    model = compiled(BCModel(made("functional"), h1=net(0)), ["accuracy", BTC()])
    fit(model, 1, callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "m.keras")])
    np.savez(tmp_path / "data.npz", x=x, expected=model.predict(x, verbose=0))
    code = (
        "import sys; sys.modules['bc_keras'] = sys.modules['bc_core'] = None; import keras, numpy as np\n"
        "data = np.load('data.npz'); model = keras.models.load_model('m.keras')\n"
        "assert (model.predict(data['x'], verbose=0) == data['expected']).all() and model.compiled\n"
        "model.fit(data['x'], np.zeros(16), verbose=0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_tuning_gives_the_model_that_was_best(tmp_path):
    """As tuners do it: build, train with a checkpoint of weights, build anew, load the weights of the best."""
    x, y = data(48)

    def build(units):
        keras.utils.set_random_seed(units)
        h2 = keras.Sequential([keras.Input((4,)), layers.Dense(units), layers.Dense(3, activation="softmax")])
        return compiled(BCModel(h2, h1=net(0)), ["accuracy", BTC()])

    scores = {}
    for units in (2, 4):
        path = tmp_path / f"{units}.weights.h5"
        keep = keras.callbacks.ModelCheckpoint(path, monitor="val_btc", mode="max", save_weights_only=True)
        scores[units] = fit(build(units), validation_data=(x, y), callbacks=[keep]).history["val_btc"][-1]
    best = build(4)
    best.load_weights(tmp_path / "4.weights.h5")
    assert best.evaluate(x, y, verbose=0, return_dict=True)["btc"] == pytest.approx(scores[4])


def test_unwrap_gives_the_plain_model_back():
    x, y = data(48)
    h2 = made("functional")
    model = compiled(BCModel(h2, h1=net(0), lambda_c=2.0), ["accuracy", BTC()])
    fit(model)
    optimizer = model.optimizer
    assert model is h2
    assert model.h2 is h2
    plain = unwrap(model)
    assert plain is h2
    assert type(plain) is type(made("functional"))
    assert not hasattr(plain, "lambda_c")
    assert plain.optimizer is optimizer
    assert len(plain.evaluate(x, y, verbose=0)) == 2
    assert set(fit(plain).history) == {"loss", "accuracy"}
    assert unwrap(plain) is plain
    # Wrapped anew it is trained against another h1.
    assert set(fit(BCModel(plain, h1=net(4))).history) == {"loss", "accuracy", "base_loss", "dissonance"}


# Steps, losses and metrics of the user's own


def _tensorflow_step(self, data):
    import tensorflow as tf

    x, y = data
    with tf.GradientTape() as tape:
        y_pred = self(x, training=True)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
    gradients = tape.gradient(loss, self.trainable_variables)
    self.optimizer.apply(gradients, self.trainable_variables)
    for metric in self.metrics:
        if metric.name == "loss":
            metric.update_state(loss)
        else:
            metric.update_state(y, y_pred)
    return self.get_metrics_result()


def _torch_step(self, data):
    import torch

    x, y = data
    self.zero_grad()
    y_pred = self(x, training=True)
    loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
    loss.backward()
    with torch.no_grad():
        self.optimizer.apply([v.value.grad for v in self.trainable_weights], self.trainable_weights)
    for metric in self.metrics:
        if metric.name == "loss":
            metric.update_state(loss)
        else:
            metric.update_state(y, y_pred)
    return self.get_metrics_result()


def _jax_step(self, state, data):
    import jax

    trainable, non_trainable, optimizer, metrics = state
    x, y = data
    gradient = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
    (_, (loss, y_pred, non_trainable, metrics)), gradients = gradient(
        trainable, non_trainable, metrics, x, y, None, training=True, optimizer_variables=optimizer
    )
    trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
    logs, metrics = self._update_metrics_variables(metrics, loss, x, y, y_pred, None)
    return logs, (trainable, non_trainable, optimizer, metrics)


STEP = {"tensorflow": _tensorflow_step, "torch": _torch_step, "jax": _jax_step}[BACKEND]


def _of_the_readme():
    """The model of the README, as it stands there."""
    import tensorflow as tf

    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (block,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Net(keras" in each)
    names = {"tf": tf, "keras": keras}
    exec(block, names)
    return names["Net"]


def _by_a_function(self, *args):
    return STEP(self, *args)


@pytest.mark.parametrize("origin", ["step", "function", "readme"])
def test_a_train_step_of_ones_own(origin):
    if origin == "readme" and BACKEND != "tensorflow":
        pytest.skip("that of the README is written for TensorFlow")
    steps = {"step": STEP, "function": _by_a_function}
    own = type("Own", (keras.Model,), {"train_step": steps[origin]}) if origin in steps else _of_the_readme()
    h1, results = net(0), []
    for cls in (keras.Model, own):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((4,))
        h2 = cls(inputs, layers.Dense(3, activation="softmax")(inputs))
        model = compiled(BCModel(h2, h1=h1, lambda_c=3.0), ["accuracy", BTC()])
        history = fit(model, 2, shuffle=False).history
        results.append((model.get_weights(), history))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for name in ("btc", "dissonance", "accuracy", "loss"):
        assert results[1][1][name] == pytest.approx(results[0][1][name], rel=1e-5), name


def test_a_train_step_that_calls_the_loss_on_other_ways_only_is_refused_when_it_runs():
    def step(self, *args):
        if self.optimizer is None:
            self.compute_loss()  # never
        return {} if BACKEND != "jax" else ({}, args[0])

    own = type("Own", (keras.Sequential,), {"train_step": step})
    model = compiled(BCModel(own(net(1).layers), h1=net(0)))
    with pytest.raises(TypeError, match="has left the penalty out"):
        fit(model)


@pytest.mark.parametrize("takes_training", [True, False])
def test_a_compute_loss_of_ones_own(takes_training):
    x, y = data(16)

    def with_training(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.Sequential.compute_loss(self, x, y, y_pred, sample_weight) + ops.mean(y_pred**2)

    def without(self, x, y, y_pred, sample_weight):
        return keras.Sequential.compute_loss(self, x, y, y_pred, sample_weight) + ops.mean(y_pred**2)

    own = type("Own", (keras.Sequential,), {"compute_loss": with_training if takes_training else without})
    keras.utils.set_random_seed(1)
    h2 = own([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    h1 = net(0)
    model = compiled(BCModel(h2, h1=h1, lambda_c=2.0))
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    p1, p2 = (each.predict(x, verbose=0).astype(float) for each in (h1, h2))
    each = -np.log(p2[np.arange(16), y])
    dissonance = np.mean((p1.argmax(1) == y) * each)
    assert got["dissonance"] == pytest.approx(dissonance, rel=1e-5)
    assert got["loss"] == pytest.approx(each.mean() + np.mean(p2**2) + 2 * dissonance, rel=1e-5)


def test_a_loss_all_of_ones_own_needs_a_named_dissonance():
    x, y = data(16)

    def compute(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((y_pred - ops.one_hot(y, 3)) ** 2)

    own = type("Own", (keras.Sequential,), {"compute_loss": compute})
    h2 = own([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    with pytest.raises(TypeError, match="loss='BCCrossEntropyLoss'"):
        BCModel(h2, h1=net(0))
    model = BCModel(h2, h1=net(0), lambda_c=0.5, loss="BCCrossEntropyLoss")
    model.compile("sgd")
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    brier = np.mean((h2.predict(x, verbose=0) - np.eye(3)[y]) ** 2)
    assert got["base_loss"] == pytest.approx(brier, rel=1e-5)
    assert got["loss"] == pytest.approx(brier + 0.5 * got["dissonance"], rel=1e-5)


def test_metrics_losses_and_regularisation_of_the_model_itself():
    """Metrics that a model adds and tracks, and losses that its layers add."""

    class Tracking(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, activation="softmax", activity_regularizer="l2")
            self.seen = keras.metrics.Mean(name="seen")

        def call(self, inputs):
            self.add_loss(0.1 * ops.mean(inputs**2))
            return self.dense(inputs)

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            self.seen.update_state(ops.mean(y_pred))
            return super().compute_metrics(x, y, y_pred, sample_weight)

    x, y = data(48)
    got = []
    for wrap in (False, True):
        keras.utils.set_random_seed(1)
        model = Tracking()
        model = compiled(BCModel(model, h1=net(0), lambda_c=0.0) if wrap else model)
        fit(model, 2)
        got.append((model.get_weights(), model.evaluate(x, y, verbose=0)))
    assert all((a == b).all() for a, b in zip(got[0][0], got[1][0], strict=True))
    assert got[0][1] == got[1][1]
    assert len(got[1][1]) == 3


# h1 stays the caller's


def test_h1_answers_within_an_epoch_and_after_a_failed_step():
    x, y = data(48)
    h1 = net(0)
    expected, said = h1.predict(x[:4], verbose=0), []

    class Ask(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            said.append(h1.predict_on_batch(x[:4]))

    model = compiled(BCModel(made("sequential"), h1=h1))
    fit(model, callbacks=[Ask()])
    assert len(said) == 3
    assert all((each == expected).all() for each in said)
    with pytest.raises(Exception, match=r".+"):
        compiled(BCModel(made("sequential"), h1=h1)).fit(x[:, :3], y, verbose=0)
    assert (h1.predict(x[:4], verbose=0) == expected).all()


def _with_lora(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, activation="relu", name="hidden")
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(hidden(inputs)), name="same")
    hidden.enable_lora(2)
    return model


def _copied(seed):
    return keras.models.clone_model(_nested(seed))


def _nested(seed):
    keras.utils.set_random_seed(seed)
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="a")], name="inner")
    return keras.Sequential([keras.Input((4,)), inner, layers.Dense(3, activation="softmax", name="b")], name="outer")


@pytest.mark.parametrize("make", [_with_lora, _copied, _nested])
def test_variables_of_the_same_names_are_two(make):
    h1, results = make(0), []
    before = h1.get_weights()
    for wrap in (False, True):
        h2 = make(1)
        assert [v.path for v in h1.variables] == [v.path for v in h2.variables]
        model = BCModel(h2, h1=h1, lambda_c=0.0) if wrap else h2
        model.compile(keras.optimizers.SGD(0.1), loss=SPARSE)
        losses = fit(model, 3, shuffle=False).history["loss"]
        results.append((h2.get_weights(), losses))
        if BACKEND == "torch":
            model.zero_grad()
            assert all(v.value.grad is None or not v.value.grad.any() for v in h2.trainable_variables)
    assert all((a == b).all() for a, b in zip(results[0][0], results[1][0], strict=True))
    assert results[0][1] == results[1][1]
    assert all((a == b).all() for a, b in zip(before, h1.get_weights(), strict=True))


# What h1 and h2 may share


def _on(shared, classes=3):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(shared(inputs)))


def _normalization():
    layer = layers.Normalization()
    layer.adapt(data(32)[0])
    return layer


def _frozen_backbone():
    backbone = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.BatchNormalization(), layers.Dropout(0.5)])
    backbone.trainable = False
    return backbone


@pytest.mark.parametrize("make", [_normalization, _frozen_backbone, lambda: layers.GaussianNoise(0.5)])
def test_what_no_training_changes_may_be_shared(make, tmp_path):
    x, y = data(48)
    shared = make()
    h1, h2 = _on(shared), _on(shared)
    expected = h1.predict(x, verbose=0)
    model = compiled(BCModel(h2, h1=h1, lambda_c=2.0), [BTC()])
    fit(model, 2)
    assert (h1.predict(x, verbose=0) == expected).all()
    model.save(tmp_path / "m.keras", with_h1=True)
    model.save(tmp_path / "h2.keras")
    whole, alone = (keras.models.load_model(tmp_path / name) for name in ("m.keras", "h2.keras"))
    assert (whole.h1.predict(x, verbose=0) == expected).all()
    assert (alone.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
    assert whole.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_what_training_changes_is_refused_with_its_reason():
    class Counts(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seen = self.add_weight(shape=(), trainable=False, name="seen")

        def call(self, inputs):
            self.seen.assign_add(1.0)
            return inputs

    for shared, reason in (
        (layers.Dense(4), "optimiser trains.*"),
        (layers.BatchNormalization(scale=False, center=False), "updates in training steps"),
        (layers.SpectralNormalization(layers.Dense(4)), "updates in training steps|optimiser trains"),
        (Counts(), "updates in training steps, for all that is known also if it is frozen"),
    ):
        h1, h2 = _on(shared), _on(shared)
        with pytest.raises(ValueError, match=reason) as caught:
            BCModel(h2, h1=h1)
        # The remedy that it names works.
        if "freeze it" in str(caught.value):
            shared.trainable = False
            expected = h1.predict(data(8)[0], verbose=0)
            model = compiled(BCModel(h2, h1=h1))
            fit(model)
            assert (h1.predict(data(8)[0], verbose=0) == expected).all()
            shared.trainable = True
            with pytest.raises(ValueError, match="share variables"):
                compiled(model)
        else:
            assert isinstance(shared, Counts | layers.SpectralNormalization)
            shared.trainable = False
            with pytest.raises(ValueError, match="share variables"):
                BCModel(h2, h1=h1)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="text is vectorised in the model on TensorFlow alone")
def test_a_shared_vocabulary_is_saved_and_loaded(tmp_path):
    import tensorflow as tf

    texts, labels = tf.constant([["good film"], ["bad plot"]] * 8), np.array([1, 0] * 8)
    vectorize = layers.TextVectorization(max_tokens=20, output_sequence_length=4)
    vectorize.adapt(texts)

    def text_net():
        inputs = keras.Input((1,), dtype="string")
        hidden = layers.GlobalAveragePooling1D()(layers.Embedding(20, 4)(vectorize(inputs)))
        return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(hidden))

    model = BCModel(text_net(), h1=text_net())
    model.compile("adam", "binary_crossentropy", metrics=[BTC()])
    model.fit(texts, labels, verbose=0)
    for name, options in (("m.keras", {}), ("whole.keras", {"with_h1": True})):
        model.save(tmp_path / name, **options)
        loaded = keras.models.load_model(tmp_path / name)
        assert (loaded.predict(texts, verbose=0) == model.predict(texts, verbose=0)).all()
    assert loaded.evaluate(texts, labels, verbose=0) == pytest.approx(model.evaluate(texts, labels, verbose=0))


# Models that prepare their inputs


class Scaled:
    """What prepares inputs, with a config of its own, as the preprocessors of KerasHub have."""

    def __init__(self, mean, vocabulary=("a",), name="scaled"):
        self.mean, self.vocabulary, self.name = mean, vocabulary, name
        self.tokenizer = types.SimpleNamespace(get_vocabulary=lambda: list(vocabulary))

    def __call__(self, x):
        return (np.asarray(x) - self.mean) / 50.0

    def get_config(self):
        return {"mean": self.mean, "name": self.name}


class Task(keras.Model):
    """The pattern of the tasks of KerasHub: inputs are prepared in fit, evaluate, predict and the like."""

    def __init__(self, preprocessor, **kwargs):
        super().__init__(**kwargs)
        self.preprocessor = preprocessor
        self.dense = layers.Dense(2, activation="softmax")

    def compile(self, optimizer="auto", loss="auto", *, metrics="auto", **kwargs):
        super().compile(
            optimizer=keras.optimizers.Adam(0.05) if optimizer == "auto" else optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy() if loss == "auto" else loss,
            metrics=[keras.metrics.SparseCategoricalAccuracy()] if metrics == "auto" else metrics,
            **kwargs,
        )

    def call(self, x):
        return self.dense(x)

    def _prepared(self, x):
        return x if self.preprocessor is None else self.preprocessor(x)

    def fit(self, x=None, y=None, validation_data=None, **kwargs):
        if validation_data is not None:
            validation_data = (self._prepared(validation_data[0]), *validation_data[1:])
        return super().fit(self._prepared(x), y, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        cached = kwargs.get("_use_cached_eval_dataset", False)
        return super().evaluate(x if cached else self._prepared(x), y, **kwargs)

    def predict(self, x, **kwargs):
        return super().predict(self._prepared(x), **kwargs)

    def predict_on_batch(self, x):
        return super().predict_on_batch(self._prepared(x))


def raw_data():
    x = np.random.default_rng(0).uniform(0, 200, size=(128, 2)).astype("float32")
    return x, (x[:, 0] > x[:, 1]).astype("int64")


def task(mean=100.0, seed=0, vocabulary=("a",), **options):
    keras.utils.set_random_seed(seed)
    model = Task(None if mean is None else Scaled(mean, vocabulary, **options))
    model.compile()
    model.fit(*raw_data(), epochs=2, verbose=0)
    return model


def test_a_task_prepares_its_inputs_and_h1_gets_what_it_needs():
    x, y = raw_data()
    h1 = task(seed=0, name="scaled_1")
    model = BCModel(task(seed=1), h1=h1, lambda_c=2.0)
    model.compile(metrics=["accuracy", BTC()])
    history = model.fit(x, y, validation_data=(x, y), epochs=3, verbose=0).history
    right = [each.predict(x, verbose=0).argmax(1) == y for each in (h1, model)]
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    assert got["accuracy"] == history["val_accuracy"][-1] == pytest.approx(right[1].mean())
    assert got["btc"] == history["val_btc"][-1] == pytest.approx((right[0] & right[1]).sum() / right[0].sum())
    # A raw network as h1 gets what h2 has prepared.
    network = keras.Sequential([keras.Input((2,)), layers.Dense(2, activation="softmax")])
    by_network = BCModel(task(seed=1), h1=network)
    by_network.compile(metrics=[BTC()])
    right[0] = network.predict(Scaled(100.0)(x), verbose=0).argmax(1) == y
    right[1] = by_network.predict(x, verbose=0).argmax(1) == y
    expected = (right[0] & right[1]).sum() / right[0].sum()
    assert by_network.evaluate(x, y, verbose=0, return_dict=True)["btc"] == pytest.approx(expected)


def test_lambda_0_is_plain_fit_of_a_task():
    plain, wrapped = task(seed=1), BCModel(task(seed=1), h1=task(seed=0), lambda_c=0.0)
    for model in (plain, wrapped):
        keras.utils.set_random_seed(2)
        model.fit(*raw_data(), epochs=2, verbose=0)
    assert same_weights(plain, wrapped)


@pytest.mark.parametrize("other", [{"mean": 50.0}, {"vocabulary": ("b",)}])
@pytest.mark.parametrize("of_h2", ["task", "network"])
def test_an_h1_that_prepares_its_inputs_otherwise_is_refused_with_remedies_that_work(other, of_h2):
    x, y = raw_data()
    h1 = task(**other)

    def h2():
        if of_h2 == "task":
            return task(seed=1)
        keras.utils.set_random_seed(1)
        return compiled(keras.Sequential([keras.Input((2,)), layers.Dense(2, activation="softmax")]))

    with pytest.raises(TypeError, match="h1 has a predict of its own"):
        BCModel(h2(), h1=h1)
    stored = StoredOutputs.from_predictions(h1.predict(x, verbose=0))
    model = BCModel(h2(), h1=stored)
    model.compile(optimizer="sgd", loss=SPARSE, metrics=["accuracy", BTC()])
    model.fit(*stored.attach(x, y), verbose=0)
    right = [each.predict(x, verbose=0).argmax(1) == y for each in (h1, model)]
    got = model.evaluate(*stored.attach(x, y), verbose=0, return_dict=True)
    assert got["btc"] == pytest.approx((right[0] & right[1]).sum() / right[0].sum())
    told = BCModel(h2(), h1=lambda x: h1(x, training=False))
    told.compile(optimizer="sgd", loss=SPARSE, metrics=[BTC()])
    told.fit(x, y, verbose=0)
    # A task without a preprocessor takes prepared inputs as it is.
    BCModel(h2(), h1=task(mean=None))


@pytest.mark.parametrize("of_h2", ["task", "network"])
@pytest.mark.parametrize("of_h1", [{"mean": 50.0}, {"mean": 100.0}, {"mean": None}])
def test_a_comparison_asks_each_about_what_it_prepares_itself(of_h1, of_h2):
    x, y = raw_data()
    h1, h2 = task(**of_h1), task(seed=1)
    if of_h2 == "network":
        h2 = compiled(keras.Sequential([keras.Input((2,)), layers.Dense(2, activation="softmax")]))
    # One without a preprocessor gets what h2's layers get.
    given = x if of_h1["mean"] is not None or of_h2 == "network" else h2.preprocessor(x)
    right = [h1.predict(given, verbose=0).argmax(1) == y, h2.predict(x, verbose=0).argmax(1) == y]
    found = evaluate(h1, h2, (x, y)).comparison.overlap
    assert found.accuracy_h1 == pytest.approx(right[0].mean())
    assert found.btc == pytest.approx((right[0] & right[1]).sum() / right[0].sum())
    callback = CompatibilityCallback((x, y), h1=h1)
    h2.fit(x, y, callbacks=[callback], verbose=0)
    assert callback.comparison.overlap.accuracy_h1 == pytest.approx(right[0].mean())


class Opaque(Task):
    """One that does not say what it does to its inputs."""

    def __init__(self, **kwargs):
        super().__init__(None, **kwargs)
        del self.preprocessor

    def _prepared(self, x):
        return (np.asarray(x) - 50.0) / 50.0


def test_a_comparison_with_an_h1_that_prepares_who_knows_what_names_remedies_that_work():
    x, y = raw_data()
    h1, h2 = Opaque(), task(seed=1)
    right = h1.predict(x, verbose=0).argmax(1) == y
    callback = CompatibilityCallback((x, y), h1=h1)
    for refused in (lambda: h2.fit(x, y, callbacks=[callback], verbose=0), lambda: evaluate(h1, h2, (x, y))):
        with pytest.raises(TypeError, match=r"no preprocessor.*h1=h1\.predict\(x\)") as caught:
            refused()
        assert "BCModel" not in str(caught.value)
    callback = CompatibilityCallback((x, y), h1=h1.predict(x, verbose=0))
    h2.fit(x, y, callbacks=[callback], verbose=0)
    found = evaluate(h1.predict(x, verbose=0), h2, (x, y)).comparison
    assert found.overlap.accuracy_h1 == callback.comparison.overlap.accuracy_h1 == pytest.approx(right.mean())


def test_a_pipeline_that_does_not_evaluate_what_it_serves_is_refused():
    class Half(keras.Sequential):
        def fit(self, x=None, *args, **kwargs):
            return super().fit(x / 100, *args, **kwargs)

        def predict(self, x, **kwargs):
            return super().predict(x / 100, **kwargs)

    def with_evaluate(self, x=None, *args, _use_cached_eval_dataset=False, **kwargs):
        given = {"_use_cached_eval_dataset": True} if _use_cached_eval_dataset else {}
        return super(Half, self).evaluate(x if given else x / 100, *args, **given, **kwargs)

    x, y = raw_data()
    network = [keras.Input((2,)), layers.Dense(2, activation="softmax")]
    with pytest.raises(TypeError, match="Define evaluate in its class alike"):
        BCModel(Half(network), h1=net(0, classes=2, features=2))
    whole = type("Whole", (Half,), {"evaluate": with_evaluate})(network)
    model = compiled(BCModel(whole, h1=net(0, classes=2, features=2)))
    model.fit(x, y, verbose=0)
    accuracy = model.evaluate(x, y, verbose=0)[1]
    assert accuracy == pytest.approx((model.predict(x, verbose=0).argmax(1) == y).mean())
