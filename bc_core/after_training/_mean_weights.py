"""Which epochs' weights go into the mean that a training ends with, and what is said of it."""

from __future__ import annotations


def first_of(first_epoch: int | None, epochs: int | None) -> int:
    """The first epoch whose weights count, of a training of so many.

    Raises:
        ValueError: There is no half, as nobody said how many epochs there will be, or the training ends before.
    """
    if epochs is None or epochs < 1:
        if first_epoch is None:
            raise ValueError(
                "MeanWeights averages over the later half of the epochs, and this training has no number of epochs: "
                "say from which epoch on, MeanWeights(first_epoch=...)."
            )
        return first_epoch
    first = epochs // 2 if first_epoch is None else first_epoch
    if first >= epochs:
        raise ValueError(
            f"MeanWeights(first_epoch={first}) would average nothing: the training has {epochs} epochs, from 0 on."
        )
    return first


def says_no_statistics(layer: str, kind: str) -> str:
    """What is missing where a network keeps running statistics."""
    return (
        f"{layer!r} ({kind}) keeps running statistics, and those of the trained networks are not of the activations of "
        "their mean: give training data, MeanWeights(statistics=train_data); a few thousand instances will do. "
        "Received: statistics=None."
    )


def says_not_averaged(counted: int, first: int) -> str | None:
    """What is to be said when the training ends, if it is not as was asked for."""
    if counted:
        return None
    return (
        f"The training has ended before epoch {first}, from which on weights are averaged: h2 keeps its last weights."
    )


def says_begun_late(first: int, begun_at: int | None, counted: int) -> str | None:
    """What is to be said when the training ends, if weights that should have counted were not seen.

    Args:
        first: the epoch from which on weights count.
        begun_at: that from which on they were seen.
        counted: how many epochs are in the mean.
    """
    if begun_at is None or begun_at <= first:
        return None
    return (
        f"Weights were to be averaged from epoch {first} on, and were seen from epoch {begun_at} on, as the training "
        f"was taken up there: h2 has the mean of {counted} epochs."
    )


def says_not_estimated(error: Exception) -> str:
    """What is to be said when the training ends, if running statistics could not be estimated from `statistics`."""
    return (
        "The mean of the weights was not taken, as its running statistics could not be estimated from statistics: h2 "
        f"keeps its last weights. What was in the way: {error}"
    )
