"""Evaluation on held-out episodes, between the line of random actions and the line of what is provably best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...agents.protocol import Mode
from ...agents.saved import load_run
from ...envs.batch import BatchEnv
from ...envs.make import make
from ...envs.rng import copy_seeds
from ...store.arrays import Array
from ...store.run_folder import RunFolder
from ..statistics import mean_interval
from .episodes import HELD_OUT, Evaluation, _native, run_episodes

SAMPLE = 64  # episodes that the lines of the live view are computed from


def _figures(returns: Array) -> dict[str, Any]:
    return {"mean": float(returns.mean()), "ci95": mean_interval(returns), "returns": returns.tolist()}


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
        half = mean_interval(result.returns - mean / best * result.optimal)[1] / best if best > 0 else 0.0
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


def evaluate_run(
    folder: RunFolder | Path, episodes: int | None = None, seed: int = 1_000_000, mode: Mode = "greedy",
    checkpoint: str = "latest",
) -> dict[str, Any]:  # fmt: skip
    """Evaluate a run beside random actions on the same episodes. `checkpoint`: as `RunFolder.checkpoint` has it.

    The greedy evaluation of the latest checkpoint is written to the run's folder, where comparisons of runs read it.
    """
    run = RunFolder(folder)
    found = run.checkpoint(checkpoint)
    agent, config, _ = load_run(run, found)
    count = episodes or config.eval_episodes
    result = run_episodes(agent, config.env_id, config.env_options, count, seed, mode)
    random = run_episodes("random", config.env_id, config.env_options, count, seed, "sample", lines=False)
    document = report_of(result, random, seed, mode) | {"checkpoint": checkpoint, "checkpoint_env_steps": found.step}
    if mode != "greedy" or checkpoint != "latest":
        return document
    longest = run.read_evaluation().get("episodes")
    if type(longest) is not int or longest <= count:  # a quick look replaces no longer one
        run.write_evaluation(document)
    return document


def yardstick_sample(env_id: str, options: dict[str, Any], seed: int) -> dict[str, Any] | None:
    """Mean random and optimal return over a few held-out episodes: the two lines that a learning curve is drawn between."""
    if not _native(env_id):
        return None
    env: BatchEnv = make(env_id, options, num_envs=SAMPLE)
    env.reset(copy_seeds(seed ^ HELD_OUT, SAMPLE))
    line = env.yardstick()
    env.close()
    if line is None or line.player >= 0:
        return None
    return {
        "random": float(line.random.mean()),
        "optimal": float(line.optimal.mean()),
        "meaning": line.meaning,
    }
