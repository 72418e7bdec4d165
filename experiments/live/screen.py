"""The terminal: whether there is one, and how often it is redrawn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType


REFRESH = 2  # panels drawn per second


class Screen:
    """Where a view is shown: a panel on a terminal, lines elsewhere. What goes wrong there never reaches the caller.

    `draw`: the panel for so many columns and rows. `line`: the state as one plain line. `plain`, `every`, `stream`, `clock`
    as for `Live`.
    """

    def __init__(
        self,
        draw: Callable[[int, int], RenderableType],
        line: Callable[[], str],
        plain: bool | None,
        every: float,
        stream: TextIO | None,
        clock: Callable[[], float],
    ) -> None:
        self.draw, self.line = draw, line
        self.plain, self.every, self.stream, self.clock = plain, every, stream, clock
        self._printed = 0.0
        self._pending = False
        self._first = True
        self._live: Any = None

    def open(self, first: str) -> None:
        """Begin; where there are lines, `first` is the first one."""
        out = self.stream or sys.stderr
        if self.plain is None:
            self.plain = not _is_terminal(out)
        if not self.plain:
            with suppress(Exception):
                self._live = self._open(out)
        if self._live is None:
            self.plain = True
            self._write(first)

    def close(self) -> None:
        with suppress(Exception):
            if self._live is not None:
                self._live.stop()
            elif self._pending:
                self._write(self.line())
        self._live, self._pending = None, False

    def changed(self) -> None:
        """There is something new: a panel draws itself, a line is due every few seconds."""
        if self._live is None:
            now = self.clock()
            self._pending = True
            if self._first or now - self._printed >= self.every:
                self._write(self.line())
                self._printed, self._pending, self._first = now, False, False

    def note(self, line: str) -> None:
        """One line above the panel, or between the lines."""
        with suppress(Exception):
            if self._live is not None:
                from rich.text import Text

                self._live.console.print(Text(str(line)))
            else:
                self._write(str(line))

    def _write(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a closed pipe, a closed file
            print(line, file=self.stream or sys.stderr, flush=True)

    def _open(self, out: TextIO) -> Any:
        from rich.console import Console
        from rich.live import Live as RichLive

        console = Console(file=out, force_terminal=True if self.plain is False else None)
        # stdout stays untouched: it may carry one JSON document
        live = RichLive(
            console=console,
            get_renderable=self._safe,
            refresh_per_second=REFRESH,
            redirect_stdout=False,
            transient=False,
        )
        live.start()
        return live

    def _safe(self) -> RenderableType:
        """The drawing thread must survive whatever a row held, and rows that change while it reads them."""
        from rich.text import Text

        width, height = (80, 25) if self._live is None else self._live.console.size
        for _ in range(2):
            with suppress(Exception):
                return self.draw(width, height)
        return Text("...")


def _is_terminal(out: TextIO) -> bool:
    """A panel needs a terminal that moves its cursor and shows block characters."""
    import os

    try:
        if not out.isatty() or os.environ.get("TERM", "") in ("dumb", "unknown"):
            return False
        "█●▁".encode(getattr(out, "encoding", None) or "utf-8")
    except (ValueError, LookupError, OSError):
        return False
    return True
