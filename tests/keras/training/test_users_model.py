"""A wrapped model is the user's model: what Keras checks of its own models, of wrapped ones beside plain ones."""

from __future__ import annotations

import copy
import pickle

import keras
import numpy as np
import pytest
from backends import once_but
from keras import layers, ops
from user_models import data, net
from users_training import SPARSE, compiled, fit, layered, same_weights
from warm_programs import run_program

from bc_keras import BTC, BCModel, NegativeFlipRate, OnTarget, StoredOutputs, unwrap

BACKEND = keras.backend.backend()
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
    if kind != "subclassed":
        return layered(kind, seed)
    keras.utils.set_random_seed(seed)
    model = Subclassed(name="mine")
    model.build((None, 4))
    return model


def plain_and_wrapped(kind, **options):
    plain = made(kind)
    return plain, BCModel(made(kind), h1=net(0), **{"lambda_c": 0.0, **options})


# A sequential model is a functional one for Keras, once it is built.
@pytest.fixture(scope="module", params=once_but(["functional", "subclassed"], KINDS))
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
    assert [variable.trainable for variable in h1.variables] == [True] * 4


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
    done = run_program("-c", code, cwd=tmp_path)
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
