"""All patterns of LightningModules; the table of docs/public_code.md is compared with them."""

from __future__ import annotations

from lightning_patterns_calls import CALLS
from lightning_patterns_images import IMAGES
from lightning_patterns_records import RECORDS
from lightning_patterns_segmentation import SEGMENTATION
from lightning_patterns_steps import STEPS
from lightning_patterns_text import TEXT
from public_module import Pattern

LIGHTNING_PATTERNS: list[Pattern] = [*IMAGES, *SEGMENTATION, *STEPS, *CALLS, *TEXT, *RECORDS]

# What is no module, but a way to run one: test_lightning_programs.py.
PROGRAMS = [
    ("`LightningCLI` of either package, unchanged: the callback in its YAML file", "one line", ""),
    ("DDP: two processes, a validation set that they cannot share evenly", "one line", ""),
]

LIGHTNING_TABLE = [(pattern.what, pattern.how, pattern.needs) for pattern in LIGHTNING_PATTERNS] + PROGRAMS
