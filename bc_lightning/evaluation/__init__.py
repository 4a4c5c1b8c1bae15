"""Both models over a loader, as a `Comparison`."""
