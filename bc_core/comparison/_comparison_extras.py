"""What a comparison's file holds only where there are scores or columns of metadata; earlier releases pass it over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bc_core.comparison._confidence import BINS, Calibration, Confidence, ThresholdCounts, millionths, of_millionths
from bc_core.comparison._error_instances import CONFIDENCES, ErrorInstances
from bc_core.comparison._sliced import SliceCounts, slices_from_json, slices_to_json, whole_numbers
from bc_core.slices._search import FoundSlice

_FOUND = ("name", "negative_flips", "total", "low", "high", "p_value")


def extras_to_json(
    slices: Sequence[SliceCounts], found: Sequence[FoundSlice], confidence: Confidence
) -> dict[str, Any]:
    """What is known of all instances together."""
    content: dict[str, Any] = {}
    if slices:
        content["slices"] = slices_to_json(slices)
    if found:
        content["found_slices"] = [
            {**{name: getattr(each, name) for name in _FOUND}, "conditions": [list(pair) for pair in each.conditions]}
            for each in found
        ]
    if (calibration := confidence.calibration) is not None:
        content["calibration"] = {
            "counts": calibration.counts.reshape(-1).tolist(),
            "sums": calibration.sums.reshape(-1).tolist(),
        }
    if (thresholds := confidence.thresholds) is not None:
        flat = thresholds.counts.reshape(-1)
        filled = np.flatnonzero(flat)
        content["thresholds"] = {
            "edges": list(thresholds.edges),
            "in_use": list(thresholds.in_use),
            "cells": filled.tolist(),
            "counts": flat[filled].tolist(),
        }
    return content


def extras_from_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same, as `Comparison` takes it.

    Raises:
        KeyError: Something is missing.
        ValueError: Something contradicts itself.
    """
    found = []
    for entry in data.get("found_slices", []):
        conditions = tuple((str(column), str(value)) for column, value in entry["conditions"])
        flips, total = int(entry["negative_flips"]), int(entry["total"])
        low, high, p_value = (float(entry[name]) for name in ("low", "high", "p_value"))
        if not all(map(math.isfinite, (low, high, p_value))) or not 0 <= flips <= total:
            raise ValueError(f"found_slices: no counts and bounds: {entry}")
        found.append(FoundSlice(str(entry["name"]), flips, total, low, high, p_value, conditions))
    calibration = thresholds = None
    if (given := data.get("calibration")) is not None:
        counts, sums = (whole_numbers(given[name], f"calibration: {name}") for name in ("counts", "sums"))
        if counts.shape != (4 * BINS,) or sums.shape != (2 * BINS,) or min(counts.min(), sums.min()) < 0:
            raise ValueError(f"calibration: expected counts of {BINS} bins of two models")
        calibration = Calibration(counts.reshape(2, BINS, 2), sums.reshape(2, BINS))
    if (given := data.get("thresholds")) is not None:
        thresholds = _thresholds(given)
    return {
        "slices": slices_from_json(data.get("slices", [])),
        "found_slices": tuple(found),
        "confidence": Confidence(calibration, thresholds),
    }


def _thresholds(given: Mapping[str, Any]) -> ThresholdCounts:
    edges, in_use = (tuple(map(float, given[name])) for name in ("edges", "in_use"))
    size = len(edges)
    cells, counts = (whole_numbers(given[name], f"thresholds: {name}") for name in ("cells", "counts"))
    if list(edges) != sorted(set(edges)) or len(in_use) != 2 or not set(in_use) <= set(edges) or size > 1000:
        raise ValueError("thresholds: expected ascending edges, those in use among them")
    if cells.shape != counts.shape or cells.ndim != 1 or (counts < 0).any():
        raise ValueError("thresholds: expected a count for each cell")
    if len(cells) and not (cells.min() >= 0 and cells.max() < 2 * size * size):
        raise ValueError("thresholds: a cell that there is not")
    flat = np.zeros(2 * size * size, np.int64)
    flat[cells] = counts
    return ThresholdCounts(edges, flat.reshape(size, size, 2), (in_use[0], in_use[1]))


def instances_to_json(table: ErrorInstances) -> dict[str, Any]:
    """What is known of single instances."""
    content: dict[str, Any] = {}
    if table.h1_confidence is not None:
        content["millionths"] = {name: millionths(getattr(table, name)).tolist() for name in CONFIDENCES}
    if table.slices:
        content["slices"] = {name: codes.tolist() for name, codes in table.slices.items()}
    return content


def instances_from_json(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The same, as `ErrorInstances` takes it.

    Raises:
        KeyError: Something is missing.
        ValueError: Something is no number.
    """
    content: dict[str, Any] = {"slices": {}}
    if (given := columns.get("millionths")) is not None:
        for name in CONFIDENCES:
            values = whole_numbers(given[name], name)
            if len(values) and not (values.min() >= -1 and values.max() <= 1_000_000):
                raise ValueError(f"{name}: expected millionths")
            content[name] = of_millionths(values)
    for name, codes in columns.get("slices", {}).items():
        content["slices"][name] = whole_numbers(codes, f"slices: {name}")
    return content
