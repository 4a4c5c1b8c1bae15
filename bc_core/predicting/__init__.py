"""Any model's predictions of a file of data, written to a file of predictions: `bc-compare predict`."""
