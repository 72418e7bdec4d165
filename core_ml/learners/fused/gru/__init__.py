"""Fused kernels of an actor-critic over a GRU."""
