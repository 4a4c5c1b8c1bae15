"""Losses, weights, optimisers, callbacks and loops, as people write them in Keras."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from public_program import BATCH, CLASSES, FEATURES, TRAIN_ROWS, VAL_ROWS, Program, Run

TRAINING: list[type[Program]] = []


def listed(program: type[Program]) -> type[Program]:
    TRAINING.append(program)
    return program


def with_callbacks(run: Run, *callbacks: Any) -> Run:
    return dataclasses.replace(run, callbacks=(*callbacks, *run.callbacks))


def until_best(logged: dict[str, list[float]]) -> dict[str, list[float]]:
    """What was logged up to the epoch whose weights were kept."""
    best = int(np.argmax(logged["val_accuracy"]))
    return {name: values[: best + 1] for name, values in logged.items()}


@listed
class LabelSmoothing(Program):
    what = "one-hot labels, `CategoricalCrossentropy(label_smoothing=0.1)`"

    def encoded(self, y):
        return keras.utils.to_categorical(y, CLASSES)

    def loss(self):
        return keras.losses.CategoricalCrossentropy(label_smoothing=0.1)


@listed
class FocalLoss(LabelSmoothing):
    what = "`CategoricalFocalCrossentropy`"

    def loss(self):
        return keras.losses.CategoricalFocalCrossentropy(alpha=0.25, gamma=2.0)


@listed
class LossFunctionPerInstance(Program):
    what = "a loss function of one's own that gives a value for each instance"

    def loss(self):
        def damped(y_true, y_pred):
            return 0.9 * keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

        return damped


@listed
class LossFunctionOfTheBatch(Program):
    what = "a loss function of one's own that ends in `ops.mean(...)`: one number for the batch"
    how = "refused"
    needs = "the same without `ops.mean`: Keras takes the mean"
    error = "instance"
    mended = LossFunctionPerInstance

    def loss(self):
        def damped(y_true, y_pred):
            return ops.mean(0.9 * keras.losses.sparse_categorical_crossentropy(y_true, y_pred))

        return damped


class DiceByInstance(LabelSmoothing):
    """The remedy: the sums of each instance, not of the batch."""

    def loss(self):
        return keras.losses.Dice(axis=(1,))


@listed
class DiceOfTheBatch(LabelSmoothing):
    what = "`keras.losses.Dice()`: one number for the batch"
    how = "refused"
    needs = "`keras.losses.Dice(axis=...)` over an instance's axes"
    error = "instance"
    mended = DiceByInstance

    def loss(self):
        return keras.losses.Dice()


@listed
class ClassWeights(Program):
    what = "`class_weight=` for rare classes"

    def own_weights(self, y):
        return np.array([1.0, 2.0, 0.5], "float32")[y]

    def fit_options(self, run):
        # Keras takes one or the other: by hand both are in the sample weights.
        return {} if run.weights is not None else {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}


@listed
class SampleWeights(Program):
    what = "`sample_weight=` of fit"

    def own_weights(self, y):
        return np.linspace(0.5, 2.0, len(y)).astype("float32")

    def feed(self, x, y, weights=None):
        return super().feed(x, y, self.own_weights(y) if weights is None else weights)


@listed
class Regularizers(Program):
    what = "`kernel_regularizer`, `activity_regularizer` and `add_loss` in a layer"
    # Three gradients meet at what the first layer says, and TensorFlow adds them in the order in which they are ready:
    # a dissonance makes that of the loss ready later, so that a last bit differs on some processors.
    exact = keras.backend.backend() != "tensorflow"

    def build(self):
        class Sparse(layers.Layer):
            def call(self, inputs):
                self.add_loss(0.01 * ops.mean(ops.abs(inputs)))
                return inputs

        return keras.Sequential(
            [
                keras.Input((FEATURES,)),
                layers.Dense(8, "relu", kernel_regularizer="l2", activity_regularizer=keras.regularizers.L1(1e-3)),
                Sparse(),
                layers.Dense(CLASSES, activation="softmax"),
            ]
        )


@listed
class AdamWithSchedule(Program):
    what = "Adam with a learning rate schedule and clipped gradients"

    def optimizer(self):
        schedule = keras.optimizers.schedules.CosineDecay(0.01, 10)
        return keras.optimizers.Adam(schedule, clipnorm=1.0)


@listed
class GradientAccumulation(Program):
    what = "an optimiser with `gradient_accumulation_steps`"

    def optimizer(self):
        return keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)


@listed
class AveragedWeights(Program):
    what = "an optimiser with `use_ema=True`"

    def optimizer(self):
        return keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)

    def fit(self, model, run):
        super().fit(model, run)
        # The averages take the weights' place when fit ends.
        values = model.evaluate(*self.rows(VAL_ROWS, 1), verbose=0, return_dict=True)
        return {f"val_{name}": [value] for name, value in values.items()}


@listed
class MixedPrecision(Program):
    what = "mixed precision: `mixed_bfloat16` policies, a float32 softmax"
    tolerance = 0.05

    def build(self):
        policy = keras.DTypePolicy("mixed_bfloat16")
        return keras.Sequential(
            [
                keras.Input((FEATURES,)),
                layers.Dense(8, activation="relu", dtype=policy),
                layers.Dense(CLASSES, dtype=policy),
                layers.Activation("softmax", dtype="float32"),
            ]
        )


@listed
class CompiledByXla(Program):
    what = "`jit_compile=True` on TensorFlow and JAX"
    backends = ("tensorflow", "jax")
    run_eagerly = False

    def build(self):
        return keras.Sequential([keras.Input((FEATURES,)), layers.Dense(CLASSES, activation="softmax")])

    def compiled(self):
        return {"jit_compile": True}


@listed
class SeveralStepsPerExecution(Program):
    what = "`steps_per_execution`, on TensorFlow and JAX"
    backends = ("tensorflow", "jax")
    run_eagerly = False

    def compiled(self):
        return {"steps_per_execution": 2}


@listed
class MirroredStrategyScope(Program):
    what = "`tf.distribute.MirroredStrategy`: model and compile in its scope, on TensorFlow"
    backends = ("tensorflow",)
    run_eagerly = False

    def run(self, run):
        import tensorflow as tf

        with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
            h2 = self.build()
            model = run.wrap(h2)
            model.compile(self.optimizer(), loss=self.loss(), metrics=run.metrics())
        return h2, model, self.fit(model, run)


@listed
class UsualCallbacks(Program):
    what = "`EarlyStopping(restore_best_weights=True)`, `ReduceLROnPlateau`, `CSVLogger`, `TerminateOnNaN`"
    epochs = 2

    def fit(self, model, run):
        with tempfile.TemporaryDirectory() as folder:
            usual = (
                keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=5, restore_best_weights=True),
                keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1),
                keras.callbacks.CSVLogger(Path(folder) / "log.csv"),
                keras.callbacks.TerminateOnNaN(),
            )
            return until_best(super().fit(model, with_callbacks(run, *usual)))


@listed
class BestWeightsAndTensorBoard(Program):
    what = "`ModelCheckpoint(save_weights_only=True)` and `TensorBoard`, the best weights loaded after `fit`"
    epochs = 2

    def fit(self, model, run):
        with tempfile.TemporaryDirectory() as folder:
            best = f"{folder}/best.weights.h5"
            usual = (
                keras.callbacks.ModelCheckpoint(
                    best, monitor="val_accuracy", mode="max", save_best_only=True, save_weights_only=True
                ),
                keras.callbacks.TensorBoard(f"{folder}/logs", update_freq="epoch"),
            )
            logged = super().fit(model, with_callbacks(run, *usual))
            model.load_weights(best)
            # The file is a plain model's.
            plain = self.build()
            plain.load_weights(best)
            x = self.rows(VAL_ROWS, 1)[0]
            assert np.array_equal(self.answers(plain, x), self.answers(model, x))
            return until_best(logged)


@listed
class CheckpointOfTheWholeModel(Program):
    what = '`ModelCheckpoint("best.keras")`, loaded by `keras.models.load_model` as the plain model'

    def fit(self, model, run):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/best.keras"
            keep = keras.callbacks.ModelCheckpoint(path)
            logged = super().fit(model, with_callbacks(run, keep))
            plain = keras.models.load_model(path)
            assert type(plain) is keras.Sequential
            x = self.rows(VAL_ROWS, 1)[0]
            assert np.array_equal(self.answers(plain, x), self.answers(model, x))
            return logged


@listed
class BackupAndRestore(Program):
    what = "`BackupAndRestore`: a run that was interrupted goes on where it stopped"
    epochs = 2

    def fit(self, model, run):
        class Interrupted(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    raise InterruptedError

        with tempfile.TemporaryDirectory() as folder:
            backup = keras.callbacks.BackupAndRestore(folder)
            with contextlib.suppress(InterruptedError):
                super().fit(model, with_callbacks(run, backup, Interrupted()))
            return super().fit(model, with_callbacks(run, backup))


@listed
class WarmStartFromAFile(Program):
    what = "`model.load_weights(file)` of a plain model before training"

    def run(self, run):
        with tempfile.TemporaryDirectory() as folder:
            keras.utils.set_random_seed(21)
            self.build().save_weights(f"{folder}/old.weights.h5")
            h2 = self.build()
            model = run.wrap(h2)
            model.load_weights(f"{folder}/old.weights.h5")
        model.compile(self.optimizer(), loss=self.loss(), metrics=run.metrics(), **self.compile_options(run))
        return h2, model, self.fit(model, run)


@listed
class CompiledBeforeWrapping(Program):
    what = "a model that its builder function has compiled: loss, optimiser and metrics stay"

    def run(self, run):
        h2 = self.build()
        h2.compile(self.optimizer(), loss=self.loss(), metrics=run.metrics(), **self.compile_options(run))
        model = run.wrap(h2)
        return h2, model, self.fit(model, run)


@listed
class TrainOnBatchLoop(Program):
    what = "a loop of one's own over `train_on_batch`, then `evaluate`"

    def fit(self, model, run):
        x, y = self.rows(TRAIN_ROWS, 0)
        for _ in range(2):
            for start in range(0, TRAIN_ROWS, BATCH):
                chosen = slice(start, start + BATCH)
                weights = None if run.weights is None else run.weights[chosen]
                loss, *_ = model.train_on_batch(x[chosen], y[chosen], sample_weight=weights)
                assert np.isfinite(loss)
        values = model.evaluate(*self.rows(VAL_ROWS, 1), verbose=0, return_dict=True)
        return {f"val_{name}": [value] for name, value in values.items()}


@listed
class LossAndAccuracyUnpacked(Program):
    what = "`loss, accuracy = model.evaluate(x, y)`, and `model.predict(x).argmax(1)`"

    def fit(self, model, run):
        logged = super().fit(model, run)
        x, y = self.rows(VAL_ROWS, 1)
        values = model.evaluate(x, y, verbose=0)
        if len(run.metrics()) == 1:
            _, accuracy = values
            assert accuracy == np.float32((model.predict(x, verbose=0).argmax(1) == y).mean())
        return logged


@listed
class SearchOverHyperparameters(Program):
    what = "KerasTuner's habit: models built in a loop, each one's best weights saved, the best built again and loaded"

    def build(self):
        return self.with_units(8)

    def with_units(self, units):
        return keras.Sequential(
            [keras.Input((FEATURES,)), layers.Dense(units, "relu"), layers.Dense(CLASSES, activation="softmax")]
        )

    def run(self, run):
        with tempfile.TemporaryDirectory() as folder:
            found = {}
            for units in (4, 8):
                model = run.wrap(self.with_units(units))
                model.compile(self.optimizer(), loss=self.loss(), metrics=run.metrics(), **self.compile_options(run))
                path = f"{folder}/{units}.weights.h5"
                keep = keras.callbacks.ModelCheckpoint(path, "val_accuracy", 0, True, True, mode="max")
                logged = self.fit(model, with_callbacks(run, keep))
                found[units] = max(logged["val_accuracy"])
            h2 = self.build()
            model = run.wrap(h2)
            model.compile(self.optimizer(), loss=self.loss(), metrics=run.metrics(), **self.compile_options(run))
            model.load_weights(f"{folder}/8.weights.h5")
        values = model.evaluate(*self.rows(VAL_ROWS, 1), verbose=0, return_dict=True)
        return h2, model, {f"val_{name}": [value] for name, value in values.items()}


class Distance(keras.Model):
    """A model with a loss of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = layers.Dense(8, activation="relu"), layers.Dense(CLASSES, activation="softmax")

    def call(self, inputs):
        return self.out(self.hidden(inputs))


class OwnComputeLoss(Distance):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        losses = keras.losses.sparse_categorical_crossentropy(y, y_pred)
        return ops.mean(losses if sample_weight is None else losses * sample_weight)


@listed
class ModelWithOwnComputeLoss(Program):
    what = "a `compute_loss` of the model's own"
    how = "option"
    needs = '`loss="BCCrossEntropyLoss"`, the dissonance that is trained'
    error = "loss='BCCrossEntropyLoss'"
    options = {"loss": "BCCrossEntropyLoss"}  # noqa: RUF012

    def build(self):
        return OwnComputeLoss()


class OwnTrainStep(Distance):
    shows_input = False

    def train_step(self, data):
        x, y = data
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                scores = self(x, training=True)
                loss = self.compute_loss(x=x if self.shows_input else None, y=y, y_pred=scores)
            self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        else:
            self.zero_grad()
            scores = self(x, training=True)
            loss = self.compute_loss(x=x if self.shows_input else None, y=y, y_pred=scores)
            loss.backward()
            self.optimizer.apply([weight.value.grad for weight in self.trainable_weights], self.trainable_weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, scores)
        return self.get_metrics_result()


class OwnTrainStepWithInput(OwnTrainStep):
    shows_input = True


class InputInTheStep(Program):
    # Its step takes no sample weights.
    by_hand = False

    def build(self):
        return OwnTrainStepWithInput()


@listed
class ModelWithOwnTrainStep(Program):
    what = "a `train_step` of the model's own, on TensorFlow and torch, whose loss is computed without the input"
    how = "refused"
    needs = "`self.compute_loss(x=x, ...)`"
    error = r"compute_loss\(x=x"
    mended = InputInTheStep
    backends = ("tensorflow", "torch")

    def build(self):
        return OwnTrainStep()
