"""The Trainer of a point: as the caller says, but quiet, with the loggers of the sweep, and telling its progress."""

from __future__ import annotations

import copy
import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bc_core.sweep._folder import Report
from bc_core.sweep._trackers import Logger

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
_SILENT: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    # The sweep has a bar of its own.
    "enable_progress_bar": False,
    "devices": 1,
}


def package_of(lightning_module: type[Any]) -> Any:
    """The package, of two, that a LightningModule class comes from."""
    is_new = lightning_module.__module__.startswith("lightning.")
    return importlib.import_module("lightning.pytorch" if is_new else "pytorch_lightning")


def check_trainer(trainer: Any) -> None:
    """Refuse what makes no Trainer, or one that would train for ever."""
    if not (isinstance(trainer, Mapping) or callable(trainer)):
        raise TypeError(
            'trainer must hold arguments of the Trainer, such as {"max_epochs": 10}, or be a function that makes '
            f"one. Received: trainer={trainer!r}."
        )
    if isinstance(trainer, Mapping) and not any(trainer.get(name) for name in _LENGTHS):
        raise ValueError(
            "The trainer must say how long to train, or Lightning trains each point for 1000 epochs: "
            f'trainer={{"max_epochs": 10}}. Received: trainer={trainer!r}.'
        )


def with_effect(trainer: Any) -> Any:
    """What of the caller's Trainer decides the results."""
    if not isinstance(trainer, Mapping):
        return trainer
    return {name: value for name, value in trainer.items() if name not in _WITHOUT_EFFECT}


def quiet_trainer(package: Any) -> Any:
    """A Trainer that only runs a model."""
    return package.Trainer(**_SILENT)


def trainer_of(given: Any, package: Any, loggers: Sequence[Logger], report: Report) -> Any:
    """The Trainer of a point.

    Args:
        given: The caller's arguments, or function.
        package: Whose Trainer.
        loggers: Where curves go.
        report: Is told of the share done.

    Raises:
        ValueError: It does not say how long, or has several devices.
    """
    if callable(given):
        trainer = given()
        if trainer.max_epochs is None and trainer.max_steps == -1:
            raise ValueError("The Trainer needs max_epochs or max_steps.")
    else:
        own = dict(given)
        # Callbacks keep what they have seen, and every point begins anew.
        callbacks = _listed(copy.deepcopy(own.pop("callbacks", None) or []))
        arguments = {
            **_SILENT,
            "enable_checkpointing": any("Checkpoint" in type(each).__name__ for each in callbacks),
            **own,
        }
        made = [
            _curves_only(getattr(package.loggers, each.kind), each.closes)(**each.arguments)
            for each in loggers
            if each.beside_own or "logger" not in own
        ]
        if made:
            there = [logger for logger in _listed(arguments["logger"]) if logger not in (False, None)]
            arguments["logger"] = [*there, *made]
        trainer = package.Trainer(callbacks=callbacks, **arguments)
    if trainer.num_devices * trainer.num_nodes > 1:
        raise ValueError(
            "A point of a sweep is trained on one device, and several points side by side (engine='ray', "
            f"ray_options={{'resources_per_point': {{'gpu': 1}}}}). Received: a Trainer on {trainer.num_devices} "
            f"devices of {trainer.num_nodes} machines; give devices=1."
        )
    trainer.callbacks.append(_progress(package, report))
    return trainer


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _curves_only(logger: Any, closes: bool) -> Any:
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


def _progress(package: Any, report: Report) -> Any:
    class Progress(package.Callback):  # type: ignore[misc]
        """Tells how far the training is."""

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
                report(0.95 * min(1.0, max(shares)))

    return Progress()


@contextmanager
def quiet() -> Iterator[None]:
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
