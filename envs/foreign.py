"""Any Gymnasium environment behind the same batched interface as our own worlds: a plain loop over copies.

Gymnasium has no way to save an environment. What makes a killed run resume exactly all the same is seed and
replay: every episode begins with a seed that follows from the copy's seed and the episode's number, the
running episode's actions are kept, and `set_state` plays them again. That is exact where the environment is
deterministic, which the replayed observation and return prove or disprove.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.spaces.utils import flatten, flatten_space

from .core import Array, Episodes, Scene, Step, Yardstick
from .registry import UnknownName
from .rng import GOLDEN, copy_seeds, mix

FIRST_CAPACITY = 64  # actions that the log holds before it grows


class ReplayMismatch(UserWarning):
    """A replayed episode led elsewhere: the environment is not deterministic, this is another run."""


def make_foreign(id: str, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """`gymnasium.make` without the passive checker. Raises UnknownName or ValueError, one line each."""
    module, _, name = id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
    except Exception as error:  # a stranger's code: whatever it raises is its reason
        raise ValueError(f"environment {id}: cannot import {module}: {error}") from None
    try:
        gymnasium.spec(name)
    except gymnasium.error.Error:
        known = {key.lower(): key for key in gymnasium.registry}
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        way_out = f"did you mean {known[near[0]]}?" if near else "module:Id imports its package first"
        raise UnknownName(f"Gymnasium knows no environment {name!r}: {way_out}") from None
    if "render_mode" in options:
        raise ValueError(f"environment {id}: leave render_mode out, pictures are drawn by a copy of their own")
    try:
        return gymnasium.make(name, disable_env_checker=True, **options)
    except Exception as error:  # a stranger's constructor: whatever it raises is its reason
        reason = " ".join(str(error).split()).partition(" was raised from the environment creator")[0]
        raise ValueError(f"environment {id} cannot be made: {type(error).__name__}: {reason}"[:300]) from error


def _observation(space: gymnasium.spaces.Space[Any], id: str) -> tuple[Box, Callable[[Any], Any] | None]:
    """The Box that agents see, and what turns the environment's observation into it (None: nothing does)."""
    if isinstance(space, Box):
        if space.dtype != np.float64:
            return space, None
        with np.errstate(over="ignore"):  # bounds beyond float32 become infinite
            return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32), None
    try:
        flat: Any = flatten_space(space)
    except NotImplementedError:
        flat = None
    if not isinstance(flat, Box):
        raise ValueError(f"environment {id}: observation space {space} has no fixed size: wrap it into a Box")
    with np.errstate(over="ignore"):
        box = Box(flat.low.astype(np.float32), flat.high.astype(np.float32), dtype=np.float32)
    return box, lambda obs: flatten(space, obs)


def _action(space: gymnasium.spaces.Space[Any], id: str) -> Discrete | Box:
    """The action space that agents see: Discrete from 0, or a float32 Box."""
    if isinstance(space, Discrete):
        return Discrete(int(space.n))
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating):
        return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    raise ValueError(f"environment {id}: action space {space} is not supported: wrap it into a Discrete or a float Box")


class ForeignBatch:
    """N copies of a Gymnasium environment behind `BatchEnv`; the arrays in a `Step` are its buffers.

    `id` is what `gymnasium.make` takes (`CartPole-v1`, `module:Id`), `options` its keyword arguments.
    Discrete observations become one-hot float32, Dict and Tuple are flattened, float64 is cast to float32.
    Box actions are clipped into their bounds. Raises UnknownName or ValueError in one line each.
    """

    num_agents = 1

    def __init__(self, id: str, options: dict[str, Any] | None = None, num_envs: int = 1, seed: int = 0) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: at least 1 copy is needed")
        self.id, self.options, self.num_envs = id, dict(options or {}), num_envs
        self._envs = [make_foreign(id, self.options) for _ in range(num_envs)]
        first = self._envs[0]
        self.time_limit = first.spec.max_episode_steps or 0 if first.spec else 0  # steps; 0: none that we know of
        box, self._flatten = _observation(first.observation_space, id)
        self.observation_space: gymnasium.spaces.Space[Any] = box
        self.action_space: gymnasium.spaces.Space[Any] = _action(first.action_space, id)
        self._theirs: Any = first.action_space
        self._whole = isinstance(self.action_space, Discrete)
        self._steps = [env.step for env in self._envs]
        n, shape = num_envs, (() if self._whole else self.action_space.shape or ())
        self._out = Step(
            obs=np.zeros((n, 1, *box.shape), box.dtype),
            reward=np.zeros((n, 1), np.float32),
            terminated=np.zeros(n, np.bool_),
            truncated=np.zeros(n, np.bool_),
            final_obs=np.zeros((n, 1, *box.shape), box.dtype),
        )
        self.elapsed = np.zeros(n, np.int64)  # steps of the running episodes
        self._return = np.zeros((n, 1))
        self._ended_return = np.zeros((n, 1))
        self._ended_length = np.zeros(n, np.int64)
        self._copy_seed = np.zeros(n, np.uint64)
        self._episode = np.zeros(n, np.int64)  # number of the running episode since the copy was seeded
        self._log = np.zeros((n, FIRST_CAPACITY, *shape), np.int64 if self._whole else np.float32)
        self._rows = np.arange(n)
        self._viewer: _Viewer | None = None
        self.reset(seed)

    @property
    def obs(self) -> Array:
        return self._out.obs

    def reset(self, seed: int | Array | None = None) -> Array:
        """Begin new episodes in all copies; a seed (a whole number, or one for each copy) begins at episode
        0."""
        if seed is None:
            self._episode += 1
        else:
            seeds = copy_seeds(int(seed), self.num_envs) if np.ndim(seed) == 0 else np.asarray(seed, np.uint64)
            if seeds.shape != (self.num_envs,):
                raise ValueError(f"seed has shape {seeds.shape}: give one whole number or {self.num_envs}")
            self._copy_seed[:] = seeds
            self._episode[:] = 0
        self._out.terminated[:] = False
        self._out.truncated[:] = False
        for i in range(self.num_envs):
            self._begin(i)
        return self._out.obs

    def _begin(self, i: int) -> None:
        """Begin the episode of copy `i` that `_episode` counts."""
        self.elapsed[i] = 0
        self._return[i] = 0.0
        self._put(self._out.obs, i, self._envs[i].reset(seed=self._episode_seed(i))[0])

    def _episode_seed(self, i: int) -> int:
        """Seed of the running episode: 31 bits, which is what every environment's generator takes."""
        with np.errstate(over="ignore"):
            number = self._copy_seed[i] + np.uint64(self._episode[i] + 1) * GOLDEN
            return int(mix(number) >> np.uint64(33))

    def _put(self, buffer: Array, i: int, obs: Any) -> None:
        buffer[i, 0] = obs if self._flatten is None else self._flatten(obs)

    def _their_actions(self, action: Array) -> Array:
        """Actions as the environments want them: shifted by Discrete's start, or clipped into the Box and
        cast."""
        if self._whole:
            return action + self._theirs.start if self._theirs.start else action
        return np.clip(action, self._theirs.low, self._theirs.high).astype(self._theirs.dtype, copy=False)

    def step(self, action: Array, *, autoreset: bool = True) -> Step:
        """One step of all copies; with `autoreset` a finished copy begins its next episode. Raises
        ValueError for an illegal action."""
        action = np.asarray(action, self._log.dtype)
        if action.shape != (self.num_envs, 1, *self._log.shape[2:]):
            want = (self.num_envs, 1, *self._log.shape[2:])
            raise ValueError(f"action has shape {action.shape}: environment {self.id} wants {want}")
        action = action[:, 0]
        if self._whole:
            bad = (action < 0) | (action >= self.action_space.n)  # type: ignore[attr-defined]
            if bad.any():
                copy = int(bad.argmax())
                raise ValueError(f"action {[action[copy].item()]} of copy {copy} is outside {self.action_space}")
        if self.elapsed.max() >= self._log.shape[1]:
            self._log = np.concatenate([self._log, np.zeros_like(self._log)], axis=1)
        self._log[self._rows, self.elapsed] = action
        self.elapsed += 1
        out, put = self._out, self._put
        for i, (step, a) in enumerate(zip(self._steps, self._their_actions(action), strict=True)):
            obs, reward, terminated, truncated, _ = step(a)
            out.reward[i, 0] = reward
            out.terminated[i] = terminated
            out.truncated[i] = truncated and not terminated
            if terminated or truncated:
                self._end(i, obs, autoreset)
            else:
                put(out.obs, i, obs)
                self._return[i, 0] += out.reward[i, 0]
        return out

    def _end(self, i: int, obs: Any, autoreset: bool) -> None:
        """Close the books of copy `i`, whose last observation is `obs`, and begin its next episode if asked
        to."""
        self._put(self._out.final_obs, i, obs)
        self._ended_return[i] = self._return[i] + self._out.reward[i]
        self._ended_length[i] = self.elapsed[i]
        if autoreset:
            self._episode[i] += 1
            self._begin(i)
        else:
            self._return[i] = self._ended_return[i]
            self._put(self._out.obs, i, obs)

    def episodes(self) -> Episodes:
        """Episodes that ended in the last step."""
        copies = np.flatnonzero(self._out.terminated | self._out.truncated)
        return Episodes(copies, self._ended_return[copies], self._ended_length[copies])

    def get_state(self) -> dict[str, Array]:
        """Seeds, counters, and the actions of the running episodes, (N, longest, ...); the rest follows
        from them."""
        return {
            "copy_seed": self._copy_seed.copy(),
            "episode": self._episode.copy(),
            "elapsed": self.elapsed.copy(),
            "running_return": self._return.copy(),
            "actions": self._actions_so_far(),
            "obs": self._out.obs.copy(),
        }

    def _actions_so_far(self) -> Array:
        """The running episodes' actions; zeros behind each one's end, so that equal states are equal
        bytes."""
        log = self._log[:, : int(self.elapsed.max())].copy()
        log[np.arange(log.shape[1]) >= self.elapsed[:, None]] = 0
        return log

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave, by replaying the running episodes. Raises ValueError where arrays
        do not fit.

        Warns with ReplayMismatch, once, if a replay ends elsewhere; that copy goes on from where its replay
        led.
        """
        here = self.get_state()
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
        self._log[:, :length] = state["actions"]
        self._copy_seed[:], self._episode[:] = state["copy_seed"], state["episode"]
        self._out.terminated[:] = False
        self._out.truncated[:] = False
        strayed = [i for i in range(self.num_envs) if not self._replay(i, state)]
        if strayed:
            share = f"{len(strayed)} of {self.num_envs} copies"
            reason = f"environment {self.id} is not deterministic: {share} resume elsewhere, this is another run"
            warnings.warn(ReplayMismatch(reason), stacklevel=2)

    def _replay(self, i: int, state: dict[str, Array]) -> bool:
        """Play copy `i`'s running episode again; False if it ends elsewhere."""
        self._begin(i)
        for a in self._their_actions(self._log[i, : state["elapsed"][i]]):
            obs, reward, terminated, truncated, _ = self._steps[i](a)
            self.elapsed[i] += 1
            self._return[i, 0] += np.float32(reward)
            if terminated or truncated:  # it did not when it was recorded
                self._episode[i] += 1
                self._begin(i)
                return False
            self._put(self._out.obs, i, obs)
        same = np.array_equal(self._out.obs[i], state["obs"][i], equal_nan=self._out.obs.dtype.kind == "f")
        return same and np.array_equal(self._return[i], state["running_return"][i])

    def scene(self, i: int) -> Scene | None:
        return None

    def rgb(self, i: int) -> Array | None:
        """A picture by the environment's own renderer, uint8 (H, W, 3); None if it has none or its packages
        miss."""
        if self._viewer is None:
            modes = self._envs[0].metadata.get("render_modes") or ()
            self._viewer = _Viewer(self.id, self.options if "rgb_array" in modes else None)
        log = self._their_actions(self._log[i, : self.elapsed[i]])
        return self._viewer.show((i, int(self._copy_seed[i]), int(self._episode[i])), self._episode_seed(i), log)

    def yardstick(self) -> Yardstick | None:
        return None

    def close(self) -> None:
        for env in self._envs:
            env.close()
        if self._viewer is not None:
            self._viewer.close()

    def __repr__(self) -> str:
        return f"ForeignBatch({self.id!r}, num_envs={self.num_envs}, options={self.options!r})"


class _Viewer:
    """One more environment that can draw; it follows a copy by replaying what it has not seen of its
    episode."""

    def __init__(self, id: str, options: dict[str, Any] | None) -> None:
        self._env: gymnasium.Env[Any, Any] | None = None  # stays None without options: there is no renderer
        if options is not None:
            with contextlib.suppress(ImportError, gymnasium.error.Error):  # the renderer's packages are not here
                self._env = gymnasium.make(id, disable_env_checker=True, render_mode="rgb_array", **options)
        self._at: tuple[int, int, int] | None = None  # copy, its seed, its episode
        self._done = 0  # steps of that episode that the viewer has played

    def show(self, which: tuple[int, int, int], seed: int, actions: Array) -> Array | None:
        if self._env is None:
            return None
        if which != self._at or self._done > len(actions):
            self._env.reset(seed=seed)
            self._at, self._done = which, 0
        for a in actions[self._done :]:
            self._env.step(a)
        self._done = len(actions)
        try:
            frame: Any = self._env.render()
        except (ImportError, gymnasium.error.Error):  # the renderer's packages are not here
            self._env = None
            return None
        return None if frame is None else np.asarray(frame, np.uint8)

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
