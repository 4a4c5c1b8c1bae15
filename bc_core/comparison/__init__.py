"""Which instances an update broke: the comparison of two models, its table and its file."""
