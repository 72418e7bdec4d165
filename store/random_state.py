"""Random generators as arrays, for checkpoints."""

from __future__ import annotations

import numpy as np

from .arrays import Array


def generator_state(rng: np.random.Generator) -> Array:
    """The state of a PCG64 generator as an array for checkpoints, uint64 (6,)."""
    state = rng.bit_generator.state
    halves = [(state["state"][k] >> shift) & (2**64 - 1) for k in ("state", "inc") for shift in (64, 0)]
    return np.array([*halves, state["has_uint32"], state["uinteger"]], np.uint64)


def set_generator_state(rng: np.random.Generator, state: Array) -> None:
    """Put back what `generator_state` gave."""
    a, b, c, d, has, left = (int(v) for v in state)
    rng.bit_generator.state = {
        "bit_generator": "PCG64", "state": {"state": a << 64 | b, "inc": c << 64 | d}, "has_uint32": has, "uinteger": left
    }  # fmt: skip
