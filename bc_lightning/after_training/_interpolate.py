"""`interpolate`: weights between those of h1 and h2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from bc_core.after_training._interpolating import interpolate_by
from bc_core.after_training._results import Interpolation
from bc_core.after_training._walk import check_order
from bc_lightning.after_training._mixture import Mixture, copy_of


def interpolate(
    h1: Any,
    h2: nn.Module,
    data: Any,
    promise: str | Iterable[str],
    *,
    alphas: Iterable[float] | None = None,
    by_layer: bool = False,
    max_trials: int = 60,
    statistics: Any = None,
    confidence: float = 0.95,
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
    with a probability of at most ``1 - confidence``. h2 itself, alpha 0, is also taken where it keeps it by itself,
    which is wrong as seldom.

    Running statistics (BatchNorm's) are of neither network's activations: they are estimated anew for each alpha, from
    `statistics`, but for 0 and 1, which are h2 and h1 themselves, and where those of h1 and h2 are the same. Buffers of
    whole numbers and masks are h2's; a spectral norm is that of the mixed weight. The mean is taken in float32 at
    least, and given h2's types.

    Args:
        h1: The model in use, a module of h2's architecture; its own types and device.
        h2: Its update: a module, or what `BCLightningModule` returned.
        data: Validation data, as in `evaluate`, that took no part in the training. Read once for each mixture.
        promise: What is to be kept: ``"nfr <= 0.5%"``, ``"btc >= 98%, accuracy_h2 >= 92%"`` and the like.
        alphas: Shares of h1. Default: 0, 0.05, ..., 1.
        by_layer: Whether each layer may have a share of its own. From the best common one, layers are moved one by one
            by 0.5, then by 0.25, and a move stays where it keeps the promise and is better. Half of the
            chance of an error is then for the common ones, half is divided among the moves, so it takes more data.
        max_trials: How many of these moves are tried at most.
        statistics: Training data, with or without labels, from which running statistics are estimated.
        confidence: Of the bounds.
        reading: How data are read: `device`, `ids`, `inputs`, `target`, `threshold`, `from_logits`, `scores`,
            `h1_scores`, `class_axis`, `multilabel`, `ignore_index` and `batch_size` of `evaluate`.

    Returns:
        The network (`model`), its `alpha` (`layers` by layer), the `trials` with scores and bounds (`rows()`), and
        whether the `promise` is met, missed or cannot be told. Where no alpha keeps it, the nearest.

    Raises:
        TypeError: h1 or h2 has no weights, the data are missing or can be read only once.
        ValueError: The architectures differ (names the first layers and shapes), statistics are missing, whole numbers
            or masks differ, or a promise, alphas or confidence that can't be.

    Reference:
        Schumann et al., "Backward Compatibility During Data Updates by Weight Interpolation", EACL 2024.

    Example:
        >>> import copy, torch
        >>> from torch.utils.data import TensorDataset
        >>> from bc_lightning import interpolate
        >>> x = torch.eye(2).repeat(500, 1)
        >>> h1 = torch.nn.Linear(2, 2, bias=False)
        >>> h1.weight.data = torch.eye(2)  # always right
        >>> h2 = copy.deepcopy(h1)
        >>> h2.weight.data = torch.tensor([[1.0, 4.0], [0.0, 1.0]])  # wrong on every second
        >>> found = interpolate(h1, h2, TensorDataset(x, x.argmax(1)), "nfr <= 1%", alphas=[0, 0.5, 0.8, 1])
        >>> found.alpha, found.promise.verdict, found.model.weight.data[0].tolist()
        (1.0, 'met', [1.0, 0.0])
        >>> [(row["setting"], row["nfr"]) for row in found.rows()]
        [(1.0, 0.0), (0.8, 0.0), (0.5, 0.5), (0.0, 0.5)]
    """
    check_order(data)
    mixture = Mixture(h1, h2, copy_of(h2), data, statistics, reading)
    return interpolate_by(mixture, promise, alphas, by_layer, max_trials, confidence)
