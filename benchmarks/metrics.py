"""One update of BTC against one of torchmetrics' MulticlassAccuracy on the same batch.

Run `python benchmarks/metrics.py [--rounds R]`. The two take turns, so that a busy machine slows both; one thread.
BTC reads the outputs of two models where accuracy reads those of one: 2.0x is twice the work at the same speed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics

import torch
from interleaved import timed
from torchmetrics.classification import MulticlassAccuracy

from bc_lightning.metrics import BTC

BATCH_SIZE = 256
CALLS_PER_ROUND = 20


def medians(num_classes: int, call: str, validate: bool, rounds: int) -> tuple[float, float]:
    """Give the seconds that one call takes with accuracy and with BTC."""
    target = torch.randint(num_classes, (BATCH_SIZE,))
    preds, reference_preds = (torch.randn(BATCH_SIZE, num_classes) for _ in range(2))
    accuracy = getattr(MulticlassAccuracy(num_classes, average="micro", validate_args=validate), call)
    btc = getattr(BTC(task="multiclass", num_classes=num_classes, validate_args=validate), call)
    rivals = {"accuracy": lambda: accuracy(preds, target), "btc": lambda: btc(preds, target, reference_preds)}
    times = timed(rivals, rounds, calls=CALLS_PER_ROUND)
    return statistics.median(times["accuracy"]), statistics.median(times["btc"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    print(f"medians of {options.rounds} interleaved rounds, {CALLS_PER_ROUND} calls each, one thread")
    print(f"{'batch':<14}{'call':<9}{'validate_args':<15}{'accuracy':>11}{'BTC':>11}{'ratio':>8}")
    for num_classes, call, validate in itertools.product((10, 1000), ("update", "forward"), (True, False)):
        accuracy, btc = medians(num_classes, call, validate, options.rounds)
        print(
            f"{f'{BATCH_SIZE} x {num_classes}':<14}{call:<9}{validate!s:<15}"
            f"{accuracy * 1e6:>8.0f} us{btc * 1e6:>8.0f} us{btc / accuracy:>7.2f}x"
        )


if __name__ == "__main__":
    main()
