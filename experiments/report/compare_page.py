"""A comparison of algorithms over their seeds, drawn: sample-efficiency curves, final scores, performance profiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import statistics
from ..live.lines import YardstickLines
from ..study.compare import Result
from .charts import Bar, Series, chart, clock, interval_text, intervals, percent, show, si, smoothed
from .pictures import seeds_png
from .run_page import curve_of, legend, write_comparison

POINTS = 120  # of a sample-efficiency curve
DRAWN = 10  # more curves than that are not told apart
PROFILES = 6
HEADER = ("algorithm", "seeds", "IQM", "P(better than the first)", "of optimal", "steps", "time")


def draw(found: Sequence[Result], judged: dict[str, Any], out: Path, title: str = "", seed: int = 0) -> Path:
    """Draw what `compare.compare_results` found of `found`, in this order, into `out`, an .html page or a .png picture."""
    rng = np.random.Generator(np.random.PCG64(seed))
    rows, notes = judged["algorithms"], list(judged["notes"])
    series = []
    for k, c in enumerate(found[:DRAWN]):
        drawn, missing = _efficiency(c, k, rng)
        series += drawn
        notes += missing
    if len(found) > DRAWN:
        notes.append(f"Curves of the first {DRAWN} of {len(found)} only.")
    lines = common_lines(found)
    bars = [Bar(row["name"], k, row["iqm"]["value"], row["iqm"]["ci95"]) for k, row in enumerate(rows)]
    profiles = _profiles(found, rng) if len(found) <= PROFILES else []
    if out.suffix.lower() == ".png":
        seeds_png(series, lines, bars, profiles, "mean return of a trained agent", out)
        return out
    page = {
        "title": title or (" / ".join(c.name for c in found) if len(found) <= 3 else f"{len(found)} algorithms"),
        "notes": notes,
        "about": "IQM: interquartile mean over training seeds, with its 95 % interval over seeds. P: probability that a seed "
        "of this algorithm ends higher than one of the first.",
        "header": HEADER, "table": [_cells(row) for row in rows],
        "curve_about": "Return per episode while training against environment steps: interquartile mean over seeds, with a "
        "pointwise 95 % band. Each seed's curve is a centred mean over a twentieth of its length",
        "curve": chart(series, lines) if series else None, "legend": legend(series),
        "meaning": lines.meaning if lines else "", "bars": intervals(bars, lines),
        "profile": chart(profiles, None, x_name="mean return of a trained agent", x_from=None) if profiles else None,
    }  # fmt: skip
    write_comparison(page, out)
    return out


def common_lines(found: Sequence[Result]) -> YardstickLines | None:
    """Mean returns of random actions and of the optimum over the episodes that all seeds were evaluated on."""
    seeds = [seed for c in found for seed in c.seeds]
    known = [_mean([getattr(seed, name) for seed in seeds]) for name in ("random", "optimal")]
    return None if known == [None, None] else YardstickLines(known[0], known[1], seeds[0].meaning)


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return math.fsum(found) / len(found) if found and len(found) == len(values) else None


def _efficiency(c: Result, color: int, rng: np.random.Generator) -> tuple[list[Series], list[str]]:
    curves = [curve_of(seed.folder) for seed in c.seeds]
    whole = [(x, smoothed(y)) for x, y in curves if x]
    notes = [f"{c.name}: {len(curves) - len(whole)} seeds have no curve."] if len(whole) < len(curves) else []
    if not whole:
        return [], notes
    try:
        band = statistics.efficiency(whole, rng, POINTS)
    except ValueError as error:
        return [], [*notes, f"{c.name}: no curve: {error}"]
    return [_series(c.name, color, band)], notes


def _profiles(found: Sequence[Result], rng: np.random.Generator) -> list[Series]:
    scores = [score for c in found for score in c.scores]
    low, high = min(scores), max(scores)
    if not high > low:
        return []
    thresholds = np.linspace(low - 0.02 * (high - low), high, 101)
    return [_series(c.name, k, statistics.profile(c.scores, thresholds, rng)) for k, c in enumerate(found)]


def _series(name: str, color: int, band: statistics.Band) -> Series:
    ends = (None, None) if band.low is None or band.high is None else (band.low.tolist(), band.high.tolist())
    return Series(name, color, band.x.tolist(), band.value.tolist(), *ends)


def _cells(row: dict[str, Any]) -> list[str]:
    def with_interval(figure: dict[str, Any] | None) -> str:
        return f"{show(figure['value'])}{interval_text(figure['ci95'])}" if figure else "-"

    share = row["share_of_optimal"]
    return [
        row["name"], str(len(row["seeds"])), with_interval(row["iqm"]), with_interval(row["improvement"]),
        percent(share["value"]) if share else "-", si(row["env_steps"]), clock(row["seconds"]),
    ]  # fmt: skip
