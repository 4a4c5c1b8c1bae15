"""What a training step costs in Keras: plain, ours and the original library's, through `fit` on one CPU thread.

    python benchmarks/keras_step_time.py [--steps 180] [--backend tensorflow|jax|torch]

A convolutional net of about a million parameters, batches of 64 images of 28 x 28. Each variant is trained by a real
`fit` in a thread of its own, and they take turns step by step, so that a busy machine slows all of them alike. A step
is the time from the start of one batch to the start of the next. Every backend is measured in three processes, one
after the other, for on PyTorch even identical variants differ for as long as a process runs, by up to a tenth.

Without --backend all are measured and results/keras_step_time.md is written. The original library is measured under
TensorFlow where it can be imported (`pip install --no-deps BackwardCompatibilityML==1.4.2`), on Keras 3 and, if there
is the package tf-keras, on the Keras 2 that it was written for.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from interleaved import Step, Target, by_round, by_turns, console, quartiles, ratio_of, table
from keras import ops

from bc_keras import BEC, BTC, BCModel, StoredOutputs

RESULTS = Path(__file__).parent / "results" / "keras_step_time.md"
BATCH, BATCHES, WARM_UP, PROCESSES = 64, 13, 3, 3
LAMBDA_C, RATE = 1.0, 1e-2
ORIGINAL = "backwardcompatibilityml"
# One thread in each backend's own pools.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


class Variant(NamedTuple):
    """One way to train: `fit` takes what to call when a batch begins, and a number of epochs; `network` is trained."""

    name: str
    fit: Callable[[Callable[[], None], int], Any]
    network: Any


def layers(k: Any) -> list[Any]:
    """Layers of the net, in Keras 3 or 2."""

    def block(width: int) -> list[Any]:
        return [
            k.layers.Conv2D(width, 3, padding="same", use_bias=False),
            k.layers.BatchNormalization(momentum=0.9),
            k.layers.ReLU(),
        ]

    return [
        k.Input((28, 28, 1)),
        *block(24),
        k.layers.MaxPooling2D(),
        *block(48),
        k.layers.MaxPooling2D(),
        *block(96),
        k.layers.MaxPooling2D(),
        *block(192),
        k.layers.Flatten(),
        k.layers.Dense(448, activation="relu"),
        k.layers.Dense(10, activation="softmax"),
    ]


def ticking(k: Any, tick: Callable[[], None]) -> Any:
    """A callback that ticks as a batch begins, when the batch before is computed.

    JAX computes on after a step has returned, which would be billed to the variant whose turn is next; and without an
    end of the batch to call, Keras runs its callbacks in a thread beside the training.
    """

    def wait(batch: int, logs: Any) -> None:
        if keras.backend.backend() == "jax":
            import jax

            jax.block_until_ready(logs)

    return k.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: tick(), on_train_batch_end=wait)


def with_weights_of(model: Any, other: Any) -> Any:
    """Give a net the weights of one with the same layers, maybe of another Keras."""
    for to, of in zip(net_layers(model), net_layers(other), strict=True):
        to.set_weights(of.get_weights())
    return model


def net_layers(model: Any) -> list[Any]:
    """Those with weights; the original's h2 holds h1 among its layers."""
    return [layer for layer in model.layers if layer.weights and not hasattr(layer, "layers")]


def flat(model: Any) -> np.ndarray[Any, Any]:
    """All weights of a net in a row."""
    return np.concatenate([np.ravel(w) for layer in net_layers(model) for w in layer.get_weights()])


class WithH1Forward(keras.Model):
    """What no compatible update can do without: the plain net, and one answer of h1 to each batch."""

    h1: Any
    nothing: Any

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The compiled loss plus 0 times h1's scores; the 0 is a variable, which no compiler multiplies out."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if keras.backend.backend() == "torch":
            import torch

            with torch.no_grad():
                scores = self.h1(x, training=False)
        else:
            scores = ops.stop_gradient(self.h1(x, training=False))
        return loss + self.nothing * ops.sum(scores)


ORIGINALS = ("original bc_fit, new error", "original bc_fit, strict imitation", "original fit, new error")


def original(name: str, h1: Any, start: Any, x: Any, y: Any) -> Variant:
    """The original library's way, by `bc_fit` with a loss or by `fit` of its model, as its documentation shows it."""
    import tensorflow as tf

    helpers, models, new_error, strict = (
        importlib.import_module(f"{ORIGINAL}.tensorflow.{module}")
        for module in ("helpers", "models", "loss.new_error", "loss.strict_imitation")
    )
    k = tf.keras
    old = with_weights_of(k.Sequential(layers(k)), h1)
    old.trainable = False

    if name.startswith("original fit"):
        model = with_weights_of(models.BCNewErrorCompatibilityModel(layers(k), h1=old, lambda_c=LAMBDA_C), start)
        model.compile(
            loss=k.losses.sparse_categorical_crossentropy, optimizer=k.optimizers.SGD(RATE), metrics=["accuracy"]
        )

        def fit(tick: Callable[[], None], epochs: int) -> None:
            callback = ticking(k, tick)
            model.fit(x, y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=[callback])

        return Variant(name, fit, model)

    network = with_weights_of(k.Sequential(layers(k)), start)
    if name.endswith("strict imitation"):
        loss, y = strict.BCStrictImitationCrossEntropyLoss(old, network, LAMBDA_C), np.eye(10, dtype="float32")[y]
    else:
        loss = new_error.BCCrossEntropyLoss(old, network, LAMBDA_C)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).prefetch(1)

    def bc_fit(tick: Callable[[], None], epochs: int) -> None:
        class Ticking:
            def __iter__(self) -> Any:
                for batch in batches:
                    tick()
                    yield batch

        # Its losses are sums over the batch.
        optimizer = k.optimizers.SGD(RATE / BATCH)
        helpers.bc_fit(network, Ticking(), None, epochs, loss, optimizer)

    return Variant(name, bc_fit, network)


def trial(name: str, *data: Any) -> str:
    """Error of the original on one batch, if any: a variant that fails among the others would stop them all."""
    try:
        original(name, *data).fit(lambda: None, 1)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return ""


def by_fit(name: str, model: Any, network: Any, metrics: list[Any], x: Any, y: Any) -> Variant:
    """A model that is compiled and fitted; `network` is what it trains."""
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", metrics=metrics)

    def fit(tick: Callable[[], None], epochs: int) -> None:
        model.fit(x, y, BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=[ticking(keras, tick)])

    return Variant(name, fit, network)


def variants(x: Any, y: Any) -> tuple[list[Variant], dict[str, str], float, np.ndarray[Any, Any]]:
    """All variants, errors of those that do not run, h1's share of right answers, and the weights all start from."""
    h1, start = keras.Sequential(layers(keras)), keras.Sequential(layers(keras))
    h1.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    h1.fit(x, y, BATCH, epochs=4, verbose=0)
    answers = keras.Sequential(layers(keras))
    right = float((with_weights_of(answers, h1).predict(x, verbose=0).argmax(1) == y).mean())

    def old() -> Any:
        # One for each variant: on JAX a step consumes the buffers of all variables of its model.
        model = with_weights_of(keras.Sequential(layers(keras)), h1)
        model.trainable = False
        return model

    def new() -> Any:
        return with_weights_of(keras.Sequential(layers(keras)), start)

    def ours(name: str, reference: Any, dissonance: str, x: Any = x, y: Any = y) -> Variant:
        network = new()
        model = BCModel(network, h1=reference, lambda_c=LAMBDA_C, dissonance=dissonance)
        return by_fit(name, model, network, ["accuracy", BTC(), BEC()], x, y)

    plain, network = new(), new()
    with_h1 = WithH1Forward(network.inputs, network.outputs)
    with_h1.h1, with_h1.nothing = old(), with_h1.add_weight(shape=(), initializer="zeros", trainable=False)
    stored_h1 = old()
    stored = StoredOutputs.compute(stored_h1, x, y)
    contestants = [
        by_fit("plain", plain, plain, ["accuracy"], x, y),
        by_fit("plain + h1 forward", with_h1, network, ["accuracy"], x, y),
        ours("ours, new error", old(), "new_error"),
        ours("ours, strict imitation", old(), "strict_imitation"),
        ours("ours, stored h1", stored, "new_error", *stored.attach(x, y)),
    ]
    errors: dict[str, str] = {}
    if keras.backend.backend() == "tensorflow" and importlib.util.find_spec(ORIGINAL):
        for name in ORIGINALS:
            error = trial(name, h1, start, x[:BATCH], y[:BATCH])
            if error:
                errors[name] = error
            else:
                contestants.append(original(name, h1, start, x, y))
    return contestants, errors, right, flat(start)


def measure(contestants: list[Variant], epochs: int) -> dict[str, list[Step]]:
    """Seconds of every variant's steps after the warm-up, of the wall and of the processor, side by side."""

    def train(variant: Variant, tick: Callable[[], None]) -> None:
        if keras.backend.backend() == "torch":
            import torch

            # Threads of OpenMP are counted for each thread of Python apart.
            torch.set_num_threads(1)
        variant.fit(tick, epochs)

    fits = {variant.name: functools.partial(train, variant) for variant in contestants}
    return by_turns(fits, epochs * BATCHES, WARM_UP)


def check(contestants: list[Variant], start: np.ndarray[Any, Any]) -> dict[str, float]:
    """How far apart variants end that must end alike, and that must not, as shares of the way that they went."""
    ends = {variant.name: flat(variant.network) for variant in contestants}
    way = float(np.linalg.norm(ends["plain"] - start))

    def apart(one: str, other: str) -> float:
        return float(np.linalg.norm(ends[one] - ends[other])) / way

    found = {
        "plain and plain + h1 forward": apart("plain", "plain + h1 forward"),
        "ours with live and with stored h1": apart("ours, new error", "ours, stored h1"),
        "plain and ours, new error": apart("plain", "ours, new error"),
        "ours, new error and strict imitation": apart("ours, new error", "ours, strict imitation"),
    }
    alike, different = list(found.values())[:2], list(found.values())[2:]
    if max(alike) > 0.001 or min(different) < 0.01:
        raise RuntimeError(f"The variants do not train what they should. Received: {found}.")
    return found


def stripes() -> tuple[Any, Any]:
    """A bright stripe whose place is the class, under noise: h1 can learn it, and no download is needed."""
    y = np.arange(BATCH * BATCHES) % 10
    x = 0.5 * np.random.default_rng(0).standard_normal((len(y), 28, 28, 1), dtype="float32")
    x[np.arange(len(y)), 2 * y + 4] += 0.7
    return x, y


def keras_of_tensorflow() -> str:
    """The Keras that `tf.keras` is in this process, by what its layers are."""
    import tensorflow as tf

    package = tf.keras.layers.Dense.__module__.split(".")[0].replace("_", "-")
    return f"{package} {version(package)}"


def work(epochs: int) -> dict[str, Any]:
    """Measure this process's backend."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    x, y = stripes()
    contestants, errors, right, start = variants(x, y)
    steps = measure(contestants, epochs)
    originals = [variant for variant in contestants if variant.name in ORIGINALS]
    return {
        "backend": backend,
        "version": importlib.import_module(backend).__version__,
        "keras": keras.__version__,
        "size": int(start.size),
        "right": right,
        "steps": steps,
        "check": check(contestants, start),
        "original_on": keras_of_tensorflow() if backend == "tensorflow" and importlib.util.find_spec(ORIGINAL) else "",
        "errors": errors,
        "still": [v.name for v in originals if not np.any(v.network.layers[1].moving_mean)],
    }


RATIOS = (
    Target("ours, new error", "plain + h1 forward", 1.10),
    Target("ours, strict imitation", "plain + h1 forward", 1.10),
    Target("ours, stored h1", "plain", 1.10),
    Target("plain + h1 forward", "plain"),
    Target("original bc_fit, new error", "ours, new error"),
    Target("original bc_fit, strict imitation", "ours, strict imitation"),
    Target("original fit, new error", "ours, new error"),
)


def tables(found: dict[str, Any]) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of the times and of the ratios, headers first."""
    wall = {name: [step[0] for step in steps] for name, steps in found["steps"].items()}
    processor = {name: [step[1] for step in steps] for name, steps in found["steps"].items()}
    length = len(wall["plain"]) // PROCESSES
    times = [["variant", "median (ms)", "quartiles (ms)", "CPU time, median (ms)"]]
    for name, values in wall.items():
        low, middle, high = (f"{1e3 * value:.1f}" for value in quartiles(values))
        times.append([name, middle, f"{low} to {high}", f"{1e3 * statistics.median(processor[name]):.1f}"])
    ratios = [["ratio", "of medians", "by round", "quartiles", "by process", "of CPU time", "target", "met"]]
    parts = [slice(start, start + length) for start in range(0, PROCESSES * length, length)]
    for target in RATIOS:
        if target.above not in wall:
            continue
        ratio = ratio_of(wall, target)
        low, middle, high = (f"{value:.3f}" for value in by_round(wall, target))
        by_process = [ratio_of({name: values[part] for name, values in wall.items()}, target) for part in parts]
        ratios.append(
            [
                f"({target.above}) / ({target.below})",
                f"{ratio:.3f}",
                middle,
                f"{low} to {high}",
                f"{min(by_process):.3f} to {max(by_process):.3f}",
                f"{ratio_of(processor, target):.3f}",
                *target.told(ratio),
            ]
        )
    return times, ratios


def title(found: dict[str, Any]) -> str:
    names = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
    text = f"Keras {found['keras']} on {names[found['backend']]} {found['version']}"
    return text + (f", the original on {found['original_on']}" if found["original_on"] else "")


def remarks(found: dict[str, Any]) -> list[str]:
    """What the tables do not show."""
    lines = [
        f"{len(found['steps']['plain'])} steps of each, in turns, in {PROCESSES} processes. "
        f"h1 is right on {found['right']:.0%} of the images.",
        "Distance of the weights after training, as a share of the way from the start: "
        + "; ".join(f"{names} {value:.1g}" for names, value in found["check"].items())
        + ".",
    ]
    wall, processor = (statistics.median(step[part] for step in found["steps"]["plain"]) for part in (0, 1))
    if processor > 1.05 * wall:
        lines.append(
            f"Not all on one thread: a plain step takes {processor / wall:.2f} times its duration of CPU time."
        )
    lines += [f"Does not run: {name}. {error}" for name, error in found["errors"].items()]
    if any(name.startswith("original bc_fit") for name in found["steps"]):
        lines.append(
            "`bc_fit` of the original runs h2 twice, again on what h1 gets right: its cost grows with that share."
        )
    if found["still"]:
        lines.append(
            "The original runs h2 in inference mode while it trains, which is cheaper: its batch normalisation had the "
            f"means of the start afterwards ({'; '.join(found['still'])})."
        )
    return lines


def show(found: dict[str, Any]) -> None:
    screen = console(140)
    screen.print(f"\n[bold]{title(found)}")
    for rows in tables(found):
        screen.print(table(rows))
    for line in remarks(found):
        screen.print(line)


def markdown(results: list[dict[str, Any]]) -> str:
    lines = [
        "# Step time of Keras models",
        "",
        f"A convolutional net of {results[0]['size']:,} parameters on images of 28 x 28, batches of {BATCH}, SGD, "
        "`fit` as it is by default (TensorFlow: graph mode), on one CPU thread",
        f"({platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}). Made by "
        "`python benchmarks/keras_step_time.py`.",
        "",
        "*Plain + h1 forward* is the plain model with one forward pass of h1 per batch: what cannot be avoided while "
        "h1 is asked live.",
        'Plain models are compiled with `metrics=["accuracy"]`, ours with `["accuracy", BTC(), BEC()]`.',
        "A step is the time from the start of one batch to the start of the next; variants take turns step by step.",
        "*By round*: median and quartiles of the ratios of steps that were taken side by side. "
        "*By process*: least and largest of the ratios of medians in each process.",
    ]
    for found in results:
        lines += ["", f"## {title(found)}"]
        for rows in tables(found):
            rule = ["---" if header in {"variant", "ratio"} else "---:" for header in rows[0]]
            lines += ["", *(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))]
        for line in remarks(found):
            lines += ["", line]
    return "\n".join(lines) + "\n"


def run(backend: str, epochs: int, legacy: bool = False) -> dict[str, Any]:
    """Measure a backend in processes of their own; `legacy` puts the original library on Keras 2."""
    parts = [run_once(backend, epochs, legacy) for _ in range(PROCESSES)]
    steps = {name: [step for part in parts for step in part["steps"][name]] for name in parts[0]["steps"]}
    return {**parts[0], "steps": steps}


def run_once(backend: str, epochs: int, legacy: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        settings = {**ONE_THREAD, "KERAS_BACKEND": backend, "TF_USE_LEGACY_KERAS": str(int(legacy))}
        command = [sys.executable, __file__, "--epochs", str(epochs), "--worker", str(path)]
        # The original prints as it trains.
        subprocess.run(command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, check=True)
        found: dict[str, Any] = json.loads(path.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=180, help="timed steps of each variant, rounded up to epochs")
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"), help="this one only, and write no file")
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        options.worker.write_text(json.dumps(work(options.epochs)))
        return
    epochs = -(-(-(-options.steps // PROCESSES) + WARM_UP + 1) // BATCHES)
    runs = [(options.backend, False)] if options.backend else [("tensorflow", False), ("jax", False), ("torch", False)]
    if runs[0][0] == "tensorflow" and importlib.util.find_spec(ORIGINAL) and importlib.util.find_spec("tf_keras"):
        runs.insert(1, ("tensorflow", True))
    results = []
    for backend, legacy in runs:
        results.append(run(backend, epochs, legacy))
        show(results[-1])
    if not options.backend:
        RESULTS.write_text(markdown(results))
        print(f"Written: {RESULTS}")


if __name__ == "__main__":
    main()
