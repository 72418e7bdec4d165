"""Random bits against published vectors, and their distributions against scipy."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gumdrop.envs import rng as r
from gumdrop.native import splitmix64

DRAWS = 20_000


@pytest.fixture(autouse=True)
def _guard() -> Iterator[None]:
    """Let unsigned products wrap around (that is the generator), and turn an endless loop into a failure."""

    def give_up(*_: Any) -> None:
        raise TimeoutError("a draw does not end")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(30)
    with np.errstate(over="ignore"):
        yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def stream(seed: int = 0) -> r.Array:
    return r.fresh_streams(np.array([seed], np.uint64))


def inverse_mix(y: int) -> int:
    """The input that `mix` turns into `y`, by undoing its steps."""

    def unshift(v: int, s: int) -> int:
        out = v
        for _ in range(64 // s + 1):
            out = v ^ (out >> s)
        return out

    y = unshift(y, 31) * pow(int(splitmix64.MIX_2), -1, 2**64) % 2**64
    return unshift(unshift(y, 27) * pow(int(splitmix64.MIX_1), -1, 2**64) % 2**64, 30)


def test_splitmix64_vectors() -> None:
    rows = np.zeros((2, 2), np.uint64)  # key 0, no draws: SplitMix64 seeded with 0
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(r.bits(rows, 1)) for _ in range(3)] == known
    assert rows.tolist() == [[0, 0], [0, 3]]


def test_mix_is_a_bijection() -> None:
    for x in [0, 1, 2**63, 2**64 - 1, *np.random.default_rng(0).integers(2**63, size=50).tolist()]:
        assert inverse_mix(int(r.mix(np.uint64(x)))) == x


def test_streams_depend_on_their_own_seed_only() -> None:
    seeds = r.copy_seeds(7, 1_000)
    assert (r.copy_seeds(7, 10) == seeds[:10]).all() and len(set(seeds.tolist())) == 1_000
    assert (r.fresh_streams(seeds)[3:5] == r.fresh_streams(seeds[3:5])).all()
    assert not set(seeds.tolist()) & set(r.copy_seeds(8, 1_000).tolist())


@pytest.mark.parametrize("n", [2, 3, 5, 36, 1_000])
def test_below_is_uniform(n: int) -> None:
    rows = stream(n)
    draws = np.array([r.below(rows, 0, n) for _ in range(DRAWS)])
    assert draws.min() >= 0 and draws.max() < n and rows[0, 1] == DRAWS
    assert stats.chisquare(np.bincount(draws, minlength=n)).pvalue > 0.001


def test_below_keeps_to_its_range_at_the_edges() -> None:
    for y in (0, 2**64 - 1):  # the smallest and the largest 64 random bits
        rows = np.array([[(inverse_mix(y) - int(r.GOLDEN)) % 2**64, 0]], np.uint64)
        assert r.below(rows.copy(), 0, 7) == (6 if y else 0)
        assert r.unit(rows.copy(), 0) == (1 - 2.0**-53 if y else 0.0)
        signal.alarm(2)  # a uniform number rounded to 1 has no logarithm of its complement
        assert r.normal(rows.copy(), 0) == pytest.approx(-stats.norm.ppf(2.0**-53) * (1 if y else -1), rel=1e-12)


def test_unit_is_uniform_and_successive_draws_are_independent() -> None:
    rows = stream(1)
    draws = np.array([r.unit(rows, 0) for _ in range(DRAWS)])
    assert draws.min() >= 0 and draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > 0.001
    cells = np.floor(draws.reshape(-1, 2) * 10).astype(int)
    assert stats.chisquare(np.bincount(cells[:, 0] * 10 + cells[:, 1], minlength=100)).pvalue > 0.001


def test_neighbouring_copies_are_independent() -> None:
    rows = r.fresh_streams(np.arange(DRAWS, dtype=np.uint64))  # seeds s, s + 1, ... as Gymnasium's vector views use them
    first = np.array([r.unit(rows, i) for i in range(DRAWS)])
    assert stats.kstest(first, "uniform").pvalue > 0.001
    cells = np.floor(first.reshape(-1, 2) * 10).astype(int)
    assert stats.chisquare(np.bincount(cells[:, 0] * 10 + cells[:, 1], minlength=100)).pvalue > 0.001


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_chance(p: float) -> None:
    rows = stream(2)
    hits = sum(r.chance(rows, 0, p) for _ in range(DRAWS))
    assert stats.binomtest(hits, DRAWS, p).pvalue > 0.001 and rows[0, 1] == DRAWS


def test_normal_is_the_inverse_distribution_of_its_bits() -> None:
    rows, again = stream(3), stream(3)
    draws = np.array([r.normal(rows, 0) for _ in range(DRAWS)])
    uniform = np.array([(float(r.bits(again, 0) >> np.uint64(12)) + 0.5) * 2.0**-52 for _ in range(DRAWS)])
    np.testing.assert_allclose(draws, stats.norm.ppf(uniform), rtol=1e-13, atol=1e-14)
    assert stats.kstest(draws, "norm").pvalue > 0.001 and rows[0, 1] == DRAWS


@pytest.mark.parametrize("p", [2.0**-53, 1e-12, 1e-6, 0.0749, 0.0751, 0.3, 0.5 - 2.0**-52])
def test_normal_in_every_branch_and_symmetric(p: float) -> None:
    signal.alarm(2)
    k = int(p * 2**52)  # the 52 bits that mean (k + 0.5) / 2^52, exact in a float64
    want = stats.norm.ppf((k + 0.5) * 2.0**-52)
    for bits, sign in ((k << 12, 1), ((2**52 - 1 - k) << 12, -1)):
        rows = np.array([[(inverse_mix(bits) - int(r.GOLDEN)) % 2**64, 0]], np.uint64)
        assert sign * r.normal(rows, 0) == pytest.approx(want, rel=1e-13, abs=1e-15)


def test_natural_log_within_two_units_in_the_last_place() -> None:
    generator = np.random.default_rng(0)
    for x in [*np.exp(generator.uniform(-600, 600, 1_000)), *generator.uniform(0.5, 2.0, 1_000), 1.0, math.sqrt(0.5)]:
        exact = math.log(x)
        assert abs(r.natural_log(float(x)) - exact) <= 2 * math.ulp(exact) + 1e-300


def test_compiled_helpers_give_the_same_bits() -> None:
    import numba

    from gumdrop.envs.engine import compile

    below, unit, normal = (compile._compiled(helper, ()) for helper in (r.below, r.unit, r.normal))

    @numba.njit
    def draw(rows, out):  # type: ignore[no-untyped-def]
        for t in range(len(out)):
            out[t, 0] = below(rows, 0, 12)
            out[t, 1] = unit(rows, 0)
            out[t, 2] = normal(rows, 0)

    rows, out = stream(9), np.zeros((2_000, 3))
    draw(rows, out)
    again = stream(9)
    plain = np.array([[r.below(again, 0, 12), r.unit(again, 0), r.normal(again, 0)] for _ in range(2_000)])
    assert out.tobytes() == plain.tobytes() and rows.tobytes() == again.tobytes()
