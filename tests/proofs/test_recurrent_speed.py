"""What memory costs: PPO with a GRU of 64 units beside PPO with two layers of 64, both in fused kernels, in turns.

The case is that of `gumdrop bench train`: the maze of the tables, 4,096 copies x 32 steps, 4 epochs of 4 minibatches.
Arithmetic alone says 2.9 times the work a step. Nothing is asserted about time: a shared machine decides that, not the code.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.core import make_agent
from gumdrop.agents.runtime.bench import COPIES, MAZE, PPO
from gumdrop.agents.runtime.collect import Collector
from gumdrop.agents.runtime.system import choose_threads
from gumdrop.core_ml.fused import Coefs, FusedRecurrent, GRUSpec
from gumdrop.core_ml.returns import gae
from gumdrop.envs.registry import make

pytestmark = pytest.mark.slow
ROUNDS, SECONDS = 5, 6.0


class GRULearner:
    """The work of PPO with a GRU, in the fewest lines: `initial`, `act` and `learn` of an agent, with PPO's defaults."""

    num_steps: int = PPO["num_steps"]

    def __init__(self, inputs: int, actions: int, threads: int, hidden: int) -> None:
        self.net = FusedRecurrent(GRUSpec(inputs, hidden, "categorical", (actions,)), threads=threads)
        self.net.initialise(0, 0)
        self.rng, self.acts, self.made, self.start = np.random.default_rng(0), 0, None, self.net.initial(1)

    def initial(self, n: int) -> dict[str, Any]:
        return self.net.initial(n)

    def act(self, obs: Any, carry: Any, mode: str, mask: Any = None) -> tuple[Any, Any, dict[str, Any]]:
        if self.acts % self.num_steps == 0:
            self.start = {name: part.copy() for name, part in carry.items()}
        self.acts += 1
        acted, carry = self.net.act(obs, carry, int(self.rng.integers(2**62)))
        # A copy: who acts puts fresh rows into the carry where an episode ended, before extras are kept.
        extras = {"log_prob": acted.log_prob[:, None], "value": acted.value[:, None], "h": carry["h"].copy()}
        return acted.action[:, None], carry, extras

    def learn(self, batch: Any, progress: float) -> dict[str, float]:
        value, log_prob, h = (batch.extras[name] for name in ("value", "log_prob", "h"))
        steps, streams, _ = value.shape
        ended = batch.terminated | batch.truncated
        is_first = np.concatenate([np.zeros((1, streams), np.bool_), ended[:-1]])
        next_value = np.empty_like(value)
        next_value[:-1] = value[1:]
        next_value[-1, :, 0] = self.net.outputs(batch.last_obs, {"h": h[-1]})[1]
        if len(batch.final_obs):
            next_value[batch.truncated] = self.net.outputs(batch.final_obs, {"h": h[batch.truncated]})[1][:, None]
        terminated, over = batch.terminated[:, :, None], ended[:, :, None]
        advantage = gae(batch.reward, value, next_value, terminated, over, 0.99, 0.95)
        facts = log_prob, advantage, advantage + value, value
        self.made = self.net.records(batch.obs, batch.action, is_first, self.start, *facts, out=self.made)
        size = streams // PPO["minibatches"]
        for _ in range(PPO["epochs"]):
            order = self.net.order(streams, int(self.rng.integers(2**62)))
            sums, norms = self.net.epoch(self.made, order, size, Coefs(), 1e-3, 0.5)
            assert np.isfinite(norms).all()
        return {"entropy": float(sums[2]) / value.size}


class Trainee:
    """An agent on copies of the maze."""

    def __init__(self, kind: str, threads: int, hidden: int) -> None:
        self.env: Any = make("maze", dict(MAZE), num_envs=COPIES)
        if kind == "gru":
            inputs, actions = int(np.prod(self.env.observation_space.shape)), int(self.env.action_space.n)
            self.agent: Any = GRULearner(inputs, actions, threads, hidden)
        else:
            ppo = PPO | {"learner": "fused", "hidden": (hidden, hidden)}
            self.agent = make_agent("ppo", ppo, self.env, 0, threads)
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
        steps = updates * COPIES * self.agent.num_steps
        return {
            "steps_per_second": steps / spent, "steps_per_processor_second": steps / worked, "world": world / spent,
            "policy": policy / spent, "learn": learn / spent,
        }  # fmt: skip


def test_a_gru_beside_full_layers(proof: Callable[[str, dict[str, Any]], None]) -> None:
    hidden, threads = 64, choose_threads(COPIES)
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
        "world": "maze", "copies": COPIES, "ppo": dict(PPO), "hidden": hidden, "threads": threads, "median": found,
        "rounds": seen, "gru_to_mlp": share, "gru_to_mlp_median": middle,
        "headline": [
            ["PPO with a GRU of 64 units, fused, of PPO's steps/s with 2 x 64, fused", f"{middle['steps_per_second']:.2f}"],
            ["the same of steps per second of processors", f"{middle['steps_per_processor_second']:.2f}"],
            ["steps/s with the GRU, learning included", f"{found['gru']['steps_per_second']:,.0f}"],
        ],
    })  # fmt: skip
    assert all(value > 0 for values in share.values() for value in values)
