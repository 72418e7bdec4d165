"""Flat parameters and their optimisers."""
