"""A wrapped model in a file together with its h1, so that loading gives a `BCModel` again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras.src.backend.common import global_state  # public nowhere: which custom objects are in scope
from keras.src.saving import serialization_lib

from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._losses import ModelLoss
from bc_keras.reference._reference import Reference
from bc_keras.training._state import Compatibility
from bc_keras.training.beside._unlabelled import Mixtures, Unlabelled
from bc_keras.training.files._saved_imitated import load_imitated, save_imitated

_H1 = "h1.keras"


class WholeModel:
    """What a wrapped model is while it is saved or loaded with its h1, which is a file of its own within the file."""

    _compatibility: Compatibility
    _made: type

    def get_config(self) -> dict[str, Any]:
        """Both models and the other arguments.

        Of stored outputs the folder is named, and opened again. Any other h1 that is no Keras model is left out: the
        loaded model predicts, and is trained again after wrapping it anew.
        """
        serialize, state = keras.saving.serialize_keras_object, self._compatibility
        loss: Any = state.options.loss
        if isinstance(loss, type):
            loss = loss.__name__
        elif isinstance(loss, ModelLoss):
            loss = loss.criterion
        whole = type(self)
        object.__setattr__(self, "__class__", whole._made)
        try:
            h2 = serialize(self)
        finally:
            object.__setattr__(self, "__class__", whole)
        h2.pop("compile_config", None)
        return {
            "h2": h2,
            "stored_h1": None if state.reference.stored is None else _text(state.reference.stored.path),
            **({"lambda_c": state.lambda_c} if state.promised is None else state.promised.get_config()),
            "dissonance": None if loss is not None else state.options.dissonance_name,
            "loss": serialize(loss) if isinstance(loss, CompatibilityLoss) else loss,
            **state.options.arguments,
            "class_map": None if state.reference.class_map is None else state.reference.class_map.as_given(),
            "reference_from_logits": state.reference.from_logits,
            "had_teacher": state.teacher is not None,
            "had_plain": state.plain is not None,
            "had_unlabelled": isinstance(state.unlabelled, Unlabelled),
            **(state.unlabelled.get_config() if isinstance(state.unlabelled, Mixtures) else {}),
        }

    def get_compile_config(self) -> dict[str, Any]:
        """What the model was compiled with, the metrics of this package among it."""
        config: dict[str, Any] = keras.Model.get_compile_config(self)
        return config

    def get_build_config(self) -> None:
        """Nothing: h2 is built from its own config."""
        return

    def save_assets(self, folder: str) -> None:
        """Write h1."""
        own = getattr(super(), "save_assets", None)
        if own is not None:
            own(folder)
        if isinstance(self._compatibility.h1, keras.Model):
            keras.saving.save_model(self._compatibility.h1, str(Path(folder, _H1)))
        for name, reference in (("teacher", self._compatibility.teacher), ("plain", self._compatibility.plain)):
            if reference is not None:
                save_imitated(reference, folder, name)
        if self._compatibility.promised is not None:
            self._compatibility.promised.save(Path(folder))

    def load_assets(self, folder: str) -> None:
        """Read h1; from here on the model is like any other that was wrapped."""
        own = getattr(super(), "load_assets", None)
        if own is not None:
            own(folder)
        state, (scope, safe_mode) = self._compatibility, self.__dict__.pop("_loading")
        if Path(folder, _H1).exists():
            with keras.saving.custom_object_scope(scope):
                h1 = keras.saving.load_model(Path(folder, _H1), safe_mode=safe_mode)
            state.reference = Reference(h1, state.reference.class_map, from_logits=state.reference.from_logits)
        with keras.saving.custom_object_scope(scope):
            for name in ("teacher", "plain"):
                if (found := load_imitated(folder, name, safe_mode)) is not None:
                    setattr(state, name, found)
        state.beside = state.whether_they_give_logits()
        if state.promised is not None:
            state.promised.load(Path(folder))
            state.lambda_c = state.promised.keeper.lambda_c
        object.__setattr__(self, "__class__", type(self)._made)


def scope_of_loading() -> tuple[dict[str, Any], bool]:
    """Custom objects and safe mode of a load that is under way, which its later half, the weights, does not know."""
    scope = dict(global_state.get_global_attribute("custom_objects_scope_dict", {}) or {})
    return scope, serialization_lib.in_safe_mode() is not False


def missing_h1(x: Any) -> Any:
    """What stands for an h1 that could not be saved."""
    raise ValueError(
        "The saved model's h1 was no Keras model, or stored outputs that are gone, so it is missing here: wrap h2 "
        "anew, BCModel(model, h1=...), to train or evaluate on. Received: h1=None."
    )


def missing_imitated(name: str) -> Callable[[Any], Any]:
    """What stands for a teacher or a plain h2 that could not be saved."""

    def missing(x: Any) -> Any:
        raise ValueError(
            f"The saved model had a model to imitate, {name}=, that is no Keras model, nor a blend of such, or stored "
            f"outputs that are gone, so it is missing here: wrap h2 anew, BCModel(model, h1=..., {name}=...), to train "
            f"or evaluate on. Received: {name}=None."
        )

    return missing


class MissingUnlabelled(Unlabelled):
    """What stands for unlabelled inputs, which are not saved."""

    def __init__(self) -> None:
        self.weight = 0.0

    def make_variables(self) -> None:
        """There are none to lay where the steps run."""
        raise ValueError(
            "The saved model was trained on unlabelled inputs too, which are not saved with it: wrap h2 anew, "
            "BCModel(model, h1=model.h1, unlabelled=...) with your other options, to train on. Received: None."
        )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
