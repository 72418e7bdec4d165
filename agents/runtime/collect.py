"""Acting in a batch of environments: rollouts for learners, with the time that world and policy took."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ...envs.core import BatchEnv
from ..core import Agent, Array, NonFinite, Rollout


class Collector:
    """Steps `agent` in `env` and writes what happens into buffers that are allocated once.

    Keeps the statistics of the episodes that ended; `pop_statistics` hands them out.
    """

    def __init__(self, env: BatchEnv, agent: Agent) -> None:
        self.env, self.agent = env, agent
        self.obs: Array = np.empty(0)
        self.carry: Any = None
        self.world_seconds = self.policy_seconds = 0.0
        self._returns: list[Array] = []
        self._lengths: list[Array] = []
        self._store: dict[str, Array] = {}
        self._float_obs = np.issubdtype(env.observation_space.dtype or np.float32, np.floating)

    def begin(self, obs: Array) -> None:
        """Start from `obs`, what the environment shows now."""
        self.obs = obs
        self.carry = self.agent.initial(self.env.num_envs)

    def _buffer(self, name: str, steps: int, sample: Array) -> Array:
        if name not in self._store or len(self._store[name]) != steps:
            self._store[name] = np.empty((steps, *sample.shape), sample.dtype)
        return self._store[name]

    def rollout(self, steps: int) -> Rollout:
        """`steps` steps of every copy. Raises NonFinite naming the copy, and the step, of a bad observation or reward."""
        clock = time.perf_counter
        finals: list[Array] = []
        extra_names: list[str] = []
        for t in range(steps):
            t0 = clock()
            action, self.carry, extras = self.agent.act(self.obs, self.carry, "sample")
            t1 = clock()
            self._buffer("obs", steps, self.obs)[t] = self.obs
            step = self.env.step(action)
            self._buffer("action", steps, action)[t] = action
            self._buffer("reward", steps, step.reward)[t] = step.reward
            self._buffer("terminated", steps, step.terminated)[t] = step.terminated
            self._buffer("truncated", steps, step.truncated)[t] = step.truncated
            for name, value in extras.items():
                self._buffer("+" + name, steps, value)[t] = value
            extra_names = list(extras)
            if step.truncated.any():
                finals.append(step.final_obs[step.truncated])
            ended = self.env.episodes()
            if len(ended.copy):
                self._returns.append(ended.return_.mean(1))
                self._lengths.append(ended.length)
            self.obs = step.obs
            self.policy_seconds += t1 - t0
            self.world_seconds += clock() - t1
        store = self._store
        self._check(store)
        final_obs = np.concatenate(finals) if finals else np.empty((0, *self.obs.shape[1:]), self.obs.dtype)
        return Rollout(
            store["obs"], store["action"], store["reward"], store["terminated"], store["truncated"], self.obs, final_obs,
            {name: store["+" + name] for name in extra_names},
        )  # fmt: skip

    def _check(self, store: dict[str, Array]) -> None:
        self._finite("reward", store["reward"])
        if self._float_obs:
            self._finite("observation", store["obs"])
            self._finite("observation", self.obs[None], len(store["obs"]))

    def _finite(self, what: str, values: Array, first: int = 0) -> None:
        """`values` (T, N, ...), the first of them `first` steps into the rollout."""
        # A sum is finite where all its terms are (and are not astronomical), and costs one pass without a mask.
        if math.isfinite(float(values.sum(dtype=np.float64))):
            return
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            t, copy = int(bad[0][0]) + first, int(bad[0][1])
            raise NonFinite(f"{what} of copy {copy} in {self.env.id} is {values[tuple(bad[0])]}, {t} steps into the rollout")

    def pop_statistics(self) -> dict[str, float]:
        """Mean return and length of the episodes that ended since the last call; a return is the mean over agents."""
        if not self._returns:
            return {"episodes": 0}
        returns, lengths = np.concatenate(self._returns), np.concatenate(self._lengths)
        self._returns, self._lengths = [], []
        return {
            "episodes": len(returns),
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std()),
            "length_mean": float(lengths.mean()),
        }

    def pop_seconds(self) -> tuple[float, float]:
        """(world, policy) seconds since the last call."""
        spent = self.world_seconds, self.policy_seconds
        self.world_seconds = self.policy_seconds = 0.0
        return spent
