"""Slot `encoder`: observations as short codes."""
