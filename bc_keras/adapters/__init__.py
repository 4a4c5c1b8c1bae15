"""Models of Keras and TensorFlow, opened for `bc-compare predict`."""
