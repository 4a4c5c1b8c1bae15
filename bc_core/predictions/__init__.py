"""Files of predictions: tables of several formats, and two models' rows joined by the ids of their instances."""
