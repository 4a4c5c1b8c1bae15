"""Loaders and data sets, and what both models say of them."""
