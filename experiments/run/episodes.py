"""Playing held-out episodes: the loop, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...agents.protocol import Agent, Mode, restart
from ...agents.registry import make_agent
from ...envs.batch import BatchEnv
from ...envs.make import make
from ...envs.rng import copy_seeds
from ...store.arrays import Array

HELD_OUT = 0x6865_6C64_2D6F_7574  # keeps evaluation seeds apart from training seeds ("held-out" in ASCII)


BATCH = 1024  # episodes that run side by side


EXTERNAL_BATCH = 32


LONGEST = 100_000  # steps of an episode that nothing ends; what it got until then is its return


class Evaluation(NamedTuple):
    """One evaluation: E episodes, each from its own seed; a return is the mean over the agents of a copy."""

    returns: Array  # float64 (E,)
    lengths: Array  # int64 (E,)
    random: Array | None  # float64 (E,): exact expected return of random actions in that very episode
    optimal: Array | None
    meaning: str
    unfinished: int  # episodes that were cut at `LONGEST` steps


def run_episodes(
    agent: Agent | str,
    env_id: str,
    options: dict[str, Any],
    episodes: int,
    seed: int,
    mode: Mode = "greedy",
    lines: bool = True,
    agent_options: dict[str, Any] | None = None,
    wrap: Callable[[BatchEnv], BatchEnv] | None = None,
) -> Evaluation:
    """Play `episodes` held-out episodes. Equal (env_id, options, episodes, seed) begin equally for every agent.

    `agent` may be the name of an agent that needs no training, with its options. `lines`: compute the yardstick where the
    world has one. `wrap`: what the agent plays in instead of the environment as it is made,
    such as `envs.wrappers.ObservationTransform`.
    """
    seeds = copy_seeds((seed ^ HELD_OUT) % 2**64, episodes)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    randoms: list[Array] = []
    optima: list[Array] = []
    meaning, unfinished = "", 0
    player = agent
    size = min(BATCH if _native(env_id) else EXTERNAL_BATCH, episodes)

    def made(copies: int) -> BatchEnv:
        env = make(env_id, options, num_envs=copies)
        return wrap(env) if wrap else env

    env = made(size)
    for first in range(0, episodes, size):
        rows = np.arange(first, min(first + size, episodes))
        if len(rows) < size:  # the last batch; all others share one environment, whose workers start once
            env.close()
            env = made(len(rows))
        if isinstance(player, str):  # once: made anew, it would play the same random actions in every batch
            player = make_agent(player, agent_options or {}, env, seed)
        obs = env.reset(seeds[rows])
        line = env.yardstick() if lines else None
        if line and line.player < 0:  # returns here are means over agents; one opponent's value is no line for them
            randoms.append(line.random)
            optima.append(line.optimal)
            meaning = line.meaning
        carry = player.initial(len(rows))
        running = np.ones(len(rows), np.bool_)
        for _ in range(LONGEST):
            action, carry, _ = player.act(obs, carry, mode)
            step = env.step(action)
            restart(player, carry, step)
            obs = step.obs
            returns[rows[running]] += step.reward[running].mean(1)
            lengths[rows[running]] += 1
            ended = env.episodes()
            fresh = running[ended.env]  # a copy plays on after its episode; only the first one counts
            copies = ended.env[fresh]
            returns[rows[copies]] = ended.return_[fresh].mean(1)
            lengths[rows[copies]] = ended.length[fresh]
            running[copies] = False
            if not running.any():
                break
        unfinished += int(running.sum())
    env.close()
    return Evaluation(
        returns,
        lengths,
        np.concatenate(randoms) if randoms else None,
        np.concatenate(optima) if optima else None,
        meaning,
        unfinished,
    )


def _native(env_id: str) -> bool:
    from ...envs.names import is_external

    return not is_external(env_id)
