"""exp, log and tanh of vectors, from multiply-adds alone: no call into the C library inside a loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from .vectors import exponent, inline, madd, mantissa, power_of_two, root, where_less


@inline
def exp(x: Any) -> Any:
    """e^x within 2 units in the last place; infinity from 88.37 on, 1e-38 below -87.33 (Moshier's Cephes, expf)."""
    inside = where_less(x, -87.33, -87.33, where_less(88.37, x, 88.37, x))
    n = madd(inside, 1.44269504088896341, 12582912.0) - 12582912.0  # 1.5 * 2^23: adding it rounds to a whole number
    r = madd(n, 2.12194440e-4, madd(n, -0.693359375, inside))
    p = madd(r, 1.9875691500e-4, 1.3981999507e-3)
    p = madd(p, r, 8.3334519073e-3)
    p = madd(p, r, 4.1665795894e-2)
    p = madd(p, r, 1.6666665459e-1)
    p = madd(p, r, 5.0000001201e-1)
    return where_less(88.37, x, np.inf, (madd(p, r * r, r) + 1.0) * power_of_two(n))


@inline
def log(x: Any) -> Any:
    """ln x of normal positive x within 2 units in the last place (Cephes, logf)."""
    m, e = mantissa(x), exponent(x)
    e = where_less(m, 0.707106781186547524, e - 1.0, e)
    m = where_less(m, 0.707106781186547524, m + m, m) - 1.0
    square = m * m
    p = madd(m, 7.0376836292e-2, -1.1514610310e-1)
    p = madd(p, m, 1.1676998740e-1)
    p = madd(p, m, -1.2420140846e-1)
    p = madd(p, m, 1.4249322787e-1)
    p = madd(p, m, -1.6668057665e-1)
    p = madd(p, m, 2.0000714765e-1)
    p = madd(p, m, -2.4999993993e-1)
    p = madd(p, m, 3.3333331174e-1)
    y = madd(e, -2.12194440e-4, p * m * square)
    return madd(e, 0.693359375, m + madd(square, -0.5, y))


@inline
def tanh(x: Any) -> Any:
    """tanh x, absolute error below 3e-7: a rational function of degree 13 over 6 (Eigen's ptanh)."""
    x = where_less(7.90531110763549805, x, 7.90531110763549805, x)  # one instruction each; what is not a number stays so
    x = where_less(x, -7.90531110763549805, -7.90531110763549805, x)
    z = x * x
    p = madd(z, -2.76076847742355e-16, 2.00018790482477e-13)
    p = madd(p, z, -8.60467152213735e-11)
    p = madd(p, z, 5.12229709037114e-08)
    p = madd(p, z, 1.48572235717979e-05)
    p = madd(p, z, 6.37261928875436e-04)
    p = madd(p, z, 4.89352455891786e-03)
    q = madd(z, 1.19825839466702e-06, 1.18534705686654e-04)
    q = madd(q, z, 2.26843463243900e-03)
    q = madd(q, z, 4.89352518554385e-03)
    return x * p / q


@inline
def normal(x: Any) -> Any:
    """Where a standard normal number lies whose distribution function is (x + 1) / 2, for -1 < x < 1: sqrt(2) erfinv(x).

    Giles 2012, "Approximating the erfinv function", single precision.
    """
    w = 0.0 - log((1.0 - x) * (1.0 + x))
    a = w - 2.5
    p = madd(a, 2.81022636e-08, 3.43273939e-07)
    p = madd(p, a, -3.5233877e-06)
    p = madd(p, a, -4.39150654e-06)
    p = madd(p, a, 0.00021858087)
    p = madd(p, a, -0.00125372503)
    p = madd(p, a, -0.00417768164)
    p = madd(p, a, 0.246640727)
    p = madd(p, a, 1.50140941)
    b = root(where_less(w, 5.0, 5.0, w)) - 3.0
    q = madd(b, -0.000200214257, 0.000100950558)
    q = madd(q, b, 0.00134934322)
    q = madd(q, b, -0.00367342844)
    q = madd(q, b, 0.00573950773)
    q = madd(q, b, -0.0076224613)
    q = madd(q, b, 0.00943887047)
    q = madd(q, b, 1.00167406)
    q = madd(q, b, 2.83297682)
    return where_less(w, 5.0, p, q) * x * 1.4142135623730951
