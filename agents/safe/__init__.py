"""Policies watched by a detector, with a fallback where it fires."""
