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
    loaders_of,
    vectors,
)
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

STEPS = Registry()


def mlp(width: int = 8, classes: int = CLASSES) -> nn.Sequential:
    return nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, classes))


class Classifier(pl.LightningModule):
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
class StepWithoutBatchIdx(Classifier):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(FEATURES, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, CLASSES))

    def training_step(self, batch):
        x, y = batch
        return F.cross_entropy(self(x.view(x.size(0), -1)), y)

    def validation_step(self, batch):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x.view(x.size(0), -1)), y))


@STEPS.one_line(
    "`self.net.forward(x)` in the step, which no hook sees: the layers inside are",
    scores=lambda module, batch: module.net(batch[0]),
)
class NetForwardCalled(Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net.forward(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net.forward(x), y))


@STEPS.refused(
    "the same for a net that is one layer, of which nothing is seen",
    needs="`self.net(x)` instead",
    error=r"\.forward\(",
    mended=lambda _: NetCalled,
    scores=lambda module, batch: module.net(batch[0]),
)
class LayerForwardCalled(NetForwardCalled):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(FEATURES, CLASSES)


class NetCalled(Classifier):
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
    "backbone and head called one after the other by the steps, nothing between them, no `forward`: the last call's "
    "output are the scores",
    options={},
    scores=lambda module, batch: module.head(module.backbone(batch[0])),
)
class BackboneThenHeadInTheStep(Classifier):
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
class TrainingStepReturnsDict(Classifier):
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
class SeveralValidationLoaders(Classifier):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)


@STEPS.one_line(
    "a validation step that leaves a batch out",
    labels=lambda batch: batch[1] if len(batch[1]) > 3 else torch.full_like(batch[1], -1),
    ignored=-1,
)
class ValidationStepSkipsABatch(Classifier):
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
class StreamedData(Classifier):
    pass


@STEPS.one_line("manual optimisation with `manual_backward`, gradients clipped")
class ManualOptimisation(Classifier):
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
class SeveralOptimisers(Classifier):
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
class LimitedMemoryBFGS(Classifier):
    def training_step(self, batch):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=4)


@STEPS.one_line("gradient accumulation by the Trainer", trainer=lambda: {"accumulate_grad_batches": 2}, batches=2)
class GradientAccumulation(Classifier):
    pass


@STEPS.one_line("`bf16-mixed` precision", trainer=lambda: {"precision": "bf16-mixed"}, tolerance=0.05)
class SixteenBit(Classifier):
    pass


@STEPS.one_line(
    "stochastic weight averaging by Lightning's callback",
    trainer=lambda: {"callbacks": [pl.callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=1)], "max_epochs": 3},
    by_hand=False,
    changed_after=True,
)
class StochasticWeightAveragingCallback(Classifier):
    pass


@STEPS.one_line(
    "an EMA copy of the net in the module, which the validation step uses",
    scores=lambda module, batch: (module.net if module.training else module.ema)(batch[0]),
)
class EmaCopyInTheModule(Classifier):
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
class EmaCallbackSwapsWeights(Classifier):
    pass


@STEPS.one_line("focal loss of the module's own")
class FocalLoss(Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch
        ce = F.cross_entropy(self(x), y, reduction="none")
        return ((1 - torch.exp(-ce)) ** 2 * ce).mean()


@STEPS.one_line("training hooks overridden: `on_train_batch_start`, `optimizer_step`, `on_before_optimizer_step`")
class TrainingHooksOverridden(Classifier):
    def on_train_batch_start(self, batch, batch_idx):
        self.started = batch_idx

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=True)

    def on_before_optimizer_step(self, optimizer):
        self.log("grad_norm", sum(p.grad.norm() for p in self.parameters()))
