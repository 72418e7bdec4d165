"""Playing held-out episodes: the loop, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...agents.protocol import Agent, Carry, Mode, restart
from ...agents.registry import make_agent
from ...envs.batch import BatchEnv, Step
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


class Moment(NamedTuple):
    """One step of a batch that an agent plays."""

    obs: Array  # (N, A, ...): what the agent saw, a copy; empty unless `play` was asked to keep it
    action: Array  # (N, A, ...)
    step: Step
    carry: Carry  # the agent's memory after the step, with fresh rows where an episode ended


def play(
    agent: Agent, env: BatchEnv, obs: Array, carry: Carry, mode: Mode, steps: int, autoreset: bool = True,
    keep_obs: bool = False,
) -> Iterator[Moment]:  # fmt: skip
    """The one loop in which an agent plays without learning: act, step, begin anew where an episode ended, `steps` times.

    `obs` (N, A, ...) is what `env` shows now, `carry` what the agent remembers. Leave the loop to stop earlier.
    """
    for _ in range(steps):
        seen = obs.copy() if keep_obs else obs[:0]  # the environment writes the next one into the same array
        action, carry, _ = agent.act(obs, carry, mode, env.action_mask())
        step = env.step(action, autoreset=autoreset)
        if autoreset:
            restart(agent, carry, step)
        yield Moment(seen, action, step, carry)
        obs = step.obs


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

    def made(num_envs: int) -> BatchEnv:
        env = make(env_id, options, num_envs=num_envs)
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
        running = np.ones(len(rows), np.bool_)
        for moment in play(player, env, obs, player.initial(len(rows)), mode, LONGEST):
            returns[rows[running]] += moment.step.reward[running].mean(1)
            lengths[rows[running]] += 1
            ended = env.episodes()
            first_end = running[ended.env]  # an environment plays on after its episode; only the first one counts
            done = ended.env[first_end]
            returns[rows[done]] = ended.return_[first_end].mean(1)
            lengths[rows[done]] = ended.length[first_end]
            running[done] = False
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
