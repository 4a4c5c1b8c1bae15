"""Text and Hugging Face's models, as people write them."""

from __future__ import annotations

from collections import OrderedDict

import lightning as L
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from public_module import (
    CLASSES,
    Registry,
    labels,
    loaders_of,
    mapped,
)
from torch import nn
from torch.utils.data import TensorDataset

TEXT = Registry()
VOCABULARY, TOKENS = 20, 5


class ModelOutput(OrderedDict):
    """As Hugging Face's models return it: a mapping without what is None, whose entries are attributes too."""

    def __init__(self, **entries):
        super().__init__({name: value for name, value in entries.items() if value is not None})

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self.get(name)


class SequenceClassifierOutput(ModelOutput):
    pass


class TokenClassifierOutput(ModelOutput):
    pass


class TinyBertForSequenceClassification(nn.Module):
    def __init__(self, num_labels=CLASSES):
        super().__init__()
        self.embeddings = nn.Embedding(VOCABULARY, 8)
        self.classifier = nn.Linear(8, num_labels)

    def forward(self, input_ids, attention_mask=None, labels=None):
        weights = attention_mask.unsqueeze(-1).float()
        pooled = (self.embeddings(input_ids) * weights).sum(1) / weights.sum(1)
        logits = self.classifier(pooled)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class TinyBertForTokenClassification(TinyBertForSequenceClassification):
    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.classifier(self.embeddings(input_ids))
        loss = None if labels is None else F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))
        return TokenClassifierOutput(loss=loss, logits=logits)


def token_ids(rows, seed, tokens=TOKENS):
    return labels(rows, seed + 500, tokens, classes=VOCABULARY)


def sentences(rows, seed):
    ids = token_ids(rows, seed)
    mask = (torch.arange(TOKENS) < labels(rows, seed + 3, 1, classes=TOKENS) + 1).long()
    return mapped(input_ids=ids, attention_mask=mask, labels=labels(rows, seed))


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


HUGGING_FACE = {
    "loaders": loaders_of(sentences),
    "scores": lambda module, batch: module.model(**without_labels(batch)).logits,
    "labels": lambda batch: batch["labels"],
}


@TEXT.one_line("Hugging Face: `self(**batch)` with labels, `outputs.loss` and `outputs.logits`", **HUGGING_FACE)
class HuggingFaceWithLabels(L.LightningModule):
    def __init__(self, model_name_or_path: str = "tiny", num_labels: int = CLASSES, learning_rate: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.model = TinyBertForSequenceClassification(num_labels)

    def forward(self, **inputs):
        return self.model(**inputs)

    def training_step(self, batch, batch_idx):
        outputs = self(**batch)
        self.log("train_loss", outputs.loss)
        return outputs.loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        outputs = self(**batch)
        self.log_dict({"val_loss": outputs.loss, "acc": (outputs.logits.argmax(1) == batch["labels"]).float().mean()})

    def configure_optimizers(self):
        no_decay = ["bias"]
        groups = [
            [p for n, p in self.model.named_parameters() if any(nd in n for nd in no_decay) is skip]
            for skip in (False, True)
        ]
        optimizer = torch.optim.SGD([{"params": g} for g in groups], lr=self.hparams.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        return [optimizer], [{"scheduler": schedule, "interval": "step", "frequency": 1}]


@TEXT.one_line(
    'Hugging Face: `labels = batch.pop("labels")`, then `self(**batch)` and a loss of one\'s own', **HUGGING_FACE
)
class HuggingFaceLabelsPopped(HuggingFaceWithLabels):
    def step(self, batch):
        labels = batch.pop("labels")
        outputs = self(**batch)
        return F.cross_entropy(outputs.logits, labels)

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch))


@TEXT.one_line("Hugging Face: `self.model(**batch)` in the steps, no `forward`", **HUGGING_FACE)
class HuggingFaceWithoutForward(HuggingFaceWithLabels):
    forward = L.LightningModule.forward

    def training_step(self, batch, batch_idx):
        return self.model(**batch)["loss"]

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.model(**batch)["loss"])


def tagged(tokens, classes):
    def rows(count, seed):
        y = labels(count, seed, tokens, classes=classes)
        y[:, 0] = -100
        return mapped(input_ids=token_ids(count, seed, tokens), attention_mask=torch.ones_like(y), labels=y)

    return rows


@TEXT.one_line(
    "Hugging Face token classification: `logits` (N, T, C), special tokens labelled -100, as many tokens as classes",
    loaders=loaders_of(tagged(CLASSES, CLASSES)),
    scores=HUGGING_FACE["scores"],
    labels=HUGGING_FACE["labels"],
    class_axis=-1,
    ignored=-100,
)
class HuggingFaceTokenClassification(HuggingFaceWithLabels):
    def __init__(self):
        super().__init__()
        self.model = TinyBertForTokenClassification()


def tags(tokens):
    def rows(count, seed):
        return TensorDataset(token_ids(count, seed, tokens), labels(count, seed, tokens))

    return rows


@TEXT.one_line(
    "an LSTM tagger: logits (N, T, C), flattened for the loss",
    loaders=loaders_of(tags(TOKENS)),
    class_axis=-1,
)
class SequenceTagger(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.lstm = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.fc(self.lstm(self.embedding(x))[0])

    def step(self, batch):
        x, y = batch
        logits = self(x)
        return F.cross_entropy(logits.view(-1, CLASSES), y.view(-1))

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@TEXT.one_line(
    "the same with as many tokens as classes, where the shape does not tell and the loss does",
    loaders=loaders_of(tags(CLASSES)),
    class_axis=-1,
)
class SequenceTaggerOfSquareShape(SequenceTagger):
    pass


@TEXT.option(
    "the same with a loss written by hand, where nothing tells which axis has the classes",
    needs="`class_axis=-1`",
    error="class_axis",
    options={"class_axis": -1},
    loaders=loaders_of(tags(CLASSES)),
    class_axis=-1,
)
class SequenceTaggerWithItsOwnLoss(SequenceTagger):
    def step(self, batch):
        x, y = batch
        return -self(x).log_softmax(-1).gather(-1, y[..., None]).mean()


@TEXT.option(
    "BERT tutorials: `forward(ids, mask, labels)` gives (loss, logits)",
    needs="`scores=lambda output: output[1]`",
    error="scores=",
    options={"scores": lambda output: output[1]},
    loaders=loaders_of(sentences),
    scores=lambda module, batch: module(batch["input_ids"], batch["attention_mask"])[1],
    labels=lambda batch: batch["labels"],
)
class ForwardReturnsLossAndLogits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.bert, self.criterion = TinyBertForSequenceClassification(), nn.CrossEntropyLoss()

    def forward(self, input_ids, attention_mask, labels=None):
        output = self.bert(input_ids, attention_mask=attention_mask).logits
        loss = 0
        if labels is not None:
            loss = self.criterion(output, labels)
        return loss, output

    def training_step(self, batch, batch_idx):
        loss, outputs = self(batch["input_ids"], batch["attention_mask"], batch["labels"])
        return {"loss": loss, "predictions": outputs.detach(), "labels": batch["labels"]}

    def validation_step(self, batch, batch_idx):
        loss, _ = self(batch["input_ids"], batch["attention_mask"], batch["labels"])
        self.log("val_loss", loss)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def padded(rows, seed):
    lengths = labels(rows, seed + 3, classes=TOKENS) + 1
    return TensorDataset(token_ids(rows, seed), lengths, labels(rows, seed, classes=TOKENS + 1))


@TEXT.option(
    "padded text with its lengths: batches (x, lengths, y), where the second element looks like labels",
    needs="`target=-1`",
    error="target=",
    options={"target": -1},
    loaders=loaders_of(padded),
    scores=lambda module, batch: module(batch[0], batch[1]),
    labels=lambda batch: batch[2],
)
class PackedSequencesWithLengths(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.lstm = nn.LSTM(6, 6, batch_first=True)
        self.fc = nn.Linear(6, TOKENS + 1)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(x), lengths, batch_first=True, enforce_sorted=False)
        return self.fc(self.lstm(packed)[1][0][-1])

    def training_step(self, batch, batch_idx):
        x, lengths, y = batch
        return F.cross_entropy(self(x, lengths), y)

    def validation_step(self, batch, batch_idx):
        x, lengths, y = batch
        self.log("val_loss", F.cross_entropy(self(x, lengths), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
