"""The lower yardstick: uniformly random actions."""

from __future__ import annotations

from typing import ClassVar

import gymnasium
import numpy as np

from ..envs.batch import finite_bounds
from ..store.arrays import Array, check_arrays
from ..store.random_state import generator_state, set_generator_state
from .masks import random_legal
from .protocol import AgentConfig, Carry, Mode, Rollout, Spaces
from .registry import agent


@agent("random")
class Random:
    """Actions drawn uniformly from the action space, an unbounded Box cut at 1,000. Learns nothing."""

    masks: ClassVar[bool] = True

    Config = AgentConfig

    def __init__(self, config: AgentConfig, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.spaces = config, spaces
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.num_steps = 32

    def initial(self, n: int) -> None:
        return None

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        space, shape = self.spaces.action, obs.shape[:2]
        if isinstance(space, gymnasium.spaces.Discrete):
            if mask is not None:
                return random_legal(mask, self.rng.random(shape)), carry, {}
            return self.rng.integers(int(space.n), size=shape), carry, {}
        assert isinstance(space, gymnasium.spaces.Box)
        low, high = finite_bounds(space)
        return self.rng.uniform(low, high, (*shape, *space.shape)).astype(np.float32), carry, {}

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Array]:
        return {"rng": generator_state(self.rng)}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "agent random")
        set_generator_state(self.rng, state["rng"])
