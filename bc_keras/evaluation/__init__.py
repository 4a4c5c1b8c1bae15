"""Both models over a data set, as a `Comparison`."""
