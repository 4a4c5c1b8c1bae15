"""Scores, the 2x2 counts that they are read from, and their intervals."""
