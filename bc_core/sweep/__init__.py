"""One training for each lambda_c: points, engines, folder, results, choice."""
