"""What a training step costs with each dissonance, beside a plain one that asks h1 too, on one CPU thread.

    python benchmarks/dissonance_step_time.py [--rounds 120] [--keras]

The nets, data and trainings of `step_time.py`, or with --keras of `keras_step_time.py` on the backend of
KERAS_BACKEND, whose metrics are left out here; variants take turns step by step, so that a busy machine slows all of
them alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from interleaved import Target, by_round, console, quartiles, ratio_of, table

from bc_core.losses._dissonances import DISSONANCES

# Options that cost more than the defaults.
DEAR = {"logit_difference_inhibition": {"top_k": 5, "power": 1.5}}
PLAIN, ASKED = "plain", "plain + h1 forward"
# Both networks run once more, on as many mixtures.
MIXED = "recommended, mixed inputs"


def _options(name: str) -> dict[str, Any]:
    """Arguments of a wrapper."""
    loss, mixes, _ = name.partition(",")
    return {"loss": loss, "loss_options": DEAR.get(loss), "unlabelled": "mixed" if mixes else None}


def in_lightning(rounds: int) -> Mapping[str, Sequence[float]]:
    """Seconds of each variant's steps, through a Trainer."""
    from step_time import Classifier, Variant, begin, measure, trained_h1, with_forward_of

    from bc_lightning import BCLightningModule

    data = begin()
    h1 = trained_h1(data)
    contestants = [Variant(PLAIN, Classifier(), data), Variant(ASKED, Classifier(with_forward_of(h1)), data)]
    for name in (*DISSONANCES, MIXED):
        module = BCLightningModule(Classifier(), h1=h1, lambda_c=1.0, **_options(name))
        contestants.append(Variant(name, module, data))
    return measure(contestants, rounds)


def in_keras(rounds: int) -> Mapping[str, Sequence[float]]:
    """The same through `fit`."""
    import keras
    from keras_step_time import BATCHES, RATE, Variant, WithH1Forward, by_fit, layers, measure, stripes, with_weights_of

    from bc_keras import BCModel

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    x, y = stripes()
    h1, start = keras.Sequential(layers(keras)), keras.Sequential(layers(keras))
    h1.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    h1.fit(x, y, epochs=4, verbose=0)

    def like(model: keras.Model, trainable: bool = True) -> keras.Model:
        # One for each variant: on JAX a step consumes the buffers of all variables of its model.
        copied = with_weights_of(keras.Sequential(layers(keras)), model)
        copied.trainable = trainable
        return copied

    plain, network = like(start), like(start)
    asked = WithH1Forward(network.inputs, network.outputs)
    asked.h1, asked.nothing = like(h1, False), asked.add_weight(shape=(), initializer="zeros", trainable=False)
    contestants: list[Variant] = [by_fit(PLAIN, plain, plain, [], x, y), by_fit(ASKED, asked, network, [], x, y)]
    for name in (*DISSONANCES, MIXED):
        network = like(start)
        model = BCModel(network, h1=like(h1, False), lambda_c=1.0, **_options(name))
        contestants.append(by_fit(name, model, network, [], x, y))
    steps = measure(contestants, max(1, rounds // BATCHES))
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, learning rate {RATE}")
    return {name: [step.wall for step in taken] for name, taken in steps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--keras", action="store_true")
    options = parser.parse_args()
    times = (in_keras if options.keras else in_lightning)(options.rounds)
    rows = [["variant", "median (ms)", "quartiles (ms)", f"/ {ASKED}", "by round", "quartiles"]]
    for name, values in times.items():
        low, middle, high = (f"{1e3 * value:.1f}" for value in quartiles(values))
        target = Target(name, ASKED)
        least, median, most = (f"{value:.3f}" for value in by_round(times, target))
        rows.append([name, middle, f"{low} to {high}", f"{ratio_of(times, target):.3f}", median, f"{least} to {most}"])
    told = f"{len(times[PLAIN])} steps of each, in turns; batches of 64, one thread. {DEAR}"
    console().print(table(rows, "A step with each dissonance", told))


if __name__ == "__main__":
    main()
