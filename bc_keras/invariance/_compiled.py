"""A model's run that returns what was computed of its layers, compiled where the backend compiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from bc_keras.invariance._activations import Seen, Watch
from bc_keras.invariance._jax_programs import Program
from bc_keras.reference._reference import without_gradients

# What is computed of one layer: from its name, its tile (r, m, K) and arrays given for it, to tensors.
PerLayer = Callable[[str, Any, Sequence[Any]], Sequence[Any]]
State = Mapping[str, Sequence[Any]]


class CompiledRun:
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


def run_once(model: Any, watch: Watch, look: Callable[[Seen], None], x: Any) -> None:
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


def traced_labels(watch: Watch, x: Any) -> set[str]:
    """Activations that TensorFlow gives out of a compiled run."""
    import tensorflow as tf

    labels: set[str] = set()

    def look(seen: Seen) -> None:
        if seen.is_here:
            labels.add(seen.label)

    with watch.on(look) as run:
        tf.function(run, autograph=False).get_concrete_function(x)
    return labels
