"""What the views share: the engine behind them, frames, windows, and the check of one action."""

from __future__ import annotations

import operator
from typing import Any

import gymnasium
import numpy as np

from ..draw.window import Window, need_pygame
from ..engine.engine import Engine
from ..gym_ids import register_ids
from ..registry import make_world, presets, worlds
from ..world import World

RENDER_MODES = ("ansi", "rgb_array", "human")

OVER = "the episode is over: call reset()"
METADATA: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 8}


def register_all() -> None:
    """Register every world and preset known by now with Gymnasium, plugins' and the calling script's included."""
    register_ids([*worlds(), *presets()])


def _engine(
    world: str | World,
    options: dict[str, Any],
    num_envs: int,
    threads: int | None,
    view: str,
    render_mode: str | None,
) -> Engine:
    """The engine behind a view. Raises ValueError where the view cannot show or draw that world."""
    if render_mode is not None and render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode is {render_mode!r}: {view} knows {', '.join(RENDER_MODES)}")
    if render_mode == "human":
        need_pygame()  # before anything is compiled
    if isinstance(world, World):
        if options:
            raise ValueError(f"options {', '.join(options)} come too late: world {world.name} is made already")
    else:
        world = make_world(world, options)
    if view != "ParallelView" and world.num_agents != 1:
        raise ValueError(f"world {world.name} has {world.num_agents} agents here and {view} shows one: use ParallelView")
    return Engine(world, num_envs=num_envs, threads=threads)


def _frame(engine: Engine, i: int, mode: str | None) -> Any:
    """Environment `i` as text ("ansi") or as uint8 (H, W, 3) ("rgb_array"); for "human" its window is up to date already."""
    from ..draw import render  # drawing needs pillow: only for those who draw

    if mode == "human":
        return None
    if mode is None:
        gymnasium.logger.warn(f"render() without a render_mode: make the view with one of {', '.join(RENDER_MODES)}")
        return None
    return render.text(engine, i) if mode == "ansi" else render.rgb(engine, i)


def _masked(engine: Engine, i: int, k: int = 0) -> dict[str, Any]:
    """The `info` of agent `k` in environment `i`: its mask as "action_mask", int8 (actions,), where the world has masks."""
    mask = engine.action_mask()
    return {} if mask is None else {"action_mask": mask[i, k].astype(np.int8)}


def _window(engine: Engine, mode: str | None) -> Window | None:
    """The window of a view, for render_mode "human" only; it opens with the first frame."""
    return Window(f"gumdrop {engine.id}", METADATA["render_fps"]) if mode == "human" else None


def _show(window: Window, engine: Engine) -> None:
    """Bring `window` up to date with environment 0."""
    from ..draw import render

    window.show(render.rgb(engine, 0))


def _one_action(action: Any, space: gymnasium.spaces.Space[Any], whole: bool) -> Any:
    """`action` as the engine stores it: an int, or numbers of the space's shape. Raises ValueError."""
    if whole:
        try:
            return operator.index(action)
        except TypeError:
            raise ValueError(f"action {action!r} is not one whole number: {space} wants one") from None
    if np.shape(action) != space.shape:
        raise ValueError(f"action has shape {np.shape(action)}: {space} wants {space.shape}")
    return action
