"""A training that is held to a promise."""
