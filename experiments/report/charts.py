"""Figures to geometry: where the lines, bars and ticks of a report's charts go. No markup, no drawing library."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from ..live.lines import YardstickLines

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6FDF", "#6B7280")  # as in the page


class Series(NamedTuple):
    """One curve: x in environment steps. `color` is an index into PALETTE; `low` and `high` bound a band around it."""

    name: str
    color: int
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


class Bar(NamedTuple):
    """A figure and its interval, for `intervals`."""

    name: str
    color: int
    value: float
    ci: list[float] | None


def chart(
    series: list[Series],
    lines: YardstickLines | None,
    width: int = 960,
    height: int = 380,
    smooth: bool = False,
    mark: dict[str, Any] | None = None,
    x_name: str = "environment steps",
    x_from: float | None = 0.0,
) -> dict[str, Any]:
    """Where to draw what in a box of `width` x `height`: ticks, paths, bands, dashed lines, and the data for tooltips.

    `x_from`: where the x axis begins, None: with the data.
    """
    large = width > 500
    left, right, top, bottom = (64, 24, 24, 46) if large else (50, 10, 10, 26)
    levels = [x for x in (lines.random, lines.optimal) if x is not None] if lines else []
    ys: list[float] = (
        [y for s in series for y in (*s.y, *(s.low or ()), *(s.high or ()))]
        + levels
        + ((mark["ci"] or [mark["return"]]) if mark else [])
    )
    ticks = round_ticks(min(ys), max(ys), 6 if large else 3)
    low, high = min(ticks[0], min(ys)), max(ticks[-1], max(ys))
    xs = [x for s in series for x in s.x]
    x_low, x_high = (min(xs), max(xs)) if x_from is None else (x_from, max(*xs, x_from + 1.0))
    x_ticks = round_ticks(x_low, max(xs), 7 if large else 4)
    if high - max(ys) > 0.75 * (ticks[1] - ticks[0]):  # no empty band above the data
        high = max(ys) + 0.06 * (max(ys) - low)

    def px(x: float) -> float:
        return round(left + (width - left - right) * (x - x_low) / (x_high - x_low or 1.0), 1)

    def py(y: float) -> float:
        return round(height - bottom - (height - top - bottom) * (y - low) / (high - low), 1)

    drawn: list[dict[str, Any]] = []
    hover: list[dict[str, Any]] = []
    for s in series:
        color, dashed = s.color % len(PALETTE), s.color >= len(PALETTE)
        ys_smooth = smoothed(s.y) if smooth else s.y
        raw = _path(s.x, s.y, px, py) if smooth else ""
        band = f"{_path([*s.x, *s.x[::-1]], [*s.high, *s.low[::-1]], px, py)}Z" if s.low and s.high else ""
        drawn.append({"color": color, "dashed": dashed, "raw": raw, "band": band, "path": _path(s.x, ys_smooth, px, py)})
        hover.append(
            {
                "name": s.name, "color": color, "x": [px(x) for x in s.x], "y": [py(y) for y in s.y],
                "steps": [round(x) if x_from == 0 else float(f"{x:.5g}") for x in s.x],
                "values": [float(f"{y:.5g}") for y in s.y],
            }
        )  # fmt: skip
    levels_drawn = [
        {"kind": kind, "y": py(level), "label": f"{kind} {show(level)}"}
        for kind, level in (("optimal", lines.optimal), ("random", lines.random))
        if level is not None
    ] if lines else []  # fmt: skip
    marked = None
    if mark:
        ends = [py(x) for x in mark["ci"]] if mark["ci"] else []
        marked = {"x": px(x_high), "y": py(mark["return"]), "ends": ends, "label": f"evaluated {show(mark['return'])}"}
    return {
        "width": width, "height": height, "left": left, "right": width - right, "top": top, "bottom": height - bottom,
        "large": large, "mark": marked, "x_name": x_name, "series": drawn, "lines": levels_drawn, "hover": hover,
        "x_ticks": [{"at": px(x), "label": si(x)} for x in x_ticks if x_low <= x <= x_high],
        "y_ticks": [{"at": py(y), "label": tick(y, ticks)} for y in ticks if low <= y <= high],
    }  # fmt: skip


def intervals(bars: list[Bar], lines: YardstickLines | None) -> dict[str, Any]:
    """Figures with their intervals under each other, on one axis between the dashed lines."""
    levels = [("random", lines.random), ("optimal", lines.optimal)] if lines else []
    known = [(kind, x) for kind, x in levels if x is not None]
    xs = [x for bar in bars for x in (bar.value, *(bar.ci or ()))] + [x for _, x in known]
    ticks = round_ticks(min(xs), max(xs), 6)
    longest = max(len(bar.name) for bar in bars)
    left, right, top, bottom, width = min(300, 24 + 8 * longest), 40, 34, 34, 960
    height = top + bottom + 34 * len(bars)

    def px(x: float) -> float:
        return round(left + (width - left - right) * (x - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    rows = [
        {"name": bar.name if len(bar.name) <= 34 else f"{bar.name[:33]}…", "color": bar.color % len(PALETTE),
         "y": top + 34 * k + 17, "x": px(bar.value), "ends": [px(x) for x in bar.ci] if bar.ci else [],
         "tip": f"{bar.name}: {show(bar.value)}{interval_text(bar.ci)}"}
        for k, bar in enumerate(bars)
    ]  # fmt: skip
    return {
        "width": width, "height": height, "left": left, "right": width - right, "top": top, "bottom": height - bottom,
        "rows": rows, "ticks": [{"at": px(x), "label": tick(x, ticks)} for x in ticks],
        "lines": [{"kind": kind, "x": px(x), "label": f"{kind} {show(x)}", "end": px(x) > (width + left) / 2}
                  for kind, x in known],
    }  # fmt: skip


def _path(xs: list[float], ys: list[float], px: Callable[[float], float], py: Callable[[float], float]) -> str:
    points = [f"{px(x):g},{py(y):g}" for x, y in zip(xs, ys, strict=True)]
    return "M" + "L".join(points if len(points) > 1 else points * 2) if points else ""


def reach(count: int) -> int:
    return count // 40


def smoothed(ys: list[float]) -> list[float]:
    """Centred mean over 2 * reach + 1 values; the window shrinks evenly at both ends, so that it never lags."""
    sums = [0.0]
    for y in ys:
        sums.append(sums[-1] + y)
    out = []
    for k in range(len(ys)):
        r = min(reach(len(ys)), k, len(ys) - 1 - k)
        out.append((sums[k + r + 1] - sums[k - r]) / (2 * r + 1))
    return out


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """At least two round numbers that enclose [low, high], about `count` of them."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        low, high = low - max(0.5 * abs(low), 1e-9), high + max(0.5 * abs(high), 1e-9)
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10, 20) if (high - low) / (m * step) <= count)
    return [k * step for k in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def histogram(agent: list[float], random: list[float], means: dict[str, float | None]) -> dict[str, Any]:
    """Shares of episodes per bin of return, agent and random on the same bins; `means` become vertical lines.

    `agent` must not be empty. Whole returns in a small range get one bin each.
    """
    both = agent + random
    low, high = min(both), max(both)
    if all(x == round(x) for x in both) and high - low <= 40:
        edges = [k - 0.5 for k in range(round(low), round(high) + 2)]
    else:
        count = max(8, min(30, round(math.sqrt(len(agent)))))
        low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
        edges = [low + (high - low) * k / count for k in range(count + 1)]
    shares = {"agent": _counts(agent, edges), "random": _counts(random, edges)}
    top_share = max(max(counts) for counts in shares.values())
    marks = [x for x in means.values() if x is not None]
    left, right, top, bottom, width, height = 56, 16, 58, 46, 620, 380
    x_low, x_high = min(edges[0], *marks), max(edges[-1], *marks)
    x_ticks, y_ticks = round_ticks(x_low, x_high, 7), round_ticks(0.0, 100 * top_share, 5)

    def px(x: float) -> float:
        return round(left + (width - left - right) * (x - x_low) / (x_high - x_low), 1)

    def py(y: float) -> float:
        return round(height - bottom - (height - top - bottom) * y / y_ticks[-1], 1)

    bars = [
        {"kind": kind, "x": px(a), "y": py(100 * share), "w": max(1.0, round(px(b) - px(a) - 1, 1)),
         "h": round(py(0) - py(100 * share), 1),
         "tip": f"{kind}: {100 * share:.1f} % of episodes, return {_range(a, b)}"}
        for kind in ("random", "agent")
        for share, (a, b) in zip(shares[kind], pairwise(edges), strict=True)
        if share > 0
    ]  # fmt: skip
    return {
        "width": width, "height": height, "left": left, "right": width - right, "top": top, "bottom": height - bottom,
        "bars": bars, "has_random": bool(random),
        "means": [{"kind": k, "x": px(v), "label": f"{k} {show(v)}",
                   "end": px(v) > width - 130 or (k == "agent" and px(v) > 180)}
                  for k, v in means.items() if v is not None],
        "x_ticks": [{"at": px(x), "label": tick(x, x_ticks)} for x in x_ticks if x_low <= x <= x_high],
        "y_ticks": [{"at": py(y), "label": f"{y:g} %"} for y in y_ticks],
    }  # fmt: skip


def _range(a: float, b: float) -> str:
    return show(a + 0.5) if b - a == 1 and a % 1 == 0.5 else f"{show(a)} to {show(b)}"


def _counts(values: list[float], edges: list[float]) -> list[float]:
    counts, width = [0] * (len(edges) - 1), edges[1] - edges[0]
    for value in values:
        counts[min(len(counts) - 1, max(0, int((value - edges[0]) / width)))] += 1
    return [count / max(len(values), 1) for count in counts]


def show(x: float | None) -> str:
    """Two decimals for numbers of everyday size, else four significant digits."""
    if x is None:
        return "-"
    if x == 0 or 0.095 <= abs(x) < 1000:
        return f"{x:.2f}".removesuffix(".00") if x == round(x) else f"{x:.2f}"
    return f"{x:,.0f}" if 1000 <= abs(x) < 1e7 else f"{x:.3g}"


def tick(x: float, ticks: list[float]) -> str:
    """A number on an axis, with as many decimals as the distance between ticks needs."""
    step, top = ticks[1] - ticks[0], max(abs(ticks[0]), abs(ticks[-1]))
    if x == 0 or abs(x) < 1e-9 * top:
        return "0"
    if top >= 10_000:
        return si(x)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{x:.{decimals}f}" if decimals <= 3 else f"{x:.2g}"


def interval_text(ci: list[float] | None) -> str:
    return f" [{show(ci[0])}, {show(ci[1])}]" if ci else ""


def percent(x: float | None) -> str:
    return "-" if x is None else f"{100 * x:.1f} %"


def si(x: float | None) -> str:
    """1,250,000 as 1.25M."""
    if x is None:
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= 0.9995 * size:
            return f"{x / size:.3g}{unit}"
    return f"{x:.3g}"


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole // 60 % 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{seconds:.1f} s"
