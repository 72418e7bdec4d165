"""Fused kernels of a Q-network."""
