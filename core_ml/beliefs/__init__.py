"""Slot `belief`: what an agent remembers of the running episode."""
