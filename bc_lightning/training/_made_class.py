"""The classes of wrapped modules: in name they are the user's."""

from __future__ import annotations

from typing import Any, cast

from bc_lightning._user_module import lightning_module_class
from bc_lightning.training._plain_classifier import ClassifierSteps
from bc_lightning.training._state import Stage
from bc_lightning.training._wrapped import CompatibleStep, made_step

# One class for each, so that two wrapped instances of one class have one class too.
_MADE: dict[type[Any], type[Any]] = {}
_PLAIN: dict[type[Any], type[Any]] = {}


def made_class(user_class: type[Any]) -> type[Any]:
    """(ours, the user's) as one class."""
    if user_class in _MADE:
        return _MADE[user_class]
    base = lightning_module_class(user_class)
    plain = issubclass(user_class, ClassifierSteps)
    namespace: dict[str, Any] = {
        "_user_class": user_class,
        "_rebuild_from": (base if plain else user_class, plain),
        "__doc__": user_class.__doc__,
        "__module__": user_class.__module__,
        "__qualname__": user_class.__qualname__,
        "__reduce_ex__": _reduce,
    }
    for stage, name in (("train", "training_step"), ("val", "validation_step"), ("test", "test_step")):
        user_step = getattr(user_class, name)
        # Where the user has no step there is none to make: Lightning runs a stage if its step is overridden.
        if user_step is not getattr(base, name):
            namespace[name] = made_step(cast("Stage", stage), name, user_step)
    _MADE[user_class] = type(user_class.__name__, (CompatibleStep, user_class), namespace)
    return _MADE[user_class]


def plain_classifier_class(base: type[Any]) -> type[Any]:
    """The class of a plain module's steps on this LightningModule, of whichever Lightning package."""
    if base not in _PLAIN:
        _PLAIN[base] = type("PlainClassifier", (ClassifierSteps, base), {"__module__": __name__})
    return _PLAIN[base]


def _reduce(self: Any, protocol: Any) -> Any:
    # The made class has no name that could be imported; it is made again from the user's.
    get_state = getattr(self, "__getstate__", None)
    state = get_state() if get_state is not None else self.__dict__
    return rebuild, self._rebuild_from, state


def rebuild(user_class: type[Any], plain: bool) -> Any:
    """An empty instance of the class made from `user_class`; what pickle and copy call."""
    return object.__new__(made_class(plain_classifier_class(user_class) if plain else user_class))
