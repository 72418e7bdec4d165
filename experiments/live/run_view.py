"""What training looks like while it runs: a panel on a terminal, a line every few seconds elsewhere.

Everything goes to stderr. A missing key, a NaN or a closed terminal never reaches the training loop.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from ...store.numbers import finite
from .bars import DIM, GOOD, duration, framed, progress_bar, sparkline, whole
from .lines import TIME_PARTS, YardstickLines
from .screen import Screen

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

OTHER = ("other", "", "#7A8190")
CURVES = (
    ("entropy", "entropy", ".3f"),
    ("KL", "kl", ".4f"),
    ("value loss", "loss/value", ".4g"),
    ("learning rate", "learning_rate", ".2e"),
)
HISTORY = 4000  # rows kept for sparklines
RECENT = 12  # updates over which speed and time split are averaged


class Live:
    """Live view of a training run; use it as a context manager.

    `total_steps`: environment steps of the whole run. `yardstick`: (random, optimal, meaning), mean returns.
    `plain`: True for lines, False for the panel, None to choose by terminal. `every`: seconds between lines.
    """

    def __init__(
        self,
        total_steps: int,
        title: str,
        yardstick: tuple[float, float, str] | None = None,
        plain: bool | None = None,
        every: float = 5.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_steps = total_steps
        self.title = title
        self.yardstick = yardstick
        self.clock = clock
        self.screen = Screen(lambda width, height: self.panel(width), self.line, plain, every, stream, clock)
        self.metrics: dict[str, float] = {}
        self.timing: dict[str, float] = {}
        self.curves: dict[str, deque[float]] = {
            key: deque(maxlen=HISTORY) for key in ("return_mean", *(key for _, key, _ in CURVES))
        }
        self.times: deque[dict[str, float]] = deque(maxlen=RECENT + 1)
        self.episodes = 0.0  # ended since this view began; a row counts those of its own update
        self._started = self._updated = clock()

    def __enter__(self) -> Live:
        self._started = self._updated = self.clock()
        self.screen.open(f"{self.title}: {whole(self.total_steps)} steps")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.screen.close()

    @property
    def plain(self) -> bool | None:
        return self.screen.plain

    def update(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Take the rows of one update (see metrics.jsonl and timing.jsonl). Keys may be missing, values may be NaN."""
        with suppress(Exception):  # a view must not stop what it shows
            self.take(metrics, timing)
            self.screen.changed()

    def note(self, line: str) -> None:
        """One line above the panel, or between the lines."""
        self.screen.note(line)

    def take(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Remember the rows of one update, without showing them."""
        new = {key: number for key, value in metrics.items() if (number := finite(value)) is not None}
        self.metrics = {**self.metrics, **new}
        self.episodes += new.get("episodes", 0.0)
        self.timing = {key: number for key, value in timing.items() if (number := finite(value)) is not None}
        for key, curve in self.curves.items():
            if key in new:
                curve.append(new[key])
        self.times.append({"env_steps": self.env_steps, **self.timing})
        self._updated = self.clock()

    # ---- figures ----

    @property
    def env_steps(self) -> float:
        return self.metrics.get("env_steps", self.timing.get("env_steps", 0.0))

    @property
    def elapsed(self) -> float:
        """Training seconds; resumed runs count on from where they stopped."""
        if "seconds" in self.timing:
            return self.timing["seconds"] + max(0.0, self.clock() - self._updated)
        return self.clock() - self._started

    @property
    def speed(self) -> float | None:
        """Environment steps per second over the last updates."""
        if len(self.times) >= 2:
            first, last = self.times[0], self.times[-1]
            seconds = last.get("seconds", math.nan) - first.get("seconds", math.nan)
            if seconds > 0:
                return (last["env_steps"] - first["env_steps"]) / seconds
        return self.timing.get("steps_per_second")

    @property
    def left(self) -> float | None:
        """Seconds until the last step at the present speed, None before it is known."""
        speed = self.speed
        if not speed or speed <= 0:
            return None
        waited = self.clock() - self._updated
        return max(0.0, (self.total_steps - self.env_steps) / speed - waited)

    @property
    def position(self) -> float | None:
        """Where the return stands between random (0) and optimal (1); it can leave that range."""
        lines, value = self._lines(), self.metrics.get("return_mean")
        if lines is None or lines.random is None or lines.optimal is None or value is None:
            return None
        return (value - lines.random) / (lines.optimal - lines.random)

    def split(self) -> list[tuple[str, float, str]]:
        """(name, share, colour) of the time of the last updates; shares sum to 1. Empty before it is known."""
        rows = list(self.times)[-RECENT:]
        parts = [(name, sum(row.get(key, 0.0) for row in rows), color) for name, key, color in TIME_PARTS]
        known = sum(seconds for _, seconds, _ in parts)
        if known <= 0:
            return []
        if len(self.times) > RECENT:
            rest = self.times[-1].get("seconds", math.nan) - self.times[0].get("seconds", math.nan) - known
            if rest > 0.02 * known:
                parts.append((OTHER[0], rest, OTHER[2]))
                known += rest
        return [(name, seconds / known, color) for name, seconds, color in parts]

    def _lines(self) -> YardstickLines | None:
        if self.yardstick is None:
            return None
        lines = YardstickLines(*self.yardstick)
        random, optimal = finite(lines.random), finite(lines.optimal)
        sound = random is not None and optimal is not None and optimal > random
        return YardstickLines(random, optimal, str(lines.meaning)) if sound else None

    def line(self) -> str:
        """The state as one plain line."""
        done = 100 * min(1.0, self.env_steps / max(self.total_steps, 1))
        words = [f"{duration(self.elapsed):>6}", f"{whole(self.env_steps)} steps ({done:.0f} %)"]
        if self.speed is not None:
            words.append(f"{whole(self.speed)} steps/s")
        value, lines = self.metrics.get("return_mean"), self._lines()
        if value is not None:
            place = ""
            if lines is not None and self.position is not None:
                between = f"random {lines.random:.2f} to optimal {lines.optimal:.2f}"
                place = f" ({100 * self.position:.0f} % of the way from {between})"
            words.append(f"return {value:.2f}{place}")
        for name, key, form in CURVES[:2]:
            if key in self.metrics:
                words.append(f"{name} {self.metrics[key]:{form}}")
        if self.left is not None:
            words.append(f"{duration(self.left)} left")
        return "  ".join(words)

    # ---- the panel ----

    def panel(self, width: int = 80) -> RenderableType:
        """The whole view for a terminal `width` columns wide."""
        from rich.table import Table
        from rich.text import Text

        wide = max(30, min(width, 110)) - 4  # border and padding
        table = Table.grid(padding=(0, 2))
        table.add_column(style=DIM, no_wrap=True, min_width=13)
        table.add_column(no_wrap=True, overflow="ellipsis")
        room = wide - 15  # beside the first column
        table.add_row("progress", self._progress(room))
        table.add_row("speed", self._speed())
        table.add_row("time", self._time(room))
        table.add_row("return", self._return(room))
        if self._lines() is not None:
            table.add_row("", self._position(room))
        if "episodes" in self.metrics:
            table.add_row("episodes", Text(whole(self.episodes)))
        for name, key, form in CURVES:
            if self.curves[key]:
                figure = Text(f"{self.curves[key][-1]:<11{form}}")
                table.add_row(name, figure.append(sparkline(self.curves[key], min(40, room - 12)), style=DIM))
        return framed(table, self.title, wide + 4)

    def _progress(self, room: int) -> Text:
        share = min(1.0, self.env_steps / max(self.total_steps, 1))
        words = f"  {100 * share:3.0f} %  {whole(self.env_steps)} / {whole(self.total_steps)} steps"
        return progress_bar(share, max(6, room - len(words))).append(words, "default")

    def _speed(self) -> Text:
        from rich.text import Text

        words = Text("starting ..." if self.speed is None else f"{whole(self.speed)} steps/s", "bold")
        words.append(f"   elapsed {duration(self.elapsed)}", "not bold")
        return words if self.left is None else words.append(f"   left {duration(self.left)}", "not bold")

    def _time(self, room: int) -> Text:
        from rich.text import Text

        split = self.split()
        if not split:
            return Text("-", DIM)
        names = [f"{name} {100 * share:.0f} %" for name, share, _ in split]
        size = max(6, min(24, room - len("  ".join(names)) - 2))
        bar = Text()
        edges = [round(size * sum(share for _, share, _ in split[:n])) for n in range(len(split) + 1)]
        for (_, _, color), start, end in zip(split, edges, edges[1:], strict=False):
            bar.append("█" * (end - start), color)
        for name, (_, _, color) in zip(names, split, strict=True):
            bar.append("  ").append(name, color)
        return bar

    def _return(self, room: int) -> Text:
        from rich.text import Text

        curve = self.curves["return_mean"]
        if not curve:
            return Text("no episode has ended yet", DIM)
        return Text(f"{curve[-1]:<10.3f} ", "bold").append(sparkline(curve, min(40, room - 12)), GOOD)

    def _position(self, room: int) -> Text:
        """random 1.20 ├━━━━━●───┤ 7.30 optimal  82 %"""
        from rich.text import Text

        lines, place = self._lines(), self.position
        assert lines is not None
        head, tail = f"random {lines.random:.2f} ", f" {lines.optimal:.2f} optimal"
        percent = "" if place is None else f"  {100 * place:.0f} %"
        size = max(5, min(40, room - len(head) - len(tail) - len(percent) - 2))
        at = 0 if place is None else round(min(1.0, max(0.0, place)) * (size - 1))
        bar = Text(head, DIM).append("├", DIM).append("━" * at, GOOD)
        bar.append("●" if place is not None else "─", GOOD).append("─" * (size - 1 - at), DIM)
        return bar.append("┤", DIM).append(tail, DIM).append(percent, "bold")
