"""Policies that act in the real world with a learned world model: a fixed function of its features, or planning (MPC)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...store.arrays import Array, check_arrays
from ...store.random_state import generator_state, set_generator_state
from ..protocol import Carry, Mode, Rollout
from .world_model_policy import initial_carry, next_carry, observe


class Deciding:
    """A fixed policy: `decide` maps features (B, size) to actions int64 (B,). Inside a `WorldModelPolicy` the features are the
    model's, as for `CmaController.act`. One agent in each environment; it does not learn."""

    name, num_steps, config = "deciding", 1, None

    def __init__(self, decide: Callable[[Any], Any]) -> None:
        self.decide = decide

    def initial(self, n: int) -> Carry:
        return None

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        import torch

        with torch.inference_mode():
            action: Array = self.decide(torch.from_numpy(np.ascontiguousarray(obs[:, 0]))).numpy()
        return action[:, None].astype(np.int64), carry, {}

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Array]:
        return {}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, {}, "deciding")


class Planning:
    """Model-predictive control. At each step `planner`, a `core_ml.planner.CEMPlanner`, plans from what `model` believes; the
    first action is taken, and the rest is where the next plan begins. One agent in each environment; it does not learn.

    `value`: of the last features of a plan, tensors (N, size) -> (N,). All environments share one random stream.
    """

    name, num_steps, config = "planning", 1, None

    def __init__(self, model: Any, planner: Any, seed: int = 0, value: Callable[[Any], Any] | None = None) -> None:
        self.model, self.planner, self.value = model, planner, value
        self.rng = np.random.Generator(np.random.PCG64(seed))

    def initial(self, n: int) -> Carry:
        steps, actions = self.planner.config.horizon, self.planner.actions
        return initial_carry(self.model, n) | {"agent/p": np.full((n, steps, actions), 1 / actions, np.float32)}

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        import torch

        from ...core_ml.planners.cem import ActionPlan

        assert carry is not None
        generator = torch.Generator().manual_seed(int(self.rng.integers(2**62)))
        with torch.inference_mode():
            _, state = observe(self.model, self.planner.actions, obs, carry)
            p = torch.from_numpy(carry["agent/p"])
            before = ActionPlan.of(p)
            plan = self.planner.plan(self.model, state, generator, self.value, before)
        action = plan.action.numpy()
        return action[:, None], next_carry(state, action) | {"agent/p": plan.p.numpy().copy()}, {}

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Array]:
        return {"rng": generator_state(self.rng)}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "planning")
        set_generator_state(self.rng, state["rng"])
