"""The engine: a world's rules compiled over N environments, on threads of a CPU or on a GPU."""
