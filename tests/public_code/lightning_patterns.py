"""All patterns of LightningModules; the table of docs/public_code.md is compared with them."""

from __future__ import annotations

from lightning_patterns_images import IMAGES
from lightning_patterns_sequences import SEQUENCES
from lightning_patterns_steps import STEPS
from public_module import Pattern

LIGHTNING_PATTERNS: list[Pattern] = [*IMAGES, *STEPS, *SEQUENCES]

# What is no module, but a way to run one: test_lightning_programs.py.
PROGRAMS = [
    ("`LightningCLI` of either package, unchanged: the callback in its YAML file", "one line", ""),
    ("DDP: two processes, a validation set that they cannot share evenly", "one line", ""),
]

LIGHTNING_TABLE = [(pattern.what, pattern.how, pattern.needs) for pattern in LIGHTNING_PATTERNS] + PROGRAMS
