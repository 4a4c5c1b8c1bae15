"""One Keras model, and how its passes go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core.invariance import NumpySpatial, StreamingMoments, apply_transform, make_tile
from bc_core.invariance._layers import Finder, Layer
from bc_core.invariance._network import Measurement, Network
from bc_core.invariance._rows import Piece
from bc_keras.invariance._activations import FirstLook, Seen, Watch, layers_of
from bc_keras.invariance._compiled import CompiledRun, PerLayer, run_once, traced_labels
from bc_keras.invariance._keras_arrays import (
    SHIFT_ROWS,
    KerasBackend,
    KerasSpatial,
    SummedTile,
    SummedTiles,
    has_accelerator,
    on_host,
    unpacked,
)
from bc_keras.invariance._naming import names_beside
from bc_keras.reference._reference import only_tensor, without_gradients
from bc_keras.training._model import BCModel


class KerasNetwork(Network):
    """One model whose layers are measured.

    Args:
        model: The model.
        called: What the caller calls it, for errors.
        asked: What of it is to be measured.
        transformed: Which of several inputs is transformed.
        data_format: Where the channels of images are.
        run_eagerly: Whether the model is run without compiling; None for what it says itself.
    """

    def __init__(
        self,
        model: Any,
        called: str,
        asked: Measurement,
        transformed: str | int | None = None,
        data_format: Any = None,
        run_eagerly: bool | None = None,
    ) -> None:
        if not isinstance(model, keras.Layer):
            raise TypeError(f"{called} must be a Keras model, whose layers are watched. Received: {called}={model!r}.")
        super().__init__(called, asked, KerasSpatial())
        if data_format not in (None, "channels_first", "channels_last"):
            raise ValueError(
                f"data_format must be 'channels_first' or 'channels_last'. Received: data_format={data_format!r}."
            )
        self.model, self._transformed = plain(model), transformed
        self._data_format = data_format or keras.config.image_data_format()
        self._run_eagerly = bool(getattr(model, "run_eagerly", False)) if run_eagerly is None else run_eagerly
        self._backend, self._host_spatial = KerasBackend(), NumpySpatial()
        self._functions: dict[Any, CompiledRun] = {}

    def rename(self, names: Mapping[str, str]) -> None:
        """Show layers under other names."""
        super().rename(names)
        self._functions.clear()

    # Inputs.

    def tile(self, piece: Piece) -> Any:
        """All transformations of some samples, sample by sample."""
        return self._each_input(piece, lambda x, options: make_tile(self.transforms, x, **options))

    def column(self, piece: Piece, number: int) -> Any:
        """One transformation of some samples."""
        one = self.transforms[number]
        return self._each_input(piece, lambda x, options: apply_transform(one, x, **options), repeats=1)

    def _each_input(
        self, piece: Piece, transform: Callable[[Any, dict[str, Any]], Any], repeats: int | None = None
    ) -> Any:
        repeats = len(self.transforms) if repeats is None else repeats
        # Gathering pixels takes TensorFlow 30 times as long as numpy; on an accelerator it takes no time at all.
        on_host = self.transforms.is_affine and not has_accelerator()
        options = {"data_format": self._data_format, "ops": self._host_spatial if on_host else self._spatial}
        leaves = keras.tree.flatten(piece.x)
        which = self._which(piece.x, leaves)
        given = []
        for number, leaf in enumerate(leaves):
            if number != which:
                given.append(ops.convert_to_tensor(np.repeat(leaf, repeats, axis=0)))
            elif on_host:
                given.append(ops.convert_to_tensor(transform(leaf, options)))
            else:
                given.append(transform(ops.convert_to_tensor(leaf), options))
        return keras.tree.pack_sequence_as(piece.x, given)

    def _which(self, x: Any, leaves: Sequence[Any]) -> int:
        """Which of the inputs is transformed."""
        if self._transformed is not None:
            try:
                chosen = x[self._transformed]
            except (KeyError, IndexError, TypeError):
                chosen = None
            for number, leaf in enumerate(leaves):
                if leaf is chosen and len(leaves) > 1:
                    return number
            raise ValueError(
                "transformed must name one of several inputs. Received: "
                f"transformed={self._transformed!r}, inputs {keras.tree.map_structure(lambda leaf: leaf.shape, x)}."
            )
        if len(leaves) == 1:
            return 0
        images = [number for number, leaf in enumerate(leaves) if len(leaf.shape) == 4]
        if len(images) != 1:
            raise ValueError(
                "The model takes several inputs: say which one is transformed (transformed=its key or its number). "
                f"Received: inputs {keras.tree.map_structure(lambda leaf: leaf.shape, x)}."
            )
        return images[0]

    # Layers.

    def _found(self, piece: Piece) -> Finder:
        self._check_structure(piece.x)
        tile = self.tile(Piece(keras.tree.map_structure(lambda leaf: leaf[:1], piece.x), 1))
        leaves = keras.tree.flatten(tile)
        shape = tuple(leaves[self._which(tile, leaves)].shape)
        self._note_input(shape, self._data_format)
        if not all(layer.built for layer in self.model._flatten_layers()):
            # Weights come into being outside of whatever is compiled.
            with without_gradients():
                self.model(tile, training=False)
        finder = self._finder_after(tile, shape)
        calls_again = any(":" in label for label in finder.layers)
        if calls_again and keras.backend.backend() == "tensorflow" and not self._run_eagerly:
            # Each round of a loop is a call when it is run, and none can be looked into when it is compiled.
            finder = self._finder_after(tile, shape, traced_labels(Watch(self.model), tile))
        more = keras.tree.map_structure(lambda leaf: ops.concatenate([leaf, leaf[:1]], axis=0), tile)

        def look(seen: Seen) -> None:
            if seen.is_here:
                finder.look_again(seen.label, tuple(seen.tensor.shape))

        run_once(self.model, Watch(self.model), look, more)
        return finder

    def _finder_after(self, tile: Any, shape: tuple[int, ...], within_reach: set[str] | None = None) -> Finder:
        """What was found of the model while it ran once."""
        finder = self._finder(shape[0], len(shape), dict(layers_of(self.model)), keras.Layer)
        run_once(self.model, Watch(self.model), FirstLook(finder, self._data_format, within_reach), tile)
        return finder

    def _maps(self, layer: Layer) -> Any:
        return ops.zeros((len(self.transforms), *layer.shape))

    def _check_structure(self, x: Any) -> None:
        """Batches often hold labels and names too, of which a model with one input can only complain."""
        if isinstance(self.model, keras.Sequential):
            takes_one = len(getattr(self.model, "inputs", ())) == 1  # not known of one that is not built
        else:
            # Known of models made of layers' outputs, which may have been given one input as a dictionary.
            takes_one = isinstance(getattr(self.model, "input", None), keras.KerasTensor)
        if takes_one and isinstance(x, Mapping) and len(x) > 1:
            raise ValueError(
                "The model takes one input, and a batch is a dictionary of several arrays: say which of them it is, "
                f"as in inputs={next(iter(x))!r}. Received: {keras.tree.map_structure(lambda leaf: leaf.shape, x)}."
            )

    # Runs.

    def function(
        self, kind: str, names: Sequence[str], columns: int, per_layer: PerLayer, output: bool = False
    ) -> CompiledRun:
        """What runs the model and computes of some layers; kept, so that it is compiled once.

        Args:
            kind: What is computed; with the names it says which function this is.
            names: The activations.
            columns: Number of inputs of each sample: m, or 1.
            per_layer: What is computed of a layer.
            output: Whether the model's output is wanted too; else what comes behind the last layer is left out.
        """
        key = (kind, tuple(names), columns, output)
        if key not in self._functions:
            known = {layer.name: layer for layer in self.layers}

            def of_activation(name: str, tensor: Any, rows: int, state: Sequence[Any]) -> Sequence[Any]:
                layer = known[name]
                self._check_rows(name, tensor.shape, rows * columns)
                tensor = ops.reshape(tensor, (rows * columns, *layer.shape))
                if self._asked.same_equivariance and columns > 1:
                    tensor = self._turned(layer, tensor)
                return per_layer(name, self._backend.tile(tensor, rows, columns), state)

            shown = {label: name for label, name in self._shown.items() if name in names}
            watched = {self._watched[name] for name in names}
            self._functions[key] = CompiledRun(self.model, shown, watched, of_activation, output, self._run_eagerly)
        return self._functions[key]

    @contextmanager
    def passing(self, group: Sequence[Layer], output: bool = False) -> Iterator[Callable[..., Any]]:
        """One pass; yields a function of some samples, and of their tile where it is known.

        Args:
            group: The layers to measure.
            output: Whether the function returns the model's output.
        """
        columns = len(self.transforms)
        names = [layer.name for layer in group]
        probed = {layer.name: self.probes.choose(layer.name, layer.units) for layer in group if self.probes is not None}

        def per_layer(name: str, tile: Any, state: Sequence[Any]) -> Sequence[Any]:
            first, shift, chosen = state
            if shift is None:
                return [self._backend.shift(tile)]
            kept = [] if chosen is None else [ops.take(tile, chosen, axis=2)]
            if first is False:
                return [self._backend.packed(tile, shift, self.expected), None, *kept]
            own = self._backend.shift(tile)
            shift = own if first is True else ops.where(first, own, shift)
            return [self._backend.packed(tile, shift), shift, *kept]

        function = self.function("sums" if self.probes is None else "probes", names, columns, per_layer, output)
        shifts = {layer.name: np.zeros((columns, layer.units), _float_of(layer)) for layer in group}
        backend = SummedTiles()
        with function.watching():

            def run(piece: Piece, tile: Any = None) -> Any:
                tile = self.tile(piece) if tile is None else tile
                new = {name for name in names if name not in self._moments}
                if new and function.has_compiled(piece.rows):
                    # What is compiled takes shifts as they are: these come from some samples alone.
                    few = min(piece.rows, SHIFT_ROWS)
                    head = keras.tree.map_structure(lambda leaf: leaf[: few * columns], tile)
                    unknown = dict.fromkeys(names, (True, None, None))
                    for name, (shift,) in function.uncompiled(head, few, unknown)[0].items():
                        if name in new:
                            shifts[name] = shift
                            new.remove(name)
                state = {name: (name in new, shifts[name], probed.get(name)) for name in names}
                found, outputs = function(tile, piece.rows, state)
                for name, (packed, shift, *kept) in found.items():
                    if name in new:
                        shifts[name] = shift
                    if name not in self._moments:
                        self._moments[name] = StreamingMoments(columns, backend)
                    sums = unpacked(on_host(packed))
                    self._moments[name].update(SummedTile(shifts[name], sums), piece.rows)
                    if self.probes is not None:
                        chosen = self.probes.choose(name, packed.shape[1])
                        self.probes.add(name, ops.convert_to_numpy(kept[0])[:, :, : len(chosen)])
                return outputs

            yield run

    # Firing rates: first the largest activations of the samples as they are, then counts.

    def largest(
        self, group: Sequence[Layer], pieces: Iterable[Piece], count: int, identity: int
    ) -> dict[str, NDArray[Any]]:
        """The largest activations of the layers of a group, each (count, K), for untransformed samples."""

        def per_layer(name: str, tile: Any, state: Sequence[Any]) -> Sequence[Any]:
            return [self._backend.largest(ops.cast(state[0], tile.dtype), tile[:, 0], count)]

        function = self.function(f"largest {count}", [layer.name for layer in group], 1, per_layer)
        kept: dict[str, Any] = {
            layer.name: (np.full((count, layer.units), -np.inf, _float_of(layer)),) for layer in group
        }
        with function.watching():
            for piece in pieces:
                kept |= function(self.column(piece, identity), piece.rows, kept)[0]
        return {name: ops.convert_to_numpy(values) for name, (values,) in kept.items()}

    def firing(
        self, group: Sequence[Layer], pieces: Iterable[Piece], thresholds: Mapping[str, NDArray[Any]], identity: int
    ) -> dict[str, list[NDArray[np.float64]]]:
        """Counts of firing of the layers of a group, as (local, own)."""

        def per_layer(name: str, tile: Any, state: Sequence[Any]) -> Sequence[Any]:
            return self._backend.firing(tile, ops.cast(state[0], tile.dtype), identity)

        function = self.function("firing", [layer.name for layer in group], len(self.transforms), per_layer)
        state = {name: (ops.convert_to_tensor(values),) for name, values in thresholds.items()}
        counts: dict[str, list[NDArray[np.float64]]] = {}
        with function.watching():
            for piece in pieces:
                for name, sums in function(self.tile(piece), piece.rows, state)[0].items():
                    found = [self._backend.host(part) for part in sums]
                    before = counts.get(name)
                    counts[name] = found if before is None else [a + b for a, b in zip(before, found, strict=True)]
        return counts

    # Beside another one.

    def scores(self, output: Any) -> NDArray[Any]:
        """What the model's output says of each input, (N,) or (N, C)."""
        scores: NDArray[Any] = ops.convert_to_numpy(only_tensor(output, self.called))
        return scores.astype(np.float32) if scores.dtype.kind == "V" else scores  # bfloat16

    def names_beside(self, other: Network) -> dict[str, str]:
        """What layers are called beside those of another model."""
        assert isinstance(other, KerasNetwork)
        labels = [layer.name for layer in self.layers], [layer.name for layer in other.layers]
        return names_beside(self.model, other.model, *labels)


def plain(model: Any) -> Any:
    """What of a model is measured: of a `BCModel` its h2."""
    return model.h2 if isinstance(model, BCModel) else model


def _float_of(layer: Layer) -> str:
    return "float64" if layer.itemsize == 8 else "float32"
