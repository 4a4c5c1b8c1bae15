"""Data sets, and what both models say of them."""
