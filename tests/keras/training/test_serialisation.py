"""Keras's own check of serialisation, for everything public that is a Keras object."""

from __future__ import annotations

import keras
import pytest
from keras.src.testing import TestCase
from user_models import net

import bc_keras
from bc_keras.losses._losses import MODEL_LOSSES

METRICS = [
    bc_keras.BTC,
    bc_keras.BEC,
    bc_keras.NegativeFlipRate,
    bc_keras.PositiveFlipRate,
    bc_keras.NegativeFlipImpact,
    bc_keras.ErrorOverlapMetric,
]


def models():
    return {"h1": net(0), "h2": net(1)}


MAKE = {
    "CompatibilityLoss": lambda: bc_keras.CompatibilityLoss("cross_entropy", "imitation", 2.0, label_smoothing=0.1),
    **{name: (lambda name=name: getattr(bc_keras, name)(**models(), lambda_c=0.5)) for name in MODEL_LOSSES},
    **{metric.__name__: (lambda metric=metric: metric(threshold=0.4, name="mine")) for metric in METRICS},
    "BEC given h2_wrong": lambda: bc_keras.BEC(given="h2_wrong"),
    "TargetLoss": lambda: bc_keras.TargetLoss("sparse_categorical_crossentropy"),
    "OnTarget": lambda: bc_keras.OnTarget(keras.metrics.SparseTopKCategoricalAccuracy(2)),
    "LambdaScheduler": lambda: bc_keras.LambdaScheduler(bc_keras.LinearLambda(end=4.0, epochs=2), per="epoch"),
    "FrozenH1Check": lambda: bc_keras.FrozenH1Check(every=2),
}


@pytest.mark.parametrize("name", MAKE)
def test_keras_own_check(name):
    revived = TestCase().run_class_serialization_test(MAKE[name]())
    assert type(revived).__module__.startswith("bc_keras.")


@pytest.mark.parametrize("name", MAKE)
def test_registered_under_one_package(name):
    registered = keras.saving.get_registered_name(type(MAKE[name]()))
    assert registered == f"bc_keras>{type(MAKE[name]()).__name__}"


def test_a_compiled_model_is_revived_compiled(tmp_path):
    model = bc_keras.BCModel(**models(), lambda_c=3.0)
    metrics = [metric() for metric in METRICS]
    model.compile(
        "adam", loss="sparse_categorical_crossentropy", metrics=metrics, weighted_metrics=[bc_keras.BTC(name="w")]
    )
    model.save(tmp_path / "model.keras", with_h1=True)
    revived = keras.models.load_model(tmp_path / "model.keras")
    written = [keras.Model.get_compile_config(each) for each in (revived, model)]
    assert written[0] == written[1]
    assert len(written[0]["metrics"]) == len(METRICS)
    assert model.get_compile_config()["metrics"] == []
    for each in metrics:
        path = keras.metrics.deserialize(keras.metrics.serialize(each))
        assert path.get_config() == each.get_config()
