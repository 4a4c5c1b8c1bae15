"""h1 stays the caller's, and what h1 and h2 may share."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers
from user_models import data, net
from users_training import SPARSE, compiled, fit, layered

from bc_keras import BTC, BCModel

BACKEND = keras.backend.backend()


# h1 stays the caller's


def test_h1_answers_within_an_epoch_and_after_a_failed_step():
    x, y = data(48)
    h1 = net(0)
    expected, said = h1.predict(x[:4], verbose=0), []

    class Ask(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            said.append(h1.predict_on_batch(x[:4]))

    model = compiled(BCModel(layered("sequential"), h1=h1))
    fit(model, callbacks=[Ask()])
    assert len(said) == 3
    assert all((each == expected).all() for each in said)
    with pytest.raises(Exception, match=r".+"):
        compiled(BCModel(layered("sequential"), h1=h1)).fit(x[:, :3], y, verbose=0)
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
