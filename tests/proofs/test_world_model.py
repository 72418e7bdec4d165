"""The world model: how fast it dreams, and what a controller that learned in dreams alone is worth in the world."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.agents.runtime.evaluate import load_run, run_episodes, yardstick_sample
from gumdrop.agents.runtime.train import train
from gumdrop.agents.slots.dream import DreamEnv
from gumdrop.configs.schema import RunConfig
from gumdrop.core_ml.observations import Observation
from gumdrop.core_ml.rssm import RSSM

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]

WORLD, LIMIT, COPIES, STEPS, SEEDS, EPISODES = "frozenlake", 100, 32, 60_000, 5, 2000
DREAMER = {
    "name": "dreamer", "updates": 32, "length": 4, "batch_size": 64, "horizon": 10, "learning_starts": 8000, "ent_coef": 0.02,
    "behaviour": {"least_scale": 0.2, "slow": 0.05},
    "dynamics": {
        "groups": 1, "classes": 32, "usage": 2.0, "unimix": 0.003, "representation": 0.0, "hidden": [128], "width": 128,
        "learning_rate": 3e-3,
    },
}  # fmt: skip
ARMS = {"trained": DREAMER, "untrained": {**DREAMER, "model": "untrained"}, "ppo": {"name": "ppo"}}  # ppo: the world alone


def interval(values: list[float]) -> list[float]:
    """95 % interval of the mean over training seeds (Student's t)."""
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return [statistics.mean(values) - half, statistics.mean(values) + half]


def test_imagination_is_fast(proof: Proof) -> None:
    """One thread, at the default width, with reward and going on; per second of a core's work, since others may work too."""
    model = RSSM(RSSM.Config(), Observation.of((7, 7), np.uint8, 3), 4, 0)
    speeds, walls, generator = {}, {}, torch.Generator().manual_seed(0)
    for rows in (512, 1024, 2048, 4096):
        action = torch.eye(4)[torch.randint(4, (rows,), generator=generator)]
        best = wall = 0.0
        for _ in range(8):
            began, clock = time.thread_time(), time.perf_counter()
            dream = model.imagine(model.initial(rows), lambda seen, a=action: a, 20, generator)  # type: ignore[misc]
            best = max(best, 20 * rows / (time.thread_time() - began))
            wall = max(wall, 20 * rows / (time.perf_counter() - clock))
        speeds[rows], walls[rows] = round(best), round(wall)
        # Nothing is asserted of time; what was timed must have been whole dreams.
        assert dream.features.shape == (21, rows, model.size) and dream.reward.shape == dream.going_on.shape == (20, rows)
        assert all(part.isfinite().all() for part in dream)
    o = model.config
    width = f"h of {o.deter}, {o.groups} x {o.classes} categorical"
    proof("imagination", {
        "width": width, "threads": 1, "latent_steps_per_core_second": speeds, "per_second_on_the_clock": walls,
        "headline": [[f"latent steps per second of one core, {width}", f"{max(speeds.values()):,}"]],
    })  # fmt: skip


def dreamt(agent: Any, seed: int) -> float:
    """Mean return of the greedy policy in dreams that begin as real episodes did."""
    batch = agent.replay.draw(np.random.default_rng(seed), 2000, 4)
    states = agent.model.posterior(batch)
    starts = {name: part.numpy()[batch.is_first] for name, part in states.items()}
    env = DreamEnv(agent.model, agent.spaces.action, starts, num_envs=EPISODES, seed=seed, horizon=LIMIT)
    total, running = np.zeros(EPISODES), np.ones(EPISODES, np.bool_)
    for _ in range(LIMIT):
        with torch.inference_mode():
            action = agent.behaviour.policy(torch.from_numpy(env.obs[:, 0])).mode().numpy()
        step = env.step(action[:, None])
        total += running * step.reward[:, 0]
        running &= ~(step.terminated | step.truncated)
    return float(total.mean())


def test_frozenlake_from_dreams_alone(tmp_path: Path, proof: Proof) -> None:
    real: dict[str, list[float]] = {arm: [] for arm in ARMS}
    dreams: list[float] = []
    for seed in range(SEEDS):
        for arm, agent in ARMS.items():
            config = RunConfig(env={"id": WORLD}, agent=agent, num_envs=COPIES, steps=STEPS, seed=seed, threads=1)
            folder = tmp_path / f"{arm}-{seed}"
            train(config, folder, live=False)
            player, _, _ = load_run(folder)
            real[arm].append(float(run_episodes(player, WORLD, {}, EPISODES, 1_000_000, lines=False).returns.mean()))
            if arm == "trained":
                dreams.append(dreamt(player, seed))
    table = {arm: {"returns": found, "mean": statistics.mean(found), "ci95": interval(found)} for arm, found in real.items()}
    ratio = statistics.mean(dreams) / statistics.mean(real["trained"])
    proof("world-model", {
        "world": WORLD, "env_steps": STEPS, "copies": COPIES, "agent": DREAMER, "seeds": list(range(SEEDS)),
        "episodes": EPISODES, "lines": yardstick_sample(config), "arms": table, "dream_returns": dreams,
        "dream_over_real": ratio,
        "headline": [
            [f"FrozenLake from dreams alone, {STEPS:,} real steps", f"{table['trained']['mean']:.3f}"],
            ["the same with untrained dynamics", f"{table['untrained']['mean']:.3f}"],
            ["PPO without a model, as many real steps", f"{table['ppo']['mean']:.3f}"],
            ["dream return / real return", f"{ratio:.2f}"],
        ],
    })  # fmt: skip
    assert min(real["trained"]) >= 0.7
    assert max(real["untrained"]) < 0.35
    assert 0.9 <= ratio <= 1.1
