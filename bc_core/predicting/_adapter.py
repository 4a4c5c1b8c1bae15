"""What a model is to `predict`: one function of a batch, which an adapter makes of a file, a folder or an address.

An adapter is a function of the model's place and of `ModelSettings`, and says itself by an entry point of the group
`bc_core.adapters`, of which the name is the ending of the files that it reads (`onnx`), or by `--adapter
module:function`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bc_core._texts import one_line
from bc_core._user_functions import imported, names_function

GROUP = "bc_core.adapters"
# One array of B instances, B texts, or several arrays by the names of the model's inputs.
Batch = NDArray[Any] | list[str] | dict[str, NDArray[Any]]

# Of a terminal.
_COLOURS = re.compile("\x1b\\[[0-9;]*m")
_PICKLES = ("pkl", "pickle", "joblib", "dill", "cloudpickle")
_OWN_NAMES = {"http", "function", "saved_model", "huggingface"}


@dataclass(frozen=True)
class ModelSettings:
    """What the user said of a model, for its adapter.

    Attributes:
        trust: Whether code that comes with the model may run, and pickles be loaded.
        output: Which of several outputs is meant.
        labels: Whether labels are wanted in place of scores.
        features: Names of the columns of one array of features; empty where there are none.
        device: Where it is to run, such as "cuda"; None for the processor.
        timeout: Seconds that one answer of an endpoint may take.
        retries: How often a request is tried anew.
        rate: Requests a second at most; None for no limit.
        headers: Of requests.
        options: What else was said, by `--option KEY=VALUE`.
        say: Tells the user something, at once; an adapter says so what code of the model's it runs.
    """

    trust: bool = False
    output: str | None = None
    labels: bool = False
    features: tuple[str, ...] = ()
    device: str | None = None
    timeout: float = 60.0
    retries: int = 5
    rate: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = field(default=lambda text: None)


class Predictor(Protocol):
    """A model that is open.

    It may also have `classes`, the name of the class of each score, and `fingerprint`, a text that changes with the
    model, where its files do not say it all.
    """

    def __call__(self, batch: Any, /) -> Any:
        """Predict a batch.

        Args:
            batch: Of B instances: an array of shape (B, ...), B texts, or arrays by the names of inputs.

        Returns:
            B labels or numbers, shape (B,) or (B, 1); or class scores, shape (B, C).
        """


class Adapter(Protocol):
    """Opens a model; `ValueError`, `ImportError` and `OSError` of it are shown to the user in one line.

    Example:
        >>> import numpy as np
        >>> from bc_core import ModelSettings
        >>> def open_thresholds(model: str, settings: ModelSettings):
        ...     '''Reads `.limit` files, in which one number is.'''
        ...     with open(model) as file:
        ...         limit = float(file.read())
        ...     return lambda batch: (batch[:, 0] >= limit).astype(int)
    """

    def __call__(self, model: str, settings: ModelSettings, /) -> Predictor:
        """Open the model at a path or address."""


def kind_of(model: str) -> str:
    """What a model is, by its name and, for folders, by what is in there: the name of the adapter that opens it.

    Raises:
        ValueError: Nothing says it.
        OSError: There is no such file.

    Example:
        >>> from bc_core.predicting._adapter import kind_of
        >>> kind_of("https://models.example/v1/cats:predict"), kind_of("mypackage.models:classify")
        ('http', 'function')
    """
    if model.startswith(("http://", "https://")):
        return "http"
    if names_function(model) and not os.path.exists(model):
        return "function"
    path = Path(model)
    if path.is_dir():
        for name, kind in (("saved_model.pb", "saved_model"), ("config.json", "huggingface")):
            if (path / name).is_file():
                return kind
        raise ValueError(
            f"{model}: a folder that is no SavedModel (saved_model.pb) and no Hugging Face model (config.json); name "
            "the file in it, or what opens it by --adapter"
        )
    os.stat(path)
    return path.suffix.removeprefix(".").lower()


def open_model(model: str, settings: ModelSettings, adapter: str | None = None) -> Predictor:
    """Open a model by the adapter that knows its kind.

    Args:
        model: A file, a folder, an address, or `module:function`.
        settings: What the user said of it.
        adapter: The name of an adapter, or `module:function`, where its name does not say it.

    Raises:
        ValueError: No adapter knows it, or it is not as it should be.
        ImportError: What opens it is not installed.
        OSError: It cannot be read.
    """
    from importlib.metadata import entry_points  # with a parser of e-mail

    if adapter is not None and ":" in adapter:
        settings.say(f"{adapter} is imported, and opens the model: what is in that module runs")
        opened: Predictor = imported(adapter, "--adapter")(model, settings)
        return opened
    kind = adapter if adapter is not None else kind_of(model)
    if kind in _PICKLES and not settings.trust:
        raise ValueError(
            f"{model}: a pickle, which runs whatever code is in it. Save the model as skops, ONNX or another format of "
            "data, give a module:function that loads it, or say --trust if you know who made it"
        )
    for entry in entry_points(group=GROUP, name=kind):
        try:
            adapter_of_kind: Adapter = entry.load()
        except ImportError as error:
            raise ImportError(
                f"{model}: what opens it cannot be imported ({error}); models of torch need pip install "
                "'backward-compat-ml[lightning]', those of Keras and TensorFlow 'backward-compat-ml[keras]'"
            ) from error
        return adapter_of_kind(model, settings)
    known = sorted({entry.name for entry in entry_points(group=GROUP)} - _OWN_NAMES)
    if not known:
        raise ImportError(
            f"Nothing that is installed opens models: no package has entry points of {GROUP}. Install "
            "backward-compat-ml again, in a checkout by pip install -e ."
        )
    told = repr(kind) if kind else "a name without ending"
    raise ValueError(
        f"{model}: no adapter for {told}; there are those of {', '.join(known)}, of "
        "folders (SavedModel, Hugging Face), addresses and module:function. Name one by --adapter"
    )


class BatchError(ValueError):
    """A model that does not take a batch; `predict` adds what it was given.

    Args:
        model: What it is called in messages.
        error: Its own.
        line: Which line of that says it; None for all.
    """

    def __init__(self, model: str, error: Exception, line: int | None = None) -> None:
        told = _COLOURS.sub("", str(error)).strip()
        told = told if line is None else told.splitlines()[line]
        said = one_line(" ".join(f"{type(error).__name__}: {told.removeprefix('RuntimeError: ')}".split()))
        super().__init__(f"{model}: it does not take this batch ({said[:300]})")


def in_pieces(
    run: Callable[[dict[str, NDArray[Any]]], NDArray[Any]], inputs: dict[str, NDArray[Any]], size: int | None
) -> NDArray[Any]:
    """Run a model that takes exactly `size` instances on as many as there are, the last ones repeated to fill up."""
    count = len(next(iter(inputs.values())))
    if size is None or size == count:
        return run(inputs)
    answers = []
    for start in range(0, count, size):
        piece = {name: array[start : start + size] for name, array in inputs.items()}
        found = len(next(iter(piece.values())))
        if found < size:
            piece = {name: np.concatenate([a, np.repeat(a[-1:], size - found, axis=0)]) for name, a in piece.items()}
        answers.append(run(piece)[:found])
    return np.concatenate(answers)


def by_name(batch: Batch, names: list[str], where: str) -> dict[str, Any]:
    """A batch as the inputs of a model: the only one, or each by its name.

    Raises:
        ValueError: The names do not match.
    """
    if not isinstance(batch, dict):
        if len(names) != 1:
            raise ValueError(f"{where}: it has the inputs {', '.join(names)}; give each its columns by --input")
        return {names[0]: batch}
    if set(batch) != set(names):
        raise ValueError(f"{where}: it has the inputs {', '.join(names)}, and --input gives {', '.join(batch)}")
    return {name: batch[name] for name in names}


def chosen_output(outputs: Mapping[str, Any], said: str | None, where: str) -> Any:
    """One of a model's outputs: the only one, or that which was named.

    Raises:
        ValueError: There are several, or none of that name.
    """
    if said is not None:
        if said not in outputs:
            raise ValueError(f"{where}: no output {said!r}; it has {', '.join(outputs)}")
        return outputs[said]
    if len(outputs) != 1:
        raise ValueError(f"{where}: it has the outputs {', '.join(outputs)}; say which by --output")
    return next(iter(outputs.values()))
