"""Several calls, several networks, several outputs, and outputs that are no softmax's."""

from __future__ import annotations

import copy

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from lightning_patterns_steps import Classifier, mlp
from public_module import (
    BATCH,
    CLASSES,
    FEATURES,
    TRAIN_ROWS,
    VAL_ROWS,
    Registry,
    features,
    labels,
    loaders_of,
    vectors,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CALLS = Registry()


@CALLS.one_line(
    "knowledge distillation: teacher and student are called on the batch, no `forward`",
    scores=lambda module, batch: module.student(batch[0]),
    h1=mlp,
)
class KnowledgeDistillation(pl.LightningModule):
    def __init__(self, temperature=2.0):
        super().__init__()
        self.teacher, self.student = mlp(12).requires_grad_(False).eval(), mlp()
        self.temperature = temperature

    def training_step(self, batch, batch_idx):
        x, y = batch
        with torch.no_grad():
            soft = (self.teacher(x) / self.temperature).softmax(-1)
        logits = self.student(x)
        distilled = F.kl_div((logits / self.temperature).log_softmax(-1), soft, reduction="batchmean")
        return 0.5 * F.cross_entropy(logits, y) + 0.5 * self.temperature**2 * distilled

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_acc", (self.student(x).argmax(-1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.student.parameters(), lr=0.1)


@CALLS.one_line("mean teacher: `forward` is the student, the teacher follows it and is asked under `no_grad`")
class MeanTeacher(Classifier):
    def __init__(self):
        super().__init__()
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        with torch.no_grad():
            consistent = self.teacher(x)
        return F.cross_entropy(logits, y) + 0.1 * F.mse_loss(logits, consistent)

    def on_before_zero_grad(self, optimizer):
        with torch.no_grad():
            for average, value in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
                average.lerp_(value, 0.01)


@CALLS.option(
    "self-distillation: `forward` gives the logits of the deep and of the early exit",
    needs="`scores=lambda output: output[0]`",
    error="scores=",
    options={"scores": lambda output: output[0]},
    scores=lambda module, batch: module(batch[0])[0],
)
class SelfDistillation(Classifier):
    def __init__(self):
        super().__init__()
        self.early = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.net(x), self.early(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        deep, early = self(x)
        distilled = F.kl_div(early.log_softmax(1), deep.detach().softmax(1), reduction="batchmean")
        return F.cross_entropy(deep, y) + F.cross_entropy(early, y) + distilled

    def validation_step(self, batch, batch_idx):
        x, y = batch
        deep, _ = self(x)
        self.log("val_acc", (deep.argmax(1) == y).float().mean())


def semi_supervised():
    unlabeled = TensorDataset(features(TRAIN_ROWS, 5), features(TRAIN_ROWS, 6))
    train = {"labeled": DataLoader(vectors(TRAIN_ROWS, 0), BATCH), "unlabeled": DataLoader(unlabeled, BATCH)}
    return pl.utilities.CombinedLoader(train, "min_size"), DataLoader(vectors(VAL_ROWS, 1), 5)


@CALLS.option(
    "FixMatch: labelled, weakly and strongly augmented inputs in three calls, a dictionary of loaders",
    needs='`call="first"`, and `target=` a function for both kinds of batch',
    error="call=",
    options={
        "call": "first",
        "target": lambda batch: (batch["labeled"] if isinstance(batch, dict) else batch)[1],
    },
    loaders=semi_supervised,
    trained=lambda module, batch: (module(batch["labeled"][0]), batch["labeled"][1]),
)
class FixMatch(Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch["labeled"]
        weak, strong = batch["unlabeled"]
        supervised = F.cross_entropy(self(x), y)
        with torch.no_grad():
            confidence, pseudo = self(weak).softmax(-1).max(-1)
        unsupervised = F.cross_entropy(self(strong), pseudo, reduction="none") * (confidence > 0.4)
        return supervised + unsupervised.mean()


@CALLS.option(
    "R-Drop: the batch goes through twice, the difference of both answers is punished",
    needs='`call="first"`',
    error="call=",
    options={"call": "first"},
)
class RegularisedDropout(Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch
        first, second = self(x), self(x)
        consistent = F.kl_div(first.log_softmax(1), second.softmax(1), reduction="batchmean")
        return F.cross_entropy(first, y) + F.cross_entropy(second, y) + consistent


@CALLS.option(
    "test-time augmentation: the validation step averages the answers to two views",
    needs='`call="first"`: the untouched view is compared',
    error="call=",
    options={"call": "first"},
)
class TestTimeAugmentation(Classifier):
    __test__ = False

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = (self(x) + self(x.flip(-1))) / 2
        self.log("val_acc", (logits.argmax(1) == y).float().mean())


class SharpnessAware(torch.optim.SGD):
    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["moved"] = 0.05 * p.grad
                p.add_(self.state[p]["moved"])
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(self.state[p].pop("moved"))
        self.step()
        self.zero_grad()


@CALLS.one_line("SAM: two forward and backward passes in a manual step; the penalty is in both", by_hand=False)
class SharpnessAwareMinimisation(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def compute_loss(self, batch):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def training_step(self, batch):
        optimizer = self.optimizers(use_pl_optimizer=False)
        self.manual_backward(self.compute_loss(batch))
        optimizer.first_step()
        self.manual_backward(self.compute_loss(batch))
        optimizer.second_step()

    def configure_optimizers(self):
        return SharpnessAware(self.parameters(), lr=0.1)


@CALLS.refused(
    "prototypes: the encoder's columns are an embedding, the scores are distances that the step computes",
    needs="a `forward` that gives the scores",
    error="scores=|forward",
    mended=lambda _: ScoresFromPrototypes,
)
class PrototypesInTheStep(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = mlp(classes=4)
        self.prototypes = nn.Embedding(CLASSES, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(-torch.cdist(self.encoder(x), self.prototypes.weight), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        distances = torch.cdist(self.encoder(x), self.prototypes.weight)
        self.log("val_acc", (distances.argmin(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ScoresFromPrototypes(PrototypesInTheStep):
    def forward(self, x):
        return -torch.cdist(self.encoder(x), self.prototypes.weight)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_acc", (self(x).argmax(1) == y).float().mean())


@CALLS.one_line(
    "ArcFace: `self(x, y)` while training, since the margin needs the label; `self(x)` else",
    trained=lambda module, batch: (module(*batch), batch[1]),
)
class MarginThatNeedsTheLabel(Classifier):
    def __init__(self):
        super().__init__()
        self.net = mlp(classes=4)
        self.weight = nn.Parameter(torch.randn(CLASSES, 4))

    def forward(self, x, y=None):
        cosine = F.linear(F.normalize(self.net(x)), F.normalize(self.weight))
        return 4 * (cosine if y is None else cosine - 0.2 * F.one_hot(y, CLASSES))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x, y), y)


@CALLS.option(
    "supervised contrastive learning with a classifier: `forward` gives logits and embedding",
    needs="`scores=lambda output: output[0]`",
    error="scores=",
    options={"scores": lambda output: output[0]},
    scores=lambda module, batch: module(batch[0])[0],
)
class LogitsAndEmbedding(Classifier):
    def __init__(self):
        super().__init__()
        self.net, self.head = mlp(classes=4), nn.Linear(4, CLASSES)

    def forward(self, x):
        embedding = F.normalize(self.net(x))
        return self.head(embedding), embedding

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits, embedding = self(x)
        same = (y[:, None] == y[None]).float()
        return F.cross_entropy(logits, y) + F.mse_loss(embedding @ embedding.T, same)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_acc", (self(x)[0].argmax(1) == y).float().mean())


def two_tasks(rows, seed):
    return [
        {"image": x, "species": y, "genus": z}
        for x, y, z in zip(features(rows, seed), labels(rows, seed), labels(rows, seed + 9, classes=2), strict=True)
    ]


@CALLS.option(
    "multi-task heads: dictionaries of logits and of labels",
    needs='`scores=lambda output: output["species"], target="species"`',
    error="scores=",
    options={"scores": lambda output: output["species"], "target": "species"},
    loaders=loaders_of(two_tasks),
    scores=lambda module, batch: module(batch["image"])["species"],
    labels=lambda batch: batch["species"],
)
class MultiTaskHeads(Classifier):
    def __init__(self):
        super().__init__()
        self.net = mlp(classes=4)
        self.heads = nn.ModuleDict({"species": nn.Linear(4, CLASSES), "genus": nn.Linear(4, 2)})

    def forward(self, x):
        shared = self.net(x)
        return {name: head(shared) for name, head in self.heads.items()}

    def step(self, batch):
        output = self(batch["image"])
        return sum(F.cross_entropy(output[name], batch[name]) for name in self.heads)

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch))


def binary(rows, seed):
    return TensorDataset(features(rows, seed), labels(rows, seed, classes=2).float())


FROM_LOGITS = {"loss": "BCBinaryCrossEntropyLoss", "loss_options": {"from_logits": True}}


@CALLS.option(
    "binary: one logit, `BCEWithLogitsLoss`, float labels",
    needs='`loss="BCBinaryCrossEntropyLoss", loss_options={"from_logits": True}`',
    error="BCBinaryCrossEntropyLoss",
    options=FROM_LOGITS,
    loaders=loaders_of(binary),
    per_label=True,
)
class BinaryWithOneLogit(Classifier):
    def __init__(self):
        super().__init__()
        self.net = mlp(classes=1)

    def forward(self, x):
        return self.net(x).squeeze(1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.binary_cross_entropy_with_logits(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.binary_cross_entropy_with_logits(self(x), y))


@CALLS.option(
    "binary: a sigmoid inside, `BCELoss`, labels unsqueezed in the step",
    needs='`loss="BCBinaryCrossEntropyLoss"`',
    error="BCBinaryCrossEntropyLoss",
    options={"loss": "BCBinaryCrossEntropyLoss"},
    loaders=loaders_of(binary),
    scores=lambda module, batch: module(batch[0])[:, 0].logit(),
    per_label=True,
)
class BinaryWithSigmoidInside(Classifier):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(mlp(classes=1), nn.Sigmoid())

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.binary_cross_entropy(self(x), y.unsqueeze(1))

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.binary_cross_entropy(self(x), y.unsqueeze(1)))


def multilabel(rows, seed):
    return TensorDataset(features(rows, seed), labels(rows, seed, 4, classes=2).float())


@CALLS.option(
    "multilabel: (N, C) logits, `BCEWithLogitsLoss`, several labels at once",
    needs='`loss="BCBinaryCrossEntropyLoss", loss_options={"from_logits": True}`',
    error="BCBinaryCrossEntropyLoss",
    options=FROM_LOGITS,
    loaders=loaders_of(multilabel),
    per_label=True,
)
class MultilabelBinaryCrossEntropy(BinaryWithOneLogit):
    def __init__(self):
        super().__init__()
        self.net = mlp(classes=4)

    def forward(self, x):
        return self.net(x)
