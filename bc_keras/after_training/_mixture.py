"""Networks between h1 and h2: ``share * h1 + (1 - share) * h2``, weight by weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from bc_core import ErrorOverlap
from bc_core.after_training._interpolating import shares_of_layers
from bc_core.reference._class_map import check_same_classes
from bc_core.reference._weights import check_alike, renaming, shapes_of
from bc_keras._copies import cloned
from bc_keras.after_training._statistics import StatisticsData, check_is_taken, estimate
from bc_keras.batches._listed_batches import ListedBatches, is_list_of_batches
from bc_keras.batches._validation_data import ValidationData
from bc_keras.reference._reference import Reference
from bc_keras.training._state import compatibility_of
from bc_keras.training._warm_start import SEPARATOR, named_layers, named_weights, weights_behind
from bc_keras.training.data._compared_data import AskedData, ComparedData, HowToRead

_STATISTICS = ("moving_mean", "moving_variance")
# What a config holds that is of no matter to what a layer computes.
_BESIDE = ("name", "trainable", "dtype", "seed", "momentum", "shared_object_id", "build_config", "input_dtype", "rate")
_BESIDE_ENDS = ("_initializer", "_regularizer", "_constraint")


class Mixture:
    """h2 itself, whose weights are set between its own and h1's; see `bc_core`'s port of this name.

    Args:
        h1: the model in use.
        h2: its update; `kept` gives it its own weights back.
        data: validation data.
        statistics: training data, where the networks keep running statistics.
        batch_size: rows at a time, for arrays.
        reading: how outputs are read: `threshold`, `from_logits`, `h1_from_logits`, `multilabel`.

    Raises:
        TypeError: h1 or h2 is no Keras model, or the data can be read only once.
        ValueError: the architectures differ, or statistics are missing.
    """

    def __init__(
        self, h1: Any, h2: Any, data: Any, statistics: Any, batch_size: int | None, reading: Mapping[str, Any]
    ) -> None:
        check_classes(h1, h2, "the outputs of its last layer")
        old, new = weights_behind(h1, "h1"), weights_behind(h2, "h2")
        self._h2 = h2
        first, self._variables = named_weights(old), named_weights(new)
        to_h2 = renaming(shapes_of(first), shapes_of(self._variables), SEPARATOR)
        self._first = {to_h2(name): _numbers(each) for name, each in first.items()}
        check_alike(shapes_of(self._first), shapes_of(self._variables))
        kinds_1, kinds_2 = {to_h2(name): kind for name, kind in _kinds(old).items()}, _kinds(new)
        both = [name for name in kinds_1 if name in kinds_2]
        check_alike({name: kinds_1[name] for name in both}, {name: kinds_2[name] for name in both})
        self._second = {name: _numbers(each) for name, each in self._variables.items()}
        self._normalised = {
            path: layer
            for path, layer in named_layers(new)
            if isinstance(layer, keras.layers.BatchNormalization) and not self._has_same_statistics(path)
        }
        self._check_whole_numbers()
        self._statistics = None if statistics is None else StatisticsData(statistics, batch_size)
        self._check_given(self._normalised)
        self._asked = asked_about(h1, h2, data, batch_size, reading)
        trained = {id(variable) for variable in new.trainable_variables}
        self.layers: Sequence[str] = list(
            dict.fromkeys(_layer_of(name) for name, each in self._variables.items() if id(each) in trained)
        ) or list(dict.fromkeys(map(_layer_of, self._variables)))

    def mix(self, shares: float | Mapping[str, float]) -> None:
        """Set the weights; at a share of 0 or 1 everything is h2's or h1's own."""
        alone, share_of = shares_of_layers(shares)
        for name, variable in self._variables.items():
            variable.assign(_between(self._first[name], self._second[name], share_of(_layer_of(name))))
        if self._normalised and self._statistics is not None and alone not in (0, 1):
            estimate(self._h2, self._normalised.values(), self._statistics)

    def overlap(self) -> ErrorOverlap:
        """Counts of h1 and the network on the validation data."""
        return self._asked.compare().overlap

    def result(self) -> Any:
        """A copy of the network as it is, of the user's own class, compiled anew where h2 is."""
        return copied(self._h2, "h2")

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Give h2 its own weights back at the end, also after an error."""
        try:
            yield
        finally:
            for name, variable in self._variables.items():
                variable.assign(self._second[name])

    def _has_same_statistics(self, path: str) -> bool:
        """Whether the statistics were frozen in both models."""
        return all(
            np.array_equal(self._first[f"{path}{SEPARATOR}{of}"], self._second[f"{path}{SEPARATOR}{of}"])
            for of in _STATISTICS
            if f"{path}{SEPARATOR}{of}" in self._second
        )

    def check_statistics(self) -> None:
        """Refuse missing statistics, or such as h2 cannot take, also where training will move what is the same yet."""
        kind = keras.layers.BatchNormalization
        moving = {path: each for path, each in named_layers(self._h2) if isinstance(each, kind) and each.trainable}
        self._check_given(moving)
        if (moving or self._normalised) and self._statistics is not None:
            check_is_taken(self._h2, self._statistics)

    def _check_given(self, layers: Mapping[str, Any]) -> None:
        if layers and self._statistics is None:
            name, layer = next(iter(layers.items()))
            raise ValueError(
                f"{name!r} ({type(layer).__name__}) keeps running statistics, and those of h1 or h2 are not of the "
                "activations between them: give training data, statistics=(x, y); a few thousand instances will do. "
                "Received: statistics=None."
            )

    def _check_whole_numbers(self) -> None:
        """Refuse weights of whole numbers that differ: nothing lies between them."""
        for name, value in self._second.items():
            if value.dtype.kind in "iub" and not np.array_equal(self._first[name], value):
                raise ValueError(
                    f"h1 and h2 differ in {name!r}, whole numbers of {value.dtype}, between which nothing lies: give "
                    "both the same, or mix what the models say, blend(h1, h2, data, promise=...)."
                )


def copied(model: Any, called: str) -> Any:
    """A copy of a model, of the user's own class, compiled anew where it is.

    Raises:
        ValueError: its config does not make one.
    """
    try:
        return cloned(model)
    except Exception as error:
        raise ValueError(
            f"{called} cannot be copied by its config and weights: let its class have a get_config of all that it is "
            f"made of. Received: {type(error).__name__}: {error}"
        ) from error


def check_classes(h1: Any, h2: Any, what: str) -> None:
    """Refuse an h1 whose classes are not h2's, as a class map says, be it h1's own or the one h2 was trained with."""
    state = compatibility_of(h2)
    told = h1.class_map if isinstance(h1, Reference) else None if state is None else state.reference.class_map
    check_same_classes(told, what)


def asked_about(h1: Any, h2: Any, data: Any, batch_size: int | None, reading: Mapping[str, Any]) -> AskedData:
    """h1 and h2 over validation data, to be asked as often as wanted.

    Raises:
        TypeError: the data are missing, or can be read only once.
    """
    if data is None:
        raise TypeError(
            "data is missing: pass validation data that took no part in the training, (x, y). Received: data=None."
        )
    if hasattr(data, "__next__"):
        raise TypeError(
            "data is read once for each mixture, and an iterator can be read only once: pass list(data), or arrays. "
            f"Received: {type(data).__name__}."
        )
    given = ListedBatches(data) if is_list_of_batches(data) else data
    return AskedData(ComparedData(ValidationData(given, batch_size), h1, HowToRead(**reading)), h2)


def _layer_of(name: str) -> str:
    return name.rpartition(SEPARATOR)[0]


def _numbers(variable: Any) -> np.ndarray[Any, Any]:
    """The value, in a type that numpy computes in, and no view of memory that changes."""
    value = np.array(ops.convert_to_numpy(variable.value))
    return value.astype("float32") if value.dtype.kind not in "iubfc" or value.dtype.itemsize < 4 else value


def _between(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any], share: float) -> np.ndarray[Any, Any]:
    if share in (0, 1) or second.dtype.kind in "iub":
        return first if share == 1 else second
    return (share * first + (1 - share) * second).astype(second.dtype)


def _kinds(model: keras.Model) -> dict[str, str]:
    """What each layer is, without what matters in training alone."""
    found = {}
    for path, layer in named_layers(model):
        if not path or isinstance(layer, keras.Model | keras.layers.Dropout):
            continue
        try:
            config = layer.get_config()
        except Exception:
            config = {}  # a layer of the user's own without one
        told = _what_matters(config)
        found[path] = f"{type(layer).__name__}({', '.join(f'{name}={value!r}' for name, value in told.items())})"
    return found


def _what_matters(config: Any) -> Any:
    """A config, and those within it of the layers that a layer wraps, without what is beside the matter."""
    if isinstance(config, Mapping):
        return {
            name: _what_matters(value)
            for name, value in config.items()
            if name not in _BESIDE and not str(name).endswith(_BESIDE_ENDS)
        }
    return [_what_matters(each) for each in config] if isinstance(config, list | tuple) else config
