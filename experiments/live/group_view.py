"""What training many seeds looks like while it runs: one table on a terminal, a line every few seconds elsewhere.

A row's figures are those of `Live`, which follows a single run; here nobody draws it. Everything goes to stderr.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from .bars import DIM, GOOD, duration, framed, progress_bar, sparkline, whole
from .run_view import Live
from .screen import Screen

if TYPE_CHECKING:
    from rich.console import RenderableType

State = Literal["waiting", "running", "evaluating", "done", "failed", "stopped"]
COLORS: dict[State, str] = {"waiting": DIM, "done": GOOD, "failed": "red", "stopped": "yellow"}
URGENT: tuple[State, ...] = ("running", "evaluating", "failed", "stopped", "done", "waiting")  # which rows to show first
CHROME = 7  # rows of a panel that hold no seed
CURVE, ROOM = 12, 72  # columns of a learning curve, and of a table that has room for it


class _Row:
    """One seed."""

    def __init__(self) -> None:
        self.state: State = "waiting"
        self.run: Live | None = None  # once it has begun here

    def share(self, steps: int) -> float:
        """How much of the training is done, from 0 to 1."""
        if self.state in ("done", "evaluating"):  # the last whole update may end a little before the budget does
            return 1.0
        return 0.0 if self.run is None else min(1.0, self.run.env_steps / max(steps, 1))

    @property
    def last_return(self) -> float | None:
        return None if self.run is None else self.run.metrics.get("return_mean")


class GroupLive:
    """Live view of a group of runs; use it as a context manager.

    `steps`: environment steps of each seed. `plain`: True for lines, False for the table, None to choose by terminal.
    `every`: seconds between lines.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        steps: int,
        title: str,
        plain: bool | None = None,
        every: float = 5.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.steps, self.title, self.clock = steps, title, clock
        self.rows = {seed: _Row() for seed in seeds}
        self.screen = Screen(self.panel, self.line, plain, every, stream, clock)
        self._started = clock()

    def __enter__(self) -> GroupLive:
        self._started = self.clock()
        self.screen.open(f"{self.title}: {whole(self.steps)} steps each")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.screen.close()

    def began(self, seed: int, yardstick: Mapping[str, Any] | None) -> None:
        """Training of `seed` begins, or goes on. `yardstick`: random, optimal, meaning, as in summary.json."""
        with suppress(Exception):  # a view must not stop what it shows
            lines = (yardstick["random"], yardstick["optimal"], yardstick["meaning"]) if yardstick else None
            self.rows[seed].run = Live(self.steps, "", lines, clock=self.clock)
            self.state(seed, "running")

    def update(self, seed: int, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Take the rows of one update of `seed`; not every update has to come."""
        with suppress(Exception):
            run = self.rows[seed].run
            if run is not None:
                run.take(metrics, timing)
            self.screen.changed()

    def state(self, seed: int, state: State) -> None:
        with suppress(Exception):
            self.rows[seed].state = state
            if state != "waiting":
                self.screen.changed()

    def note(self, line: str) -> None:
        """One line above the table, or between the lines."""
        self.screen.note(line)

    # ---- figures ----

    def count(self) -> Counter[State]:
        return Counter(row.state for row in self.rows.values())

    @property
    def share(self) -> float:
        """How much of all training is done, from 0 to 1."""
        return sum(row.share(self.steps) for row in self.rows.values()) / max(len(self.rows), 1)

    @property
    def speed(self) -> float:
        """Environment steps per second of all seeds that run now."""
        return sum(row.run.speed or 0.0 for row in self.rows.values() if row.run and row.state == "running")

    @property
    def left(self) -> float | None:
        """Seconds until the last seed is trained at the present speed, None before it is known."""
        ahead = sum(1 - row.share(self.steps) for row in self.rows.values() if row.state in ("running", "waiting"))
        return ahead * self.steps / self.speed if self.speed > 0 else None

    def words(self) -> str:
        """2 of 10 seeds done, 1 failed, 2 running"""
        count = self.count()
        others: tuple[State, ...] = ("failed", "stopped", "running", "evaluating")
        return ", ".join([f"{count['done']} of {len(self.rows)} seeds done", *(f"{count[s]} {s}" for s in others if count[s])])

    def line(self) -> str:
        """The state as one plain line."""
        parts = [f"{duration(self.clock() - self._started):>6}", f"{self.words()} ({100 * self.share:.0f} %)"]
        if self.speed > 0:
            parts.append(f"{whole(self.speed)} steps/s")
        returns = [row.last_return for row in self.rows.values() if row.state == "running" and row.last_return is not None]
        if returns:
            parts.append(f"return {min(returns):.2f} to {max(returns):.2f}" if len(returns) > 1 else f"return {returns[0]:.2f}")
        if self.left is not None:
            parts.append(f"{duration(self.left)} left")
        return "  ".join(parts)

    # ---- the table ----

    def panel(self, width: int = 80, height: int = 25) -> RenderableType:
        """The whole view for a terminal of `width` columns and `height` rows; seeds that do not fit are counted."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        wide = max(44, min(width, 110)) - 4  # border and padding
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=DIM)
        for name in ("seed", "state"):
            table.add_column(name, no_wrap=True)
        for name in ("done", "steps/s", "return", "to optimal"):
            table.add_column(name, justify="right", no_wrap=True)
        if wide >= ROOM:
            table.add_column("", no_wrap=True)
        columns = len(table.columns)
        shown = self._shown(max(3, height - CHROME))
        for seed in shown:
            row = self.rows[seed]
            color = COLORS.get(row.state, "default")
            cells = [Text(str(seed)), Text(row.state, color), Text(f"{100 * row.share(self.steps):.0f} %"), *self._figures(row)]
            table.add_row(*cells[:columns], style=DIM if row.state == "waiting" else "")
        total = f"  {100 * self.share:3.0f} %  {self.words()}"
        times = f"elapsed {duration(self.clock() - self._started)}"
        if self.left is not None:
            times = f"{whole(self.speed)} steps/s   {times}   left {duration(self.left)}"
        hidden = [Text(f"and {len(self.rows) - len(shown):,} more seeds", DIM)] if len(shown) < len(self.rows) else []
        bar = progress_bar(self.share, max(6, min(40, wide - len(total)))).append(total, "default")
        return framed(Group(table, *hidden, Text(), bar, Text(times)), self.title, wide + 4)

    def _shown(self, room: int) -> list[int]:
        """The seeds to show in `room` rows, in their order: those that run first, waiting ones last."""
        if len(self.rows) <= room:
            return list(self.rows)
        order = sorted(self.rows, key=lambda seed: URGENT.index(self.rows[seed].state))
        chosen = set(order[: room - 1])
        return [seed for seed in self.rows if seed in chosen]

    def _figures(self, row: _Row) -> list[RenderableType]:
        """Speed, last return, place between random and optimal, learning curve."""
        from rich.text import Text

        run = row.run
        if run is None:
            return []
        speed = whole(run.speed) if row.state == "running" and run.speed is not None else ""
        value = "" if row.last_return is None else f"{row.last_return:.3f}"
        place = "" if run.position is None else f"{100 * run.position:.0f} %"
        curve = run.curves["return_mean"]
        return [Text(speed), Text(value, "bold"), Text(place), Text(sparkline(curve, CURVE) if curve else "", GOOD)]
