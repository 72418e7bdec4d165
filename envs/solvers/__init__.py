"""Exact solvers: finite MDPs, games, Bayes-optimal bandits, search; and the yardstick that uses them."""
