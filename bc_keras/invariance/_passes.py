"""The passes of one model over tiles of data, layers split so that what is gathered fits into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core.invariance import (
    Moments,
    NumpySpatial,
    Probes,
    StreamingMoments,
    TransformSet,
    accumulator_bytes,
    apply_transform,
    invert_tile,
    make_tile,
)
from bc_core.invariance._accumulator import in_groups
from bc_keras.invariance._activations import Choice, Finder, Layer, LayerChoice, Seen, Watch
from bc_keras.invariance._data import Piece
from bc_keras.invariance._jax_programs import Program
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
from bc_keras.reference._reference import without_gradients
from bc_keras.training._model import BCModel

# What is computed of one layer: from its name, its tile (r, m, K) and arrays given for it, to tensors.
PerLayer = Callable[[str, Any, Sequence[Any]], Sequence[Any]]
State = Mapping[str, Sequence[Any]]


class Network:
    """One model whose layers are measured.

    Args:
        model: The model.
        transforms: The m transformations.
        layers: Which layers.
        feature_axis: Where features are.
        same_equivariance: Whether feature maps are turned back before they are compared.
        max_memory: Bytes of accumulators at a time; None for all layers in one pass.
        transformed: Which of several inputs is transformed.
        data_format: Where the channels of images are.
        run_eagerly: Whether the model is run without compiling; None for what it says itself.
        called: What the caller calls it, for errors.
    """

    def __init__(
        self,
        model: Any,
        transforms: TransformSet,
        layers: LayerChoice | None,
        feature_axis: int | Mapping[str, int] | None,
        same_equivariance: bool,
        max_memory: int | None,
        transformed: str | int | None,
        data_format: str | None,
        run_eagerly: bool | None,
        called: str,
    ) -> None:
        if not isinstance(model, keras.Layer):
            raise TypeError(f"{called} must be a Keras model, whose layers are watched. Received: {called}={model!r}.")
        if not isinstance(transforms, TransformSet):
            raise TypeError(
                "transforms must be a TransformSet, such as TransformSet.rotations([0, 30, 60]). Received: "
                f"{type(transforms).__name__}."
            )
        if same_equivariance:
            for transform in transforms:
                _ = transform.inverse  # says which one has none
        if max_memory is not None and max_memory < 1:
            raise ValueError(f"max_memory must be a number of bytes above 0. Received: max_memory={max_memory!r}.")
        if data_format not in (None, "channels_first", "channels_last"):
            raise ValueError(
                f"data_format must be 'channels_first' or 'channels_last'. Received: data_format={data_format!r}."
            )
        StreamingMoments(len(transforms))  # refuses fewer than two
        self.model, self.transforms = plain(model), transforms
        self.turned_back = same_equivariance
        self._chosen, self._feature_axis, self._max_memory = layers, feature_axis, max_memory
        self._transformed, self._called = transformed, called
        self._data_format = data_format or keras.config.image_data_format()
        if run_eagerly is None:
            run_eagerly = bool(getattr(model, "run_eagerly", False))
        self._run_eagerly = run_eagerly
        self._backend, self._spatial, self._host_spatial = KerasBackend(), KerasSpatial(), NumpySpatial()
        self._input_size: tuple[int, int] | None = None
        self._watched: dict[str, str] = {}
        self._shown: dict[str, str] = {}
        self._moments: dict[str, StreamingMoments] = {}
        self._functions: dict[Any, _Function] = {}
        self.layers: list[Layer] = []
        self.groups: list[list[Layer]] = []
        self.left_out: dict[str, str] = {}
        self.probes: Probes | None = None
        self.expected: int | None = None
        """Number of samples of a pass, where it is known before."""

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

    def prepare(self, piece: Piece) -> None:
        """Find the layers, with one sample, and split them into passes."""
        if self.layers:
            return
        self._check_structure(piece.x)
        tile = self.tile(Piece(keras.tree.map_structure(lambda leaf: leaf[:1], piece.x), None))
        leaves = keras.tree.flatten(tile)
        image = leaves[self._which(tile, leaves)]
        shape = tuple(image.shape)
        if len(shape) == 4:
            self._input_size = shape[1:3] if self._data_format == "channels_last" else shape[2:4]
        if self.turned_back and len(shape) < 3:
            raise ValueError(
                "Same-equivariance needs inputs with spatial axes: measure invariance. Received: inputs of shape "
                f"{shape[1:]}."
            )
        if not all(layer.built for layer in self.model._flatten_layers()):
            # Weights come into being outside of whatever is compiled.
            with without_gradients():
                self.model(tile, training=False)
        choice = Choice(self.model, self._chosen)
        found = (choice, shape[0], len(shape) if self.turned_back else None, self._feature_axis, self._data_format)
        finder = Finder(*found)
        _run_once(self.model, Watch(self.model), finder.look, tile)
        calls_again = any(":" in label for label in finder.layers)
        if calls_again and keras.backend.backend() == "tensorflow" and not self._run_eagerly:
            # Each round of a loop is a call when it is run, and none can be looked into when it is compiled.
            finder = Finder(*found, within_reach=_traced_labels(Watch(self.model), tile))
            _run_once(self.model, Watch(self.model), finder.look, tile)
        self._leave_out_other_axes(finder, tile, shape[0])
        if self.turned_back:
            for name, layer in list(finder.layers.items()):
                if (why := self._why_not_turned(layer)) is not None:
                    finder.left_out[name] = why
                    del finder.layers[name]
        finder.finish()
        self.layers, self._watched = list(finder.layers.values()), finder.watched
        self.left_out = finder.left_out
        self._shown = {name: name for name in finder.layers}
        self._group()

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

    def _leave_out_other_axes(self, finder: Finder, tile: Any, inputs: int) -> None:
        """An axis may be as long as there are inputs, and not be theirs: with one more input it stays so long."""
        more = keras.tree.map_structure(lambda leaf: ops.concatenate([leaf, leaf[:1]], axis=0), tile)

        def look(seen: Seen) -> None:
            shape = tuple(seen.tensor.shape)
            if seen.label in finder.layers and seen.is_here and shape[:1] != (inputs + 1,):
                finder.left_out[seen.label] = (
                    f"its output of shape {shape} for {inputs + 1} inputs has no axis of theirs in front"
                )
                del finder.layers[seen.label]

        _run_once(self.model, Watch(self.model), look, more)

    def rename(self, names: Mapping[str, str]) -> None:
        """Show layers under other names."""
        self._shown = {label: names.get(shown, shown) for label, shown in self._shown.items()}
        self._watched = {names.get(name, name): layer for name, layer in self._watched.items()}
        self.layers = [replace(layer, name=names.get(layer.name, layer.name)) for layer in self.layers]
        self.left_out = {names.get(name, name): why for name, why in self.left_out.items()}
        self._functions.clear()
        self._group()

    def _group(self) -> None:
        columns = len(self.transforms)
        need = {layer.name: accumulator_bytes(layer.units, columns, layer.itemsize) for layer in self.layers}
        self.groups = self._split(self.layers, need, f"{columns} transformations")

    def firing_groups(self, names: set[str], count: int) -> list[list[Layer]]:
        """The named layers in groups for which `count` largest activations of each unit fit into memory."""
        layers = [layer for layer in self.layers if layer.name in names]
        # What is kept, and what it is merged with.
        need = {layer.name: layer.units * (2 * count * layer.itemsize + 16) for layer in layers}
        return self._split(layers, need, f"a threshold from {count} activations")

    def _split(self, layers: Sequence[Layer], need: Mapping[str, int], what: str) -> list[list[Layer]]:
        """Layers in order, in groups of which what is gathered fits into memory."""
        for layer in layers:
            if self._max_memory is not None and need[layer.name] > self._max_memory:
                raise ValueError(
                    f"max_memory: layer {layer.name!r} with {layer.units} units and {what} alone needs "
                    f"{need[layer.name]:,} bytes; raise max_memory, leave the layer out (layers=...), or ask for less. "
                    f"Received: max_memory={self._max_memory:,}."
                )
        return in_groups(layers, [need[layer.name] for layer in layers], self._max_memory)

    def _why_not_turned(self, layer: Layer) -> str | None:
        try:
            self._turn(layer, ops.zeros((len(self.transforms), *layer.shape)))
        except ValueError as error:
            return str(error)
        return None

    def _turn(self, layer: Layer, activation: Any) -> Any:
        return invert_tile(
            self.transforms,
            activation,
            data_format=layer.data_format,  # type: ignore[arg-type]  # one of the two
            input_size=self._input_size,
            ops=self._spatial,
        )

    # Runs.

    def function(
        self, kind: str, names: Sequence[str], columns: int, per_layer: PerLayer, output: bool = False
    ) -> _Function:
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
                if tensor.shape[0] not in (None, rows * columns):
                    raise ValueError(
                        f"layer {name!r}: its output of shape {tuple(tensor.shape)} has no axis of the "
                        f"{rows * columns} inputs in front; leave it out (layers=...)."
                    )
                tensor = ops.reshape(tensor, (rows * columns, *layer.shape))
                if self.turned_back and columns > 1:
                    tensor = self._turn(layer, tensor)
                return per_layer(name, self._backend.tile(tensor, rows, columns), state)

            shown = {label: name for label, name in self._shown.items() if name in names}
            watched = {self._watched[name] for name in names}
            self._functions[key] = _Function(self.model, shown, watched, of_activation, output, self._run_eagerly)
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

    def moments(self, name: str) -> Moments | None:
        """What was gathered of a layer; None if there was no sample. Only once: the memory is given back."""
        found = self._moments.pop(name, None)
        return None if found is None else found.moments()

    def forget(self) -> None:
        """Drop what an interrupted pass has gathered."""
        self._moments.clear()

    # Firing rates: first the largest activations of the samples as they are, then counts.

    def largest(self, group: Sequence[Layer], pieces: Any, count: int, identity: int) -> dict[str, NDArray[Any]]:
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
        self, group: Sequence[Layer], pieces: Any, thresholds: Mapping[str, NDArray[Any]], identity: int
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


def plain(model: Any) -> Any:
    """What of a model is measured: of a `BCModel` its h2."""
    return model.h2 if isinstance(model, BCModel) else model


class _Function:
    """A model's run that returns what was computed of its layers, compiled where the backend compiles.

    Layers are met while the function is traced; the compiled function then holds what is computed of them, and gives
    back nothing but that and the model's output. Activations live as long as in any run of the model.
    """

    def __init__(
        self,
        model: Any,
        shown: Mapping[str, str],
        watched: set[str],
        of_activation: Callable[[str, Any, int, Sequence[Any]], Sequence[Any]],
        output: bool,
        run_eagerly: bool,
    ) -> None:
        self._model, self._shown, self._watched = model, shown, watched
        self._of_activation, self._output = of_activation, output
        self._watch = Watch(model)
        self._run: Any = None
        self._look: Callable[[Seen], None] | None = None
        self._is_compiled = not run_eagerly and keras.backend.backend() != "torch"
        self._compiled: dict[Any, tuple[Any, Sequence[str], list[Any]]] = {}
        self._sizes: set[int] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """For the time of a pass."""

        def look(seen: Seen) -> None:
            if self._look is not None:
                self._look(seen)

        with self._watch.on(look, self._watched) as run:
            self._run = run
            try:
                yield
            finally:
                self._run = None

    def __call__(self, x: Any, rows: int, state: State) -> tuple[dict[str, Sequence[Any]], Any]:
        """Run the model.

        Args:
            x: Its inputs.
            rows: Number of samples among them.
            state: Arrays for each layer.

        Returns:
            What was computed of each layer that was called, and the model's output.
        """
        is_jax = keras.backend.backend() == "jax"
        # A size that comes once, such as that of the rest at the end, is not worth compiling for; but JAX would compile
        # every operation alone.
        is_first = any(part is True for parts in state.values() for part in parts)
        if not self._compiles() or (not is_jax and (is_first or rows not in self._sizes)):
            self._sizes.add(rows)
            return self.uncompiled(x, rows, state)
        kinds = [(tuple(leaf.shape), str(leaf.dtype)) for leaf in keras.tree.flatten(x)]
        key = (rows, *kinds)
        if key not in self._compiled:
            self._compiled[key] = self._compile(x, rows, state)
        run, names, structure = self._compiled[key]
        # By number, as layers' names differ between models that JAX need compile only once.
        arrays = [_arrays(state[name]) for name in names]
        if is_jax:
            values = [variable.value for variable in self._model.variables]
            flat, output = run(values, x, arrays, True)
        else:
            flat, output = run(*_tensors_of(x, arrays))
        return {name: [flat[index] for index in places] for name, places in structure}, output

    def has_compiled(self, rows: int) -> bool:
        """Whether so many samples go through a function of TensorFlow, if no layer is met for the first time."""
        return keras.backend.backend() == "tensorflow" and self._compiles() and rows in self._sizes

    def _compiles(self) -> bool:
        if not self._is_compiled or keras.backend.backend() != "tensorflow":
            return self._is_compiled
        import tensorflow as tf

        # A switch for debugging, which only functions that are not yet traced look at.
        return not tf.config.functions_run_eagerly()

    def uncompiled(self, x: Any, rows: int, state: State) -> tuple[dict[str, Sequence[Any]], Any]:
        """Run the model operation by operation."""
        with without_gradients():
            return self._trace(x, rows, state)

    def _trace(
        self, x: Any, rows: int, state: State, apart: Callable[..., Sequence[Any]] | None = None
    ) -> tuple[dict[str, Sequence[Any]], Any]:
        found: dict[str, Sequence[Any]] = {}

        def look(seen: Seen) -> None:
            name = self._shown.get(seen.label)
            if name is not None and seen.is_here:
                arguments = (name, seen.tensor, rows, state.get(name, ()))
                found[name] = self._of_activation(*arguments) if apart is None else apart(*arguments)

        self._look = look
        try:
            output = self._run(x)
        finally:
            self._look = None
        return found, output if self._output else None

    def _compile(self, x: Any, rows: int, state: State) -> tuple[Any, Sequence[str], list[Any]]:
        names, structure = tuple(state), list[Any]()

        def traced(x: Any, arrays: Any, apart: Any = None) -> tuple[list[Any], Any]:
            found, output = self._trace(x, rows, dict(zip(names, arrays, strict=True)), apart)
            flat: list[Any] = []
            structure.clear()
            for name, tensors in found.items():
                structure.append((name, range(len(flat), len(flat) + len(tensors))))
                flat.extend(tensors)
            return flat, output

        if keras.backend.backend() == "jax":
            import jax

            def stateless(values: list[Any], x: Any, arrays: Any, always: Any) -> tuple[list[Any], Any]:
                def apart(name: str, tensor: Any, rows: int, state: Sequence[Any]) -> Sequence[Any]:
                    # Behind a condition, which XLA cannot know is always met. Otherwise it takes apart what makes the
                    # activation to fuse it with the sums, and a convolution with its bias and activation function
                    # then takes up to twice as long.
                    def compute(tensor: Any, state: Sequence[Any]) -> list[Any]:
                        return list(self._of_activation(name, tensor, rows, state))

                    def spare(tensor: Any, state: Sequence[Any]) -> list[Any]:
                        shapes = jax.eval_shape(compute, tensor, state)
                        return [jax.numpy.zeros(shape.shape, shape.dtype) for shape in shapes]

                    found: Sequence[Any] = jax.lax.cond(always, compute, spare, tensor, state)
                    return found

                with keras.StatelessScope(state_mapping=zip(self._model.variables, values, strict=True)):
                    return traced(x, arrays, apart)

            return Program(stateless), names, structure
        import tensorflow as tf

        arrays = [_arrays(state[name]) for name in names]
        # Without the tensors, which would live on in the function.
        structure_given = keras.tree.map_structure(
            lambda part: _TENSOR if isinstance(part, tf.Tensor) else part, (x, arrays)
        )

        def of_tensors(*tensors: Any) -> tuple[list[Any], Any]:
            left = iter(tensors)
            return traced(
                *keras.tree.map_structure(lambda part: next(left) if part is _TENSOR else part, structure_given)
            )

        # Of tensors alone, which TensorFlow need not look through for what they are at each call.
        run = tf.function(of_tensors, autograph=False).get_concrete_function(*_tensors_of(x, arrays))
        return run, names, structure


_TENSOR = object()


def _tensors_of(x: Any, arrays: Any) -> list[Any]:
    import tensorflow as tf

    return [part for part in keras.tree.flatten((x, arrays)) if isinstance(part, tf.Tensor)]


def _arrays(parts: Sequence[Any]) -> list[Any]:
    # What is true or false is a constant to TensorFlow, and a number to JAX, which need not compile twice.
    return [ops.convert_to_tensor(part) if isinstance(part, np.ndarray) else part for part in parts]


def _run_once(model: Any, watch: Watch, look: Callable[[Seen], None], x: Any) -> None:
    """Run a model to see its layers, on JAX without computing anything."""
    with watch.on(look) as run:
        if keras.backend.backend() != "jax":
            with without_gradients():
                run(x)
            return
        import jax

        def stateless(values: list[Any], inputs: Any) -> Any:
            with keras.StatelessScope(state_mapping=zip(model.variables, values, strict=True)):
                run(inputs)
            return ()

        jax.eval_shape(stateless, [variable.value for variable in model.variables], x)


def _traced_labels(watch: Watch, x: Any) -> set[str]:
    """Activations that TensorFlow gives out of a compiled run."""
    import tensorflow as tf

    labels: set[str] = set()

    def look(seen: Seen) -> None:
        if seen.is_here:
            labels.add(seen.label)

    with watch.on(look) as run:
        tf.function(run, autograph=False).get_concrete_function(x)
    return labels


def _float_of(layer: Layer) -> str:
    return "float64" if layer.itemsize == 8 else "float32"
