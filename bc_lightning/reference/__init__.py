"""The frozen h1: a model that answers, or its stored outputs."""
