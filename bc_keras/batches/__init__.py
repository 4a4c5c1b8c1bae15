"""What a batch and an answer hold: inputs, targets, scores, ids and rows that travel with it."""
