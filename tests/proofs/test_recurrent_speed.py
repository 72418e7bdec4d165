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
ROUNDS, SECONDS = 5, 5.0


class GRULearner:
    """The work of PPO with a GRU, in the fewest lines: `explore` and `learn` of an agent, with PPO's defaults."""

    num_steps: int = PPO["num_steps"]

    def __init__(self, inputs: int, actions: int, threads: int, hidden: int) -> None:
        self.net = FusedRecurrent(GRUSpec(inputs, hidden, "categorical", (actions,)), threads=threads)
        self.net.initialise(0, 0)
        self.rng, self.made = np.random.default_rng(0), None
        self.state: Any = None
        self.acted: Any = None
        self.held: Any = None

    def initial(self, n: int) -> None:
        return None

    def act(self, obs: Any, carry: Any, mode: str, mask: Any = None) -> Any:
        raise NotImplementedError("all acting is in `explore`")

    def explores(self, agents: int) -> bool:
        return self.net.explores(agents)

    def explore(self, world: Any, kept: Any) -> tuple[dict[str, Any], float]:
        lead = kept.reward.shape
        if self.acted is None:
            self.acted, self.state = self.net.buffers(kept.reward.size), self.net.initial(lead[1])
        seeds, self.start = self.rng.integers(2**62, size=lead[0]), self.state
        share, self.state, self.held = self.net.explore(world, kept, seeds, self.acted, self.start, held=self.held)
        return {"log_prob": self.acted.log_prob.reshape(lead), "value": self.acted.value.reshape(lead)}, share

    def learn(self, batch: Any, progress: float) -> dict[str, float]:
        value, log_prob = (batch.extras[name] for name in ("value", "log_prob"))
        steps, streams, _ = value.shape
        ended = batch.terminated | batch.truncated
        is_first = np.concatenate([np.zeros((1, streams), np.bool_), ended[:-1]])
        next_value = np.empty_like(value)
        next_value[:-1] = value[1:]
        next_value[-1, :, 0] = self.net.outputs(batch.last_obs, self.state)[1]
        if len(batch.final_obs):
            h = self.held[batch.truncated]
            next_value[batch.truncated] = self.net.outputs(batch.final_obs, {"h": h})[1][:, None]
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
