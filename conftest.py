"""For pytest alone."""

import os

# One thread for each worker and each process it starts: they share the cores, and a sum's order stays the same.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# In import mode "importlib" a doctest collected first would import its file a second time, beside the package.
import bc_core
import bc_lightning

__all__ = ["bc_core", "bc_lightning"]
