"""Threads that work on one kernel call together: each calls the same kernel with its own number, and waits for the others where
the kernel says so.

Not numba's parallel loops: they double the time to compile, and OpenMP's threads do not survive a fork. A waiting thread
looks a few thousand times, which takes some microseconds, and from then on leaves its core to whoever wants it between looks.
"""

from __future__ import annotations

import time
from typing import Any

import llvmlite.binding
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
