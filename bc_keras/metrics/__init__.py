"""Compatibility scores as Keras metrics."""
