"""Stopping on Ctrl-C and SIGTERM without losing anything."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A signal asked the run to stop; it has been saved. `exit_code` is 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}, saved")
        self.exit_code = 128 + signum


class _Stop:
    """Remembers the first SIGINT or SIGTERM; the second one ends the process at once, after a call of `last`."""

    signum = 0

    def __init__(self, last: Callable[[], None]) -> None:
        self.last = last

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            try:
                self.last()
            finally:
                os._exit(128 + signum)
        self.signum = signum


@contextmanager
def stop_on_signals(last: Callable[[], None] = lambda: None) -> Iterator[_Stop]:
    """While it lasts, Ctrl-C and SIGTERM are only noted. Outside the main thread signals stay as they are."""
    stop = _Stop(last)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
