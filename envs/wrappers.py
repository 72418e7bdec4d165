"""A batch of environments seen through something: other colours, larger pixels, a camera that fails.

    env = ObservationTransform(make("maze", {"view": 0, "observe": "rgb"}, num_envs=16), zoom(2), blank(0.3))

Each change is a function (obs, rng) -> obs of observations (N, A, *shape), copy by copy; they follow one another in the order
in which they are named. The world behind them stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

from ..store.arrays import Array
from .batch import BatchEnv, Step

Change = Callable[[Array, np.random.Generator], Array]


class ObservationTransform:
    """`env`, whose observations have gone through `changes`. Everything else is that of `env`.

    What is drawn at random is drawn anew for each step, from `seed` and the number of steps since it was made or given a seed.
    """

    def __init__(self, env: BatchEnv, *changes: Change, seed: int = 0) -> None:
        self.env, self.changes, self.seed = env, changes, seed
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise ValueError(f"observations {space} are no arrays: nothing can be changed in them")
        self._time = np.zeros((), np.int64)
        shape = self._shown(np.zeros((1, 1, *space.shape), space.dtype), 0).shape[2:]
        low, high = space.low.min(), space.high.max()
        self.observation_space = gymnasium.spaces.Box(low, high, shape, space.dtype)

    def __getattr__(self, name: str) -> Any:
        if name in ("env", "native"):  # `native` would show the world to compiled code as it is
            raise AttributeError(name)
        return getattr(self.env, name)

    @property
    def obs(self) -> Array:
        """What the agents see now, (N, A, ...): the same whenever it is asked for."""
        return self._shown(self.env.obs, 0)

    def reset(self, seed: int | Array | None = None) -> Array:
        self.env.reset(seed)
        self._time[...] = 0 if seed is not None else self._time + 1
        return self.obs

    def step(self, action: Array, *, autoreset: bool = True) -> Step:
        """As the environment's; last observations of episodes have gone through the changes, too."""
        step = self.env.step(action, autoreset=autoreset)
        self._time += 1
        return step._replace(obs=self.obs, final_obs=self._shown(step.final_obs, 1))

    def get_state(self) -> dict[str, Array]:
        """The environment's, and the number of steps."""
        return self.env.get_state() | {"seen.time": self._time.copy()}

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave."""
        self._time[...] = state["seen.time"]
        self.env.set_state({name: array for name, array in state.items() if name != "seen.time"})

    def _shown(self, obs: Array, which: int) -> Array:
        rng = np.random.default_rng([self.seed, int(self._time), which])
        for change in self.changes:
            obs = change(obs, rng)
        return obs


def zoom(times: int) -> Change:
    """Each pixel of planes (..., H, W) as `times` x `times` of them."""

    def change(obs: Array, rng: np.random.Generator) -> Array:
        return obs.repeat(times, -2).repeat(times, -1)

    return change


def blank(share: float) -> Change:
    """Each pixel of planes (..., C, H, W) is 0, in all planes, with probability `share`."""
    if not 0 <= share <= 1:
        raise ValueError(f"share of blank pixels is {share}: it lies between 0 and 1")

    def change(obs: Array, rng: np.random.Generator) -> Array:
        lit = rng.random((*obs.shape[:-3], 1, *obs.shape[-2:])) >= share
        return np.where(lit, obs, np.zeros((), obs.dtype))

    return change


def recolour(angles: Sequence[float], strength: float = 1.0) -> Change:
    """Colours (..., 3, H, W), uint8, with their hues turned by degrees: copy i by the angle i modulo how many there are.

    A turn about the axis of greys, the distance from it times `strength`: less than 1 is pale, 0 is grey. Greys stay, and so
    does the sum of red, green and blue, but where a channel would leave 0 to 255. At 120 degrees red is shown as green, green
    as blue, blue as red.
    """
    grey = np.full((3, 3), 1 / 3)
    turns = np.array([grey + strength * (_turn(float(angle)) - grey) for angle in angles])

    def change(obs: Array, rng: np.random.Generator) -> Array:
        mine = turns[np.arange(len(obs)) % len(turns)]  # (N, 3, 3)
        flat = obs.reshape(len(obs), -1, 3, obs.shape[-2] * obs.shape[-1])
        turned = np.einsum("nij,najp->naip", mine, flat.astype(np.float64))
        shown: Array = turned.round().clip(0, 255).astype(np.uint8).reshape(obs.shape)
        return shown

    return change


def _turn(degrees: float) -> Array:
    """Rotation (3, 3) about (1, 1, 1) / sqrt 3, by Rodrigues' formula."""
    angle, axis = np.deg2rad(degrees), np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn: Array = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)
    return turn
