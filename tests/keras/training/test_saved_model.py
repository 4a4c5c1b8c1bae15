"""BCModels as files, and the original's model."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import ops
from user_models import data, net
from warm_programs import run_program
from wrapped_models import SPARSE, fitted, sgd, weights

from bc_keras import (
    BEC,
    BTC,
    BCModel,
    BCNewErrorCompatibilityModel,
    CompatibilityLoss,
    Reference,
    store_outputs,
)

BACKEND = keras.backend.backend()


# Saving


def test_the_whole_is_saved_and_h2_alone_is_plain_keras(tmp_path):
    x, y = data()
    model, _ = fitted(
        net(0), 2.5, compiled={"metrics": ["accuracy", BTC(), BEC(given="h2_wrong")]}, dissonance="strict_imitation"
    )
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(revived, BCModel)
    assert type(revived) is type(model)
    assert revived.lambda_c == 2.5
    assert (weights(revived.h1) == weights(model.h1)).all()
    assert revived.evaluate(x, y, verbose=0, return_dict=True) == model.evaluate(x, y, verbose=0, return_dict=True)
    for each in (model, revived):
        each.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert (weights(revived.h2) == weights(model.h2)).all()

    model.h2.save(tmp_path / "h2.keras")
    assert "bc_keras" not in json.dumps(keras.saving.serialize_keras_object(model.h2))
    alone = keras.models.load_model(tmp_path / "h2.keras")
    assert type(alone) is keras.Sequential
    assert alone.compiled
    assert (alone.predict(x, verbose=0) == model.predict(x, verbose=0)).all()


@pytest.mark.parametrize(
    "loss", [None, "BCKLDivergenceLoss", CompatibilityLoss("nll", "imitation", 3.0, "support", from_logits=False)]
)
def test_arguments_are_saved_with_h1(loss, tmp_path):
    model = BCModel(net(1), h1=net(0), lambda_c=3.0, loss=loss, threshold=0.4, class_map=[0, 1, 2])
    model.compile(sgd(), loss=SPARSE if loss is None else None, metrics=[BTC()])
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    assert revived._compatibility.options.arguments == model._compatibility.options.arguments
    assert (revived.lambda_c, revived.dissonance) == (3.0, model.dissonance)
    assert revived.evaluate(*data(), verbose=0) == model.evaluate(*data(), verbose=0)


def test_who_is_imitated_is_saved_with_h1(tmp_path):
    x, y = data()
    rows = store_outputs(net(4), x, tmp_path / "rows", y=y, verbose=0)
    for number, (teacher, plain) in enumerate(
        [(net(2), None), ([(net(2), 0.25), (net(0), 0.75)], net(3)), (None, rows), (lambda inputs: inputs[:, :3], None)]
    ):
        lasts = number < 3
        taught = teacher if lasts else Reference(teacher, from_logits=True)
        model = BCModel(net(1), h1=net(0), dissonance="imitation", teacher=taught, plain=plain)
        model.compile(sgd(), loss=SPARSE)
        given = rows.attach(x, y) if plain is rows else (x, y)
        model.save(tmp_path / "model.keras", with_h1=True)
        revived = keras.models.load_model(tmp_path / "model.keras")
        if not lasts:
            with pytest.raises(ValueError, match="nor a blend of such"):
                revived.evaluate(*given, verbose=0)
            continue
        assert revived.evaluate(*given, verbose=0) == model.evaluate(*given, verbose=0)
        for each in (model, revived):
            each.fit(*given, batch_size=32, shuffle=False, verbose=0)
        assert (weights(revived.h2) == weights(model.h2)).all()


def test_an_h1_that_is_no_keras_model(tmp_path):
    x, y = data()
    h1 = net(0)
    live, _ = fitted(h1)
    model, _ = fitted(lambda inputs: h1(inputs, training=False))
    assert (weights(model.h2) == weights(live.h2)).all()
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    assert (revived.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
    with pytest.raises(ValueError, match="wrap h2 anew"):
        revived.evaluate(x, y, verbose=0)


def test_stored_outputs_are_found_again_by_a_saved_model(tmp_path):
    x, y = data()
    stored = store_outputs(net(0), x, tmp_path / "h1", y=y, verbose=0)
    model = BCModel(net(1), h1=stored, lambda_c=2.0)
    model.compile(sgd(), loss=SPARSE, metrics=[BTC()])
    joined = stored.attach(x, y)
    model.fit(*joined, batch_size=32, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, revived):
        each.fit(*joined, batch_size=32, shuffle=False, verbose=0)
    assert (weights(revived.h2) == weights(model.h2)).all()


def test_how_h1_is_read_is_saved_with_it(tmp_path):
    x, y = data()
    h1 = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dense(3), keras.layers.Softmax()])
    # Nothing tells of an activation of the user's own; h1 alone gives what h2 does not.
    h2 = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dense(3)])
    model = BCModel(h2, h1=Reference(h1, from_logits=False), dissonance="imitation")
    model.compile(sgd(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    assert revived._compatibility.reference.from_logits is False
    assert revived.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_a_training_on_unlabelled_inputs_does_not_go_on_without_them(tmp_path):
    x, y = data()
    model = BCModel(net(1), h1=net(0), unlabelled=x)
    model.compile(sgd(), loss=SPARSE)
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    assert revived.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    with pytest.raises(ValueError, match="unlabelled inputs too"):
        revived.fit(x, y, verbose=0)
    again = BCModel(revived, h1=revived.h1, unlabelled=x)
    for each in (model, again):
        each.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert all(np.array_equal(one, other) for one, other in zip(weights(again), weights(model), strict=True))


@pytest.mark.slow
def test_a_checkpoint_needs_the_package_for_h1_alone(tmp_path):
    model, _ = fitted(net(0), compiled={"metrics": ["accuracy", BTC()]})
    model.save(tmp_path / "whole.keras", with_h1=True)
    model.save(tmp_path / "h2.keras")
    x, _ = data()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "expected.npy", model.predict(x, verbose=0))
    code = (
        "import sys; sys.modules['bc_keras'] = None; import keras, numpy as np\n"
        "model = keras.models.load_model('h2.keras')\n"
        "assert (model.predict(np.load('x.npy'), verbose=0) == np.load('expected.npy')).all()\n"
        "assert model.evaluate(np.load('x.npy'), np.zeros(96), verbose=0, return_dict=True).keys() == "
        "{'loss', 'accuracy'}\n"
        "print('h2 is there')\n"
        "keras.models.load_model('whole.keras')"
    )
    done = run_program("-c", code, cwd=tmp_path)
    assert done.stdout.endswith("h2 is there\n"), done.stderr[-2000:]
    assert "bc_keras" in done.stderr.splitlines()[-1], done.stderr[-2000:]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras exports torch models by onnx or litert, not as a saved model")
def test_export_is_of_h2(tmp_path):
    pytest.importorskip("tensorflow")
    model, _ = fitted(net(0))
    model.export(str(tmp_path / "exported"), verbose=False)
    x, _ = data()
    assert (tmp_path / "exported").exists()
    if BACKEND == "tensorflow":
        layer = keras.layers.TFSMLayer(str(tmp_path / "exported"), call_endpoint="serve")
        np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), model.predict(x, verbose=0), atol=1e-6)
        assert len(layer.weights) == len(model.h2.weights)


def test_lambda_c_may_change_at_any_time():
    x, y = data()
    model, _ = fitted(net(0), 0.0)
    model.lambda_c = 5
    got = model.evaluate(x, y, verbose=0, return_dict=True)
    assert got["loss"] == pytest.approx(got["base_loss"] + 5 * got["dissonance"], rel=1e-5)


# The original's model


def test_new_error_model_of_the_original(tmp_path):
    x, y = data()
    layers = net(1).layers
    model = BCNewErrorCompatibilityModel(layers, h1=net(0), lambda_c=0.7)
    model.compile(loss=keras.losses.sparse_categorical_crossentropy, optimizer=sgd(), metrics=["accuracy"])
    model.fit(x, y, batch_size=32, shuffle=False, epochs=2, verbose=0, validation_data=(x, y))
    expected, _ = fitted(net(0), 0.7)
    assert (weights(model.h2) == weights(expected.h2)).all()
    assert isinstance(model, BCNewErrorCompatibilityModel)
    assert isinstance(model, keras.Sequential)
    model.save(tmp_path / "model.keras", with_h1=True)
    assert type(keras.models.load_model(tmp_path / "model.keras")) is type(model)
