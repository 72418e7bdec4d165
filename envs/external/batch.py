"""Gymnasium and PettingZoo environments behind the same batched interface as our own worlds.

Neither library can save an environment. What makes a killed run resume exactly all the same is seed and replay:
every episode begins with a seed that follows from the environment's seed and the episode's number, the running episode's
actions are kept, and `set_state` plays them again. That is exact where the environment is deterministic, which the
replayed observation and return prove or disprove.

The loop over environments runs here (`Loop`), or in worker processes (`workers.py`), with the same bits.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

from ...store.arrays import Array
from ..batch import Episodes, Step
from ..rng import copy_seeds
from ..world import Scene, Yardstick
from .environments import adapt
from .loop import Loop, LoopBuffers, layout
from .make import make_external, own_options, uses_masks

FIRST_CAPACITY = 64  # actions that the log holds before it grows


class ReplayMismatch(UserWarning):
    """A replayed episode led elsewhere: the environment is not deterministic, this is another run."""


class ExternalBatch:
    """N environments of a Gymnasium or a PettingZoo parallel environment behind `BatchEnv`; a `Step` holds its buffers.

    `id` is what `gymnasium.make` takes (`CartPole-v1`, `module:Id`), or `module:function` where the function returns a
    ParallelEnv or a gymnasium.Env; `options` are its keyword arguments. Discrete observations become one-hot float32,
    action masks are taken out (`action_mask`), Dict and Tuple are flattened (without entries of a Dict that have no fixed
    size, such as MiniGrid's mission), float64 is cast to float32. Box actions are clipped into their bounds. `ZooEnv`
    says what becomes of agents that leave.

    `workers` > 0 runs the environments in so many processes, each with a share of them, and `timeout` seconds are what one
    call of an environment may take there (0: for ever); both may stand in `options` instead. Results do not depend
    on them. `action_mask=False` in `options` leaves masks alone: they are not used, and one in a Dict is observed like other
    entries. An environment that raises, dies or hangs raises EnvironmentFailed; with workers all of them are ended then.

    Raises UnknownName or ValueError in one line each where the environment cannot be made.
    """

    def __init__(
        self,
        id: str,
        options: dict[str, Any] | None = None,
        num_envs: int = 1,
        seed: int = 0,
        workers: int | None = None,
        timeout: float | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: at least 1 environment is needed")
        ours = {key: value for key, value in (("workers", workers), ("timeout", timeout)) if value is not None}
        self.id, self.num_envs = id, num_envs
        self.masks = uses_masks(id, options or {})
        self.options, workers, timeout = own_options(id, {**(options or {}), **ours})
        self.workers = min(workers, num_envs)  # processes; 0: the environments are in this one
        self._loop: Any  # Loop or Workers: reset, step, replay, draw, close
        self._b: LoopBuffers
        if self.workers:
            from .workers import Workers

            self._loop = Workers(id, self.options, self.masks, num_envs, self.workers, timeout)
            spaces, self._b = self._loop.spaces, self._loop.buffers
        else:
            envs = [adapt(id, make_external(id, self.options), self.masks) for _ in range(num_envs)]
            spaces = envs[0].spaces
            self._b = LoopBuffers(*(np.zeros(shape, dtype) for shape, dtype in layout(spaces, num_envs, 1)))
            self._loop = Loop(id, self.options, envs, self._b)
        self.num_agents, self.time_limit = spaces.agents, spaces.time_limit
        self.observation_space: gymnasium.spaces.Space[Any] = spaces.observation
        self.action_space: gymnasium.spaces.Space[Any] = spaces.action
        self._theirs = spaces.theirs
        self._whole = isinstance(spaces.action, Discrete)
        b = self._b
        self.elapsed = b.elapsed  # steps of the running episodes
        shape = b.action.shape[1:]
        self._log = np.zeros((num_envs, FIRST_CAPACITY, *shape), np.int64 if self._whole else np.float32)
        self._rows = np.arange(num_envs)
        self._over = np.zeros(num_envs, np.bool_)  # ended and, without autoreset, left as they are
        self._out = Step(b.obs, b.reward, b.terminated, b.truncated, b.final_obs)
        self.reset(seed)
        if b.masked.any():
            if not b.masked.all():
                i = int(b.masked.argmin())
                raise ValueError(f"environment {id}: number {i} gives no action_mask where others do: give it at each reset()")
            self._out = self._out._replace(final_mask=b.final_mask)

    def action_mask(self) -> Array | None:
        """See `BatchEnv.action_mask`: what the environment's first reset gave, in a Dict observation or in `info`."""
        return None if self._out.final_mask is None else self._b.mask

    @property
    def obs(self) -> Array:
        return self._out.obs

    def reset(self, seed: int | Array | None = None) -> Array:
        """Begin new episodes in all environments; a seed (a whole number, or one for each environment) begins at episode 0."""
        b = self._b
        if seed is None:
            b.episode[:] += 1
        else:
            seeds = copy_seeds(int(seed), self.num_envs) if np.ndim(seed) == 0 else np.asarray(seed, np.uint64)
            if seeds.shape != (self.num_envs,):
                raise ValueError(f"seed has shape {seeds.shape}: give one whole number or {self.num_envs}")
            b.copy_seed[:] = seeds
            b.episode[:] = 0
        b.terminated[:] = False
        b.truncated[:] = False
        self._over[:] = False
        self._loop.reset()
        return b.obs

    def _their_actions(self, action: Array) -> Array:
        """Actions as the environments want them: shifted by Discrete's start, or clipped into the Box and cast."""
        moved: Array = action + self._theirs.start if self._whole else np.clip(action, self._theirs.low, self._theirs.high)
        return np.asarray(moved, self._theirs.dtype)

    def step(self, action: Array, *, autoreset: bool = True) -> Step:
        """One step of all environments; with `autoreset` a finished environment begins its next episode.

        Raises ValueError for an illegal action, EnvironmentFailed where an environment fails.
        """
        b, action = self._b, np.asarray(action, self._log.dtype)
        if action.shape != b.action.shape:
            raise ValueError(f"action has shape {action.shape}: environment {self.id} wants {b.action.shape}")
        if self._whole:
            bad = (action < 0) | (action >= self.action_space.n)  # type: ignore[attr-defined]
            if bad.any():
                i = int(np.argwhere(bad)[0, 0])
                raise ValueError(f"action {action[i].tolist()} of environment {i} is outside {self.action_space}")
        if b.elapsed.max() >= self._log.shape[1]:
            self._log = np.concatenate([self._log, np.zeros_like(self._log)], axis=1)
        self._log[self._rows, b.elapsed] = action
        b.elapsed[:] += 1
        b.action[:] = self._their_actions(action)
        self._loop.step(autoreset)
        self._over[:] = False if autoreset else b.terminated | b.truncated
        return self._out

    def episodes(self) -> Episodes:
        """Episodes that ended in the last step."""
        ended = np.flatnonzero(self._b.terminated | self._b.truncated)
        return Episodes(ended, self._b.ended_return[ended], self._b.ended_length[ended])

    def get_state(self) -> dict[str, Array]:
        """Seeds, counters, and the running episodes' actions, (N, longest, A, ...); the rest follows from them.

        The actions of a single agent are (N, longest, ...).
        """
        b = self._b
        return {
            "copy_seed": b.copy_seed.copy(),
            "episode": b.episode.copy(),
            "elapsed": b.elapsed.copy(),
            "running_return": b.running.copy(),
            "actions": self._actions_so_far(),
            "obs": b.obs.copy(),
            "over": self._over.copy(),
        }

    def _actions_so_far(self) -> Array:
        """The running episodes' actions; zeros behind each one's end, so that equal states are equal bytes."""
        log = self._log[:, : int(self._b.elapsed.max())].copy()
        log[np.arange(log.shape[1]) >= self._b.elapsed[:, None]] = 0
        return log[:, :, 0] if self.num_agents == 1 else log

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave, by replaying the running episodes. Raises ValueError where arrays do not fit.

        Warns with ReplayMismatch, once, if a replay ends elsewhere; that environment goes on from where its replay led.
        """
        b, here = self._b, self.get_state()
        if here.keys() != state.keys():
            raise ValueError(f"state of {self.id} has other arrays: {sorted(here.keys() ^ state.keys())}")
        for name, array in here.items():
            there, free = state[name], 2 if name == "actions" else 1  # the log's length may differ
            if there.dtype != array.dtype or there.shape[:1] != array.shape[:1] or there.shape[free:] != array.shape[free:]:
                raise ValueError(f"{name} is {there.dtype}{there.shape}, {self.id} holds {array.dtype}{array.shape}")
        length = state["actions"].shape[1]
        if (state["elapsed"] > length).any() or (state["elapsed"] < 0).any():
            raise ValueError(f"elapsed of {self.id} does not fit its {length} recorded actions")
        if length > self._log.shape[1]:
            self._log = np.zeros((self.num_envs, 2 * length, *self._log.shape[2:]), self._log.dtype)
        actions = state["actions"].reshape(self.num_envs, length, *self._log.shape[2:])
        self._log[:, :length] = actions
        b.copy_seed[:], b.episode[:] = state["copy_seed"], state["episode"]
        b.terminated[:] = False
        b.truncated[:] = False
        self._over[:] = state["over"]
        same: Array = self._loop.replay(self._their_actions(actions), state["elapsed"], state["over"])
        self._over &= same
        same = same & (b.running == state["running_return"]).all(1)
        for i in np.flatnonzero(same):
            same[i] = np.array_equal(b.obs[i], state["obs"][i], equal_nan=b.obs.dtype.kind == "f")
        if not same.all():
            share = f"{int((~same).sum())} of {self.num_envs} environments"
            reason = f"environment {self.id} is not deterministic: {share} resume elsewhere, this is another run"
            # a place that is no file: Python then prints one line, not a line of our source as well
            warnings.warn_explicit(ReplayMismatch(reason), None, "<resume>", 0)

    def scene(self, i: int) -> Scene | None:
        return None

    def rgb(self, i: int) -> Array | None:
        """A picture by the environment's own renderer, uint8 (H, W, 3); None if it has none or its packages miss."""
        picture: Array | None = self._loop.draw(i, self._their_actions(self._log[i, : self._b.elapsed[i]]))
        return picture

    def yardstick(self) -> Yardstick | None:
        return None

    def close(self) -> None:
        self._loop.close()

    def __repr__(self) -> str:
        workers = f", workers={self.workers}" if self.workers else ""
        return f"ExternalBatch({self.id!r}, num_envs={self.num_envs}, options={self.options!r}{workers})"
