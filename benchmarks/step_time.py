"""What a training step costs: plain, ours and the original library's, through Lightning on one CPU thread.

    python benchmarks/step_time.py [--rounds 120]

A convolutional net of about a million parameters, batches of 64 images of 32 x 32. Each variant is fitted by a real
`Trainer` in a thread of its own, and they take turns step by step, so that a busy machine slows all of them alike.
A step is the time from one `on_train_batch_start` to the next; the loader is the same for all, over the same data set.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bc_lightning import BCLightningModule, store_outputs

try:
    # Of all its modules only the losses are imported; they need nothing but torch.
    from backwardcompatibilityml.loss import BCCrossEntropyLoss, StrictImitationCrossEntropyLoss
except ImportError:
    sys.exit("The original library is missing: pip install --no-deps BackwardCompatibilityML==1.4.2")

BATCH, BATCHES, WARM_UP = 64, 13, 3
WAIT = 300  # seconds after which a variant that never hands over is an error
LAMBDA_C = 1.0


class Variant(NamedTuple):
    """One way to train, with a module of its own."""

    name: str
    module: pl.LightningModule
    data: Dataset[Any]


def network() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 24),
        nn.MaxPool2d(2),
        *block(24, 48),
        nn.MaxPool2d(2),
        *block(48, 96),
        nn.MaxPool2d(2),
        *block(96, 192),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(192 * 2 * 2, 960),
        nn.ReLU(),
        nn.Linear(960, 10),
    )


class Classifier(pl.LightningModule):
    """The user's module; `loss` is what its training step minimises, for each variant another."""

    def __init__(self, loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = network()
        self.loss = loss

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes."""
        return self.network(images)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch."""
        images, labels = batch
        if self.loss is not None:
            return self.loss(self.network, images, labels)
        return F.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD, the least that a step can cost."""
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class Triple(nn.Module):
    """A model as the original library wants it. Its softmax is part of what the original asks a user to pay."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, probabilities and log-probabilities."""
        logits = self.net(images)
        return logits, F.softmax(logits, dim=1), F.log_softmax(logits, dim=1)


class Turns:
    """Whose step it is. One step of every variant makes a round, in an order that is drawn anew each time."""

    def __init__(self, players: int, rounds: int) -> None:
        draw = random.Random(0)
        orders = (draw.sample(range(players), players) for _ in range(rounds))
        self._sequence = itertools.chain.from_iterable(orders)
        self._gates = [threading.Semaphore(0) for _ in range(players)]

    def hand_over(self) -> None:
        """Let the next one go."""
        player = next(self._sequence, None)
        if player is not None:
            self._gates[player].release()

    def wait(self, player: int) -> None:
        """Until it is this one's turn."""
        if not self._gates[player].acquire(timeout=WAIT):
            raise RuntimeError("A variant has stopped before its last step; its error is above.")


class Clock(pl.Callback):
    """Time from each batch's start to the next, loading included, less the turns of the others."""

    def __init__(self, turns: Turns, player: int) -> None:
        self.turns = turns
        self.player = player
        self.ready = threading.Event()
        self.steps: list[float] = []
        self._start: float | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """End the turn that brought us here, and wait for the next."""
        if self._start is not None:
            self.steps.append(time.perf_counter() - self._start)
            self.turns.hand_over()
        self.ready.set()
        self.turns.wait(self.player)
        self._start = time.perf_counter()


def fit(variant: Variant, clock: Clock, steps: int) -> None:
    # Threads of OpenMP are counted for each thread of Python apart.
    torch.set_num_threads(1)
    trainer = pl.Trainer(
        max_epochs=-1,
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[clock],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(variant.module, DataLoader(variant.data, BATCH, shuffle=True))


def measure(contestants: list[Variant], rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant's steps, `rounds` of each after the warm-up, side by side."""
    turns = Turns(len(contestants), rounds + WARM_UP)
    clocks = [Clock(turns, player) for player in range(len(contestants))]
    # One step more than is timed: the last one ends where the next begins.
    threads = [
        threading.Thread(target=fit, args=(variant, clock, rounds + WARM_UP + 1), daemon=True)
        for variant, clock in zip(contestants, clocks, strict=True)
    ]
    for thread, clock in zip(threads, clocks, strict=True):
        thread.start()
        if not clock.ready.wait(WAIT):
            raise RuntimeError("A variant did not reach its first step; its error is above.")
    turns.hand_over()
    for number in track(range(rounds + WARM_UP), "rounds"):
        while any(len(clock.steps) <= number for clock in clocks):
            if not all(thread.is_alive() for thread in threads):
                raise RuntimeError("A variant has stopped before its last step; its error is above.")
            time.sleep(0.05)
    return {variant.name: clock.steps[WARM_UP:] for variant, clock in zip(contestants, clocks, strict=True)}


def trained_h1(data: TensorDataset) -> nn.Module:
    """An old model that is right on nearly all of its training data, as h1 usually is; on the rest nothing is added."""
    h1 = network()
    optimizer = torch.optim.Adam(h1.parameters(), lr=1e-3)
    for _ in range(3):
        for images, labels in DataLoader(data, BATCH, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(h1(images), labels).backward()
            optimizer.step()
    return h1.eval()


def variants(data: TensorDataset, folder: str) -> tuple[list[Variant], float]:
    """All variants, and h1's share of right answers."""
    h1 = trained_h1(data)
    with torch.no_grad():
        images, labels = data.tensors
        right = float((torch.cat([h1(part) for part in images.split(BATCH)]).argmax(1) == labels).float().mean())

    def with_h1_forward(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            h1(images)
        return F.cross_entropy(net(images), labels)

    def original(kind: Any) -> Classifier:
        module = Classifier()
        loss = kind(Triple(h1), Triple(module.network), LAMBDA_C)
        # In a function, for as an attribute it would make h1's weights the module's, and the optimiser's.
        module.loss = lambda net, images, labels: loss(images, labels)
        return module

    def ours(loss: str, reference: Any = h1) -> pl.LightningModule:
        return BCLightningModule(Classifier(), h1=reference, loss=loss, lambda_c=LAMBDA_C)

    stored = store_outputs(h1, data, folder + "/h1")
    return [
        Variant("plain", Classifier(), data),
        Variant("plain + h1 forward", Classifier(with_h1_forward), data),
        Variant("ours, new error", ours("BCCrossEntropyLoss"), data),
        Variant("ours, strict imitation", ours("StrictImitationCrossEntropyLoss"), data),
        Variant("ours, stored h1", ours("BCCrossEntropyLoss", stored), stored.attach(data)),
        Variant("original, new error", original(BCCrossEntropyLoss), data),
        Variant("original, strict imitation", original(StrictImitationCrossEntropyLoss), data),
    ], right


# Numerator, denominator, limit, and whether the limit is a least or a most.
TARGETS = (
    ("ours, new error", "plain + h1 forward", 1.05, "at most"),
    ("ours, strict imitation", "plain + h1 forward", 1.05, "at most"),
    ("ours, stored h1", "plain", 1.05, "at most"),
    ("original, new error", "ours, new error", 1.5, "at least"),
    ("original, strict imitation", "ours, strict imitation", 1.7, "at least"),
)


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=120)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")

    torch.manual_seed(0)
    labels = torch.arange(BATCH * BATCHES) % 10
    # A bright stripe whose place is the class, under noise: h1 can learn it, and no download is needed.
    images = 0.5 * torch.randn(len(labels), 1, 32, 32)
    images[torch.arange(len(labels)), 0, 3 * labels] += 1.0
    data = TensorDataset(images, labels)
    with tempfile.TemporaryDirectory() as folder:
        contestants, right = variants(data, folder)
        rounds = measure(contestants, options.rounds)

    console = Console(width=None if sys.stdout.isatty() else 120)
    size = sum(parameter.numel() for parameter in network().parameters())
    times = Table(
        title=f"{size:,} parameters, batches of {BATCH}, one thread",
        caption=f"{options.rounds} steps each; h1 is right on {right:.0%} of the images.",
    )
    for header in ("variant", "median (ms)", "quartiles (ms)"):
        times.add_column(header, justify="left" if header == "variant" else "right")
    for name, values in rounds.items():
        low, middle, high = quartiles(values)
        times.add_row(name, f"{1e3 * middle:.1f}", f"{1e3 * low:.1f} to {1e3 * high:.1f}")
    ratios = Table(title="Ratios of medians; and median and quartiles of the ratios within a round")
    for header in ("ratio", "of medians", "by round", "quartiles", "target", "met"):
        ratios.add_column(header, justify="left" if header == "ratio" else "right")
    for above, below, limit, kind in TARGETS:
        ratio = statistics.median(rounds[above]) / statistics.median(rounds[below])
        low, middle, high = quartiles([a / b for a, b in zip(rounds[above], rounds[below], strict=True)])
        met = ratio <= limit if kind == "at most" else ratio >= limit
        ratios.add_row(
            f"({above}) / ({below})",
            f"{ratio:.3f}",
            f"{middle:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{kind} {limit}",
            "yes" if met else "NO",
        )
    console.print(times)
    console.print(ratios)


if __name__ == "__main__":
    main()
