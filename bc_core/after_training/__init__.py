"""What is done with h1 and h2 after training: their weights or answers mixed, as far as a promise asks."""
