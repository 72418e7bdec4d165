"""What the world model of an agent foresees: recorded steps, a film of true above imagined, and calibration by horizon."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...agents.protocol import Agent, Carry, ModelBased
from ...agents.registry import make_agent
from ...configs.schema import RunConfig
from ...envs.batch import BatchEnv, world_of
from ...envs.draw import render
from ...envs.make import make
from ...envs.rng import copy_seeds
from ...store.arrays import Array
from ...store.json_files import write_json
from ..report.pictures import calibration_png
from ..run.episodes import HELD_OUT, play

FILM, FIGURES = "prediction.gif", "calibration"
SHOWN = 4  # sequences side by side
CELL = 16  # pixels of a cell in a scene


def world_model(agent: Agent) -> Any:
    """The agent's `core_ml.models.protocol.WorldModel`; None: it has none."""
    return agent.world_model if isinstance(agent, ModelBased) else None


def predict(
    agent: Agent, config: RunConfig, out: Path, seed: int = 0, context: int = 4, horizon: int = 15, film: int = 30,
    sequences: int = 1024,
) -> dict[str, list[float]]:  # fmt: skip
    """Write what the agent's model foresees in held-out episodes that the agent plays into the folder `out`: `prediction.gif`,
    `calibration.json` and `calibration.png`. Returns the figures of the second.

    The model sees `context` steps, then foresees `horizon` in the figures, over so many `sequences` that end as `wandering`
    says; in the film as many as its `film` frames leave, from starts of episodes on. Raises ValueError for an agent without a
    model.
    """
    import torch

    from ...core_ml.models.open_loop import calibration, frames, open_loop

    model = world_model(agent)
    if model is None:
        raise ValueError("the agent has no world model, so it foresees nothing")
    env = make(config.env_id, config.env_options, num_envs=32)
    try:
        replay = record(agent, env, seed, max(2 * film, 100))
        blind = wandering(agent, env, seed, context, horizon, sequences)
        draw = drawing(env)
    finally:
        env.close()
    figures = calibration(model, blind, horizon, torch.Generator().manual_seed(seed))
    shown = longest(replay, min(film, replay.steps), SHOWN)
    found = open_loop(model, shown, min(context, shown.reward.shape[1] - 1), torch.Generator().manual_seed(seed))
    out.mkdir(exist_ok=True)
    render.save_animation(frames(model.observation, found, draw), out / FILM, fps=4)
    known = {name: [x if math.isfinite(x) else None for x in values] for name, values in figures.items()}
    write_json(out / f"{FIGURES}.json", {"context": context, "sequences": sequences, "seed": seed, **known})
    calibration_png(figures, out / f"{FIGURES}.png")
    return figures


def record(agent: Agent, env: BatchEnv, seed: int, steps: int) -> Any:
    """`steps` steps of held-out episodes in each copy, agents as streams of their own, as a `core_ml.sequences.SequenceReplay`.
    The agent acts as it does when it learns."""
    replay = _replay(agent, env, steps)
    obs, carry = env.reset(copy_seeds((seed ^ HELD_OUT) % 2**64, env.num_envs)), agent.initial(env.num_envs)
    _play(agent, env, obs, carry, steps, replay)
    return replay


def wandering(agent: Agent, env: BatchEnv, seed: int, context: int, horizon: int, count: int) -> Any:
    """`count` `Sequences` of `context` steps of held-out episodes that the agent plays, and `horizon` steps of random actions
    from there.

    A policy reacts to what chance did. Its actions do not suit a dream in which chance did something else: dreams of an exact
    model would seem to end too early. Random actions suit every dream equally.
    """
    from ...core_ml.data.sequences import Sequences

    n, streams = env.num_envs, env.num_envs * env.num_agents
    blind = make_agent("random", {}, env, seed)
    obs, carry, found = env.reset(copy_seeds((seed ^ HELD_OUT) % 2**64, n)), agent.initial(n), []
    for _ in range(math.ceil(count / streams)):
        replay = _replay(agent, env, context + horizon)
        obs, carry = _play(agent, env, obs, carry, context, replay)
        there = env.get_state()
        _play(blind, env, obs, blind.initial(n), horizon, replay)
        env.set_state(there)
        obs = env.obs
        found.append(replay.at(np.arange(streams), context + horizon))
    return Sequences(*(np.concatenate(parts)[:count] for parts in zip(*found, strict=True)))


def _replay(agent: Agent, env: BatchEnv, steps: int) -> Any:
    from ...core_ml.data.sequences import SequenceReplay

    kind = np.float32 if world_model(agent).observation.kind == "vector" else np.uint8
    return SequenceReplay(
        steps * env.num_envs * env.num_agents, env.observation_space.shape or (), kind,
        env.action_space.shape or (), env.action_space.dtype or np.int64,
    )  # fmt: skip


def _play(agent: Agent, env: BatchEnv, obs: Array, carry: Carry, steps: int, replay: Any) -> tuple[Array, Carry]:
    """`steps` steps into `replay`; what is seen and remembered after them."""
    n, a = env.num_envs, env.num_agents
    after = carry
    for moment in play(agent, env, obs, carry, "sample", steps, keep_obs=True):
        (seen, action, step, after) = moment
        seen = seen.reshape(1, n * a, *seen.shape[2:]).astype(replay.obs.dtype)
        ended = (np.repeat(flag, a)[None] for flag in (step.terminated, step.truncated))
        replay.add(seen, action.reshape(1, n * a, *action.shape[2:]), step.reward.reshape(1, n * a), *ended)
    return env.obs, after


def longest(replay: Any, steps: int, count: int) -> Any:
    """Of all runs of `steps` steps that begin with an episode, the `count` whose first episode is the longest, `Sequences`."""
    streams, last = replay.streams, replay.head - (steps - 1) * replay.streams
    first = np.flatnonzero(replay.is_first[:last])
    found = replay.at(first, steps)
    length = np.where(found.is_first[:, 1:].any(1), 1 + found.is_first[:, 1:].argmax(1), steps)
    chosen = first[np.argsort(-length, kind="stable")[: max(1, min(count, streams))]]
    return replay.at(chosen, steps)


def drawing(env: BatchEnv) -> Callable[[Any], Array] | None:
    """How the world draws what an observation shows: tensor (N, *shape) -> uint8 (N, h, w, 3). None: it cannot."""
    world = world_of(env)
    if world is None or world.sight(env.obs[0, 0]) is None:
        return None
    drawn: dict[bytes, Array] = {}

    def draw(obs: Any) -> Array:
        found = []
        for one in obs.numpy():
            key = one.tobytes()
            if key not in drawn:
                scene = world.sight(one)
                assert scene is not None  # as for the first observation
                drawn[key] = render.draw(scene, CELL)
            found.append(drawn[key])
        return np.stack(found)

    return draw
