"""Random numbers for rules: a counter-based generator of pure integer arithmetic.

Every environment of a batch owns one row of a ``uint64`` array of shape (N, 2): its key and the number of draws so far.
Draw number t of an environment is ``mix(key + t * GOLDEN)``, which is SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable
pseudorandom number generators") started at its key. Nothing depends on neighbours, threads or devices, so
an environment plays the same game alone, in a batch of 65,536, on one thread or sixteen.

The functions are plain Python in numba's subset: `compile.py` compiles them into the kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..native import splitmix64
from ..store.arrays import Array
from .world import helper

ONE, S11, S12, S32 = (np.uint64(v) for v in (1, 11, 12, 32))
TO_UNIT = 2.0**-53
GOLDEN, MIX_2, mix = splitmix64.GOLDEN, splitmix64.MIX_2, helper(splitmix64.mix)


@helper
def bits(rng: Array, i: int) -> Any:
    """The next 64 random bits of environment `i`, as uint64."""
    count = rng[i, 1] + ONE
    rng[i, 1] = count
    return mix(rng[i, 0] + count * GOLDEN)


@helper
def below(rng: Array, i: int, n: int) -> int:
    """A whole number in 0..n-1 (n < 2^32), always one draw (Lemire 2019, multiply-shift; bias below n / 2^32)."""
    return np.int64(((bits(rng, i) >> S32) * np.uint64(n)) >> S32)  # type: ignore[return-value]


@helper
def unit(rng: Array, i: int) -> float:
    """A float64 in [0, 1), a multiple of 2^-53."""
    return np.float64(bits(rng, i) >> S11) * TO_UNIT


@helper
def chance(rng: Array, i: int, p: float) -> bool:
    """True with probability `p`, always one draw."""
    return unit(rng, i) < p


@helper
def natural_log(x: float) -> float:
    """ln(x) for normal positive x within 2 units in the last place, from +, -, *, / alone.

    The C library's log differs between devices; this one is the same bits wherever IEEE 754 holds.
    ln(m * 2^e) = e ln 2 + 2 artanh((m - 1) / (m + 1)), with m in [sqrt(1/2), sqrt(2)).
    """
    exponent = 0
    while x < 0.7071067811865476:
        x *= 2.0
        exponent -= 1
    while x >= 1.4142135623730951:
        x *= 0.5
        exponent += 1
    z = (x - 1.0) / (x + 1.0)
    square = z * z
    series = 0.0
    for k in range(12, -1, -1):  # |z| < 0.1716, so z^26 / 27 is below 1e-21
        series = series * square + 1.0 / (2.0 * k + 1.0)
    return exponent * 0.6931471805599453 + 2.0 * z * series


@helper
def normal(rng: Array, i: int) -> float:
    """A standard normal float64, always one draw: the inverse distribution function (Wichura 1988, AS 241, PPND16)."""
    p = (np.float64(bits(rng, i) >> S12) + 0.5) * (2.0 * TO_UNIT)  # 52 bits and a half: exact, never 0 or 1
    q = p - 0.5
    if -0.425 <= q <= 0.425:
        r = 0.180625 - q * q
        top = 2509.0809287301226727 * r + 33430.575583588128105
        top = (top * r + 67265.770927008700853) * r + 45921.953931549871457
        top = (top * r + 13731.693765509461125) * r + 1971.5909503065514427
        top = (top * r + 133.14166789178437745) * r + 3.387132872796366608
        low = 5226.495278852545925 * r + 28729.085735721942674
        low = (low * r + 39307.89580009271061) * r + 21213.794301586595867
        low = (low * r + 5394.1960214247511077) * r + 687.1870074920579083
        low = (low * r + 42.313330701600911252) * r + 1.0
        return q * top / low
    r = p if q < 0.0 else 1.0 - p
    r = np.sqrt(-natural_log(r))
    if r <= 5.0:
        r -= 1.6
        top = 7.7454501427834140764e-4 * r + 2.27238449892691845833e-2
        top = (top * r + 2.41780725177450611770e-1) * r + 1.27045825245236838258
        top = (top * r + 3.64784832476320460504) * r + 5.7694972214606914055
        top = (top * r + 4.6303378461565452959) * r + 1.42343711074968357734
        low = 1.05075007164441684324e-9 * r + 5.475938084995344946e-4
        low = (low * r + 1.51986665636164571966e-2) * r + 1.48103976427480074590e-1
        low = (low * r + 6.8976733498510000455e-1) * r + 1.67638483018380384940
        low = (low * r + 2.05319162663775882187) * r + 1.0
    else:
        r -= 5.0
        top = 2.01033439929228813265e-7 * r + 2.71155556874348757815e-5
        top = (top * r + 1.24266094738807843860e-3) * r + 2.65321895265761230930e-2
        top = (top * r + 2.96560571828504891230e-1) * r + 1.78482653991729133580
        top = (top * r + 5.46378491116411436990) * r + 6.65790464350110377720
        low = 2.04426310338993978564e-15 * r + 1.42151175831644588870e-7
        low = (low * r + 1.84631831751005468180e-5) * r + 7.86869131145613259100e-4
        low = (low * r + 1.48753612908506148525e-2) * r + 1.36929880922735805310e-1
        low = (low * r + 5.99832206555887937690e-1) * r + 1.0
    return -top / low if q < 0.0 else top / low


def copy_seeds(seed: int, n: int) -> Array:
    """Seeds for `n` environments from one whole number: uint64 (n,). Environment i gets the same seed whatever n is."""
    with np.errstate(over="ignore"):
        start = mix(np.uint64(seed % 2**64) ^ MIX_2)
        seeds: Array = mix(start + np.arange(1, n + 1, dtype=np.uint64) * GOLDEN)
    return seeds


def fresh_streams(seeds: Array) -> Array:
    """Generator rows, uint64 (N, 2), for per-environment seeds: hashed key, no draws yet."""
    rng = np.zeros((len(seeds), 2), np.uint64)
    with np.errstate(over="ignore"):
        rng[:, 0] = mix(np.asarray(seeds, np.uint64) + GOLDEN)
    return rng
