"""The plugin of TensorBoard: what it reads and serves. Neither torch, tensorflow nor keras is imported here."""
