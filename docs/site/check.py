"""Looks at every link of the built site: `python docs/site/check.py build/site`.

MkDocs sees the links of Markdown; this sees what came out: anchors of the reference, pictures, scripts and styles. And
nothing may be loaded from another host when a page is looked at.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Where a browser fetches by itself, without a click.
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "srcset"), ("iframe", "src")}
# These name a page and load nothing.
NAMES_ONLY = {"canonical", "next", "prev", "edit"}


class Page(HTMLParser):
    """The anchors that a page has, and its links, with whether a browser follows them by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "__top"}
        self.links: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {found[name] or "" for name in ("id", "name") if name in found}
        for name in ("href", "src", "srcset"):
            if found.get(name):
                loads = (tag, name) in LOADED and found.get("rel") not in NAMES_ONLY
                self.links.append((found[name] or "", loads))


def faults(folder: Path) -> list[str]:
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in folder.rglob("*.html")}
    said = []
    for path, page in pages.items():
        name = path.relative_to(folder.resolve())
        for link, loads in page.links:
            parts = urlsplit(link)
            if parts.scheme == "data" or ((parts.scheme or parts.netloc) and not loads):
                continue
            if parts.scheme or parts.netloc:
                said.append(f"{name}: loads {link} from another host")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if path.name == "404.html" and not target.exists():
                continue  # It is served for any address, and its links are those of the root.
            if not target.exists():
                said.append(f"{name}: {link} is not there")
            elif target in pages and not loads and unquote(parts.fragment) not in pages[target].anchors:
                said.append(f"{name}: {link} has no such anchor")
    return said


def main() -> None:
    folder = Path(sys.argv[1])
    if not (folder / "index.html").is_file():
        sys.exit(f"{folder} holds no site")
    said = faults(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(
        "\n".join(said)
        or f"{len(list(folder.rglob('*.html')))} pages, {size / 1e6:.1f} MB, every link and anchor there"
    )
    sys.exit(bool(said))


if __name__ == "__main__":
    main()
