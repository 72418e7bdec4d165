"""Policies that act in the real world with a learned world model's state as their observation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...store.arrays import Array
from ..protocol import Agent, Carry, Mode, Rollout
from .world_model_env import begun


class WorldModelPolicy:
    """An agent that was trained in a `WorldModelEnv`, acting in the world itself: it reads the model's features
    of what it observes.

    It acts in `run_episodes` like any agent; it does not learn. One agent in each environment. Its carry holds the
    model's state by its names, beside the agent's own.
    """

    name = "world-model-policy"
    num_steps = 1

    def __init__(self, model: Any, agent: Agent, actions: int) -> None:
        self.model, self.agent, self.actions, self.config = model, agent, actions, agent.config

    def initial(self, n: int) -> Carry:
        state = initial_carry(self.model, n)
        theirs = {f"agent/{name}": part for name, part in (self.agent.initial(n) or {}).items()}
        return state | theirs

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        assert carry is not None
        belief, state = observe(self.model, self.actions, obs, carry)
        theirs = {name.removeprefix("agent/"): part for name, part in carry.items() if name.startswith("agent/")}
        action, after, extras = self.agent.act(belief.numpy()[:, None], theirs or None, mode)
        theirs = {f"agent/{name}": part for name, part in (after or {}).items()}
        return action, next_carry(state, action[:, 0]) | theirs, extras

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        """Raises ValueError: the agent learns in imagination, in a WorldModelEnv."""
        raise ValueError("a WorldModelPolicy does not learn: train the agent in a WorldModelEnv, with collect.make.fit")

    def state_dict(self) -> dict[str, Array]:
        return self.agent.state_dict()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        self.agent.load_state_dict(state)


def initial_carry(model: Any, n: int) -> dict[str, Array]:
    """Carry of n environments at the start of an episode: the model's state, the previous action, whether an episode begins."""
    return begun(model, n) | {"action": np.zeros(n, np.int64), "first": np.ones(n, np.bool_)}


def observe(model: Any, actions: int, obs: Array, carry: dict[str, Array]) -> tuple[Any, Any]:
    """Features (N, size) and state, tensors, after observations (N, 1, ...), by what is carried."""
    import torch

    dtype: Any = np.float32 if model.observation.kind == "vector" else np.uint8
    with torch.inference_mode():
        state = {name: torch.from_numpy(carry[name]) for name in model.initial(1)}
        before = torch.eye(actions)[torch.from_numpy(carry["action"])]
        seen = torch.from_numpy(obs[:, 0].astype(dtype, copy=False))
        return model.observe(seen, before, torch.from_numpy(carry["first"]), state)  # type: ignore[no-any-return]


def next_carry(state: Any, action: Array) -> dict[str, Array]:
    """What to carry after a state and the actions (N,) that were taken there."""
    parts: dict[str, Array] = {name: part.numpy().copy() for name, part in state.items()}
    return parts | {"action": action.astype(np.int64), "first": np.zeros(len(action), np.bool_)}
