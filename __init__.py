"""gumdrop: batched worlds with exact yardsticks, and whole agents to train, compare and trust in them.

Importing the package is cheap: no numba, no torch, not even Gymnasium. It announces the worlds to Gymnasium,
so that `gymnasium.make("gumdrop/Candy-v0")` works afterwards.
"""

from __future__ import annotations

import os

from .envs import announce

__version__ = "0.1.0"

# OpenMP's default is to spin for milliseconds after each parallel loop, on a core that somebody else needs: see
# docs/decisions/003-threads.md. It is read when the first library with OpenMP is loaded.
if not os.environ.get("OMP_WAIT_POLICY"):
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

announce()
