"""Watching: whole episodes of one environment, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...agents.protocol import Mode
from ...agents.registry import make_agent
from ...agents.saved import load_run
from ...envs.batch import BatchEnv
from ...envs.draw import render
from ...envs.make import make
from ...envs.rng import copy_seeds
from ...store.arrays import Array
from ...store.run_folder import RunFolder
from .episodes import HELD_OUT, play

LONGEST = 1_000  # frames of an episode that nothing ends
FILM = 120  # frames, about, of an animation that nobody asked for by itself


def rollout(
    source: str | RunFolder,
    env_id: str | None,
    options: dict[str, Any],
    seed: int,
    episodes: int,
    on_frame: Callable[[BatchEnv], None],
    agent_options: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Play `episodes` held-out episodes of a run or of an agent (a name, with `env_id` and its options).

    `on_frame(env)` is called for every state, the last one of an episode included; environment 0 is the one that plays.
    Returns {"return", "length", "terminated"} of each episode.
    """
    if isinstance(source, RunFolder):
        agent, config, _ = load_run(source)
        env_id, options = config.env_id, config.env_options
    mode: Mode = "greedy" if isinstance(source, RunFolder) else "sample"
    assert env_id is not None
    env = make(env_id, options, num_envs=1)
    if isinstance(source, str):
        agent = make_agent(source, agent_options or {}, env, seed)
    results = []
    for episode_seed in copy_seeds((seed ^ HELD_OUT) % 2**64, episodes):
        obs = env.reset(episode_seed[None])
        on_frame(env)
        total, length = 0.0, 0
        for moment in play(agent, env, obs, agent.initial(1), mode, LONGEST, autoreset=False):
            step = moment.step
            total, length = total + float(step.reward.mean()), length + 1
            on_frame(env)
            if step.terminated[0] or step.truncated[0]:
                break
        results.append({"return": total, "length": length, "terminated": bool(step.terminated[0])})
    env.close()
    return results


def film(run: RunFolder, length: float) -> tuple[list[Array], int]:
    """Pictures, uint8 (H, W, 3), of one or two episodes of a run, and how many to show in a second.

    `length`: how many steps its episodes have. Of long ones every so many a state is drawn, and shown faster.
    """
    every = max(1, math.ceil(length / FILM))
    frames: list[Array] = []
    seen = 0

    def on_frame(env: BatchEnv) -> None:
        nonlocal seen
        if seen % every == 0:
            frames.append(render.rgb(env, 0))
        seen += 1

    rollout(run, None, {}, 0, 2 if 2 * length <= FILM else 1, on_frame)
    return frames, min(6 * every, 30)
