"""One step: what is refused before it, the penalty, inputs without labels."""
