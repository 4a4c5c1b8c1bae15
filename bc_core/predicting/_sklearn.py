"""scikit-learn: by skops, which loads known types only; pickles only of those who ask for it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from bc_core.predicting._adapter import Batch, BatchError, ModelSettings, Predictor


class _Estimator:
    classes: tuple[str, ...] | None = None

    def __init__(self, model: str, estimator: Any, settings: ModelSettings) -> None:
        if not hasattr(estimator, "predict"):
            raise ValueError(f"{model}: a {type(estimator).__name__}, which has no predict")
        self._model, self._estimator = model, estimator
        self._scored = not settings.labels and hasattr(estimator, "predict_proba")
        if self._scored:
            self.classes = tuple(str(label) for label in getattr(estimator, "classes_", ())) or None
        wanted = getattr(estimator, "feature_names_in_", None)
        if wanted is not None and settings.features and list(wanted) != list(settings.features):
            raise ValueError(
                f"{model}: it was trained on the columns {', '.join(map(str, wanted))}, in that order, and --features "
                f"gives {', '.join(settings.features)}"
            )

    def __call__(self, batch: Batch) -> Any:
        if isinstance(batch, dict):
            raise ValueError(f"{self._model}: a scikit-learn model has one input; give it by --features or --text")
        with warnings.catch_warnings():
            # Names and their order were looked at when it was opened.
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            ask = self._estimator.predict_proba if self._scored else self._estimator.predict
            try:
                found = ask(batch)
            except (ValueError, TypeError, AttributeError) as error:
                raise BatchError(self._model, error) from error
        if not self._scored:
            return found
        if isinstance(found, list):
            raise ValueError(f"{self._model}: it predicts several targets at once; give a module:function for one")
        return np.asarray(found)


def open_skops(model: str, settings: ModelSettings) -> Predictor:
    """Open a file of skops.

    Raises:
        ValueError: It is damaged, or holds types that are not known, which --trust allows.
        ImportError: skops is not installed.
    """
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(f"{model}: it is read by skops: pip install 'backward-compat-ml[predict]'") from error
    try:
        strange = skops.io.get_untrusted_types(file=model)
        if strange and not settings.trust:
            raise ValueError(
                f"{model}: it holds types of which loading may run code: {', '.join(strange)}. Say --trust if you know "
                "who made it"
            )
        if strange:
            settings.say(f"{model}: loads the types {', '.join(strange)}, which run code of theirs")
        estimator = skops.io.load(model, trusted=strange)
    except (OSError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(model):
            raise
        raise ValueError(f"{model}: no file of skops, or a damaged one ({type(error).__name__}: {error})") from error
    return _Estimator(model, estimator, settings)


def open_pickle(model: str, settings: ModelSettings) -> Predictor:
    """Open a pickled estimator, which the user has asked for by --trust: anything may run.

    Raises:
        ValueError: It was not asked for, or is damaged.
        ImportError: joblib is not installed, or a module that the pickle names.
    """
    if not settings.trust:
        raise ValueError(f"{model}: a pickle, which runs whatever code is in it; say --trust if you know who made it")
    settings.say(f"{model}: unpickled, which runs whatever code is in it")
    import joblib

    try:
        estimator = joblib.load(model)
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise ValueError(f"{model}: cannot be unpickled ({type(error).__name__}: {error})") from error
    return _Estimator(model, estimator, settings)
