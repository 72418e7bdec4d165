"""What an encoder contributes to a policy that sees a maze as an image of 16 x 16 pixels, after 20,000 steps.

Oracle: every start can reach the goal within the time limit, so success 1 is possible.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from gumdrop.agents.core import make_agent
from gumdrop.agents.runtime.collect import Collector
from gumdrop.agents.runtime.evaluate import run_episodes
from gumdrop.envs.registry import make

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]
SEEDS, COPIES, STEPS, EPISODES, HELD_OUT = 5, 16, 20_000, 500, 1_000_000
WORLD = {
    "layout": "rooms", "rooms": 2, "size": 16, "view": 0, "observe": "rgb", "fresh": False, "start": "random", "time_limit": 60,
}  # fmt: skip
PPO: dict[str, Any] = {"num_steps": 64, "learning_rate": 3e-3, "epochs": 8, "minibatches": 8, "gamma": 0.97}
LEARNS = {"size": 32, "updates": 40}
ARMS: dict[str, Any] = {
    "autoencoder": {"name": "autoencoder", **LEARNS},
    "vae": {"name": "vae", "warmup": 100, **LEARNS},
    "untrained": {"name": "autoencoder", **LEARNS, "untrained": True},
    "none": None,
}


def success(encoder: Any, seed: int) -> float:
    env = make("maze", WORLD, num_envs=COPIES, seed=seed)
    agent = make_agent("ppo", {**PPO, "encoder": encoder}, env, seed)
    collector = Collector(env, agent)
    collector.begin(env.reset(seed))
    updates = STEPS // (COPIES * agent.num_steps)
    for update in range(updates):
        agent.learn(collector.rollout(agent.num_steps), update / updates)
    return float(run_episodes(agent, "maze", WORLD, EPISODES, HELD_OUT, "sample", lines=False).returns.mean())


def test_codes_are_worth_more_than_pixels(proof: Proof) -> None:
    from scipy import stats

    runs = {arm: [success(encoder, seed) for seed in range(SEEDS)] for arm, encoder in ARMS.items()}
    found = {}
    for arm, values in runs.items():
        half = float(stats.t.ppf(0.975, SEEDS - 1)) * statistics.stdev(values) / math.sqrt(SEEDS)
        mean = statistics.mean(values)
        found[arm] = {"mean": mean, "ci95": [mean - half, mean + half], "success": values}
    gaps = {}
    for arm in ("autoencoder", "vae"):
        ends = stats.ttest_ind(runs[arm], runs["untrained"], equal_var=False).confidence_interval(0.95)
        gaps[arm] = {"points": 100 * (found[arm]["mean"] - found["untrained"]["mean"]), "ci95": [100 * float(e) for e in ends]}
    proof("encoders", {
        "headline": [[f"success after 20,000 steps, {arm}", f"{seen['mean']:.2f}"] for arm, seen in found.items()],
        "world": WORLD, "ppo": PPO, "encoders": ARMS, "env_steps": STEPS, "seeds": list(range(SEEDS)), "arms": found,
        "over_untrained": gaps,
    })  # fmt: skip
    assert max(gap["points"] for gap in gaps.values()) >= 15
    assert max(gap["ci95"][0] for gap in gaps.values()) > 0
