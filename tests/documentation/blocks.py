"""The blocks of code of README and docs, and what stands for the names that they take for given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[2]
# These run in tests of their own: every line of the tables of migration too, and the gate's commands.
ELSEWHERE = {"docs/migration.md"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+?) -->\n+)?( *)```python\n(?P<code>.*?)^\2```", re.DOTALL | re.MULTILINE
)
CLASSES = 10


class Block(NamedTuple):
    page: str
    line: int
    code: str
    why: str | None

    @property
    def side(self):
        """Whose names it takes: those of Keras where it uses them, and on a page that goes on with them."""
        if self.page in ("docs/keras.md", "docs/tutorial_keras.md"):
            return "keras"
        code = re.sub(r"#.*", "", self.code)
        return "keras" if re.search(r"\bbc_keras\b|\bBCModel\b|\bkeras\b|\.compile\(|\battach_h1\b", code) else "torch"


def blocks():
    found = []
    for path in PAGES:
        text, page = path.read_text("utf-8"), path.relative_to(ROOT).as_posix()
        if page not in ELSEWHERE:
            for match in _BLOCK.finditer(text):
                line = text.count("\n", 0, match.start("code")) + 1
                found.append(Block(page, line, match["code"], match["why"]))
    return found


def images(count, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    return (rng.normal(size=(count, 1, 8, 8)) + y[:, None, None, None] / 3).astype(np.float32), y


def torch_scope(folder):
    """A LightningModule as a user has one, checkpoints and loaders of a few images."""
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, TensorDataset

    import bc_lightning

    class NewModule(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.ReLU(),
                                           torch.nn.Linear(12, CLASSES))  # fmt: skip

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.01)

    def of(count, seed):
        x, y = images(count, seed)
        return TensorDataset(torch.from_numpy(x), torch.from_numpy(y))

    def trainer(**options):
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        return pl.Trainer(**{"max_epochs": 1, "enable_model_summary": False, **quiet, **options})

    torch.manual_seed(0)
    train_set, val_set, test_set = of(120, 0), of(700, 1), of(200, 2)
    h1 = NewModule()
    trainer(max_epochs=4).fit(h1, DataLoader(train_set, 20))
    saver = trainer()
    saver.strategy.connect(h1)
    saver.save_checkpoint(folder / "production.ckpt")
    x, y = train_set.tensors
    x_test, y_test = test_set.tensors
    return {
        **{name: getattr(bc_lightning, name) for name in bc_lightning.__all__},
        **{"pl": pl, "torch": torch, "F": F, "np": np, "DataLoader": DataLoader, "OldModule": NewModule},
        **{"NewModule": NewModule, "h1": h1.eval(), "h2": NewModule(), "trainer": trainer(), "net": h1.net},
        **{
            "plain_h2": NewModule(),
            "plain": None,
            "Trainer": trainer,
            "make_model": NewModule,
            "new_module": NewModule,
        },
        **{"train_set": train_set, "val_set": val_set, "images": train_set, "validation": DataLoader(val_set, 100)},
        "train_loader": DataLoader(train_set, 20, shuffle=True),
        **{"val_loader": DataLoader(val_set, 100), "test_loader": DataLoader(test_set, 100), "x": x, "y": y},
        **{"x_test": x_test, "y_test": y_test, "target": y_test, "h1_logits": h1(x_test), "h2_logits": h1(x_test)},
        **{"h1_pred": h1(x_test).argmax(1), "h2_pred": h1(x_test).argmax(1), "val_images": val_set},
        **{"unlabelled_set": train_set, "paths": [f"{n}.png" for n in range(200)], "test_images": test_set},
    }


def keras_scope(folder):
    """The same in Keras, channels last."""
    import keras

    import bc_keras

    def new_model():
        return keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(12, "relu"),
                                 keras.layers.Dense(CLASSES, "softmax")])  # fmt: skip

    def of(count, seed):
        x, y = images(count, seed)
        return np.moveaxis(x, 1, -1), y

    keras.utils.set_random_seed(0)
    x, y = of(120, 0)
    h1 = new_model()
    h1.compile("adam", "sparse_categorical_crossentropy")
    h1.fit(x, y, verbose=0)
    h1.save(folder / "production.keras")
    (x_val, y_val), (x_test, y_test) = of(700, 1), of(200, 2)
    model = new_model()
    model.compile("adam", "sparse_categorical_crossentropy")
    return {
        **{name: getattr(bc_keras, name) for name in bc_keras.__all__},
        **{"keras": keras, "np": np, "h1": h1, "h2": new_model(), "model": model, "new_model": new_model},
        **{"x": x, "y": y, "x_val": x_val, "y_val": y_val, "x_test": x_test, "y_test": y_test, "x_unlabelled": x},
        **{"images": x, "labels": y, "val_images": x_val, "val_labels": y_val, "plain_h2": new_model()},
        **{"make_model": new_model, "paths": [f"{n}.png" for n in range(700)]},
    }


def gate_files(scope):
    """What the page on the gate has by its commands."""
    from bc_core import compare

    lines = ["id,pred,label", *(f"im{n},cat,cat" for n in range(700))]
    for name in ("old.csv", "new.csv"):
        Path(name).write_text("\n".join(lines))
    Path("compat.toml").write_text('promise = "nfr <= 0.5%"\n')
    return {"comparison": compare(np.zeros(700, int), np.zeros(700, int), np.zeros(700, int))}


def a_wrapped_model(scope):
    """The page goes on from a training against h1."""
    from bc_keras import BCModel

    model = BCModel(scope["h2"], h1=scope["h1"])
    model.compile("adam", "sparse_categorical_crossentropy")
    return {"model": model}


def a_nested_model(scope):
    layers = scope["keras"].layers
    features = scope["keras"].Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3, name="conv")], name="features")
    ends = [layers.Flatten(), layers.Dense(CLASSES, "softmax")]
    model = scope["keras"].Sequential([layers.Input((8, 8, 1)), features, *ends])
    model.compile("adam", "sparse_categorical_crossentropy")
    return {"model": model, "images": scope["x_val"], "labels": scope["y_val"]}


def a_writer(scope):
    from torch.utils.tensorboard import SummaryWriter

    from bc_core import compare

    comparison = compare([0, 1], [0, 1], [0, 0])
    scores = np.full((200, CLASSES), 1 / CLASSES)
    known = {"p1": scores, "p2": scores, "countries": ["Germany"] * 200, "ages": np.arange(200)}
    return known | {
        "writer": SummaryWriter("runs"),
        "plain": comparison,
        "compatible": comparison,
        "images": scope["test_images"],
    }


# What a page takes for given beside the rest, by page and side.
BESIDE = {
    ("docs/dashboard.md", "torch"): a_writer,
    ("docs/gate.md", "torch"): gate_files,
    ("docs/dashboard.md", "keras"): a_wrapped_model,
    ("docs/invariance.md", "keras"): a_nested_model,
}


def scope_of(page, side, folder):
    scope = {"torch": torch_scope, "keras": keras_scope}[side](folder)
    return scope | BESIDE.get((page, side), lambda scope: {})(scope) | {"__name__": "__main__"}
