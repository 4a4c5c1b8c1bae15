"""`sweep`: the same update trained with many values of lambda_c, and compared."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import gc
import hashlib
import importlib.util
import io
import os
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from bc_core import Comparison
from bc_core._arrays import check_unique_ids, id_array, to_numpy
from bc_core.comparison._comparison import Metadata
from bc_core.comparison._evaluation import performance
from bc_core.files._archives import read_archive
from bc_core.files._files import write_whole
from bc_core.losses._dissonances import DISSONANCES
from bc_core.sweep._folder import DATASETS, LOSS, Report, Trained
from bc_core.sweep._h1_performance import measured_h1
from bc_core.sweep._points import Point
from bc_core.sweep._running import Sweep, run_sweep
from bc_core.sweep._told import code_of, told
from bc_keras._random_numbers import seed_torch, seeded
from bc_keras.batches._attached import join_reference
from bc_keras.batches._listed_batches import ListedBatches, is_list_of_batches
from bc_keras.batches._validation_data import ValidationData
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._losses import MODEL_LOSSES, ModelLoss
from bc_keras.reference._asking import asking
from bc_keras.reference._fingerprint import fingerprint
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs, store_outputs
from bc_keras.reference._stored_dataset import DatasetItems, is_dataset
from bc_keras.training._compared_data import Asked, ComparedData, HowToRead
from bc_keras.training._model import BCModel, unwrap
from bc_keras.training._score_scale import says_of

# Rows at a time where the caller gave no batch_size; Keras's own 32 spends its time on the calls.
_BATCH_SIZE = 256
# Of these rows the content is part of what a folder is known again by.
_SAMPLED_ROWS = 16
# Seed of the h2 that a folder is known again by: the same, whatever seeds are swept.
_FIRST_SEED = 0
_MODEL = "model.keras"

Loss = str | CompatibilityLoss | ModelLoss | type[ModelLoss]


def sweep(
    h2: keras.Model | Callable[[], keras.Model],
    h1: keras.Model | Callable[..., Any],
    train: Any,
    *,
    val: Any = None,
    test: Any = None,
    folder: str | os.PathLike[str],
    lambdas: Iterable[float] | None = None,
    losses: str | Sequence[str] | Mapping[str, Loss] = ("new_error", "strict_imitation"),
    seeds: int | Iterable[int] = (0,),
    compile: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    fit: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    ids: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    metadata: Metadata | None = None,
    performance_metric: Callable[[Any, Any, Any], Any] | None = None,
    evaluate_on_train: bool = True,
    store_h1: bool | str = "auto",
    save_models: bool = True,
    tensorboard: bool | None = None,
    mlflow: Any = None,
    engine: str | None = None,
    workers: int | None = None,
    background: bool = False,
    progress_bar: bool = True,
    ray_options: Mapping[str, Any] | None = None,
) -> Sweep:
    """Train an update with many values of lambda_c, and compare each with h1: to choose lambda_c, and to defend it.

    Every point starts from the same weights and draws the same random numbers as all others of its seed, so that what
    differs comes from lambda_c and the loss. h1's outputs are computed once for all; plain training, lambda_c = 0, is
    done once for all losses. A point appears in the folder whole or not at all; after an interruption, of whatever
    kind, the same call goes on with the points that are missing. An error in one point is kept in `failures`, and the
    others go on. More lambdas, losses and seeds may be added to a folder later.

    Data are ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, x (N, ...) and y (N,), (N, 1) or one-hot (N, C); a
    ``tf.data.Dataset``, ``PyDataset`` or ``DataLoader`` of batches of these; or a function without arguments that makes
    one of them, called anew for each point after its seed was set: for data with an order or augmentation of their own,
    which otherwise go on from point to point.

    Args:
        h2: a function that makes the update anew, called after ``keras.utils.set_random_seed(seed)``; or a built model,
            copied with its weights for every point, which then start alike for all seeds.
        h1: the model in use: a built Keras model, a callable of a batch of inputs that returns scores or labels, or a
            `Reference`.
        train: training data, such as ``(x, y)`` of arrays or a ``tf.data.Dataset``; batches in a list, ``(ids, x, y)``
            or ``(x, y)`` as the original's, are joined to arrays.
        val: validation data, to choose on. Where `fit` has callbacks, it is what they see as ``val_loss`` and the like.
        test: test data, which take part in nothing.
        folder: where everything goes, and is taken up again.
        lambdas: values of lambda_c. Default: `bc_core.log_lambdas()`, 0 and 0.25 to 16; the grid of
            BackwardCompatibilityML is `bc_core.linear_lambdas(step)`.
        losses: dissonances ("new_error", "strict_imitation", "imitation") or names of the eight losses; or a dictionary
            of names of your own and anything that `BCModel` takes as `loss` or `dissonance`.
        seeds: one seed or several; of each all points are trained.
        compile: arguments of ``compile``, such as ``{"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}``;
            optimizer and metrics are made anew for every point, of their configs. Or a function that returns them,
            for objects that a config does not hold.
        fit: arguments of ``fit``, such as ``{"epochs": 10, "batch_size": 64}``. Callbacks are a list, copied for every
            point, or a function that returns one.
        model_options: further arguments of `BCModel`: ``normalization``, ``from_logits``, ``class_map`` and the like.
        ids: by data set ("train", "val", "test") the ids of its instances, unique, all integers or all text, for data
            in an order that stays. Default: those of batches ``(ids, x, y)`` in a list, else positions, of the first
            pass where data come in another order each time.
        class_names: name of each class.
        metadata: text of an instance, by id.
        performance_metric: a function ``(model, dataset, device)`` that returns a number, for the columns
            `performance_h1` and `performance_h2`; `dataset` is what was given as data.
        evaluate_on_train: whether the models are compared on the training data too.
        store_h1: whether h1's outputs are read back while training. "auto" does for arrays and for data sets of
            `tf.data` that stay the same, and asks h1 in every step for others. In evaluation h1's kept answers are
            used in any case, for every instance that it was asked about.
        save_models: whether each h2 is kept, as ``model.keras``.
        tensorboard: whether each point writes a run with its scores, hyperparameters and comparisons under
            ``folder/tensorboard``. Default: where TensorBoard is installed.
        mlflow: track with MLflow: True, the name of an experiment, or a mapping with `experiment`, `run_name`,
            `tracking_uri`.
        engine: `"in_process"` (default), `"processes"` (of this machine, with one thread each) or `"ray"` (Ray Tune:
            several machines or GPUs; the folder must be one that all see). The latter two need data that can be
            pickled, or functions that make them.
        workers: points at a time, for the latter two.
        background: return at once; see `Sweep.status` and `Sweep.wait`.
        progress_bar: whether to show progress and the time left.
        ray_options: `resources_per_point` (such as ``{"cpu": 2, "gpu": 1}``), `init` (arguments of `ray.init`),
            `tune_config`, `storage_path`.

    Returns:
        The sweep: `table()`, `comparison(...)`, `pareto()`, `best("nfr <= 0.5%")`, `plot()`, `to_html(path)`.

    Raises:
        TypeError: an argument of a wrong kind.
        ValueError: an argument out of range, no loss to train with, no data; the folder of another sweep (says what
            differs).
        RuntimeError: another sweep is at work in the folder.
        SweepFailedError: every point failed.
        FullDiskError: the disk is full; what is finished stays.

    Example:
        >>> import tempfile, keras, numpy as np
        >>> from bc_keras import sweep
        >>> def net():
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> x = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
        >>> data = (x, x.argmax(1) % 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = sweep(
        ...         net, net(), data, test=data, folder=folder, lambdas=[0, 1], tensorboard=False, progress_bar=False,
        ...         compile={"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}, fit={"epochs": 1},
        ...     )
        ...     [(row["loss"], row["lambda_c"]) for row in found.rows("test")]
        [('new_error', 0.0), ('new_error', 1.0), ('strict_imitation', 0.0), ('strict_imitation', 1.0)]
    """
    recipe = _Recipe(
        h2=h2,
        h1=h1,
        data=(train, val, test),
        losses=losses,
        compile=compile,
        fit={} if fit is None else fit,
        model_options={} if model_options is None else model_options,
        ids={} if ids is None else ids,
        class_names=class_names,
        metadata=metadata,
        performance_metric=performance_metric,
        evaluate_on_train=evaluate_on_train,
        store_h1=store_h1,
        save_models=save_models,
        tensorboard=importlib.util.find_spec("tensorboard") is not None if tensorboard is None else tensorboard,
    )
    return run_sweep(
        recipe,
        folder=folder,
        losses=list(recipe.losses),
        lambdas=lambdas,
        seeds=seeds,
        share_plain=recipe.shares_plain,
        engine=engine,
        workers=workers,
        background=background,
        progress_bar=progress_bar,
        ray_options=ray_options,
        mlflow=mlflow,
    )


class _Recipe:
    """How a point is trained in Keras; travels to other processes."""

    def __init__(
        self,
        h2: Any,
        h1: Any,
        data: tuple[Any, Any, Any],
        losses: Any,
        compile: Any,
        fit: Any,
        model_options: Mapping[str, Any],
        ids: Any,
        class_names: Sequence[str] | None,
        metadata: Any,
        performance_metric: Any,
        evaluate_on_train: bool,
        store_h1: Any,
        save_models: bool,
        tensorboard: bool,
    ) -> None:
        if store_h1 not in (True, False, "auto"):
            raise ValueError(f"store_h1 must be True, False or 'auto'. Received: store_h1={store_h1!r}.")
        if performance_metric is not None and not callable(performance_metric):
            raise TypeError(
                "performance_metric must be a function (model, dataset, device). Received: "
                f"performance_metric={performance_metric!r}."
            )
        self.options = dict(model_options)
        if isinstance(h1, Reference):
            if h1.class_map is not None:
                self.options.setdefault("class_map", h1.class_map)
            h1 = h1.h1
        if isinstance(h1, StoredOutputs):
            raise TypeError(
                "h1 must be the model itself, or a callable: its outputs are stored here, for each of the data sets. "
                f"Received: h1={h1!r}."
            )
        self.class_map = Reference(h1, self.options.get("class_map")).class_map
        self.h1, self.h2 = h1, _checked_h2(h2)
        self.losses = _checked_losses(losses)
        self.compile = _checked_compile(compile)
        self.fit = _checked_fit(fit)
        self.store_h1 = store_h1
        self.evaluate_on_train = evaluate_on_train
        self.save_models, self.tensorboard = save_models, tensorboard
        self.class_names = None if class_names is None else tuple(class_names)
        self.metadata = metadata
        self.performance_metric = performance_metric
        given, ids = _joined_batches(dict(zip(DATASETS, data, strict=True)), ids)
        if given["train"] is None:
            raise TypeError("train is missing: pass (x, y), or another kind of data. Received: train=None.")
        self.data: dict[str, _Data] = {}
        with seeded(_FIRST_SEED):
            for name, each in given.items():
                if each is not None:
                    self.data[name] = _Data(name, each, self.h1)
        self.ids = self._checked_ids(ids)
        if store_h1 is True and not self.data["train"].is_storable:
            raise TypeError(
                "store_h1=True needs training data that stay the same: arrays, or a tf.data.Dataset without shuffling "
                f"and augmentation. Received: train={self.data['train'].kind}; leave store_h1 out."
            )
        # Where MLflow is told of the points; set by what runs the sweep.
        self.tracking: Any = None
        self.folder: Path | None = None
        self.h1_performances: dict[str, float] = {}
        self._attached: dict[str, Any] = {}
        with seeded(_FIRST_SEED):
            first = self._made_h2()
            self._initial = _name_of(first)
            self.shares_plain = self._check_losses(first)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_attached": {}, "h2": _packed(self.h2)}
        # Where all of its answers are kept, it may be anything, such as a connection to a service.
        everything_kept = all(data.is_storable for data in self.data.values()) and self.store_h1 is not False
        state["h1"] = None if everything_kept and self.folder is not None else _packed(self.h1)
        state["settings"] = (
            keras.config.floatx(),
            keras.config.dtype_policy().name,
            keras.config.image_data_format(),
        )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        floatx, policy, image_data_format = state.pop("settings")
        keras.config.set_floatx(floatx)
        if keras.config.dtype_policy().name != policy:
            keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(image_data_format)
        self.__dict__.update({**state, "h1": _unpacked(state["h1"]), "h2": _unpacked(state["h2"])})

    # What it is

    def describe(self) -> dict[str, str]:
        """What decides the results, by name."""
        with seeded(_FIRST_SEED):
            again = _name_of(self._made_h2())
        if again != self._initial:
            raise ValueError(
                "h2 must make the same model whenever the seed is the same, so that all points start alike, and it "
                "made two different ones: draw its random numbers from keras.random, numpy.random or random, or from "
                f"generators that it makes itself. Received: h2={self.h2!r}."
            )
        compiled = self.compile if callable(self.compile) else dict(self.compile)
        fit = {name: value for name, value in self.fit.items() if name != "verbose"}
        return {
            "framework": f"Keras on {keras.backend.backend()}, {keras.config.dtype_policy().name}",
            "h1": fingerprint(self.h1),
            "h2 before training": self._initial,
            **{f"{name} data": data.told for name, data in self.data.items()},
            "compile": _told(compiled),
            "fit": _told(fit),
            "model_options": _told(self.options),
            "ids": _told(self.ids),
            "class_names": _told(self.class_names),
            "performance_metric": _told(self.performance_metric),
            "evaluated on training data": str(self.evaluate_on_train),
            **{f"{LOSS}{name}": _told(loss) for name, loss in self.losses.items()},
        }

    def environment(self, threads: int) -> dict[str, str]:
        """Environment variables of a worker process that computes with so many threads."""
        backend = keras.backend.backend()
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {name: str(threads) for name in names} | {
            "TF_NUM_INTRAOP_THREADS": str(threads),
            "TF_NUM_INTEROP_THREADS": str(threads),
            "KERAS_BACKEND": backend,
        }
        if backend == "jax":
            # XLA takes the number of its threads for that of the cores.
            environment["NPROC"] = str(threads)
            if threads == 1:
                flag = "--xla_cpu_multi_thread_eigen=false"
                flags = os.environ.get("XLA_FLAGS", "").split()
                environment["XLA_FLAGS"] = " ".join([*(known for known in flags if known != flag), flag])
        return environment

    def _checked_ids(self, ids: Any) -> dict[str, Any]:
        if not isinstance(ids, Mapping) or not set(ids) <= set(self.data):
            known = ", ".join(map(repr, self.data))
            received = list(ids) if isinstance(ids, Mapping) else type(ids).__name__
            raise ValueError(f"ids are given by data set, ids={{'test': [...]}}, of {known}. Received: {received}.")
        checked = {}
        for name, each in ids.items():
            array = id_array(each, f"ids of {name}")
            check_unique_ids(array.tolist(), f"ids of {name}")
            length = self.data[name].length
            if length not in (None, len(array)):
                raise ValueError(f"ids of {name} must name its {length} instances. Received: {len(array)} ids.")
            checked[name] = array
        return checked

    def _check_losses(self, h2: Any) -> bool:
        """Tell what does not fit before the first hour of training; whether all losses share plain training."""
        arguments = self._compile_arguments()
        if arguments.get("loss") is None and (names := [name for name in self.losses if self._is_dissonance(name)]):
            raise ValueError(
                "compile needs a loss, the base that is trained together with the dissonance, such as "
                f"compile={{'loss': 'sparse_categorical_crossentropy'}}. Received: none, and {names[0]!r} of losses "
                "brings none."
            )
        bases = set()
        for name in self.losses:
            model = self._wrapped(h2, Point(name, 1.0, _FIRST_SEED), self.h1)
            model.compile(**self._compile_arguments())
            if model._compatibility.options.criterion is not None:
                config = model._compatibility.options.criterion.get_config()
                for what in ("dissonance", "normalization", "lambda_c", "name", "h1_from_logits", "validate_args"):
                    del config[what]
                bases.add(repr(config))
        return arguments.get("loss") is not None or len(bases) == 1

    def _is_dissonance(self, name: str) -> bool:
        loss = self.losses[name]
        return isinstance(loss, str) and loss in DISSONANCES

    # What points are made of

    def _made_h2(self) -> Any:
        if isinstance(self.h2, keras.Model):
            return _cloned(self.h2)
        made = self.h2()
        if not isinstance(made, keras.Model):
            raise TypeError(f"h2 must make a Keras model. Received from h2(): {type(made).__name__}.")
        mark = "_bc_keras_made_in_sweep"
        if getattr(made, mark, False):
            raise ValueError(
                "h2 must make a new model at each call, as every point trains its own, and it gave the same one twice: "
                "make the model inside the function, or pass the model itself, which is copied."
            )
        if isinstance(made, BCModel):
            raise TypeError("h2 must make the plain model, which is wrapped here. Received from h2(): a BCModel.")
        object.__setattr__(made, mark, True)
        return made

    def _wrapped(self, h2: Any, point: Point, h1: Any) -> BCModel:
        name = next(iter(self.losses)) if point.loss is None else point.loss
        kind = "dissonance" if self._is_dissonance(name) else "loss"
        given = {kind: self.losses[name], **self.options}
        criterion = getattr(self.losses[name], "criterion", self.losses[name])
        if isinstance(h1, StoredOutputs) and given.get("h1_from_logits") is None:
            # Rows alone may not tell what the model does.
            given["h1_from_logits"] = getattr(criterion, "h1_from_logits", None)
            if given["h1_from_logits"] is None:
                given["h1_from_logits"] = says_of(self.h1).from_logits
        return BCModel(h2, h1=h1, lambda_c=point.lambda_c, **given)

    def _compile_arguments(self) -> dict[str, Any]:
        if callable(self.compile):
            made = self.compile()
            if not isinstance(made, Mapping):
                raise TypeError(
                    f"compile must return a mapping of arguments. Received from compile(): {type(made).__name__}."
                )
            return dict(made)
        return {name: _remade(value) for name, value in self.compile.items()}

    def _fit_arguments(self, report: Report) -> dict[str, Any]:
        arguments = {"verbose": 0, **self.fit}
        callbacks = arguments.pop("callbacks", None)
        if callable(callbacks) and not isinstance(callbacks, keras.callbacks.Callback):
            callbacks = callbacks()
        else:
            # They keep what they have seen, and every point begins anew.
            callbacks = copy.deepcopy(callbacks)
        callbacks = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks] if callbacks else []
        return {**arguments, "callbacks": [*callbacks, _Progress(report)]}

    @property
    def _fit_validates(self) -> bool:
        """Whether there is somebody to look at validation data while training."""
        return "val" in self.data and bool(self.fit.get("callbacks")) and not self.fit.get("validation_split")

    @property
    def _reads_h1(self) -> bool:
        """Whether the training reads h1's kept outputs."""
        if self.store_h1 is False or not self.data["train"].is_storable:
            return False
        return not self._fit_validates or self.data["val"].is_storable

    # Once for all points

    def prepare(self, folder: Path) -> None:
        """Ask h1 about all data, once; taken up where an interrupted call stopped."""
        self.folder = folder
        self._attached = {}
        (folder / "h1").mkdir(parents=True, exist_ok=True)
        if self.tensorboard:
            # By name and only here: the folder is complete without it.
            log = importlib.import_module("bc_tensorboard.writing._sweep_log")
            log.log_plan(folder, self._evaluated, self.performance_metric is not None)
        with seeded(_FIRST_SEED):
            made = {name: self.data[name].made() for name in self._asked}
            for name, data in made.items():
                if self.data[name].is_storable:
                    x = data if is_dataset(data) else data[0]
                    labels = None if is_dataset(data) else data[1]
                    path = folder / "h1" / name
                    begun = path.exists()
                    try:
                        store_outputs(self.h1, x, path, y=labels, batch_size=self._batch_size(name), verbose=0)
                    except ValueError as error:
                        if not begun:
                            raise
                        raise ValueError(f"{folder} is the folder of another sweep, or h1 changed: {error}") from error
                elif not (path := folder / "h1" / f"{name}.npz").is_file():
                    _Answers.asked(self.h1, ValidationData(data)).save(path)
            if self.performance_metric is not None:
                self.h1_performances = measured_h1(
                    self.performance_metric,
                    self.h1,
                    made,
                    self._evaluated,
                    folder / "h1" / "performance.json",
                )

    @property
    def _evaluated(self) -> list[str]:
        return [name for name in self.data if name != "train" or self.evaluate_on_train]

    @property
    def _asked(self) -> list[str]:
        return [name for name in self.data if name in self._evaluated or self._reads_h1]

    def _batch_size(self, name: str) -> int:
        return int(self.fit.get("batch_size") or _BATCH_SIZE)

    # One point

    def train(self, point: Point, directory: Path, report: Report) -> Trained:
        """Train and evaluate one point."""
        # What is there already is not gone through below, which takes a third of a second at every point.
        gc.freeze()
        try:
            with seeded(point.seed):
                return self._train(point, directory, report)
        finally:
            # Models and their compiled steps refer to themselves.
            gc.collect()
            gc.unfreeze()

    def _train(self, point: Point, directory: Path, report: Report) -> Trained:
        assert self.folder is not None
        h2 = self._made_h2()
        data = {name: each.made() for name, each in self.data.items()}
        seed_torch(point.seed)
        reads = self._reads_h1
        columns = self._columns(h2, data["train"])
        model = self._wrapped(h2, point, self._stored("train") if reads else self.h1)
        model.compile(**self._compile_arguments())
        arguments = self._fit_arguments(report)
        curves: list[Any] = []
        if (tracking := self.tracking) is not None:
            curves.append(lambda epoch, logs: tracking.log_epoch(point, epoch, logs))
        if self.tensorboard:
            curves.append(importlib.import_module("bc_tensorboard.writing._sweep_log").curves_of(self.folder, point))
        if curves:
            told = [keras.callbacks.LambdaCallback(on_epoch_end=each) for each in curves]
            arguments["callbacks"] = [*arguments.get("callbacks", []), *told]
        if self._fit_validates:
            validation = self._joined("val", data["val"], columns) if reads else data["val"]
            arguments["validation_data"] = tuple(validation) if isinstance(validation, list) else validation
        given = data["train"]
        if reads:
            given = self._joined("train", given, columns, arguments.pop("class_weight", None))
        if isinstance(given, tuple | list):
            arguments |= dict(zip(("x", "y", "sample_weight"), given, strict=False))
        else:
            arguments["x"] = given
            arguments.pop("batch_size", None)
            if not isinstance(given, keras.utils.PyDataset):
                # Others have an order of their own; Keras warns that it leaves it alone.
                arguments["shuffle"] = False
        model.fit(**arguments)
        _check_finite(h2)
        comparisons, performances = {}, {}
        for name in self._evaluated:
            comparisons[name] = self._compared(name, model, data[name], columns, point)
            if self.performance_metric is not None:
                value = performance(self.performance_metric(h2, data[name], "cpu"), "h2")
                performances[name] = (self.h1_performances[name], value)
        if self.save_models:
            network = unwrap(h2)
            network.compiled, network.optimizer = False, None  # whoever loads it predicts, with any loss's code or none
            network.save(directory / _MODEL)
        trained = Trained(comparisons, performances, _MODEL if self.save_models else None)
        if self.tensorboard:
            importlib.import_module("bc_tensorboard.writing._sweep_log").log_point(self.folder, point, trained)
        return trained

    def _columns(self, h2: Any, train: Any) -> int:
        """Columns of h1's output beside a label: where h1 gives labels, they are made for these."""
        if self.class_map is not None:
            return len(self.class_map)
        if not h2.built:
            first = next(iter(ValidationData(train, *([1] if isinstance(train, tuple | list) else []))))
            h2(keras.tree.map_structure(ops.convert_to_tensor, first.x), training=False)
        shape = getattr(h2, "output_shape", None)
        return int(shape[-1]) if isinstance(shape, tuple) and len(shape) > 1 else 1

    def _stored(self, name: str) -> StoredOutputs:
        assert self.folder is not None
        return StoredOutputs.open(self.folder / "h1" / name)

    def _joined(self, name: str, data: Any, columns: int, class_weight: Any = None) -> Any:
        """Data that stay the same, with h1's kept outputs beside the labels."""
        key = f"{name}, weighted" if class_weight is not None else name
        if key not in self._attached:
            stored = self._stored(name)
            parts = (data,) if is_dataset(data) else tuple(data)
            classes = columns if stored.labels_only else None
            self._attached[key] = stored.attach(*parts, num_classes=classes, class_weight=class_weight)
        return self._attached[key]

    def _compared(self, name: str, model: BCModel, data: Any, columns: int, point: Point) -> Comparison:
        answers, ids, batch_size = None, self.ids.get(name), None
        if self.data[name].is_storable:
            given, rows = self._joined(name, data, columns), self._stored(name)
            if not is_dataset(given):
                # Weights of instances do not count in a comparison.
                given = given[:2]
                batch_size = self._batch_size(name)
        else:
            assert self.folder is not None
            answers = _Answers.load(self.folder / "h1" / f"{name}.npz")
            given, rows = answers.joined(self.h1, ValidationData(data), columns), answers.as_stored()
        compared = ComparedData(
            ValidationData(given, batch_size),
            Reference(rows, self.class_map),
            HowToRead(),
            ids=ids if answers is None else answers.ids_after_pass(ids),
            class_names=self.class_names,
            metadata=self.metadata,
        )
        comparison = Asked(compared, model).compare()
        # The model's own is a float32, and a scheduler may have moved it.
        return dataclasses.replace(comparison, name=point.loss or "plain", lambda_c=point.lambda_c)


class _Progress(keras.callbacks.Callback):
    """Tells how far the training is."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        epochs = (self.params or {}).get("epochs") or 1
        # The rest is evaluation.
        self.report(0.95 * min(1.0, (epoch + 1) / epochs))


def _joined_batches(data: dict[str, Any], ids: Any) -> tuple[dict[str, Any], Any]:
    """The data with batches in a list as arrays, and the ids with those that such batches bring."""
    joined, brought = dict(data), {}
    for name, each in data.items():
        if is_list_of_batches(each):
            batches = ListedBatches(each, name)
            joined[name] = batches.arrays()
            if batches.ids is not None:
                brought[name] = batches.ids
    return joined, {**brought, **ids} if isinstance(ids, Mapping) else ids


class _Data:
    """One data set of a sweep, as it was given."""

    def __init__(self, name: str, given: Any, h1: Any) -> None:
        self.given = given
        self.length: int | None = None
        # Data that are trained on go on from epoch to epoch; others are read as they are, whatever their order.
        self.pristine = given if name == "train" and isinstance(given, keras.utils.PyDataset) else None
        self.is_function = (
            callable(given) and not hasattr(given, "__iter__") and not isinstance(given, keras.utils.PyDataset)
        )
        self.is_storable = False
        self.kind = type(given).__name__
        if self.is_function:
            self.kind, self.told = "a function", f"made by {_told(given)}"
            return
        try:
            read = ValidationData(given)
        except (TypeError, ValueError) as error:
            text = str(error).replace("validation_data", name)
            raise type(error)(text) from None
        self.length = read.length
        if self.length is not None:
            self.is_storable = all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(given[0]))
            self.told = f"{self.length} items, {_told_arrays(given)}"
            return
        self.told = self.kind
        with suppress(TypeError):
            self.told += f" of {len(given)} batches"
        if is_dataset(given):
            self._look_at_dataset(name, given, h1)
        elif name == "train" and getattr(given, "generator", None) is not None:
            warnings.warn(
                "The training data draw their order from a generator of their own, which goes on from point to point: "
                "pass a function that makes the loader, train=lambda: DataLoader(...).",
                stacklevel=4,
            )

    def _look_at_dataset(self, name: str, dataset: Any, h1: Any) -> None:
        first, again = _first_batches(dataset), _first_batches(dataset)
        if not first:
            raise ValueError(f"{name} must hold at least one batch. Received: an empty data set.")
        if first != again:
            if name == "train":
                warnings.warn(
                    "The training data give other first batches when they are read again, so that the order goes on "
                    "from point to point, and depends on which points were trained before: pass a function that makes "
                    "the data set, train=lambda: dataset.shuffle(...).batch(...), which is called after the seed was "
                    "set.",
                    stacklevel=5,
                )
            return
        self.told += f", begins with {'-'.join(first)}"
        try:
            inputs = getattr(h1, "inputs", None) if isinstance(h1, keras.Model) else None
            ranks = [len(tensor.shape) for tensor in keras.tree.flatten(inputs)] if inputs else None
            items = DatasetItems(dataset, ranks)
        except (TypeError, ValueError):
            return
        # One of items would be trained on as one batch.
        self.is_storable = items.batched

    def made(self) -> Any:
        """The data, made anew where a function makes them."""
        if self.pristine is not None:
            # Its order may go on from epoch to epoch; every point begins with the one that was given.
            return copy.deepcopy(self.pristine)
        return self.given() if self.is_function else self.given


class _Answers:
    """h1's answers about data that come in batches, found again by the content of an instance.

    Such data may be shuffled anew for every pass. An instance that h1 was not asked about, such as one that was
    augmented at random, is asked about when it comes.
    """

    def __init__(self, rows: NDArray[Any], hashes: NDArray[np.uint64]) -> None:
        self.rows, self.hashes = rows, hashes
        self.positions: NDArray[np.int64] | None = None

    @classmethod
    def asked(cls, h1: Any, data: ValidationData) -> _Answers:
        """Ask h1 about all instances."""
        ask, rows, hashes = asking(h1), [], []
        for batch in data:
            rows.append(ask(batch.x))
            hashes.append(_hashes(batch.x))
        if not rows:
            raise ValueError("The data must hold at least one batch. Received: none.")
        return cls(np.concatenate(rows), np.concatenate(hashes))

    @classmethod
    def load(cls, path: Path) -> _Answers:
        """Read what `save` wrote.

        Raises:
            ValueError: The file is damaged.
        """
        try:
            arrays = read_archive(path)
            return cls(arrays["rows"], arrays["hashes"])
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{path} is damaged ({error}). Remove it, and call the sweep again with the same folder: it asks h1 "
                "once more."
            ) from error

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, rows=self.rows, hashes=self.hashes)
        write_whole(path, buffer.getvalue())

    def as_stored(self) -> StoredOutputs:
        """The answers, for what they are: scores or labels."""
        return StoredOutputs(self.rows, "answers")

    def joined(self, h1: Any, data: ValidationData, columns: int) -> _Batches:
        """Batches with h1's answers beside the labels; after a pass `positions` says which instances came."""
        classes = columns if self.rows.dtype.kind in "iu" else None

        def batches() -> Iterator[tuple[Any, Any]]:
            waiting: dict[int, deque[int]] = {}
            for position, key in enumerate(self.hashes.tolist()):
                waiting.setdefault(key, deque()).append(position)
            found: list[int] = []
            for batch in data:
                positions = []
                for key in _hashes(batch.x).tolist():
                    places = waiting.get(key)
                    # The last of a kind stays, for one that comes more often than before.
                    place = -1 if places is None else places.popleft() if len(places) > 1 else places[0]
                    positions.append(place)
                rows = asking(h1)(batch.x) if -1 in positions else self.rows[positions]
                found += positions
                yield batch.x, join_reference(batch.y, rows, classes)
            self.positions = np.array(found, np.int64)

        return _Batches(batches)

    def ids_after_pass(self, ids: Any) -> Callable[[int], Any]:
        """Ids of as many labels as came in a pass, so that instances keep theirs in whatever order they came."""

        def found(size: int) -> Any:
            positions, expected = self.positions, np.arange(len(self.hashes))
            assert positions is not None
            if ids is not None and not np.array_equal(positions, expected):
                raise ValueError(
                    "ids need data that give the same instances in the same order in every pass, as they do not say "
                    "which instance they name: leave ids out, or take out shuffling and random augmentation."
                )
            is_whole = np.array_equal(np.sort(positions), expected) and len(positions) == size
            return positions if ids is None and is_whole else ids

        return found


class _Batches:
    """Batches that a function makes, to be read as often as wanted."""

    def __init__(self, batches: Callable[[], Iterator[tuple[Any, Any]]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._batches()


class _Remade(NamedTuple):
    """An optimizer, a metric or a loss, to be made anew of its config."""

    kind: type[Any]
    config: dict[str, Any]

    def made(self) -> Any:
        return self.kind.from_config(copy.deepcopy(self.config))


class _Packed(NamedTuple):
    """A Keras model on its way to another process, with the classes that it is made of."""

    content: bytes
    custom_objects: dict[str, Any]


def _packed(model: Any) -> Any:
    if not isinstance(model, keras.Model):
        return model
    custom = dict(keras.saving.get_custom_objects())
    for layer in (model, *model._flatten_layers()):
        custom |= {type(layer).__name__: type(layer), keras.saving.get_registered_name(type(layer)): type(layer)}
    own = ("keras", "bc_keras", "bc_core")
    custom = {name: each for name, each in custom.items() if str(each.__module__).split(".")[0] not in own}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _MODEL
        model.save(path)
        return _Packed(path.read_bytes(), custom)


def _unpacked(model: Any) -> Any:
    if not isinstance(model, _Packed):
        return model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _MODEL
        path.write_bytes(model.content)
        return keras.saving.load_model(path, custom_objects=model.custom_objects, compile=False, safe_mode=False)


def _cloned(model: Any) -> Any:
    """A model of the same config and weights, with random generators of its own."""
    clone = keras.models.clone_model(model)
    if not clone.built:
        clone.build_from_config(model.get_build_config())
    clone.set_weights(model.get_weights())
    return clone


def _checked_h2(h2: Any) -> Any:
    if isinstance(h2, keras.Model):
        if not h2.built:
            raise ValueError(
                "h2 has no weights yet, so that points could not start alike: call it once on a batch, or pass a "
                f"function that makes it. Received: the unbuilt h2={h2.name!r}."
            )
        try:
            _cloned(h2)
        except Exception as error:
            raise ValueError(
                "h2 cannot be copied by its config and weights: pass a function that makes it. Received: "
                f"h2={h2.name!r}, {type(error).__name__}: {error}"
            ) from error
    elif not callable(h2):
        raise TypeError(f"h2 must be a Keras model, or a function that makes one. Received: h2={h2!r}.")
    return h2


def _checked_losses(losses: Any) -> dict[str, Any]:
    if isinstance(losses, str):
        losses = [losses]
    if not isinstance(losses, Mapping | Sequence):
        raise TypeError(f"losses must be names, or a dictionary of names and losses. Received: losses={losses!r}.")
    if not losses:
        raise ValueError("losses must name at least one loss. Received: none.")
    given = losses.items() if isinstance(losses, Mapping) else [(name, name) for name in losses]
    checked: dict[str, Any] = {}
    for name, loss in given:
        if not isinstance(name, str):
            raise TypeError(f"losses must be names, or a dictionary of names and losses. Received: losses={losses!r}.")
        known = (*DISSONANCES, *MODEL_LOSSES)
        if isinstance(loss, str) and loss not in known:
            near = difflib.get_close_matches(loss, known, n=1)
            raise ValueError(
                f"losses must be of {', '.join(map(repr, known))}{f'; perhaps {near[0]!r}' if near else ''}. The base, "
                f"such as 'sparse_categorical_crossentropy', goes to compile. Received: {loss!r}."
            )
        checked[name] = loss
    return checked


def _checked_compile(given: Any) -> Any:
    if callable(given):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(
            "compile must hold arguments of compile, such as {'optimizer': 'adam', 'loss': "
            f"'sparse_categorical_crossentropy'}}, or be a function that returns them. Received: compile={given!r}."
        )
    return {name: _as_remade(value) for name, value in given.items()}


def _checked_fit(fit: Any) -> dict[str, Any]:
    if not isinstance(fit, Mapping):
        raise TypeError(
            f"fit must hold arguments of fit, such as {{'epochs': 10, 'batch_size': 64}}. Received: fit={fit!r}."
        )
    for name, place in (
        ("x", "train=(x, y)"),
        ("y", "train=(x, y)"),
        ("sample_weight", "train=(x, y, sample_weight)"),
        ("validation_data", "val=..., which fit gets where it has callbacks"),
    ):
        if name in fit:
            raise TypeError(f"{name} does not go to fit here but to {place}. Received: fit={list(fit)!r}.")
    epochs = fit.get("epochs", 1)
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"epochs must be a whole number >= 1. Received: fit={{'epochs': {epochs!r}}}.")
    return dict(fit)


def _as_remade(value: Any) -> Any:
    """Objects with a state of their own, as what they are made of."""

    def leaf(each: Any) -> Any:
        is_loss = isinstance(each, keras.losses.Loss) and type(each).get_config is not keras.losses.Loss.get_config
        if not (isinstance(each, keras.optimizers.Optimizer | keras.metrics.Metric) or is_loss):
            return each
        remade = _Remade(type(each), each.get_config())
        try:
            remade.made()
        except Exception as error:
            raise TypeError(
                f"{type(each).__name__} cannot be made anew of its config for every point: pass a function, "
                f"compile=lambda: {{...}}. Received: {type(error).__name__}: {error}"
            ) from error
        return remade

    return _mapped(value, leaf)


def _remade(value: Any) -> Any:
    return _mapped(value, lambda each: each.made() if isinstance(each, _Remade) else each)


def _mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _mapped(each, leaf) for key, each in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, _Remade):
        return type(value)([_mapped(each, leaf) for each in value])
    return leaf(value)


def _check_finite(h2: Any) -> None:
    for weight in h2.trainable_weights:
        if not np.isfinite(np.asarray(ops.convert_to_numpy(weight.value), np.float64)).all():
            raise ValueError(
                f"The training diverged: the weight {weight.path} of h2 is NaN or infinite. Take a smaller learning "
                "rate, or gradient clipping."
            )


def _name_of(h2: Any) -> str:
    layers = list(h2._flatten_layers())
    name = fingerprint(h2) if h2.built else f"unbuilt {', '.join(type(layer).__name__ for layer in layers)}"
    return f"{name} {code_of(map(type, [h2, *layers]), _special)}".strip()


def _first_batches(dataset: Any) -> list[str]:
    """What the first batches of a data set hold, in short."""
    found = []
    for element in dataset.take(2):
        digest = hashlib.blake2b(digest_size=4)
        for leaf in keras.tree.flatten(element):
            digest.update(_bytes_of(to_numpy(leaf, "data")))
        found.append(digest.hexdigest())
    return found


def _hashes(x: Any) -> NDArray[np.uint64]:
    """Hash the content of each instance of a batch."""
    arrays = [to_numpy(leaf, "x") for leaf in keras.tree.flatten(x)]
    digests = []
    for row in range(len(arrays[0])):
        digest = hashlib.blake2b(digest_size=8)
        for array in arrays:
            digest.update(_bytes_of(array[row]))
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), np.uint64)


def _bytes_of(array: Any) -> bytes:
    array = np.asarray(array)
    head = f"{array.dtype.kind}{array.shape}".encode()
    # Text has as many bytes as the longest of its batch.
    return head + (repr(array.tolist()).encode() if array.dtype.kind in "OSU" else array.tobytes())


def _told_arrays(parts: Any) -> str:
    """Types and shapes of arrays, and a hash of a few rows."""
    arrays = [to_numpy(leaf, "data") for part in parts for leaf in keras.tree.flatten(part)]
    length = len(arrays[0])
    rows = sorted({round(float(row)) for row in np.linspace(0, length - 1, _SAMPLED_ROWS)})
    digest = hashlib.blake2b(digest_size=4)
    for array in arrays:
        digest.update(_bytes_of(array[rows]))
    shapes = ", ".join(f"{array.dtype} {array.shape[1:]}" for array in arrays)
    return f"{shapes}, {digest.hexdigest()}"


def _told(value: Any) -> str:
    return told(value, _special)


def _special(value: Any) -> str | None:
    if isinstance(value, _Remade):
        # Keras numbers names of its own making, anew with every object.
        return f"{value.kind.__name__}({_told({key: part for key, part in value.config.items() if key != 'name'})})"
    if isinstance(value, ModelLoss):
        return f"{type(value).__name__}({_told(value.criterion.get_config())})"
    if isinstance(value, keras.losses.Loss | keras.optimizers.schedules.LearningRateSchedule):
        return f"{type(value).__name__}({_told(value.get_config())})"
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic):
        return f"array {hashlib.blake2b(_bytes_of(to_numpy(value, 'value')), digest_size=4).hexdigest()}"
    return None
