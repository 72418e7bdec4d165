"""gumdrop: batched worlds with exact yardsticks, and whole agents to train, compare and trust in them.

Importing the package is cheap: no numba, no torch, not even Gymnasium. It announces the worlds to Gymnasium,
so that `gymnasium.make("gumdrop/Candy-v0")` works afterwards.
"""

from __future__ import annotations

from .envs import announce

__version__ = "0.1.0"

announce()
