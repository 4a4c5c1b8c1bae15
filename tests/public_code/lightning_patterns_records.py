"""Series, audio, tables, pairs and graphs, as people write them."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from lightning_patterns_text import VOCABULARY, token_ids
from public_module import BATCH, CLASSES, FEATURES, VAL_ROWS, Registry, features, labels, loaders_of, mapped
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

RECORDS = Registry()


def series(rows, seed):
    return TensorDataset(features(rows, seed, 7, 2), labels(rows, seed))


@RECORDS.one_line(
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


@RECORDS.one_line(
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


@RECORDS.one_line(
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


@RECORDS.option(
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


@RECORDS.one_line(
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


@RECORDS.one_line(
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


@RECORDS.option(
    "node classification: the loss reads `logits[mask]` of a whole graph; the other labels must not be learnt",
    needs="`target=lambda data: data.y.masked_fill(~data.train_mask, -100)`",
    error="computed its loss on",
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
