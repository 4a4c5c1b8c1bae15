"""Write encoded tables, and what is in them, for the tests of the dashboard's decoder.

python frontend/scripts/write_fixtures.py [--check]    (--check: only see whether the committed ones are the same)
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np

from bc_core import SCORES, Comparison, ErrorOverlap, compare
from bc_core.promise._grammar import Constraint
from bc_tensorboard.writing._format import MAGIC, encode_comparison, encode_media

FOLDER = Path(__file__).parents[1] / "test" / "fixtures"
STRANGE = ["</script><b>", 'a "quoted" one', "emoji 🐱 käfer", "", "x" * 10_000, "line\nbreak", "'; --"]


def comparison(size: int, classes: int, **options: object) -> Comparison:
    """Two models that each err on a tenth of the instances."""
    random = np.random.default_rng(size)
    target = random.integers(0, classes, size)
    h1, h2 = (np.where(random.random(size) < 0.1, random.integers(0, classes, size), target) for _ in range(2))
    return compare(target, h1, h2, num_classes=classes, **options)  # type: ignore[arg-type]


def tables() -> dict[str, Comparison]:
    """One for each way in which columns are stored."""
    random = np.random.default_rng(0)
    return {
        "integers": comparison(200, 5, class_names=list("abcde"), name="night run", step=120, lambda_c=4.0),
        "unsorted": comparison(200, 3, ids=random.permutation(200) * 1000 - 50_000),
        "beyond": comparison(60, 3, ids=2**53 + np.arange(60) * 2**40),
        "strings": comparison(
            70,
            4,
            ids=[f"{i} {STRANGE[i % len(STRANGE)]}" for i in range(70)],
            class_names=STRANGE[:4],
            metadata=lambda i: f"about {i}",
            name="</script>",
        ),
        "perfect": compare([0, 1, 2], [0, 1, 2], [0, 1, 2]),
        "thousand": comparison(3000, 1000),
    }


def insights() -> dict[str, Comparison]:
    """Comparisons with scores and columns of metadata."""
    random = np.random.default_rng(5)
    size = 900
    metadata = {"country": random.choice(["de", "fr, it", "é<b>"], size).tolist(), "age": random.integers(0, 99, size)}
    target = random.integers(0, 3, size)
    raised = [np.exp(random.normal(size=(size, 3)) + 1.5 * np.eye(3)[target]) for _ in range(2)]
    h1, h2 = (each / each.sum(axis=1, keepdims=True) for each in raised)
    broken = (np.asarray(metadata["country"]) == "de") & (random.random(size) < 0.5)
    h2[broken] = np.roll(h2[broken], 1, axis=1)
    h1[3] = np.nan
    classes = np.nan_to_num(h1).argmax(1), h2.argmax(1)
    positive = [np.round(0.6 * random.random(size) + 0.4 * (target > 0), 2) for _ in range(2)]
    labels = [(each >= edge).astype(int) for each, edge in zip(positive, (0.5, 0.333), strict=True)]
    return {
        "sure": compare(target, *classes, metadata=metadata, h1_scores=h1, h2_scores=h2),
        "binary": compare(
            (target > 0).astype(int), *labels, h1_scores=positive[0], h2_scores=positive[1], threshold=(0.5, 0.333)
        ),
    }


def insight(comparison: Comparison) -> dict[str, object]:
    """What the dashboard has to find in one of them."""
    table, calibration, thresholds = comparison.instances, comparison.calibration, comparison.thresholds
    assert calibration is not None
    expected: dict[str, object] = {
        name: [None if np.isnan(share) else share for share in getattr(table, name).tolist()]
        for name in ("h1_confidence", "h2_confidence", "h1_of_truth", "h2_of_truth")
    }
    expected["errors"] = [calibration.expected_error("h1"), calibration.expected_error("h2")]
    expected["slices"] = [
        {
            "column": each.column,
            "of_rows": [each.values[code] for code in table.slices[each.column]],
            "cells": each.counts.reshape(-1, 4).tolist(),
        }
        for each in comparison.slices
    ]
    expected["found"] = [
        {"conditions": each.conditions, "rate": each.rate, "low": each.low, "high": each.high}
        for each in comparison.found_slices
    ]
    if thresholds is not None:
        expected["at"] = [
            {"h1": h1, "h2": h2, "cells": thresholds.at(h2=h2, h1=h1).counts.sum(axis=0).ravel().tolist()}
            for h1 in (0.0, 0.5, 0.77)
            for h2 in (0.0, 0.29, 0.333, 0.58, 0.99)
        ]
    return expected


def promises() -> list[dict[str, object]]:
    """Promises, counts, what `bc_core` decides on them and the bound that decides."""
    found: list[dict[str, object]] = []
    for cells in (
        [10, 30, 20, 940],
        [0, 5, 0, 95],
        [5, 0, 95, 0],
        [300, 1700, 900, 997_100],
        [0, 0, 0, 7],
        [9, 1, 0, 0],
    ):
        overlap = ErrorOverlap([[cells[:2], cells[2:]]])
        for score in ("nfr", "btc", "nfi", "accuracy_h2", "bec_given_h2_wrong"):
            higher = bool(SCORES[score].higher_is_better)
            low = overlap.interval(score, 0.95, "lower", "clopper_pearson")[0]
            high = overlap.interval(score, 0.95, "upper", "clopper_pearson")[1]
            found.extend(
                {
                    "cells": cells,
                    "text": str(Constraint(score, limit)),
                    "verdict": {"pass": "kept", "fail": "broken"}.get(overlap.gate(score, limit), "unsure"),
                    "bound": low if higher else high,
                }
                for limit in (0.0, 0.0009, 0.01, 0.02, 0.03, 0.5, 0.95, 0.98, 0.999, 1.0)
            )
    return found


def files() -> dict[str, bytes]:
    """Content of every fixture by name."""
    found: dict[str, bytes] = {}
    for name, table in tables().items():
        found[f"{name}.bin"] = encode_comparison(
            table, dataset="held out", dissonance="new error", uncertain_classes=[1]
        )
        rows = table.instances
        expected = {
            "name": table.name,
            "step": table.step,
            "lambda": table.lambda_c,
            "numClasses": table.overlap.num_classes,
            "classNames": table.class_names,
            "size": table.dataset_size,
            "counts": table.overlap.counts.ravel().tolist(),
            # JavaScript has no exact numbers beyond 2**53; such ids are text there.
            "ids": [str(i) if isinstance(i, int) and abs(i) > 2**53 else i for i in rows.ids.tolist()],
            "target": rows.target.tolist(),
            "h1": rows.h1_pred.tolist(),
            "h2": rows.h2_pred.tolist(),
            "texts": None if rows.metadata is None else rows.metadata.tolist(),
        }
        found[f"{name}.json"] = json.dumps(expected).encode()
    for name, table in insights().items():
        found[f"insight-{name}.bin"] = encode_comparison(table, dataset="val")
        found[f"insight-{name}.expected.json"] = json.dumps(insight(table)).encode()
    found["promises.json"] = json.dumps(promises()).encode()
    media = ([3, 5, 8], ["", "fifth 🐱", "</b>"], [True, False, True])
    found["media.bin"] = encode_media(*media)
    found["media.json"] = json.dumps(dict(zip(("ids", "texts", "images"), media, strict=True))).encode()
    return found


def unpacked(content: bytes) -> bytes:
    """What is compared: releases of zlib pack the same columns differently."""
    if content[:4] != MAGIC:
        return content
    start = 12 + int.from_bytes(content[8:12], "little")
    return content[:start] + zlib.decompress(content[start:])


def main() -> None:
    """Write or check them."""
    differing = [
        name
        for name, content in files().items()
        if not (FOLDER / name).exists() or unpacked((FOLDER / name).read_bytes()) != unpacked(content)
    ]
    if "--check" in sys.argv:
        if differing:
            sys.exit(f"{', '.join(differing)} in {FOLDER.name} are not what this code writes; run `make frontend`")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main()
