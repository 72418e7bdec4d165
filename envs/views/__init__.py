"""Worlds as other libraries' interfaces have them: Gymnasium, its vector form, PettingZoo."""
