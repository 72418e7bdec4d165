"""SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"): the one definition.

Number t of the stream that begins at `key` is mix(key + t GOLDEN), t from 1 on. Plain Python on uint64 numbers or arrays in
numba's subset: worlds, the fused kernels and Python itself compile or call this very function.
"""

from __future__ import annotations

from typing import Any

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, the increment
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # Stafford's variant 13
S27, S30, S31 = (np.uint64(v) for v in (27, 30, 31))


def mix(x: Any) -> Any:
    """The finaliser: a bijection of uint64 whose output bits look independent."""
    x = (x ^ (x >> S30)) * MIX_1
    x = (x ^ (x >> S27)) * MIX_2
    return x ^ (x >> S31)
