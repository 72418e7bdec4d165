"""Threads that work on one kernel call together: each calls the same kernel with its own number, and waits for the others where
the kernel says so.

Not numba's parallel loops: they double the time to compile, and OpenMP's threads do not survive a fork. A waiting thread
looks a few thousand times, which takes some microseconds, and from then on leaves its core to whoever wants it between looks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llvmlite.binding
import numpy as np
from numba.core import types

from .vectors import data, inner, typed

ARRIVED, BROKEN, GATE = 0, 1, 2  # places in a gate, int64 (GATE,), zero before the threads set out
LOOKS = 4000
YIELD, CLOCK = (llvmlite.binding.address_of_symbol(name) is not None for name in ("sched_yield", "clock_gettime"))
CLOCK_ID = int(getattr(time, "CLOCK_MONOTONIC", 0))
sched_yield: Any = types.ExternalFunction("sched_yield", types.int32()) if YIELD else None
clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.int64)) if CLOCK else None


@typed
def _add(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """What was there before `value` was added, in one piece."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", data(context, builder, array, args[0], args[1]), args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@typed
def _look(typingctx: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(data(context, builder, array, *args), "seq_cst", 8)

    return types.int64(array, types.intp), generate


@inner
def meet(gate: Any, threads: int) -> bool:
    """Wait until all `threads` threads are here; what they wrote before is seen by all. False: one of them will never come."""
    if threads == 1:
        return True
    goal = (_add(gate, ARRIVED, 1) // threads + 1) * threads
    looks = 0
    while _look(gate, ARRIVED) < goal:
        if _look(gate, BROKEN):
            return False
        looks += 1
        if YIELD and looks > LOOKS:
            sched_yield()
    return True


class Team:
    """Threads of Python that run kernels; made when they are needed, and anew after a fork, which they do not survive."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pool_of = (0, 0)

    def workers(self, many: int) -> ThreadPoolExecutor:
        """At least so many threads."""
        process, size = self._pool_of
        if self._pool is None or process != os.getpid() or size < many:
            self._pool, self._pool_of = ThreadPoolExecutor(many, "gumdrop-fused"), (os.getpid(), many)
        return self._pool

    def run(self, calls: Sequence[tuple[Any, ...]]) -> None:
        """All calls, each (function, *arguments), side by side; the first in this thread."""
        waiting = [self.workers(len(calls) - 1).submit(*call) for call in calls[1:]]
        calls[0][0](*calls[0][1:])
        for future in waiting:
            future.result()

    def work(self, kernel: Callable[..., int], threads: int, *rest: Any) -> int:
        """kernel(thread, threads, gate, *rest) on each of `threads` threads, which meet at the gate; the first one's result."""
        gate = np.zeros(GATE, np.int64)
        if threads == 1:
            return int(kernel(0, 1, gate, *rest))
        pool = self.workers(threads - 1)
        try:
            waiting = [pool.submit(kernel, thread, threads, gate, *rest) for thread in range(1, threads)]
            done = int(kernel(0, threads, gate, *rest))
        except BaseException:
            gate[BROKEN] = 1
            raise
        for future in waiting:
            future.result()
        return done
