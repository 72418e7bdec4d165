"""Mazes: `world.py` holds the rules, `config.py` the options, `generators.py` the boards, `exact.py` the models."""

from .world import Maze

__all__ = ["Maze"]
