"""Steps and loops, as people write them: optimisers, several calls, teachers, heads, metrics."""

from __future__ import annotations

import copy

import lightning as L
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
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
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

STEPS = Registry()


def mlp(width: int = 8, classes: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, classes))


class _Classifier(pl.LightningModule):
    """What the tutorials begin with; the patterns below differ from it in one habit each."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@STEPS.one_line("steps without `batch_idx`, inputs flattened in the step, dropout", by_hand=False)
class StepWithoutBatchIdx(_Classifier):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, CLASSES))

    def training_step(self, batch):
        x, y = batch
        return F.cross_entropy(self(x.view(x.size(0), -1)), y)

    def validation_step(self, batch):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x.view(x.size(0), -1)), y))


@STEPS.refused(
    "`self.net.forward(x)` in the step, which no hook sees",
    needs="`self.net(x)` instead",
    error=r"\.forward\(",
    mended=lambda _: NetCalled,
    scores=lambda module, batch: module.net(batch[0]),
)
class NetForwardCalled(_Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net.forward(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net.forward(x), y))


class NetCalled(_Classifier):
    """Also a habit of its own: a `forward` for prediction, while the steps call the net."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y))


@STEPS.one_line(
    "a `forward` for prediction (a softmax), while the steps call `self.net(x)`", scores=lambda m, b: m.net(b[0])
)
class ForwardForPredictionOnly(NetCalled):
    def forward(self, x):
        return self.net(x).softmax(1)


@STEPS.one_line(
    "backbone and head called one after the other by the steps, no `forward`: the last call's output are the scores",
    options={},
    scores=lambda module, batch: module.head(module.backbone(batch[0])),
)
class BackboneThenHeadInTheStep(_Classifier):
    forward = pl.LightningModule.forward

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU()), nn.Linear(8, CLASSES)
        del self.net

    def step(self, batch):
        x, y = batch
        return F.cross_entropy(self.head(self.backbone(x)), y)

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch))


@STEPS.one_line(
    "`training_step` returns a dictionary with loss, predictions and targets; outputs collected for the epoch"
)
class TrainingStepReturnsDict(_Classifier):
    def __init__(self):
        super().__init__()
        self.validation_step_outputs = []

    def common_step(self, batch):
        x, y = batch
        logits = self(x)
        return {"loss": F.cross_entropy(logits, y), "preds": logits.argmax(1).detach(), "targets": y}

    def training_step(self, batch, batch_idx):
        return self.common_step(batch)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        assert set(outputs) == {"loss", "preds", "targets"}

    def validation_step(self, batch, batch_idx):
        output = self.common_step(batch)
        self.validation_step_outputs.append(output)
        return output

    def on_validation_epoch_end(self):
        right = torch.cat([output["preds"] == output["targets"] for output in self.validation_step_outputs])
        self.log("val_acc", right.float().mean())
        self.validation_step_outputs.clear()


@STEPS.one_line("`torchmetrics` collections in a `ModuleDict`, one for each stage")
class TorchmetricsInADict(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = mlp()
        metrics = MetricCollection({"acc": MulticlassAccuracy(CLASSES), "f1": MulticlassF1Score(CLASSES)})
        self.metrics = nn.ModuleDict(
            {"train_metrics": metrics.clone(prefix="train_"), "val_metrics": metrics.clone(prefix="val_")}
        )

    def forward(self, x):
        return self.net(x)

    def _step(self, batch, stage):
        x, y = batch
        logits = self(x)
        self.metrics[f"{stage}_metrics"](logits, y)
        self.log_dict(self.metrics[f"{stage}_metrics"], on_step=False, on_epoch=True)
        return F.cross_entropy(logits, y)

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        return self._step(batch, "val")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@STEPS.one_line(
    "several validation loaders",
    loaders=lambda: (DataLoader(vectors(TRAIN_ROWS, 0), BATCH), [DataLoader(vectors(VAL_ROWS, s), 5) for s in (1, 2)]),
)
class SeveralValidationLoaders(_Classifier):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)


@STEPS.one_line(
    "a validation step that leaves a batch out",
    labels=lambda batch: batch[1] if len(batch[1]) > 3 else torch.full_like(batch[1], -1),
    ignored=-1,
)
class ValidationStepSkipsABatch(_Classifier):
    def validation_step(self, batch, batch_idx):
        x, _ = batch
        if len(x) < 4:
            return None
        return super().validation_step(batch, batch_idx)


class _Stream(IterableDataset):
    def __init__(self, rows, seed):
        self.rows = vectors(rows, seed)

    def __iter__(self):
        return iter(self.rows)


@STEPS.one_line("an `IterableDataset`, whose loader has no length", loaders=loaders_of(_Stream))
class StreamedData(_Classifier):
    pass


@STEPS.one_line("manual optimisation with `manual_backward`, gradients clipped")
class ManualOptimisation(_Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        optimizer = self.optimizers()
        loss = F.cross_entropy(self(x), y)
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=1e6, gradient_clip_algorithm="norm")
        optimizer.step()
        self.log("train_loss", loss)


@STEPS.one_line("two optimisers, one for the backbone, one for the head, both stepped after one backward pass")
class SeveralOptimisers(_Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        backbone, head = self.optimizers()
        backbone.zero_grad(), head.zero_grad()
        self.manual_backward(F.cross_entropy(self(x), y))
        backbone.step(), head.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.net[0].parameters(), 0.1), torch.optim.SGD(self.net[2].parameters(), 0.1)]


@STEPS.one_line("LBFGS, whose closure runs the step several times", by_hand=False)
class LimitedMemoryBFGS(_Classifier):
    def training_step(self, batch):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=4)


@STEPS.one_line("gradient accumulation by the Trainer", trainer=lambda: {"accumulate_grad_batches": 2}, batches=2)
class GradientAccumulation(_Classifier):
    pass


@STEPS.one_line("`bf16-mixed` precision", trainer=lambda: {"precision": "bf16-mixed"}, tolerance=0.05)
class SixteenBit(_Classifier):
    pass


@STEPS.one_line(
    "stochastic weight averaging by Lightning's callback",
    trainer=lambda: {"callbacks": [pl.callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=1)], "max_epochs": 3},
    by_hand=False,
    changed_after=True,
)
class StochasticWeightAveragingCallback(_Classifier):
    pass


@STEPS.one_line(
    "an EMA copy of the net in the module, which the validation step uses",
    scores=lambda module, batch: (module.net if module.training else module.ema)(batch[0]),
)
class EmaCopyInTheModule(_Classifier):
    forward = pl.LightningModule.forward

    def __init__(self):
        super().__init__()
        self.ema = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        with torch.no_grad():
            for average, value in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                average.lerp_(value, 0.1)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.ema(x), y))


class _SwapInAverages(pl.Callback):
    def on_fit_start(self, trainer, module):
        self.average = [p.detach().clone() for p in module.parameters()]

    def on_train_batch_end(self, trainer, module, *args):
        for average, value in zip(self.average, module.parameters(), strict=True):
            average.lerp_(value.detach(), 0.1)

    def on_validation_start(self, trainer, module):
        self.kept = [p.detach().clone() for p in module.parameters()]
        self._fill(module, self.average)

    def on_validation_end(self, trainer, module):
        # Left in place at the end, so that the module can be asked again.
        if trainer.sanity_checking or trainer.current_epoch + 1 < trainer.max_epochs:
            self._fill(module, self.kept)

    @torch.no_grad()
    def _fill(self, module, values):
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)


@STEPS.one_line(
    "an EMA callback that swaps the averages in for validation",
    trainer=lambda: {"callbacks": [_SwapInAverages()]},
    by_hand=False,
)
class EmaCallbackSwapsWeights(_Classifier):
    pass


@STEPS.option(
    "knowledge distillation: teacher and student are called on the batch, no `forward`",
    needs='`scores="student"`',
    error="scores=",
    options={"scores": "student"},
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


@STEPS.one_line("mean teacher: `forward` is the student, the teacher follows it and is asked under `no_grad`")
class MeanTeacher(_Classifier):
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


@STEPS.option(
    "self-distillation: `forward` gives the logits of the deep and of the early exit",
    needs="`scores=lambda output: output[0]`",
    error="scores=",
    options={"scores": lambda output: output[0]},
    scores=lambda module, batch: module(batch[0])[0],
)
class SelfDistillation(_Classifier):
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


@STEPS.option(
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
class FixMatch(_Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch["labeled"]
        weak, strong = batch["unlabeled"]
        supervised = F.cross_entropy(self(x), y)
        with torch.no_grad():
            confidence, pseudo = self(weak).softmax(-1).max(-1)
        unsupervised = F.cross_entropy(self(strong), pseudo, reduction="none") * (confidence > 0.4)
        return supervised + unsupervised.mean()


@STEPS.option(
    "R-Drop: the batch goes through twice, the difference of both answers is punished",
    needs='`call="first"`',
    error="call=",
    options={"call": "first"},
)
class RegularisedDropout(_Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch
        first, second = self(x), self(x)
        consistent = F.kl_div(first.log_softmax(1), second.softmax(1), reduction="batchmean")
        return F.cross_entropy(first, y) + F.cross_entropy(second, y) + consistent


@STEPS.option(
    "test-time augmentation: the validation step averages the answers to two views",
    needs='`call="first"`: the untouched view is compared',
    error="call=",
    options={"call": "first"},
)
class TestTimeAugmentation(_Classifier):
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


@STEPS.one_line("SAM: two forward and backward passes in a manual step; the penalty is in both", by_hand=False)
class SharpnessAwareMinimisation(_Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def compute_loss(self, batch):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=False)
        self.manual_backward(self.compute_loss(batch))
        optimizer.first_step()
        self.manual_backward(self.compute_loss(batch))
        optimizer.second_step()

    def configure_optimizers(self):
        return SharpnessAware(self.parameters(), lr=0.1)


@STEPS.refused(
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


@STEPS.one_line(
    "ArcFace: `self(x, y)` while training, since the margin needs the label; `self(x)` else",
    trained=lambda module, batch: (module(*batch), batch[1]),
)
class MarginThatNeedsTheLabel(_Classifier):
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


@STEPS.option(
    "supervised contrastive learning with a classifier: `forward` gives logits and embedding",
    needs="`scores=lambda output: output[0]`",
    error="scores=",
    options={"scores": lambda output: output[0]},
    scores=lambda module, batch: module(batch[0])[0],
)
class LogitsAndEmbedding(_Classifier):
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


@STEPS.option(
    "multi-task heads: dictionaries of logits and of labels",
    needs='`scores=lambda output: output["species"], target="species"`',
    error="scores=",
    options={"scores": lambda output: output["species"], "target": "species"},
    loaders=loaders_of(two_tasks),
    scores=lambda module, batch: module(batch["image"])["species"],
    labels=lambda batch: batch["species"],
)
class MultiTaskHeads(_Classifier):
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


@STEPS.option(
    "binary: one logit, `BCEWithLogitsLoss`, float labels",
    needs='`loss="BCBinaryCrossEntropyLoss", loss_options={"from_logits": True}`',
    error="BCBinaryCrossEntropyLoss",
    options=FROM_LOGITS,
    loaders=loaders_of(binary),
    per_label=True,
)
class BinaryWithOneLogit(_Classifier):
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


@STEPS.option(
    "binary: a sigmoid inside, `BCELoss`, labels unsqueezed in the step",
    needs='`loss="BCBinaryCrossEntropyLoss"`',
    error="BCBinaryCrossEntropyLoss",
    options={"loss": "BCBinaryCrossEntropyLoss"},
    loaders=loaders_of(binary),
    scores=lambda module, batch: module(batch[0])[:, 0].logit(),
    per_label=True,
)
class BinaryWithSigmoidInside(_Classifier):
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


@STEPS.option(
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


@STEPS.one_line("focal loss of the module's own")
class FocalLoss(_Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch
        ce = F.cross_entropy(self(x), y, reduction="none")
        return ((1 - torch.exp(-ce)) ** 2 * ce).mean()


@STEPS.one_line("training hooks overridden: `on_train_batch_start`, `optimizer_step`, `on_before_optimizer_step`")
class TrainingHooksOverridden(_Classifier):
    def on_train_batch_start(self, batch, batch_idx):
        self.started = batch_idx

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=True)

    def on_before_optimizer_step(self, optimizer):
        self.log("grad_norm", sum(p.grad.norm() for p in self.parameters()))
