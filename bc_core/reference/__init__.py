"""Rows of h1's outputs on disk: their files, checksums and fingerprints."""
