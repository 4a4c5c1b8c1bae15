"""Slices: instances that share a value of metadata, counted, and searched for those in which an update breaks most."""
