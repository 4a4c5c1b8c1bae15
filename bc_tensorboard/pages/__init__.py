"""The dashboard outside of TensorBoard: one HTML file, the notebook's view."""
