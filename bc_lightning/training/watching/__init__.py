"""What is seen of tensors while somebody's step runs."""
