"""Rollouts of agents whose library steps the environment by itself; the collector counts the steps as they pass."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ....agents.protocol import Agent, NonFinite, Rollout
from ....envs.batch import BatchEnv, Step
from ....store.arrays import Array, check_arrays
from .host import Collector

PREFIX = "driven/"  # of the agent's arrays among the collector's in a checkpoint


class _Watched:
    """`env` as it is, but the collector sees each step; it offers what `BatchEnv` asks for."""

    def __init__(self, env: BatchEnv, collector: DrivenCollector) -> None:
        self._env, self._collector = env, collector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, action: Array, *, autoreset: bool = True) -> Step:
        began = time.perf_counter()
        step = self._env.step(action, autoreset=autoreset)
        self._collector.saw(step)
        self._collector.world_seconds += time.perf_counter() - began
        return step


class DrivenCollector(Collector):
    """A collector for a `core.Driving` agent. Its rollouts are empty: the agent has kept what it wants to learn from."""

    def __init__(self, env: BatchEnv, agent: Agent, budget: float) -> None:
        super().__init__(env, agent)
        self.driver: Any = agent
        self.budget, self._t = budget, 0

    def begin(self, obs: Array) -> None:
        self.obs = obs
        self.driver.attach(_Watched(self.env, self), self.budget)

    def rollout(self, steps: int) -> Rollout:
        """`steps` steps of every environment, by the agent. Raises NonFinite as any collector does, in the step itself."""
        self._t = 0
        began, world = time.perf_counter(), self.world_seconds
        self.learn_seconds = self.driver.drive(steps)
        self.policy_seconds += time.perf_counter() - began - (self.world_seconds - world) - self.learn_seconds
        self.obs = self.env.obs
        n, a = self.obs.shape[:2]
        none, flags = np.empty((0, n, a), np.float32), np.empty((0, n), np.bool_)
        return Rollout(self.obs[None][:0], none, none, flags, flags, self.obs, self.obs[:0], {})

    def saw(self, step: Step) -> None:
        """Book one step of all environments."""
        self._finite("reward", step.reward[None], self._t)
        if self._float_obs:
            self._finite("observation", step.obs[None], self._t + 1)
            if not np.isfinite(step.final_obs[step.terminated | step.truncated]).all():
                raise NonFinite(f"the last observation of an episode in {self.env.id} is not finite")
        ended = self.env.episodes()
        if len(ended.env):
            self._count(np.full(len(ended.env), self._t), ended)
        self._t += 1

    def get_state(self) -> dict[str, Array]:
        """The cohort, and the agent's own arrays of its environments."""
        return super().get_state() | {PREFIX + name: array for name, array in self.driver.get_experience().items()}

    def set_state(self, state: dict[str, Array]) -> None:
        cohort = super().get_state()
        check_arrays({name: array for name, array in state.items() if not name.startswith(PREFIX)}, cohort, "cohort")
        for name, array in cohort.items():
            array[:] = state[name]
        theirs = {name: array for name, array in state.items() if name.startswith(PREFIX)}
        self.driver.set_experience({name.removeprefix(PREFIX): array for name, array in theirs.items()})
