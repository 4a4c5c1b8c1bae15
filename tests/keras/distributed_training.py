"""Train BCModels and write weights and logs; as a program on two devices, which are set once in a process.

python distributed_training.py FOLDER LIST-OF-OPTIONS-AS-JSON
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def two_devices() -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Set up the devices; models are then made within the scope."""
    if os.environ["KERAS_BACKEND"] == "jax":
        # Beside what is said there already, of how quickly programs are compiled.
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
        import keras

        host_devices = keras.distribution.list_devices("cpu")
        assert len(host_devices) == 2
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=host_devices))
        return contextlib.nullcontext
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    return strategy.scope


def train(scope: Callable[[], contextlib.AbstractContextManager[Any]], out: Path, options: dict[str, Any]) -> None:
    """Train three epochs, three batches each."""
    options = dict(options)
    import keras
    import numpy as np
    from user_models import data, net

    from bc_keras import BEC, BTC, BCModel, NegativeFlipRate, StoredOutputs

    x, y = data(96)
    with scope():
        h1 = net(0)
        if options.pop("stored", False):
            h1 = StoredOutputs.compute(h1, x, y)
            x, y = h1.attach(x, y)
        if options.get("unlabelled") == "mixed":
            # One row and label in each batch, as replicas mix their own parts with shares of their own.
            x, y = (np.repeat(each[::32], 32, axis=0) for each in (x, y))
        elif options.pop("unlabelled", False):
            # One row, as replicas read different ones.
            options["unlabelled"] = x[:1]
        # Of 64 held-out instances.
        weight = {"promise_options": {"confidence": 0.9}} if "promise" in options else {"lambda_c": 2.0}
        model = BCModel(net(1), h1=h1, **weight, **options)
        model.compile(
            keras.optimizers.SGD(0.5),
            loss="sparse_categorical_crossentropy",
            # By its name the first would be made in a step, and TensorFlow traces a step that makes variables twice.
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy"), BTC(), BEC(), NegativeFlipRate()],
        )
    validation = (x[:64], y[:64])
    history = model.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0, validation_data=validation).history
    np.savez(out.with_suffix(".npz"), *model.h2.get_weights())
    logs = {key: [float(value) for value in values] for key, values in history.items()}
    out.with_suffix(".json").write_text(json.dumps(logs))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    scope = two_devices()
    for number, recipe in enumerate(json.loads(sys.argv[2])):
        train(scope, Path(sys.argv[1]) / f"2-devices-{number}", recipe)
