"""One engine, other people's interfaces: Gymnasium's Env and VectorEnv, PettingZoo's ParallelEnv and AECEnv.

Views hand out fresh arrays, because users keep what they are given. An environment seeded with s plays the same game
in every view: environment i of ``VectorView.reset(seed=s)`` is ``GymView.reset(seed=s + i)``, as in Gymnasium's own
vector environments.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from ...store.arrays import Array
from ..world import World
from .shared import METADATA, OVER, _engine, _frame, _masked, _one_action, _show, _window


class GymView(gymnasium.Env[Array, Any]):
    """One copy of a single-agent world as a `gymnasium.Env`.

    `world` is a registered name (`options` are its own) or a `World`. Observations follow the world's Box,
    the reward is a float, the flags are bools, info is empty, or holds the world's
    mask as "action_mask", int8 (actions,). Raises ValueError for a world of several
    agents, ResetNeeded for a step outside an episode.
    """

    metadata = METADATA

    def __init__(self, world: str | World, render_mode: str | None = None, **options: Any) -> None:
        self.engine = _engine(world, options, 1, 1, "GymView", render_mode)
        self.render_mode = render_mode
        self.observation_space = self.engine.observation_space
        self.action_space = self.engine.action_space
        self._whole = isinstance(self.action_space, gymnasium.spaces.Discrete)
        shape = () if self._whole else self.action_space.shape or ()
        self._action = np.zeros((1, 1, *shape), np.int64 if self._whole else np.float32)
        self._seen = self.engine.obs[0, 0, ...]  # a view of the engine's buffer, which stays where it is
        self._actions = int(self.action_space.n) if isinstance(self.action_space, gymnasium.spaces.Discrete) else 0
        self._seeded = False
        self._over = True
        self._window = _window(self.engine, render_mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_seen": None, "_window": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._seen = self.engine.obs[0, 0, ...]  # of this engine, not of the one that was copied

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode. A seed starts the environment's random stream anew, no seed lets it go on; the first
        reset without a seed draws one from `np_random`. `options` are ignored."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**63))
        self.engine.reset(None if seed is None else np.array([seed % 2**64], np.uint64))
        self._seeded, self._over = True, False
        if self._window is not None:
            _show(self._window, self.engine)
        return self.engine.obs[0, 0, ...].copy(), self._info()

    def step(self, action: Any) -> tuple[Array, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step; ValueError for an action outside the space."""
        if self._over:
            raise ResetNeeded(OVER)
        if self._whole:
            whole = _one_action(action, self.action_space, True)
            self._action[0, 0] = whole
            if 0 <= whole < self._actions:  # checked here: the engine's own check looks at arrays, at many times the cost
                step = self.engine.step_legal(self._action, False)
            else:
                step = self.engine.step(self._action, None, False)  # raises
        else:
            self._action[0, 0] = _one_action(action, self.action_space, False)
            step = self.engine.step_legal(self._action, False)
        ended, cut = step.terminated.item(), step.truncated.item()
        self._over = ended or cut
        if self._window is not None:
            _show(self._window, self.engine)
        return self._seen.copy(), step.reward.item(), ended, cut, self._info()

    def _info(self) -> dict[str, Any]:
        return _masked(self.engine, 0) if self.engine.masked else {}

    def action_masks(self) -> Array:
        """Legal actions, bool (actions,), as sb3-contrib's MaskablePPO asks for them. ValueError for a world without masks."""
        mask = self.engine.action_mask()
        if mask is None:
            raise ValueError(f"world {self.engine.id} has no action masks: all its actions are always legal")
        legal: Array = mask[0, 0].copy()
        return legal

    def render(self) -> Any:
        """The environment as text or picture, by `render_mode`; None for "human", whose window is up to date by itself."""
        return _frame(self.engine, 0, self.render_mode)

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
        self.engine.close()
