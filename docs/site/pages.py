"""What the site has beside the pages of docs/: README, changelog, results and the reference of names.

A hook of MkDocs. A link of a page to a file of the repository becomes one to the page that it is here.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
# Where a file of the repository is on the site.
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
PAGES["notebooks/README.md"] = "notebooks.md"
PAGES |= {path.relative_to(ROOT).as_posix(): f"results/{path.name}" for path in RESULTS}
# Pages that are made here, with links as they are on the site.
MADE = {"results.md"}
SOURCES = {page: source for source, page in PAGES.items()}
# Modules among the names that packages list: they have their names on the same page.
MODULES = {"new_error", "strict_imitation", "summary"}
REFERENCE = {
    "bc_lightning": (
        "PyTorch Lightning: train an update against h1, and measure it.",
        ["bc_lightning", "bc_lightning.functional", "bc_lightning.metrics"],
    ),
    "bc_keras": ("Keras on TensorFlow, JAX and torch: the same.", ["bc_keras"]),
    "bc_core": ("Scores, comparisons, promises, sweeps: no framework.", ["bc_core"]),
    "bc_tensorboard": ("Show a comparison.", ["bc_tensorboard", "bc_tensorboard.writing.summary"]),
    "invariance": (
        "Measures of invariance and what an update does to them.",
        ["bc_core.invariance", "bc_lightning.invariance", "bc_keras.invariance"],
    ),
}
_LINK = re.compile(r"(!?\[)((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
_SOURCE = re.compile(r'(src|srcset)="([^":]+)"')
_PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="(?P<dark>[^"]+)">\s*'
    r'<img alt="(?P<alt>[^"]*)" src="(?P<light>[^"]+)">\s*</picture>'
)


def public_names(package: str) -> list[str]:
    """The names that a package lists, in the order of its list; modules are left to pages of their own."""
    path = ROOT / package.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names: list[str] = [
                each.value for each in getattr(node.value, "elts", []) if isinstance(each, ast.Constant)
            ]
            return [name for name in names if name not in MODULES and not (path.parent / name).is_dir()]
    raise PluginError(f"{package} has no __all__ to be documented")


def reference(name: str) -> str:
    about, packages = REFERENCE[name]
    parts = [f"# {name if len(packages) == 1 or name.startswith('bc_') else name.capitalize()}\n\n{about}\n"]
    shown: dict[str, str] = {}
    for package in packages:
        parts.append(f"\n# `{package}`\n" if package != name else "")
        for each in public_names(package):
            # What a package lists as well as one of its rooms is shown once.
            if not package.startswith(f"{shown.setdefault(each, package)}."):
                parts.append(f"\n::: {package}.{each}\n")
    return "".join(parts)


def results_index() -> str:
    rows = [
        f"- [{path.read_text('utf-8').partition(chr(10))[0].lstrip('# ')}](results/{path.name})" for path in RESULTS
    ]
    about = "What the scripts of `benchmarks/` have written; each page names its script, which repeats it."
    return "# All results\n\n" + about + "\n\n" + "\n".join(rows) + "\n"


def on_files(files: Files, config: Any) -> Files:
    made = {page: (ROOT / source).read_text("utf-8") for source, page in PAGES.items()}
    made |= {f"reference/{name}.md": reference(name) for name in REFERENCE}
    listed = "".join(f"- [{name}]({name}.md): {about}\n" for name, (about, _) in REFERENCE.items())
    made["reference/index.md"] = (
        f"# Reference\n\nEvery public name, from its docstring. The examples run in the tests.\n\n{listed}"
    )
    made["results.md"] = results_index()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for path in (ROOT / "benchmarks" / "results").glob("*.png"):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, "assets/site.css", abs_src_path=str(Path(__file__).with_name("site.css"))))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    here = page.file.src_uri
    if here == "index.md":  # one heading: its table of contents would be an empty column beside the code
        page.meta["hide"] = ["toc"]
    if here.startswith("results/") or here == "changelog.md":  # the search shows what explains before what records
        page.meta["search"] = {"boost": 0.1}
    source = SOURCES.get(here, f"docs/{here}")

    def place(link: str) -> str | None:
        """Where it is on the site, from this page; the rest of the repository is not."""
        target = os.path.normpath(os.path.join(os.path.dirname(source), link))
        if target in PAGES:
            target = PAGES[target]
        elif target.startswith("docs/"):
            target = target.removeprefix("docs/")
        elif target.startswith("benchmarks/results/"):
            target = target.removeprefix("benchmarks/")
        else:
            return None
        return os.path.relpath(target, os.path.dirname(here) or ".")

    def link(match: re.Match[str]) -> str:
        found = place(match[3])
        return match[2] if found is None else f"{match[1]}{match[2]}]({found}{match[4] or ''})"

    def picture(match: re.Match[str]) -> str:
        return f'{match[1]}="{place(match[2]) or match[2]}"'

    if here in MADE or here.startswith("reference/"):
        return markdown
    markdown = _SOURCE.sub(picture, _LINK.sub(link, markdown))
    # Both pictures are there, and the palette that the reader has chosen shows one.
    return _PICTURE.sub(
        lambda match: f"![{match['alt']}]({match['light']}#only-light)\n![{match['alt']}]({match['dark']}#only-dark)",
        markdown,
    )
