"""Sweeps over lambda_c without any framework: the points, their folder, who trains them, and the choice among them."""
