"""The sweep folders and the widgets of BackwardCompatibilityML."""
