"""Spaces of external environments as our interface has them, and the conversion of values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.spaces.utils import flatten, flatten_space

from ...store.arrays import Array


def _fixed(space: gymnasium.spaces.Space[Any]) -> bool:
    """Whether every element of `space` flattens to equally many numbers."""
    try:
        return isinstance(flatten_space(space), Box)
    except NotImplementedError:
        return False


def _sized(space: gymnasium.spaces.Space[Any]) -> gymnasium.spaces.Space[Any]:
    """`space`; of a Dict that as a whole has no fixed size, those entries that have one (not MiniGrid's mission)."""
    if isinstance(space, Dict) and not _fixed(space):
        return Dict({key: part for key, part in space.items() if _fixed(part)})
    return space


def _flatten(space: gymnasium.spaces.Space[Any]) -> Callable[[Any], Any]:
    """What flattens elements of a space, of which only what is `_sized` remains."""
    sized = _sized(space)
    if sized is space:
        return functools.partial(flatten, space)
    keys = list(sized.keys())  # type: ignore[attr-defined]
    return lambda obs: flatten(sized, {key: obs[key] for key in keys})


def _observation(space: gymnasium.spaces.Space[Any], id: str) -> tuple[Box, bool]:
    """The Box that agents see, and whether observations must be flattened to lie in it."""
    if isinstance(space, Box):
        if space.dtype != np.float64:
            return space, False
        with np.errstate(over="ignore"):  # bounds beyond float32 become infinite
            return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32), False
    space = _sized(space)
    flat: Any = flatten_space(space) if _fixed(space) else None
    if not isinstance(flat, Box):
        raise ValueError(f"environment {id}: observation space {space} has no fixed size: wrap it into a Box")
    with np.errstate(over="ignore"):
        return Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32), True


MASK = "action_mask"  # the key of a mask, in a Dict observation or in `info`: PettingZoo's and Gymnasium's usual name


def split_mask(
    space: gymnasium.spaces.Space[Any], action: gymnasium.spaces.Space[Any], id: str
) -> tuple[gymnasium.spaces.Space[Any], Callable[[Any], Any] | None]:
    """The part of a Dict observation that agents see, and what takes it out of an observation; None: there is no mask in it.

    A Dict with "observation" and "action_mask" shows its "observation", one with other entries all but the mask. Raises
    ValueError, one line, where the mask does not fit the actions.
    """
    if not isinstance(space, Dict) or MASK not in space.spaces:
        return space, None
    shape = space[MASK].shape
    if not isinstance(action, Discrete) or shape != (int(action.n),):
        way_out = f"a mask has a number for each of Discrete's actions: rename the entry, or give {MASK}=false"
        raise ValueError(f"environment {id}: observation[{MASK!r}] has shape {shape} and actions are {action}: {way_out}")
    rest = {key: part for key, part in space.items() if key != MASK}
    if not rest:
        raise ValueError(f"environment {id}: its observation holds an {MASK} and nothing else: add what the agent sees")
    if list(rest) == ["observation"]:
        return space["observation"], lambda seen: seen["observation"]
    return Dict(rest), lambda seen: {key: seen[key] for key in rest}


def read_mask(mask: Any, out: Array, what: str) -> None:
    """Write a mask into `out`, bool (actions,): true where it is not 0. One without a legal action allows all: that of an
    agent whose turn it is not, or after an episode's end, where what is chosen is ignored. Raises ValueError for a mask of
    another shape."""
    given = np.asarray(mask)
    if given.shape != out.shape or given.dtype.kind not in "biu":
        raise ValueError(f"{what} is {given.dtype}{given.shape}: give 0 or 1 for each of {len(out)} actions")
    np.not_equal(given, 0, out=out)
    if not out.any():
        out[:] = True


def _action(space: gymnasium.spaces.Space[Any], id: str) -> Discrete | Box:
    """The action space that agents see: Discrete from 0, or a float32 Box."""
    if isinstance(space, Discrete):
        return Discrete(int(space.n))
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    raise ValueError(f"environment {id}: action space {space} is not supported: wrap it into a Discrete or a float Box")
