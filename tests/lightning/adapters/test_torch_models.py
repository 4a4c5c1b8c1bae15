"""TorchScript, torch.export and Hugging Face, with a tiny model each, against calling it directly."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bc_core import ModelSettings, predict
from bc_core._cli import main
from bc_core.predictions._reading import read_table

X = np.random.default_rng(0).normal(size=(30, 3)).round(3)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.drop = torch.nn.Linear(3, 4), torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.layer(x)).softmax(dim=1)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def data(tmp_path):
    lines = [f"{number},{','.join(map(str, row))}" for number, row in enumerate(X)]
    (tmp_path / "data.csv").write_text("\n".join(["id,x0,x1,x2", *lines]))
    return tmp_path / "data.csv"


def written(model, data, **options):
    out = data.with_name("out.jsonl")
    return read_table(predict(model, data, out, features=["x*"], batch_size=8, overwrite=True, **options).path)


def direct(network):
    with torch.no_grad():
        return network.eval()(torch.tensor(X, dtype=torch.float32)).numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_gives_what_the_module_gives_in_eval_mode(network, data):
    path = data.with_name("m.pt")
    torch.jit.save(torch.jit.script(network.train()), path)
    np.testing.assert_allclose(written(path, data).column("scores"), direct(network), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_of_several_inputs_and_outputs_in_double_precision(data):
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, a, b):
            return a * self.scale, b.float()

    path, out = data.with_name("m.pt"), data.with_name("out.csv")
    torch.jit.save(torch.jit.script(Sum()), path)
    inputs = {"a": ["x0", "x1"], "b": ["x2"]}
    with pytest.raises(ValueError, match="it has the outputs 0, 1; say which by --output"):
        predict(path, data, out, inputs=inputs)
    found = read_table(predict(path, data, out, inputs=inputs, settings=ModelSettings(output="0")).path)
    np.testing.assert_array_equal(found.column("score_1"), 2 * X[:, 1])


@pytest.mark.parametrize("batch", [None, 4])
def test_an_exported_program_gives_what_the_module_gives(network, data, batch):
    path = data.with_name("m.pt2")
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network.eval(), (torch.zeros(batch or 2, 3),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    np.testing.assert_allclose(written(path, data).column("scores"), direct(network), rtol=1e-5)


class Bomb:
    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return (Path.touch, (Path(self._path),))


def test_checkpoints_and_pickles_are_refused(network, data, capsys):
    fuse = data.with_name("ran")
    torch.save({"state_dict": network.state_dict(), "bomb": Bomb(fuse)}, data.with_name("checkpoint.pt"))
    data.with_name("plain.pth").write_bytes(pickle.dumps(Bomb(fuse)))
    for name in ("checkpoint.pt", "plain.pth"):
        with pytest.raises(ValueError, match="no TorchScript but a pickle"):
            written(data.with_name(name), data)
    # A pickle in place of the weights of a program.
    path, bad = data.with_name("m.pt2"), data.with_name("bad.pt2")
    torch.export.save(torch.export.export(network.eval(), (torch.zeros(2, 3),)), path)
    content = io.BytesIO()
    torch.save(Bomb(fuse), content)
    replaced = 0
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bad, "w") as target:
        for entry in source.namelist():
            change = entry.endswith(".pt") and "sample_inputs" in entry
            replaced += change
            target.writestr(entry, content.getvalue() if change else source.read(entry))
    assert replaced
    options = ["predict", str(bad), str(data), "--out", str(data.with_name("out.csv")), "--features", "x*"]
    assert main(options) == 2
    told = capsys.readouterr().err.strip().split("\n")
    assert "torch makes Python of its graph" in told[0]
    assert "--trust" in told[-1]
    assert not fuse.exists()


def test_a_pickled_module_is_loaded_by_those_who_trust_it(network, data):
    path, told = data.with_name("m.pt"), []
    torch.save(network, path)
    found = written(path, data, settings=ModelSettings(trust=True, say=told.append))
    np.testing.assert_allclose(found.column("scores"), direct(network), rtol=1e-5)
    assert "runs whatever code" in told[0]
    torch.save(network.state_dict(), path)
    with pytest.raises(ValueError, match="weights without the module they are of"):
        written(path, data, settings=ModelSettings(trust=True))


@pytest.fixture
def classifier(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder, words = tmp_path / "bert", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
        id2label={0: "fine", 1: "poor", 2: "so"},
        label2id={"fine": 0, "poor": 1, "so": 2},
    )
    network = transformers.BertForSequenceClassification(config).eval()
    network.save_pretrained(folder)
    return folder, network


def test_a_text_classifier_of_hugging_face_gives_what_its_network_gives(classifier, tmp_path):
    from transformers import AutoTokenizer

    folder, network = classifier
    texts = ["a good film", "a bad film", "good", "a film a film " * 20]
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))
    found = read_table(predict(folder, data, tmp_path / "out.csv", text="text").path)
    with torch.no_grad():
        tokens = AutoTokenizer.from_pretrained(folder)(
            texts, return_tensors="pt", padding=True, truncation=True, max_length=16
        )
        wanted = network(**tokens).logits.softmax(dim=1).numpy()
    scores = np.stack([found.column(f"score_{name}") for name in ("fine", "poor", "so")], axis=1)
    np.testing.assert_allclose(scores, wanted, rtol=1e-4)
    # Weights as a pickle, code in the folder, and another task.
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Model"}}))
    with pytest.raises(ValueError, match="code of its own"):
        predict(folder, data, tmp_path / "b.csv", text="text")
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ValueError, match="BertForMaskedLM is no text classifier"):
        predict(folder, data, tmp_path / "b.csv", text="text")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="its weights are a pickle"):
        predict(folder, data, tmp_path / "b.csv", text="text")
