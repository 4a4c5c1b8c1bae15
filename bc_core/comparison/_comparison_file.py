"""The file of a comparison: JSON, compressed or not, and what is looked at before it is believed."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

from bc_core.comparison._comparison_extras import extras_from_json, instances_from_json, instances_to_json
from bc_core.comparison._error_instances import ErrorInstances
from bc_core.counting._overlap import ErrorOverlap
from bc_core.files._files import TooLargeError, read_bounded

FORMAT = "backward-compat-comparison"
VERSION = 1

_CAPTIONS = {"name": (str,), "step": (int,), "lambda_c": (int, float), "class_names": (list,)}


def packed(captions: Mapping[str, Any], overlap: ErrorOverlap, table: ErrorInstances, compressed: bool) -> bytes:
    """The file's content.

    Args:
        captions: `name`, `step`, `lambda_c` and `class_names` of the comparison.
        overlap: Its counts.
        table: Its error instances.
        compressed: Whether to compress it.
    """
    text = json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            **captions,
            "overlap": overlap.to_dict(),
            "instances": {
                "ids": table.ids.tolist(),
                "target": table.target.tolist(),
                "h1_pred": table.h1_pred.tolist(),
                "h2_pred": table.h2_pred.tolist(),
                "metadata": None if table.metadata is None else table.metadata.tolist(),
                **instances_to_json(table),
            },
        },
        allow_nan=False,
        separators=(",", ":"),
    )
    content = text.encode("ascii")
    # Without the time of day, equal comparisons give equal files.
    return gzip.compress(content, compresslevel=4, mtime=0) if compressed else content


def unpacked(path: str | os.PathLike[str], max_bytes: int) -> tuple[dict[str, Any], ErrorOverlap, ErrorInstances]:
    """Captions, counts and error instances of a file.

    Args:
        path: The file; whether it is compressed is seen from its content.
        max_bytes: Bytes of JSON at most.

    Raises:
        ValueError: It is cut off, something else, too large, of another version, or damaged.
        OSError: It cannot be read.
    """
    try:
        data = json.loads(read_bounded(path, max_bytes))
    except TooLargeError as error:
        raise ValueError(
            f"{path}: not read, as {error}, far more than comparisons have; if it is one, allow for it with "
            "Comparison.load(..., max_bytes=...)"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a saved comparison, or cut off while it was copied ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{path}: not a saved comparison; expected a file that Comparison.save wrote")
    if data.get("version") != VERSION:
        raise ValueError(
            f"{path}: written in version {data.get('version')!r} of the format, and this release reads "
            f"version {VERSION}; read it with the release that wrote it, or a newer one"
        )
    try:
        return _captions(data), ErrorOverlap.from_dict(data["overlap"]), _instances(data["instances"])
    except KeyError as error:
        raise ValueError(f"{path}: a damaged comparison, the entry {error} is missing") from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(f"{path}: a damaged comparison, {error}") from error


def _captions(data: Mapping[str, Any]) -> dict[str, Any]:
    for caption, kinds in _CAPTIONS.items():
        value = data[caption]
        if value is not None and type(value) not in kinds:
            raise ValueError(f"{caption} is {value!r}")
    _check_types(data["class_names"] or [], "class_names: expected a list of names", {str})
    # Only in files of an h1 that did not know all classes.
    new_classes = data.get("new_classes", [])
    _check_types(new_classes, "new_classes: expected a list of class numbers", {int})
    captions = {**{caption: data[caption] for caption in _CAPTIONS}, "new_classes": tuple(new_classes)}
    return {**captions, **extras_from_json(data)}


def _instances(columns: Mapping[str, Any]) -> ErrorInstances:
    for column in ("target", "h1_pred", "h2_pred"):
        _check_types(columns[column], f"{column}: expected a column of class numbers", {int})
    _check_types(columns["ids"], "ids: expected one entry per instance, all integers or all text", {int}, {str})
    if columns["metadata"] is not None:
        _check_types(columns["metadata"], "metadata: expected a text for every row", {str})
    plain = {name: columns[name] for name in ("ids", "target", "h1_pred", "h2_pred", "metadata")}
    return ErrorInstances(**plain, **instances_from_json(columns))


def _check_types(values: Any, expected: str, *kinds: set[type]) -> None:
    if not isinstance(values, list):
        raise ValueError(f"{expected}, got {type(values).__name__}")
    found = set(map(type, values))
    if not any(found <= kind for kind in kinds):
        raise ValueError(f"{expected}, got {', '.join(sorted(kind.__name__ for kind in found))}")
