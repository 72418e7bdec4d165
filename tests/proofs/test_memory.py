"""What memory contributes on T-mazes: PPO with each belief, with it untrained, and without, over training seeds.

Oracle: a policy that does not remember the cue gets 1/2 at most, one that does gets 1. Training is shaped by the
distance to the goal, which changes no policy's rank and shows no cue; success is measured without.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from gumdrop.agents.core import make_agent
from gumdrop.agents.runtime.collect import Collector
from gumdrop.agents.runtime.evaluate import run_episodes
from gumdrop.envs.registry import make

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]
SEEDS, EPISODES, HELD_OUT = 5, 500, 1_000_000
GAMMA = 0.99
SHAPED = {"shaping": "distance", "shaping_gamma": GAMMA, "shaping_scale": 0.1}


class Task(NamedTuple):
    size: int  # of the T-maze: steps along its corridor
    time_limit: int
    copies: int
    num_steps: int  # longer than an episode of who knows the way
    steps: int
    ppo: dict[str, Any]


COMMON: dict[str, Any] = {
    "encoder": "symbols", "hidden": [32], "gamma": GAMMA, "learning_rate": 3e-3, "ent_coef": 0.02, "minibatches": 8,
}  # fmt: skip
SHORT = Task(20, 60, 128, 64, 400_000, COMMON)
LONG = Task(100, 200, 128, 128, 3_000_000, {**COMMON, "ent_coef": 0.01})
BELIEFS: dict[str, tuple[Task, dict[str, Any]]] = {
    "gru, corridor 20": (SHORT, {"belief": {"name": "gru", "hidden": 32, "span": 40}, "hidden": []}),
    "lstm, corridor 20": (SHORT, {"belief": {"name": "lstm", "hidden": 32, "span": 40}}),
    "tcn, corridor 20": (SHORT, {"belief": {"name": "tcn", "width": 32, "taps": 3, "layers": 3}}),
    "transformer, corridor 20": (
        SHORT, {"belief": {"name": "transformer", "width": 32, "layers": 1, "heads": 2, "window": 32}},
    ),
}  # fmt: skip


def success(task: Task, options: dict[str, Any], seed: int) -> dict[str, Any]:
    world = {"size": task.size, "time_limit": task.time_limit}
    env = make("t-maze", {**world, **SHAPED}, num_envs=task.copies, seed=seed)
    agent = make_agent("ppo", {**task.ppo, "num_steps": task.num_steps, **options}, env, seed)
    collector = Collector(env, agent)
    collector.begin(env.reset(seed))
    updates, began = task.steps // (task.copies * task.num_steps), time.perf_counter()
    for update in range(updates):
        agent.learn(collector.rollout(task.num_steps), update / updates)
    seconds = time.perf_counter() - began
    found = run_episodes(agent, "t-maze", world, EPISODES, HELD_OUT, lines=False).returns.mean()
    return {"seed": seed, "success": float(found), "seconds": round(seconds, 1)}


def arms(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    belief = options["belief"]
    without = {**options, "belief": None, "hidden": [32]}
    return {"trained": options, "untrained": {**options, "belief": {**belief, "untrained": True}}, "none": without}


def over_seeds(values: list[float]) -> dict[str, Any]:
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.mean(values), "ci95": [statistics.mean(values) - half, statistics.mean(values) + half]}


@pytest.mark.parametrize("name", BELIEFS)
def test_memory_is_worth_the_cue(name: str, proof: Proof) -> None:
    from scipy import stats

    task, options = BELIEFS[name]
    runs = {arm: [success(task, chosen, seed) for seed in range(SEEDS)] for arm, chosen in arms(options).items()}
    values = {arm: [run["success"] for run in found] for arm, found in runs.items()}
    low, high = stats.ttest_ind(values["trained"], values["untrained"], equal_var=False).confidence_interval(0.95)
    found = {arm: over_seeds(seen) for arm, seen in values.items()}
    proof(f"memory-{name.replace(', ', '-').replace(' ', '-')}", {
        "headline": [[f"success, {arm}", f"{mean['mean']:.3f}"] for arm, mean in found.items()],
        "task": task._asdict(), "options": options, "seeds": list(range(SEEDS)), "arms": found,
        "trained_minus_untrained": {
            "difference": found["trained"]["mean"] - found["untrained"]["mean"], "ci95": [float(low), float(high)],
        },
        "runs": runs,
    })  # fmt: skip
    assert found["trained"]["mean"] >= 0.95
    assert max(values["none"]) <= 0.6
    assert low > 0
