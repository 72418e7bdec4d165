"""Rollouts that stay on a GPU: policy and world in turns, captured as one CUDA graph."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ....agents.protocol import Agent, NonFinite, OnDevice, Rollout
from ....core_ml.learners.cuda.actor_critic import DeviceActorCritic, Memory
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
        self._kept: Memory | None = None

    def begin(self, obs: Array) -> None:
        """Start from where the environment is; `obs`, on the host, is of no use here."""
        self.carry = self.agent.initial(self.env.num_envs)

    def rollout(self, steps: int) -> Rollout:
        """`steps` steps of every copy. Raises NonFinite naming the copy, and the step, of a bad observation or reward."""
        began = time.perf_counter()
        kept: Memory = self.exploring.ready(steps, self.world.obs)
        self._prepare(kept)
        self.engine.synchronize()  # numba has put on the device what the host gave it, on another stream
        self._work()
        self.engine.changed()
        with self.learner.place.here():
            # Not for a graph: how many episodes have ended is for the data to say, and the host waits for them.
            t, copy = torch.nonzero(kept.terminated | kept.truncated, as_tuple=True)
            ended = [x.cpu().numpy() for x in (t, copy, self._ended_return[t, copy], self._ended_length[t, copy])]
            sound, action = bool(self._sound), self.learner.legal(kept.action)
        self._count(ended[0], Episodes(*ended[1:]))
        if not sound:
            self._name_the_source(kept)
        extras = {"log_prob": kept.log_prob, "value": kept.value, "final_value": kept.final_value, "raw_action": kept.action}
        happened: list[Any] = [kept.obs, action, kept.reward, kept.terminated, kept.truncated, kept.last_obs]
        self.policy_seconds += time.perf_counter() - began
        return Rollout._make([*happened, kept.last_obs[:0], extras, None, None])

    def _prepare(self, kept: Memory) -> None:
        """Where the learner's memory is new, the work that fills it is, too."""
        if kept is self._kept:
            return
        place, (steps, n, a) = self.learner.place, kept.reward.shape
        with place.here():
            self._ended_return = torch.zeros((steps, n, a), dtype=torch.float64, device=place.device)
            self._ended_length = torch.zeros((steps, n), dtype=torch.int64, device=place.device)
        self._kept, self._work = kept, Captured(lambda: self._steps(kept), place)

    def _steps(self, kept: Memory) -> None:
        """A whole rollout, without a look at the host."""
        world, learner, handle = self.world, self.learner, self.learner.place.handle
        for t in range(len(kept.reward)):
            learner.choose(t, world.obs, world.action)
            self.engine.step_shared(handle)
            kept.reward[t].copy_(world.reward)
            kept.terminated[t].copy_(world.terminated)
            kept.truncated[t].copy_(world.truncated)
            self._ended_return[t].copy_(world.ended_return)
            self._ended_length[t].copy_(world.ended_length)
            learner.bootstrap_value(t, world.final_obs)
        kept.last_obs.copy_(world.obs)
        facts = [kept.reward]
        if self._float_obs:
            facts += [kept.obs, kept.last_obs, kept.final_value * kept.truncated.unsqueeze(-1)]
        self._sound.fill_(True)
        for fact in facts:
            self._sound &= fact.isfinite().all()

    def _name_the_source(self, kept: Memory) -> None:
        with self.learner.place.here():
            reward, obs, last_obs = (x.cpu().numpy() for x in (kept.reward, kept.obs, kept.last_obs))
        self._finite("reward", reward)
        self._finite("observation", obs)
        self._finite("observation", last_obs[None], len(obs))
        raise NonFinite(f"the last observation of an episode in {self.env.id} is not finite")
