"""What a package imports: one side never pulls in the other's framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each package may import of this project: arrows run one way.
ARROWS = {
    "bc_core": set(),
    "bc_tensorboard": {"bc_core"},
    "bc_keras": {"bc_core", "bc_tensorboard"},
    "bc_lightning": {"bc_core", "bc_tensorboard"},
    "bc_pytest": {"bc_core"},
}
FOREIGN = {
    "bc_core": {
        *("torch", "tensorflow", "keras", "jax", "pytorch_lightning", "torchmetrics"),
        *("pandas", "matplotlib", "mlflow", "ray", "loky", "tqdm"),
        # Of the standard library, what takes as long as all of this package's own files.
        *("scipy", "importlib.metadata", "xml"),
    },
    # Keras itself imports pandas and matplotlib where they are installed.
    "bc_keras": {"torch", "pytorch_lightning", "lightning", "torchmetrics", "bc_lightning", "mlxtend"},
    # What a notebook needs is imported where a view is shown.
    "bc_lightning": {"tensorflow", "keras", "jax", "bc_keras", "mlxtend", "anywidget", "ipywidgets", "IPython"},
    "bc_tensorboard": {
        *("torch", "tensorflow", "keras", "jax", "tensorboard", "PIL", "anywidget", "ipywidgets", "IPython"),
    },
    # pytest imports it in each run of each user.
    "bc_pytest": {"bc_core", "numpy", "scipy"},
}


@pytest.mark.parametrize("package", FOREIGN)
def test_importing_pulls_in_no_other_framework(package):
    code = f"import sys, {package}; print(*(name for name in {sorted(FOREIGN[package])!r} if name in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.split() == []


@pytest.mark.parametrize("package", ARROWS)
def test_arrows_run_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            ours = {name.split(".")[0] for name in names if name.startswith("bc_")}
            assert ours <= ARROWS[package] | {package}, path


def test_everything_listed_as_public_is_there():
    import bc_core
    import bc_lightning

    for module in (bc_core, bc_lightning, bc_lightning.functional, bc_lightning.metrics):
        assert sorted(set(module.__all__)) == sorted(module.__all__)
        for name in module.__all__:
            assert getattr(module, name).__doc__, name
