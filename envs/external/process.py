"""Worker processes of external environments: how they start, what they are told, how they end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from multiprocessing import connection

import gymnasium

START = 120.0  # seconds that a process may take to start and import before it is given up


PATIENCE = 2.0  # seconds that a worker gets to write a traceback, or to close its environments


def _registration(id: str) -> bytes | None:
    """How Gymnasium makes `id`, for ids that the calling program registered and a worker would not know."""
    if ":" in id or id not in gymnasium.registry:
        return None
    try:
        return pickle.dumps(gymnasium.registry[id])
    except Exception:  # a stranger's object: then a worker knows the id by itself, or says that it does not
        return None


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Processes started meanwhile begin without Ctrl-C and SIGTERM, until they have decided to ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle() -> None:
    """What a process for environments begins with: it leaves signals to the caller, and the caller's output alone."""
    for name in ("SIGINT", "SIGTERM"):  # the caller decides when to stop, after it has saved
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.stdout.flush()
    os.dup2(2, 1)  # what environments print goes to stderr


def _register(id: str, known: bytes) -> None:
    """Register with Gymnasium what the calling program did. Raises ValueError where that cannot be imported here."""
    if id in gymnasium.registry:
        return
    try:
        gymnasium.registry[id] = pickle.loads(known)
    except Exception as error:  # the program's own modules: whatever they raise is the reason
        reason = f"workers cannot import what registers it ({error}): put it into a module and name it module:{id}"
        raise ValueError(f"environment {id}: {reason}") from None


def _end_with_caller() -> None:
    """End this process when the caller has gone without a word, even where an environment hangs."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
