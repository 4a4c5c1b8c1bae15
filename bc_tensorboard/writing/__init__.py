"""Summaries that both sides write: comparisons, images, invariances, sweeps."""
