"""Experiments of several runs: comparing, leaderboards, ablations."""
