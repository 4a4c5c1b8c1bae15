"""Comparisons as one HTML file that needs nothing else: to be mailed, archived with a model, or attached to a build."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bc_core._numbers import check_count
from bc_core.files._files import write_whole
from bc_tensorboard.pages._reports import STYLE, reports_section
from bc_tensorboard.plugin._collection import Collection, Dissonance, Settings, Texts
from bc_tensorboard.plugin._invariance import placed_updates, series_of
from bc_tensorboard.plugin._packs import packs_of
from bc_tensorboard.writing._invariance import invariance_json

STATIC = Path(__file__).parent.parent / "static"
# Comparisons that are put into words for a browser without JavaScript.
_DESCRIBED = 20
_TITLE_LENGTH = 200


def to_html(
    comparisons: Any,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    dataset: str = "test",
    dissonance: Dissonance = None,
    settings: Settings = None,
    images: Any = None,
    metadata: Texts | None = None,
    image_size: int = 96,
    max_images: int = 1000,
    full_size: int = 1024,
    max_full_bytes: int = 2_000_000,
    invariance: Any = None,
    reports: Any = None,
) -> Path:
    """Write comparisons as one HTML file, with the dashboard and all data in it.

    It opens from disk in any current browser, loads nothing from anywhere, and its link keeps what is looked at. The
    file appears whole or not at all. Without texts and images, 100,000 error instances take 0.5 to 0.9 MB with integer
    ids, and 1.4 MB with text.

    Args:
        comparisons: What `bc_core.compare` returned, an evaluation of `read_original_sweep`, or a list of these, which
            may mix runs. Comparisons of one name are one run over steps; without steps they are the points of a sweep
            if their lambda_c differs, otherwise they are numbered. Or a dictionary from the name of a run to a
            comparison or a list of them; or, in place of these, to a dictionary from the name of a data set to them.
            None where there is only `invariance` or `reports`.
        path: The file, ending in `.html`. Missing folders are made.
        title: Title of the page. Default: what the comparisons are called.
        dataset: Name of the data set, where the comparisons do not say.
        dissonance: How h2 was trained, such as "new error"; or a mapping from the name of a run to that.
        settings: What else h2 was trained with, such as ``{"start": "warm", "seed": 0}``, to colour the sweep by; or a
            mapping from the name of a run to that.
        images: Images of the instances, as in `bc_tensorboard.summary.comparison`; or a mapping from the name of a data
            set to such. They are asked for only for instances that h1 or h2 gets wrong.
        metadata: Text of an instance, a mapping or a function from id to text, in place of those in the comparisons.
        image_size: Longer side of the thumbnails, in pixels.
        max_images: How many images the file holds at most; negative flips come first, and an instance that several runs
            show counts once. A photograph takes about 4 KB. The table says of which instances they were left out.
        full_size: Longest side of the picture that is shown enlarged, in pixels, where the image is larger than the
            thumbnail; 0 keeps thumbnails alone.
        max_full_bytes: How many bytes those pictures take at most; negative flips come first. An instance whose picture
            was left out shows its thumbnail and says so.
        invariance: What `compare_invariance` returned, to be shown below the comparison of its run; or a mapping from
            the name of a run to it, or to a mapping from the name of a data set, or a step, to it.
        reports: What `assert_compatible` returned, or a mapping from titles to such, to be shown above: checks, worst
            classes and slices.

    Returns:
        The path written.

    Raises:
        TypeError: If something is no comparison.
        ValueError: If the path has another ending, settings are none, there is no comparison, or two are of one run,
            data set and step.
        ImportError: If there are images and Pillow is not installed.
        OSError: If the file cannot be written; an older file of that name is then left as it was.

    Example:
        >>> import tempfile
        >>> from bc_core import compare
        >>> from bc_tensorboard import to_html
        >>> update = compare([0, 1, 1], [0, 1, 0], [0, 0, 1], name="update")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     to_html({"update": {"test": update}}, f"{folder}/update.html").name
        'update.html'
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: expected a name that ends in .html, so that a browser opens it")
    counts = {"max_images": max_images, "full_size": full_size, "max_full_bytes": max_full_bytes}
    for name, number in counts.items():
        check_count(number, name, 0)
    collection = Collection(image_size)
    if comparisons is not None:
        collection.add(
            comparisons, dataset=dataset, dissonance=dissonance, settings=settings, images=images, metadata=metadata
        )
    updates = {} if invariance is None else placed_updates(invariance, collection.keys, dataset, collection.runs)
    if not collection.keys and not updates and reports is None:
        raise ValueError("comparisons: expected at least one, got none")
    data = _data(collection, max_images, full_size, max_full_bytes)
    if updates:
        data["index"]["invariance"] = series_of(dict.fromkeys(updates))
        data["invariance"] = {
            f"{run}\0{name}\0{step}": json.loads(invariance_json(update))
            for (run, name, step), update in updates.items()
        }
    described = "\n\n".join(
        [_description(collection)] * bool(collection.keys)
        + [f"Invariance of {run} on {name}, step {step}\n{update}" for (run, name, step), update in updates.items()]
    )
    head = "" if reports is None else reports_section(reports)
    page = _page(_title(collection, updates, title), described, data, (STATIC / "page.js").read_text("utf-8"), head)
    write_whole(path, page.encode("utf-8", "replace"))
    return path


def _data(collection: Collection, max_images: int, full_size: int, max_full_bytes: int) -> dict[str, Any]:
    packs, failures = packs_of(collection, max_images, collection.image_size, full_size, max_full_bytes)
    left_out = sum(len(pack.left_out) for pack in packs)
    if left_out:
        warnings.warn(
            f"{left_out} images are left out, as the file holds {max_images}; raise max_images to keep more",
            stacklevel=3,
        )
    if failures:
        warnings.warn(
            f"{len(failures)} images could not be made and are left out; first {failures[0]}",
            stacklevel=3,
        )
    media = {f"{series.run}\0{series.dataset}": at for at, pack in enumerate(packs) for series in pack.series}
    written = []
    for pack in packs:
        known, texts = pack.encode()
        written.append(
            {
                "blob": _base64(known),
                "images": {str(instance): _data_url(image) for instance, image in pack.images.items()},
                "full": {str(instance): _data_url(image) for instance, image in pack.full.items()},
                "texts": [_base64(part) for part in texts],
            }
        )
    tables = {
        f"{run}\0{dataset}\0{step}": _base64(collection.table(run, dataset, step))
        for run, dataset, step in collection.keys
    }
    return {"index": collection.index(), "tables": tables, "media": media, "packs": written}


def _page(title: str, description: str, data: dict[str, Any], script: str, head: str) -> str:
    # A parser takes these for the end of the script, or for the beginning of a comment in it, even within a string.
    script = script.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    # "<" would let a name end the element, or begin a comment in it.
    content = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    description = html.escape(description)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>body {{ margin: 0 }}{STYLE * bool(head)}</style>
</head>
<body>
{head}<noscript><p>The dashboard in this file needs JavaScript. In words:</p><pre>{description}</pre></noscript>
<div id="bc-root"></div>
<script type="application/json" id="bc-data">{content}</script>
<script>{script}</script>
</body>
</html>
"""


def _title(collection: Collection, updates: Iterable[tuple[str, str, int]], title: str | None) -> str:
    if title is None:
        runs = collection.runs or list(dict.fromkeys(run for run, _, _ in updates))
        title = f"Compatibility of {runs[0] if len(runs) == 1 else f'{len(runs)} updates'}"
    title = str(title)
    return title if len(title) <= _TITLE_LENGTH else f"{title[: _TITLE_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"


def _description(collection: Collection) -> str:
    keys = collection.keys
    # The last step of a series is what became of it.
    last = list({(run, dataset): (run, dataset, step) for run, dataset, step in keys}.values())
    parts = [
        f"{run} on {dataset}, step {step}\n{collection.comparison(run, dataset, step).describe()}"
        for run, dataset, step in last[:_DESCRIBED]
    ]
    if len(last) < len(keys) or len(last) > _DESCRIBED:
        parts.append(f"{len(keys)} comparisons in all.")
    return "\n\n".join(parts)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _data_url(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{_base64(image)}"
