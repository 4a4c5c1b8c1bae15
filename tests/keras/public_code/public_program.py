"""What a Keras program pattern is: a class whose methods are the parts of the program, with the one line left open.

Nothing here imports the packages under test: the programs are plain users' code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

FEATURES, CLASSES, BATCH = 6, 3, 8
TRAIN_ROWS, VAL_ROWS = 16, 13
ALL_BACKENDS = ("tensorflow", "jax", "torch")


@dataclass(frozen=True)
class Run:
    """How the tests run a program: what stands where the user has a line of their own.

    Attributes:
        wrap: The one line: what is trained, made of h2.
        metrics: Makes the metrics of compile().
        weights: Sample weights of the training rows, or None.
        callbacks: Callbacks of fit().
        h1: For a program that asks it itself, as a remedy may say.
        lambda_c: Likewise.
        eagerly: Whether the operations of a step run one by one.
    """

    wrap: Callable[[Any], Any] = lambda h2: h2
    metrics: Callable[[], list[Any]] = lambda: ["accuracy"]
    weights: np.ndarray | None = None
    callbacks: tuple[Any, ...] = ()
    h1: Any = None
    lambda_c: float = 0.0
    eagerly: bool = False


class Program:
    """The program that most tutorials begin with; each pattern differs from it in what it overrides."""

    # For the table, see `public_table`.
    what: ClassVar[str]
    how: ClassVar[str] = "one line"
    needs: ClassVar[str] = ""
    # What is said without the option, or of refused code.
    error: ClassVar[str] = ""
    # The program after following the remedy.
    mended: ClassVar[type[Program] | None] = None
    options: ClassVar[dict[str, Any]] = {}
    backends: ClassVar[tuple[str, ...]] = ALL_BACKENDS
    # There is one score for two classes, or a column for each label, from this value on.
    threshold: ClassVar[float | None] = None
    # Whether sample weights of 1 + lambda_c where h1 is right are the penalty, and how close.
    by_hand: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-4
    # Whether lambda_c = 0 is plain to the bit; a loss of ours in the program's own method rounds otherwise.
    exact: ClassVar[bool] = True
    # A label that does not count.
    ignored: ClassVar[int | None] = None
    # Tracing costs most of a program this small; those that are about graphs have it.
    run_eagerly: ClassVar[bool] = True
    epochs: ClassVar[int] = 1

    @classmethod
    def title(cls) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", cls.__name__)

    # -- the parts of the program --

    def rows(self, count: int, seed: int) -> tuple[Any, np.ndarray]:
        random = np.random.default_rng(seed)
        return random.normal(size=(count, FEATURES)).astype("float32"), random.integers(CLASSES, size=count)

    def build(self) -> Any:
        return keras.Sequential(
            [
                keras.Input((FEATURES,)),
                keras.layers.Dense(8, activation="relu"),
                keras.layers.Dense(CLASSES, activation="softmax"),
            ]
        )

    def loss(self) -> Any:
        return "sparse_categorical_crossentropy"

    def optimizer(self) -> Any:
        return keras.optimizers.SGD(0.1)

    def encoded(self, y: np.ndarray) -> Any:
        """The labels as the loss wants them."""
        return y

    def feed(self, x: Any, y: Any, weights: np.ndarray | None = None) -> dict[str, Any]:
        """The data arguments of fit()."""
        weighted = {} if weights is None else {"sample_weight": weights}
        return {"x": x, "y": y, "batch_size": BATCH, "shuffle": False, **weighted}

    def held_out(self, x: Any, y: Any) -> Any:
        """The validation data."""
        return x, y

    def own_weights(self, y: np.ndarray) -> np.ndarray:
        """What the program weights an instance with by itself."""
        return np.ones(y.shape, "float32")

    def fit_options(self, run: Run) -> dict[str, Any]:
        return {}

    def run(self, run: Run) -> tuple[Any, Any, dict[str, list[float]]]:
        """The whole program: h2, what was trained, and what was logged."""
        h2 = self.build()
        model = run.wrap(h2)
        model.compile(self.optimizer(), loss=self.loss(), metrics=run.metrics(), **self.compile_options(run))
        return h2, model, self.fit(model, run)

    def compiled(self) -> dict[str, Any]:
        return {"run_eagerly": self.run_eagerly}

    def compile_options(self, run: Run) -> dict[str, Any]:
        """Steps that are weighted by hand are eager: what is compared is not how they are compiled."""
        return {"run_eagerly": True} if run.eagerly or run.weights is not None else self.compiled()

    def fit(self, model: Any, run: Run) -> dict[str, list[float]]:
        x, y = self.rows(TRAIN_ROWS, 0)
        x_val, y_val = self.rows(VAL_ROWS, 1)
        history = model.fit(
            **self.feed(x, self.encoded(y), run.weights),
            validation_data=self.held_out(x_val, self.encoded(y_val)),
            epochs=self.epochs,
            verbose=0,
            callbacks=list(run.callbacks),
            **self.fit_options(run),
        )
        return history.history

    # -- what the tests have to know --

    def answers(self, model: Any, x: Any) -> np.ndarray:
        """The scores of a plain model in inference mode."""
        return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)), "float32")

    def predicted(self, model: Any, x: Any) -> np.ndarray:
        scores = self.answers(model, x)
        if self.threshold is not None:
            return (scores >= self.threshold).astype("int64")
        return scores.argmax(-1)
