"""`measure`: the invariance of every layer of a model, in one pass; `gather`: what several processes add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bc_core.invariance import InvarianceResult, Moments, TransformSet
from bc_core.invariance._layers import Layer, LayerChoice
from bc_core.invariance._measuring import check_firing, measured, passes
from bc_core.invariance._network import Measurement, measures_of, result_of
from bc_core.invariance._rows import Where, rows_of
from bc_keras._random_numbers import random_numbers_kept
from bc_keras.invariance._network import KerasNetwork
from bc_keras.invariance._rows import KerasRows


def measure(
    model: Any,
    data: Any,
    transforms: TransformSet,
    *,
    layers: LayerChoice | None = None,
    same_equivariance: bool = False,
    firing_rate: float | None = None,
    feature_axis: int | Mapping[str, int] | None = None,
    inputs: Where | None = None,
    transformed: str | int | None = None,
    data_format: str | None = None,
    batch_size: int = 256,
    max_memory: int | None = None,
    run_eagerly: bool | None = None,
) -> InvarianceResult:
    """Measure how much each layer's activations move when the inputs are transformed.

    Every sample is run under all transformations, in inference mode and without gradients, and the activations are
    summed up while the layers run: none is stored. Afterwards, also after an error, the model is as it was. Neither the
    order of the samples nor `batch_size` matters, but for the last digits.

    Args:
        model: a Keras model of any kind: sequential, functional, nested, subclassed; of a `BCModel` its h2. One that is
            not built yet is built by the first inputs.
        data: inputs (N, ...), ``(x, y)`` of arrays, a ``tf.data.Dataset``, a ``PyDataset`` or another iterable of
            batches ``x`` or ``(x, y, ...)``. Labels are passed over.
        transforms: the m >= 2 transformations. Those of images need inputs (N, H, W, C), or (N, C, H, W) if
            `data_format` says so.
        layers: names of layers (``"block/conv"``, within a model named ``"block"``) or of activations (``"relu:2"``,
            the second call of ``"relu"``; ``"lstm[0]"``, a part of an output), layers themselves, or a function of name
            and layer that says whether to measure it. Defaults to `None`: every layer, but for those that only hand on
            what another returned (models around others, dropout, flatten); `InvarianceResult.left_out` names them.
        same_equivariance: measure T_j^-1 f(t_j x) of feature maps, instead of f(t_j x). Layers without the input's axes
            are left out, and all transformations need an inverse.
        firing_rate: also gather what `Goodfellow` needs, with units firing for this share of the samples; takes another
            1 + 1 / m passes.
        feature_axis: axis of the features in a layer's activation for one input, for all layers or by name. Defaults to
            `None`: the last, or the first of images with `data_format` ``"channels_first"``.
        inputs: where the inputs are in a batch, or in data of arrays: a key, an index or a function. Defaults to
            `None`, as Keras reads it.
        transformed: which one of several inputs is transformed, its key or its number; the others come with every
            transformation as they are. Defaults to `None`: the only one with the axes of an image.
        data_format: ``"channels_last"`` or ``"channels_first"``. Defaults to `None`, what Keras is configured for.
        batch_size: inputs at a time, transformed ones counted; at least all m of one sample.
        max_memory: bytes that the sums may take, about 20 m for each unit; with more layers than fit, the data are gone
            through several times. Defaults to `None`, one pass. Beside it there are the model's own memory and 48 bytes
            for each unit of the result.
        run_eagerly: whether to run the model without compiling it. Defaults to `None`: what the model was compiled
            with.

    Returns:
        The measures of every layer.

    Raises:
        TypeError: The model is none, or the data or inputs are of an unknown kind.
        ValueError: There are fewer than two samples or transformations, an activation is NaN or infinite (the message
            names the layer), a layer does not exist, a transformation has no inverse where it needs one, or a layer
            alone exceeds `max_memory`.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet, measure
        >>> net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 1, activation="relu", name="conv"),
        ...                         keras.layers.GlobalMaxPooling2D(name="pool")])
        >>> result = measure(net, np.random.default_rng(0).normal(size=(20, 8, 8, 1)), TransformSet.d4())
        >>> result.layer_names
        ('conv', 'pool')
        >>> result["pool"].summary()  # the largest of 1 x 1 features does not change when pixels change places
        0.0
    """
    asked = Measurement(transforms, layers, feature_axis, same_equivariance, max_memory)
    network = KerasNetwork(model, "model", asked, transformed, data_format, run_eagerly)
    check_firing(firing_rate, transforms, same_equivariance)
    rows = KerasRows(data, rows_of(batch_size, len(transforms)), inputs)
    with random_numbers_kept():
        return measured(network, rows, firing_rate)


def gather(
    model: Any,
    data: Any,
    transforms: TransformSet,
    *,
    layers: LayerChoice | None = None,
    same_equivariance: bool = False,
    feature_axis: int | Mapping[str, int] | None = None,
    inputs: Where | None = None,
    transformed: str | int | None = None,
    data_format: str | None = None,
    batch_size: int = 256,
    max_memory: int | None = None,
    run_eagerly: bool | None = None,
) -> LayerMoments:
    """Gather a share of what `measure` needs, to be merged with that of other processes, files or days.

    Args:
        model: as for `measure`, and so are the others.
        data: this process's share of the samples.
        transforms: the transformations.
        layers: which layers.
        same_equivariance: whether feature maps are turned back.
        feature_axis: where features are.
        inputs: where the inputs are in a batch.
        transformed: which one of several inputs is transformed.
        data_format: where the channels are.
        batch_size: inputs at a time, transformed ones counted.
        max_memory: bytes that the sums may take.
        run_eagerly: whether to run the model without compiling it.

    Returns:
        Sums, plain numpy, that can be pickled and merged.

    Raises:
        TypeError: As `measure`.
        ValueError: As `measure`, but for what only the whole shows.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras.invariance import TransformSet, gather
        >>> net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, name="fc")])
        >>> x = np.random.default_rng(0).normal(size=(20, 4, 4, 1))
        >>> shards = [gather(net, x[part::2], TransformSet.flips()) for part in (0, 1)]
        >>> whole = gather(net, x, TransformSet.flips()).result()
        >>> abs(shards[0].merge(shards[1]).result()["fc"].summary() - whole["fc"].summary()) < 1e-5
        True
    """
    asked = Measurement(transforms, layers, feature_axis, same_equivariance, max_memory)
    network = KerasNetwork(model, "model", asked, transformed, data_format, run_eagerly)
    rows = KerasRows(data, rows_of(batch_size, len(transforms)), inputs)
    gathered: dict[str, Moments] = {}
    samples = 0
    for layer, seen, moments in passes(network, rows):
        samples = seen
        if moments is not None:
            gathered[layer.name] = moments
    return LayerMoments(samples, transforms, tuple(network.layers), gathered, network.left_out, same_equivariance)


@dataclass(frozen=True, eq=False)
class LayerMoments:
    """What is known of every layer after some samples; made by `gather`, whose example merges two.

    Attributes:
        samples: Number of samples n.
        transforms: The transformations.
        layers: What is measured, in the model's order.
        moments: Of each layer that was called.
        left_out: Layers that are not measured, and why.
        same_equivariance: Whether feature maps were turned back.
    """

    samples: int
    transforms: TransformSet
    layers: tuple[Layer, ...]
    moments: Mapping[str, Moments]
    left_out: Mapping[str, str]
    same_equivariance: bool

    def __getstate__(self) -> dict[str, Any]:
        """Without the functions of transformations of one's own, which may not be picklable."""
        return {**self.__dict__, "transforms": _Names(self.transforms.names, self.transforms.sizes)}

    def merge(self, other: LayerMoments) -> LayerMoments:
        """Of the samples of both; exact.

        Raises:
            ValueError: If the other is of another model or of other transformations.
        """
        same = self.layers == other.layers and self.transforms.names == other.transforms.names
        if not same or self.same_equivariance != other.same_equivariance:
            raise ValueError(
                "Only shares of the same model under the same transformations can be merged. Received: "
                f"{len(self.layers)} and {len(other.layers)} layers, {len(self.transforms.names)} and "
                f"{len(other.transforms.names)} transformations."
            )
        merged = dict(self.moments)
        for name, moments in other.moments.items():
            merged[name] = merged[name].merge(moments) if name in merged else moments
        return replace(self, samples=self.samples + other.samples, moments=merged)

    def result(self) -> InvarianceResult:
        """The measures.

        Raises:
            ValueError: If there are fewer than two samples, or activations were NaN or infinite.
        """
        left_out = dict(self.left_out)
        found = [
            measures
            for layer in self.layers
            for measures in measures_of(layer, self.moments.get(layer.name), self.samples, left_out)
        ]
        return result_of(found, self.transforms, left_out, self.same_equivariance)


@dataclass(frozen=True)
class _Names:
    """What is left of transformations in another process."""

    names: tuple[str, ...]
    sizes: tuple[float, ...]
