"""Weights & Biases, in a process of its own: slow or out of reach, it holds up nobody."""
