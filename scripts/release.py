"""Build the wheel and the source archive of a commit, so that anybody who does it again gets the same bytes.

    python scripts/release.py --out dist        # of HEAD; needs `build` and `twine`

What git has of the commit is built, never what lies in the working tree; times in the archives are the commit's; it is
built twice, and both must agree. The wheel is then installed into an environment of its own and asked for its version.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Looked for in the wheel: without them the dashboard is blank, or type checkers take our names for Any.
EXPECTED = [f"bc_{name}/py.typed" for name in ("core", "keras", "lightning", "tensorboard")]
EXPECTED += [f"bc_tensorboard/static/{name}.js" for name in ("index", "page", "widget")]


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout


def same_archive(path: Path, epoch: int) -> None:
    """Write a source archive anew with sorted names, one time and no owner: setuptools takes those of the machine."""
    with tarfile.open(path) as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name)
        contents = [archive.extractfile(member) if member.isfile() else None for member in members]
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as out:
            for member, content in zip(members, contents, strict=True):
                member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
                member.mode = 0o755 if member.isdir() else 0o644
                member.pax_headers = {}
                out.addfile(member, content)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", mtime=epoch, fileobj=raw) as out:
        out.write(packed.getvalue())


def build(commit: str, epoch: int, folder: Path) -> dict[str, Path]:
    """The two files of a commit by name, built from what git has of it."""
    source, out = folder / "source", folder / "out"
    source.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as archive:
        archive.extractall(source, filter="data")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The build failed:\n{done.stdout}\n{done.stderr}")
    for path in out.glob("*.tar.gz"):
        same_archive(path, epoch)
    return {path.name: path for path in sorted(out.iterdir())}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tried(wheel: Path, folder: Path) -> str:
    """The version that the wheel says, from an environment that holds it and what it needs."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel], check=True)
    code = (
        "import bc_core, bc_tensorboard, importlib.metadata as about, importlib.resources as files;"
        f"root = files.files('bc_core').joinpath('..');"
        f"missing = [name for name in {EXPECTED} if not root.joinpath(name).is_file()];"
        "assert not missing, missing;"
        "assert about.version('backward-compat-ml') == bc_core.__version__;"
        "print(bc_core.__version__)"
    )
    return subprocess.run([python, "-c", code], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    if options.commit == "HEAD" and git("status", "--porcelain", "--untracked-files=no"):
        print("The working tree has changes, which are not in HEAD and so not in what is built.", file=sys.stderr)
    epoch = int(git("log", "-1", "--format=%ct", options.commit))
    with tempfile.TemporaryDirectory() as temporary:
        first, second = (build(options.commit, epoch, Path(temporary, name)) for name in ("first", "second"))
        different = [name for name in {*first, *second} if sha256(first[name]) != sha256(second[name])]
        if different:
            raise SystemExit(f"Two builds of one commit differ: {', '.join(sorted(different))}.")
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, first.values())], check=True)
        wheel = next(path for name, path in first.items() if name.endswith(".whl"))
        version = tried(wheel, Path(temporary, "environment"))
        options.out.mkdir(parents=True, exist_ok=True)
        for path in first.values():
            shutil.copy(path, options.out)
    sums = "".join(f"{sha256(options.out / name)}  {name}\n" for name in first)
    (options.out / "SHA256SUMS").write_text(sums)
    commit = git("rev-parse", options.commit).decode().strip()
    print(f"Version {version} of {commit}, the same bytes twice:\n{sums}", end="")


if __name__ == "__main__":
    main()
