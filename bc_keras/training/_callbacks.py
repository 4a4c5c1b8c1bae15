"""Callbacks: compare h2 with h1 while it is trained, move lambda_c, watch that h1 stays as it is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask  # public nowhere; JAX keeps masks beside its arrays

from bc_core import SCORES, Comparison, compare
from bc_core._arrays import id_array, to_numpy
from bc_core.files._failed_writes import told_of
from bc_keras.batches._attached import check_columns, split_reference
from bc_keras.batches._labels import (
    Labels,
    check_is_classification,
    check_target,
    columns_of,
    entries_of,
    is_binary,
    read_labels,
)
from bc_keras.batches._validation_data import Batch, ValidationData
from bc_keras.reference._reference import Reference, only_tensor, says_cannot_take
from bc_keras.reference._shared_variables import check_no_shared_variables
from bc_keras.reference._stored import StoredOutputs, _as_tensor, _asking
from bc_keras.training._compiled_loss import CompiledLoss, Reading
from bc_keras.training._model import BCModel
from bc_keras.training._plain_models import TargetLoss
from bc_keras.training._preparation import check_same_preparation, prepared
from bc_keras.training._score_scale import Says, Seen, check_scales, reading_of, said_by_values, says_of
from bc_keras.training._telling import check_count, say
from bc_tensorboard import summary
from bc_tensorboard.writing._by_id import TextsById, by_id
from bc_tensorboard.writing._event_file import EventFile

_RUN = "compatibility"


class _Reading(NamedTuple):
    """How the outputs of a model are read as classes."""

    scores: Reading
    threshold: float
    ignore_class: int | None
    num_classes: int
    is_signed: bool  # whether targets of a binary model may be -1 and 1


class CompatibilityCallback(keras.callbacks.Callback):
    """Compare the model with h1 on validation data while it is trained, with any Keras model.

    At the end of an epoch each model is asked once about all the data, and every score of `bc_core.SCORES` goes into
    ``logs``: ``val_btc``, ``val_bec_given_h1_wrong``, ``val_bec_given_h2_wrong``, ``val_nfr``, ``val_pfr``,
    ``val_nfi``, ``val_accuracy_h1`` and ``val_accuracy_h2``. Callbacks that come later in the list find them there:
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
        metadata: text about an instance: a mapping or a function from id to text, or texts indexed by integer id.
        images: image of an instance, for the dashboard: a mapping or a function from id to image, or anything indexed
            by integer id, such as an array of images. See `bc_tensorboard.summary.comparison`.
        image_size: longer side of the thumbnails, in pixels.
        max_images: how many images there are at most.
        dataset: what the dashboard calls the validation data.
        threshold: a binary score is class 1 from this probability on. Defaults to `None`: the model's own, or 0.5.
        from_logits: whether binary scores of the model are logits. Defaults to `None`: what its compiled loss or its
            last activation says.
        h1_from_logits: the same for h1's; as the model's where nothing says. Values that cannot be that are refused.
        multilabel: whether each column of the output is a label of its own, which then counts as an instance of class
            0 or 1. Defaults to `None`: what the compiled loss says.
        log_prefix: put before every name in ``logs``.
        verbose: 0 is silent, 1 prints a line per comparison.

    Attributes:
        comparison: the last `bc_core.Comparison`; its ``step`` is the number of finished epochs.
        history: scores by epoch, counted from 0 as in `History.epoch`.

    Raises:
        TypeError: validation data of an unknown kind, or a generator; images or metadata that cannot be asked by id.
        ValueError: an argument out of range, or lengths that differ; when training begins: an h1 that shares
            variables with the model, and a first batch that cannot be compared.
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
        metadata: Mapping[Any, str] | Callable[[Any], str] | Sequence[str] | None = None,
        images: Any = None,
        image_size: int = 96,
        max_images: int = 10_000,
        dataset: str = "val",
        threshold: float | None = None,
        from_logits: bool | None = None,
        h1_from_logits: bool | None = None,
        multilabel: bool | None = None,
        log_prefix: str = "val_",
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if batch_size is not None:
            check_count(batch_size, "batch_size")
        check_count(every, "every")
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={threshold!r}.")
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
        for name, known in (("metadata", metadata), ("images", images)):
            if known is not None:
                by_id(known, name)
        self.metadata = metadata
        self.images = images
        self.image_size = image_size
        self.max_images = max_images
        self.dataset = dataset
        self.threshold = threshold
        self.from_logits = from_logits
        self.h1_from_logits = h1_from_logits
        self.multilabel = multilabel
        self.log_prefix = log_prefix
        self.verbose = verbose
        self.comparison: Comparison | None = None
        self.history: dict[int, dict[str, float]] = {}

        self._data = ValidationData(validation_data, batch_size)
        self._h1_rows: np.ndarray[Any, Any] | None = None
        self._own_reference: Reference | None = None
        if isinstance(h1, list | tuple) or (
            hasattr(h1, "shape") and not isinstance(h1, StoredOutputs) and not callable(h1)
        ):
            self._h1_rows = _rows_of_h1(h1, self._data)
        elif h1 is not None:
            self._own_reference = h1 if isinstance(h1, Reference) else Reference(h1)
        self._ids = _checked_ids(ids, self._data)
        self._events = None if self.log_dir is None else EventFile(self.log_dir / _RUN)
        self._kept_h1: np.ndarray[Any, Any] | None = None
        self._seen_h1: Seen | None = None
        self._epoch: int | None = None
        self._in_fit = False

    def set_model(self, model: Any) -> None:
        """Take the model; a fit that failed before this one is forgotten."""
        super().set_model(model)
        self._in_fit = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start anew, and try the comparison on one batch, so that a mistake is reported before an epoch is spent."""
        self._in_fit = True
        self.comparison = None
        self.history = {}
        self._epoch = None
        if self.log_dir is not None:
            self._events = EventFile(self.log_dir / _RUN)
        self._begin()
        self._seen_h1 = None
        first = next(iter(self._data), None)
        if first is not None:
            labels, mask, reading = self._read(first)
            if self._ids is not None and labels.target.ndim > 1:
                raise ValueError(
                    "ids name instances, and this model answers several times for each: leave ids out. "
                    f"Received: ids, and labels of shape {labels.target.shape}."
                )
            self._comparison([labels], [mask], reading, ids=None, step=None)

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
        self._kept_h1 = None
        self._in_fit = False

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Compare in an evaluation that is not a part of training."""
        if not self._in_fit:
            self._begin()
            self.comparison = self._compare(step=None)
            self._kept_h1 = None
            self._report("Evaluation", self._scores(self.comparison))

    def _begin(self) -> None:
        self._kept_h1 = None
        if self._own_reference is not None:
            check_same_preparation(self._own_reference.h1, self.model)
            check_no_shared_variables(self._own_reference.h1, getattr(self.model, "h2", self.model))

    def _compare_after(self, epoch: int) -> dict[str, float]:
        comparison = self._compare(step=epoch + 1)
        scores = self._scores(comparison)
        self.comparison = comparison
        self.history[epoch] = scores
        self._write(comparison, epoch)
        self._report(f"Epoch {epoch + 1}", scores)
        return scores

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

    def _compare(self, step: int | None) -> Comparison:
        batches, counted, reading = [], [], None
        self._seen_h1 = None
        for batch in self._data:
            labels, mask, reading = self._read(batch)
            batches.append(labels)
            counted.append(mask)
        if reading is None:
            raise ValueError("validation_data must hold at least one batch. Received: none.")
        if self._data.length is not None and self._kept_h1 is None:
            self._kept_h1 = np.concatenate([labels.h1 for labels in batches])
        return self._comparison(batches, counted, reading, ids=self._ids, step=step)

    def _comparison(
        self, batches: list[Labels], masks: list[Any], reading: _Reading, ids: Any, step: int | None
    ) -> Comparison:
        target, h2, h1 = (np.concatenate([part.reshape(-1) for part in parts]) for parts in zip(*batches, strict=True))
        if ids is None:
            ids = np.arange(len(target))
        elif len(ids) != len(target):
            raise ValueError(
                "ids must name every instance of validation_data. "
                f"Received: {len(ids)} ids for {len(target)} instances."
            )
        counted = np.concatenate([mask.reshape(-1) for mask in masks])
        if reading.ignore_class is not None:
            counted &= target != reading.ignore_class
        if not counted.all():
            target, h2, h1, ids = target[counted], h2[counted], h1[counted], ids[counted]
        if (h1 < -1).any():
            raise ValueError(
                f"h1's labels must lie in 0..{reading.num_classes - 1}, or be -1 where it has none of h2's classes. "
                f"Received: {h1[h1 < -1][0]}."
            )
        # Where h1 has no prediction (-1) it is wrong, so any class but the true one will do.
        h1 = np.where(h1 < 0, (target + 1) % reading.num_classes, h1)
        texts = None if self.metadata is None else TextsById(self.metadata)
        comparison = compare(
            target,
            h1,
            h2,
            ids=ids,
            num_classes=reading.num_classes,
            class_names=self.class_names,
            metadata=texts,
            step=step,
            lambda_c=self.model.lambda_c if isinstance(self.model, BCModel) else None,
        )
        if texts is not None and (complaint := texts.complaint()):
            warnings.warn(complaint, stacklevel=2)
        return comparison

    def _read(self, batch: Batch) -> tuple[Labels, Any, _Reading]:
        """True and predicted classes of a batch and which of them are not masked, as numpy arrays."""
        batch = batch._replace(x=prepared(self.model, batch.x))
        h2_output = ops.convert_to_tensor(only_tensor(_predict(self.model, batch.x), "h2"))
        mask = get_keras_mask(h2_output)
        target, h1_output = self._target_and_h1(batch, h2_output)
        reading = self._reading(h2_output)
        check_is_classification(ops.convert_to_numpy(target), tuple(h2_output.shape), reading.scores.is_distance)
        reference = self._reference
        if reference is not None and self._kept_h1 is None:
            if h1_output is None:
                h1_output = _ask(reference.h1, batch.x)
            # Before the class map it speaks of its own classes.
            h1_output = ops.convert_to_tensor(h1_output)
            self._check_scales(reading, h2_output, h1_output)
            h1_output = reference.in_classes_of_h2(h1_output, reading.num_classes, reading.scores.h1_from_logits)
        elif self._kept_h1 is None:
            self._check_scales(reading, h2_output, h1_output)
        labels = read_labels(
            # Torch has no tensors of uint64; what does not fit is refused below.
            ops.convert_to_tensor(target.astype(np.int64) if target.dtype == np.uint64 else target),
            h2_output,
            ops.convert_to_tensor(h1_output),
            threshold=reading.threshold,
            from_logits=reading.scores.from_logits,
            h1_from_logits=reading.scores.h1_from_logits,
            multilabel=reading.scores.multilabel,
            signed=reading.is_signed,
        )
        seen = ops.ones_like(labels.target, dtype="bool")
        if mask is not None:
            seen = ops.logical_and(seen, entries_of(ops.cast(mask, "bool"), labels.target, "The mask"))
        seen = ops.convert_to_numpy(seen)
        check_target(target, h2_output, reading.scores.multilabel, seen, reading.is_signed)
        return Labels(*(ops.convert_to_numpy(each) for each in labels)), seen, reading

    def _check_scales(self, reading: _Reading, h2_output: Any, h1_output: Any) -> None:
        """Refuse scores that cannot be what they are read as."""
        given, scores = ops.convert_to_numpy(h1_output), reading.scores
        reference = self._reference
        # Rows that came with the labels hold NaN where there is no prediction.
        is_asked = reference is not None and reference.stored is None and given.dtype.kind == "f"
        if is_asked and not np.isfinite(given).all():
            raise ValueError(
                "h1 must give finite scores: look for a half-loaded h1, or inputs that are NaN. Received: NaN or "
                f"infinity for one of {len(given)} instances of validation_data."
            )
        if scores.h1_scale_matters or scores.h2_scale_matters:
            if given.dtype.kind == "f":
                self._seen_h1 = Seen.of(given).after(self._seen_h1)
            check_scales(scores, self._seen_h1, Seen.of(ops.convert_to_numpy(h2_output)))

    @property
    def _reference(self) -> Reference | None:
        """Who answers for h1, if it is not the rows or the labels of the validation data alone."""
        if self._own_reference is None and self._h1_rows is None and isinstance(self.model, BCModel):
            reference: Reference = self.model._reference
            return reference
        return self._own_reference

    def _target_and_h1(self, batch: Batch, h2_output: Any) -> tuple[Any, Any]:
        """The target, and h1's answer where it need not be asked for."""
        reference, target, h1_output = self._reference, batch.y, None
        if self._h1_rows is not None:
            h1_output = self._h1_rows[batch.rows]
        elif reference is None or reference.stored is not None:
            columns = columns_of(h2_output)
            if reference is not None and reference.class_map is not None:
                columns = len(reference.class_map)
            if reference is not None:
                check_columns(reference.stored, columns)
            try:
                target, h1_output = split_reference(batch.y, columns)
            except ValueError as error:
                raise ValueError(
                    "h1 is missing. Pass the model in use, CompatibilityCallback(validation_data, h1=old_model), or "
                    f"its answers with the labels. {error}"
                ) from error
        if self._kept_h1 is not None:
            h1_output = self._kept_h1[batch.rows]
        return target, h1_output

    def _reading(self, h2_output: Any) -> _Reading:
        """How the outputs are read: as the arguments say, then as the models do."""
        model = self.model
        h1_from_logits, if_h1_is_silent = self.h1_from_logits, self.from_logits
        if isinstance(model, BCModel):
            known = model._reading(h2_output)
            facts, threshold = CompiledLoss.of(model._base), model._threshold
            says, multilabel = Says(loss=known.from_logits, is_distance=facts.is_distance), known.multilabel
            if self._own_reference is None and self._h1_rows is None and h1_from_logits is None:
                h1_from_logits = known.h1_from_logits
            if if_h1_is_silent is None:
                if_h1_is_silent = known.h1_from_logits
        else:
            loss = getattr(model, "loss", None)
            facts, threshold = CompiledLoss.of(loss.loss if isinstance(loss, TargetLoss) else loss), 0.5
            says = says_of(model)
            if loss is None:
                # Not compiled: as its last layer looks, else as Keras's own losses would take it.
                says = Says(loss=bool(says.activation))
            multilabel = facts.binary and not is_binary(h2_output)
        if self.multilabel is not None:
            multilabel = self.multilabel
        binary = multilabel or is_binary(h2_output)
        reference = self._reference
        scores = reading_of(
            self._says_h1(reference),
            says,
            binary=binary,
            multilabel=multilabel,
            from_logits=self.from_logits,
            h1_from_logits=h1_from_logits,
            is_mapped=reference is not None and reference.class_map is not None,
            if_h1_is_silent=if_h1_is_silent,
            remedy="CompatibilityCallback(..., from_logits=True or False)",
            received=f"from_logits=None, loss={getattr(model, 'loss', None)!r}",
        )
        return _Reading(
            scores,
            threshold if self.threshold is None else self.threshold,
            facts.ignore_class,
            2 if binary else h2_output.shape[-1],
            facts.is_margin,
        )

    def _says_h1(self, reference: Reference | None) -> Says:
        if reference is not None:
            return reference.says
        if self._h1_rows is not None and self._h1_rows.dtype.kind == "f":
            return said_by_values(self._h1_rows)
        return Says()


def _rows_of_h1(h1: Any, data: ValidationData) -> np.ndarray[Any, Any]:
    rows = to_numpy(h1, "h1")
    if data.length is None:
        raise ValueError(
            "An array of h1's predictions needs validation_data of arrays, CompatibilityCallback((x, y), h1=rows); "
            f"other data carry it with their labels, by attach_h1. Received: h1 of shape {rows.shape}, "
            f"validation_data={type(data.data).__name__}."
        )
    if rows.ndim == 0 or len(rows) != data.length:
        raise ValueError(
            f"h1 must hold one row for each of the {data.length} instances of validation_data. "
            f"Received: h1 of shape {rows.shape}."
        )
    return rows


def _checked_ids(ids: Any, data: ValidationData) -> Any:
    if ids is None:
        return None
    checked = id_array(ids, "ids")
    if data.length not in (None, len(checked)):
        raise ValueError(
            f"ids must name each of the {data.length} instances of validation_data. Received: {len(checked)} ids."
        )
    if len(set(checked.tolist())) < len(checked):
        raise ValueError(
            f"ids must be unique. Received: {len(checked)} ids, of which {len(set(checked.tolist()))} are different."
        )
    return checked


def _predict(model: Any, x: Any) -> Any:
    """Outputs of a Keras model for a batch, in inference mode, by its compiled step."""
    strategy = getattr(model, "distribute_strategy", None)
    layers = model._flatten_layers() if isinstance(model, keras.Model) else []
    masks = any(getattr(layer, "mask_zero", False) or isinstance(layer, keras.layers.Masking) for layer in layers)
    if masks or getattr(strategy, "num_replicas_in_sync", 1) > 1:
        # The compiled step gives no masks, and under a strategy it would answer once on every replica.
        x = keras.tree.map_structure(_as_tensor, x)
        return model(x, training=False)
    return model.predict_on_batch(x)


def _ask(h1: Any, x: Any) -> Any:
    """h1's output for a batch, by its own classes."""
    if not isinstance(h1, keras.Model):
        return _asking(h1)(x)
    try:
        output = _predict(h1, x)
    except (TypeError, ValueError) as error:
        raise says_cannot_take(h1, x, error) from error
    return only_tensor(output, "h1")
