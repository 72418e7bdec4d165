"""Measuring speed, ours and in turns with other libraries'."""
