"""All patterns of LightningModules; the table of docs/public_code.md is read from here."""

from __future__ import annotations

from lightning_patterns_images import IMAGES
from lightning_patterns_sequences import SEQUENCES
from lightning_patterns_steps import STEPS
from public_module import Pattern

LIGHTNING_PATTERNS: list[Pattern] = [*IMAGES, *STEPS, *SEQUENCES]


def table() -> list[str]:
    """The rows of the docs, in Markdown."""
    return [f"| {pattern.what} | {pattern.how} | {pattern.needs} |" for pattern in LIGHTNING_PATTERNS]


if __name__ == "__main__":
    print("\n".join(table()))
