"""Every call that transformational-measures-tf 0.72a0 documents, or has in public, as it is written there."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from backends import once
from keras import layers as L

import bc_keras.transformational_measures as tm

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

# They all rest on `measure`, which is tested on each backend, as are the formulas, in the file beside this one.
pytestmark = once

# The call, and what is true of its value afterwards.
CALLS = [
    # Model
    ("Model(model_keras=net)", "value.model_keras is net"),
    ("Model(path=h5)", "close(value.predict(x[None])[0, 1, 2], head(x)[1])"),
    ("Model(h5)", "close(value.predict(x[None])[0, 1, 2], head(x)[1])"),
    ("Model(net, None)", "value.model_keras is net"),
    ("Model(model_keras=None, model_path=h5)", "value.get_name_layer(0) == 'conv'"),
    ("model.predict(x.reshape(2, 3, 6, 6, 1))", "(value.height, value.width) == (2, 3)"),
    ("model.predict(x.reshape(2, 3, 6, 6, 1))[(1, 2, 2)]", "close(value, head(x)[5])"),
    ("model.predict(keras.ops.convert_to_tensor(x[None]))[(0, 4, 0)]", "close(value, conv(x)[4])"),
    ("model.get_model_structure()", "isinstance(value, ModelStructure)"),
    ("model.model_structure", "value.number_layers == 3"),
    ("model.get_name_layer(0)", "value == 'conv'"),
    ("model.get_name_layer(k=2)", "value == 'head'"),
    ("model.layers_names", "value == ['conv', 'flat', 'head']"),
    ("model.evaluate(x, y)", "close(value, net.evaluate(x, y, verbose=0))"),
    ("model.evaluate(x=x, y=y)[1]", "close(value, (head(x).argmax(axis=1) == y).mean())"),
    # ModelStructure, LayerStructure
    ("ModelStructure(net)", "value.number_layers == 3"),
    ("ModelStructure(model=net).layers", "type(value) is list and len(value) == 3"),
    ("ModelStructure().number_layers", "value == 0"),
    ("structure.number_layers", "value == 3"),
    ("structure.map_layers_features", "value == [0]"),
    ("structure.layers_features", "value == structure.layers[:1]"),
    ("structure.number_layers_features", "value == 1"),
    ("structure.layers[0].number_features", "value == 2"),
    ("structure.layers[0].shape_feature", "value == (4, 4)"),
    ("structure.layers[0].number_activations", "value == 32"),
    ("structure.layers[0].shape", "value == (4, 4, 2)"),
    ("structure.layers[2].number_features", "value == 0"),
    ("structure.layers[2].shape", "value == (3,)"),
    # Block
    ("block[(1, 2, 2)]", "close(value, head(x)[5])"),
    ("block[(1, 0, 0, 1)]", "close(value, conv(x)[3][:, :, 1])"),
    ("block.__setitem__((0, 0, 2), np.zeros(3))", "block[(0, 0, 2)].tolist() == [0, 0, 0]"),
    ("block.__setitem__((0, 0, 0, 1), np.ones((4, 4)))", "block[(0, 0, 0)][:, :, 1].min() == 1"),
    ("block.height", "value == 2"),
    ("block.width", "value == 3"),
    ("block.model_structure", "value.number_layers == 3"),
    ("block.set_rows_dataset([4, 5])", "block.get_rows_dataset() == [4, 5]"),
    ("block.set_columns_dataset([1, 2, 3])", "block.get_columns_dataset() == [1, 2, 3]"),
    ("block.set_state_transpose_dataset(True)", "block.is_dataset_transpose() is True"),
    ("block.get_rows_dataset()", "value is None"),
    ("block.get_columns_dataset()", "value is None"),
    ("block.is_dataset_transpose()", "value is None"),
    ("Block([x], 2, 3, structure)[(1, 1, 0)]", "close(value, x[4])"),
    # DataSet, to derive from
    ("own.get_data_shape()", "value == (6, 6, 1)"),
    ("own.get_width()", "value == 4"),
    ("own.get_height()", "value == 6"),
    ("own.get_matrix([0, 5], [1])", "close(value, np.rot90(x[[0, 5]], 1, (1, 2))[:, None])"),
    ("own.transpose()", "(own.get_height(), own.get_width(), own.is_transpose()) == (4, 6, True)"),
    ("own.is_transpose()", "value is False"),
    ("isinstance(own, DataSet)", "value"),
    # TransformationsDataSet
    ("own.apply_inverse_transformation(x[0, :, :, 0], 1)", "close(value, np.rot90(x[0, :, :, 0], -1))"),
    ("own.get_size_transformations_groups()", "value == 2"),
    ("own.set_transformation_group(1, 2)", "own.get_width() == 2"),
    # MnistTransformationsDataSet, Cifar10TransformationsDataSet
    ("MnistTransformationsDataSet()", "value.get_height() == 5 and value.get_width() == 1"),
    ("MnistDataSet()", "isinstance(value, TransformationsDataSet)"),
    ("mnist.get_data_shape()", "value == (28, 28, 1)"),
    ("mnist.get_width()", "value == 4"),
    ("mnist.get_height()", "value == 5"),
    ("mnist.get_matrix([1, 2], [0, 3])", "close(value[:, 1], np.rot90(value[:, 0], 3, (1, 2)))"),
    ("mnist.transpose()", "mnist.get_matrix([0, 3], [1, 2]).shape == (2, 2, 28, 28, 1) and mnist.get_height() == 4"),
    ("mnist.is_transpose()", "value is False"),
    (
        "mnist.apply_inverse_transformation(mnist.get_matrix([1], [3])[0, 0], 3)",
        "close(value, mnist.get_matrix([1], [0])[0, 0])",
    ),
    (
        "mnist.apply_inverse_transformation(tensor=np.eye(14), index_transformation=1)",
        "close(value, np.rot90(np.eye(14), -1))",
    ),
    ("mnist.get_size_transformations_groups()", "value == 8"),
    ("mnist.set_transformation_group(group=0, n=3)", "np.ptp(mnist.get_matrix([1], [0, 1, 2])[0], axis=0).max() == 0"),
    ("mnist.set_transformation_group(1, 8)", "mnist.get_width() == 8"),
    (
        "mnist.set_transformation_group(2, 4)",
        "close(mnist.get_matrix([1], [1])[0, 0][:, 7:], mnist.get_matrix([1], [0])[0, 0][:, :-7])",
    ),
    (
        "mnist.set_transformation_group(3, 4)",
        "close(mnist.get_matrix([1], [1])[0, 0][7:], mnist.get_matrix([1], [0])[0, 0][:-7])",
    ),
    (
        "mnist.set_transformation_group(4, 6)",
        "[(t.tx, t.ty) for t in mnist.transformations] == [(0, 0), (9, 0), (18, 0), (0, 0), (0, 9), (0, 18)]",
    ),
    ("mnist.set_transformation_group(5, 4)", "[(t.theta, t.tx, t.ty) for t in mnist.transformations][1] == (90, 7, 0)"),
    ("mnist.set_transformation_group(6, 4)", "[(t.theta, t.tx, t.ty) for t in mnist.transformations][1] == (90, 0, 7)"),
    ("mnist.set_transformation_group(7, 4)", "[(t.theta, t.tx, t.ty) for t in mnist.transformations][1] == (90, 7, 7)"),
    ("mnist.get_testing_data()", "(value[0].shape, len(value[1])) == ((20, 28, 28, 1), 20)"),
    ("mnist.select_samples([3, 1])", "mnist.get_height() == 2 and list(mnist.results) == [3, 1]"),
    ("mnist.select_random_samples(4)", "mnist.get_height() == 4"),
    ("Cifar10TransformationsDataSet()", "value.get_data_shape() == (32, 32, 3)"),
    ("Cifar10TransformationsDataSet().get_size_transformations_groups()", "value == 8"),
    # Transformation, AffineTransformation
    ("AffineTransformation()", "close(value.apply(x[0]), x[0])"),
    ("AffineTransformation(theta=90).apply(x[0])", "close(value, np.rot90(x[0]))"),
    ("AffineTransformation(tx=2).apply(x[0, :, :, 0])", "close(value[:, 2:], x[0, :, :-2, 0])"),
    ("AffineTransformation(ty=2).apply(x[0, :, :, 0])", "close(value[2:], x[0, :-2, :, 0])"),
    ("AffineTransformation(theta=180, zx=1, zy=1, shear=0).apply_inverse(x[0])", "close(value, np.rot90(x[0], 2))"),
    ("issubclass(AffineTransformation, Transformation)", "value"),
    # Iterator
    ("Iterator(model, dataset)", "(value.n, value.m) == (6, 4)"),
    ("Iterator(model=model, dataset=own).get_model()", "value is model"),
    ("iterator.transpose()", "dataset.is_transpose() and (iterator.n, iterator.m) == (4, 6)"),
    ("[height for height, blocks in iterator.get_block(4, 3)]", "value == [4, 2]"),
    (
        "[block[(0, 0, 2)].shape for _, blocks in iterator.get_block(height=6, width=3) for width, block in blocks]",
        "value == [(3,), (3,)]",
    ),
    (
        "[block.get_columns_dataset() for _, blocks in iterator.get_block(6, 3) for _, block in blocks]",
        "value == [[0, 1, 2], [3]]",
    ),
    # The measures
    ("Variance(iterator).compute(10, 5)", "close(value[0], np.mean(tv))"),
    ("tuple(Variance(iterator).compute(height=10, width=5))", "close(value[0], tv) and close(value[1][2], tv_head)"),
    ("Variance(iterator=iterator).compute()", "close(tuple(value)[0], tv)"),
    ("ran(Variance(iterator)).variance_layers", "close(value, tv)"),
    ("ran(Variance(iterator)).variance_layers_activations[2]", "close(value, tv_head)"),
    ("ran(Variance(iterator)).total_variance", "close(value, np.mean(tv))"),
    ("ran(Variance(iterator)).time", "value > 0"),
    ("ran(Variance(iterator)).get_result()[0]", "close(value, np.mean(tv))"),
    ("Variance().set_iterator(iterator)", "value is None"),
    ("Variance().get_result()", "value is None"),
    ("NormalizedVariance(iterator).compute(10, 5)[0]", "close(value, np.mean(tv) / np.mean(sv))"),
    ("ran(NormalizedVariance(iterator)).variance_layers", "close(value, np.divide(tv, sv))"),
    ("ran(NormalizedVariance(iterator)).variance_layers_activations[2]", "close(value, tv_head / sv_head)"),
    ("FeaturesVariance(iterator).compute(10, 5)[0]", "close(value, tv[0])"),
    ("ran(FeaturesVariance(iterator)).variance_layers_features", "close(value, [tv_conv.mean(axis=(0, 1))])"),
    ("ran(FeaturesVariance(iterator)).variance_layers_activations[0]", "close(value, tv_conv)"),
    ("ran(FeaturesVariance(iterator)).get_feature(0, 1)", "close(value, tv_conv[:, :, 1])"),
    ("NormalizedFeaturesVariance(iterator).compute(10, 5)[0]", "close(value, tv[0] / sv[0])"),
    ("ran(NormalizedFeaturesVariance(iterator)).variance_layers_features", "close(value, [ratio_conv])"),
    ("ran(NormalizedFeaturesVariance(iterator)).variance_layers", "close(value, [ratio_conv.mean()])"),
    ("SameEquivariance(iterator, dataset).compute(10, 5)[0]", "close(value, turned_tv.mean())"),
    ("ran(SameEquivariance(iterator, own)).variance_layers_features", "close(value, [turned_tv.mean(axis=(0, 1))])"),
    ("ran(SameEquivariance(iterator, dataset)).variance_layers", "close(value, [turned_tv.mean(), *tv[1:]])"),
    ("SameEquivariance().set_dataset(dataset)", "value is None"),
    (
        "NormalizedSameEquivariance(iterator, dataset).compute(10, 5)[0]",
        "close(value, turned_tv.mean() / turned_sv.mean())",
    ),
    ("ran(NormalizedSameEquivariance(iterator, own)).variance_layers_features", "close(value, [turned_ratio])"),
    ("ran(NormalizedSameEquivariance(iterator, dataset)).variance_layers", "close(value, [turned_ratio.mean()])"),
    ("issubclass(NormalizedSameEquivariance, Metric)", "value"),
    # Analyzer, Graphs
    ("Analyzer(model, own, Iterator(model, own)).run(3)", "plt.get_fignums()"),
    ("analyzed(Analyzer(model, own, Variance()), 3).x", "len(value) == 2 and value[0] < 1e-9 < value[1]"),
    ("analyzed(Analyzer(model, own, NormalizedVariance()), 4).y[1]", "close(value, accuracy)"),
    ("Graphs().plot(model.layers_names, tv, title='t')", "value.axes[0].get_title() == 't'"),
    ("Graphs().heatmap_list2D([tv, sv], columns_names=['a', 'b'], title='t')", "len(value.axes) == 3"),
    ("Graphs().heatmap_matrix(np.eye(3), ['a', 'b', 'c'])", "len(value.axes) == 4"),
]  # fmt: skip


class Own(tm.TransformationsDataSet):
    """Quarter turns, written against the documentation alone."""

    def __init__(self, samples, results):
        self.x, self.y, self.turns, self.turned = samples, results, [0, 1, 2, 3], False

    def get_data_shape(self):
        return self.x.shape[1:]

    def get_width(self):
        return len(self.x) if self.turned else len(self.turns)

    def get_height(self):
        return len(self.turns) if self.turned else len(self.x)

    def get_matrix(self, rows, columns):
        if self.turned:
            return np.stack([[np.rot90(self.x[j], self.turns[i]) for j in columns] for i in rows])
        return np.stack([[np.rot90(self.x[i], self.turns[j]) for j in columns] for i in rows])

    def transpose(self):
        self.turned = not self.turned

    def is_transpose(self):
        return self.turned

    def apply_inverse_transformation(self, tensor, index_transformation):
        return np.rot90(tensor, -self.turns[index_transformation])

    def get_size_transformations_groups(self):
        return 2

    def set_transformation_group(self, group, n):
        self.turns = list(range(n)) if group else [0] * n

    def get_testing_data(self):
        x = self.get_matrix(range(len(self.x)), range(len(self.turns)))
        return x.reshape(-1, *self.x.shape[1:]), np.repeat(self.y, len(self.turns))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What no call changes, and what the documented formulas say in numpy."""
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(2, 3, activation="relu", name="conv"),
            L.Flatten(name="flat"),
            L.Dense(3, activation="softmax", name="head"),
        ]
    )
    net.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    path = str(tmp_path_factory.mktemp("model") / "model.h5")
    net.save(path)
    x, y = np.random.default_rng(0).normal(size=(6, 6, 6, 1)).astype("float32"), np.arange(6) % 3
    # The network in numpy: kernels slid over the image.
    kernel, bias = net.layers[0].get_weights()
    weights, offset = net.layers[2].get_weights()

    def conv(images):
        windows = np.lib.stride_tricks.sliding_window_view(images[..., 0].astype("float64"), (3, 3), (1, 2))
        return np.maximum(np.einsum("nhwij,ijf->nhwf", windows, kernel[:, :, 0]) + bias, 0)

    def head(images):
        logits = conv(images).reshape(len(images), -1) @ weights + offset
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    matrix = np.stack([np.rot90(x, turn, (1, 2)) for turn in range(4)], axis=1)
    a_conv, a_head = (of(matrix.reshape(24, 6, 6, 1)) for of in (conv, head))
    a_conv, a_head = a_conv.reshape(6, 4, 4, 4, 2), a_head.reshape(6, 4, 3)
    turned = np.stack([np.rot90(a_conv[:, turn], -turn, (1, 2)) for turn in range(4)], axis=1)
    tv_conv, tv_head, turned_tv = (a.var(axis=1, ddof=1).mean(axis=0) for a in (a_conv, a_head, turned))
    sv_conv, sv_head, turned_sv = (a.var(axis=0, ddof=1).mean(axis=0) for a in (a_conv, a_head, turned))

    def close(found, expected):
        np.testing.assert_allclose(found, expected, rtol=5e-4, atol=1e-5)
        return True

    def ran(measure):
        measure.compute(10, 5)
        return measure

    def analyzed(analyzer, n):
        analyzer.run(n)
        return analyzer

    import matplotlib.pyplot as plt

    return {
        **{name: getattr(tm, name) for name in tm.__all__},
        "net": net, "h5": path, "x": x, "y": y, "conv": conv, "head": head, "keras": keras, "np": np, "plt": plt,
        "close": close, "ran": ran, "analyzed": analyzed, "tv_conv": tv_conv, "tv_head": tv_head, "sv_head": sv_head,
        "tv": [tv_conv.mean(), tv_conv.mean(), tv_head.mean()], "sv": [sv_conv.mean(), sv_conv.mean(), sv_head.mean()],
        "ratio_conv": tv_conv.mean(axis=(0, 1)) / sv_conv.mean(axis=(0, 1)), "turned_tv": turned_tv,
        "turned_sv": turned_sv, "turned_ratio": turned_tv.mean(axis=(0, 1)) / turned_sv.mean(axis=(0, 1)),
        "accuracy": (a_head.argmax(axis=-1) == y[:, None]).mean(),
    }  # fmt: skip


@pytest.fixture
def scope(shared, monkeypatch):
    """Anew for each call, since some change it."""
    random = np.random.default_rng(0)
    digits = random.integers(0, 256, (5, 28, 28)).astype("uint8")
    colours = random.integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: ((digits, None), (digits, np.arange(5))))
    monkeypatch.setattr(
        keras.datasets.cifar10, "load_data", lambda: ((colours, None), (colours, np.arange(4)[:, None]))
    )
    found = dict(shared)
    found["model"] = model = tm.Model(model_keras=found["net"])
    found["structure"] = model.get_model_structure()
    found["own"] = Own(found["x"], found["y"])
    found["dataset"] = tm.TransformationsDataSet(found["x"], y=found["y"])
    found["dataset"].set_transformation_group(1, 4)
    found["mnist"] = tm.MnistTransformationsDataSet()
    found["mnist"].set_transformation_group(1, 4)
    found["iterator"] = tm.Iterator(model, found["dataset"])
    yield found
    found["plt"].close("all")


@pytest.mark.parametrize(("call", "truth"), CALLS, ids=[call for call, _ in CALLS])
def test_a_documented_call(call, truth, scope):
    if "block" in call.split("(")[0].split("[")[0].split("."):
        scope["block"] = scope["model"].predict(scope["x"].reshape(2, 3, 6, 6, 1))
    scope["value"] = eval(call, scope)
    assert eval(truth, scope)


def test_the_usage_of_the_iterator_and_of_variance(scope, capsys):
    exec(
        """
iterator = Iterator(model, own)
for height, blocks in iterator.get_block(3, 3):
    for width, block in blocks:
        assert (block.height, block.width) == (height, width)
variance = Variance(iterator)
variance.compute()
print(variance.variance_layers)
variance_layers, variance_layers_activations = variance.compute(10, 5)
""",
        scope,
    )
    assert capsys.readouterr().out.startswith("[")
    scope["close"](scope["variance_layers"], scope["tv"])
    scope["close"](scope["variance_layers_activations"][2], scope["tv_head"])


def test_what_the_migration_page_says_runs(scope, capsys):
    page = (Path(__file__).parents[3] / "docs" / "migration.md").read_text(encoding="utf-8")
    section = page.split("## From transformational-measures-tf\n")[1].split("\n## ")[0]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    scope["net"] = keras.Sequential(
        [keras.Input((28, 28, 1)), L.AveragePooling2D(4, name="pool"), L.Flatten(name="flat")]
    )
    exec(block.replace("range(100)", "range(3)"), scope)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["pool", "flat"]
    total, layers, activations = eval("variance.compute(10, 5)[:]", scope)
    assert total == np.mean(layers) == pytest.approx(scope["variance_layers"][0])
    assert [one.shape for one in activations] == [(7, 7, 1), (49,)]
    for name in tm.__all__:
        # Ours, of which there is none there: what `compute` returns, and the groups' names.
        assert name in ("Computed", "GROUPS", "MnistDataSet") or f"`{name}" in section
