"""Candy: one to eight collectors on a board of candies, with too little time to fetch them all."""

from .world import Candy

__all__ = ["Candy"]
