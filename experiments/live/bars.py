"""Pieces of the live view: frames, bars, sparklines, durations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


GOOD, DIM = "#2FB380", "bright_black"


def framed(content: RenderableType, title: str, width: int) -> RenderableType:
    """A panel around a view."""
    from rich import box
    from rich.panel import Panel
    from rich.text import Text

    return Panel(
        content, title=Text(f" {title} ", style="bold"), title_align="left", width=width,
        box=box.ROUNDED, border_style=DIM, padding=(0, 1),
    )  # fmt: skip


def progress_bar(share: float, size: int) -> Text:
    """━━━━━━ of which `share`, between 0 and 1, is done."""
    from rich.text import Text

    full = round(size * share)
    return Text("━" * full, GOOD).append("━" * (size - full), DIM)


def sparkline(values: Any, width: int) -> str:
    """Block characters for a series of finite numbers, oldest left, averaged into at most `width` columns."""
    series = list(values)
    width = max(1, width)
    if len(series) > width:
        edges = [n * len(series) // width for n in range(width + 1)]
        series = [sum(series[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
    low, high = min(series), max(series)
    span = high - low
    if not math.isfinite(span) or span <= 1e-12 * max(abs(low), abs(high), 1e-300):
        return "▄" * len(series)
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * ((value - low) / span)))] for value in series)


def whole(number: float) -> str:
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}" if seconds >= 10 else f"{seconds:.1f} s"
