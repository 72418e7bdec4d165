"""What memory costs: PPO with a GRU of 64 units beside PPO with two layers of 64, both in fused kernels, in turns.

The case is that of `gumdrop bench train`: the maze of the tables, 4,096 environments x 32 steps, 4 epochs of 4 minibatches.
Arithmetic alone says 2.9 times the work a step. Nothing is asserted about time: a shared machine decides that, not the code.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from gumdrop.agents.registry import make_agent
from gumdrop.envs.make import make
from gumdrop.experiments.bench.bench import MAZE, NUM_ENVS, PPO
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.machine import choose_threads

pytestmark = pytest.mark.slow
ROUNDS, SECONDS = 5, 5.0


class Trainee:
    """An agent on environments of the maze."""

    def __init__(self, kind: str, threads: int, hidden: int) -> None:
        self.env: Any = make("maze", dict(MAZE), num_envs=NUM_ENVS)
        memory = {"belief": {"name": "gru", "hidden": hidden, "actions": False}, "hidden": ()}
        own: dict[str, Any] = memory if kind == "gru" else {"hidden": (hidden, hidden)}
        self.agent = make_agent("ppo", PPO | {"learner": "fused"} | own, self.env, 0, threads)
        self.collector = Collector(self.env, self.agent)
        self.collector.begin(self.env.reset(0))

    def run(self, seconds: float) -> dict[str, float]:
        """Steps per second of the clock and of processors, and the shares of world, policy and learning."""
        self.collector.pop_seconds()
        began, worked, learn, updates = time.perf_counter(), time.process_time(), 0.0, 0
        while time.perf_counter() - began < seconds:
            batch = self.collector.rollout(self.agent.num_steps)
            t = time.perf_counter()
            self.agent.learn(batch, 0.0)
            learn += time.perf_counter() - t
            updates += 1
        spent, worked = time.perf_counter() - began, time.process_time() - worked
        world, policy = self.collector.pop_seconds()
        steps = updates * NUM_ENVS * self.agent.num_steps
        return {
            "steps_per_second": steps / spent, "steps_per_processor_second": steps / worked, "world": world / spent,
            "policy": policy / spent, "learn": learn / spent,
        }  # fmt: skip


def test_a_gru_beside_full_layers(proof: Callable[[str, dict[str, Any]], None]) -> None:
    hidden, threads = 64, choose_threads(NUM_ENVS)
    both = {kind: Trainee(kind, threads, hidden) for kind in ("mlp", "gru")}
    for one in both.values():
        one.run(1.0)  # warm up
    seen: dict[str, list[dict[str, float]]] = {kind: [] for kind in both}
    for _ in range(ROUNDS):
        for kind, one in both.items():
            seen[kind].append(one.run(SECONDS))
    found = {kind: {key: statistics.median(m[key] for m in rounds) for key in rounds[0]} for kind, rounds in seen.items()}
    share = {
        key: [g[key] / m[key] for g, m in zip(seen["gru"], seen["mlp"], strict=True)]
        for key in ("steps_per_second", "steps_per_processor_second")
    }
    middle = {key: statistics.median(values) for key, values in share.items()}
    proof("recurrent-speed", {
        "world": "maze", "environments": NUM_ENVS, "ppo": dict(PPO), "hidden": hidden, "threads": threads, "median": found,
        "rounds": seen, "gru_to_mlp": share, "gru_to_mlp_median": middle,
        "headline": [
            ["PPO with a GRU of 64 units, fused, of PPO's steps/s with 2 x 64, fused", f"{middle['steps_per_second']:.2f}"],
            ["the same of steps per second of processors", f"{middle['steps_per_processor_second']:.2f}"],
            ["steps/s with the GRU, learning included", f"{found['gru']['steps_per_second']:,.0f}"],
        ],
    })  # fmt: skip
    assert all(value > 0 for values in share.values() for value in values)
