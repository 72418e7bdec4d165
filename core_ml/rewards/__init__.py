"""Slot `bonus`: rewards that are added to the world's own."""
