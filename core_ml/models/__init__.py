"""Slot `model`: world models, and what learns in their imagination."""
