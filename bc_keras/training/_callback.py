"""`CompatibilityCallback`: h2 compared with h1 while it is trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bc_core import SCORES, Comparison, ErrorOverlap, Promise, PromiseVerdict
from bc_core._numbers import check_count
from bc_core.files._failed_writes import told_of
from bc_keras.batches._validation_data import ValidationData
from bc_keras.training._model import BCModel
from bc_keras.training._state import Compatibility, compatibility_of
from bc_keras.training._telling import say
from bc_keras.training.data._compared_data import AskedData, ComparedData, HowToRead
from bc_keras.training.promise._promise import KeepsPromise, as_fit_ends, take_promise
from bc_tensorboard import summary
from bc_tensorboard.writing._by_id import by_id
from bc_tensorboard.writing._event_file import EventFile
from bc_tensorboard.writing._training import told_of_training

_RUN = "compatibility"


class CompatibilityCallback(KeepsPromise):
    """Compare the model with h1 on validation data while it is trained, with any Keras model.

    At the end of an epoch each model is asked once about all the data, and every score of `bc_core.SCORES` goes into
    ``logs`` under its name, as ``val_nfr``. Callbacks that come later in the list find them there:
    ``EarlyStopping(monitor="val_nfr", mode="min")``, ``ModelCheckpoint``, ``CSVLogger``, and always `History`. A name
    that is in ``logs`` already is replaced, so take another `log_prefix` to keep both.

    Instances count alike, as in `bc_core`: sample weights are passed over. Of arrays h1's answers are kept for the next
    epoch; data that come as batches may be shuffled anew, so h1 is asked about the batch that h2 was asked about.
    In ``model.evaluate(callbacks=[...])`` it sets `comparison`, and writes and logs nothing.

    It has no config, as no data set fits into one: make it anew beside the reloaded model.

    Args:
        validation_data: ``(x, y)`` or ``(x, y, sample_weight)`` of arrays, a ``tf.data.Dataset``, a ``PyDataset`` or
            another iterable of batches.
        h1: the model in use: a built Keras model, any callable of the inputs, or a `Reference`; or its scores (N, C) or
            labels (N,) for the rows of arrays. Defaults to `None`: that of a `BCModel`; with any other model the labels
            of `validation_data` must carry h1's answers (`attach_h1`, `StoredOutputs.attach`), and so they must where
            it is a `StoredOutputs`.
        batch_size: rows at a time, for arrays. Defaults to `None`, 32.
        directory: where to save each comparison, ``comparison-epoch-0003.json`` for the third epoch (as
            `ModelCheckpoint` counts). Whole files; those of other epochs stay.
        log_dir: where TensorBoard looks: the scores, lambda_c and, for the dashboard, the comparison are written into
            the run ``compatibility`` below it, at the epochs of Keras's own `TensorBoard` callback. Works without
            TensorFlow. What cannot be written, here or in `directory`, is a warning: the training goes on.
        every: compare at the end of each epoch whose number this divides, and of the last one.
        ids: N ids of the instances, unique, all integers or all text. Defaults to `None`: their positions. For data
            that come as batches, in their order, which then must stay the same.
        class_names: name of each class.
        metadata: text about an instance: a mapping or a function from id to text, or texts indexed by integer id. Or
            columns in the order of the data, ``{"country": [...]}`` or a data frame, which make slices as in
            `bc_core.compare`.
        images: image of an instance, for the dashboard: a mapping or a function from id to image, or anything indexed
            by integer id, such as an array of images. See `bc_tensorboard.summary.comparison`.
        image_size: longer side of the thumbnails, in pixels.
        max_images: how many images there are at most.
        full_size: longest side of the picture that is shown enlarged, in pixels; 0 keeps thumbnails alone.
        settings: what else h2 is trained with, such as ``{"start": "warm", "seed": 0}``: the dashboard colours by it.
        dataset: what the dashboard calls the validation data.
        threshold: a binary score is class 1 from this probability on. Defaults to `None`: the model's own, or 0.5.
        from_logits: whether binary scores of the model are logits. Defaults to `None`: what its compiled loss or its
            last activation says.
        h1_from_logits: the same for h1's; as the model's where nothing says. Values that cannot be that are refused.
        multilabel: whether each column of the output is a label of its own, which then counts as an instance of class
            0 or 1. Defaults to `None`: what the compiled loss says, which over a softmax it is not.
        log_prefix: put before every name in ``logs``.
        verbose: 0 is silent, 1 prints a line per comparison.
        promise: what a `BCModel` is to keep on these data, such as ``"nfr <= 0.5%"``: after each comparison its
            lambda_c moves, as in ``BCModel(promise=...)``, and ``lambda_c`` and the scores go into ``logs``.
        promise_options: as in `BCModel`; but there is no ``every`` beside that of the comparisons.

    Attributes:
        promise: the `PromiseVerdict`, None before the first comparison.
        comparison: the last `bc_core.Comparison`; its ``step`` is the number of finished epochs.
        history: scores by epoch, counted from 0 as in `History.epoch`.

    Raises:
        TypeError: validation data of an unknown kind, or a generator; images or metadata that cannot be asked by id.
        ValueError: an argument out of range, settings that are none, or lengths that differ; when training
            begins: an h1 that shares variables with the model, and a first batch that cannot be compared.
        ImportError: `log_dir` without TensorBoard.

    Example:
        >>> import keras, numpy as np
        >>> from bc_keras import CompatibilityCallback
        >>> h1, model = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
        >>> model.compile("sgd", loss="sparse_categorical_crossentropy")
        >>> x, y = np.random.default_rng(0).normal(size=(32, 4)), np.arange(32) % 3
        >>> callback = CompatibilityCallback((x, y), h1=h1)
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[callback])
        >>> history.history["val_nfr"][-1] == callback.comparison.overlap.nfr
        True
    """

    def __init__(
        self,
        validation_data: Any,
        h1: Any = None,
        *,
        batch_size: int | None = None,
        directory: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        every: int = 1,
        ids: Any = None,
        class_names: Sequence[str] | None = None,
        metadata: Any = None,
        images: Any = None,
        image_size: int = 96,
        max_images: int = 10_000,
        full_size: int = 1024,
        settings: Mapping[str, str | float] | None = None,
        dataset: str = "val",
        threshold: float | None = None,
        from_logits: bool | None = None,
        h1_from_logits: bool | None = None,
        multilabel: bool | None = None,
        log_prefix: str = "val_",
        verbose: int = 0,
        promise: str | list[str] | Promise | None = None,
        promise_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._promised, _, _ = take_promise((), {"promise": promise, "promise_options": promise_options})
        if self._promised is not None and self._promised.keeper.options.every is not None:
            raise ValueError(
                "A promise is looked at with each comparison here: CompatibilityCallback(every=...) says after how "
                "many epochs, BCModel(promise=...) may look after steps. Received: promise_options with 'every'."
            )
        if batch_size is not None:
            check_count(batch_size, "batch_size")
        check_count(every, "every")
        if not isinstance(log_prefix, str):
            raise TypeError(f"log_prefix must be text. Received: log_prefix={log_prefix!r}.")
        self.validation_data = validation_data
        self.h1 = h1
        self.batch_size = batch_size
        self.directory = None if directory is None else Path(directory)
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.every = every
        self.ids = ids
        self.class_names = class_names
        if images is not None:
            by_id(images, "images")
        self.metadata = metadata
        self.images = images
        self.image_size = image_size
        self.max_images = max_images
        self.full_size = full_size
        told_of_training(settings, None)
        self.settings = settings
        self.dataset = dataset
        self.threshold = threshold
        self.from_logits = from_logits
        self.h1_from_logits = h1_from_logits
        self.multilabel = multilabel
        self.log_prefix = log_prefix
        self.verbose = verbose
        self.comparison: Comparison | None = None
        self.history: dict[int, dict[str, float]] = {}

        self._given = ComparedData(
            ValidationData(validation_data, batch_size),
            h1,
            HowToRead(threshold, from_logits, h1_from_logits, multilabel),
            ids=ids,
            class_names=class_names,
            metadata=metadata,
        )
        self._events = None if self.log_dir is None else EventFile(self.log_dir / _RUN)
        # Of one fit.
        self._asked: AskedData | None = None
        self._epoch: int | None = None

    @property
    def promise(self) -> PromiseVerdict | None:
        """Whether the promise was kept, None before the first comparison."""
        return None if self._promised is None else self._promised.keeper.verdict

    def set_model(self, model: Any) -> None:
        """Take the model; a fit that failed before this one is forgotten."""
        super().set_model(model)
        self._asked = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start anew, and try the comparison on one batch, so that a mistake is reported before an epoch is spent."""
        self._given.check_model(self.model)
        self._asked = AskedData(self._given, self.model)
        self.comparison = None
        self.history = {}
        self._epoch = None
        if self.log_dir is not None:
            self._events = EventFile(self.log_dir / _RUN)
        self._asked.try_first()
        if self._promised is not None:
            self._promised.begin(self.model, self._held_to(), self._count)

    def _held_to(self) -> Compatibility:
        state = compatibility_of(self.model)
        if state is None or state.promised is not None:
            raise ValueError(
                "A promise moves the lambda_c of a BCModel, and of one that has no promise of its own: train "
                f"BCModel(h2, h1=h1). Received: model={type(self.model).__name__}, held to a promise: {bool(state)}."
            )
        return state

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare, where this epoch is one of `every` or the last."""
        self._epoch = epoch
        is_last = epoch + 1 == (self.params or {}).get("epochs") or getattr(self.model, "stop_training", False)
        if (epoch + 1) % self.every == 0 or is_last:
            scores = self._compare_after(epoch)
            if logs is not None:
                logs.update(scores)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Compare after an epoch that a later callback made the last."""
        if self._epoch is not None and self._epoch not in self.history:
            self._compare_after(self._epoch)
        self._settle()
        if not self._keeps:  # else it is asked again behind the callbacks that come after this one
            self._asked = None

    def _finish(self) -> None:
        """Say the verdict."""
        super()._finish()
        self._asked = None

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Compare in an evaluation that is not a part of training."""
        if self._asked is None:
            self._given.check_model(self.model)
            self.comparison = AskedData(self._given, self.model).compare()
            self._report("Evaluation", self._scores(self.comparison))

    def _compare_after(self, epoch: int) -> dict[str, float]:
        with as_fit_ends(self.model) if self._promised is not None else nullcontext():
            return self._compare_now(epoch)

    def _compare_now(self, epoch: int) -> dict[str, float]:
        assert self._asked is not None
        comparison = self._asked.compare(step=epoch + 1)
        scores = self._scores(comparison)
        self.comparison = comparison
        self.history[epoch] = scores
        self._write(comparison, epoch)
        self._report(f"Epoch {epoch + 1}", scores)
        if self._promised is None:
            return scores
        return scores | self._promised.look(self.model, self._held_to(), comparison.overlap, self._count)

    def _count(self) -> ErrorOverlap:
        assert self._asked is not None
        return self._asked.compare().overlap

    def _write(self, comparison: Comparison, epoch: int) -> None:
        """Save and log; whatever keeps one place from taking it, the others get theirs."""
        told = f"The comparison of epoch {epoch + 1}"
        if self.directory is not None:
            with told_of(f"{told} in {self.directory}"):
                comparison.save(self.directory / f"comparison-epoch-{epoch + 1:04d}.json")
        if self._events is None:
            return
        scalars = {f"{_RUN}/{name}": comparison.overlap.score(name) for name in SCORES}
        descriptions = {f"{_RUN}/{name}": score.description for name, score in SCORES.items()}
        if comparison.lambda_c is not None:
            scalars[f"{_RUN}/lambda_c"] = comparison.lambda_c
            descriptions[f"{_RUN}/lambda_c"] = "Weight of the dissonance in the training loss."
        # Behind half a record nothing is read, and a folder may be gone: a failure is followed by a new file.
        events, self._events = self._events, EventFile(self._events.folder)
        with told_of(f"{told} in {events.folder}"):
            events.add(epoch, scalars, descriptions)
            summary.comparison(
                events,
                comparison,
                epoch,
                dataset=self.dataset,
                dissonance=self._dissonance,
                images=self.images,
                image_size=self.image_size,
                max_images=self.max_images,
                full_size=self.full_size,
                settings=self.settings,
            )
            self._events = events

    @property
    def _dissonance(self) -> str | None:
        """How the model is trained, as a person says it."""
        if not isinstance(self.model, BCModel):
            return None
        return self.model.dissonance.replace("_", " ")

    def _scores(self, comparison: Comparison) -> dict[str, float]:
        return {f"{self.log_prefix}{name}": comparison.overlap.score(name) for name in SCORES}

    def _report(self, when: str, scores: dict[str, float]) -> None:
        if self.verbose:
            say(f"\n{when}: " + " - ".join(f"{name}: {value:.4f}" for name, value in scores.items()))
