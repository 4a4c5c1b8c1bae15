"""One training for each lambda_c."""
