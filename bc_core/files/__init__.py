"""Files that are written whole or not at all, archives read within bounds, failures that training survives."""
