"""Both sides of what is done after a training, behind one face."""

from __future__ import annotations

import numpy as np

CLASSES = 3


def arrays(rows=400, seed=0):
    """Inputs and labels that a small network can learn in part."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype("float32")
    return x, (x[:, :3] + 0.6 * rng.normal(size=(rows, 3))).argmax(1).astype("int64")


class LightningSide:
    """Networks that return logits."""

    def __init__(self):
        import torch

        import bc_lightning

        self.torch, self.ours = torch, bc_lightning

    def net(self, seed, hidden=8, classes=CLASSES, batch_norm=False):
        nn = self.torch.nn
        self.torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(hidden)] if batch_norm else []
        return nn.Sequential(nn.Linear(4, hidden), *middle, nn.ReLU(), nn.Linear(hidden, classes)).eval()

    def data(self, x, y, batch_size=100):
        torch = self.torch
        dataset = torch.utils.data.TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
        return torch.utils.data.DataLoader(dataset, batch_size=batch_size)

    def weights(self, model):
        return [each.detach().numpy().copy() for each in model.parameters()]

    def set_weights(self, model, weights):
        with self.torch.no_grad():
            for each, value in zip(model.parameters(), weights, strict=True):
                each.copy_(self.torch.as_tensor(value))

    def probabilities(self, model, x):
        with self.torch.no_grad():
            return model(self.torch.as_tensor(x)).softmax(1).numpy()

    def trained(self, model, x, y, epochs):
        """The same for both, without this package."""
        optimizer = self.torch.optim.Adam(model.parameters(), lr=0.02)
        x, y = self.torch.as_tensor(x), self.torch.as_tensor(y)
        model.train()
        for _ in range(epochs):
            optimizer.zero_grad()
            self.torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return model.eval()

    def statistics_of(self, model, x, batch_size):
        """Running means and variances as `torch.optim.swa_utils.update_bn` finds them for these weights."""
        import copy

        model = copy.deepcopy(model)
        loader = self.data(x, np.zeros(len(x), "int64"), batch_size)
        self.torch.optim.swa_utils.update_bn(loader, model)
        return self.statistics(model)

    def statistics(self, model):
        return [model[1].running_mean.numpy(), model[1].running_var.numpy()]

    def projected(self, h1, h2, x, y, validation, promise, epochs):
        """h2 trained with the callback; the shares of h1 after each epoch."""
        import pytorch_lightning as pl

        ours = self.ours
        callback = ours.ProjectionCallback(h1, self.data(*validation), promise)
        adam = self.torch.optim.Adam
        module = ours.BCLightningModule(h2, h1=h1, lambda_c=0, optimizer=lambda of: adam(of, lr=0.02))
        trainer = pl.Trainer(
            max_epochs=epochs, callbacks=[callback], logger=False, enable_checkpointing=False, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module.train(), self.data(x, y))
        h2.eval()
        return callback

    def fit(self, wrapped, x, y, epochs=1, callbacks=()):
        import pytorch_lightning as pl

        trainer = pl.Trainer(
            max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu", callbacks=list(callbacks),
        )  # fmt: skip
        trainer.fit(wrapped.train(), self.data(x, y))

    def after_each_epoch(self, look, stop_after=None):
        """A callback that looks at the module, and may stop the training."""
        import pytorch_lightning as pl

        class Looking(pl.Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                look()
                trainer.should_stop = trainer.current_epoch + 1 == stop_after

        return Looking()

    def wrapped(self, h2, h1, **options):
        return self.ours.BCLightningModule(h2, h1=h1, optimizer=self.torch.optim.Adam, **options)

    def distilled(self, blend, student, lambda_c, x, y, epochs):
        adam = self.torch.optim.Adam
        module = self.ours.distil(blend, student, lambda_c=lambda_c, optimizer=lambda of: adam(of, lr=0.02))
        self.fit(module, x, y, epochs)
        return student.eval()


class KerasSide:
    """Networks that return probabilities."""

    def __init__(self):
        import keras

        import bc_keras

        self.keras, self.ours = keras, bc_keras

    def net(self, seed, hidden=8, classes=CLASSES, batch_norm=False):
        keras = self.keras
        keras.utils.set_random_seed(seed)
        middle = [keras.layers.BatchNormalization(epsilon=1e-5)] if batch_norm else []
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(hidden),
                *middle,
                keras.layers.ReLU(),
                keras.layers.Dense(classes, activation="softmax"),
            ]
        )

    def data(self, x, y, batch_size=100):
        return x, y

    def weights(self, model):
        return [np.array(self.keras.ops.convert_to_numpy(each)) for each in model.trainable_weights]

    def set_weights(self, model, weights):
        for each, value in zip(model.trainable_weights, weights, strict=True):
            each.assign(value)

    def probabilities(self, model, x):
        return model.predict(x, batch_size=1000, verbose=0)

    def compiled(self, model):
        model.compile(self.keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
        # Else the first step makes its variables, and then TensorFlow traces it twice.
        model.optimizer.build(model.trainable_variables)

    def trained(self, model, x, y, epochs):
        self.compiled(model)
        # A step on all of it, so many times: an epoch of its own takes longer than the step.
        x, y = np.tile(x, (epochs, 1)), np.tile(y, epochs)
        model.fit(x, y, batch_size=len(x) // epochs, shuffle=False, verbose=0)
        return model

    def statistics_of(self, model, x, batch_size):
        """Means over batches of the means and unbiased or biased variances of what the layer is given."""
        inner = self.keras.Model(model.inputs, model.layers[0].output)
        batches = [inner.predict(x[i : i + batch_size], verbose=0) for i in range(0, len(x), batch_size)]
        return [np.mean([b.mean(0) for b in batches], 0), np.mean([b.var(0) for b in batches], 0)]

    def statistics(self, model):
        layer = model.layers[1]
        return [self.keras.ops.convert_to_numpy(each) for each in (layer.moving_mean, layer.moving_variance)]

    def projected(self, h1, h2, x, y, validation, promise, epochs):
        callback = self.ours.ProjectionCallback(h1, validation, promise, batch_size=1000)
        self.compiled(h2)
        h2.fit(x, y, batch_size=100, epochs=epochs, verbose=0, callbacks=[callback])
        return callback

    def fit(self, wrapped, x, y, epochs=1, callbacks=()):
        self.keras.utils.set_random_seed(0)  # of the order
        wrapped.fit(x, y, epochs=epochs, verbose=0, callbacks=list(callbacks))

    def after_each_epoch(self, look, stop_after=None):
        class Looking(self.keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                look()
                self.model.stop_training = epoch + 1 == stop_after

        return Looking()

    def wrapped(self, h2, h1, **options):
        made = self.ours.BCModel(h2, h1=h1, **options)
        made.compile("adam", "sparse_categorical_crossentropy")
        return made

    def distilled(self, blend, student, lambda_c, x, y, epochs):
        model = self.ours.distil(blend, student, lambda_c=lambda_c)
        self.compiled(model)
        self.keras.utils.set_random_seed(0)  # of the order
        model.fit(np.tile(x, (epochs, 1)), np.tile(y, epochs), batch_size=100, verbose=0)
        return self.ours.unwrap(model)
