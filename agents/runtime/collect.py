"""Acting in a batch of environments: rollouts for learners, with the time that world and policy took."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ...envs.core import BatchEnv, Episodes
from ..core import Agent, Array, NonFinite, Rollout, check_arrays


class Collector:
    """Steps `agent` in `env` and writes what happens into buffers that are allocated once.

    Keeps statistics of whole cohorts of episodes; `pop_statistics` hands them out.
    """

    def __init__(self, env: BatchEnv, agent: Agent) -> None:
        self.env, self.agent = env, agent
        self.obs: Array = np.empty(0)
        self.carry: Any = None
        self.world_seconds = self.policy_seconds = 0.0
        n = env.num_envs
        self._ended = 0
        self._cohorts: list[tuple[float, float, float]] = []  # mean and deviation of returns, mean length
        self._fresh = np.ones(n, np.bool_)  # the running episode began within the cohort
        self._counted = np.zeros(n, np.bool_)
        self._returns, self._lengths = np.zeros(n), np.zeros(n)
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
                self._count(ended)
            self.obs = step.obs
            self.policy_seconds += t1 - t0
            self.world_seconds += clock() - t1
        store = self._store
        final_obs = np.concatenate(finals) if finals else np.empty((0, *self.obs.shape[1:]), self.obs.dtype)
        self._check(store)
        if self._float_obs and not np.isfinite(final_obs).all():
            raise NonFinite(f"the last observation of an episode in {self.env.id} is not finite")
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

    def _count(self, ended: Episodes) -> None:
        """Book ended episodes. A cohort is one episode of every copy: its first that began after the last cohort was full.

        The mean of whatever happens to end in an update would favour short episodes, most of all at the start, when all
        copies begin together: random actions in a maze look close to optimal while only the lucky ones have ended.
        """
        self._ended += len(ended.copy)
        first = self._fresh[ended.copy] & ~self._counted[ended.copy]
        copies = ended.copy[first]
        self._returns[copies], self._lengths[copies] = ended.return_[first].mean(1), ended.length[first]
        self._counted[copies] = True
        self._fresh[ended.copy] = True
        if self._counted.all():
            self._cohorts.append((float(self._returns.mean()), float(self._returns.std()), float(self._lengths.mean())))
            self._counted[:] = False
            self._fresh[:] = False
            self._fresh[ended.copy] = True  # these begin anew right now

    def get_state(self) -> dict[str, Array]:
        """The cohort that is not full yet; everything else is handed out after each rollout."""
        return {"fresh": self._fresh, "counted": self._counted, "returns": self._returns, "lengths": self._lengths}

    def set_state(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.get_state(), "cohort")
        for name, array in self.get_state().items():
            array[:] = state[name]

    def pop_statistics(self) -> dict[str, float]:
        """Episodes ended since the last call; where a cohort got full, mean return and length (a return: mean over agents)."""
        found: dict[str, float] = {"episodes": self._ended}
        if self._cohorts:
            names = ("return_mean", "return_std", "length_mean")
            found |= dict(zip(names, np.mean(self._cohorts, axis=0).tolist(), strict=True))
        self._ended, self._cohorts = 0, []
        return found

    def pop_seconds(self) -> tuple[float, float]:
        """(world, policy) seconds since the last call."""
        spent = self.world_seconds, self.policy_seconds
        self.world_seconds = self.policy_seconds = 0.0
        return spent
