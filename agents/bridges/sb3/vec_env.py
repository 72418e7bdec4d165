"""Our batches as stable-baselines3 sees environments."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from ....envs.batch import BatchEnv, finite_bounds
from ....store.arrays import Array
from ...protocol import Spaces


def own_spaces(spaces: Spaces) -> tuple[gymnasium.spaces.Space[Any], gymnasium.spaces.Space[Any]]:
    """Observation and action space of one agent, new ones: the library seeds them, and wants bounds that are finite."""
    see, act = spaces.observation, spaces.action
    assert isinstance(see, gymnasium.spaces.Box) and isinstance(act, (gymnasium.spaces.Discrete, gymnasium.spaces.Box))
    seen = gymnasium.spaces.Box(see.low, see.high, dtype=see.dtype)
    if isinstance(act, gymnasium.spaces.Discrete):
        return seen, gymnasium.spaces.Discrete(int(act.n))
    low, high = (bound.astype(np.float32) for bound in finite_bounds(act))
    return seen, gymnasium.spaces.Box(low, high, dtype=np.float32)


def vec_env(env: BatchEnv | None, spaces: Spaces, rows: int) -> Any:
    """`env` as a `VecEnv` of N x A rows, one for each agent of each environment, environment by environment; None: `rows` rows
    that never step.

    `reset` begins nothing: it gives what the environments show now, which the runtime has begun or restored.
    """
    from stable_baselines3.common.vec_env import VecEnv

    see, act = own_spaces(spaces)

    class Environments(VecEnv):
        def __init__(self) -> None:
            super().__init__(rows, see, act)
            self.action: Array = np.empty(0)

        def reset(self) -> Array:
            return np.zeros((rows, *(see.shape or ())), see.dtype) if env is None else self._rows(env.obs)

        def _rows(self, obs: Array) -> Array:
            return obs.reshape(rows, *obs.shape[2:]).copy()  # they keep it, and the engine writes the next step over it

        def step_async(self, actions: Array) -> None:
            self.action = actions

        def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
            assert env is not None
            step = env.step(self.action.reshape(env.num_envs, env.num_agents, *self.action.shape[1:]))
            ended = (step.terminated | step.truncated).repeat(env.num_agents)
            infos: list[dict[str, Any]] = [{}] * rows
            if ended.any():
                last = self._rows(step.final_obs)
                cut = (step.truncated & ~step.terminated).repeat(env.num_agents)
                for row in np.flatnonzero(ended):
                    infos[row] = {"terminal_observation": last[row], "TimeLimit.truncated": bool(cut[row])}
            return self._rows(step.obs), step.reward.reshape(rows).copy(), ended, infos  # rewards: they add to them

        def close(self) -> None:
            pass

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None] * rows  # asked for is render_mode alone

        # `VecEnv` is abstract in these two; they are called for wrappers and methods of single environments, which a batch has
        # not.
        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            raise NotImplementedError("environments have no attributes of their own")

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            raise NotImplementedError("environments have no methods of their own")

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * rows

    return Environments()
