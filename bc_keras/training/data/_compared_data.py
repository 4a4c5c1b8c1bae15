"""Data about which h1 and a model are asked, and how their outputs are read as classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from keras.src.backend import get_keras_mask  # public nowhere; JAX keeps masks beside its arrays

from bc_core import Comparison, compare
from bc_core._arrays import id_array, to_numpy
from bc_core.losses._blends import check_kind_of_blend
from bc_core.slices._metadata import Columns
from bc_keras.batches._attached import HOW_TO_ATTACH, HOW_TO_ATTACH_STORED, split_reference
from bc_keras.batches._labels import (
    NO_CLASS,
    Labels,
    check_is_classification,
    check_target,
    columns_of,
    entries_of,
    is_binary,
    is_float,
    read_labels,
    target_classes,
)
from bc_keras.batches._validation_data import Batch, ValidationData
from bc_keras.reference._last_activation import is_over_classes
from bc_keras.reference._reference import Reference, only_tensor
from bc_keras.reference._shared_variables import check_no_shared_variables
from bc_keras.reference._stored import StoredOutputs
from bc_keras.training._preparation import prepared, prepared_for_h1
from bc_keras.training._state import compatibility_of
from bc_keras.training.compiled._compiled_loss import CompiledLoss, Reading
from bc_keras.training.compiled._plain_models import TargetLoss
from bc_keras.training.compiled._score_scale import Says, Seen, check_scales, reading_of, said_by_values, says_of
from bc_keras.training.data._answers import ask, predict
from bc_keras.training.data._sureness import Sureness
from bc_keras.training.step._penalty import check_rows, columns_beside
from bc_tensorboard.writing._by_id import TextsById, by_id


class _Reading(NamedTuple):
    """How the outputs of a model are read as classes."""

    scores: Reading
    threshold: float
    ignore_class: int | None
    num_classes: int
    is_signed: bool  # whether targets of a binary model may be -1 and 1


@dataclass(frozen=True)
class HowToRead:
    """What the user said of outputs; see `CompatibilityCallback`."""

    threshold: float | None = None
    from_logits: bool | None = None
    h1_from_logits: bool | None = None
    multilabel: bool | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1. Received: threshold={self.threshold!r}.")


class Advice(NamedTuple):
    """What errors tell the caller to write."""

    h1: str = "CompatibilityCallback(validation_data, h1=old_model)"
    rows: str = "CompatibilityCallback((x, y), h1=rows)"
    from_logits: str = "CompatibilityCallback(..., from_logits=True or False)"


_OF_CALLBACK = Advice()


class ComparedData:
    """A data set, the h1 that was given with it, and what is said of its instances.

    Args:
        data: the batches.
        h1: as in `CompatibilityCallback`.
        how: what the user said of outputs.
        ids: N ids of the instances, or None; or a function that gives them once it is known how many labels came.
        class_names: name of each class.
        metadata: text about an instance.
        advice: what errors tell the caller to write.
    """

    def __init__(
        self,
        data: ValidationData,
        h1: Any,
        how: HowToRead,
        *,
        ids: Any = None,
        class_names: Sequence[str] | None = None,
        metadata: Any = None,
        advice: Advice = _OF_CALLBACK,
    ) -> None:
        self.data = data
        self.advice = advice
        self.how = how
        self.ids = ids if callable(ids) else _checked_ids(ids, data)
        self.class_names = class_names
        known = () if self.ids is None or callable(self.ids) else self.ids.tolist()
        self.columns = Columns.of(metadata, data.length, known)
        if metadata is not None and self.columns is None:
            by_id(metadata, "metadata")
        self.metadata = metadata
        # h1's answers for the rows of arrays; else who is asked, if somebody was given.
        self.h1_rows: np.ndarray[Any, Any] | None = None
        self.reference: Reference | None = None
        if isinstance(h1, list | tuple) or (
            hasattr(h1, "shape") and not isinstance(h1, StoredOutputs) and not callable(h1)
        ):
            self.h1_rows = _rows_of_h1(h1, data, advice)
        elif h1 is not None:
            self.reference = h1 if isinstance(h1, Reference) else Reference(h1)

    def check_model(self, model: Any) -> None:
        """Refuse a model that is no update of this h1, before it is trained."""
        if self.reference is not None:
            check_no_shared_variables(self.reference.h1, getattr(model, "h2", model))


@dataclass
class _Pass:
    """What one pass over the data gathers."""

    labels: list[Labels] = field(default_factory=list)
    counted: list[Any] = field(default_factory=list)
    reading: _Reading | None = None
    # What h1's scores have shown so far.
    seen_h1: Seen | None = None
    # How sure h1 and h2 are.
    sureness: tuple[Sureness, Sureness] = field(default_factory=lambda: (Sureness(), Sureness()))


class AskedData:
    """A model and h1, asked about a data set for as long as one training or evaluation runs.

    Args:
        given: the data set.
        model: the update.
    """

    def __init__(self, given: ComparedData, model: Any) -> None:
        self._given, self._how, self.model = given, given.how, model
        # Of arrays h1 is asked once.
        self._kept_h1: np.ndarray[Any, Any] | None = None
        self._kept_sureness: Sureness | None = None

    def try_first(self) -> None:
        """Compare on the first batch, so that a mistake is reported before an epoch is spent."""
        first = next(iter(self._given.data), None)
        if first is None:
            return
        tried = _Pass()
        self._read(first, tried)
        if self._given.ids is not None and tried.labels[0].target.ndim > 1:
            raise ValueError(
                "ids name instances, and this model answers several times for each: leave ids out. "
                f"Received: ids, and labels of shape {tried.labels[0].target.shape}."
            )
        if _counted(tried).any():  # of a batch without labels nothing can be said
            self._comparison(tried, ids=None, step=None, is_trial=True)

    def compare(self, step: int | None = None) -> Comparison:
        """Compare on all the data."""
        whole = _Pass()
        for batch in self._given.data:
            self._read(batch, whole)
        if whole.reading is None:
            raise ValueError(f"{self._given.data.name} must hold at least one batch. Received: none.")
        if self._given.data.length is not None and self._kept_h1 is None:
            self._kept_h1 = np.concatenate([labels.h1 for labels in whole.labels])
            self._kept_sureness = whole.sureness[0]
        return self._comparison(whole, ids=self._given.ids, step=step)

    def _comparison(self, seen: _Pass, ids: Any, step: int | None, is_trial: bool = False) -> Comparison:
        assert seen.reading is not None
        reading = seen.reading
        parts = zip(*seen.labels, strict=True)
        target, h2, h1 = (np.concatenate([each.reshape(-1) for each in part]) for part in parts)
        if callable(ids):
            ids = ids(len(target))
        if ids is None:
            ids = np.arange(len(target))
        elif len(ids) != len(target):
            raise ValueError(
                f"ids must name every instance of {self._given.data.name}. "
                f"Received: {len(ids)} ids for {len(target)} instances."
            )
        counted = _counted(seen)
        metadata = None if is_trial else self._metadata(counted)
        if not counted.all():
            target, h2, h1, ids = target[counted], h2[counted], h1[counted], ids[counted]
        _check_classes(target, h1, reading)
        sureness = (self._kept_sureness or seen.sureness[0], seen.sureness[1])
        # It has no score of a class that it does not know.
        sure_h1 = None if (h1 < 0).any() else sureness[0].said(target, h1, counted)
        # Where h1 has no prediction (-1) it is wrong, so any class but the true one will do.
        h1 = np.where(h1 < 0, (target + 1) % reading.num_classes, h1)
        texts = metadata if isinstance(metadata, TextsById) else None
        reference = self._reference
        comparison = compare(
            target,
            h1,
            h2,
            ids=ids,
            num_classes=reading.num_classes,
            class_names=self._given.class_names,
            metadata=metadata,
            h1_scores=sure_h1,
            h2_scores=sureness[1].said(target, h2, counted),
            threshold=reading.threshold,
            step=step,
            lambda_c=None if compatibility_of(self.model) is None else self.model.lambda_c,
            new_classes=() if reference is None or reference.class_map is None else reference.class_map.new,
        )
        if texts is not None and (complaint := texts.complaint()):
            warnings.warn(complaint, stacklevel=2)
        return comparison

    def _metadata(self, counted: np.ndarray[Any, Any]) -> Any:
        """What is said of the entries that count: texts by id, or columns in the order of the data."""
        columns = self._given.columns
        if columns is None:
            return None if self._given.metadata is None else TextsById(self._given.metadata)
        return columns.among(counted)

    def _read(self, batch: Batch, gathered: _Pass) -> None:
        """Gather true and predicted classes of a batch and which of them are not masked, as numpy arrays."""
        raw, batch = batch.x, batch._replace(x=prepared(self.model, batch.x))
        h2_output = ops.convert_to_tensor(only_tensor(predict(self.model, batch.x), "h2"))
        mask = get_keras_mask(h2_output)
        target, h1_output = self._target_and_h1(batch, h2_output)
        reading = self._reading(h2_output)
        scores = reading.scores
        check_is_classification(
            ops.convert_to_numpy(target), tuple(h2_output.shape), scores.is_distance, scores.multilabel
        )
        reference = self._reference
        if reference is not None and self._kept_h1 is None:
            if h1_output is None:
                h1_output = ask(reference.h1, prepared_for_h1(reference.h1, raw, batch.x))
            # Before the class map it speaks of its own classes.
            h1_output = ops.convert_to_tensor(h1_output)
            self._check_scales(reading, h2_output, h1_output, gathered)
            h1_output = reference.in_classes_of_h2(
                h1_output, reading.num_classes, reading.scores.h1_from_logits, reading.scores.multilabel
            )
        elif self._kept_h1 is None:
            self._check_scales(reading, h2_output, h1_output, gathered)
        check_rows(h1_output, h2_output)
        if reference is not None and columns_of(h2_output) > 1:
            check_kind_of_blend(reference.blend_name, "labels" if reading.scores.multilabel else "classes", "h1")
        if reference is not None and reference.class_map is not None and reference.class_map.parts:
            labels = target_classes(target, tuple(h2_output.shape)[:-1], columns_of(h2_output))
            h1_output = reference.for_support(ops.convert_to_tensor(h1_output), labels, reading.scores.h1_from_logits)
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
        _check_no_nan(h2_output, seen, "h2")
        check_target(target, h2_output, reading.scores.multilabel, seen, reading.is_signed)
        known = Labels(*(ops.convert_to_numpy(each) for each in labels))
        gathered.labels.append(known)
        # A margin or a distance is no probability; h1 mapped to h2's classes says which it means, not how sure it is.
        scores, is_score = reading.scores, not (reading.scores.is_distance or reading.is_signed)
        h1_says = ops.convert_to_numpy(h1_output) if reference is None or reference.class_map is None else None
        outputs = (h1_says, scores.h1_from_logits), (ops.convert_to_numpy(h2_output), scores.from_logits)
        for model, (output, from_logits), answers in zip(gathered.sureness, outputs, (known.h1, known.h2), strict=True):
            model.add(output if is_score else None, answers, known.target, scores.binary, from_logits)
        gathered.counted.append(seen)
        gathered.reading = reading

    def _check_scales(self, reading: _Reading, h2_output: Any, h1_output: Any, gathered: _Pass) -> None:
        """Refuse scores that cannot be what they are read as."""
        given, scores = ops.convert_to_numpy(h1_output), reading.scores
        reference = self._reference
        # Rows that came with the labels hold NaN where there is no prediction.
        is_asked = reference is not None and reference.stored is None and given.dtype.kind == "f"
        if is_asked and not np.isfinite(given).all():
            raise ValueError(
                "h1 must give finite scores: look for a half-loaded h1, or inputs that are NaN. Received: NaN or "
                f"infinity for one of {len(given)} instances of {self._given.data.name}."
            )
        if scores.h1_scale_matters or scores.h2_scale_matters:
            if given.dtype.kind == "f":
                gathered.seen_h1 = Seen.of(given).after(gathered.seen_h1)
            check_scales(scores, gathered.seen_h1, Seen.of(ops.convert_to_numpy(h2_output)))

    @property
    def _reference(self) -> Reference | None:
        """Who answers for h1, if it is not the rows or the labels of the validation data alone."""
        if self._given.reference is None and self._given.h1_rows is None and compatibility_of(self.model) is not None:
            reference: Reference = self.model._reference
            return reference
        return self._given.reference

    def _target_and_h1(self, batch: Batch, h2_output: Any) -> tuple[Any, Any]:
        """The target, and h1's answer where it need not be asked for."""
        reference, target, h1_output = self._reference, self._without_teacher(batch.y, h2_output), None
        if self._given.h1_rows is not None:
            h1_output = self._given.h1_rows[batch.rows]
        elif reference is None or reference.stored is not None:
            columns = columns_of(h2_output) if reference is None else columns_beside(reference, h2_output)
            missing = (
                f"h1 is missing. Pass the model in use, {self._given.advice.h1}, or its answers with the labels. "
                f"{HOW_TO_ATTACH}"
            )
            target, h1_output = split_reference(target, columns, missing if reference is None else HOW_TO_ATTACH_STORED)
        if self._kept_h1 is not None:
            h1_output = self._kept_h1[batch.rows]
        return target, h1_output

    def _without_teacher(self, y: Any, h2_output: Any) -> Any:
        """Labels without stored outputs of who is imitated, which stand behind h1's in the data of such a training."""
        state = compatibility_of(self.model)
        others = {} if state is None else {who: state.references[who] for who in state.beside}
        stored = [each for each in others.values() if each.stored is not None]
        if not stored or len(np.shape(y)) < 2:
            return y
        classes, taught = columns_of(h2_output), sum(columns_beside(each, h2_output) for each in stored)
        reference, of_h1 = self._reference, 0
        if self._given.h1_rows is None and (reference is None or reference.stored is not None):
            of_h1 = classes if reference is None else columns_beside(reference, h2_output)
        width, without = np.shape(y)[-1], {1 + of_h1, classes + of_h1}
        if width - taught not in without:
            return y
        if width in without:
            raise ValueError(
                "Whether these labels carry stored outputs of the teacher or the plain h2 cannot be told from their "
                "width: give class indices without these, or one-hot labels with these. Received: labels of "
                f"{width} columns, {taught} of them such outputs or none."
            )
        return y[..., :-taught] if width - taught > 1 else y[..., 0]

    def _reading(self, h2_output: Any) -> _Reading:
        """How the outputs are read: as the arguments say, then as the models do."""
        model = self.model
        h1_from_logits, if_h1_is_silent = self._how.h1_from_logits, self._how.from_logits
        if compatibility_of(model) is not None:
            known = model._reading(h2_output)
            facts, threshold = CompiledLoss.of(model._base), model._threshold
            says, multilabel = Says(loss=known.from_logits, is_distance=facts.is_distance), known.multilabel
            if self._given.reference is None and self._given.h1_rows is None and h1_from_logits is None:
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
            multilabel = facts.binary and not is_binary(h2_output) and not is_over_classes(model)
        if self._how.multilabel is not None:
            multilabel = self._how.multilabel
        binary = multilabel or is_binary(h2_output)
        reference = self._reference
        scores = reading_of(
            self._says_h1(reference),
            says,
            binary=binary,
            multilabel=multilabel,
            from_logits=self._how.from_logits,
            h1_from_logits=h1_from_logits,
            is_mapped=reference is not None and reference.class_map is not None,
            if_h1_is_silent=if_h1_is_silent,
            remedy=self._given.advice.from_logits,
            received=f"from_logits=None, loss={getattr(model, 'loss', None)!r}",
        )
        return _Reading(
            scores,
            threshold if self._how.threshold is None else self._how.threshold,
            facts.ignore_class,
            2 if binary else h2_output.shape[-1],
            facts.is_margin,
        )

    def _says_h1(self, reference: Reference | None) -> Says:
        if reference is not None:
            return says_of(reference)
        if self._given.h1_rows is not None and self._given.h1_rows.dtype.kind == "f":
            return said_by_values(self._given.h1_rows)
        return Says()


def _counted(seen: _Pass) -> np.ndarray[Any, Any]:
    """Which entries count: those that are neither masked nor ignored, and have a class."""
    assert seen.reading is not None
    target = np.concatenate([labels.target.reshape(-1) for labels in seen.labels])
    counted: np.ndarray[Any, Any] = np.concatenate([mask.reshape(-1) for mask in seen.counted]) & (target != NO_CLASS)
    if seen.reading.ignore_class is not None:
        counted &= target != seen.reading.ignore_class
    return counted


def _check_classes(target: np.ndarray[Any, Any], h1: np.ndarray[Any, Any], reading: _Reading) -> None:
    """Refuse labels that are none of the classes."""
    last = reading.num_classes - 1
    strange = (h1 < -1) | (h1 > last)
    if strange.any():
        raise ValueError(
            f"h1's labels must lie in 0..{last}, or be -1 where it has none of h2's classes. "
            f"Received: {h1[strange][0]}."
        )
    strange = (target < 0) | (target > last)
    if strange.any():
        label = target[strange][0]
        mark = "" if reading.scores.binary else f", or compile h2 with a loss of ignore_class={label}"
        raise ValueError(
            f"The labels must be classes in 0..{last}, those that h2 scores. Received: {label}. Map the labels to the "
            f"classes, or leave such instances out of the data{mark}."
        )


def _check_no_nan(scores: Any, counted: np.ndarray[Any, Any], model: str) -> None:
    """Refuse NaN, whose largest score is whichever comes first; of masked entries nobody reads it."""
    values = ops.convert_to_numpy(scores)
    if not is_float(scores) or not np.isnan(values).any():
        return
    missing = np.isnan(values).reshape(*counted.shape, -1).any(-1) & counted
    if missing.any():
        raise ValueError(
            f"{model} must give finite scores, and has given NaN (output of shape {values.shape}), so it has no "
            f"prediction there: look for a diverged or half-loaded {model}, or inputs that are NaN. Received: NaN, "
            f"first at index {tuple(int(each) for each in np.argwhere(missing)[0])} of a batch."
        )


def _rows_of_h1(h1: Any, data: ValidationData, advice: Advice) -> np.ndarray[Any, Any]:
    rows = to_numpy(h1, "h1")
    if data.length is None:
        raise ValueError(
            f"An array of h1's predictions needs {data.name} of arrays, {advice.rows}; "
            f"other data carry it with their labels, by attach_h1. Received: h1 of shape {rows.shape}, "
            f"{data.name}={type(data.data).__name__}."
        )
    if rows.ndim == 0 or len(rows) != data.length:
        raise ValueError(
            f"h1 must hold one row for each of the {data.length} instances of {data.name}. "
            f"Received: h1 of shape {rows.shape}."
        )
    if rows.dtype.kind == "f" and np.isnan(rows).any():
        raise ValueError(
            "h1 is given by its answers, of which some are NaN, so it has no prediction there: look for a half-loaded "
            "h1; in labels, integers, -1 says that h1 has none of h2's classes. Received: NaN, first in row "
            f"{int(np.argwhere(np.isnan(rows))[0][0])}."
        )
    # The classes are int32; what does not fit would wrap around to another one.
    limits = np.iinfo(np.int32)
    if rows.dtype.kind in "iu" and (outside := (rows < limits.min) | (rows > limits.max)).any():
        raise ValueError(f"h1's labels must be classes of h2, or -1 for none. Received: {rows[outside][0]}.")
    return rows


def _checked_ids(ids: Any, data: ValidationData) -> Any:
    if ids is None:
        return None
    checked = id_array(ids, "ids")
    if data.length not in (None, len(checked)):
        raise ValueError(
            f"ids must name each of the {data.length} instances of {data.name}. Received: {len(checked)} ids."
        )
    if len(set(checked.tolist())) < len(checked):
        raise ValueError(
            f"ids must be unique. Received: {len(checked)} ids, of which {len(set(checked.tolist()))} are different."
        )
    return checked
