"""The actor-critic learner on a GPU."""
