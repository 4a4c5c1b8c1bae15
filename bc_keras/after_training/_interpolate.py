"""`interpolate`: weights between those of h1 and h2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from bc_core.after_training._interpolating import interpolate_by
from bc_core.after_training._results import Interpolation
from bc_core.after_training._walk import check_order
from bc_keras.after_training._mixture import Mixture, copied


def interpolate(
    h1: Any,
    h2: keras.Model,
    data: Any,
    promise: str | Iterable[str],
    *,
    alphas: Iterable[float] | None = None,
    by_layer: bool = False,
    max_trials: int = 60,
    statistics: Any = None,
    confidence: float = 0.95,
    batch_size: int | None = None,
    **reading: Any,
) -> Interpolation:
    r"""Mix the weights of two networks of one architecture, as far towards h1 as a promise asks.

    .. math::
        w(\alpha) = \alpha w_1 + (1 - \alpha) w_2

    for a grid of alphas, of which the one is taken that keeps the promise and is the most accurate on validation data.
    One network is served, of h2's size. It works where h2 was started from h1 (`warm_start`, fine-tuning); between two
    networks that were trained from different random weights most mixtures know nothing, which the table shows.

    So that the best of many trials is not one that was lucky, they are one sequence from h1's side: behind the first
    alpha that does not keep the promise by its bound no other is taken, so what is chosen is wrong about its promise
    with a probability of at most ``1 - confidence``. h2 itself, alpha 0, is also taken where it keeps it by itself.

    Running statistics (BatchNormalization's) are of neither network's activations: they are estimated anew for each
    alpha, from `statistics`, but for 0 and 1, which are h2 and h1 themselves, and where those of h1 and h2 are the
    same. The mean is taken in float32 at least, and given h2's types. While it is at work h2 holds the mixture that is
    tried; at the end, also after an error, it is as it was.

    Args:
        h1: the model in use, of h2's architecture.
        h2: its update, a built Keras model or a `BCModel`.
        data: validation data, as in `evaluate`, that took no part in the training. Read once for each mixture.
        promise: what is to be kept: ``"nfr <= 0.5%"``, ``"btc >= 98%, accuracy_h2 >= 92%"`` and the like.
        alphas: shares of h1. Defaults to `None`: 0, 0.05, ..., 1.
        by_layer: whether each layer may have a share of its own. From the best common one, layers are moved one by one
            by 0.5, then by 0.25, and a move stays where it keeps the promise and is better. Half of the
            chance of an error is then for the common ones, half is divided among the moves, so it takes more data.
        max_trials: how many of these moves are tried at most.
        statistics: training data, ``(x, y)``, x alone or batches, from which running statistics are estimated.
        confidence: of the bounds.
        batch_size: rows at a time, for arrays.
        reading: how outputs are read: `threshold`, `from_logits`, `h1_from_logits` and `multilabel` of `evaluate`.

    Returns:
        The network (`model`, compiled anew as h2 is), its `alpha` (`layers` by layer), the `trials` with scores and
        bounds (`rows()`), and whether the `promise` is met, missed or cannot be told. Where no alpha keeps it, the
        nearest.

    Raises:
        TypeError: h1 or h2 has no weights, the data are missing or can be read only once.
        ValueError: the architectures differ (names the first layers and shapes), statistics are missing, whole numbers
            differ, or a promise, alphas or confidence that can't be.

    Reference:
        Schumann et al., "Backward Compatibility During Data Updates by Weight Interpolation", EACL 2024.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import interpolate
        >>> def net(weights):
        ...     made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
        ...     made.set_weights([np.array(weights, "float32")])
        ...     return made
        >>> h1, h2 = net([[1, 0], [0, 1]]), net([[1, 0], [4, 1]])  # right, and wrong on every second
        >>> x = np.tile(np.eye(2, dtype="float32"), (500, 1))
        >>> found = interpolate(h1, h2, (x, x.argmax(1)), "nfr <= 1%", alphas=[0, 0.5, 0.8, 1])
        >>> found.alpha, found.promise.verdict, found.model.get_weights()[0][1].tolist()
        (1.0, 'met', [0.0, 1.0])
        >>> [(row["setting"], row["nfr"]) for row in found.rows()]
        [(1.0, 0.0), (0.8, 0.0), (0.5, 0.5), (0.0, 0.5)]
    """
    check_order(data)
    mixture = Mixture(h1, h2, data, statistics, batch_size, reading)
    copied(h2, "h2")  # before the work is done
    with mixture.kept():
        return interpolate_by(mixture, promise, alphas, by_layer, max_trials, confidence)
