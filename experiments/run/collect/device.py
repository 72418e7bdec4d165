"""Rollouts that stay on a GPU: policy and world in turns, captured as one CUDA graph."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ....agents.protocol import Agent, NonFinite, OnDevice, Rollout
from ....core_ml.learners.cuda.actor_critic import DeviceActorCritic, DeviceRolloutBuffer
from ....core_ml.learners.cuda.graphs import Captured
from ....envs.batch import BatchEnv, Episodes
from ....envs.engine.cuda import CudaEngine, Shared
from ....store.arrays import Array
from .host import Collector


def shared(array: Any, device: torch.device) -> Tensor:
    """A numba device array as a tensor over the same memory; in numba's simulator that is the host's."""
    if device.type != "cuda":
        return torch.from_numpy(array._ary)
    tensor = torch.as_tensor(array, device=device)
    assert tensor.data_ptr() == array.__cuda_array_interface__["data"][0], "torch has made a copy"
    return tensor


class DeviceCollector(Collector):
    """A `Collector` whose world and agent share a device; nothing but ended episodes comes to the host, once a rollout.

    Rollouts are the learner's own memory: tensors, valid until the next one. `final_obs` is empty, because how many episodes
    were truncated is for the data to say: `extras` holds their values as "final_value", (T, N, A), instead. Policy and world
    are one piece of work, whose time is booked as the policy's.
    """

    def __init__(self, env: BatchEnv, agent: Agent) -> None:
        super().__init__(env, agent)
        assert isinstance(env, CudaEngine) and isinstance(agent, OnDevice)
        self.engine, self.exploring = env, agent
        self.learner: DeviceActorCritic = agent.learner
        with self.learner.place.here():
            self.world = Shared(*(shared(array, self.learner.place.device) for array in env.shared()))
            self._sound = torch.ones((), dtype=torch.bool, device=self.learner.place.device)
        self._rollout_buffer: DeviceRolloutBuffer | None = None

    def begin(self, obs: Array) -> None:
        """Start from where the environment is; `obs`, on the host, is of no use here."""
        self.carry = self.agent.initial(self.env.num_envs)

    def rollout(self, steps: int) -> Rollout:
        """`steps` steps of every environment. Raises NonFinite with the environment and the step of a bad value."""
        began = time.perf_counter()
        buffer: DeviceRolloutBuffer = self.exploring.ready(steps, self.world.obs)
        self._prepare(buffer)
        self.engine.synchronize()  # numba has put on the device what the host gave it, on another stream
        self._work()
        self.engine.changed()
        with self.learner.place.here():
            # Not for a graph: how many episodes have ended is for the data to say, and the host waits for them.
            t, n = torch.nonzero(buffer.terminated | buffer.truncated, as_tuple=True)
            found = t, n, self._ended_return[t, n], self._ended_length[t, n]
            when, env, return_, length = (x.cpu().numpy() for x in found)
            sound = bool(self._sound)
            action: Any = self.learner.legal(buffer.action)
        self._count(when, Episodes(env=env, return_=return_, length=length))
        if not sound:
            self._name_the_source(buffer)
        extras = {name: getattr(buffer, name) for name in ("log_prob", "value", "final_value")} | {"raw_action": buffer.action}
        self.policy_seconds += time.perf_counter() - began
        tensors: Any = buffer
        return Rollout(
            obs=tensors.obs, action=action, reward=tensors.reward, terminated=tensors.terminated, truncated=tensors.truncated,
            last_obs=tensors.last_obs, final_obs=tensors.last_obs[:0], extras=extras,
            mask=tensors.mask if self.learner.masked else None,
        )  # fmt: skip

    def _prepare(self, buffer: DeviceRolloutBuffer) -> None:
        """Where the learner's memory is new, the work that fills it is, too."""
        if buffer is self._rollout_buffer:
            return
        place, (steps, n, a) = self.learner.place, buffer.reward.shape
        with place.here():
            self._ended_return = torch.zeros((steps, n, a), dtype=torch.float64, device=place.device)
            self._ended_length = torch.zeros((steps, n), dtype=torch.int64, device=place.device)
        self._rollout_buffer, self._work = buffer, Captured(lambda: self._steps(buffer), place)

    def _steps(self, buffer: DeviceRolloutBuffer) -> None:
        """A whole rollout, without a look at the host."""
        world, learner, handle = self.world, self.learner, self.learner.place.handle
        for t in range(len(buffer.reward)):
            learner.choose(t, world.obs, world.action, world.mask)
            self.engine.step_shared(handle)
            buffer.reward[t].copy_(world.reward)
            buffer.terminated[t].copy_(world.terminated)
            buffer.truncated[t].copy_(world.truncated)
            self._ended_return[t].copy_(world.ended_return)
            self._ended_length[t].copy_(world.ended_length)
            learner.bootstrap_value(t, world.final_obs)
        buffer.last_obs.copy_(world.obs)
        facts = [buffer.reward]
        if self._float_obs:
            facts += [buffer.obs, buffer.last_obs, buffer.final_value * buffer.truncated.unsqueeze(-1)]
        self._sound.fill_(True)
        for fact in facts:
            self._sound &= fact.isfinite().all()

    def _name_the_source(self, buffer: DeviceRolloutBuffer) -> None:
        with self.learner.place.here():
            reward, obs, last_obs = (x.cpu().numpy() for x in (buffer.reward, buffer.obs, buffer.last_obs))
        self._finite("reward", reward)
        self._finite("observation", obs)
        self._finite("observation", last_obs[None], len(obs))
        raise NonFinite(f"the last observation of an episode in {self.env.id} is not finite")
