"""Write what the front end takes over from bc_core: its scores, and intervals that its tests compare with.

python frontend/scripts/write_scores.py [--check]    (--check: only see whether the committed files are the same)
"""

from __future__ import annotations

import json
import math
import sys
from itertools import chain
from pathlib import Path
from typing import Any

from bc_core import SCORES, paired_difference_interval, wilson_interval

FRONTEND = Path(__file__).resolve().parent.parent
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999999)
SHARES = ((0, 0), (0, 1), (1, 1), (0, 1000), (1000, 1000), (1, 7), (36, 48), (3, 100_000), (499_999, 1_000_000))
# both, only the first, only the second, neither
PAIRS = (
    (0, 0, 0, 0),
    (36, 12, 2, 0),
    (43, 0, 0, 0),
    (0, 5, 7, 0),
    (0, 0, 0, 50),
    (1, 1, 1, 1),
    (20, 3, 9, 968),
    (0, 1, 0, 999),
    (120, 80, 30, 9_770),
    (1_000, 2_000, 500, 996_500),
)


def scores() -> list[dict[str, Any]]:
    """All scores as the front end reads them; masks are in the order of `Cells` in src/model.ts."""
    return [
        {
            "name": score.name,
            "title": score.title,
            "numerator": list(chain.from_iterable(score.numerator)),
            "denominator": list(chain.from_iterable(score.denominator)),
            "higherIsBetter": score.higher_is_better,
            "description": score.description,
        }
        for score in SCORES.values()
    ]


def intervals() -> dict[str, list[list[float]]]:
    """Counts, confidence, lower and upper bound, one row each."""
    return {
        "wilson": [[*share, level, *wilson_interval(*share, level)] for share in SHARES for level in LEVELS],
        "paired": [[*pair, level, *paired_difference_interval(*pair, level)] for pair in PAIRS for level in LEVELS],
    }


def write(path: Path, content: Any) -> None:
    """Write JSON that git can show line by line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def same(a: Any, b: Any) -> bool:
    """Compare two JSON values; the last bits of a logarithm differ between processors."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-15)
    return bool(a == b)


def main() -> None:
    """Write or check the two files."""
    for path, content in (
        (FRONTEND / "src" / "data" / "scores.json", scores()),
        (FRONTEND / "test" / "fixtures" / "intervals.json", intervals()),
    ):
        if "--check" not in sys.argv:
            write(path, content)
        elif not path.exists() or not same(content, json.loads(path.read_text(encoding="utf-8"))):
            sys.exit(f"{path.name} is not what bc_core gives; run `make frontend`")


if __name__ == "__main__":
    main()
