"""Models of PyTorch, opened for `bc-compare predict`."""
