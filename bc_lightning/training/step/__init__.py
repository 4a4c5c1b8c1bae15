"""One step: which call of h2 counts, what h1 says of it, what the step was trained on, the penalty."""
