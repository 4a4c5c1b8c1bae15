"""`sweep`: the same update trained with many values of lambda_c, and compared."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
import io
import logging
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, default_collate, default_convert

from bc_core import Comparison, Sweep
from bc_core._arrays import check_unique_ids, id_array
from bc_core.comparison._comparison import Metadata
from bc_core.comparison._evaluation import performance
from bc_core.files._files import write_whole
from bc_core.losses._dissonances import DISSONANCES
from bc_core.losses._options import known
from bc_core.reference._stored_rows import sampled
from bc_core.sweep._folder import DATASETS, LOSS, Report, Trained
from bc_core.sweep._h1_performance import measured_h1
from bc_core.sweep._points import Point
from bc_core.sweep._running import run_sweep
from bc_core.sweep._told import code_of, plain_attributes, told
from bc_lightning._random_numbers import seeded
from bc_lightning._user_module import lightning_module_class, only_network
from bc_lightning.batches._attached import split_batch
from bc_lightning.batches._model_outputs import _part, begins_with_ids, inputs_from_batch
from bc_lightning.evaluation._evaluate import _evaluating, evaluate
from bc_lightning.losses._losses import MODEL_LOSSES, CompatibilityLoss, ModelLoss
from bc_lightning.reference._asked_items import NotRepeatableError
from bc_lightning.reference._fingerprint import fingerprint, fingerprint_data
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._stored import StoredOutputs, store_outputs
from bc_lightning.training._module import (
    BCLightningModule,
    _callers_lightning_module,
    criterion_of,
    reference_for,
    unwrap,
)
from bc_lightning.training._wrapped import compatibilities_of

# h1's kept scores may differ from its answer on another device or in another precision by this much of their size.
_SAME_ANSWER = 1e-2

# Arguments of a Trainer that say how long it trains, and those that change nothing about what it finds.
_LENGTHS = ("max_epochs", "max_steps", "max_time", "fast_dev_run")
_WITHOUT_EFFECT = (
    "default_root_dir",
    "enable_checkpointing",
    "enable_model_summary",
    "enable_progress_bar",
    "log_every_n_steps",
    "logger",
    "profiler",
)

# What a reference to h1 is made with.
_OF_H1 = ("scores", "h1_scores", "class_map")

# Items of a data set that are looked at to know it again.
_LOOKED_AT = 200

Loss = str | CompatibilityLoss | ModelLoss | type[ModelLoss]
Where = str | int | Callable[[Any], Any]


def sweep(
    h2: nn.Module | Callable[[], nn.Module],
    h1: Any,
    train: Any,
    *,
    val: Any = None,
    test: Any = None,
    folder: str | os.PathLike[str],
    lambdas: Iterable[float] | None = None,
    losses: Sequence[str] | Mapping[str, Loss] = ("new_error", "strict_imitation"),
    seeds: int | Iterable[int] = 0,
    trainer: Mapping[str, Any] | Callable[[], Any] | None = None,
    optimizer: Callable[..., Any] | None = None,
    lr_scheduler: Callable[..., Any] | None = None,
    base: str = "cross_entropy",
    normalization: str = "batch",
    loss_options: Mapping[str, Any] | None = None,
    inputs: Where | None = None,
    target: Where | None = None,
    scores: str | Callable[[Any], Tensor] | None = None,
    h1_scores: str | Callable[[Any], Tensor] | None = None,
    class_axis: int | None = None,
    call: str | int | Callable[[list[Any]], int] | None = None,
    class_map: Sequence[int] | None = None,
    ids: Where | None = None,
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
    kind, the same call goes on with the points that are missing, and ends with the same table. An error in one point is
    kept in `failures`, and the others go on. More lambdas, losses and seeds may be added to a folder later.

    Args:
        h2: a function that makes the update anew, such as a class, called after its seed was set; or a module, copied
            for every point. A LightningModule with its own steps and optimisers, or a plain module (see `optimizer`).
        h1: the model in use: a module, a callable, a `Reference`, or `StoredOutputs` to whose data sets the loaders'
            are attached.
        train: a `DataLoader`; a list of batches, those ``(ids, x, y)`` of BackwardCompatibilityML known as such; a
            function that makes one, called anew for each point after its seed was set; or a LightningDataModule with
            all data, then without `val` and `test`.
        val: the same, validation data, to choose on; the Trainer gets it too.
        test: the same, test data, which take part in nothing.
        folder: where everything goes, and is taken up again.
        lambdas: values of lambda_c. Default: `bc_core.log_lambdas()`, 0 and 0.25 to 16; the grid of
            BackwardCompatibilityML is `bc_core.linear_lambdas(step)`.
        losses: dissonances ("new_error", "strict_imitation", "imitation") or names of the eight losses; or a dictionary
            of names of your own and anything that `BCLightningModule` takes as `loss`.
        seeds: one seed or several; of each all points are trained.
        trainer: arguments of the `Trainer`, such as ``{"max_epochs": 10}``, or a function that makes one. One device
            for a point: several points may run side by side.
        optimizer: for a plain module, as in `BCLightningModule`.
        lr_scheduler: for a plain module, as in `BCLightningModule`.
        base: base of a loss that is given as a dissonance: what a plain module is trained with, and its form.
        normalization: of a loss that is given as a dissonance.
        loss_options: options of losses given by name.
        inputs: where the models' input is in a batch, as in `BCLightningModule`.
        target: where the target is in a batch.
        scores: what the class scores are, as in `BCLightningModule`, and so are the next three.
        h1_scores: the same for h1, where it differs.
        class_axis: which axis of scores with more than two holds the classes.
        call: which call counts where a step calls h2 several times.
        class_map: for an h1 with other classes.
        ids: where ids of the instances, each a different one, are in a batch: an index, a key or a function. Default:
            positions in the data.
        class_names: name of each class.
        metadata: text of an instance, by id.
        performance_metric: a function ``(model, dataset, device)`` that returns a number, for the columns
            `performance_h1` and `performance_h2`; `dataset` is the data loader.
        evaluate_on_train: whether the models are compared on the training data too.
        store_h1: whether h1's outputs are kept and read back while training. "auto" keeps them where each item of
            a data set is always the same and reaches the model as it is, and asks h1 in every step where not.
        save_models: whether each model's state dict is kept, as `model.pt`.
        tensorboard: whether each point writes a run with its curves, hyperparameters and comparisons under
            ``folder/tensorboard``. Default: where TensorBoard is installed.
        mlflow: track with MLflow: True, the name of an experiment, or a mapping with `experiment`, `run_name`,
            `tracking_uri`.
        engine: `"in_process"` (default), `"processes"` (of this machine, with one thread each) or `"ray"` (Ray Tune:
            several machines or GPUs; the folder must be one that all see).
        workers: points at a time, for the latter two.
        background: return at once; see `Sweep.status` and `Sweep.wait`.
        progress_bar: whether to show progress and the time left.
        ray_options: `resources_per_point` (such as ``{"cpu": 2, "gpu": 1}``), `init` (arguments of `ray.init`),
            `tune_config`, `storage_path`.

    Returns:
        The sweep: `table()`, `comparison(...)`, `pareto()`, `best("nfr <= 0.5%")`, `plot()`, `to_html(path)`.

    Raises:
        TypeError: an argument of a wrong kind.
        ValueError: an argument out of range; the folder of another sweep (says what differs); several devices.
        RuntimeError: another sweep is at work in the folder.
        SweepFailedError: every point failed.
        FullDiskError: the disk is full; what is finished stays.

    Example:
        >>> import tempfile, torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from bc_lightning import sweep
        >>> x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        >>> data = DataLoader(TensorDataset(x, x.argmax(1) % 3), batch_size=10, shuffle=True)
        >>> h1 = torch.nn.Linear(4, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = sweep(
        ...         lambda: torch.nn.Linear(4, 3), h1, data, test=data, folder=folder, lambdas=[0, 1],
        ...         trainer={"max_epochs": 1}, optimizer=torch.optim.Adam, tensorboard=False, progress_bar=False,
        ...     )
        ...     [(row["loss"], row["lambda_c"]) for row in found.rows("test")]
        [('new_error', 0.0), ('new_error', 1.0), ('strict_imitation', 0.0), ('strict_imitation', 1.0)]
    """
    recipe = _Recipe.of(
        h2,
        h1,
        train,
        val,
        test,
        losses=losses,
        trainer=trainer,
        optimizer=optimizer,
        lr_scheduler=lr_scheduler,
        base=base,
        normalization=normalization,
        loss_options=loss_options,
        inputs=inputs,
        target=target,
        scores=scores,
        h1_scores=h1_scores,
        class_axis=class_axis,
        call=call,
        class_map=class_map,
        ids=ids,
        class_names=class_names,
        metadata=metadata,
        performance_metric=performance_metric,
        evaluate_on_train=evaluate_on_train,
        store_h1=store_h1,
        save_models=save_models,
        tensorboard=tensorboard,
    )
    return run_sweep(
        recipe,
        folder=folder,
        losses=list(recipe.losses),
        lambdas=lambdas,
        seeds=seeds,
        share_plain=recipe.shares_plain(),
        engine=engine,
        workers=workers,
        background=background,
        progress_bar=progress_bar,
        ray_options=ray_options,
        mlflow=mlflow,
    )


@dataclasses.dataclass
class _Recipe:
    """How a point is trained in Lightning; travels to other processes."""

    h2: Any
    h1: Any
    data: _Data
    losses: dict[str, tuple[Loss, dict[str, Any]]]
    trainer: Any
    module: dict[str, Any]
    class_names: tuple[str, ...] | None
    tensorboard: bool
    base_class: type[Any]
    ids: Any = None
    metadata: Any = None
    performance_metric: Any = None
    evaluate_on_train: bool = True
    store_h1: bool | str = "auto"
    save_models: bool = True
    folder: Path | None = None
    tracking: Any = None
    # By data set: the folder of h1's outputs, or None where they are not kept.
    kept: dict[str, Path | None] = dataclasses.field(default_factory=dict)
    h1_performances: dict[str, float] = dataclasses.field(default_factory=dict)
    # Data sets whose ids were seen to be unique.
    checked_ids: set[str] = dataclasses.field(default_factory=set)
    # Whether h1's kept outputs were seen to be its answer to what h2 is given.
    seen_alike: bool = False

    @classmethod
    def of(cls, h2: Any, h1: Any, train: Any, val: Any, test: Any, **given: Any) -> _Recipe:
        """The recipe that `sweep` runs for these arguments."""
        options = {
            name: given.pop(name, None)
            for name in ("inputs", "target", "class_axis", "call", "optimizer", "lr_scheduler", *_OF_H1)
        }
        if options["class_map"] is not None:
            options["class_map"] = list(options["class_map"])
        names, trainer = given.pop("class_names", None), given.pop("trainer", None)
        tensorboard = given.pop("tensorboard", None)
        losses = _checked_losses(
            given.pop("losses", ("new_error", "strict_imitation")),
            given.pop("base", "cross_entropy"),
            given.pop("normalization", "batch"),
            given.pop("loss_options", None) or {},
        )
        return cls(
            h2=h2,
            h1=h1,
            data=_Data(train, val, test),
            losses=losses,
            trainer={} if trainer is None else trainer,
            module=options,
            class_names=None if names is None else tuple(names),
            tensorboard=importlib.util.find_spec("tensorboard") is not None if tensorboard is None else tensorboard,
            base_class=_callers_lightning_module(),
            **given,
        )

    def __post_init__(self) -> None:
        if self.store_h1 not in (True, False, "auto"):
            raise ValueError(f"store_h1 must be True, False or 'auto'. Received: store_h1={self.store_h1!r}.")
        if not isinstance(self.h2, nn.Module) and not callable(self.h2):
            raise TypeError(f"h2 must be a module, or a function that makes one. Received: h2={self.h2!r}.")
        if not (isinstance(self.trainer, Mapping) or callable(self.trainer)):
            raise TypeError(
                'trainer must hold arguments of the Trainer, such as {"max_epochs": 10}, or be a function that makes '
                f"one. Received: trainer={self.trainer!r}."
            )
        if isinstance(self.trainer, Mapping) and not any(self.trainer.get(name) for name in _LENGTHS):
            raise ValueError(
                "The trainer must say how long to train, or Lightning trains each point for 1000 epochs: "
                f'trainer={{"max_epochs": 10}}. Received: trainer={self.trainer!r}.'
            )
        if self.performance_metric is not None and not callable(self.performance_metric):
            raise TypeError(
                "performance_metric must be a function (model, dataset, device). Received: "
                f"performance_metric={self.performance_metric!r}."
            )
        # Of one seed, whichever are asked for: more may be added later.
        with seeded(0):
            first = self.made_h2()
        self.reference = reference_for(first, self.h1, **{name: self.module[name] for name in _OF_H1})
        code = code_of(map(type, first.modules()), _special)
        self.initial = f"{fingerprint(first)} {_told(str(first))} {plain_attributes(first, _special)} {code}".strip()
        self.plain = lightning_module_class(type(first)) is None
        if self.plain and self.module["optimizer"] is None:
            raise ValueError(
                "A plain module needs an optimiser: give its class, or a function of the parameters, such as "
                "optimizer=torch.optim.SGD or optimizer=lambda params: torch.optim.Adam(params, lr=1e-3). "
                f"Received: h2 that makes {type(first).__name__}, optimizer=None."
            )
        self._find_ids()
        self.augments = any(_is_own_hook(owner, hook) for owner in (first, self.data.module) for hook in _BATCH_HOOKS)
        # What does not fit is told before the first hour of training.
        for name in self.losses:
            self.wrapped(copy.deepcopy(first), Point(name, 1.0, 0), self.reference)

    def _find_ids(self) -> None:
        """Know batches ``(ids, x, y)`` in a list, and refuse what only looks like them, or ids that name two instances.

        Of a list all ids are at hand: different ones for all instances are no other numbers by chance.
        """
        places = {"ids": self.ids, "inputs": self.module["inputs"], "target": self.module["target"]}
        listed = {name: data for name, data in self.data.given.items() if isinstance(data, (list, tuple))}
        if all(place is None for place in places.values()):
            where = {"ids": 0, "inputs": 1, "target": 2}
            if not self.data.begin_with_ids():
                return
            named = all(begins_with_ids(batch) for data in listed.values() for batch in data)
            if set(listed) < set(self.data.given) or not named:
                raise ValueError(
                    "The batches have three parts, of which the first looks like ids, and by default the first is the "
                    "input and the second the target: say what they are, "
                    f"{', '.join(f'{name}={place}' for name, place in where.items())}. "
                    "Received: train with batches of three, and none of these."
                )
            self.ids = where["ids"]
            self.module = {**self.module, "inputs": where["inputs"], "target": where["target"]}
        if self.ids is not None:
            for name, data in listed.items():
                _check_ids(data, self.ids, f"ids of {name}")
                self.checked_ids.add(name)

    def _bases(self) -> list[dict[str, str]]:
        """What each loss is at lambda_c = 0."""
        bases = []
        for loss, options in self.losses.values():
            settings = _settings(criterion_of(loss, 0.0, options))
            bases.append({key: told for key, told in settings.items() if key not in ("dissonance", "normalization")})
        return bases

    def shares_plain(self) -> bool:
        """Whether all losses are one training at lambda_c = 0: their own base matters to plain modules only."""
        bases = self._bases()
        return not self.plain or all(base == bases[0] for base in bases)

    def plain_base(self) -> str:
        """What plain training minimises, where the losses say; it stands for all losses of the folder."""
        if not self.plain:
            return "the module's own"
        return _told(self._bases()[0]) if self.shares_plain() else "each loss has its own"

    def describe(self) -> dict[str, str]:
        trainer = self.trainer
        if isinstance(trainer, Mapping):
            trainer = {name: value for name, value in trainer.items() if name not in _WITHOUT_EFFECT}
        return {
            "framework": "Lightning",
            "h1": fingerprint(self.h1) if not isinstance(self.h1, StoredOutputs) else self.h1.fingerprint,
            "h2 before training": self.initial,
            **{f"{name} data": told for name, told in self.data.describe().items()},
            "trainer": _told(trainer),
            **{name: _told(value) for name, value in self.module.items()},
            "base of plain training": self.plain_base(),
            "ids": _told(self.ids),
            "class_names": _told(self.class_names),
            "performance_metric": _told(self.performance_metric),
            "evaluated on training data": str(self.evaluate_on_train),
            **{
                f"{LOSS}{name}": _told(criterion_of(loss, 1.0, options))
                for name, (loss, options) in self.losses.items()
            },
        }

    def made_h2(self) -> nn.Module:
        made = copy.deepcopy(self.h2) if isinstance(self.h2, nn.Module) else self.h2()
        if not isinstance(made, nn.Module):
            raise TypeError(f"h2 must make a module. Received from h2(): {type(made).__name__}.")
        return made

    def wrapped(self, h2: nn.Module, point: Point, h1: Any) -> Any:
        name = next(iter(self.losses)) if point.loss is None else point.loss
        loss, options = self.losses[name]
        given = {key: value for key, value in self.module.items() if value is not None}
        if isinstance(h1, Reference):
            given = {key: value for key, value in given.items() if key not in ("class_map", "h1_scores")}
        return BCLightningModule(
            h2,
            h1=h1,
            loss=loss,
            lambda_c=point.lambda_c,
            loss_options=options,
            lightning_module=self.base_class if self.plain else None,
            comparisons=False,
            **given,
        )

    # Once for all points

    def prepare(self, folder: Path) -> None:
        self.folder = folder
        if self.tensorboard:
            from bc_tensorboard.writing._sweep_log import log_plan

            shown = [name for name in self.data.names if name != "train" or self.evaluate_on_train]
            log_plan(folder, shown, self.performance_metric is not None)
        with seeded(0), _quiet():
            loaders = self.data.loaders()
            if self.ids is not None:
                for name, loader in loaders.items():
                    if (name != "train" or self.evaluate_on_train) and name not in self.checked_ids:
                        _check_ids(loader, self.ids, f"ids of {name}")
            for name in self.evaluated(loaders):
                self.kept[name] = self._keep(loaders[name], folder / "h1" / name)
            if self.performance_metric is not None:
                shown = [name for name in loaders if name != "train" or self.evaluate_on_train]
                asked = self.reference.module if self.reference.module is not None else self.h1
                with _evaluating(asked):
                    self.h1_performances = measured_h1(
                        self.performance_metric,
                        None if self.reference.is_stored else asked,
                        loaders,
                        shown,
                        folder / "h1" / "performance.json",
                    )

    def evaluated(self, loaders: Mapping[str, Any]) -> list[str]:
        return [name for name in loaders if name != "train" or self.evaluate_on_train or self.store_h1 is not False]

    def _keep(self, loader: Any, path: Path) -> Path | None:
        if (
            self.store_h1 is False
            or not self.data.are_objects
            or not _is_read_whole(loader)
            or self.reference.is_stored
            or self.augments
        ):
            if self.store_h1 is True:
                hooked = " whose batches are changed by a transfer hook" if self.augments else ""
                raise ValueError(
                    "store_h1=True needs a torch DataLoader over a whole map-style data set, whose batches reach the "
                    "model as they are, and an h1 that can be asked. Received: "
                    f"{type(loader).__name__} of {type(getattr(loader, 'dataset', None)).__name__}{hooked}; leave "
                    "store_h1 out."
                )
            return None
        if not self.reference.answers_whole:
            # An h1 without forward is asked part by part, as h2's steps are seen to do.
            if self.store_h1 is True:
                self.reference.check_answers()
            return None
        try:
            quiet = _package_of(self.base_class).Trainer(
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                # The sweep has a bar of its own.
                enable_progress_bar=False,
            )
            store_outputs(
                self.reference,
                loader.dataset,
                path,
                trainer=quiet,
                batch_size=loader.batch_size,
                num_workers=loader.num_workers,
                inputs=self.module["inputs"],
                collate_fn=loader.collate_fn,
            )
        except NotRepeatableError:
            # Random augmentation.
            if self.store_h1 is True:
                raise
            return None
        except ValueError as error:
            if not (path / "header.json").exists() and self.store_h1 is not True:
                # An h1 that this cannot store, such as one without a row for each instance.
                return None
            raise ValueError(f"{path.parent.parent} is the folder of another sweep, or h1 changed: {error}") from error
        return path

    # One point

    def train(self, point: Point, directory: Path, report: Report) -> Trained:
        try:
            return self._train(point, directory, report)
        except _OtherInputsError as error:
            if self.store_h1 is True:
                raise ValueError(f"{error} Leave store_h1 out, or give False.") from None
            # The same for every point, so that they stay comparable.
            self.store_h1 = False
            return self._train(point, directory, report)
        finally:
            self.data.rewind(to_the_call=True)

    def _train(self, point: Point, directory: Path, report: Report) -> Trained:
        with seeded(point.seed), _quiet():
            self.data.rewind()
            h2 = self.made_h2()
            loaders = self.data.loaders()
            attached = {name: self._attached(name, loader) for name, loader in loaders.items()}
            reads = self.store_h1 is not False and attached["train"] is not None
            reads = reads and ("val" not in attached or attached["val"] is not None)
            reference = attached["train"][1] if reads and attached["train"] is not None else None
            module = self.wrapped(h2, point, self.reference if reference is None else self._rows_of(reference))
            given = {name: attached[name][0] if reads and attached[name] else loaders[name] for name in loaders}  # type: ignore[index]
            trainer = self._trainer(module, point, report, check=reads)
            if self.data.module is None:
                trainer.fit(module, given["train"], given.get("val"))
            else:
                trainer.fit(module, datamodule=self.data.set_up(loaders))
            if getattr(trainer, "interrupted", False):
                raise KeyboardInterrupt
            model = unwrap(module)
            # Lightning takes it off the device at the end.
            model.to(trainer.strategy.root_device)
            comparisons, performances = {}, {}
            for name in loaders:
                if name == "train" and not self.evaluate_on_train:
                    continue
                comparisons[name] = self._compared(trainer, model, loaders[name], attached[name], point)
                if self.performance_metric is not None:
                    device = next((p.device for p in model.parameters()), torch.device("cpu"))
                    with _evaluating(model):
                        value = performance(self.performance_metric(model, loaders[name], device), "h2")
                    performances[name] = (self.h1_performances[name], value)
            file = None
            if self.save_models:
                # In memory first: a full disk is then an OSError that says so.
                content = io.BytesIO()
                torch.save({key: value.cpu() for key, value in model.state_dict().items()}, content)
                file = "model.pt"
                write_whole(directory / file, content.getvalue())
            trained = Trained(comparisons, performances, file)
            if self.tensorboard and self.folder is not None:
                from bc_tensorboard.writing._sweep_log import log_point

                log_point(self.folder, point, trained)
            return trained

    def _rows_of(self, stored: StoredOutputs) -> Reference:
        return Reference.of(stored, class_map=self.module["class_map"])

    def _attached(self, name: str, loader: Any) -> tuple[Any, StoredOutputs] | None:
        """The loader on the data set that brings h1's kept outputs along."""
        path = self.kept.get(name)
        if path is None:
            return None
        stored = StoredOutputs.open(path)
        brings = {
            "num_workers": loader.num_workers,
            "collate_fn": stored.collate_fn(loader.collate_fn),
            "pin_memory": loader.pin_memory,
            "timeout": loader.timeout,
            "worker_init_fn": loader.worker_init_fn,
            "multiprocessing_context": loader.multiprocessing_context,
            "generator": loader.generator,
            "prefetch_factor": loader.prefetch_factor,
            "persistent_workers": loader.persistent_workers,
        }
        # The items were hashed when they were stored, and are looked at once more in the first batch.
        dataset = stored.attach(loader.dataset, verify=False)
        return DataLoader(
            dataset, batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last, **brings
        ), stored

    def _trainer(self, module: Any, point: Point, report: Report, check: bool) -> Any:
        package = _package_of(lightning_module_class(type(module)))
        if callable(self.trainer):
            trainer = self.trainer()
            if trainer.max_epochs is None and trainer.max_steps == -1:
                raise ValueError("The Trainer needs max_epochs or max_steps.")
        else:
            own = dict(self.trainer)
            # Callbacks keep what they have seen, and every point begins anew.
            callbacks = copy.deepcopy(own.pop("callbacks", None) or [])
            arguments = {
                "logger": False,
                "enable_checkpointing": any("Checkpoint" in type(each).__name__ for each in _listed(callbacks)),
                "enable_model_summary": False,
                "enable_progress_bar": False,
                "devices": 1,
                **own,
            }
            if "logger" not in own and self.tensorboard and self.folder is not None:
                curves = self.folder / "tensorboard" / point.name / "training"
                # Of an interrupted attempt.
                shutil.rmtree(curves, ignore_errors=True)
                arguments["logger"] = _curves_only(package.loggers.TensorBoardLogger)(
                    self.folder / "tensorboard", name=point.name, version="training", default_hp_metric=False
                )
            if self.tracking is not None and (child := self.tracking.child_run(point)) is not None:
                loggers = arguments["logger"] if isinstance(arguments["logger"], list) else [arguments["logger"]]
                arguments["logger"] = [
                    *(logger for logger in loggers if logger not in (False, None)),
                    # Whoever opened the run closes it.
                    _curves_only(package.loggers.MLFlowLogger, closes=False)(run_id=child[0], tracking_uri=child[1]),
                ]
            trainer = package.Trainer(callbacks=_listed(callbacks), **arguments)
        if trainer.num_devices * trainer.num_nodes > 1:
            raise ValueError(
                "A point of a sweep is trained on one device, and several points side by side (engine='ray', "
                f"ray_options={{'resources_per_point': {{'gpu': 1}}}}). Received: a Trainer on {trainer.num_devices} "
                f"devices of {trainer.num_nodes} machines; give devices=1."
            )
        trainer.callbacks.append(_callback_class(package)(report))
        if check and not self.seen_alike:
            trainer.callbacks.append(_check_class(package)(self))
        return trainer

    def _compared(
        self, trainer: Any, model: Any, loader: Any, attached: tuple[Any, StoredOutputs] | None, point: Point
    ) -> Comparison:
        data, h1 = loader, self.reference
        if _is_read_whole(loader):
            brings = loader if attached is None else attached[0]
            h1 = self.reference if attached is None else self._rows_of(attached[1])
            # In order, and all of it.
            data = DataLoader(
                brings.dataset,
                batch_size=loader.batch_size,
                collate_fn=brings.collate_fn,
                num_workers=loader.num_workers,
            )
        if self.augments:
            data = _Hooked(data, trainer, model, getattr(trainer, "datamodule", None))
        criterion = criterion_of(*self._loss_of(point))
        found = evaluate(
            h1,
            model,
            data,
            scores=self.module["scores"],
            h1_scores=self.module["h1_scores"],
            class_axis=self.module["class_axis"],
            class_names=self.class_names,
            metadata=self.metadata,
            name=point.loss or "plain",
            ids=self.ids,
            inputs=self._inputs,
            target=self.module["target"],
            threshold=float(criterion.options.get("threshold", 0.5)),
            from_logits=bool(criterion.options.get("from_logits", True)),
            multilabel=criterion.base == "binary_cross_entropy",
            ignore_index=criterion.options.get("ignore_index"),
        )
        return dataclasses.replace(found.comparison, lambda_c=point.lambda_c)

    def _inputs(self, batch: Any) -> Any:
        return inputs_from_batch(batch, self.module["inputs"])

    def _loss_of(self, point: Point) -> tuple[Loss, float, dict[str, Any]]:
        loss, options = self.losses[next(iter(self.losses)) if point.loss is None else point.loss]
        return loss, point.lambda_c, options

    def environment(self, threads: int) -> dict[str, str]:
        return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _package_of(lightning_module: type[Any]) -> Any:
    """The package, of two, that a LightningModule class comes from."""
    is_new = lightning_module.__module__.startswith("lightning.")
    return importlib.import_module("lightning.pytorch" if is_new else "pytorch_lightning")


def _curves_only(logger: Any, closes: bool = True) -> Any:
    """A Lightning logger without the module's hyperparameters: those of a run of the sweep are its point's."""

    class CurvesOnly(logger):  # type: ignore[misc]
        is_lost = False

        def log_metrics(self, *args: Any, **kwargs: Any) -> None:
            # Curves are no reason to lose a training.
            if not self.is_lost:
                try:
                    super().log_metrics(*args, **kwargs)
                except Exception as error:
                    self.is_lost = True
                    warnings.warn(
                        f"The curves of this point are no longer logged by {logger.__name__}: {error}",
                        RuntimeWarning,
                        stacklevel=2,
                    )

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            pass

        def finalize(self, status: str) -> None:
            if closes:
                super().finalize(status)

    return CurvesOnly


class _OtherInputsError(ValueError):
    """h2 is given something else than the items that h1's outputs were kept for."""


def _check_class(package: Any) -> type[Any]:
    class Check(package.Callback):  # type: ignore[misc]
        """Asks h1 once about what h2 was given, and compares with what was kept: a step may augment its batch."""

        def __init__(self, recipe: _Recipe) -> None:
            self.recipe = recipe
            self.given: list[tuple[Any, Any]] = []

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if self.recipe.seen_alike or self.given:
                return

            def noting(step: Any, args: Any, kwargs: Any) -> None:
                if step.stage == "train" and not self.given:
                    self.given.append((args, kwargs))

            compatibilities_of(module)[0].notice = noting

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.recipe.seen_alike or not self.given:
                return
            state = compatibilities_of(module)[0]
            state.notice, stored = None, state.run.incoming.rows
            args, kwargs = self.given.pop()
            reference = self.recipe.reference
            inner = isinstance(state.scores, str) and self.recipe.module["inputs"] is None
            if stored is None or (inner and only_network(unwrapped_view(module)) != state.scores):
                self.recipe.seen_alike = True
                return
            rows = reference.map_classes(stored, None) if reference.class_map is None else stored
            if self.recipe.module["inputs"] is not None:
                args, kwargs = (inputs_from_batch(batch, self.recipe.module["inputs"]),), {}
            answer = reference.ask(args, kwargs).to(rows.device)
            alike = answer.shape == rows.shape and _close(answer, rows)
            if not alike:
                raise _OtherInputsError(
                    "h1's answer to what the training step gives h2 is not the one kept for the same items of the data "
                    "set: the step or a transfer hook changes the batch (augmentation, mixup)."
                )
            self.recipe.seen_alike = True

    return Check


def _close(answer: Tensor, rows: Tensor) -> bool:
    if not answer.is_floating_point():
        return bool((answer == rows).all())
    answer, rows = answer.double(), rows.double()
    scale = rows.abs().max().clamp_min(1e-6)
    return bool((answer - rows).abs().max() <= _SAME_ANSWER * scale)


_BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def _is_own_hook(owner: Any, hook: str) -> bool:
    """Whether a module or data module brings a hook of its own, and not Lightning's."""
    found = getattr(owner, hook, None)
    return found is not None and not str(getattr(found, "__module__", "")).endswith(".core.hooks")


class _Hooked:
    """Batches as the models get them in the Trainer's own evaluation: through the batch hooks.

    As in Lightning, a hook of the data module goes before the model's own.
    """

    def __init__(self, loader: Any, trainer: Any, model: Any, data_module: Any) -> None:
        self.loader = loader
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.owners = {
            hook: data_module if data_module is not None and _is_own_hook(data_module, hook) else model
            for hook in _BATCH_HOOKS
        }
        for owner in {id(owner): owner for owner in self.owners.values()}.values():
            # Hooks ask `self.trainer.training`, which is over.
            if getattr(owner, "_trainer", trainer) is None:
                owner.trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        before, move, after = (getattr(self.owners[hook], hook, None) for hook in _BATCH_HOOKS)
        for brought in self.loader:
            given = before(brought, 0) if before else brought
            moved = move(given, self.device, 0) if move else given
            yield after(moved, 0) if after else moved


def unwrapped_view(module: Any) -> Any:
    """The module seen as its user's class, without unwrapping it."""
    view = object.__new__(module._user_class)
    view.__dict__ = module.__dict__
    return view


def _callback_class(package: Any) -> type[Any]:
    class Progress(package.Callback):  # type: ignore[misc]
        """Tells how far the training is."""

        def __init__(self, report: Report) -> None:
            self.report = report

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            shares = [
                done / limit
                for done, limit in (
                    (trainer.current_epoch + 1, trainer.max_epochs),
                    (trainer.global_step, trainer.max_steps),
                )
                if limit is not None and limit > 0
            ]
            if shares:
                # The rest is evaluation.
                self.report(0.95 * min(1.0, max(shares)))

    return Progress


class _Data:
    """The data loaders of a sweep, which give the same batches at every point of one seed."""

    def __init__(self, train: Any, val: Any, test: Any) -> None:
        self.given = {name: data for name, data in zip(DATASETS, (train, val, test), strict=True) if data is not None}
        if "train" not in self.given:
            raise TypeError("train is missing: pass a DataLoader, or a function that makes one. Received: train=None.")
        self.module = train if hasattr(train, "train_dataloader") and hasattr(train, "setup") else None
        if self.module is not None and len(self.given) > 1:
            raise TypeError("A LightningDataModule brings all data: leave out val and test.")
        for name, data in self.given.items():
            if hasattr(data, "__next__"):
                raise TypeError(
                    f"{name} is an iterator, which can be read once only, and every point reads the data. Received: "
                    f"{type(data).__name__}; pass a DataLoader, list(batches), or a function that makes the iterator."
                )
            if isinstance(data, (list, tuple)) and any(isinstance(part, DataLoader) for part in data):
                raise TypeError(f"{name} must be one DataLoader. Received: a {type(data).__name__} of several.")
            if self.module is None and not callable(data) and not _is_loader(data):
                raise TypeError(
                    f"{name} must be a DataLoader, another iterable of batches, or a function that makes one. "
                    f"Received: {type(data).__name__}"
                    + (
                        "; wrap it: DataLoader(dataset, batch_size=64)."
                        if isinstance(data, torch.utils.data.Dataset)
                        else "."
                    )
                )
        self.ready = False
        # A data module is set up once; until then its generators are where each call begins.
        self.generators = self._generators()
        self.given_states = self.states = [_state_of(generator) for generator in self.generators]

    def loaders(self) -> dict[str, Any]:
        """The loaders by data set; made anew where functions make them."""
        if self.module is None:
            made = {name: data if _is_loader(data) else data() for name, data in self.given.items()}
            # A Trainer takes a list to be several loaders.
            return {
                name: DataLoader(cast("Any", data), batch_size=None) if isinstance(data, (list, tuple)) else data
                for name, data in made.items()
            }
        # Where a module has no loader, Lightning's own answer is an exception.
        has = [name for name in DATASETS if _is_own_hook(self.module, f"{name}_dataloader")]
        if not self.ready:
            with seeded(0):
                self.module.prepare_data()
                self.module.setup("fit")
                if "test" in has:
                    self.module.setup("test")
            before = dict(zip(map(id, self.generators), self.given_states, strict=True))
            self.generators = self._generators()
            self.states = [_state_of(generator) for generator in self.generators]
            self.given_states = [
                before.get(id(each), state) for each, state in zip(self.generators, self.states, strict=True)
            ]
            self.ready = True
            self.rewind(to_the_call=True)
        made = {name: getattr(self.module, f"{name}_dataloader")() for name in has}
        for name, loader in made.items():
            if isinstance(loader, (list, tuple)) and all(isinstance(part, DataLoader) for part in loader):
                if len(loader) > 1:
                    raise TypeError(
                        f"{name} must be one data loader. Received from {name}_dataloader: {len(loader)} of them."
                    )
                made[name] = loader[0] if loader else None
        return {name: loader for name, loader in made.items() if loader is not None}

    def set_up(self, loaders: Mapping[str, Any]) -> Any:
        """The data module for a Trainer, which would set it up anew, at every point with other random numbers."""
        module = copy.copy(self.module)
        for hook in ("prepare_data", "setup", "teardown"):
            setattr(module, hook, lambda *args, **kwargs: None)
        for name, loader in loaders.items():
            setattr(module, f"{name}_dataloader", functools.partial(_given, loader))
        return module

    @property
    def are_objects(self) -> bool:
        """Whether the loaders are the same at every point; functions may draw other items with each seed."""
        return self.module is None and all(map(_is_loader, self.given.values()))

    @property
    def names(self) -> list[str]:
        """Names of the data sets."""
        return list(self.given if self.module is None else self.loaders())

    def begin_with_ids(self) -> bool:
        """Whether the training data are triples ``(ids, x, y)``, as far as can be told without asking a loader."""
        train = self.given["train"]
        if isinstance(train, (list, tuple)) and train:
            return begins_with_ids(train[0])
        if self.module is not None or not _is_read_whole(train) or not len(train.dataset):
            return False
        # Items may be augmented at random.
        with seeded(0):
            return begins_with_ids(train.dataset[0], batched=False)

    def rewind(self, to_the_call: bool = False) -> None:
        """Put every random generator of the loaders, their samplers and data sets where it was at the beginning.

        With `to_the_call` where the caller had it, for the next call; a data module draws while it is set up.
        """
        if self.module is not None and not self.ready:
            self.loaders()
        for generator, state in zip(self.generators, self.given_states if to_the_call else self.states, strict=True):
            _set_state(generator, copy.deepcopy(state))

    def describe(self) -> dict[str, str]:
        """What data these are, in short."""
        told = {}
        with seeded(0):
            loaders = self.loaders()
        for name, loader in loaders.items():
            dataset: Any = getattr(loader, "dataset", None)
            if isinstance(dataset, (list, tuple)):
                told[name] = f"{len(dataset)} batches {_short(fingerprint_data(dataset))}"
            elif _is_read_whole(loader):
                first = [fingerprint_data(dataset[index]) for index in sampled(len(dataset))]
                again = [fingerprint_data(dataset[index]) for index in sampled(len(dataset))]
                # Augmented items differ from reading to reading.
                shown = "augmented"
                if first == again:
                    spread = range(0, len(dataset), -(-len(dataset) // _LOOKED_AT))
                    items = [fingerprint_data(dataset[index]) for index in spread]
                    shown = _short(fingerprint_data(items))
                if type(dataset) is torch.utils.data.TensorDataset:
                    shown = f"{fingerprint_data(dataset.tensors) % 2**32:08x}"
                order = f"{type(loader.sampler).__name__}{', drop_last' if loader.drop_last else ''}"
                told[name] = f"{len(dataset)} items {shown}, batch_size {loader.batch_size}, {order}"
            else:
                told[name] = f"{type(loader).__name__} of {type(dataset).__name__}"
            if (collate := getattr(loader, "collate_fn", None)) not in (None, default_collate, default_convert):
                told[name] += f", {_told(collate)}"
        return told

    def _generators(self) -> list[Any]:
        found: dict[int, Any] = {}
        seen: set[int] = set()

        def look(thing: Any, depth: int) -> None:
            if isinstance(thing, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
                found[id(thing)] = thing
                return
            if id(thing) in seen or depth > 4 or isinstance(thing, (Tensor, np.ndarray, str, bytes, nn.Module)):
                return
            seen.add(id(thing))
            if isinstance(thing, (list, tuple)) and len(thing) <= 100:
                parts: Iterable[Any] = thing
            elif isinstance(thing, Mapping) and len(thing) <= 100:
                parts = thing.values()
            else:
                parts = getattr(thing, "__dict__", {}).values()
            for part in list(parts):
                look(part, depth + 1)

        for data in self.given.values():
            if self.module is not None or _is_loader(data):
                look(data, 0)
        return list(found.values())


def _short(fingerprint: int) -> str:
    """Half of a fingerprint, of both of its halves: numbers and texts are in the one, tensors in the other."""
    return f"{(fingerprint ^ fingerprint >> 32) % 2**32:08x}"


def _check_ids(batches: Iterable[Any], ids: Where, name: str) -> None:
    """Refuse ids that name several instances, or are none, before anything is trained."""
    found: list[Any] = []
    for brought in batches:
        batch, _ = split_batch(brought)
        found += id_array(_part(batch, ids, "ids"), name).tolist()
    check_unique_ids(found, name)


def _given(loader: Any) -> Any:
    return loader


def _state_of(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, (torch.Generator, np.random.RandomState)):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.setstate(state)


def _is_loader(data: Any) -> bool:
    return isinstance(data, DataLoader) or (
        hasattr(data, "__iter__") and not isinstance(data, torch.utils.data.Dataset)
    )


def _is_read_whole(loader: Any) -> bool:
    """Whether a loader reads every item of a data set once in each epoch, in whatever order."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, torch.utils.data.IterableDataset):
        return False
    if (
        loader.batch_size is None
        or not hasattr(loader.dataset, "__len__")
        or type(loader.batch_sampler)
        not in (
            type(None),
            torch.utils.data.BatchSampler,
        )
    ):
        return False
    sampler = loader.sampler
    if type(sampler) is SequentialSampler:
        return True
    return type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(loader.dataset)


def _checked_losses(
    losses: Sequence[str] | Mapping[str, Loss], base: str, normalization: str, options: Mapping[str, Any]
) -> dict[str, tuple[Loss, dict[str, Any]]]:
    if isinstance(losses, str):
        losses = [losses]
    if not losses:
        raise ValueError("losses must name at least one loss. Received: losses=().")
    given = losses.items() if isinstance(losses, Mapping) else [(name, name) for name in losses]
    checked: dict[str, tuple[Loss, dict[str, Any]]] = {}
    for name, loss in given:
        if not isinstance(name, str):
            raise TypeError(f"losses must be names, or a dictionary of names and losses. Received: {losses!r}.")
        if loss in DISSONANCES:
            made = CompatibilityLoss(
                base=cast("Any", base),
                dissonance=cast("Any", loss),
                normalization=cast("Any", normalization),
                **options,
            )
            checked[name] = (made, {})
        else:
            if isinstance(loss, str):
                known(loss, (*DISSONANCES, *MODEL_LOSSES), "losses")
            by_name = isinstance(loss, (str, type))
            checked[name] = (loss, dict(options) if by_name else {})
    return checked


def _settings(loss: CompatibilityLoss) -> dict[str, str]:
    settings = {"base": loss.base, "dissonance": loss.dissonance, "normalization": loss.normalization, **loss.options}
    return {name: _told(value) for name, value in settings.items() if value is not None}


def _told(value: Any) -> str:
    return told(value, _special)


def _special(value: Any) -> str | None:
    if isinstance(value, Tensor):
        return f"tensor {fingerprint_data(value):016x}"
    return f"{type(value).__name__}({_told(_settings(value))})" if isinstance(value, CompatibilityLoss) else None


def _listed(callbacks: Any) -> list[Any]:
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what a Trainer tells of itself at every point: devices, tips, and advice on workers."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*is smaller than the logging interval.*",
                ".*LeafSpec.*",
                ".*but have no `val_dataloader`.*",
                ".*but have no `validation_step`.*",
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
