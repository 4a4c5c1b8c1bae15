"""Compatibility losses: a base and a dissonance."""
