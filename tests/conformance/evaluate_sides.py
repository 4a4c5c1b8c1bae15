"""Models of known answers, data and metrics of either side, as tests of `evaluate` need them."""

from __future__ import annotations

import numpy as np


def no_memory(*_):
    raise ArithmeticError("no memory")


def batches(x, y, names=None, size=3):
    parts = (x, y) if names is None else (names, x, y)
    return [tuple(part[start : start + size] for part in parts) for start in range(0, len(y), size)]


class Lightning:
    """Modules, and data in loaders or data sets."""

    # Of whose numbers a metric may return one, how h1 may be given, and which outputs a binary model may have.
    numbers = ("tensor without axes", "tensor with a gradient", "bfloat16")
    wraps = ("itself", "a reference", "its own forward")
    answers = ("tensor", "scores in a tensor")
    binary_shapes = ((8,), (8, 1))

    def __init__(self):
        import torch

        import bc_lightning

        self.torch, self.ours = torch, bc_lightning
        nn = torch.nn

        class Table(nn.Module):
            """Knows its answers: its input is the number of an instance. Notes its mode at each question."""

            def __init__(self, scores):
                super().__init__()
                self.register_buffer("scores", torch.as_tensor(scores))
                self.asked = []

            def forward(self, x):
                self.asked.append((x.reshape(-1).long().tolist(), self.training))
                return self.scores[x.reshape(-1).long()]

        class Normalised(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
                self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3))

            def forward(self, x):
                return self.head(self.body(x))

        class Breaks(Normalised):
            questions = 0

            def forward(self, x):
                self.questions += 1
                return no_memory() if self.questions == 2 else super().forward(x)

        self.known, self.Normalised, self.Breaks = Table, Normalised, Breaks
        # Not once in a process, in whichever test is the first.
        torch.set_warn_always(True)

    def close(self):
        self.torch.set_warn_always(False)

    def asked(self, model):
        return [rows for rows, _ in model.asked]

    def modes_asked_in(self, model):
        return {training for _, training in model.asked}

    def forget(self, model):
        model.asked.clear()

    def normalised(self, seed, frozen=False, breaks=False):
        """BatchNorm and Dropout, with submodules in another mode than the whole."""
        self.torch.manual_seed(seed)
        model = self.Breaks() if breaks else self.Normalised()
        model.body[0].requires_grad_(not frozen)
        # A BatchNorm that would learn in either.
        model.train(not frozen)
        (model.head if frozen else model.body[2]).train(frozen)
        model.body[1].train()
        return model

    def variants(self, model):
        """The model in every state in which it may be compared."""
        return [model]

    def state(self, model):
        """Weights and statistics, which of them are trained, and modes."""
        weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        modes = {name: module.training for name, module in model.named_modules()}
        modes["gradients"] = self.torch.is_grad_enabled()
        return weights, {name: weight.requires_grad for name, weight in model.named_parameters()}, modes

    def predicted(self, model, x):
        """Labels in the mode of inference, without leaving it in that."""
        import copy

        with self.torch.no_grad():
            return copy.deepcopy(model).eval()(self.torch.tensor(x)).argmax(1).numpy()

    def wrapped(self, model, how):
        return {"itself": model, "a reference": self.ours.Reference(model), "its own forward": model.forward}[how]

    def dataset(self, x, y):
        return self.torch.utils.data.TensorDataset(self.torch.tensor(x), self.torch.tensor(y))

    def loader(self, x, y, size):
        return self.torch.utils.data.DataLoader(self.dataset(x, y), batch_size=size)

    def forms(self, x, y, size):
        """Each form that data may have, with the options that go with it."""
        return [(self.dataset(x, y), {} if size is None else {"batch_size": size}), (self.loader(x, y, size or 1), {})]

    def in_threes(self, x, y):
        return {"data": self.loader(x, y, 3)}

    def named(self, names, x, y, order):
        """Batches of three, with names, in an order."""
        items = list(zip(names, self.torch.tensor(x), y.tolist(), strict=True))
        return self.torch.utils.data.DataLoader(items, batch_size=3, sampler=order)

    def number(self, kind, value):
        value = self.torch.tensor(value)
        return {
            "tensor without axes": lambda: value,
            "tensor with a gradient": lambda: value.clone().requires_grad_(),
            "bfloat16": value.bfloat16,
        }[kind]()

    def vector(self, values):
        return self.torch.tensor(values)

    def accuracy(self, model, dataset, device):
        """A metric, as a caller writes it."""
        return float(self.torch.cat([(model(x).argmax(1) == y).float() for x, y in dataset]).mean())

    def store(self, h1, x, y, folder):
        return self.ours.store_outputs(h1, self.dataset(x, y), folder, batch_size=4)

    def attach(self, stored, x, y):
        return {"data": self.torch.utils.data.DataLoader(stored.attach(self.dataset(x, y)), batch_size=3)}


class Keras:
    """Keras models, which run eagerly where they note their questions, and arrays."""

    numbers = ("tensor of the backend", "bfloat16")
    wraps = ("itself", "a reference")
    answers = ("tensor", "scores in a tensor")
    binary_shapes = ((8, 1),)

    def __init__(self):
        import keras

        import bc_keras

        self.keras, self.ops, self.ours = keras, keras.ops, bc_keras

        class Answers(keras.layers.Layer):
            """Knows its answers: its input is the number of an instance. Notes what it is asked."""

            def __init__(self, scores, **options):
                super().__init__(**options)
                self.scores = np.asarray(scores, "float32")
                self.asked = []

            def compute_output_spec(self, x, training=None):
                # Or Keras would call it with tensors that hold no values.
                return keras.KerasTensor((*x.shape[:-1], self.scores.shape[1]))

            def call(self, x, training=None):
                rows = keras.ops.convert_to_numpy(x)[..., 0].astype(int)
                self.asked.append((rows.tolist(), training))
                return keras.ops.convert_to_tensor(self.scores[rows])

        class Breaks(keras.layers.Layer):
            questions = 0

            def compute_output_spec(self, x):
                return keras.KerasTensor(x.shape, x.dtype)

            def call(self, x):
                self.questions += 1
                return no_memory() if self.questions == 2 else x

        self.Answers, self.Breaks = Answers, Breaks

    def close(self):
        pass

    def known(self, scores):
        model = self.keras.Sequential([self.keras.Input((1,)), self.Answers(scores)])
        model.compile(run_eagerly=True)
        return model

    def asked(self, model):
        return [rows for rows, _ in model.layers[-1].asked]

    def modes_asked_in(self, model):
        return {training for _, training in model.layers[-1].asked}

    def forget(self, model):
        model.layers[-1].asked.clear()

    def normalised(self, seed, frozen=False, breaks=False):
        """BatchNorm and Dropout, whose answers depend on the mode."""
        self.keras.utils.set_random_seed(seed)
        layers = self.keras.layers
        model = self.keras.Sequential(
            [
                self.keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.5),
                layers.Dense(3, activation="softmax"), *([self.Breaks()] if breaks else []),
            ]
        )  # fmt: skip
        model.layers[0].trainable = not frozen
        if breaks:
            model.compile(run_eagerly=True)
        return model

    def variants(self, model):
        """The model in every state in which it may be compared: as it was made, and compiled."""
        yield model
        model.compile("sgd", "sparse_categorical_crossentropy")
        yield model

    def state(self, model):
        """Weights and statistics, which of them are trained, and on torch the modes."""
        modules = model.named_modules() if self.keras.backend.backend() == "torch" else ()
        weights = {weight.path: self.ops.convert_to_numpy(weight).copy() for weight in model.weights}
        trained = {layer.name: layer.trainable for layer in model.layers}
        return weights, trained, {name: module.training for name, module in modules}

    def predicted(self, model, x):
        return self.ops.convert_to_numpy(model(x, training=False)).argmax(1)

    def wrapped(self, model, how):
        return {"itself": model, "a reference": self.ours.Reference(model)}[how]

    def forms(self, x, y, size):
        """Each form that data may have, with the options that go with it."""
        return [((x, y), {"batch_size": size}), ((x, y, np.ones(len(y))), {"batch_size": size})]

    def in_threes(self, x, y):
        return {"data": (x, y), "batch_size": 3}

    def named(self, names, x, y, order):
        """Batches of three, with names, in an order."""
        return batches(x[order], y[order], [names[index] for index in order])

    def number(self, kind, value):
        tensor = self.ops.convert_to_tensor(value)
        return tensor if kind == "tensor of the backend" else self.ops.cast(tensor, "bfloat16")

    def vector(self, values):
        return self.ops.convert_to_tensor(values)

    def accuracy(self, model, dataset, device):
        """A metric, as a caller writes it."""
        x, y = dataset
        return float((self.ops.convert_to_numpy(model(x)).argmax(1) == y).mean())

    def store(self, h1, x, y, folder):
        return self.ours.store_outputs(h1, x, folder, y=y, batch_size=4, verbose=0)

    def attach(self, stored, x, y):
        return {"data": stored.attach(x, y, num_classes=3 if stored.labels_only else None), "batch_size": 3}
