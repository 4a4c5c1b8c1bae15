"""Dissonances and the schedules of lambda_c."""
