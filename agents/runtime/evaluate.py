"""Evaluation on held-out episodes, between the line of random actions and the line of what is provably best."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...configs.loader import read_run
from ...configs.schema import RunConfig
from ...envs.core import BatchEnv
from ...envs.registry import make
from ...envs.rng import copy_seeds
from ..core import Agent, Array, Mode, make_agent, restart
from . import checkpoint
from .system import read_json, write_json

HELD_OUT = 0x6865_6C64_2D6F_7574  # keeps evaluation seeds apart from training seeds ("held-out" in ASCII)
BATCH = 1024  # episodes that run side by side
FOREIGN_BATCH = 32
LONGEST = 100_000  # steps of an episode that nothing ends; what it got until then is its return
SAMPLE = 64  # episodes that the lines of the live view are computed from


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
    world has one. `wrap`: what the agent plays in instead of the environment as it is made, such as `envs.wrappers.Seen`.
    """
    seeds = copy_seeds((seed ^ HELD_OUT) % 2**64, episodes)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    randoms: list[Array] = []
    optima: list[Array] = []
    meaning, unfinished = "", 0
    player = agent
    size = min(BATCH if _native(env_id) else FOREIGN_BATCH, episodes)

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
            fresh = running[ended.copy]  # a copy plays on after its episode; only the first one counts
            copies = ended.copy[fresh]
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
    from ...envs.registry import is_foreign

    return not is_foreign(env_id)


def interval(values: Array) -> list[float]:
    """95 % confidence interval of the mean (normal approximation, over independent episodes)."""
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return [float(values.mean()) - half, float(values.mean()) + half]


def _figures(returns: Array) -> dict[str, Any]:
    return {"mean": float(returns.mean()), "ci95": interval(returns), "returns": returns.tolist()}


def report_of(result: Evaluation, random: Evaluation | None, seed: int, mode: Mode) -> dict[str, Any]:
    """The document of `evaluation.json`."""
    document: dict[str, Any] = {
        "episodes": len(result.returns), "seed": seed, "mode": mode, "agent": _figures(result.returns),
        "random": _figures(random.returns) if random else None, "optimal": None,
        "share_of_optimal": None, "normalised": None, "length_mean": float(result.lengths.mean()),
        "unfinished": result.unfinished,
    }  # fmt: skip
    if result.optimal is not None and result.random is not None:
        best, chance, mean = (
            float(result.optimal.mean()),
            float(result.random.mean()),
            float(result.returns.mean()),
        )
        document["optimal"] = {"mean": best, "meaning": result.meaning}
        document["random_exact"] = chance
        document["share_of_optimal"] = mean / best if best > 0 else None
        # Ratio of means over paired episodes, by the delta method (Cochran 1977, Sampling Techniques, section 6.3).
        half = interval(result.returns - mean / best * result.optimal)[1] / best if best > 0 else 0.0
        document["share_ci95"] = [mean / best - half, mean / best + half] if best > 0 else None
        document["normalised"] = (mean - chance) / (best - chance) if best > chance else None
    return document


def evaluate_named(
    name: str, env_id: str, options: dict[str, Any], episodes: int, seed: int, agent_options: dict[str, Any] | None = None,
    mode: Mode = "sample",
) -> dict[str, Any]:  # fmt: skip
    """Evaluate an agent that needs no training. Layout of `evaluation.json`."""
    result = run_episodes(name, env_id, options, episodes, seed, mode, agent_options=agent_options)
    random = result if name == "random" else run_episodes("random", env_id, options, episodes, seed, "sample", lines=False)
    return report_of(result, random, seed, mode)


def load_run(folder: Path) -> tuple[Agent, RunConfig, list[str]]:
    """The trained agent of a run, its configuration, and warnings about damaged checkpoints."""
    config = read_run(folder / "config.yaml")
    found = checkpoint.load(folder)
    env = make(config.env_id, config.env_options, num_envs=1)
    agent = make_agent(config.agent_name, config.agent_options, env, config.seed, config.threads or 1)
    env.close()
    if "agent" not in found.tensors:
        raise checkpoint.CheckpointError(f"checkpoint {found.path.name} holds no agent: train it again")
    agent.load_state_dict(found.tensors["agent"])
    return agent, config, found.warnings


def evaluate_run(folder: Path, episodes: int | None = None, seed: int = 1_000_000, mode: Mode = "greedy") -> dict[str, Any]:
    """Evaluate a run beside random actions on the same episodes; greedily, it is written to `evaluation.json` in its folder."""
    agent, config, _ = load_run(folder)
    count = episodes or config.eval_episodes
    result = run_episodes(agent, config.env_id, config.env_options, count, seed, mode)
    random = run_episodes("random", config.env_id, config.env_options, count, seed, "sample", lines=False)
    document = report_of(result, random, seed, mode)
    if mode != "greedy":  # what compares runs reads the file
        return document
    saved = folder / "evaluation.json"
    longest = read_json(saved).get("episodes")
    if type(longest) is not int or longest <= count:  # a quick look replaces no longer one
        write_json(saved, document)
    return document


def yardstick_sample(config: RunConfig) -> dict[str, Any] | None:
    """Mean random and optimal return over a few held-out episodes: the two lines that a learning curve is drawn between."""
    if not _native(config.env_id):
        return None
    env: BatchEnv = make(config.env_id, config.env_options, num_envs=SAMPLE)
    env.reset(copy_seeds(config.seed ^ HELD_OUT, SAMPLE))
    line = env.yardstick()
    env.close()
    if line is None or line.player >= 0:
        return None
    return {
        "random": float(line.random.mean()),
        "optimal": float(line.optimal.mean()),
        "meaning": line.meaning,
    }
