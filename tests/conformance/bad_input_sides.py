"""Both sides of what is refused, behind one face."""

from __future__ import annotations

import logging

import evaluate_sides
import numpy as np


class Lightning(evaluate_sides.Lightning):
    """Plain modules that return logits, trained by Lightning."""

    known_losses = ("BCNLLLoss", "BCCrossEntropyLoss")

    def net(self, seed=0, classes=3):
        nn = self.torch.nn
        self.torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, classes))

    def sharing(self, h1):
        """A model with a layer of h1."""
        return self.torch.nn.Sequential(h1[0], self.torch.nn.Linear(8, 3))

    def copied(self, h1):
        import copy

        return copy.deepcopy(h1)

    def spoilt(self, net):
        """The same with NaN for weights."""
        with self.torch.no_grad():
            for weight in net.parameters():
                weight.fill_(np.nan)
        return net

    def wrap(self, h2, h1, **options):
        optimizer = lambda parameters: self.torch.optim.SGD(parameters, 0.1)  # noqa: E731
        return self.ours.BCLightningModule(h2, h1=h1, optimizer=optimizer, **options)

    def train(self, model, x, y, rows=None, **attached):
        import pytorch_lightning as pl

        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        data = self.dataset(x, y)
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, self.torch.utils.data.DataLoader(data if rows is None else rows.attach(data), 16))

    def ignoring(self, label):
        """Options of `evaluate`, and an h2, that leave a label out."""
        return {"ignore_index": label}, None


class Keras(evaluate_sides.Keras):
    """Models that return probabilities."""

    known_losses = ("BCNLLLoss", "BCCrossEntropyLoss")

    def net(self, seed=0, classes=3):
        self.keras.utils.set_random_seed(seed)
        layers = self.keras.layers
        return self.keras.Sequential(
            [self.keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(classes, "softmax")]
        )

    def sharing(self, h1):
        """A model with a layer of h1."""
        return self.keras.Sequential([self.keras.Input((4,)), h1.layers[0], self.keras.layers.Dense(3, "softmax")])

    def copied(self, h1):
        copy = self.keras.models.clone_model(h1)
        copy.set_weights(h1.get_weights())
        return copy

    def spoilt(self, net):
        """The same with NaN for weights."""
        net.set_weights([np.full_like(weight, np.nan) for weight in net.get_weights()])
        return net

    def wrap(self, h2, h1, **options):
        model = self.ours.BCModel(h2, h1=h1, **options)
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    def train(self, model, x, y, rows=None, num_classes=None):
        given = (x, y) if rows is None else rows.attach(x, y, num_classes=num_classes)
        model.fit(*given, batch_size=16, verbose=0)

    def ignoring(self, label):
        """Options of `evaluate`, and an h2, that leave a label out."""
        h2 = self.net(1)
        h2.compile(loss=self.keras.losses.SparseCategoricalCrossentropy(ignore_class=label))
        return {}, h2
