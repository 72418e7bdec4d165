"""Storage of experience: transitions, sequences, episodes."""
