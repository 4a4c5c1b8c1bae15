"""Stands for whatever predicts in your pipeline: two small models, and their predictions of one test set as CSV.

python predict.py old.csv new.csv [--update good|bad]

The good update has seen more data, and more cats. In that of the bad one, whoever labelled took eels at night for dogs.
"""

import argparse

import numpy as np

NAMES = np.array(["cat", "dog", "eel"])
CENTRES = np.array([[0.0, 3.2], [-2.8, -1.6], [2.8, -1.6]])


def pictures(rng, size):
    """Two numbers a picture, whether it was taken at night, and what it shows."""
    target, night = rng.integers(0, 3, size), rng.random(size) < 0.04
    return CENTRES[target] + rng.normal(0, 1, (size, 2)), night, target


def features(x, night):
    """What the models see."""
    return np.column_stack([np.ones(len(x)), x, night, x * night[:, None]])


def trained(x, night, target):
    """Least squares on one column a class."""
    return np.linalg.lstsq(features(x, night), np.eye(3)[target], rcond=None)[0]


def write(path, columns):
    """Write CSV."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(",".join(columns) + "\n")
        file.writelines(",".join(map(str, row)) + "\n" for row in zip(*columns.values(), strict=True))


def main(arguments=None):
    """Train both models, and write what they predict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--update", choices=["good", "bad"], default="good")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    x, night, target = pictures(rng, 9000)
    known = np.arange(9000) < 3000
    seen = known & ((target != 0) | (rng.random(9000) < 0.15))  # cats were rare when the old model was trained
    old = trained(x[seen], night[seen], target[seen])
    if options.update == "bad":
        target = np.where(night & (target == 2) & ~known, 1, target)
    new = trained(x, night, target)
    x, night, target = pictures(rng, 10_000)
    ids = [f"picture-{number:05d}" for number in range(len(x))]
    h1, h2 = ((features(x, night) @ weights).argmax(axis=1) for weights in (old, new))
    light = np.where(night, "night", "day")
    write(options.old, {"id": ids, "pred": NAMES[h1], "target": NAMES[target], "light": light})
    write(options.new, {"id": ids, "pred": NAMES[h2]})


if __name__ == "__main__":
    main()
