"""The binary form in which a comparison travels to the dashboard: a JSON header, then columns in one zlib stream.

The header names each column with its type and length, so a reader needs no other knowledge of what was written. Ids
that grow, as positions in a data set do, are stored as differences, which zlib packs far better. The other side's
reader is `frontend/src/data/format.ts`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc_core import Comparison

MAGIC = b"BCMP"
VERSION = 1
KINDS = ("comparison", "media")
_TYPES = {"u1": "<u1", "u2": "<u2", "u4": "<u4", "i4": "<i4", "f8": "<f8"}
_RANGES = {"u1": (0, 2**8), "u2": (0, 2**16), "u4": (0, 2**32), "i4": (-(2**31), 2**31)}
# A number in JavaScript holds every integer up to here.
_EXACT = 2**53
# Of an instance: whether its image can be asked for; whether there is a larger one than the thumbnail, or would be but
# for a limit.
NO_IMAGE, IMAGE, LEFT_OUT, FULL, REDUCED = 0, 1, 2, 3, 4
_PREFIX = struct.Struct("<4sII")
# Where zlib's time against size is best for these columns.
_LEVEL = 6

Columns = dict[str, "NDArray[Any] | list[str]"]


def encode_comparison(
    comparison: Comparison,
    *,
    dataset: str = "data",
    dissonance: str | None = None,
    uncertain_classes: Sequence[int] = (),
    metadata: bool = True,
) -> bytes:
    """Encode counts and error instances of a comparison.

    Args:
        comparison: What to encode.
        dataset: Name of the data set.
        dissonance: How h2 was trained, such as "new error".
        uncertain_classes: True classes whose number of right instances is not known.
        metadata: Whether the texts of the instances go in; they stay out where they are kept once for all steps.

    Example:
        >>> from bc_core import compare
        >>> from bc_tensorboard.writing._format import decode, encode_comparison
        >>> header, columns = decode(encode_comparison(compare([0, 1], [0, 1], [0, 0]), dataset="test"))
        >>> header["dataset"], columns["ids"].tolist(), columns["counts"].tolist()
        ('test', [1], [0, 0, 0, 1, 0, 0, 1, 0])
    """
    table = comparison.instances
    columns: dict[str, NDArray[Any] | list[Any]] = {
        "counts": comparison.overlap.counts.reshape(-1),
        "ids": _plain_ids(table.ids),
        "target": table.target,
        "h1": table.h1_pred,
        "h2": table.h2_pred,
    }
    if metadata and table.metadata is not None:
        columns["metadata"] = table.metadata.tolist()
    columns |= _confidence_columns(comparison)
    for number, each in enumerate(comparison.slices):
        columns[f"slice{number}"] = table.slices[each.column]
        columns[f"slice{number}_counts"] = each.counts.reshape(-1)
    header = {
        "kind": "comparison",
        "name": comparison.name,
        "step": comparison.step,
        "lambda_c": comparison.lambda_c,
        "dataset": dataset,
        "dissonance": dissonance,
        "num_classes": comparison.overlap.num_classes,
        "class_names": comparison.class_names,
        "uncertain_classes": [int(number) for number in uncertain_classes],
        **({"new_classes": list(comparison.new_classes)} if comparison.new_classes else {}),
        **_header_of_extras(comparison),
    }
    return _encode(header, columns)


def _confidence_columns(comparison: Comparison) -> Columns:
    """How sure the models are, in steps of 1 / 65534, and 65535 where it is not known; earlier readers pass it over."""
    table, columns = comparison.instances, dict[str, Any]()
    for name in ("h1", "h2") if table.h1_confidence is not None else ():
        columns[f"{name}_sure"] = _steps(getattr(table, f"{name}_confidence"))
        # Where a model is right they are the same.
        is_wrong = getattr(table, f"{name}_pred") != table.target
        columns[f"{name}_truth"] = np.where(is_wrong, _steps(getattr(table, f"{name}_of_truth")), 0)
    if (calibration := comparison.calibration) is not None:
        columns["calibration"] = calibration.counts.reshape(-1)
        columns["calibration_sums"] = calibration.sums.reshape(-1)
    if (thresholds := comparison.thresholds) is not None:
        columns["threshold_counts"] = thresholds.counts.reshape(-1)
    return columns


def _steps(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    return np.where(np.isnan(probabilities), 65535, np.rint(np.nan_to_num(probabilities) * 65534)).astype(np.int64)


def _header_of_extras(comparison: Comparison) -> dict[str, Any]:
    header: dict[str, Any] = {}
    if comparison.slices:
        header["slices"] = [{"column": each.column, "values": each.values} for each in comparison.slices]
        header["found_slices"] = [
            {"conditions": each.conditions, "flips": each.negative_flips, "total": each.total}
            for each in comparison.found_slices
        ]
    if (thresholds := comparison.thresholds) is not None:
        header["thresholds"] = {"edges": thresholds.edges, "in_use": thresholds.in_use}
    return header


def encode_media(
    ids: Sequence[int | str], texts: Sequence[str], images: Sequence[int], longer: Sequence[bool] = ()
) -> bytes:
    """Encode what is known of the instances of a data set beside the predictions.

    Args:
        ids: N ids, all integers or all text.
        texts: N texts; empty where there is none.
        images: `IMAGE` where there is one to ask for, `FULL` where there is also a larger one, `REDUCED` where a limit
            left that out, `LEFT_OUT` where it left the image out, `NO_IMAGE`; N of them.
        longer: Where the text is only the beginning of one; N of them, or none.

    Example:
        >>> from bc_tensorboard.writing._format import IMAGE, NO_IMAGE, decode, encode_media
        >>> decode(encode_media(["a", "b"], ["first", ""], [IMAGE, NO_IMAGE]))[1]["text"]
        ['first', '']
    """
    columns: dict[str, NDArray[Any] | list[Any]] = {
        "ids": _plain_ids(ids),
        "text": list(texts),
        "has_image": np.asarray(images, dtype=np.uint8),
    }
    if any(longer):
        columns["is_longer"] = np.asarray(longer, dtype=np.uint8)
    return _encode({"kind": "media"}, columns)


def decode(content: bytes) -> tuple[dict[str, Any], Columns]:
    """Read what `encode_comparison` or `encode_media` wrote.

    Args:
        content: The encoded bytes.

    Returns:
        The header, and the columns: arrays (int64 for ids) or lists of text.

    Raises:
        ValueError: If it is something else, of another version, or cut off.

    Example:
        >>> from bc_tensorboard.writing._format import decode
        >>> decode(b"something else")
        Traceback (most recent call last):
        ValueError: not a table of the dashboard: it begins with b'some' instead of b'BCMP'
    """
    if content[:4] != MAGIC:
        raise ValueError(f"not a table of the dashboard: it begins with {bytes(content[:4])!r} instead of {MAGIC!r}")
    try:
        _, version, length = _PREFIX.unpack_from(content)
        if version != VERSION:
            raise ValueError(
                f"written in version {version} of the format, and this release reads version {VERSION}: "
                "update backward-compat-ml"
            )
        start = _PREFIX.size + length
        header = json.loads(content[_PREFIX.size : start])
        if header["kind"] not in KINDS:
            raise ValueError(f"a table of the unknown kind {header['kind']!r}: update backward-compat-ml")
        body, columns, at = zlib.decompress(content[start:]), {}, 0
        for entry in header["columns"]:
            columns[entry["name"]] = _column(entry, body[at : at + entry["bytes"]])
            at += entry["bytes"]
    except (struct.error, zlib.error, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"a table of the dashboard that is cut off or damaged ({error})") from error
    if at != len(body):
        raise ValueError("a table of the dashboard that is damaged: its columns are not as long as its header says")
    return header, columns


def _encode(header: Mapping[str, Any], columns: Mapping[str, NDArray[Any] | list[Any]]) -> bytes:
    entries, parts = [], []
    for name, values in columns.items():
        entry, content = _texts(values) if isinstance(values, list) else _numbers(values, delta=name == "ids")
        if name == "ids" and isinstance(values, list) and values and isinstance(values[0], int):
            entry["integer"] = True
        entries.append({"name": name, **entry, "bytes": len(content)})
        parts.append(content)
    text = json.dumps({**header, "columns": entries}, separators=(",", ":")).encode("ascii")
    return _PREFIX.pack(MAGIC, VERSION, len(text)) + text + zlib.compress(b"".join(parts), _LEVEL)


def _plain_ids(ids: Any) -> NDArray[Any] | list[Any]:
    array = np.asarray(ids) if not isinstance(ids, np.ndarray) else ids
    if array.dtype.kind not in "iu":
        return [str(value) for value in array.tolist()]
    if array.size and (array.max() > _EXACT or array.min() < -_EXACT):
        return list(map(int, array.tolist()))
    return array.astype(np.int64)


def _numbers(values: NDArray[Any], delta: bool) -> tuple[dict[str, Any], bytes]:
    entry: dict[str, Any] = {"length": len(values)}
    # A difference beyond what a float64 holds exactly would be rounded.
    if delta and len(values) > 1 and (values[1:] >= values[:-1]).all() and int(values[-1]) - int(values[0]) <= _EXACT:
        values = np.diff(values, prepend=0)
        entry["delta"] = True
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    name = next((name for name, (least, most) in _RANGES.items() if least <= low and high < most), "f8")
    return {"type": name, **entry}, values.astype(_TYPES[name]).tobytes()


def _texts(values: Sequence[Any]) -> tuple[dict[str, Any], bytes]:
    # A lone half of a surrogate pair has no UTF-8; it must not cost the whole comparison.
    encoded = [str(value).encode("utf-8", "replace") for value in values]
    lengths = np.fromiter(map(len, encoded), dtype="<u4", count=len(encoded))
    return {"type": "text", "length": len(encoded)}, lengths.tobytes() + b"".join(encoded)


def _column(entry: Mapping[str, Any], content: bytes) -> NDArray[Any] | list[str]:
    count = entry["length"]
    if entry["type"] == "text":
        ends = np.cumsum(np.frombuffer(content, dtype="<u4", count=count), dtype=np.int64) + 4 * count
        if len(content) != (int(ends[-1]) if count else 0):
            raise ValueError(f"a table of the dashboard that is damaged: the texts of {entry['name']!r} are cut off")
        starts = np.concatenate([[4 * count], ends[:-1]]) if count else ends
        return [content[a:b].decode("utf-8") for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    values: NDArray[Any] = np.frombuffer(content, dtype=_TYPES[entry["type"]])
    if len(values) != count:
        raise ValueError(f"a table of the dashboard that is damaged: the column {entry['name']!r} is cut off")
    values = values.astype(np.int64)
    return np.cumsum(values) if entry.get("delta") else values
