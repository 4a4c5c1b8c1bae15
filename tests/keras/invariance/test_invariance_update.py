"""What an update does to invariance, on Keras models: compare_invariance and InvarianceCallback."""

import random

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from bc_keras import BCModel
from bc_keras.invariance import InvarianceCallback, TransformSet, compare_invariance, measure

BACKEND = keras.backend.backend()
C4 = TransformSet.c4()


def net(classes=3, activation="softmax", **names):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(3, 3, activation="relu", name=names.get("conv")),
            L.GlobalAveragePooling2D(name=names.get("pool")),
            L.Dense(classes, activation=activation, name=names.get("head")),
        ]
    )


def data(n=40, classes=3):
    random = np.random.default_rng(2)
    return random.normal(size=(n, 8, 8, 1)).astype("float32"), random.integers(classes, size=n)


def predictions(model, x, transforms=C4):
    return np.stack(
        [
            ops.convert_to_numpy(model(t(x, data_format="channels_last"), training=False)).argmax(axis=1)
            for t in transforms
        ],
        axis=1,
    )


def test_layers_are_paired_by_name_or_by_what_keras_numbered():
    h1, h2 = net(conv="edges"), net(conv="edges")
    x, _ = data()
    update = compare_invariance(h1, h2, x, C4)
    assert update.overlaps is None
    assert update.h1.layer_names == update.h2.layer_names
    assert update.h1["edges"].name == "edges"
    chosen = compare_invariance(h1, h2, x, C4, layers=[h2.layers[2].name])
    assert chosen.h1.layer_names == (h2.layers[2].name,)
    chosen = compare_invariance(h1, h2, x, C4, layers=[h2.layers[1]])
    assert chosen.h1.layer_names == (h2.layers[1].name,)
    other = compare_invariance(h1, net(conv="corners"), x, C4)
    assert "edges" in other.h1
    assert "edges" not in other.h2
    assert len(other.depth_table()) == 4


def test_a_compiled_loss_says_what_scores_are():
    x, y = data(classes=2)
    probabilities, logits = net(1, "sigmoid", head="score"), net(1, None)
    logits.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    logits.set_weights(probabilities.get_weights())
    update = compare_invariance(probabilities, logits, (x, y), C4, layers=[])
    np.testing.assert_array_equal(update.h1_pred, update.h2_pred)


def test_models_of_several_outputs_are_refused():
    model, (x, _) = net(), data()
    two = keras.Model(model.inputs, [model.outputs[0], model.layers[0].output])
    with pytest.raises(ValueError, match="one tensor"):
        compare_invariance(two, model, x, C4, layers=[])


# In training.


def fit(model, callbacks, epochs=2):
    x, y = data()
    if not model.compiled:
        model.compile("sgd", "sparse_categorical_crossentropy")
    return model.fit(x, y, batch_size=20, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks)


def test_a_bc_model_is_compared_as_its_h2():
    h1, h2 = net(), net()
    x, y = data()
    model = BCModel(h2, h1=h1)
    model.compile("sgd", "sparse_categorical_crossentropy")
    watch = InvarianceCallback(h1, (x, y), C4, layers=None)
    model.fit(x, y, verbose=0, callbacks=[watch])
    by_hand = compare_invariance(h1, h2, (x, y), C4, layers=[])
    assert watch.update.negative_flip_rate == by_hand.negative_flip_rate
    assert watch.update.h2.layer_names == tuple(layer.name for layer in h2.layers)
    assert measure(model, x, C4).layer_names == watch.update.h2.layer_names


def test_training_goes_as_without_it():
    h1 = net()
    weights = []
    for callbacks in ([], [InvarianceCallback(h1, data(), C4, every=2)]):
        keras.utils.set_random_seed(4)
        model = net()
        history = fit(model, callbacks, epochs=3)
        weights.append(model.get_weights())
    assert list(callbacks[0].history) == [1, 2]
    assert len(history.history["val_invariance_negative_flip_rate"]) == 2
    for with_it, without in zip(*weights, strict=True):
        np.testing.assert_allclose(with_it, without, rtol=0, atol=1e-7)


def test_a_later_callback_sees_it_and_a_stopped_training_is_compared():
    watch = InvarianceCallback(net(), data(), C4, every=10)
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1))
    model = net()
    fit(model, [watch, stop], epochs=9)
    assert list(watch.history) == [1]
    early = keras.callbacks.EarlyStopping("val_invariance_negative_flip_rate", mode="min", patience=0, baseline=-1.0)
    assert len(fit(net(), [InvarianceCallback(net(), data(), C4), early], epochs=4).epoch) == 2


def test_tensorboard_gets_each_comparison(tmp_path):
    watch = InvarianceCallback(net(), data(), C4, layers=None, log_dir=tmp_path, dataset="turned")
    fit(net(), [watch])
    files = list((tmp_path / "compatibility").iterdir())
    assert sum(file.stat().st_size for file in files) > 1000


def test_an_h1_that_is_the_model_is_refused():
    h1, (x, y) = net(), data()
    h1.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="one model"):
        h1.fit(x, y, verbose=0, callbacks=[InvarianceCallback(h1, x, C4)])


def test_several_labels_are_no_class():
    h1, h2 = net(activation="sigmoid"), net(activation="sigmoid")
    for model in (h1, h2):
        model.compile("sgd", loss="binary_crossentropy")
    x, _ = data()
    with pytest.raises(ValueError, match="h1.*is trained with a binary loss, got 3 labels"):
        compare_invariance(h1, h2, x, C4, layers=[])


@keras.saving.register_keras_serializable("tests")
class TimeFirst(L.Layer):
    """Hands on sequences with their steps in front, as some recurrent layers want them."""

    def call(self, x):
        return ops.transpose(x, (1, 0, 2))


@pytest.mark.parametrize("batch_size", [1, 256])
def test_an_axis_as_long_as_the_transformations_is_not_taken_for_the_inputs(batch_size):
    steps = len(C4)
    inputs = keras.Input((8, 8, 1))
    rows = L.Reshape((steps, 16), name="rows")(inputs)
    turned = TimeFirst(name="turned")(rows)
    outputs = L.Dense(3, name="head")(L.Flatten()(TimeFirst(name="back")(turned)))
    model = keras.Model(inputs, outputs)
    result = measure(model, data()[0], C4, batch_size=batch_size)
    assert "turned" in result.left_out
    assert f"for {steps + 1} inputs has no axis of theirs in front" in result.left_out["turned"]
    assert {"rows", "back", "head"} & set(result.layer_names) >= {"head"}
    with pytest.raises(ValueError, match="'turned' cannot be measured"):
        measure(model, data()[0], C4, layers=["turned"])


def test_random_numbers_are_the_callers():
    x, y = data()
    model, batches = net(), [(x[:20], y[:20]), (x[20:], y[20:])]
    if BACKEND == "torch":
        import torch

        rows = torch.utils.data.TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
        batches = torch.utils.data.DataLoader(rows, batch_size=20, shuffle=True)

    def draws():
        return [random.random(), np.random.random(), float(keras.random.uniform(()))]  # noqa: NPY002

    keras.utils.set_random_seed(7)
    expected = draws()
    keras.utils.set_random_seed(7)
    measure(model, batches, C4)
    compare_invariance(model, model, batches, C4, layers=[])
    assert draws() == expected
