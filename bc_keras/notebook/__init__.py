"""Widgets of BackwardCompatibilityML, on what this package measures."""
