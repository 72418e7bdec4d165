"""Acting in a batch of environments: rollouts for learners, with the time that world and policy took."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ....agents.protocol import Agent, Bootstrapping, Carry, CollectsNatively, NonFinite, Rollout, RolloutBuffer, restart
from ....envs.batch import BatchEnv, Episodes, Native, native_of
from ....store.arrays import Array, check_arrays


class Collector:
    """Steps `agent` in `env` and writes what happens into buffers that are allocated once.

    Keeps statistics of whole cohorts of episodes; `pop_statistics` hands them out.
    """

    def __init__(self, env: BatchEnv, agent: Agent) -> None:
        self.env, self.agent = env, agent
        self.obs: Array = np.empty(0)
        self.carry: Carry = None
        self.world_seconds = self.policy_seconds = 0.0
        self.learn_seconds = 0.0  # within the last rollout, of agents that learn while they act
        n = env.num_envs
        self._ended = 0
        self._cohorts: list[tuple[float, float, float]] = []  # mean and deviation of returns, mean length
        self._fresh = np.ones(n, np.bool_)  # the running episode began within the cohort
        self._counted = np.zeros(n, np.bool_)
        self._returns, self._lengths = np.zeros(n), np.zeros(n)
        self._store: dict[str, Array] = {}
        # Where agent and world can, they work together without coming back here at each step.
        able = isinstance(agent, CollectsNatively) and agent.can_collect_natively(env.num_agents)
        self._native: Native | None = native_of(env) if able else None
        self._float_obs = np.issubdtype(env.observation_space.dtype or np.float32, np.floating)

    def begin(self, obs: Array) -> None:
        """Start from `obs`, what the environment shows now."""
        self.obs = obs
        self.carry = self.agent.initial(self.env.num_envs)

    def _buffer(self, name: str, steps: int, shape: tuple[int, ...], dtype: Any) -> Array:
        if name not in self._store or len(self._store[name]) != steps:
            self._store[name] = np.empty((steps, *shape), dtype)
        return self._store[name]

    def rollout(self, steps: int) -> Rollout:
        """`steps` steps of every environment. Raises NonFinite with the environment and the step of a bad value."""
        rollout = self._collect_natively(self._native, steps) if self._native else self._step_by_step(steps)
        self._check(rollout)
        return rollout

    def _collect_natively(self, world: Native, steps: int) -> Rollout:
        """By the agent and the world themselves; the time is shared out as they say."""
        (n, a), shape, obs = world.reward.shape, self.obs.shape[1:], world.obs.dtype
        shapes = {
            "obs": ((n, *shape), obs), "action": ((n, *world.action_shape), world.action_dtype),
            "reward": ((n, a), np.float32), "terminated": ((n,), np.bool_), "truncated": ((n,), np.bool_),
            "final_obs": ((n, *shape), obs), "ended_return": ((n, a), np.float64), "ended_length": ((n,), np.int64),
        }  # fmt: skip
        buffer = RolloutBuffer(**{name: self._buffer(name, steps, *kind) for name, kind in shapes.items()})
        began = time.perf_counter()
        before = self.carry
        extras, share, self.carry = self.agent.collect_natively(world, buffer, before)  # type: ignore[attr-defined]
        spent = time.perf_counter() - began
        self.world_seconds += spent * share
        self.policy_seconds += spent * (1 - share)
        t, env = np.nonzero(buffer.terminated | buffer.truncated)
        self._count(t, Episodes(env, buffer.ended_return[t, env], buffer.ended_length[t, env]))
        self.obs = self.env.obs
        final_obs = buffer.final_obs[buffer.truncated]
        return Rollout(
            obs=buffer.obs, action=buffer.action, reward=buffer.reward, terminated=buffer.terminated,
            truncated=buffer.truncated, last_obs=self.obs, final_obs=final_obs, extras=extras, carry=before,
            last_carry=self.carry,
        )  # fmt: skip

    def _step_by_step(self, steps: int) -> Rollout:
        clock = time.perf_counter
        finals: list[Array] = []
        ends: list[Episodes] = []
        when: list[int] = []
        before = None if self.carry is None else {name: array.copy() for name, array in self.carry.items()}
        obs = self._buffer("obs", steps, self.obs.shape, self.obs.dtype)
        kept, bootstrapping = dict[str, Array](), isinstance(self.agent, Bootstrapping)
        first = self.env.action_mask()
        masks = None if first is None else self._buffer("mask", steps, first.shape, np.bool_)
        final_masks: list[Array] = []
        for t in range(steps):
            t0 = clock()
            mask = self.env.action_mask()
            if masks is not None:
                assert mask is not None, "an environment has action masks for all its life or never"
                masks[t] = mask
                if not mask.any(-1).all():
                    i = int(np.argwhere(~mask.any(-1))[0, 0])
                    raise ValueError(f"no action is legal in environment {i} of {self.env.id}, {t} steps into the rollout")
            action, self.carry, extras = self.agent.act(self.obs, self.carry, "sample", mask)
            t1 = clock()
            obs[t] = self.obs
            step = self.env.step(action)
            cut = step.truncated.any()
            if self.carry is not None:
                if bootstrapping:  # before it forgets the episode
                    values = np.zeros_like(step.reward)
                    if cut:
                        remembered = {name: array[step.truncated] for name, array in self.carry.items()}
                        values[step.truncated] = self.agent.bootstrap_value(step.final_obs[step.truncated], remembered)  # type: ignore[attr-defined]
                    extras = {**extras, "final_value": values}
                restart(self.agent, self.carry, step)
            facts = {"action": action, "reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}
            facts |= {"+" + name: array for name, array in extras.items()}
            kept = kept or {name: self._buffer(name, steps, fact.shape, fact.dtype) for name, fact in facts.items()}
            for name, fact in facts.items():
                kept[name][t] = fact
            if cut:
                finals.append(step.final_obs[step.truncated])
                if step.final_mask is not None:
                    final_masks.append(step.final_mask[step.truncated])
            ended = self.env.episodes()
            if len(ended.env):
                ends.append(ended)
                when.append(t)
            self.obs = step.obs
            self.policy_seconds += t1 - t0
            self.world_seconds += clock() - t1
        if ends:
            self._count(np.repeat(when, [len(e.env) for e in ends]), Episodes(*map(np.concatenate, zip(*ends, strict=True))))
        final_obs = np.concatenate(finals) if finals else np.empty((0, *self.obs.shape[1:]), self.obs.dtype)
        extras = {name[1:]: array for name, array in kept.items() if name.startswith("+")}
        return Rollout(
            obs, kept["action"], kept["reward"], kept["terminated"], kept["truncated"], self.obs, final_obs, extras, before,
            self.carry, masks, *self._last_masks(masks, final_masks),
        )  # fmt: skip

    def _last_masks(self, masks: Array | None, finals: list[Array]) -> tuple[Array | None, Array | None]:
        """`Rollout.last_mask` and `Rollout.final_mask`."""
        if masks is None:
            return None, None
        return self.env.action_mask(), np.concatenate(finals) if finals else np.empty((0, *masks.shape[2:]), np.bool_)

    def _check(self, rollout: Rollout) -> None:
        self._finite("reward", rollout.reward)
        if self._float_obs:
            self._finite("observation", rollout.obs)
            self._finite("observation", self.obs[None], len(rollout.obs))
            if not np.isfinite(rollout.final_obs).all():
                raise NonFinite(f"the last observation of an episode in {self.env.id} is not finite")

    def _finite(self, what: str, values: Array, first: int = 0) -> None:
        """`values` (T, N, ...), the first of them `first` steps into the rollout."""
        # A sum is finite where all its terms are (and are not astronomical), and costs one pass without a mask.
        if math.isfinite(float(values.sum(dtype=np.float64))):
            return
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            t, env = int(bad[0][0]) + first, int(bad[0][1])
            raise NonFinite(
                f"{what} of environment {env} in {self.env.id} is {values[tuple(bad[0])]}, {t} steps into the rollout"
            )

    def _count(self, t: Array, ended: Episodes) -> None:
        """Book episodes that ended at times `t` (E,), earliest first.

        A cohort is one episode of every environment: its first that began after the last cohort was full. The mean of whatever
        happens to end in an update would favour short episodes, most of all at the start, when all environments begin together:
        random actions in a maze look close to optimal while only the lucky ones have ended.
        """
        self._ended += len(t)
        env = ended.env
        while len(env):
            # An environment that is not counted yet is counted at its first end, or at its second if that began too early.
            order = np.argsort(env, kind="stable")
            starts = np.flatnonzero(np.diff(env[order], prepend=-1))
            rank = np.empty(len(env), np.int64)  # how many episodes of the same environment ended before
            rank[order] = np.arange(len(env)) - np.repeat(starts, np.diff(starts, append=len(env)))
            at = np.flatnonzero(~self._counted[env] & (rank == np.where(self._fresh[env], 0, 1)))
            self._returns[env[at]], self._lengths[env[at]] = ended.return_[at].mean(1), ended.length[at]
            self._counted[env[at]] = True
            if not self._counted.all():
                self._fresh[env] = True
                return
            self._cohorts.append((float(self._returns.mean()), float(self._returns.std()), float(self._lengths.mean())))
            now = t == t[at[-1]]  # when the last of them ended; at the same moment others began anew
            self._counted[:] = False
            self._fresh[:] = False
            self._fresh[env[now]] = True
            later = t > t[at[-1]]
            t, env = t[later], env[later]
            ended = Episodes(env, ended.return_[later], ended.length[later])

    def get_state(self) -> dict[str, Array]:
        """The cohort that is not full yet, and what the agent remembers; everything else is handed out after each rollout."""
        cohort = {"fresh": self._fresh, "counted": self._counted, "returns": self._returns, "lengths": self._lengths}
        return cohort | {f"carry/{name}": array for name, array in (self.carry or {}).items()}

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave, after `begin`."""
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
