"""Calls that run in a process of their own, such as a first look at somebody else's environment."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from typing import Any

import gymnasium

from .environments import adapt
from .loop import where_failed
from .make import make_external, own_options, uses_masks
from .process import PATIENCE, START, _register, _registration, _settle, signals_held_back
from .spaces import MASK


def probe(id: str, options: dict[str, Any]) -> str:
    """Make `id` once and close it: "gymnasium" or "pettingzoo". With workers wanted, in a process of its own.

    Raises UnknownName or ValueError, one line, where it cannot be made or agents cannot have its spaces.
    """
    theirs, workers, timeout = own_options(id, options)
    if workers:
        return call_apart(probe, id, theirs | {MASK: uses_masks(id, options)}, timeout)
    env = make_external(id, options)
    try:
        adapt(id, env, uses_masks(id, options))
    except ValueError:
        raise
    except Exception as error:  # a stranger's class: whatever it raises is its reason
        raise ValueError(f"environment {id} cannot be used: {type(error).__name__}: {error}") from error
    library = "gymnasium" if isinstance(env, gymnasium.Env) else "pettingzoo"
    with contextlib.suppress(Exception):  # the checks will say so
        env.close()
    return library


def call_apart(function: Callable[[str, dict[str, Any]], str], id: str, options: dict[str, Any], timeout: float) -> str:
    """`function(id, options)` in a process of its own. Raises ValueError for what it raises, and where it ends or hangs.

    `function` is one of a module; `timeout`: seconds that it may take, 0 for ever.
    """
    context = multiprocessing.get_context("spawn")
    conn, theirs = context.Pipe()
    with conn:
        with theirs, signals_held_back():
            process = context.Process(target=_call, args=(theirs, function, id, options, _registration(id)))
            process.start()
        try:
            for wait in (max(START, timeout), timeout or None):  # until it is up, until it is done
                if not conn.poll(wait):
                    raise ValueError(f"environment {id} did not return within {wait:g} s: raise timeout if it is only slow")
                good, text = conn.recv()
                if not good:
                    raise ValueError(text)
            return str(text)
        except (EOFError, OSError):
            process.join(PATIENCE)
            raise ValueError(f"environment {id} ended the process it was in: exit status {process.exitcode}") from None
        finally:
            process.kill()
            process.join()


def _call(conn: Any, function: Callable[[str, dict[str, Any]], str], id: str, options: Any, known: bytes | None) -> None:
    _settle()
    try:
        if known is not None:
            _register(id, known)
        conn.send((True, ""))
        conn.send((True, function(id, options)))
    except Exception as error:  # a stranger's code: whatever it raises is its reason
        conn.send((False, " ".join(str(error).split()) if isinstance(error, ValueError) else where_failed(error)[0]))
