"""Deep Q-learning, measured over training seeds: what each option buys, CartPole, deep exploration, speed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.registry import make_agent
from gumdrop.configs.loader import resolve
from gumdrop.configs.schema import RunConfig
from gumdrop.envs.make import make
from gumdrop.experiments import statistics
from gumdrop.experiments.bench.bench import in_turns, rate
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.evaluate import evaluate_run
from gumdrop.experiments.run.train import train

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]
SEEDS = 10

LADDER: dict[str, dict[str, Any]] = {
    "naive": {"replay": False, "target_update_interval": 0},
    "replay": {"target_update_interval": 0},
    "replay and target network": {"target_update_interval": 250},
}
# Found with seeds 100 - 105: slower and with tanh, replay alone loses little; faster or with relu, its values run away always.
LADDER_AGENT: dict[str, Any] = {"activation": "tanh", "learning_rate": 0.0015}
LADDER_RUN: dict[str, Any] = {
    # slips, starts anywhere; with a price on every step the return says how short the way was
    "env": {"id": "four-rooms", "step_reward": -0.01}, "num_envs": 8, "steps": 40_000, "eval_episodes": 200,
}  # fmt: skip
DEEP_SEA: dict[str, Any] = {
    # bsuite's board as one sees it whole; 800 episodes of 10 steps
    "env": {"id": "deep-sea", "size": 10, "time_limit": 10, "move_cost": 0.001, "observe": "codes", "view": 0},
    "num_envs": 8, "steps": 8_000, "eval_episodes": 10,
}  # fmt: skip
DEEP_SEA_AGENT: dict[str, Any] = {
    "num_steps": 10, "hidden": [64], "learning_starts": 100, "update_every": 2, "target_update_interval": 50,
}  # fmt: skip
EXPLORERS: dict[str, dict[str, Any]] = {
    "epsilon": {},
    "noisy": {"noisy": True},
    "ensemble_size": {"ensemble_size": 10, "prior_scale": 1.0},
}


def final_return(run: dict[str, Any], agent: dict[str, Any], seed: int, folder: Path) -> float:
    """Mean greedy return after training."""
    config = RunConfig(**run, agent={"name": "dqn"} | agent, seed=seed, threads=1, checkpoint_seconds=1e6)
    train(config, folder, live=False)
    return float(evaluate_run(folder)["agent"]["mean"])


def improvement(better: list[float], worse: list[float]) -> dict[str, Any]:
    """Probability that a run of `better` beats one of `worse`, with its 95 % interval."""
    found = statistics.improvement(better, worse, np.random.Generator(np.random.PCG64(0)))
    return {"probability": found.value, "ci95": found.ci95}


def test_each_step_of_the_ladder_improves(tmp_path: Path, proof: Proof) -> None:
    runs = {
        name: [final_return(LADDER_RUN, options | LADDER_AGENT, seed, tmp_path / f"{name}-{seed}") for seed in range(SEEDS)]
        for name, options in LADDER.items()
    }
    names = list(runs)
    steps = {f"{b} over {a}": improvement(runs[b], runs[a]) for a, b in zip(names, names[1:], strict=False)}
    figures = {
        "run": LADDER_RUN,
        "options": LADDER,
        "agent": LADDER_AGENT,
        "seeds": SEEDS,
        "final_returns": runs,
        "improvement": steps,
    }
    proof("dqn-ladder", figures)
    assert all(step["probability"] > 0.75 for step in steps.values())


@pytest.mark.parametrize("world", ["cartpole", "CartPole-v1"])
def test_cartpole_within_150_000_steps(world: str, tmp_path: Path, proof: Proof) -> None:
    runs = []
    for seed in range(SEEDS):
        config = resolve("cartpole-dqn", None, [f"env.id={world}"], {"seed": seed})
        summary = train(config, tmp_path / str(seed), live=False)
        result = evaluate_run(tmp_path / str(seed), 20)["agent"]
        seconds = round(summary["seconds"], 2)
        runs.append({"seed": seed, "env_steps": summary["env_steps"], "seconds": seconds, "mean": result["mean"]})
    proof(f"cartpole-dqn-{world}", {"preset": "cartpole-dqn", "world": world, "episodes": 20, "runs": runs})
    assert all(run["env_steps"] <= 150_000 for run in runs)
    assert all(run["mean"] >= 475 for run in runs[:5])  # what was asked for: 5 of 5 seeds; the file shows all ten


def test_deep_sea_wants_deep_exploration(tmp_path: Path, proof: Proof) -> None:
    """Solved: the greedy policy goes right all the way, for .99."""
    from scipy import stats

    runs = {
        name: [final_return(DEEP_SEA, DEEP_SEA_AGENT | options, seed, tmp_path / f"{name}-{seed}") for seed in range(SEEDS)]
        for name, options in EXPLORERS.items()
    }
    solved = {name: sum(value > 0.9 for value in values) for name, values in runs.items()}
    figures = {
        "run": DEEP_SEA, "agent": DEEP_SEA_AGENT, "options": EXPLORERS, "seeds": SEEDS, "final_returns": runs, "solved": solved,
    }  # fmt: skip
    proof("dqn-deep-sea", figures)
    # 800 episodes of coin flips find the treasure in half of the runs; epsilon, which soon prefers the free way, in a few.
    table = [[solved[name], SEEDS - solved[name]] for name in ("heads", "epsilon")]
    assert solved["heads"] == SEEDS and stats.fisher_exact(table, "greater").pvalue < 0.01


class Trainee:
    """Ours, a rollout and an update at a time, with stable-baselines3's network, batch size and update-to-data ratio."""

    def __init__(self, world: str, learner: str) -> None:
        options = {
            "batch_size": 32,
            "update_every": 4,
            "learning_starts": 100,
            "learner": learner,
            "target_update_interval": 2500,
        }
        self.env = make(world, {}, num_envs=8)
        self.agent: Any = make_agent("dqn", options, self.env, 0)
        self.collector = Collector(self.env, self.agent)
        self.collector.begin(self.env.reset(0))

    def burst(self) -> int:
        self.agent.learn(self.collector.rollout(self.agent.num_steps), 1.0)
        return int(self.env.num_envs * self.agent.num_steps)

    def learn(self) -> int:
        """Gradient steps alone."""
        sample = self.agent.replay.uniform(self.agent.rng, 32, 32, 0.99)
        self.agent.learner.learn(self.agent.replay, sample, False, 1e-4, 10.0)
        return 32


def test_speed_beside_stable_baselines3(proof: Proof) -> None:
    """CartPole-v1, batch 32, a gradient step every 4 steps, two layers of 64, one core each; all in turns."""
    import torch
    from stable_baselines3 import DQN

    torch.set_num_threads(1)
    model = DQN("MlpPolicy", "CartPole-v1", batch_size=32, train_freq=4, gradient_steps=1, seed=0, device="cpu")

    def theirs() -> int:
        model.learn(500, reset_num_timesteps=False)
        return 500

    fused, torchs, own = Trainee("CartPole-v1", "fused"), Trainee("CartPole-v1", "torch"), Trainee("cartpole", "fused")
    rivals = {"fused": fused.burst, "torch": torchs.burst, "fused, our engine": own.burst, "stable-baselines3": theirs}
    for burst in rivals.values():
        rate(burst, 1.0)  # compiled, warm, learning
    seen = in_turns(rivals, 15.0)
    steps = in_turns({"fused": fused.learn, "torch": torchs.learn}, 5.0)
    figures: dict[str, Any] = {
        "what": "CartPole-v1, batch 32, a gradient step every 4 environment steps, hidden 64, 64; environment steps a second",
        "steps_per_second": {name: float(np.median(found)) for name, found in seen.items()},
        "times_stable_baselines3": {
            name: float(np.median(seen[name] / seen["stable-baselines3"])) for name in rivals if name != "stable-baselines3"
        },
        "gradient_steps_per_second": {name: float(np.median(found)) for name, found in steps.items()},
        "fused_to_torch": float(np.median(steps["fused"] / steps["torch"])),
    }  # fmt: skip
    proof("dqn-speed", figures)
    assert figures["times_stable_baselines3"]["fused"] > 1
