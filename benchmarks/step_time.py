"""What a training step costs: plain, ours and the original library's, through Lightning on one CPU thread.

    python benchmarks/step_time.py [--rounds 120]

A convolutional net of about a million parameters, batches of 64 images of 32 x 32. Each variant is fitted by a real
`Trainer` in a thread of its own, and they take turns step by step, so that a busy machine slows all of them alike.
A step is the time from one `on_train_batch_start` to the next; the loader is the same for all, over the same data set.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from interleaved import Target, by_round, by_turns, console, quartiles, ratio_of, table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bc_lightning import BCLightningModule, store_outputs

try:
    # Of all its modules only the losses are imported; they need nothing but torch.
    from backwardcompatibilityml.loss import BCCrossEntropyLoss, StrictImitationCrossEntropyLoss
except ImportError:
    BCCrossEntropyLoss = StrictImitationCrossEntropyLoss = None

BATCH, BATCHES, WARM_UP = 64, 13, 3
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


class Ticking(pl.Callback):
    """Says when a batch begins."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick = tick

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """A batch begins."""
        self.tick()


def fit(variant: Variant, steps: int, tick: Callable[[], None]) -> None:
    """Train a variant by a Trainer."""
    # Threads of OpenMP are counted for each thread of Python apart.
    torch.set_num_threads(1)
    trainer = pl.Trainer(
        max_epochs=-1,
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[Ticking(tick)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(variant.module, DataLoader(variant.data, BATCH, shuffle=True))


def measure(contestants: list[Variant], rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant's steps, `rounds` of each after the warm-up, side by side."""
    steps = rounds + WARM_UP + 1
    fits = {variant.name: functools.partial(fit, variant, steps) for variant in contestants}
    return {name: [step.wall for step in taken] for name, taken in by_turns(fits, steps, WARM_UP).items()}


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
        Variant("plain + h1 forward", Classifier(with_forward_of(h1)), data),
        Variant("ours, new error", ours("BCCrossEntropyLoss"), data),
        Variant("ours, strict imitation", ours("StrictImitationCrossEntropyLoss"), data),
        Variant("ours, stored h1", ours("BCCrossEntropyLoss", stored), stored.attach(data)),
        Variant("original, new error", original(BCCrossEntropyLoss), data),
        Variant("original, strict imitation", original(StrictImitationCrossEntropyLoss), data),
    ], right


TARGETS = (
    Target("ours, new error", "plain + h1 forward", 1.05),
    Target("ours, strict imitation", "plain + h1 forward", 1.05),
    Target("ours, stored h1", "plain", 1.05),
    Target("original, new error", "ours, new error", 1.5, "at least"),
    Target("original, strict imitation", "ours, strict imitation", 1.7, "at least"),
)


def begin() -> TensorDataset:
    """Make this process quiet and its data: a bright stripe whose place is the class, under noise."""
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    torch.manual_seed(0)
    labels = torch.arange(BATCH * BATCHES) % 10
    # h1 can learn it, and no download is needed.
    images = 0.5 * torch.randn(len(labels), 1, 32, 32)
    images[torch.arange(len(labels)), 0, 3 * labels] += 1.0
    return TensorDataset(images, labels)


def with_forward_of(h1: nn.Module) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The plain loss, after one answer of h1: what no compatible update can do without."""

    def loss(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            h1(images)
        return F.cross_entropy(net(images), labels)

    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=120)
    options = parser.parse_args()
    if BCCrossEntropyLoss is None:
        sys.exit("The original library is missing: pip install --no-deps BackwardCompatibilityML==1.4.2")
    data = begin()
    with tempfile.TemporaryDirectory() as folder:
        contestants, right = variants(data, folder)
        rounds = measure(contestants, options.rounds)

    size = sum(parameter.numel() for parameter in network().parameters())
    times = [["variant", "median (ms)", "quartiles (ms)"]]
    for name, values in rounds.items():
        low, middle, high = (f"{1e3 * value:.1f}" for value in quartiles(values))
        times.append([name, middle, f"{low} to {high}"])
    ratios = [["ratio", "of medians", "by round", "quartiles", "target", "met"]]
    for target in TARGETS:
        ratio = ratio_of(rounds, target)
        low, middle, high = (f"{value:.3f}" for value in by_round(rounds, target))
        ratios.append(
            [f"({target.above}) / ({target.below})", f"{ratio:.3f}", middle, f"{low} to {high}", *target.told(ratio)]
        )
    told = f"{options.rounds} steps each; h1 is right on {right:.0%} of the images."
    console().print(table(times, f"{size:,} parameters, batches of {BATCH}, one thread", told))
    console().print(table(ratios, "Ratios of medians; and median and quartiles of the ratios within a round"))


if __name__ == "__main__":
    main()
