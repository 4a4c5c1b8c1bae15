"""The classes of wrapped models: in name, signature and files they are the user's."""

from __future__ import annotations

import functools
import inspect
from typing import Any, cast

import keras
from keras.src import api_export  # public nowhere: under which name a class is saved
from keras.src.saving import object_registration  # likewise

from bc_keras.training._state import compatibility_of
from bc_keras.training.compiled._compile_arguments import compile_without_ours
from bc_keras.training.files._whole_model import WholeModel


@functools.cache
def made_class(door: Any, user_class: Any) -> Any:
    """The class of a wrapped model: in name, signature and files it is the user's."""

    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        """Python calls it with what the door was given; the model was initialised long ago."""

    # Keras looks at it, to see how a model of this class is made.
    initialise.__signature__ = inspect.signature(user_class.__init__)  # type: ignore[attr-defined]
    own = {
        "__init__": initialise,
        # A clone, and what is loaded, is the user's model alone.
        "__new__": lambda cls, *args, **kwargs: user_class(*args, **kwargs),
        "from_config": classmethod(lambda cls, *args, **kwargs: user_class.from_config(*args, **kwargs)),
        "__module__": user_class.__module__,
        "__qualname__": user_class.__qualname__,
        "__doc__": user_class.__doc__,
        "_door": door,
        "__reduce__": _reduce,
    }
    made: Any = type(user_class.__name__, (door, user_class), own)
    for names in (api_export.REGISTERED_OBJS_TO_NAMES, object_registration.GLOBAL_CUSTOM_NAMES):
        if user_class in names:
            names[made] = names[user_class]
    return made


@functools.cache
def whole_class(door: Any, user_class: Any) -> Any:
    """The class of a wrapped model while it is saved or loaded with its h1: in files it is the door's."""
    made = made_class(door, user_class)
    whole = type(door.__name__, (WholeModel, made), {"__module__": door.__module__, "_made": made})
    object_registration.GLOBAL_CUSTOM_NAMES[whole] = keras.saving.get_registered_name(door)
    return whole


def _reduce(self: Any) -> Any:
    """Pickle and copy h2, whose class can be found by its name."""
    function, *rest = cast("tuple[Any, ...]", super(self._door, self).__reduce__())
    if getattr(function, "__self__", None) is type(self):
        function = getattr(self._compatibility.user_class, function.__name__)
    return (function, *rest)


def unwrap(model: keras.Model) -> Any:
    """Give back the user's own model: its class and no h1. What it has learned, and its compile, it keeps.

    Metrics of this package are taken out of its compile, as nobody would feed them.

    Args:
        model: what `BCModel` returned. Anything else is returned unchanged.

    Example:
        >>> import keras
        >>> from bc_keras import BCModel, unwrap
        >>> h1, h2 = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> type(unwrap(BCModel(h2, h1=h1))) is keras.Sequential
        True
    """
    state = compatibility_of(model)
    if state is None:
        return model
    object.__setattr__(model, "__class__", state.user_class)
    del model.__dict__["_compatibility"]
    forget_functions(model)
    if state.compiled.metrics:
        compile_without_ours(model)
    return model


def forget_functions(model: keras.Model) -> None:
    """Compiled steps are those of the class that the model had."""
    model.train_function = model.test_function = None
