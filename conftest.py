"""For pytest alone.

In import mode "importlib" a doctest collected first would import its file a second time, beside the package.
"""

import bc_core
import bc_lightning

__all__ = ["bc_core", "bc_lightning"]
