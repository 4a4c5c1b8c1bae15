"""Log a comparison for TensorBoard's compatibility tab, by whatever writes your other summaries."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from bc_core import Comparison
from bc_core.comparison._comparison import Id
from bc_core.invariance import InvarianceUpdate
from bc_tensorboard._plugin_name import PLUGIN_NAME
from bc_tensorboard.writing._event_file import EventFile
from bc_tensorboard.writing._format import encode_comparison
from bc_tensorboard.writing._images import LargerPictures, Thumbnails
from bc_tensorboard.writing._invariance import check_update, encode_invariance
from bc_tensorboard.writing._media import append_media, full_path, media_path, read_media
from bc_tensorboard.writing._training import told_of_training

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

__all__ = ["comparison", "comparison_pb", "invariance", "invariance_pb"]

VERSION = 1
# How many bytes the larger pictures of a data set take at most; thumbnails stay.
_MOST_FULL = 2**28
# The run that a Keras callback's comparisons go to: TensorBoard reads one growing file in a run.
KERAS_RUN = "compatibility"

_WRITERS = (
    "a torch SummaryWriter, a Lightning TensorBoardLogger, a tf.summary writer, a keras.callbacks.TensorBoard, "
    "or the folder of a run"
)
# Files of runs that were given as a folder; the next step of a run goes into the same one.
_open: dict[str, EventFile] = {}
# Files of images of which it was said that they are full; the next steps say nothing new.
_full: set[str] = set()


def comparison(
    writer: Any,
    comparison: Comparison,
    step: int | None = None,
    *,
    dataset: str = "test",
    dissonance: str | None = None,
    settings: Mapping[str, str | float] | None = None,
    performance: Sequence[float | None] | None = None,
    images: Any = None,
    image_size: int = 96,
    max_images: int = 10_000,
    full_size: int = 1024,
    folder: str | os.PathLike[str] | None = None,
) -> None:
    """Log a comparison of h1 and h2 at one step.

    The counts are written at every step, for the curves; the instances that either model gets wrong as one compressed
    table; their texts and images once for all steps, beside the event file. One process logs; with several, the first.

    Args:
        writer: A torch (or tensorboardX) `SummaryWriter`, a Lightning `TensorBoardLogger`, a writer of
            `tf.summary.create_file_writer`, a `keras.callbacks.TensorBoard` (its run `compatibility`), or the folder of
            a run, which needs no framework.
        comparison: What `bc_core.compare` returned.
        step: Where on the horizontal axis. Default: the comparison's own step. Of a step that is logged twice
            TensorBoard shows the last, and with `--load_fast=false` the first.
        dataset: Name of the data set; each has its own curves and tables.
        dissonance: How h2 was trained, such as "new error"; the dashboard tells sweeps apart by it.
        settings: What else h2 was trained with, such as ``{"start": "warm", "seed": 0}``: the dashboard colours by it,
            and numbers can be an axis. That of the first step holds for a run.
        performance: What a metric of your own says of h1 and of h2, higher being better; of the first step too.
        images: Image of an instance: a mapping or a function from id to image, or anything indexed by integer id, such
            as an array of images or a data set of (image, label). An image is an array or tensor (H, W), (H, W, C) or
            (C, H, W) of uint8 or of floats in 0..1, a PIL image, the bytes of an image file, or None. They are asked
            for only for instances that h1 or h2 gets wrong.
        image_size: Longer side of the thumbnails, in pixels.
        max_images: How many images a data set gets at most.
        full_size: Longest side of the picture that is shown enlarged, in pixels, where the image is larger than the
            thumbnail; 0 keeps thumbnails alone. Those of a data set take 256 MB at most.
        folder: Where a tf.summary writer writes, since it does not tell; texts and images go below it.

    Raises:
        TypeError: If `writer` is something else, or `comparison` is none.
        ValueError: If there is no step, it is negative, the data set has no name, a size or number is below its least,
            or images are to be kept and it is not known where.
        ImportError: If tensorboard (or, for images, Pillow, which comes with it) is not installed.
        OSError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> from bc_core import compare
        >>> from bc_tensorboard import summary
        >>> comparison = compare([0, 1, 1], [0, 1, 0], [0, 0, 1], class_names=["cat", "dog"])
        >>> with tempfile.TemporaryDirectory() as logdir:
        ...     summary.comparison(f"{logdir}/run", comparison, step=0)
    """
    _check_comparison(comparison)
    comparison = dataclasses.replace(comparison, step=_checked_step(step, comparison))
    _check_names(dataset, dissonance)
    _check_count(image_size, "image_size", 1)
    _check_count(max_images, "max_images", 0)
    _check_count(full_size, "full_size", 0)
    add, run = _destination(writer)
    run = folder if folder is not None else run
    if run is not None and "://" in os.fspath(run):
        # Events can go to a bucket; files beside them are written to this machine's disk only.
        run = None
    if images is not None and run is None:
        raise ValueError(
            f"images are kept in files beside the events, and {type(writer).__name__} does not write to a folder of "
            "this machine, or does not tell which; say it: summary.comparison(writer, ..., folder=logdir)"
        )
    pb = comparison_pb(
        comparison,
        dataset=dataset,
        dissonance=dissonance,
        metadata=run is None,
        settings=settings,
        performance=performance,
    )
    # First what the tables refer to; an interrupted call then leaves no table whose texts are missing.
    reasons = []
    if run is not None:
        reasons = _keep_media(media_path(run, dataset), comparison, images, image_size, max_images, full_size)
    add(pb, comparison.step)
    # Last, as a warning can be made an error.
    for reason in reasons:
        warnings.warn(f"data set {dataset!r}: {reason}", stacklevel=2)


def comparison_pb(
    comparison: Comparison,
    *,
    dataset: str = "test",
    dissonance: str | None = None,
    metadata: bool = True,
    settings: Mapping[str, str | float] | None = None,
    performance: Sequence[float | None] | None = None,
) -> Summary:
    """Make the protocol buffer of a comparison, for writers of your own.

    Args:
        comparison: What `bc_core.compare` returned; its step goes into the table.
        dataset: Name of the data set.
        dissonance: How h2 was trained.
        metadata: Whether the texts of the instances go into the table.
        settings: As in `comparison`.
        performance: As in `comparison`.

    Returns:
        A `tensorboard.compat.proto.summary_pb2.Summary` with two values: counts, and the table. Both describe
        themselves; TensorBoard needs that on the first event of a tag.

    Raises:
        TypeError: If `comparison` is none.
        ValueError: If the data set has no name, or settings or performance are something else.

    Example:
        >>> from bc_core import compare
        >>> from bc_tensorboard import summary
        >>> [value.tag for value in summary.comparison_pb(compare([0], [0], [0])).value]
        ['backward_compatibility/test/counts', 'backward_compatibility/test/table']
    """
    _check_comparison(comparison)
    _check_names(dataset, dissonance)
    content = {
        "dissonance": dissonance,
        "num_classes": comparison.overlap.num_classes,
        **told_of_training(settings, performance),
    }
    weight = math.nan if comparison.lambda_c is None else comparison.lambda_c
    # Counts are exact in float64 up to 2**53.
    counts = np.array([*comparison.overlap.counts.sum(axis=0).ravel(), weight], dtype=np.float64)
    table = encode_comparison(comparison, dataset=dataset, dissonance=dissonance, metadata=metadata)
    return _summary(dataset, content, {"counts": counts, "table": table})


def invariance(
    writer: Any,
    update: InvarianceUpdate,
    step: int,
    *,
    dataset: str = "test",
    order: Literal["sorted", "index"] = "sorted",
) -> None:
    """Log what an update does to invariance, at one step: counts by transformation, and NV by layer with heat maps.

    Fifty layers under twenty transformations take about 20 KB. It is shown below the comparison of the same run and
    data set, or alone where there is none. One process logs; with several, the first.

    Args:
        writer: As in `comparison`.
        update: What `compare_invariance` or `bc_core.invariance.compare_predictions` returned.
        step: Where on the horizontal axis: the step of the comparison that it belongs to.
        dataset: Name of the data set.
        order: Of features within a layer of the heat maps: `"sorted"` from invariant to sensitive, which compares any
            two networks rank by rank; or `"index"`, feature by feature, for an h2 that was trained on from h1.

    Raises:
        TypeError: If `writer` is something else, or `update` is none.
        ValueError: If the step is negative or the data set has no name.
        ImportError: If tensorboard is not installed.
        OSError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> from bc_core.invariance import TransformSet, compare_predictions
        >>> from bc_tensorboard import summary
        >>> turns = TransformSet.rotations([0, 30])
        >>> update = compare_predictions([[0, 0], [1, 1]], [[0, 1], [1, 1]], [0, 1], transforms=turns)
        >>> with tempfile.TemporaryDirectory() as logdir:
        ...     summary.invariance(f"{logdir}/run", update, step=0)
    """
    number = _checked_number(step)
    pb = invariance_pb(update, dataset=dataset, order=order)
    add, _ = _destination(writer)
    add(pb, number)


def invariance_pb(
    update: InvarianceUpdate, *, dataset: str = "test", order: Literal["sorted", "index"] = "sorted"
) -> Summary:
    """Make the protocol buffer of an invariance update, for writers of your own.

    Args:
        update: What `compare_invariance` or `bc_core.invariance.compare_predictions` returned.
        dataset: Name of the data set.
        order: As in `invariance`.

    Raises:
        TypeError: If `update` is none.
        ValueError: If the data set has no name.

    Example:
        >>> from bc_core.invariance import compare_predictions
        >>> from bc_tensorboard import summary
        >>> update = compare_predictions([[0, 0]], [[0, 1]], transforms=["identity", "flip"])
        >>> [value.tag for value in summary.invariance_pb(update).value]
        ['backward_compatibility/test/invariance']
    """
    check_update(update)
    _check_names(dataset, None)
    return _summary(dataset, {}, {"invariance": encode_invariance(update, order)})


def _summary(dataset: str, content: Mapping[str, Any], values: Mapping[str, NDArray[np.float64] | bytes]) -> Summary:
    """Numbers and blobs of a data set by name, each of which describes itself."""
    from tensorboard.compat.proto.summary_pb2 import (
        DATA_CLASS_BLOB_SEQUENCE,
        DATA_CLASS_TENSOR,
        Summary,
        SummaryMetadata,
    )
    from tensorboard.util.tensor_util import make_tensor_proto

    described = json.dumps({"version": VERSION, "dataset": dataset, **content}).encode("ascii")
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=described)
    return Summary(
        value=[
            Summary.Value(
                tag=f"{PLUGIN_NAME}/{quote(dataset, safe='')}/{name}",
                tensor=make_tensor_proto(np.array([value], dtype=object) if isinstance(value, bytes) else value),
                metadata=SummaryMetadata(
                    plugin_data=plugin,
                    data_class=DATA_CLASS_BLOB_SEQUENCE if isinstance(value, bytes) else DATA_CLASS_TENSOR,
                ),
            )
            for name, value in values.items()
        ]
    )


def _keep_media(
    path: Path, comparison: Comparison, images: Any, image_size: int, max_images: int, full_size: int
) -> list[str]:
    """Keep what is not there yet; returns what to warn of."""
    table = comparison.instances
    if not len(table) or (table.metadata is None and images is None):
        return []
    reasons: list[str] = []
    known = read_media(path) if path.exists() else None
    ids: list[Id] = table.ids.tolist()
    texts: list[tuple[Id, str]] = []
    if table.metadata is not None:
        kept = known.texts if known else {}
        pairs = zip(ids, table.metadata.tolist(), strict=True)
        texts = [(instance, text) for instance, text in pairs if text and kept.get(instance) != text]
    made: Any = ()
    full = None
    left_out: list[Id] = []
    if images is not None:
        there = known.images if known else {}
        # Negative flips first, as in a page.
        broken = (table.h1_pred == table.target).tolist()
        missing = [one for flip in (True, False) for one, is_flip in zip(ids, broken, strict=True) if is_flip is flip]
        missing = [instance for instance in missing if instance not in there]
        room = max(0, max_images - len(there))
        if len(missing) > room and (key := os.path.realpath(path)) not in _full:
            _full.add(key)
            reasons.append(
                f"{len(ids)} instances are wrong, and images of {max_images} are kept; raise max_images to keep more"
            )
        full = LargerPictures(full_path(path), full_size, _MOST_FULL)
        made = Thumbnails(images, missing[:room], image_size, full)
        said = known.left_out if known else ()
        left_out = [instance for instance in missing[room:] if instance not in said]
    if texts or left_out or made:
        append_media(path, texts, made, left_out)
    if full is not None:
        full.write()
    if isinstance(made, Thumbnails) and made.failed:
        reasons.append(f"{made.failed} images could not be made and are left out; first {made.reason}")
    return reasons


def _destination(writer: Any) -> tuple[Any, str | os.PathLike[str] | None]:
    """A function that takes a proto and a step, and the folder of the run where it is known."""
    if isinstance(writer, EventFile):
        return writer.add_summary, writer.folder
    if isinstance(writer, (str, os.PathLike)):
        if "://" in os.fspath(writer):
            raise ValueError(
                f"writer: expected a folder of this machine, got {os.fspath(writer)!r}; give a SummaryWriter"
            )
        return _event_file(writer).add_summary, writer
    modules = {kind.__module__.partition(".")[0] for kind in type(writer).__mro__}
    names = {kind.__name__ for kind in type(writer).__mro__}
    if "TensorBoardLogger" in names:
        return _destination(writer.experiment)
    if hasattr(writer, "_get_file_writer"):
        folder = writer.log_dir if hasattr(writer, "log_dir") else writer.logdir
        return _SummaryWriter(writer, foreign="tensorboardX" in modules), folder
    if "tensorflow" in modules and hasattr(writer, "as_default"):
        return _add_by_tensorflow(writer), None
    if "keras" in modules and "TensorBoard" in names:
        run = Path(writer.log_dir) / KERAS_RUN
        return _event_file(run).add_summary, run
    raise TypeError(f"writer: expected {_WRITERS}, got {type(writer).__name__}")


class _SummaryWriter:
    """Adds to the file of a torch or tensorboardX `SummaryWriter`."""

    def __init__(self, writer: Any, foreign: bool) -> None:
        self._writer, self._foreign = writer, foreign

    def __call__(self, summary: Summary, step: int) -> None:
        file = self._writer._get_file_writer()
        if self._foreign:
            # It knows only protocol buffers of its own, of the same form.
            from tensorboardX.proto.summary_pb2 import Summary as TheirSummary

            summary = TheirSummary.FromString(summary.SerializeToString())
        file.add_summary(summary, global_step=step)
        # Once an epoch; what is shown should not wait for the writer's queue to fill.
        file.flush()


def _add_by_tensorflow(writer: Any) -> Any:
    def add(summary: Summary, step: int) -> None:
        import tensorflow as tf

        with writer.as_default(step):
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)
        writer.flush()

    return add


def _event_file(folder: str | os.PathLike[str]) -> EventFile:
    key = os.path.realpath(folder)
    known = _open.get(key)
    # A folder that was removed since, as before a new run of a script, gets a new file.
    if known is None or (known.path is not None and not known.path.exists()):
        known = _open[key] = EventFile(folder, supersedes=False)
    return known


def _check_comparison(comparison: Any) -> None:
    if not isinstance(comparison, Comparison):
        raise TypeError(f"comparison: expected what bc_core.compare returns, got {type(comparison).__name__}")


def _check_names(dataset: Any, dissonance: Any) -> None:
    if not isinstance(dataset, str) or not dataset:
        raise ValueError(f"dataset: expected a name such as 'test', got {dataset!r}")
    try:
        dataset.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"dataset: expected a name that is valid Unicode, got {dataset!r}") from None
    if not (dissonance is None or isinstance(dissonance, str)):
        raise ValueError(f"dissonance: expected a text such as 'new error', or None, got {dissonance!r}")


def _check_count(value: Any, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")


def _checked_step(step: Any, comparison: Comparison) -> int:
    if step is None:
        step = comparison.step
    if step is None:
        raise ValueError("step: the comparison has none; give one, such as the epoch or trainer.global_step")
    return _checked_number(step)


def _checked_number(step: Any) -> int:
    try:
        number = operator.index(step)
    except TypeError:
        raise ValueError(f"step: expected a whole number, got {step!r}") from None
    if not 0 <= number < 2**63:
        raise ValueError(f"step: expected a number from 0 to below 2**63, got {number}")
    return number
