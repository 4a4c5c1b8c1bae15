"""Every base and dissonance once, over a dozen array operations; names, options and documentation; lambda_c."""
