"""Networks, data and training of either side, as tests of invariance need them.

Networks are written down as tuples of name, kind and options; images come as (N, H, W, C).
"""

import numpy as np

from bc_core.invariance import TransformSet

C4 = TransformSet.c4()


class LightningSide:
    data_format = "channels_first"

    def __init__(self):
        import torch

        import bc_lightning
        from bc_lightning import invariance

        self.invariance, self.reference, self.torch = invariance, bc_lightning.Reference, torch
        self.backend, self.spatial = invariance.TorchBackend, invariance.TorchSpatial

    def seed(self):
        self.torch.manual_seed(0)

    def inputs(self, x):
        return self.torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x))

    def labelled(self, x, y):
        return self.torch.utils.data.TensorDataset(self.inputs(x), self.torch.as_tensor(y))

    def batches(self, x, y, size):
        x, y = self.inputs(x), self.torch.as_tensor(y)
        return [(x[start : start + size], y[start : start + size]) for start in range(0, len(x), size)]

    def net(self, size, *layers):
        nn = self.torch.nn
        kinds = {
            "conv": lambda c, k, pad=0: nn.LazyConv2d(c, k, padding=pad),
            "relu": nn.ReLU, "maxpool": nn.MaxPool2d, "globalmax": lambda: nn.AdaptiveMaxPool2d(1),
            "globalmean": lambda: nn.AdaptiveAvgPool2d(1), "dropout": lambda: nn.Dropout(0.5), "flatten": nn.Flatten,
            "dense": nn.LazyLinear, "sigmoid": nn.Sigmoid,
        }  # fmt: skip
        net = nn.Sequential()
        for name, kind, *options in layers:
            net.add_module(name, kinds[kind](*options))
        with self.torch.no_grad():
            net.eval()(self.inputs(np.zeros((2, *size), "float32")))
        return net

    def spoil(self, net, name):
        """Turn a layer's weights into NaN."""
        with self.torch.no_grad():
            for weight in net.get_submodule(name).parameters():
                weight.fill_(np.nan)

    def set_kernel(self, net, name, kernel, bias=0.0):
        """Of shape (height, width, channels, filters)."""
        layer = net.get_submodule(name)
        with self.torch.no_grad():
            layer.weight.copy_(self.torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))))
            layer.bias.fill_(bias)

    def activation(self, net, name, x):
        """Of one layer for inputs as the side has them, as an array."""
        found = []
        layer = net if name is None else net.get_submodule(name)
        handle = layer.register_forward_hook(lambda _, __, output: found.append(output.clone()))
        with self.torch.no_grad():
            net(self.torch.as_tensor(x))
        handle.remove()
        return found[0].numpy()

    def watched(self, h1, model, data, x, y, epochs, **options):
        """Train a classifier, watched; returns the callback, comparisons by hand, and the numbers logged last."""
        import pytorch_lightning as pl

        torch, compare, by_hand = self.torch, self.invariance.compare_invariance, []

        class Classifier(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = model

            def forward(self, x):
                return self.net(x)

            def training_step(self, batch, batch_idx):
                return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.5)

        class ByHand(pl.Callback):
            def on_train_epoch_end(self, trainer, module):
                by_hand.append(compare(h1, model, data, C4, **options))

        watch = self.invariance.InvarianceCallback(h1, data, C4, network=lambda module: module.net, **options)
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, callbacks=[watch, ByHand()],
        )  # fmt: skip
        trainer.fit(Classifier(), torch.utils.data.DataLoader(self.labelled(x, y), batch_size=20))
        logged = {name.removeprefix("invariance_"): float(v) for name, v in trainer.callback_metrics.items()}
        return watch, by_hand, logged


class KerasSide:
    data_format = "channels_last"

    def __init__(self):
        import keras

        import bc_keras
        from bc_keras import invariance

        self.invariance, self.reference, self.keras = invariance, bc_keras.Reference, keras
        self.backend, self.spatial = invariance.KerasBackend, invariance.KerasSpatial

    def seed(self):
        self.keras.utils.set_random_seed(0)

    def inputs(self, x):
        return x

    def labelled(self, x, y):
        return x, y

    def batches(self, x, y, size):
        return [(x[start : start + size], y[start : start + size]) for start in range(0, len(x), size)]

    def net(self, size, *layers):
        L = self.keras.layers
        kinds = {
            "conv": lambda c, k, pad=0, **name: L.Conv2D(c, k, padding="same" if pad else "valid", **name),
            "relu": L.ReLU, "maxpool": L.MaxPooling2D, "globalmax": L.GlobalMaxPooling2D,
            "globalmean": L.GlobalAveragePooling2D, "dropout": lambda **name: L.Dropout(0.5, **name),
            "flatten": L.Flatten, "dense": L.Dense, "sigmoid": lambda **name: L.Activation("sigmoid", **name),
        }  # fmt: skip
        built = [kinds[kind](*options, name=name) for name, kind, *options in layers]
        return self.keras.Sequential([self.keras.Input(size), *built])

    def spoil(self, net, name):
        """Turn a layer's weights into NaN."""
        layer = net.get_layer(name)
        layer.set_weights([np.full_like(weight, np.nan) for weight in layer.get_weights()])

    def set_kernel(self, net, name, kernel, bias=0.0):
        """Of shape (height, width, channels, filters)."""
        net.get_layer(name).set_weights([kernel, np.full(kernel.shape[-1], bias)])

    def activation(self, net, name, x):
        """Of one layer for inputs as the side has them, as an array."""
        part = net if name is None else self.keras.Model(net.inputs, net.get_layer(name).output)
        return self.keras.ops.convert_to_numpy(part(np.asarray(x), training=False))

    def watched(self, h1, model, data, x, y, epochs, **options):
        """Train a classifier, watched; returns the callback, comparisons by hand, and the numbers logged last."""
        compare, by_hand = self.invariance.compare_invariance, []
        watch = self.invariance.InvarianceCallback(h1, data, C4, **options)
        beside = self.keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: by_hand.append(compare(h1, model, data, C4, **options))
        )
        loss = self.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(self.keras.optimizers.SGD(0.5), loss)
        history = model.fit(x, y, batch_size=20, epochs=epochs, verbose=0, shuffle=False, callbacks=[watch, beside])
        logged = {name.removeprefix("val_invariance_"): values[-1] for name, values in history.history.items()}
        return watch, by_hand, logged
