"""External environments by id: the factory, its options, and the batch."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import gymnasium
from pettingzoo import AECEnv, ParallelEnv

from ...configs.suggest import suggest
from ..names import UnknownName
from .spaces import MASK

TIMEOUT = 60.0  # seconds that a worker process may spend in one call of an environment, unless told


def own_options(id: str, options: dict[str, Any]) -> tuple[dict[str, Any], int, float]:
    """What the constructor gets of `options`, and what is ours: `workers` (0: none) and `timeout` in seconds (0: never);
    `action_mask` is asked for by `uses_masks`.

    Raises ValueError, one line, for values that these two cannot have.
    """
    theirs = {key: value for key, value in options.items() if key not in ("workers", "timeout", MASK)}
    uses_masks(id, options)
    workers, timeout = options.get("workers", 0), options.get("timeout")
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 0:
        raise ValueError(f"environment {id}: workers is {workers!r:.40}: give a whole number, 0 for none")
    if timeout is None:
        return theirs, workers, TIMEOUT
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout < math.inf:
        raise ValueError(f"environment {id}: timeout is {timeout!r:.40}: give seconds, 0 to wait for ever")
    if not workers:
        raise ValueError(f"environment {id}: timeout needs worker processes: give workers=1 or more too")
    return theirs, workers, float(timeout)


def uses_masks(id: str, options: dict[str, Any]) -> bool:
    """Whether action masks are used: our option `action_mask`, true unless told. Raises ValueError for another value."""
    value = options.get(MASK, True)
    if not isinstance(value, bool):
        raise ValueError(f"environment {id}: {MASK} is {value!r:.40}: true, or false to ignore masks")
    return value


def _factory(id: str) -> Callable[..., Any]:
    """What makes `id`: `gymnasium.make` for a name that Gymnasium knows, else what the module has under that name."""
    module, _, name = id.rpartition(":")
    there: Any = None
    try:
        if module:
            there = importlib.import_module(module)
    except Exception as error:  # a stranger's code: whatever it raises is its reason
        raise ValueError(f"environment {id}: cannot import {module}: {_one_line(error)}"[:300]) from None
    try:
        gymnasium.spec(name)
        return functools.partial(gymnasium.make, name, disable_env_checker=True)
    except gymnasium.error.Error:
        made: Any = getattr(there, name, None)
    if callable(made):
        return made  # type: ignore[no-any-return]
    near = suggest(name, gymnasium.registry, list_known=False)
    if near:
        way_out = near.removeprefix(": ")
    elif callable(getattr(there, "parallel_env", None)):
        way_out = f"did you mean {module}:parallel_env?"
    else:
        way_out = "module:Id imports its package first, module:function calls a function of it"
    raise UnknownName(f"Gymnasium knows no environment {name!r}: {way_out}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def make_external(id: str, options: dict[str, Any]) -> Any:
    """One environment, a `gymnasium.Env` without the passive checker or a PettingZoo `ParallelEnv`.

    `workers` and `timeout` in `options` are not its constructor's. Raises UnknownName or ValueError, one line each.
    """
    options, _, _ = own_options(id, options)
    make = _factory(id)
    if "render_mode" in options:
        raise ValueError(f"environment {id}: leave render_mode out, pictures are drawn by an environment of their own")
    try:
        env = make(**options)
    except Exception as error:  # a stranger's constructor: whatever it raises is its reason
        reason = _one_line(error).partition(" was raised from the environment creator")[0]
        raise ValueError(f"environment {id} cannot be made: {type(error).__name__}: {reason}"[:300]) from error
    if isinstance(env, AECEnv):
        way_out = "name its parallel_env, or wrap it with pettingzoo.utils.conversions.turn_based_aec_to_parallel"
        raise ValueError(f"environment {id} takes turns (AEC): {way_out}")
    if not isinstance(env, (gymnasium.Env, ParallelEnv)):
        raise ValueError(f"environment {id} gives a {type(env).__name__}: a gymnasium.Env or a ParallelEnv is wanted")
    return env
