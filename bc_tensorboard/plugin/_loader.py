"""How TensorBoard finds the plugin.

TensorBoard imports this module unguarded at its start, so it must import wherever TensorBoard itself does: it takes in
one module of TensorBoard, and everything of ours only inside `load`.
"""

from __future__ import annotations

import logging
from typing import Any

from tensorboard.plugins import base_plugin

from bc_tensorboard._plugin_name import PLUGIN_NAME

# TensorBoard keeps 10 tables of a run unless it is told otherwise, a random choice and the last. Its bound is per
# plugin, so one number has to do for the counts, of which hundreds of steps are wanted at 40 bytes each, and for the
# tables, which take memory: about 10 KB for 10,000 instances, 1 MB for a million with 100,000 errors. No bound at all
# would let one run that logs such a table every few steps fill the memory; below this one every step is kept.
KEPT_STEPS = 500


class BackwardCompatibilityLoader(base_plugin.TBLoader):  # type: ignore[misc]  # TensorBoard comes without types
    """Makes the plugin; if it cannot be made, TensorBoard starts without it."""

    def fix_flags(self, flags: Any) -> None:
        """Ask TensorBoard to keep enough steps, unless the user said how many with `--samples_per_plugin`."""
        samples = getattr(flags, "samples_per_plugin", None)
        if samples is None or isinstance(samples, dict):
            flags.samples_per_plugin = {PLUGIN_NAME: KEPT_STEPS, **(samples or {})}

    def load(self, context: Any) -> Any:
        """Return the plugin, or None where it cannot be made; the reason goes to TensorBoard's log."""
        try:
            from bc_tensorboard.plugin._plugin import BackwardCompatibilityPlugin

            return BackwardCompatibilityPlugin(context)
        except Exception as error:
            logging.getLogger("tensorboard").warning(
                "The compatibility tab is off, as it could not be loaded: %s: %s", type(error).__name__, error
            )
            return None
