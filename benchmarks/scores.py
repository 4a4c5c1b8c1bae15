"""Scores over a million labels: bc_core against the functions of BackwardCompatibilityML 1.4.2.

Run `python benchmarks/scores.py [--labels N] [--rounds R]`. The two take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys

import numpy as np
from interleaved import timed

import bc_core

try:
    from backwardcompatibilityml import scores as original_scores
except ImportError:
    sys.exit("The original library is missing: pip install --no-deps BackwardCompatibilityML==1.4.2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    target = rng.integers(0, 10, options.labels)
    # Models that err on about a tenth of the instances, as in a usual update.
    h1, h2 = (np.where(rng.random(options.labels) < 0.1, rng.integers(0, 10, options.labels), target) for _ in "12")
    inputs = {"int64 array": (h1, h2, target), "list of int": (h1.tolist(), h2.tolist(), target.tolist())}
    functions = ("trust_compatibility_score", "error_compatibility_score")

    print(f"{options.labels} labels, medians of {options.rounds} interleaved rounds")
    print(f"{'function':<28}{'labels':<14}{'original':>10}{'bc_core':>10}{'ratio':>8}")
    for name in functions:
        original, ours = getattr(original_scores, name), getattr(bc_core, name)
        for kind, labels in inputs.items():
            expected, got = original(*labels), ours(*labels)
            if expected != got:
                sys.exit(f"{name} on {kind}: the original gives {expected}, bc_core gives {got}")
            rivals = {"original": functools.partial(original, *labels), "ours": functools.partial(ours, *labels)}
            times = timed(rivals, options.rounds)
            slow, fast = statistics.median(times["original"]), statistics.median(times["ours"])
            print(f"{name:<28}{kind:<14}{slow * 1e3:>7.1f} ms{fast * 1e3:>7.1f} ms{slow / fast:>7.1f}x")
    print("All scores are equal.")


if __name__ == "__main__":
    main()
