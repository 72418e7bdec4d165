"""The batched engine: N environments of one world in flat arrays, stepped by compiled rules without a Python object each."""

from __future__ import annotations

import os
from copy import deepcopy
from typing import Any

import gymnasium
import numba
import numpy as np

from ...store.arrays import Array
from ..batch import Episodes, Native, Step, flat_size
from ..constants import plain
from ..rng import copy_seeds, fresh_streams
from ..world import Scene, World, Yardstick
from .compile import BLOCK, Action, EngineBuffers, address_of, kernels
from .packing import layout_of, pack

OUTCOME = ("reward", "terminated", "truncated", "final_obs", "final_mask", "ended_return", "ended_length")  # of the last step
COUNTERS = ("rng", "elapsed", "running_return")  # buffers that the future depends on, besides the world's state
THREAD_FROM = 8 * BLOCK  # environments; below this, waking a second thread costs more than it brings


HOME = os.getpid()  # a forked child steps on one thread: OpenMP's do not survive a fork, and end the process


def _again(cls: type[Engine], world: World, num_envs: int, threads: int, id: str, state: Any, buffers: Any) -> Engine:
    """An engine as it was, with arrays of its own: what copying and pickling make."""
    engine = cls(world, num_envs, id=id)
    engine.threads = threads
    engine.set_state(state)
    for name, array in buffers.items():
        getattr(engine._b, name)[...] = array
    return engine


class Engine:
    """N environments of a world behind the `BatchEnv` interface.

    The arrays in a `Step` are the engine's own buffers. Results do not depend on `threads` or on `num_envs`.
    """

    def __init__(self, world: World, num_envs: int = 1, seed: int = 0, threads: int | None = None, id: str = "") -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: at least 1 environment is needed")
        self.world = world
        self.id = id or world.name
        self.num_envs = num_envs
        self.num_agents = world.num_agents
        self.observation_space = deepcopy(world.observation_space)  # a class may hold one for all, and spaces hold dice
        self.action_space = deepcopy(world.action_space)
        self.threads = min(threads or len(os.sched_getaffinity(0)), numba.config.NUMBA_NUM_THREADS)
        n, a, shape = num_envs, self.num_agents, self.observation_space.shape
        assert shape is not None
        size, dtype = flat_size(self.observation_space), self.observation_space.dtype
        self.masked, discrete = world.masked, isinstance(self.action_space, gymnasium.spaces.Discrete)
        if self.masked and not discrete:
            raise ValueError(f"world {self.id}: rule legal is for Discrete actions, not for {self.action_space}: leave it out")
        choices = int(self.action_space.n) if self.masked else 1  # type: ignore[attr-defined]
        self.state = world.allocate(n)
        self.constants = plain(world.constants())
        self._b = EngineBuffers(
            rng=np.zeros((n, 2), np.uint64),
            active=np.ones(n, np.uint8),
            obs=np.zeros((n, a, size), dtype),
            final_obs=np.zeros((n, a, size), dtype),
            reward=np.zeros((n, a), np.float32),
            terminated=np.zeros(n, np.bool_),
            truncated=np.zeros(n, np.bool_),
            elapsed=np.zeros(n, np.int64),
            running_return=np.zeros((n, a), np.float64),
            ended_return=np.zeros((n, a), np.float64),
            ended_length=np.zeros(n, np.int64),
            mask=np.zeros((n, a, choices), np.bool_),
            final_mask=np.zeros((n, a, choices), np.bool_),
        )
        b = self._b
        self._step = Step(
            b.obs.reshape(n, a, *shape),
            b.reward,
            b.terminated,
            b.truncated,
            b.final_obs.reshape(n, a, *shape),
            b.final_mask if self.masked else None,
        )
        self._action_shape: tuple[int, ...] = (n, a) if discrete else (n, a, *(self.action_space.shape or ()))
        self._action_dtype = np.dtype(np.int64 if discrete else np.float32)
        self._actions = np.uint64(self.action_space.n) if discrete else None  # type: ignore[attr-defined]
        self._limit = int(world.config.time_limit)
        self._prepare()
        self.reset(seed)

    # The next six methods are all that another device does in its own way; here the host's arrays are the device's.

    def _prepare(self) -> None:
        """Compile the rules for the device that steps them."""
        parts = self.state, self.constants, self._b
        action = Action(self._action_dtype.name, self._action_shape[2:])
        self._kernels = kernels(self.world, layout_of(*parts), action)
        self._packed = pack(*parts)

    def _pull(self, *names: str) -> None:
        """Bring the host's copy of these buffers (or "state") up to date, before the host reads it."""

    def _push(self, *names: str) -> None:
        """Hand these buffers (or "state") to the device, after the host has written them."""

    def _run_reset(self) -> None:
        self._kernels.reset(*self._packed)

    def _run_observe(self) -> None:
        self._kernels.observe(*self._packed)

    def step_legal(self, action: Array, autoreset: bool = True) -> Step:
        """`step` of all environments for callers that have checked: an action of another shape, dtype or range may crash."""
        if self.num_envs >= THREAD_FROM and self.threads > 1 and os.getpid() == HOME:
            numba.set_num_threads(self.threads)
            self._kernels.step_threaded(*self._packed, action, self._limit, autoreset)
        else:
            self._kernels.step(*self._packed, action, self._limit, autoreset)
        return self._step

    def native(self) -> Native | None:
        """How compiled code may step these environments without coming back to Python; None for worlds with action masks:
        kernels that step worlds do not read them, so their rollouts are collected step by step."""
        if self.masked:
            return None
        b, (table, reals) = self._b, self._packed
        return Native(
            address_of(self._kernels.step_at), table.ctypes.data, reals.ctypes.data, self._limit, self._action_shape[1:],
            self._action_dtype, b.obs, b.final_obs, b.reward, b.terminated, b.truncated, b.ended_return, b.ended_length,
        )  # fmt: skip

    def reset(self, seed: int | Array | None = None) -> Array:
        """Begin new episodes in all environments; without a seed the environments' random streams go on. Returns obs."""
        if seed is not None:
            seeds = copy_seeds(int(seed), self.num_envs) if np.ndim(seed) == 0 else np.asarray(seed, np.uint64)
            if seeds.shape != (self.num_envs,):
                raise ValueError(f"seed has shape {seeds.shape}: give one whole number or one for each of {self.num_envs}")
            self._b.rng[:] = fresh_streams(seeds)
            self._push("rng")
        self.reset_some(np.ones(self.num_envs, np.bool_))
        return self._step.obs

    def reset_some(self, which: Array) -> Array:
        """Begin a new episode in the environments where `which` (N,) is true; the others are not touched. Returns obs."""
        self._set_active(which)
        try:
            self._run_reset()
        finally:
            self._set_active(1)
        return self._step.obs

    def _set_active(self, which: Array | int) -> None:
        self._b.active[:] = which
        self._push("active")

    def reseed_some(self, which: Array, seeds: Array) -> None:
        """Give the environments where `which` (N,) is true the random streams of `seeds`, one for each true."""
        self._pull("rng")
        self._b.rng[which] = fresh_streams(np.asarray(seeds, np.uint64))
        self._push("rng")

    def step(self, action: Array, active: Array | None = None, autoreset: bool = True) -> Step:
        """One step of all environments, or of those where `active` (N,) is true. Raises ValueError for an illegal action."""
        action = self._legal(action)
        if active is None:
            return self.step_legal(action, autoreset)
        self._set_active(active)
        try:
            return self.step_legal(action, autoreset)
        finally:
            self._set_active(1)

    def _legal(self, action: Array) -> Array:
        """`action` as the kernel reads it. Raises ValueError before anything moves."""
        action = np.ascontiguousarray(action, self._action_dtype)
        if action.shape != self._action_shape:
            raise ValueError(f"action has shape {action.shape}: world {self.id} wants {self._action_shape}")
        if self._actions is not None:  # as unsigned numbers, negative ones are huge
            illegal = action.view(np.uint64) >= self._actions
            if illegal.any():
                i = int(np.argwhere(illegal)[0, 0])
                raise ValueError(f"action {action[i].tolist()} of environment {i} is outside {self.action_space}")
        return action

    def episodes(self) -> Episodes:
        """Episodes that ended in the last step."""
        self._pull("terminated", "truncated", "ended_return", "ended_length")
        ended = np.flatnonzero(self._b.terminated | self._b.truncated)
        return Episodes(ended, self._b.ended_return[ended], self._b.ended_length[ended])

    def get_state(self) -> dict[str, Array]:
        """Environments of all arrays that the future depends on; the keys are State fields and engine counters."""
        self._pull(*COUNTERS)
        return {name: np.array(array) for name, array in self._lasting().items()}

    def _lasting(self) -> dict[str, Array]:
        """The host's arrays that the future depends on, by their names in a checkpoint."""
        arrays = {f"state.{name}": array for name, array in self.state._asdict().items()}
        return arrays | {f"engine.{name}": getattr(self._b, name) for name in COUNTERS}

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave. Raises ValueError where names, shapes or dtypes do not fit."""
        here = self._lasting()
        if here.keys() != state.keys():
            raise ValueError(f"state of world {self.id} has other arrays: {sorted(here.keys() ^ state.keys())}")
        for name, array in here.items():
            if state[name].shape != array.shape or state[name].dtype != array.dtype:
                raise ValueError(
                    f"{name} is {state[name].dtype}{state[name].shape}, world {self.id} holds {array.dtype}{array.shape}"
                )
        # Rules index arrays with what stands in the state, and kernels do not check bounds: a stranger's file must not.
        fault = self.world.check_state(type(self.state)(**{k: state[f"state.{k}"] for k in self.state._fields}))
        if fault or state["engine.elapsed"].min() < 0:
            raise ValueError(f"state of world {self.id} is not one that its rules can reach: {fault or 'elapsed is negative'}")
        for name, array in here.items():
            array[...] = state[name]
        self._push("state", *COUNTERS)
        self._run_observe()

    def __reduce__(self) -> Any:
        """Environments get arrays of their own: kernels know the addresses of these."""
        self._pull(*OUTCOME)
        buffers = {name: getattr(self._b, name).copy() for name in OUTCOME}
        return _again, (type(self), self.world, self.num_envs, self.threads, self.id, self.get_state(), buffers)

    def scene(self, i: int) -> Scene | None:
        return self.world.scene(self.state, i)

    def rgb(self, i: int) -> Array | None:
        return None  # worlds describe a scene; render.py draws it

    def yardstick(self) -> Yardstick | None:
        from ..solvers.yardstick import yardstick

        try:
            return yardstick(self.world, self.state)
        except ValueError:  # no finite return: without a time limit, random or optimal play may go on for ever
            return None

    def close(self) -> None:
        pass

    @property
    def obs(self) -> Array:
        self._pull("obs")
        return self._step.obs

    def action_mask(self) -> Array | None:
        """See `BatchEnv.action_mask`; the engine's own buffer."""
        if not self.masked:
            return None
        self._pull("mask")
        return self._b.mask

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, num_envs={self.num_envs}, config={self.world.config!r})"
