"""The plugin of TensorBoard: what it reads and serves, and what views elsewhere are made of, as pages are.

Neither torch, tensorflow nor keras is imported here.
"""
