"""Text, audio, series, tables and graphs, as people write them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import lightning as L
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from public_module import (
    BATCH,
    CLASSES,
    FEATURES,
    VAL_ROWS,
    Registry,
    features,
    labels,
    loaders_of,
    mapped,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SEQUENCES = Registry()
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


@SEQUENCES.one_line("Hugging Face: `self(**batch)` with labels, `outputs.loss` and `outputs.logits`", **HUGGING_FACE)
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


@SEQUENCES.one_line(
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


@SEQUENCES.one_line("Hugging Face: `self.model(**batch)` in the steps, no `forward`", **HUGGING_FACE)
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


@SEQUENCES.one_line(
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


@SEQUENCES.option(
    "an LSTM tagger: logits (N, T, C), flattened for the loss",
    needs="`class_axis=-1`",
    error="class_axis",
    options={"class_axis": -1},
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


@SEQUENCES.option(
    "the same with as many tokens as classes, where the shape does not tell",
    needs="`class_axis=-1`",
    error="class_axis",
    options={"class_axis": -1},
    loaders=loaders_of(tags(CLASSES)),
    class_axis=-1,
)
class SequenceTaggerOfSquareShape(SequenceTagger):
    pass


@SEQUENCES.option(
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


@SEQUENCES.option(
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


def series(rows, seed):
    return TensorDataset(features(rows, seed, 7, 2), labels(rows, seed))


@SEQUENCES.one_line(
    "time series: an LSTM's last state, dropout, gradients clipped by the Trainer",
    loaders=loaders_of(series),
    trainer=lambda: {"gradient_clip_val": 0.5},
    by_hand=False,
)
class TimeSeriesLstm(pl.LightningModule):
    def __init__(self, hidden_size: int = 4, dropout: float = 0.2):
        super().__init__()
        self.save_hyperparameters()
        self.lstm = nn.LSTM(2, hidden_size, num_layers=2, dropout=dropout, batch_first=True)
        self.linear = nn.Linear(hidden_size, CLASSES)
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, x):
        lstm_out, _ = self.lstm(x)
        return self.linear(lstm_out[:, -1])

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.criterion(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", self.criterion(self(x), y))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def waveforms(rows, seed):
    return TensorDataset(features(rows, seed, 1, 32), labels(rows, seed))


@SEQUENCES.one_line(
    "audio: convolutions over the waveform, `log_softmax` inside and `nll_loss`",
    loaders=loaders_of(waveforms),
)
class AudioConvolutionsWithLogSoftmax(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 8, stride=4)
        self.bn = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, waveform):
        x = F.relu(self.bn(self.conv(waveform)))
        x = F.avg_pool1d(x, x.shape[-1]).permute(0, 2, 1)
        return F.log_softmax(self.fc(x), dim=2).squeeze(1)

    def training_step(self, batch, batch_idx):
        waveform, target = batch
        return F.nll_loss(self(waveform), target)

    def validation_step(self, batch, batch_idx):
        waveform, target = batch
        output = self(waveform)
        self.log("val_acc", (output.argmax(-1) == target).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def table(rows, seed):
    return mapped(
        continuous=features(rows, seed, 4), categorical=labels(rows, seed + 4, 2, classes=5), target=labels(rows, seed)
    )


@SEQUENCES.one_line(
    'tables: a dictionary of continuous and categorical columns goes to `forward`, which gives `{"logits": ...}`',
    loaders=loaders_of(table),
    scores=lambda module, batch: module(batch)["logits"],
    labels=lambda batch: batch["target"],
)
class TabularEmbeddingsFromADict(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Embedding(5, 2) for _ in range(2)])
        self.backbone = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        embedded = [embed(x["categorical"][:, i]) for i, embed in enumerate(self.embeddings)]
        features = self.backbone(torch.cat([*embedded, x["continuous"]], 1))
        return {"logits": self.head(features), "backbone_features": features}

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch)["logits"], batch["target"])

    def validation_step(self, batch, batch_idx):
        self.log("valid_loss", F.cross_entropy(self(batch)["logits"], batch["target"]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def image_and_text(rows, seed):
    return TensorDataset(features(rows, seed), token_ids(rows, seed), labels(rows, seed))


@SEQUENCES.option(
    "image and text: batches (image, text, y)",
    needs="`target=-1`",
    error="target=",
    options={"target": -1},
    loaders=loaders_of(image_and_text),
    scores=lambda module, batch: module(*batch[:2]),
    labels=lambda batch: batch[2],
)
class ImageAndText(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(FEATURES, 6), nn.EmbeddingBag(VOCABULARY, 6)
        self.classifier = nn.Linear(12, CLASSES)

    def forward(self, image, text):
        return self.classifier(torch.cat([self.image(image), self.text(text)], dim=1))

    def training_step(self, batch, batch_idx):
        image, text, y = batch
        return F.cross_entropy(self(image, text), y)

    def validation_step(self, batch, batch_idx):
        image, text, y = batch
        self.log("val_loss", F.cross_entropy(self(image, text), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def pairs(rows, seed):
    left, right = features(rows, seed), features(rows, seed + 20)
    return [((a, b), y) for a, b, y in zip(left, right, labels(rows, seed, classes=2), strict=True)]


@SEQUENCES.one_line(
    "pairs: batches ((a, b), y), one encoder called twice inside `forward`",
    loaders=loaders_of(pairs),
    scores=lambda module, batch: module(*batch[0]),
)
class SiamesePairs(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder, self.classifier = nn.Linear(FEATURES, 4), nn.Linear(4, 2)

    def forward(self, left, right):
        return self.classifier((self.encoder(left) - self.encoder(right)).abs())

    def training_step(self, batch, batch_idx):
        (left, right), y = batch
        return F.cross_entropy(self(left, right), y)

    def validation_step(self, batch, batch_idx):
        (left, right), y = batch
        self.log("val_loss", F.cross_entropy(self(left, right), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@dataclass
class GraphBatch:
    """As torch_geometric's loaders give it: no sequence and no mapping, the labels in `y`."""

    x: Tensor
    edge_index: Tensor
    batch: Tensor
    y: Tensor
    train_mask: Tensor | None = None

    def to(self, device, non_blocking=False):
        return self

    @classmethod
    def of(cls, graphs):
        size = len(graphs)
        nodes = torch.cat([x for x, _ in graphs])
        here = torch.arange(3 * size)
        return cls(nodes, torch.stack([here, here.roll(1)]), here // 3, torch.stack([y for _, y in graphs]))


def graphs(rows, seed):
    return TensorDataset(features(rows, seed, 3, FEATURES), labels(rows, seed))


class TinyGraphNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lin = nn.Linear(FEATURES, 6), nn.Linear(6, CLASSES)

    def forward(self, x, edge_index, batch):
        source, target = edge_index
        x = self.conv(x).index_add(0, target, self.conv(x)[source]).relu()
        return self.lin(x.new_zeros(int(batch.max()) + 1, x.shape[1]).index_add(0, batch, x))


@SEQUENCES.one_line(
    "PyTorch Geometric: a batch with `x`, `edge_index`, `batch` and `y`; `self.model(...)`, no `forward`",
    loaders=loaders_of(graphs, collate_fn=GraphBatch.of),
    scores=lambda module, data: module.model(data.x, data.edge_index, data.batch),
    labels=lambda data: data.y,
)
class GraphClassification(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = TinyGraphNet()

    def step(self, data):
        return F.cross_entropy(self.model(data.x, data.edge_index, data.batch), data.y)

    def training_step(self, data, batch_idx):
        return self.step(data)

    def validation_step(self, data, batch_idx):
        self.log("val_loss", self.step(data), batch_size=len(data.y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def one_graph():
    def loader(nodes, seed):
        here = torch.arange(nodes)
        known = torch.arange(nodes) % 2 == 0
        data = GraphBatch(
            features(nodes, seed), torch.stack([here, here.roll(1)]), here, labels(nodes, seed), train_mask=known
        )
        return DataLoader([data], batch_size=None)

    return loader(2 * BATCH, 0), loader(VAL_ROWS, 1)


def hidden(data):
    return data.y.masked_fill(~data.train_mask, -100)


@SEQUENCES.option(
    "node classification: the loss reads `logits[mask]` of a whole graph; the other labels must not be learnt",
    needs="`target=lambda data: data.y.masked_fill(~data.train_mask, -100)`",
    error="",
    options={"target": hidden},
    loaders=one_graph,
    scores=lambda module, data: module(data.x, data.edge_index),
    labels=hidden,
    ignored=-100,
)
class NodeClassificationWithMask(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = TinyGraphNet()

    def forward(self, x, edge_index):
        return self.net(x, edge_index, torch.arange(len(x)))

    def step(self, data):
        out = self(data.x, data.edge_index)
        return F.cross_entropy(out[data.train_mask], data.y[data.train_mask])

    def training_step(self, data, batch_idx):
        return self.step(data)

    def validation_step(self, data, batch_idx):
        self.log("val_loss", self.step(data), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
