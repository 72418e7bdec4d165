"""Checks that every world must pass."""
