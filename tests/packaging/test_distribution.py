"""What is installed: the version from one place, static files and types in the wheel, and extras that are named."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bc_core

ROOT = Path(__file__).parents[2]
PACKAGES = ("bc_core", "bc_keras", "bc_lightning", "bc_pytest", "bc_tensorboard")


def settings():
    found = configparser.RawConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def test_there_is_one_version():
    assert settings()["metadata"]["version"] == "attr: bc_core._version.__version__"
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        assert path.name == "_version.py" or "__version__ = " not in path.read_text("utf-8")
    assert (
        re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)[1]
        == bc_core.__version__
    )
    assert (ROOT / "CHANGELOG.md").read_text("utf-8").startswith(f"# Changelog\n\n## {bc_core.__version__}")


@pytest.mark.slow
def test_the_wheel_holds_types_and_static_files(tmp_path):
    # Of a copy, as a build writes into the folder that it is given.
    command = ["git", "ls-files", "-z", "-co", "--exclude-standard", "bc_*", "*.cfg", "*.toml", "*.md", "LICENSE"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "source" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    done = subprocess.run([*command, tmp_path / "source"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"backward_compat_ml-{bc_core.__version__}-py3-none-any.whl"
    held = set(zipfile.ZipFile(wheel).namelist())
    static = {f"bc_tensorboard/static/{path.name}" for path in (ROOT / "bc_tensorboard" / "static").iterdir()}
    assert static | {f"{package}/py.typed" for package in PACKAGES} <= held
    # Nothing that would land beside the packages of others: tests, docs, scripts.
    assert {name.split("/")[0] for name in held} == {*PACKAGES, wheel.name.replace("-py3-none-any.whl", ".dist-info")}


@pytest.mark.parametrize(
    ("package", "missing", "told"),
    [
        ("bc_lightning", ["torch"], "torch, which is not installed"),
        ("bc_lightning", ["torch", "torchmetrics"], "torch and torchmetrics, which are not installed"),
        ("bc_keras", ["keras"], "keras, which is not installed"),
    ],
)
def test_an_import_without_its_extra_names_it(package, missing, told):
    hidden = (
        "import sys, importlib.abc, importlib.util\n"
        f"missing = {missing}\n"
        "import importlib.machinery as machinery\n"
        "find = machinery.PathFinder.find_spec\n"
        "hide = lambda name, *rest: None if name.split('.')[0] in missing else find(name, *rest)\n"
        "machinery.PathFinder.find_spec = staticmethod(hide)\n"
        f"import {package}"
    )
    done = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    extra = package.removeprefix("bc_")
    assert f'{package} needs {told}: pip install "backward-compat-ml[{extra}]".' in done.stderr.splitlines()[-1]


def test_every_extra_that_is_named_anywhere_is_one():
    extras = set(settings()["options.extras_require"])
    texts = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    texts += [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for path in texts:
        for named in re.findall(r"(?:backward-compat-ml|pip install [\"']?\.)\[([\w,-]+)\]", path.read_text("utf-8")):
            assert set(named.split(",")) <= extras, path
