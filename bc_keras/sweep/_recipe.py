"""The recipe of a sweep in Keras."""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from bc_core import Comparison
from bc_core._arrays import check_unique_ids, id_array
from bc_core.losses._dissonances import DISSONANCES
from bc_core.reference._weights import check_start_from
from bc_core.sweep._folder import DATASETS, Report, Trained
from bc_core.sweep._generators import Generators
from bc_core.sweep._points import Point
from bc_core.sweep._recipe import Fitted, Framework, Recipe
from bc_core.sweep._told import code_of
from bc_core.sweep._trackers import Tracker, tell
from bc_keras._copies import cloned
from bc_keras._random_numbers import seed_torch, seeded
from bc_keras.batches._validation_data import ValidationData
from bc_keras.losses._compatibility_loss import CompatibilityLoss
from bc_keras.losses._losses import MODEL_LOSSES, ModelLoss
from bc_keras.reference._blend import gives_logits
from bc_keras.reference._fingerprint import fingerprint
from bc_keras.reference._reference import Reference
from bc_keras.reference._stored import StoredOutputs, store_outputs
from bc_keras.reference._stored_dataset import is_dataset
from bc_keras.sweep._answers import Answers
from bc_keras.sweep._arguments import as_data, checked_compile, checked_fit, told_apart
from bc_keras.sweep._data import Data, joined_batches
from bc_keras.sweep._remade import MODEL_FILE, check_copied, packed, remade, unpacked
from bc_keras.sweep._told import special, told_of
from bc_keras.training._made_class import unwrap
from bc_keras.training._model import BCModel
from bc_keras.training._warm_start import warm_start
from bc_keras.training.compiled._score_scale import says_of
from bc_keras.training.data._compared_data import AskedData, ComparedData, HowToRead

# Rows at a time where the caller gave no batch_size; Keras's own 32 spends its time on the calls.
_BATCH_SIZE = 256

Loss = str | CompatibilityLoss | ModelLoss | type[ModelLoss]


class KerasRecipe(Recipe):
    """How a point is trained in Keras. Its arguments are those of `sweep`."""

    framework = Framework(
        keras.Model,
        "a Keras model",
        "keras.random, numpy.random or random",
        seeded,
        cloned,
        told_of,
        no_loss=" The base, such as 'sparse_categorical_crossentropy', goes to compile.",
    )

    def __init__(
        self,
        h2: Any,
        h1: Any,
        train: Any,
        val: Any,
        test: Any,
        losses: Any,
        compile: Any,
        fit: Any,
        model_options: Mapping[str, Any] | None,
        ids: Any,
        start_from: str | None = None,
        class_map: Any = None,
        **common: Any,
    ) -> None:
        self.starts_from_h1 = check_start_from(start_from)
        self.options, common = told_apart(model_options, class_map, common)
        super().__init__(h2, losses, tuple(MODEL_LOSSES), **common)
        if isinstance(h2, keras.Model):
            check_copied(h2)
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
        self.h1 = h1
        self.compile = checked_compile(compile)
        self.fit = checked_fit({} if fit is None else fit)
        given, ids = joined_batches(dict(zip(DATASETS, (train, val, test), strict=True)), {} if ids is None else ids)
        if given["train"] is None:
            raise TypeError("train is missing: pass (x, y), or another kind of data. Received: train=None.")
        self.data: dict[str, Data] = {}
        with seeded(0):
            for name, each in given.items():
                if each is not None:
                    self.data[name] = Data(name, each, h1)
        if not self.data["train"].is_function and not isinstance(train, keras.utils.PyDataset):
            # Of a torch loader. Others are compared on in the order that they come in, which ids may have to tell.
            self.generators = Generators([train])
        self.ids = self._checked_ids(ids)
        if self.store_h1 is True and not self.data["train"].is_storable:
            raise TypeError(
                "store_h1=True needs training data that stay the same: arrays, or a tf.data.Dataset without shuffling "
                f"and augmentation. Received: train={self.data['train'].kind}; leave store_h1 out."
            )
        self._attached: dict[str, Any] = {}
        self.references_beside = {
            who: Reference.of(self.beside[who]) for who in ("teacher", "plain") if self.beside[who] is not None
        }
        for who, reference in self.references_beside.items():
            if reference.stored is not None:
                raise TypeError(
                    f"{who} must be a model, or a blend of models: its outputs are stored here, for each of the data "
                    f"sets. Received: {who}={reference.h1!r}."
                )
        self._check_held_out()
        self._look_at_h2()

    def __getstate__(self) -> dict[str, Any]:
        state = {**super().__getstate__(), "_attached": {}, "h2": packed(self.h2)}
        # Where all of its answers are kept, it may be anything, such as a connection to a service.
        everything_kept = all(data.is_storable for data in self.data.values()) and self.store_h1 is not False
        asked = self.starts_from_h1 or self.beside["unlabelled"] is not None or self.promise_data is not None
        everything_kept = everything_kept and not asked
        state["h1"] = None if everything_kept and self.folder is not None else packed(self.h1)
        state["beside"] = {name: packed(given) for name, given in self.beside.items()}
        del state["references_beside"]
        config = keras.config
        state["settings"] = config.floatx(), config.dtype_policy().name, config.image_data_format()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        floatx, policy, image_data_format = state.pop("settings")
        keras.config.set_floatx(floatx)
        if keras.config.dtype_policy().name != policy:
            keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(image_data_format)
        state |= {"h1": unpacked(state["h1"]), "h2": unpacked(state["h2"])}
        state["beside"] = {name: unpacked(given) for name, given in state["beside"].items()}
        self.__dict__.update(state)
        given = {who: self.beside[who] for who in ("teacher", "plain") if self.beside[who] is not None}
        self.references_beside = {who: Reference.of(each) for who, each in given.items()}

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

    # What it is

    def _described(self) -> dict[str, str]:
        fit = {name: value for name, value in self.fit.items() if name != "verbose"}
        return {
            "framework": f"Keras on {keras.backend.backend()}, {keras.config.dtype_policy().name}",
            "h1": fingerprint(self.h1),
            **{f"{name} data": data.told for name, data in self.data.items()},
            "compile": told_of(self.compile),
            "fit": told_of(fit),
            "model_options": told_of(self.options),
        }

    def _told_beside(self, name: str, given: Any) -> str:
        if name in self.references_beside:
            return self.references_beside[name].fingerprint
        return told_of(given) if isinstance(given, float | str) else Data(name, as_data(given), self.h1).told

    def environment(self, threads: int) -> dict[str, str]:
        """Environment variables of a worker process that computes with so many threads."""
        backend = keras.backend.backend()
        environment = super().environment(threads) | {
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

    @property
    def _datasets(self) -> Sequence[str]:
        return list(self.data)

    def _made_data(self) -> dict[str, Any]:
        return {name: data.made() for name, data in self.data.items()}

    # h2

    def made_h2(self) -> Any:
        """An h2 as it is before the training."""
        made = super().made_h2()
        if isinstance(made, BCModel):
            raise TypeError("h2 must make the plain model, which is wrapped here. Received from h2(): a BCModel.")
        if self.starts_from_h1:
            warm_start(made, self.h1, self.class_map)
        return made

    def _name_of(self, h2: Any) -> tuple[str, str]:
        layers = list(h2._flatten_layers())
        weights = str(fingerprint(h2)) if h2.built else f"unbuilt {', '.join(type(layer).__name__ for layer in layers)}"
        return weights, code_of(map(type, [h2, *layers]), special)

    def _check(self, h2: Any) -> None:
        arguments = self._compile_arguments()
        if arguments.get("loss") is None and (names := [name for name in self.losses if self._is_dissonance(name)]):
            raise ValueError(
                "compile needs a loss, the base that is trained together with the dissonance, such as "
                f"compile={{'loss': 'sparse_categorical_crossentropy'}}. Received: none, and {names[0]!r} of losses "
                "brings none."
            )
        bases = set()
        for point in self._trial_points():
            model = self._wrapped(h2, point, self.h1)
            model.compile(**self._compile_arguments())
            if point.promise is None and model._compatibility.options.criterion is not None:
                config = model._compatibility.options.criterion.get_config()
                for what in ("dissonance", "normalization", "lambda_c", "name", "h1_from_logits", "validate_args"):
                    del config[what]
                bases.add(repr(config))
        # Of one base, or of that which is compiled.
        self.shares_plain = arguments.get("loss") is not None or len(bases) == 1

    def _is_dissonance(self, name: str) -> bool:
        loss = self.losses[name]
        return isinstance(loss, str) and loss in DISSONANCES

    def _dissonance_of(self, name: str) -> str:
        loss = self.losses[name]
        if isinstance(loss, str):
            return loss if loss in DISSONANCES else str(MODEL_LOSSES[loss].dissonance)
        return str(getattr(loss, "dissonance", "new_error"))

    def _beside(self, point: Point, stored: bool) -> dict[str, Any]:
        """Who is imitated beside h1, and inputs without labels, as `BCModel` takes them."""
        given = self._beside_h1(point)
        if "unlabelled" in given:
            given |= {"unlabelled_weight": self.unlabelled_weight, "mixed_labels": self.mixed_labels}
        for who in (who for who in self.references_beside if who in given):
            reference = given[who] = self.references_beside[who]
            if stored:
                # Rows alone may not tell what the model does.
                is_logits = gives_logits(reference, f"The {who} model")
                given[who] = Reference(self._stored("train", who), reference.class_map, from_logits=is_logits)
        return given

    def _wrapped(self, h2: Any, point: Point, h1: Any) -> BCModel:
        name = self._loss_of(point)
        kind = "dissonance" if self._is_dissonance(name) else "loss"
        given = {kind: self.losses[name], **self.options, **self._beside(point, isinstance(h1, StoredOutputs))}
        if point.promise is None:
            given["lambda_c"] = point.lambda_c
        else:
            given |= {"promise": point.promise, "promise_options": self.promise_options}
            given["promise_data"] = self.promise_data
        if not isinstance(self.losses[name], str | type):
            given.pop("loss_options", None)
        if self.beside["unlabelled"] is not None and "unlabelled" not in given:
            given.pop("unlabelled_batch_size", None)  # plain training reads none
        criterion = getattr(self.losses[name], "criterion", self.losses[name])
        if isinstance(h1, StoredOutputs) and given.get("h1_from_logits") is None:
            # Rows alone may not tell what the model does.
            given["h1_from_logits"] = getattr(criterion, "h1_from_logits", None)
            if given["h1_from_logits"] is None:
                given["h1_from_logits"] = says_of(self.h1).from_logits
        return BCModel(h2, h1=h1, **given)

    def _compile_arguments(self) -> dict[str, Any]:
        if callable(self.compile):
            made = self.compile()
            if not isinstance(made, Mapping):
                raise TypeError(
                    f"compile must return a mapping of arguments. Received from compile(): {type(made).__name__}."
                )
            return dict(made)
        return {name: remade(value) for name, value in self.compile.items()}

    def _not_finite(self, h2: Any) -> str | None:
        for weight in h2.trainable_weights:
            if not np.isfinite(np.asarray(ops.convert_to_numpy(weight.value), np.float64)).all():
                return str(weight.path)
        return None

    def _saved(self, h2: Any, directory: Path) -> str:
        network = unwrap(h2)
        network.compiled, network.optimizer = False, None  # whoever loads it predicts, with any loss's code or none
        network.save(directory / MODEL_FILE)
        return MODEL_FILE

    # h1

    @property
    def _trains_on_kept(self) -> bool:
        if self.store_h1 is False or not self.data["train"].is_storable:
            return False
        validates = self._has_callbacks or (self.promises and self.promise_data is None)
        return not validates or "val" not in self.data or self.data["val"].is_storable

    def _reads_kept(self, point: Point) -> bool:
        """Whether a point is trained on kept outputs: unlabelled inputs and data for a promise have none."""
        held_out = point.promise is not None and self.promise_data is not None
        asks = held_out and not isinstance(self.promise_data, float)
        return self._trains_on_kept and not asks and "unlabelled" not in self._beside_h1(point)

    def _keep_beside(self, who: str, name: str, data: Any, path: Path) -> None:
        if self.data[name].is_storable:
            self._keep(self.references_beside[who], data, path)

    def _keep_h1(self, name: str, data: Any, path: Path) -> None:
        if not self.data[name].is_storable:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not (file := path.with_suffix(".npz")).is_file():
                Answers.asked(self.h1, ValidationData(data)).save(file)
            return
        self._keep(self.h1, data, path)

    def _keep(self, h1: Any, data: Any, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        x, labels = (data, None) if is_dataset(data) else data[:2]
        begun = path.exists()
        try:
            store_outputs(h1, x, path, y=labels, batch_size=self._batch_size, verbose=0)
        except ValueError as error:
            if not begun:
                raise
            raise ValueError(f"{self.folder} is the folder of another sweep, or h1 changed: {error}") from error

    @property
    def _batch_size(self) -> int:
        return int(self.fit.get("batch_size") or _BATCH_SIZE)

    def _kept(self, name: str, who: str = "h1") -> Path:
        assert self.folder is not None
        return self.folder / who / name

    def _stored(self, name: str, who: str = "h1") -> StoredOutputs:
        return StoredOutputs.open(self._kept(name, who))

    def _joined(self, name: str, data: Any, columns: int, class_weight: Any = None, point: Point | None = None) -> Any:
        """Data that stay the same, with kept outputs beside the labels: h1's, and those that a point imitates."""
        others = [] if point is None else [who for who in self.references_beside if who in self._beside_h1(point)]
        key = ", ".join([name, *others, *(["weighted"] if class_weight is not None else [])])
        if key not in self._attached:
            stored = self._stored(name)
            parts = (data,) if is_dataset(data) else tuple(data)
            classes = columns if stored.labels_only else None
            beside: dict[str, Any] = {who: self._stored(name, who) for who in others}
            self._attached[key] = stored.attach(*parts, num_classes=classes, class_weight=class_weight, **beside)
        return self._attached[key]

    # One point

    def train(self, point: Point, directory: Path, report: Report) -> Trained:
        """Train and evaluate one point."""
        # What is there already is not gone through below, which takes a third of a second at every point.
        gc.freeze()
        try:
            return super().train(point, directory, report)
        finally:
            # Models and their compiled steps refer to themselves.
            gc.collect()
            gc.unfreeze()

    def _fit(self, h2: Any, data: Mapping[str, Any], point: Point, report: Report) -> Fitted:
        seed_torch(point.seed)
        columns = self._columns(h2, data["train"])
        model = self._wrapped(h2, point, self._stored("train") if self._reads_kept(point) else self.h1)
        model.compile(**self._compile_arguments())
        model.fit(**self._fit_arguments(data, columns, point, report))
        promised = model._compatibility.promised
        return Fitted(
            lambda name: self._compared(name, model, data[name], columns),
            None if promised is None else promised.keeper,
        )

    @property
    def _has_callbacks(self) -> bool:
        """Whether there is somebody of the caller's to look at validation data while training."""
        return bool(self.fit.get("callbacks")) and not self.fit.get("validation_split")

    def _validates(self, point: Point) -> bool:
        """Whether validation data go to the training of a point."""
        steers = point.promise is not None and self.promise_data is None
        return "val" in self.data and (self._has_callbacks or steers)

    def _fit_arguments(self, data: Mapping[str, Any], columns: int, point: Point, report: Report) -> dict[str, Any]:
        arguments = {"verbose": 0, **self.fit, "callbacks": self._callbacks(point, report)}
        given, validation = data["train"], data.get("val")
        reads = self._reads_kept(point)
        if reads:
            given = self._joined("train", given, columns, arguments.pop("class_weight", None), point)
        if self._validates(point):
            if reads:
                validation = self._joined("val", validation, columns, point=point)
            arguments["validation_data"] = tuple(validation) if isinstance(validation, list) else validation
        if isinstance(given, tuple | list):
            return arguments | dict(zip(("x", "y", "sample_weight"), given, strict=False))
        arguments["x"] = given
        arguments.pop("batch_size", None)
        if not isinstance(given, keras.utils.PyDataset):
            # Others have an order of their own; Keras warns that it leaves it alone.
            arguments["shuffle"] = False
        return arguments

    def _callbacks(self, point: Point, report: Report) -> list[Any]:
        callbacks = self.fit.get("callbacks")
        if callable(callbacks) and not isinstance(callbacks, keras.callbacks.Callback):
            callbacks = callbacks()
        else:
            # They keep what they have seen, and every point begins anew.
            callbacks = copy.deepcopy(callbacks)
        own = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks] if callbacks else []
        return [*own, _Told(point, report, self.trackers)]

    def _columns(self, h2: Any, train: Any) -> int:
        """Columns of h1's output beside a label: where h1 gives labels, they are made for these."""
        if self.class_map is not None:
            return len(self.class_map)
        if not h2.built:
            first = next(iter(ValidationData(train, *([1] if isinstance(train, tuple | list) else []))))
            h2(keras.tree.map_structure(ops.convert_to_tensor, first.x), training=False)
        shape = getattr(h2, "output_shape", None)
        return int(shape[-1]) if isinstance(shape, tuple) and len(shape) > 1 else 1

    def _compared(self, name: str, model: BCModel, data: Any, columns: int) -> Comparison:
        ids, batch_size = self.ids.get(name), None
        if self.data[name].is_storable:
            given, rows = self._joined(name, data, columns), self._stored(name)
            if not is_dataset(given):
                # Weights of instances do not count in a comparison.
                given, batch_size = given[:2], self._batch_size
        else:
            answers = Answers.load(self._kept(name).with_suffix(".npz"))
            given, rows = answers.joined(self.h1, ValidationData(data), columns), answers.as_stored()
            ids = answers.ids_after_pass(ids)
        compared = ComparedData(
            ValidationData(given, batch_size),
            Reference(rows, self.class_map),
            HowToRead(),
            ids=ids,
            class_names=self.class_names,
            metadata=self.metadata,
        )
        return AskedData(compared, model).compare()


class _Told(keras.callbacks.Callback):
    """Tells how far the training is, and whoever tracks it what was logged."""

    def __init__(self, point: Point, report: Report, trackers: Sequence[Tracker]) -> None:
        super().__init__()
        self.point, self.report, self.trackers = point, report, trackers

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        epochs = (self.params or {}).get("epochs") or 1
        # The rest is evaluation.
        self.report(0.95 * min(1.0, (epoch + 1) / epochs))
        tell(self.trackers, "log_epoch", self.point, epoch, logs)
