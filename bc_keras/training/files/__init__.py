"""A wrapped model in one file with its h1."""
