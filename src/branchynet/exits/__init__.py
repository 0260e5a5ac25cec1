"""Exits as pure tensors: how unsure one is, what thresholds give, which to choose."""
