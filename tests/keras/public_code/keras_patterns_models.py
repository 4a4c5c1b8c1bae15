"""Models and data, as people write them in Keras."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from public_program import BATCH, CLASSES, FEATURES, TRAIN_ROWS, Program, Run

MODELS: list[type[Program]] = []


def listed(program: type[Program]) -> type[Program]:
    MODELS.append(program)
    return program


@listed
class SequentialModel(Program):
    what = "a Sequential model, softmax, `sparse_categorical_crossentropy`, arrays"
    run_eagerly = False


@listed
class SequentialWithoutInput(Program):
    what = "a Sequential model without `Input`, built by the first batch"

    def build(self):
        return keras.Sequential([layers.Dense(8, "relu"), layers.Dense(CLASSES, "softmax")])


@listed
class FunctionalWithLogits(Program):
    what = "a functional model with a branch, logits, `SparseCategoricalCrossentropy(from_logits=True)`, dropout"

    def build(self):
        inputs = keras.Input((FEATURES,))
        hidden = layers.Dense(6, activation="relu")(inputs)
        hidden = layers.add([hidden, layers.Dropout(0.3)(layers.Dense(6, activation="relu")(hidden))])
        return keras.Model(inputs, layers.Dense(CLASSES)(hidden))

    def loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class TwoLayers(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.norm = layers.Dense(8, activation="relu"), layers.BatchNormalization()
        self.dropout, self.out = layers.Dropout(0.3), layers.Dense(CLASSES, activation="softmax")

    def call(self, inputs, training=False):
        return self.out(self.dropout(self.norm(self.hidden(inputs)), training=training))


@listed
class SubclassedModel(Program):
    what = "a subclassed model, `call(inputs, training=False)`, batch normalisation, dropout, not built before `fit`"
    # Batch statistics are of the batch, whatever its weights: the same in both.
    run_eagerly = False

    def build(self):
        return TwoLayers()


@listed
class TfDataPipeline(Program):
    what = "a `tf.data` pipeline: `cache().shuffle(...).batch(...).prefetch(...)`, also for validation"

    def feed(self, x, y, weights=None):
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((x, y) if weights is None else (x, y, weights))
        shuffled = data.cache().shuffle(TRAIN_ROWS, seed=0, reshuffle_each_iteration=True)
        return {"x": shuffled.batch(BATCH).prefetch(tf.data.AUTOTUNE)}

    def held_out(self, x, y):
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((x, y)).batch(5)


class Batches(keras.utils.PyDataset):
    def __init__(self, *columns):
        super().__init__()
        self.columns = columns

    def __len__(self):
        return len(self.columns[0]) // BATCH

    def __getitem__(self, index):
        return tuple(column[index * BATCH : (index + 1) * BATCH] for column in self.columns)


@listed
class PyDatasetOfBatches(Program):
    what = "a `keras.utils.PyDataset`"

    def feed(self, x, y, weights=None):
        return {"x": Batches(x, y) if weights is None else Batches(x, y, weights), "shuffle": False}


@listed
class EndlessGenerator(Program):
    what = "a Python generator with `steps_per_epoch`"

    def feed(self, x, y, weights=None):
        columns = (x, y) if weights is None else (x, y, weights)

        def generator():
            while True:
                for start in range(0, TRAIN_ROWS, BATCH):
                    yield tuple(column[start : start + BATCH] for column in columns)

        return {"x": generator(), "steps_per_epoch": TRAIN_ROWS // BATCH}


@listed
class ValidationSplit(Program):
    what = "`validation_split` of the training arrays"
    by_hand = False

    def fit(self, model, run):
        x, y = (np.concatenate(parts) for parts in zip(self.rows(TRAIN_ROWS, 0), self.rows(13, 1), strict=True))
        options = {"batch_size": BATCH, "verbose": 0, "shuffle": False}
        return model.fit(x, y, validation_split=13 / len(x), callbacks=list(run.callbacks), **options).history


@listed
class DictionaryOfInputs(Program):
    what = "structured data: a dictionary of inputs, embeddings of categories beside numbers"

    def rows(self, count, seed):
        x, y = super().rows(count, seed)
        kind = np.random.default_rng(seed + 50).integers(4, size=(count, 1))
        return {"numbers": x, "kind": kind}, y

    def build(self):
        inputs = {
            "numbers": keras.Input((FEATURES,), name="numbers"),
            "kind": keras.Input((1,), dtype="int32", name="kind"),
        }
        embedded = layers.Flatten()(layers.Embedding(4, 2)(inputs["kind"]))
        hidden = layers.concatenate([layers.Dense(6, "relu")(inputs["numbers"]), embedded])
        return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(hidden))


@listed
class AugmentationInside(Program):
    what = "images with `RandomFlip`, `RandomTranslation` and `Rescaling` inside the model"

    def rows(self, count, seed):
        random = np.random.default_rng(seed)
        return random.integers(256, size=(count, 6, 6, 1)).astype("float32"), random.integers(CLASSES, size=count)

    def build(self):
        return keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                layers.RandomFlip("horizontal"),
                layers.RandomTranslation(0.1, 0.1),
                layers.Rescaling(1 / 255),
                layers.Conv2D(4, 3, activation="relu"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(CLASSES, activation="softmax"),
            ]
        )


@listed
class NormalizationSharedWithH1(Program):
    what = "a `Normalization` layer, adapted once, that h1 and h2 share"
    shared = None

    def build(self):
        if self.shared is None:
            type(self).shared = layers.Normalization()
            self.shared.adapt(self.rows(TRAIN_ROWS, 0)[0])
        inputs = keras.Input((FEATURES,))
        hidden = layers.Dense(6, activation="relu")(self.shared(inputs))
        return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(hidden))


class Backbone:
    """A pretrained network that transfer learning puts below a new head."""

    @staticmethod
    def make():
        return keras.Sequential(
            [keras.Input((FEATURES,)), layers.Dense(6, "relu"), layers.BatchNormalization(), layers.Dense(6, "relu")],
            name="backbone",
        )


@listed
class TransferLearning(Program):
    what = (
        "transfer learning: a frozen backbone in inference mode, then unfrozen, compiled with a smaller rate, fitted on"
    )

    def build(self):
        backbone = Backbone.make()
        backbone.trainable = False
        inputs = keras.Input((FEATURES,))
        return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(backbone(inputs, training=False)))

    def run(self, run):
        h2, model, _ = super().run(run)
        h2.get_layer("backbone").trainable = True
        model.compile(keras.optimizers.SGD(0.01), loss=self.loss(), metrics=run.metrics(), **self.compiled(run))
        return h2, model, self.fit(model, run)


@listed
class LastLayersUnfrozen(Program):
    what = "fine-tuning: all of `model.layers` frozen but the last, by the trained model itself"

    def run(self, run):
        h2 = self.build()
        model = run.wrap(h2)
        for layer in model.layers[:-1]:
            layer.trainable = False
        assert len(model.trainable_variables) == 2
        model.compile(self.optimizer(), loss=self.loss(), metrics=run.metrics(), **self.compiled(run))
        return h2, model, self.fit(model, run)


@listed
class FrozenBackboneSharedWithH1(Program):
    what = "one frozen backbone below h1's and h2's heads"
    shared = None

    def build(self):
        if self.shared is None:
            type(self).shared = Backbone.make()
            self.shared.trainable = False
        inputs = keras.Input((FEATURES,))
        return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(self.shared(inputs, training=False)))


@listed
class LowRankAdaptation(Program):
    what = "LoRA: `layer.enable_lora(rank)` on h1 and h2, whose variables have the same names"

    def build(self):
        inputs = keras.Input((FEATURES,))
        hidden = layers.Dense(8, activation="relu", name="hidden")
        model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax", name="head")(hidden(inputs)))
        hidden.enable_lora(2)
        return model


class Preprocessor:
    """As KerasHub's: raw inputs to what the network reads."""

    def __call__(self, x, y=None, sample_weight=None):
        return keras.utils.pack_x_y_sample_weight((np.asarray(x) - 100.0) / 50.0, y, sample_weight)


class PipelineTask(keras.Model):
    """As KerasHub's tasks: `fit`, `evaluate` and `predict` preprocess, `call` does not."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.preprocessor = Preprocessor()
        self.hidden, self.head = layers.Dense(6, activation="relu"), layers.Dense(CLASSES, activation="softmax")

    def call(self, x):
        return self.head(self.hidden(x))

    def fit(self, x=None, y=None, batch_size=32, sample_weight=None, validation_data=None, **kwargs):
        packed = self.preprocessor(x, y, sample_weight)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(packed)
        if validation_data is not None:
            validation_data = self.preprocessor(*validation_data)
        return super().fit(x, y, batch_size, sample_weight=sample_weight, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        return super().evaluate(*self.preprocessor(x, y), **kwargs)

    def predict(self, x, **kwargs):
        return super().predict(self.preprocessor(x), **kwargs)


@listed
class KerasHubTask(Program):
    what = "a KerasHub task: `fit`, `evaluate` and `predict` of its own, which preprocess raw inputs"

    def rows(self, count, seed):
        x, y = super().rows(count, seed)
        return x * 50 + 100, y

    def build(self):
        return PipelineTask()

    def answers(self, model, x):
        return super().answers(model, Preprocessor()(x))


@listed
class TextWithVectorizationOutside(Program):
    what = "text: `TextVectorization` in the `tf.data` pipeline, `Embedding`, pooled"

    def rows(self, count, seed):
        random = np.random.default_rng(seed)
        return random.integers(1, 12, size=(count, 5)), random.integers(CLASSES, size=count)

    def feed(self, x, y, weights=None):
        import tensorflow as tf

        vectorize = layers.TextVectorization(vocabulary=[f"w{i}" for i in range(2, 12)], output_sequence_length=5)
        texts = [" ".join(f"w{token}" if token > 1 else "other" for token in row) for row in x]
        columns = (texts, y) if weights is None else (texts, y, weights)
        data = tf.data.Dataset.from_tensor_slices(columns).batch(BATCH)
        return {"x": data.map(lambda text, *rest: (vectorize(text), *rest))}

    def build(self):
        return keras.Sequential(
            [
                keras.Input((5,), dtype="int32"),
                layers.Embedding(12, 4),
                layers.GlobalAveragePooling1D(),
                layers.Dense(CLASSES, "softmax"),
            ]
        )


@listed
class TextVectorizationInside(Program):
    what = "text: an adapted `TextVectorization` inside the model, strings in, on TensorFlow"
    backends = ("tensorflow",)

    def rows(self, count, seed):
        import tensorflow as tf

        random = np.random.default_rng(seed)
        words = random.choice(["good", "bad", "film", "plot", "long"], size=(count, 3))
        return tf.constant([[" ".join(row)] for row in words]), random.integers(CLASSES, size=count)

    def build(self):
        vectorize = layers.TextVectorization(
            output_sequence_length=3, vocabulary=["good", "bad", "film", "plot", "long"]
        )
        inputs = keras.Input((1,), dtype="string")
        hidden = layers.GlobalAveragePooling1D()(layers.Embedding(8, 4)(vectorize(inputs)))
        return keras.Model(inputs, layers.Dense(CLASSES, "softmax")(hidden))


@listed
class RecurrentWithMask(Program):
    what = "an LSTM over padded tokens, `Embedding(mask_zero=True)`"

    def rows(self, count, seed):
        random = np.random.default_rng(seed)
        x = random.integers(1, 12, size=(count, 5))
        x[np.arange(5) >= random.integers(1, 6, size=(count, 1))] = 0
        return x, random.integers(CLASSES, size=count)

    def build(self):
        return keras.Sequential(
            [
                keras.Input((5,), dtype="int32"),
                layers.Embedding(12, 4, mask_zero=True),
                layers.LSTM(4),
                layers.Dense(CLASSES, "softmax"),
            ]
        )


@listed
class TokenClassification(Program):
    what = "token classification: outputs (N, T, C), padding left out by `ignore_class`"
    ignored = -1

    def rows(self, count, seed):
        random = np.random.default_rng(seed)
        x, y = random.integers(1, 12, size=(count, 4)), random.integers(CLASSES, size=(count, 4))
        y[:, -1] = -1
        return x, y

    def build(self):
        return keras.Sequential(
            [keras.Input((4,), dtype="int32"), layers.Embedding(12, 4), layers.Dense(CLASSES, "softmax")]
        )

    def loss(self):
        return keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)


@listed
class Segmentation(Program):
    what = "segmentation: logits (N, H, W, C), labels (N, H, W)"

    def rows(self, count, seed):
        random = np.random.default_rng(seed)
        return random.normal(size=(count, 4, 4, 1)).astype("float32"), random.integers(CLASSES, size=(count, 4, 4))

    def build(self):
        return keras.Sequential(
            [
                keras.Input((4, 4, 1)),
                layers.Conv2D(4, 3, padding="same", activation="relu"),
                layers.Conv2D(CLASSES, 1),
            ]
        )

    def loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@listed
class BinarySigmoid(Program):
    what = "binary: one sigmoid, `binary_crossentropy`"
    threshold = 0.5

    def rows(self, count, seed):
        x, _ = super().rows(count, seed)
        return x, np.random.default_rng(seed + 9).integers(2, size=(count, 1))

    def build(self):
        return keras.Sequential(
            [keras.Input((FEATURES,)), layers.Dense(6, "relu"), layers.Dense(1, activation="sigmoid")]
        )

    def loss(self):
        return "binary_crossentropy"

    def own_weights(self, y):
        return np.ones(len(y), "float32")


@listed
class BinaryLogits(BinarySigmoid):
    what = "binary: one logit, `BinaryCrossentropy(from_logits=True)`, `BinaryAccuracy(threshold=0)`"
    threshold = 0.0

    def build(self):
        return keras.Sequential([keras.Input((FEATURES,)), layers.Dense(6, "relu"), layers.Dense(1)])

    def loss(self):
        return keras.losses.BinaryCrossentropy(from_logits=True)


@listed
class MultilabelSigmoid(BinarySigmoid):
    what = "multilabel: a sigmoid for each label, `binary_crossentropy`"
    # Each label of an instance has a support of its own, which no sample weight says.
    by_hand = False

    def rows(self, count, seed):
        x, _ = super().rows(count, seed)
        return x, np.random.default_rng(seed + 9).integers(2, size=(count, 4))

    def build(self):
        return keras.Sequential(
            [keras.Input((FEATURES,)), layers.Dense(6, "relu"), layers.Dense(4, activation="sigmoid")]
        )


def class_alone(model):
    return keras.Model(model.input, model.output[0])


class OneOutput(Program):
    """The remedy: a model of the output that h1 has an answer to."""

    def build(self):
        inputs = keras.Input((FEATURES,))
        hidden = layers.Dense(6, activation="relu")(inputs)
        outputs = [layers.Dense(CLASSES, "softmax", name="kind")(hidden), layers.Dense(1, name="size")(hidden)]
        return class_alone(keras.Model(inputs, outputs))


@listed
class TwoOutputs(Program):
    what = "a model with two outputs, a dictionary of losses"
    how = "refused"
    needs = "a model of the class output: `keras.Model(model.input, model.output[0])`"
    error = "output"
    mended = OneOutput

    def build(self):
        inputs = keras.Input((FEATURES,))
        hidden = layers.Dense(6, activation="relu")(inputs)
        outputs = [layers.Dense(CLASSES, "softmax", name="kind")(hidden), layers.Dense(1, name="size")(hidden)]
        return keras.Model(inputs, outputs)

    def loss(self):
        return {"kind": "sparse_categorical_crossentropy", "size": "mse"}

    def encoded(self, y):
        return {"kind": y, "size": y.astype("float32")}

    def run(self, run):
        return super().run(Run(**{**vars(run), "metrics": lambda: None}))
