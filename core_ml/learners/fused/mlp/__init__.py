"""Fused kernels of an actor-critic of full layers."""
