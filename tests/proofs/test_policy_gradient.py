"""The ladder of policy gradients in a maze that pays at the goal only: what each rung buys, over ten training seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.saved import load_run
from gumdrop.configs.schema import RunConfig
from gumdrop.experiments.run.episodes import run_episodes
from gumdrop.experiments.run.evaluate import yardstick_sample
from gumdrop.experiments.run.train import train
from gumdrop.experiments.statistics import over_seeds, welch

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]

RUNGS = ("immediate", "return", "discounted", "baseline", "critic", "td", "gae")
WORLD, OPTIONS = "four-rooms", {"time_limit": 40}  # random starts, slipping; 1 at the goal, nothing else
STEPS, COPIES, EPISODES, SEEDS = 153_600, 32, 2000, 10
AGENT = {"name": "policy-gradient", "num_steps": 8, "gamma": 0.97}


def earned(folder: Path) -> float:
    """Mean return while learning: the area under the curve of cohorts, over the steps."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    known = [(row["env_steps"], row["return_mean"]) for row in rows if "return_mean" in row]
    return float(np.interp([row["env_steps"] for row in rows], *zip(*known, strict=True)).mean())


def step_up(low: list[float], high: list[float]) -> dict[str, Any]:
    """Difference of means with its 95 % interval (Welch 1947), and the probability that a run of `high` beats one of `low`."""
    wins = [float(x > y) + 0.5 * (x == y) for x in high for y in low]
    return welch(high, low) | {"probability_of_improvement": statistics.mean(wins)}


def test_each_rung_of_the_ladder_is_higher(tmp_path: Path, proof: Proof) -> None:
    final: dict[str, list[float]] = {rung: [] for rung in RUNGS}
    while_learning: dict[str, list[float]] = {rung: [] for rung in RUNGS}
    for seed in range(SEEDS):
        for rung in RUNGS:
            config = RunConfig(
                env={"id": WORLD, **OPTIONS},
                agent={**AGENT, "advantage": rung},
                num_envs=COPIES,
                steps=STEPS,
                seed=seed,
                threads=1,
            )
            folder = tmp_path / f"{rung}-{seed}"
            train(config, folder, live=False)
            agent, _, _ = load_run(folder)
            # The policy as it acts: its expected return is what the gradient is of.
            final[rung].append(
                float(run_episodes(agent, WORLD, OPTIONS, EPISODES, 1_000_000, "sample", lines=False).returns.mean())
            )
            while_learning[rung].append(earned(folder))
    steps = {f"{low} -> {high}": step_up(final[low], final[high]) for low, high in zip(RUNGS, RUNGS[1:], strict=False)}
    steps |= {
        f"{low} -> {high}": step_up(final[low], final[high]) for low, high in (("return", "baseline"), ("baseline", "td"))
    }
    steps |= {"baseline -> gae": step_up(final["baseline"], final["gae"])}
    table = {
        rung: {
            "final": statistics.mean(final[rung]), "ci95": over_seeds(final[rung])["ci95"],
            "while_learning": statistics.mean(while_learning[rung]),
            "while_learning_ci95": over_seeds(while_learning[rung])["ci95"],
        }
        for rung in RUNGS
    }  # fmt: skip
    lines = yardstick_sample(config)
    proof("policy-gradient", {
        "world": WORLD, "options": OPTIONS, "env_steps": STEPS, "environments": COPIES, "agent": AGENT, "episodes": EPISODES,
        "seeds": list(range(SEEDS)), "lines": lines, "rungs": table, "steps_up": steps, "final_returns": final,
        "returns_while_learning": while_learning,
    })  # fmt: skip
    for sure in ("immediate -> return", "return -> baseline"):
        assert steps[sure]["ci95"][0] > 0, sure
    for not_worse in ("baseline -> critic", "baseline -> td", "baseline -> gae"):
        assert steps[not_worse]["ci95"][1] > 0, not_worse
    assert steps["baseline -> gae"]["ci95"][0] > 0
