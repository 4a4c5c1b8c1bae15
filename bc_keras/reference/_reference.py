"""The frozen h1: what did the old model say about this batch?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from bc_core.losses._blends import SPACES, Space, check_share, members_and_weights
from bc_core.losses._options import known
from bc_core.reference._class_map import ClassMap
from bc_core.reference._stored_outputs import StoredRows
from bc_keras.reference._blend import Blend
from bc_keras.reference._fingerprint import fingerprint
from bc_keras.reference._mapped_classes import in_classes_of_h2, in_shares_of_h2, said_as_wholes


class Reference:
    """h1 as a reference: run in inference mode, without gradients, in classes of h2.

    Args:
        h1: a Keras model; any callable of the inputs that returns scores, or predicted labels as integers; or a
            `StoredOutputs`, whose rows come with the labels instead of from a call. Several of these, as a list of
            pairs ``(model, weight)`` whose weights sum to 1, or of models that count alike, are asked as one, in
            logits: a blend. A member of other classes is a `Reference` with a class map of its own. Members are all
            stored outputs, of one data set, or none is.
        class_map: where h2 has other classes than h1: ``class_map[i]`` is h2's index of h1's class i, or -1 where h2
            has it no more. Where classes are new, merged or split, a `bc_core.ClassMap` says so.
        blend: of several models: ``"probability"``, the default, for the weighted mean of their probabilities;
            ``"logit"`` for that of their logits.
        from_logits: whether a teacher, or a member of a blend, gives logits. Defaults to `None`: as its last layer or
            its stored rows tell.
        multilabel: of several models: whether each column of scores is a label of its own.

    Raises:
        TypeError: h1 is a class, or nothing that can be called.
        ValueError: h1 is a model without weights yet, or the class map names no class. Weights of a blend that are
            negative or do not sum to 1, members that give labels or of whose scores nothing tells what they are.

    Example:
        >>> import keras, numpy as np
        >>> from bc_core import ClassMap
        >>> from bc_keras import Reference
        >>> h1 = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, activation="softmax")])
        >>> reference = Reference(h1, class_map=ClassMap([0, 2], new=[1]))
        >>> reference(np.zeros((5, 4)), num_classes=3).shape[-1]
        3
        >>> new = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
        >>> teacher = Reference([(new, 0.25), (h1, 0.75)])
        >>> tuple(teacher(np.zeros((5, 4))).shape)
        (5, 2)
    """

    def __init__(
        self,
        h1: keras.Model | Callable[..., Any] | StoredRows[Any] | Sequence[Any],
        class_map: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        blend: Space | None = None,
        from_logits: bool | None = None,
        multilabel: bool = False,
    ) -> None:
        self.mixed: Blend | None = None
        if isinstance(h1, list | tuple):
            if from_logits is not None:
                raise TypeError(
                    "A blend gives logits whatever its models do: say what these give, Reference(model, "
                    f"from_logits=...). Received: from_logits={from_logits!r}."
                )
            self.mixed = self._blend_of(h1, blend or "probability", multilabel)
            h1 = self._asked_of(self.mixed)
        elif blend is not None or multilabel:
            raise TypeError("blend and multilabel are for several models, [(model, weight), ...]. Received: one model.")
        if isinstance(h1, Reference):
            raise TypeError("h1 is a Reference already. Pass what it was made of. Received: h1=Reference(...).")
        if isinstance(h1, type) or not (callable(h1) or isinstance(h1, StoredRows)):
            raise TypeError(
                "h1 must be a Keras model, a callable or stored outputs; load a file with keras.models.load_model. "
                f"Received: h1={h1!r}."
            )
        if isinstance(h1, keras.Layer) and not h1.built:
            raise ValueError(
                "h1 has no weights yet, so it cannot be the model in use: load it with keras.models.load_model, or "
                f"call it once on a batch and load its weights. Received: the unbuilt h1={h1.name!r}."
            )
        owner = getattr(h1, "__self__", None)
        if isinstance(owner, keras.Model) and getattr(h1, "__name__", "") in ("predict", "predict_on_batch"):
            raise TypeError(
                "h1 must be the model itself, which is called inside the compiled step: pass h1=model. "
                f"Received: its method {h1.__name__}."  # type: ignore[union-attr]
            )
        self.h1: Any = h1
        self.from_logits = from_logits
        # What was found out of its scores where they are read; kept as long as h1 is.
        self.says: Any = None
        self.class_map = None if class_map is None else ClassMap.of(class_map)

    @classmethod
    def of(cls, h1: Any, class_map: Sequence[Any] | Mapping[str, Any] | None = None) -> Reference:
        """Make a reference of an h1, or return the one that was given.

        Args:
            h1: what the constructor takes, or a reference.
            class_map: as in the constructor; not together with a reference, which has its own.

        Raises:
            ValueError: a reference was given, and a class map with it.

        Example:
            >>> from bc_keras import Reference
            >>> reference = Reference(lambda x: x)
            >>> Reference.of(reference) is reference
            True
        """
        if not isinstance(h1, Reference):
            return cls(h1, class_map)
        if class_map is not None:
            raise ValueError(
                "h1 is a Reference already: give the class_map to its constructor, not here. Received: "
                f"class_map={list(class_map)!r}."
            )
        return h1

    @classmethod
    def blend(cls, new: Any, old: Any, a: float, space: Space = "probability", multilabel: bool = False) -> Reference:
        """The blend ``a * new + (1 - a) * old``, such as that of a plain new model and h1: a teacher.

        Args:
            new: a model trained without h1, or what else the constructor takes.
            old: h1.
            a: the new model's share, 0 to 1.
            space: what the mean is taken of, ``"probability"`` or ``"logit"``.
            multilabel: whether each column of scores is a label of its own.

        Example:
            >>> import numpy as np
            >>> from bc_keras import Reference
            >>> old, new = (Reference(lambda x, p=p: x * p, from_logits=False) for p in (0.25, 0.75))
            >>> logit = Reference.blend(new, old, 0.5)(np.ones((1, 1), "float32"))
            >>> abs(float(logit[0, 0])) < 1e-6
            True
        """
        check_share(a)
        return cls([(new, a), (old, 1 - a)], blend=space, multilabel=multilabel)

    @staticmethod
    def _blend_of(given: Sequence[Any], space: Space, multilabel: bool) -> Blend:
        known(space, SPACES, "blend")
        models, weights = members_and_weights(given)
        members = [Reference.of(model) for model in models]
        if len({member.stored is None for member in members}) > 1:
            raise TypeError(
                "Of a blend either all models are stored outputs or none is: store the outputs of the others too, "
                "store_outputs(model, x, folder), or give the models themselves."
            )
        return Blend(members, weights, space, multilabel)

    @staticmethod
    def _asked_of(mixed: Blend) -> Any:
        stored = [member.stored for member in mixed.members if member.stored is not None]
        return type(stored[0]).combined(stored, mixed.of_rows, mixed.fingerprint) if stored else mixed

    @property
    def fingerprint(self) -> str:
        """The name of h1's content."""
        return fingerprint(self.h1)

    @property
    def blend_name(self) -> str:
        """What a blend's fingerprint begins with, asked or stored: its space and kind; weights are not looked at."""
        if self.mixed is not None:
            return f"blend:{self.mixed.space}:{self.mixed.kind}:"
        return "" if self.stored is None else self.stored.fingerprint

    @property
    def variables(self) -> list[Any]:
        """The variables that an answer is computed from, as far as models hold them."""
        if self.mixed is not None:
            return self.mixed.variables
        return list(self.model.variables) if self.model is not None else []

    @property
    def model(self) -> Any:
        """The Keras model or layer that answers, if h1 is one."""
        return self.h1 if isinstance(self.h1, keras.Layer) else None

    @property
    def stored(self) -> StoredRows[Any] | None:
        """The stored outputs, if h1 is that."""
        return self.h1 if isinstance(self.h1, StoredRows) else None

    def __call__(
        self, x: Any, num_classes: int | None = None, from_logits: bool = False, multilabel: bool = False
    ) -> Any:
        """Ask h1 about a batch.

        Args:
            x: the inputs that h2 got.
            num_classes: columns of h2's output, for the class map.
            from_logits: whether h1 gives logits, for the class map.
            multilabel: whether each of h1's columns is a label of its own, for the class map.

        Returns:
            h1's scores (N, C) or labels (N,), without gradients.

        Raises:
            ValueError: h1 is stored outputs, or returns several tensors.
        """
        if isinstance(self.h1, StoredRows):
            raise ValueError(
                "h1 is stored outputs, which come with the label: train on `h1.attach(x, y)` or `h1.attach(dataset)`. "
                "Received: a batch without them."
            )
        output = self.asked(x)
        return ops.stop_gradient(self.in_classes_of_h2(output, num_classes, from_logits, multilabel))

    def asked(self, x: Any) -> Any:
        """h1's own scores or labels for a batch, before the class map."""
        with without_gradients():
            output = self._ask(x) if self.model is not None else self._call(x)
        return ops.convert_to_tensor(only_tensor(output, "h1"))  # a callable may answer in numpy

    def _ask(self, x: Any) -> Any:
        try:
            return self.model(x, training=False)
        except (TypeError, ValueError) as error:
            raise says_cannot_take(self.model, x, error) from error

    def _call(self, x: Any) -> Any:
        try:
            return self.h1(x)
        except Exception as error:
            if str(getattr(self.h1, "__module__", "")).startswith("bc_keras."):
                raise  # it says itself what is wrong
            raise TypeError(
                "h1 must be made of operations of Keras or of its backend, as it runs inside the compiled step. For "
                "one of scikit-learn, numpy or another framework compute its outputs once: `stored = store_outputs(h1, "
                "x, folder, y=y)`, BCModel(h2, h1=stored), `fit(*stored.attach(x, y))`. Received: h1 raised "
                f"{type(error).__name__}: {error}"
            ) from error

    def in_classes_of_h2(
        self, output: Any, num_classes: int | None, from_logits: bool, multilabel: bool = False
    ) -> Any:
        """h1's scores or labels by h2's class indices; unchanged without a class map.

        Where a class of h1 was dropped, the scores are what h1 says when it has to choose among those that are left.
        """
        if self.class_map is None:
            return output
        return in_classes_of_h2(self.class_map, output, num_classes, from_logits, multilabel)

    def to_imitate(self, mapped: Any, h2_output: Any, from_logits: bool, h2_from_logits: bool) -> Any:
        """Scores by h2's class indices, with a class that was split divided as the class map says.

        Args:
            mapped: what `in_classes_of_h2` gave.
            h2_output: h2's scores.
            from_logits: whether `mapped` is logits.
            h2_from_logits: whether h2's are.
        """
        if self.class_map is None or self.class_map.is_equal:
            return mapped
        return in_shares_of_h2(self.class_map.parts, mapped, h2_output, from_logits, h2_from_logits)

    def for_support(self, mapped: Any, labels: Any, from_logits: bool) -> Any:
        """Scores or labels by h2's class indices, as whether h1 is right is told.

        A class that was split is said by any of its parts: the target's, wherever it is one of them.

        Args:
            mapped: what `in_classes_of_h2` gave.
            labels: class indices of the target, (N, ...).
            from_logits: whether scores are logits.
        """
        parts = [] if self.class_map is None else self.class_map.parts
        return said_as_wholes(parts, mapped, labels, from_logits) if parts else mapped


def says_cannot_take(h1: Any, x: Any, error: Exception) -> ValueError:
    """An error that names h1 where it is h1 that cannot take the inputs; Keras names a layer in it."""
    shapes = keras.tree.map_structure(lambda leaf: tuple(getattr(leaf, "shape", ())), x)
    return ValueError(
        "h1 cannot take the inputs of h2. Where it was trained on others, such as other columns or sizes, give a "
        "function that makes its inputs of these: h1=lambda x: old_model(x[:, :10], training=False). "
        f"Received: h1={h1.name!r}, inputs of shape {shapes}; it raised {type(error).__name__}: {error}"
    )


def only_tensor(output: Any, model: str) -> Any:
    """The one tensor of class scores that a model returns."""
    tensors = keras.tree.flatten(output)
    if len(tensors) == 1:
        return tensors[0]
    keys = list(output) if isinstance(output, dict) else f"{len(tensors)} tensors"
    raise ValueError(
        f"{model} must return one tensor, the class scores; pick it with a model of its own, such as "
        f"keras.Model({model}.inputs, {model}.outputs[0]). Received: {keys}."
    )


def without_gradients() -> contextlib.AbstractContextManager[Any]:
    """Spare torch the graph behind h1; in the other backends `stop_gradient` does, when the step is compiled."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
