"""The lowest versions that are tested are those that setup.cfg promises."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Tested as constraints.txt has them; constraints-lowest.txt says why.
NOT_LOWERED = {
    *("torch", "tensorboard", "keras", "tensorflow-cpu", "tensorflow", "jax", "ray", "mlflow-skinny", "alembic"),
    *("sqlalchemy", "duckdb", "pyarrow", "tomli", "anywidget", "ipykernel", "nbclient", "nbformat", "mlxtend", "rich"),
    *("onnx", "onnxruntime", "skops", "transformers"),
    *("flask", "mypy", "pytest", "pytest-xdist", "selenium", "ruff", "import-linter"),
    *("mkdocs", "mkdocs-material", "mkdocstrings"),
}


def requirements(text):
    """Lowest or exact version by name."""
    found = re.findall(r"^([a-zA-Z][\w-]*)(?:\[\w+\])?(?:>=|==)([\d.]+)", text, re.MULTILINE)
    return {name: tuple(map(int, version.split("."))) for name, version in found}


def promised():
    settings = configparser.RawConfigParser()
    settings.read(ROOT / "setup.cfg")
    texts = [settings["options"]["install_requires"], *settings["options.extras_require"].values()]
    return requirements("\n".join(texts))


def test_every_promised_version_is_tested_or_named():
    lowest, wanted = requirements((ROOT / "constraints-lowest.txt").read_text()), promised()
    assert {"numpy", "scipy", "pytorch-lightning", "torchmetrics", "jsonargparse"} <= set(wanted)
    assert {name: wanted[name] for name in lowest} == lowest
    assert set(wanted) - set(lowest) == NOT_LOWERED
