"""A `.keras` file and a SavedModel, with a tiny model each, against calling it directly."""

import keras
import numpy as np
import pytest

from bc_core import ModelSettings, predict
from bc_core._cli import main
from bc_core.predictions._reading import read_table

X = np.random.default_rng(0).normal(size=(30, 3)).round(3)


@pytest.fixture
def data(tmp_path):
    lines = [f"{number},{','.join(map(str, row))}" for number, row in enumerate(X)]
    (tmp_path / "data.csv").write_text("\n".join(["id,x0,x1,x2", *lines]))
    return tmp_path / "data.csv"


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="softmax")])


def test_a_keras_file_gives_what_the_model_gives(data):
    model, path = network(), data.with_name("m.keras")
    model.save(path)
    found = read_table(predict(path, data, data.with_name("out.jsonl"), features=["x*"], batch_size=8).path)
    np.testing.assert_allclose(found.column("scores"), model.predict(X, verbose=0), rtol=1e-5)


def test_a_keras_file_of_several_inputs_and_outputs(data):
    a, b = keras.Input((2,), name="a"), keras.Input((1,), name="b")
    both = keras.layers.Concatenate()([a, b])
    outputs = {"sum": keras.layers.Dense(2, name="sum")(both), "other": keras.layers.Dense(2, name="other")(both)}
    model, path, out = keras.Model([a, b], outputs), data.with_name("m.keras"), data.with_name("out.jsonl")
    model.save(path)
    inputs = {"a": ["x0", "x1"], "b": ["x2"]}
    with pytest.raises(ValueError, match="say which by --output"):
        predict(path, data, out, inputs=inputs)
    found = read_table(predict(path, data, out, inputs=inputs, settings=ModelSettings(output="sum")).path)
    wanted = model.predict({"a": X[:, :2], "b": X[:, 2:]}, verbose=0)["sum"]
    np.testing.assert_allclose(found.column("scores"), wanted, rtol=1e-4)


def test_code_in_a_lambda_layer_runs_for_those_who_trust_it(data, capsys):
    path = data.with_name("m.keras")
    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x * 2)]).save(path)
    options = ["predict", str(path), str(data), "--out", str(data.with_name("out.csv")), "--features", "x*"]
    assert main(options) == 2
    assert "a Lambda layer, which holds code; say --trust" in capsys.readouterr().err
    assert main([*options, "--trust"]) == 0
    assert "code of its Lambda layers runs" in capsys.readouterr().err
    np.testing.assert_allclose(read_table(data.with_name("out.csv")).column("score_1"), 2 * X[:, 1], rtol=1e-6)
    path.write_bytes(path.read_bytes()[:100])
    assert main([*options, "--overwrite"]) == 2
    assert "cannot be opened" in capsys.readouterr().err


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow alone")
def test_a_saved_model_gives_what_the_model_gives(data):
    model, folder, told = network(), data.with_name("saved"), []
    model.export(folder, verbose=False)
    out = data.with_name("out.jsonl")
    settings = ModelSettings(say=told.append)
    found = read_table(predict(folder, data, out, features=["x*"], settings=settings).path)
    np.testing.assert_allclose(found.column("scores"), model.predict(X, verbose=0), rtol=1e-5)
    assert "operators may read and write files" in told[0]
    settings = ModelSettings(options={"signature": "other"})
    with pytest.raises(ValueError, match="no signature 'other'; it has serv"):
        predict(folder, data, out, features=["x*"], settings=settings, overwrite=True)
