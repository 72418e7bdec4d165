"""Comparisons as pictures, by matplotlib without its global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..live.lines import YardstickLines
from .charts import PALETTE, Bar, Series, show, si, smoothed

GREY = "#555555"


def curves_png(series: Sequence[Series], lines: YardstickLines | None, out: Path) -> None:
    """Learning curves on top of each other: each update in a light line, their centred mean in a strong one."""
    figure = _figure(9, 5)
    axes = figure.add_subplot()
    for s in series:
        axes.plot(s.x, s.y, color=_color(s.color), alpha=0.2, linewidth=0.8)
        _line(axes, s.x, smoothed(s.y), s.name, s.color)
    _levels(axes, lines)
    _steps(axes)
    axes.legend(frameon=False, loc="best")
    figure.savefig(out)


def seeds_png(
    series: Sequence[Series],
    lines: YardstickLines | None,
    bars: Sequence[Bar],
    profiles: Sequence[Series],
    score: str,
    out: Path,
) -> None:
    """Algorithms over their seeds: curves with bands, below them final scores with intervals, and performance profiles.

    `score`: what `bars` and `profiles` count.
    """
    below = 0.9 + 0.3 * len(bars) if not profiles else max(2.4, 0.9 + 0.3 * len(bars))
    figure = _figure(9, 4.4 + below)
    grid = figure.add_gridspec(2, 2 if profiles else 1, height_ratios=(4.4, below), width_ratios=(3, 2) if profiles else (1,))
    axes = figure.add_subplot(grid[0, :])
    for s in series:
        _line(axes, s.x, s.y, s.name, s.color)
        if s.low and s.high:
            axes.fill_between(s.x, s.low, s.high, color=_color(s.color), alpha=0.18, linewidth=0)
    _levels(axes, lines)
    _steps(axes)
    if series:
        axes.legend(frameon=False, loc="best")
    axes = figure.add_subplot(grid[1, 0])
    for k, bar in enumerate(bars):
        if bar.ci:
            axes.plot(bar.ci, (k, k), color=_color(bar.color), linewidth=14, alpha=0.35, solid_capstyle="butt")
        axes.plot([bar.value], [k], "o", color=_color(bar.color), markersize=4.5)
    for level in (lines.random, lines.optimal) if lines else ():
        if level is not None:
            axes.axvline(level, color=GREY, linestyle=(0, (5, 4)), linewidth=1)
    axes.set_yticks(range(len(bars)), [_text(bar.name) for bar in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    _plain(axes, score)
    if profiles:
        axes = figure.add_subplot(grid[1, 1])
        for s in profiles:
            _line(axes, s.x, s.y, s.name, s.color)
            if s.low and s.high:
                axes.fill_between(s.x, s.low, s.high, color=_color(s.color), alpha=0.18, linewidth=0)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("share of seeds above")
        _plain(axes, score)
    figure.savefig(out)


def calibration_png(figures: dict[str, list[float]], out: Path) -> None:
    """What a world model foresaw beside what happened, by horizon: going on, the Brier score of that, and reward."""
    figure = _figure(11, 3.4)
    panels = (
        ("the episode is not over", (("foreseen", "continue", 1), ("happened", "true_continue", 0))),
        ("Brier score of that", (("the model", "brier", 1), ("always the mean", "brier_constant", 0))),
        ("mean reward of a step", (("foreseen", "reward", 1), ("happened", "true_reward", 0))),
    )
    for k, (title, curves) in enumerate(panels):
        axes = figure.add_subplot(1, 3, k + 1)
        for name, key, color in curves:
            axes.plot(figures["horizon"], figures[key], "o-", markersize=3, color=_color(color), linewidth=1.8, label=name)
        axes.set_title(title, fontsize=10)
        axes.margins(y=0.15)
        axes.legend(frameon=False, loc="best", fontsize=8)
        _plain(axes, "steps ahead")
    figure.savefig(out)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _color(color: int) -> str:
    return PALETTE[color % len(PALETTE)]


def _text(name: str) -> str:
    """A name from a folder is text: no mathematics between dollars, and a leading underscore still shows."""
    label = name.replace("$", r"\$")
    return label if label[:1] != "_" else f" {label}"


def _line(axes: Any, x: Sequence[float], y: Sequence[float], name: str, color: int) -> None:
    axes.plot(x, y, "-" if color < len(PALETTE) else "--", color=_color(color), linewidth=1.8, label=_text(name))


def _levels(axes: Any, lines: YardstickLines | None) -> None:
    for kind, level in (("optimal", lines.optimal), ("random", lines.random)) if lines else ():
        if level is not None:
            axes.axhline(level, color=GREY, linestyle=(0, (5, 4)), linewidth=1)
            axes.annotate(f"{kind} {show(level)}", (0.995, level), xycoords=("axes fraction", "data"),
                          ha="right", va="bottom", fontsize=8, color=GREY)  # fmt: skip


def _steps(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.margins(y=0.08)
    _plain(axes, "environment steps")
    axes.set_ylabel("return per episode")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: si(x)))


def _plain(axes: Any, x_name: str) -> None:
    axes.set_xlabel(x_name)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
