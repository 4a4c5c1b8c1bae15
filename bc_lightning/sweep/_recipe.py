"""The recipe of a sweep in Lightning."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bc_core import Comparison
from bc_core.files._files import write_whole
from bc_core.losses._dissonances import DISSONANCES
from bc_core.reference._class_map import ClassMap
from bc_core.reference._weights import check_start_from
from bc_core.sweep._folder import Report, Trained
from bc_core.sweep._points import Point
from bc_core.sweep._recipe import OF_ALL_FRAMEWORKS, Fitted, Framework, Recipe
from bc_core.sweep._told import code_of, plain_attributes
from bc_lightning._random_numbers import seeded
from bc_lightning._user_module import lightning_module_class
from bc_lightning.batches._model_outputs import begins_with_ids, inputs_from_batch
from bc_lightning.evaluation._evaluate import evaluate
from bc_lightning.losses._compatibility_loss import CompatibilityLoss
from bc_lightning.losses._losses import MODEL_LOSSES, ModelLoss
from bc_lightning.reference._asked_items import NotRepeatableError
from bc_lightning.reference._fingerprint import fingerprint
from bc_lightning.reference._modules import copied
from bc_lightning.reference._reference import Reference
from bc_lightning.reference._stored import StoredOutputs, store_outputs
from bc_lightning.sweep._data import Data, check_ids, in_short, is_read_whole
from bc_lightning.sweep._hooked import BATCH_HOOKS, Hooked, device_of, is_own_hook
from bc_lightning.sweep._kept_answers import OtherInputsError, check_of
from bc_lightning.sweep._told import settings, special, told_of
from bc_lightning.sweep._trainer import check_trainer, package_of, quiet, quiet_trainer, trainer_of, with_effect
from bc_lightning.training._module import (
    BCLightningModule,
    _callers_lightning_module,
    criterion_of,
    unwrap,
)
from bc_lightning.training._references import reference_for
from bc_lightning.training._state import compatibilities_of
from bc_lightning.training._warm_start import warm_start
from bc_lightning.training.data._reader import evaluating

# What a reference to h1 is made with.
_OF_H1 = ("scores", "h1_scores", "class_map")
# The places of ids, inputs and target in batches (ids, x, y).
_PLACES = {"ids": 0, "inputs": 1, "target": 2}
# The data that a training reads.
_TRAINED = ("train", "val")

Loss = str | CompatibilityLoss | ModelLoss | type[ModelLoss]


@contextmanager
def _quiet_and_seeded(seed: int) -> Iterator[None]:
    with seeded(seed), quiet():
        yield


class LightningRecipe(Recipe):
    """How a point is trained in Lightning. Its arguments are those of `sweep`."""

    framework = Framework(nn.Module, "a module", "torch, numpy.random or random", _quiet_and_seeded, copied, told_of)

    def __init__(
        self,
        h2: Any,
        h1: Any,
        train: Any,
        val: Any,
        test: Any,
        losses: Any,
        trainer: Any,
        base: str,
        normalization: str,
        loss_options: Mapping[str, Any] | None,
        ids: Any,
        start_from: str | None = None,
        **module: Any,
    ) -> None:
        self.starts_from_h1 = check_start_from(start_from)
        common = {name: module.pop(name) for name in OF_ALL_FRAMEWORKS if name in module}
        self.data = Data(train, val, test, (common.get("unlabelled"), common.get("promise_data")))
        self.trainer = {} if trainer is None else trainer
        check_trainer(self.trainer)
        super().__init__(h2, losses, tuple(MODEL_LOSSES), **common)
        options = dict(loss_options or {})
        for name, loss in self.losses.items():
            by_name = isinstance(loss, (str, type))
            if loss in DISSONANCES:
                given: dict[str, Any] = {"base": base, "dissonance": loss, "normalization": normalization, **options}
                self.losses[name] = CompatibilityLoss(**given), {}
            else:
                self.losses[name] = loss, options if by_name else {}
        self.h1, self.ids, self.module = h1, ids, module
        if module["class_map"] is not None:
            module["class_map"] = ClassMap.of(module["class_map"]).as_given()
        self.generators = self.data.generators
        self.base_class = _callers_lightning_module()
        # By data set: the folder of h1's outputs, where they are kept; and the same of the teacher and the plain h2.
        self.kept: dict[str, Path] = {}
        self.kept_beside: dict[str, dict[str, Path]] = {"teacher": {}, "plain": {}}
        # Data sets whose ids were seen to be unique.
        self.checked_ids: set[str] = set()
        # Whether h1's kept outputs were seen to be its answer to what h2 is given.
        self.seen_alike = False
        self._find_ids()
        self._check_held_out()
        self._look_at_h2()

    def _find_ids(self) -> None:
        """Know batches ``(ids, x, y)`` in a list, and refuse what only looks like them, or ids that name two instances.

        Of a list all ids are at hand: different ones for all instances are no other numbers by chance.
        """
        given = {"ids": self.ids, "inputs": self.module["inputs"], "target": self.module["target"]}
        listed = {name: data for name, data in self.data.given.items() if isinstance(data, (list, tuple))}
        if all(place is None for place in given.values()):
            if not self.data.begin_with_ids():
                return
            named = all(begins_with_ids(batch) for data in listed.values() for batch in data)
            if set(listed) < set(self.data.given) or not named:
                raise ValueError(
                    "The batches have three parts, of which the first looks like ids, and by default the first is the "
                    "input and the second the target: say what they are, "
                    f"{', '.join(f'{name}={place}' for name, place in _PLACES.items())}. "
                    "Received: train with batches of three, and none of these."
                )
            self.ids = _PLACES["ids"]
            self.module |= {"inputs": _PLACES["inputs"], "target": _PLACES["target"]}
        if self.ids is not None:
            for name, data in listed.items():
                check_ids(data, self.ids, f"ids of {name}")
                self.checked_ids.add(name)

    # What it is

    def _bases(self) -> list[dict[str, str]]:
        """What each loss is at lambda_c = 0."""
        told = [settings(self._criterion(name)) for name in self.losses]
        return [{key: of[key] for key in of if key not in ("dissonance", "normalization")} for of in told]

    def _plain_base(self) -> str:
        """What plain training minimises, where the losses say; it stands for all losses of the folder."""
        if not self.plain:
            return "the module's own"
        return told_of(self._bases()[0]) if self.shares_plain else "each loss has its own"

    def _described(self) -> dict[str, str]:
        return {
            "framework": "Lightning",
            "h1": self.h1.fingerprint if isinstance(self.h1, StoredOutputs) else fingerprint(self.h1),
            **self.data.describe(),
            "trainer": told_of(with_effect(self.trainer)),
            **{name: told_of(value) for name, value in self.module.items()},
            "base of plain training": self._plain_base(),
        }

    def _told_beside(self, name: str, given: Any) -> str:
        if name in self.references_beside:
            return self.references_beside[name].fingerprint
        if isinstance(given, str):
            return given
        with seeded(0):
            return in_short(given() if callable(given) and not hasattr(given, "__iter__") else given)

    def _dissonance_of(self, name: str) -> str:
        return str(self._criterion(name).dissonance)

    def _criterion(self, name: str, lambda_c: float = 1.0) -> CompatibilityLoss:
        loss, options = self.losses[name]
        return criterion_of(loss, lambda_c, options)

    @property
    def _datasets(self) -> list[str]:
        return self.data.names

    def _made_data(self) -> dict[str, Any]:
        return self.data.loaders()

    # h2

    def made_h2(self) -> Any:
        """An h2 as it is before the training."""
        made = super().made_h2()
        if self.starts_from_h1:
            warm_start(made, self.h1, self.module["class_map"])
        return made

    def _name_of(self, h2: Any) -> tuple[str, str]:
        code = code_of(map(type, h2.modules()), special)
        return str(fingerprint(h2)), f"{told_of(str(h2))} {plain_attributes(h2, special)} {code}".strip()

    def _check(self, h2: Any) -> None:
        self.reference = reference_for(h2, self.h1, **{name: self.module[name] for name in _OF_H1})
        # Made once, so that their kept outputs are known by one name.
        self.references_beside = {
            who: reference_for(h2, self.beside[who], self.module["scores"])
            for who in ("teacher", "plain")
            if self.beside[who] is not None
        }
        self.plain = lightning_module_class(type(h2)) is None
        if self.plain and self.module["optimizer"] is None:
            raise ValueError(
                "A plain module needs an optimiser: give its class, or a function of the parameters, such as "
                "optimizer=torch.optim.SGD or optimizer=lambda params: torch.optim.Adam(params, lr=1e-3). "
                f"Received: h2 that makes {type(h2).__name__}, optimizer=None."
            )
        self.augments = any(is_own_hook(owner, hook) for owner in (h2, self.data.module) for hook in BATCH_HOOKS)
        # Their own base matters to plain modules only.
        bases = self._bases()
        self.shares_plain = not self.plain or all(base == bases[0] for base in bases)
        for point in self._trial_points():
            self._wrapped(copied(h2), point, self.reference)

    def _wrapped(
        self, h2: nn.Module, point: Point, h1: Any, kept_beside: Mapping[str, StoredOutputs] = MappingProxyType({})
    ) -> Any:
        loss, options = self.losses[self._loss_of(point)]
        given = {key: value for key, value in self.module.items() if value is not None}
        if point.promise is None:
            given["lambda_c"] = point.lambda_c
        else:
            given |= {"promise": point.promise, "promise_options": self.promise_options}
            given["promise_data"] = self.promise_data
        beside = self._beside_h1(point)
        if "unlabelled" in beside:
            loader = beside["unlabelled"]
            beside["unlabelled"] = loader() if callable(loader) and not hasattr(loader, "__iter__") else loader
            beside |= {"unlabelled_weight": self.unlabelled_weight, "mixed_labels": self.mixed_labels}
        for who in (who for who in self.references_beside if who in beside):
            reference = self.references_beside[who]
            beside[who] = Reference.of(kept_beside[who], reference.class_map) if who in kept_beside else reference
        if isinstance(h1, Reference):
            given = {key: value for key, value in given.items() if key not in ("class_map", "h1_scores")}
        return BCLightningModule(
            h2,
            h1=h1,
            loss=loss,
            loss_options=options,
            lightning_module=self.base_class if self.plain else None,
            comparisons=False,
            **given,
            **beside,
        )

    def _not_finite(self, h2: Any) -> str | None:
        for name, weight in h2.named_parameters():
            if weight.requires_grad and not nn.parameter.is_lazy(weight) and not bool(torch.isfinite(weight).all()):
                return str(name)
        return None

    def _saved(self, h2: Any, directory: Path) -> str:
        # In memory first: a full disk is then an OSError that says so.
        content = io.BytesIO()
        # Beside tensors there may be what a module says of itself, its extra state.
        state = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in h2.state_dict().items()}
        torch.save(state, content)
        write_whole(directory / "model.pt", content.getvalue())
        return "model.pt"

    def _evaluating(self, model: Any) -> AbstractContextManager[None]:
        return evaluating(model)

    def _device_of(self, model: Any) -> Any:
        return device_of(model)

    # h1

    @property
    def _trains_on_kept(self) -> bool:
        return self.store_h1 is not False

    def _measured_h1(self) -> Any:
        if self.reference.is_stored:
            return None
        return self.h1 if self.reference.module is None else self.reference.module

    def _can_keep(self, data: Any) -> bool:
        """Whether a loader gives the same items each time, beside which nothing is stored yet."""
        stored = any(each.is_stored for each in (self.reference, *self.references_beside.values()))
        return self.data.are_objects and is_read_whole(data) and not self.augments and not stored

    def _keep_beside(self, who: str, name: str, data: Any, path: Path) -> None:
        # Where h1 is asked, they are too.
        if name in self.kept:
            self._store(self.references_beside[who], data, path)
            self.kept_beside[who][name] = path

    def _keep_h1(self, name: str, data: Any, path: Path) -> None:
        if self.ids is not None and name in self.evaluated and name not in self.checked_ids:
            check_ids(data, self.ids, f"ids of {name}")
        insists = self.store_h1 is True
        if self.store_h1 is False or not self._can_keep(data):
            if insists:
                hooked = " whose batches are changed by a transfer hook" if self.augments else ""
                raise ValueError(
                    "store_h1=True needs a torch DataLoader over a whole map-style data set, whose batches reach the "
                    "model as they are, and an h1 that can be asked. Received: "
                    f"{type(data).__name__} of {type(getattr(data, 'dataset', None)).__name__}{hooked}; leave "
                    "store_h1 out."
                )
            return
        if not self.reference.answers_whole:
            # An h1 without forward is asked part by part, as h2's steps are seen to do.
            if insists:
                self.reference.check_answers()
            return
        try:
            self._store(self.reference, data, path)
        except NotRepeatableError:
            # Random augmentation.
            if insists:
                raise
            return
        except ValueError as error:
            if not (path / "header.json").exists() and not insists:
                # An h1 that this cannot store, such as one without a row for each instance.
                return
            raise ValueError(f"{path.parent.parent} is the folder of another sweep, or h1 changed: {error}") from error
        self.kept[name] = path

    def _store(self, reference: Reference, data: Any, path: Path) -> None:
        store_outputs(
            reference,
            data.dataset,
            path,
            trainer=quiet_trainer(package_of(self.base_class)),
            batch_size=data.batch_size,
            num_workers=data.num_workers,
            inputs=self.module["inputs"],
            collate_fn=data.collate_fn,
        )

    def _rows_of(self, stored: StoredOutputs) -> Reference:
        return Reference.of(stored, class_map=self.module["class_map"])

    def _attached(
        self, name: str, loader: Any, beside: Mapping[str, StoredOutputs]
    ) -> tuple[Any, StoredOutputs] | None:
        """The loader on the data set that brings h1's kept outputs along, and those of who is imitated beside it."""
        if name not in self.kept:
            return None
        stored = StoredOutputs.open(self.kept[name])
        alike = (
            *("batch_size", "sampler", "drop_last", "num_workers", "pin_memory", "timeout", "worker_init_fn"),
            *("multiprocessing_context", "generator", "prefetch_factor", "persistent_workers"),
        )
        # The items were hashed when they were stored, and are looked at once more in the first batch.
        dataset = stored.attach(loader.dataset, verify=False, **beside)
        given = {option: getattr(loader, option) for option in alike}
        return DataLoader(dataset, collate_fn=stored.collate_fn(loader.collate_fn), **given), stored

    # One point

    def train(self, point: Point, directory: Path, report: Report) -> Trained:
        """Train and evaluate one point; h1 is asked in every step where its kept outputs turn out not to fit."""
        try:
            return super().train(point, directory, report)
        except OtherInputsError as error:
            if self.store_h1 is True:
                raise ValueError(f"{error} Leave store_h1 out, or give False.") from None
            # The same for every point, so that they stay comparable.
            self.store_h1 = False
            return super().train(point, directory, report)

    def _reads_kept(self, point: Point, data: Mapping[str, Any]) -> bool:
        """Whether a point is trained on kept outputs: unlabelled inputs and data for a promise have none."""
        asks = "unlabelled" in self._beside_h1(point) or (point.promise is not None and self.promise_data is not None)
        return self.store_h1 is not False and not asks and all(name in self.kept for name in _TRAINED if name in data)

    def _kept_beside(self, name: str, point: Point) -> dict[str, StoredOutputs]:
        there = {who: self.kept_beside[who].get(name) for who in self._beside_h1(point) if who in self.kept_beside}
        return {who: StoredOutputs.open(path) for who, path in there.items() if path is not None}

    def _fit(self, h2: Any, data: Mapping[str, Any], point: Point, report: Report) -> Fitted:
        attached = {name: self._attached(name, loader, {}) for name, loader in data.items()}
        h1, given = self.reference, dict(data)
        beside: dict[str, StoredOutputs] = {}
        reads = self._reads_kept(point, data)
        if reads:
            for name in (name for name in _TRAINED if name in data):
                beside = self._kept_beside(name, point)
                given[name], stored = self._attached(name, data[name], beside)  # type: ignore[misc]
                h1 = self._rows_of(stored)
        module = self._wrapped(h2, point, h1, beside)
        loggers = [logger for tracker in self.trackers if (logger := tracker.logger(point)) is not None]
        package = package_of(lightning_module_class(type(module)))
        trainer = trainer_of(self.trainer, package, loggers, report)
        check = None
        if reads and not self.seen_alike:
            check = check_of(package, self.reference, self.module["inputs"])
            trainer.callbacks.append(check)
        if self.data.module is None:
            trainer.fit(module, given["train"], given.get("val"))
        else:
            trainer.fit(module, datamodule=self.data.set_up(data))
        if getattr(trainer, "interrupted", False):
            raise KeyboardInterrupt
        self.seen_alike |= check is not None and check.is_over
        promised = compatibilities_of(module)[0].promised
        # Lightning takes it off the device at the end.
        model = unwrap(module).to(trainer.strategy.root_device)
        return Fitted(
            lambda name: self._compared(trainer, model, data[name], attached[name], point),
            None if promised is None else promised.keeper,
        )

    def _compared(
        self, trainer: Any, model: Any, loader: Any, attached: tuple[Any, StoredOutputs] | None, point: Point
    ) -> Comparison:
        data, h1 = loader, self.reference
        if is_read_whole(loader):
            brings = loader
            if attached is not None:
                brings, h1 = attached[0], self._rows_of(attached[1])
            # In order, and all of it.
            data = DataLoader(
                brings.dataset,
                batch_size=loader.batch_size,
                collate_fn=brings.collate_fn,
                num_workers=loader.num_workers,
            )
        if self.augments:
            data = Hooked(data, trainer, model)
        criterion = self._criterion(self._loss_of(point), point.lambda_c)
        return evaluate(
            h1,
            model,
            data,
            scores=self.module["scores"],
            h1_scores=self.module["h1_scores"],
            class_axis=self.module["class_axis"],
            class_names=self.class_names,
            metadata=self.metadata,
            ids=self.ids,
            inputs=partial(inputs_from_batch, inputs=self.module["inputs"]),
            target=self.module["target"],
            threshold=float(criterion.options.get("threshold", 0.5)),
            from_logits=bool(criterion.options.get("from_logits", True)),
            multilabel=criterion.base == "binary_cross_entropy",
            ignore_index=criterion.options.get("ignore_index"),
        ).comparison
