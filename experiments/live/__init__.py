"""The view of a running training in a terminal."""
