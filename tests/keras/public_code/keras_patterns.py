"""All patterns of Keras programs; the table of docs/public_code.md is compared with them."""

from __future__ import annotations

import keras
from keras_patterns_models import MODELS
from keras_patterns_training import TRAINING
from public_program import Program

KERAS_PATTERNS: list[type[Program]] = [*MODELS, *TRAINING]

# Those that run on this backend.
HERE = [pattern for pattern in KERAS_PATTERNS if keras.backend.backend() in pattern.backends]

KERAS_TABLE = [(pattern.what, pattern.how, pattern.needs) for pattern in KERAS_PATTERNS]
