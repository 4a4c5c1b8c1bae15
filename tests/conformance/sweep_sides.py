"""Models, data and sweeps of either side, as tests of sweeps need them."""

from __future__ import annotations

import functools
import random

import numpy as np
from backends import FEW_STEPS

from bc_core import Tracker

EPOCHS, BATCH = 2, 10


def arrays(rows=40, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, 4)).astype("float32")
    return x, x[:, :3].argmax(1).astype("int64")


VALIDATION = arrays(24, 1)


class LightningSide:
    """A plain module, which the sweep makes a LightningModule of; data in loaders, shuffled for training."""

    name = "lightning"
    called, train_kind = "a module", "a DataLoader"

    def __init__(self):
        import pytorch_lightning as pl
        import torch

        import bc_lightning
        from bc_lightning.training._wrapped import compatibilities_of

        self.torch, self.pl, self.ours = torch, pl, bc_lightning
        self.model_class = torch.nn.Module
        nn = torch.nn

        class Within(pl.Callback):
            """Does something in a training, where told."""

            def __init__(self, do):
                self.do, self.epoch = do, 0

            def on_train_epoch_end(self, trainer, module):
                self.do(self.epoch, float(compatibilities_of(module)[0].loss.lambda_c))
                self.epoch += 1

        class Counting(nn.Module):
            def __init__(self, net):
                super().__init__()
                self.net, self.rows = net, 0

            def forward(self, x):
                self.rows += len(x)
                return self.net(x)

        self.within, self.counting = Within, Counting

    def net(self):
        nn = self.torch.nn
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))

    def seed(self, seed):
        self.torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)

    def drawn(self):
        return self.torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002

    def loader(self, data, shuffle=False):
        from torch.utils.data import DataLoader, TensorDataset

        return DataLoader(TensorDataset(*map(self.torch.tensor, data)), BATCH, shuffle=shuffle)

    def sweep(self, h2, h1, train, folder, *, test=None, val=None, within=None, rate=0.05, **options):
        optimizer = self.optimizer(rate)
        trainer = {"max_epochs": options.pop("epochs", EPOCHS), "accelerator": "cpu"}
        if within is not None:
            trainer["callbacks"] = [self.within(within)]
        data = {
            name: given if given is None or callable(given) else self.loader(given)
            for name, given in (("test", test), ("val", val))
        }
        if isinstance(train, tuple):
            train = self.loader(train, shuffle=True)
        return self.ours.sweep(
            h2, h1, train, folder=folder, trainer=trainer, optimizer=optimizer,
            **{"progress_bar": False, "tensorboard": False, **data, **options},
        )  # fmt: skip

    def tensor(self, value):
        return self.torch.tensor(value)

    def optimizer(self, rate):
        return functools.partial(self.torch.optim.SGD, lr=rate)

    def by_hand(self, h1, data, loss, lambda_c, seed):
        """Weights of the same point, trained without the sweep and with h1 asked in every step."""
        self.seed(seed)
        h2 = self.net()
        module = self.ours.BCLightningModule(
            h2, h1=h1, loss=self.ours.CompatibilityLoss(dissonance=loss or "new_error"), lambda_c=lambda_c,
            optimizer=self.optimizer(0.05), comparisons=False,
        )  # fmt: skip
        trainer = self.pl.Trainer(
            max_epochs=EPOCHS, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        # Validation draws random numbers too.
        trainer.fit(module, self.loader(data, shuffle=True), self.loader(VALIDATION))
        return h2.eval(), self.weights(h2)

    def weights(self, model):
        return [value.numpy().copy() for value in model.state_dict().values()]

    def kept(self, found, *point):
        return [value.numpy() for value in self.torch.load(found.model_path(*point)).values()]

    def predicted(self, model, x):
        with self.torch.no_grad():
            return model(self.torch.tensor(x)).argmax(1).numpy()

    # Rows beyond those of the data: one of each data set, to see what an answer is, and a batch of the training.
    asked_more = 2 + BATCH


class KerasSide:
    """Arrays; the sweep shuffles those of training."""

    name = "keras"
    called, train_kind = "a Keras model", r"\(x, y\)"
    asked_more = 0

    def __init__(self):
        import keras

        import bc_keras

        self.keras, self.ours, self.model_class = keras, bc_keras, keras.Model

        class Within(keras.callbacks.Callback):
            """Does something in a training, where told."""

            def __init__(self, do):
                super().__init__()
                self.do = do

            def on_epoch_end(self, epoch, logs=None):
                self.do(epoch, float(getattr(self.model, "lambda_c", 0.0)))

        class Counting:
            def __init__(self, net):
                self.net, self.rows = net, 0

            def __call__(self, x):
                self.rows += len(x)
                return self.net(x)

        self.within, self.counting = Within, Counting

    def net(self):
        layers = self.keras.layers
        hidden = [layers.Dense(6, activation="relu"), layers.Dropout(0.3)]
        return self.keras.Sequential([self.keras.Input((4,)), *hidden, layers.Dense(3, activation="softmax")])

    def seed(self, seed):
        self.keras.utils.set_random_seed(seed)
        self.keras.random.uniform(())

    def drawn(self):
        return float(self.keras.random.uniform(())), np.random.rand(), random.random()  # noqa: NPY002

    def tensor(self, value):
        return self.keras.ops.convert_to_tensor(value)

    def compiled(self, rate=0.05):
        loss = "sparse_categorical_crossentropy"
        return {"optimizer": self.keras.optimizers.SGD(rate), "loss": loss, **FEW_STEPS}

    def sweep(self, h2, h1, train, folder, *, test=None, val=None, within=None, rate=0.05, **options):
        fit = {"epochs": options.pop("epochs", EPOCHS), "batch_size": BATCH}
        if within is not None:
            fit["callbacks"] = [self.within(within)]
        return self.ours.sweep(
            h2, h1, train, test=test, val=val, folder=folder, compile=self.compiled(rate), fit=fit,
            **{"progress_bar": False, "tensorboard": False, **options},
        )  # fmt: skip

    def by_hand(self, h1, data, loss, lambda_c, seed):
        """Weights of the same point, trained without the sweep and with h1 asked in every step."""
        self.keras.utils.set_random_seed(seed)
        h2 = self.net()
        model = h2 if loss is None else self.ours.BCModel(h2, h1=h1, lambda_c=lambda_c, dissonance=loss)
        model.compile(**self.compiled())
        model.fit(*data, epochs=EPOCHS, batch_size=BATCH, verbose=0)
        return h2, h2.get_weights()

    def weights(self, model):
        return [weight.copy() for weight in model.get_weights()]

    def kept(self, found, *point):
        return self.keras.saving.load_model(found.model_path(*point)).get_weights()

    def predicted(self, model, x):
        return model.predict(x, verbose=0).argmax(1)


class Hearing(Tracker):
    """Notes what it hears, and fails at what it is told to."""

    def __init__(self, fails_at=None):
        self.heard, self.fails_at = [], fails_at

    def _hear(self, what):
        self.heard.append(what)
        if what == self.fails_at:
            raise OSError("no such place")

    def begin(self, results, plan):
        assert (plan.losses, plan.lambdas, plan.seeds) == (["new_error"], [0.0, 2.0], [0])
        assert (plan.datasets, plan.has_performance) == (["train", "val", "test"], False)
        self._hear("begin")

    def point_begun(self, point):
        self._hear("point_begun")

    def point_trained(self, point, trained):
        self._hear("point_trained")

    def point_finished(self, results, point):
        assert point in results.points
        self._hear("point_finished")

    def finish(self, results):
        self._hear("finish")
