"""Learners: they hold a network's parameters and improve them from a rollout. torch is the reference; fused and cuda
are tested against it."""
