"""A world as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ...store.arrays import Array
from ..batch import Step
from ..world import World
from .shared import METADATA, OVER, _engine, _frame, _show, _window


class VectorView(VectorEnv[Array, Any, Array]):
    """N environments of a single-agent world as a `gymnasium.vector.VectorEnv`.

    obs (N, ...) of the world's dtype, reward float32 (N,), flags bool (N,). `autoreset_mode` is one of
    Gymnasium's three, stated in ``metadata["autoreset_mode"]``:

    - NEXT_STEP (default): the step after an episode's last ignores the action, resets the environment and pays 0.
    - SAME_STEP: obs is the new episode's first; the old one's last is in infos["final_obs"][i].
    - DISABLED: call ``reset(options={"reset_mask": ended})``; stepping an ended environment raises ResetNeeded.

    Where an episode has ended, infos["episode"] holds its return "r" (float64 (N,)) and length "l" (int64
    (N,)), and infos["_episode"] says where. Gymnasium's RecordEpisodeStatistics wants to write that key
    itself: pass statistics=False. `threads`: None for as many as the machine has; results do not depend on
    it. Where the world has action masks, infos["action_mask"], int8 (N, actions), holds those of obs.
    """

    def __init__(
        self,
        world: str | World,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        statistics: bool = True,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        self.engine = _engine(world, options, num_envs, threads, "VectorView", render_mode)
        self._mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**METADATA, "autoreset_mode": self._mode}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.single_observation_space = self.engine.observation_space
        self.single_action_space = self.engine.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._whole = isinstance(self.single_action_space, gymnasium.spaces.Discrete)
        self._statistics = statistics
        self._seeded = False
        self._over = np.ones(num_envs, np.bool_)
        self._window = _window(self.engine, render_mode)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin episodes: in all environments, or where ``options["reset_mask"]``, bool (N,), is true.

        Whole number s: environment i gets seed s + i. A list gives each environment its seed, None lets its stream go on.
        """
        n = self.num_envs
        mask = (options or {}).get("reset_mask")
        if mask is None:
            mask = np.ones(n, np.bool_)
        elif not (isinstance(mask, np.ndarray) and mask.shape == (n,) and mask.dtype == np.bool_ and mask.any()):
            raise ValueError(f"options['reset_mask'] is {mask!r:.80}: give a bool array of shape ({n},), not all false")
        if seed is None or isinstance(seed, (int, np.integer)):
            super().reset(seed=None if seed is None else int(seed))
        if seed is not None or not self._seeded:
            self._seed_some(seed, mask)
        self._over = self._over & ~mask
        obs = self.engine.reset_some(mask)[:, 0].copy()
        if self._window is not None:
            _show(self._window, self.engine)
        return obs, self._masks()

    def _seed_some(self, seed: int | Sequence[int | None] | None, mask: Array) -> None:
        """New random streams for the environments at `mask` that get a seed; the first time, for all environments."""
        n = self.num_envs
        seeds: list[int | None]
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else int(seed) + i for i in range(n)]
        else:
            seeds = list(seed)
            if len(seeds) != n:
                raise ValueError(f"{len(seeds)} seeds for {n} environments: give one for each")
        which = np.array([s is not None for s in seeds]) & mask
        if not self._seeded:
            fresh: list[int] = self.np_random.integers(2**63, size=n).tolist()
            seeds = [new if s is None else s for s, new in zip(seeds, fresh, strict=True)]
            which[:] = True
        chosen = [s % 2**64 for s, w in zip(seeds, which, strict=True) if w and s is not None]
        self.engine.reseed_some(which, np.array(chosen, np.uint64))
        self._seeded = True

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of all environments. Raises ValueError for an action outside the space."""
        action = np.asarray(actions)
        if self._whole and action.dtype.kind not in "iu":
            raise ValueError(f"actions are {action.dtype}: {self.single_action_space} wants whole numbers")
        if action.shape != self.action_space.shape:
            raise ValueError(f"actions have shape {action.shape}: {self.num_envs} environments want {self.action_space.shape}")
        action = action[:, None]
        waiting = self._over
        if not waiting.any():
            out = self.engine.step(action, None, self._mode is AutoresetMode.SAME_STEP)
        elif self._mode is AutoresetMode.NEXT_STEP and self._seeded:
            out = self.engine.step(action, ~waiting, False)
        else:
            raise ResetNeeded(f"environment {int(waiting.argmax())}: {OVER}")
        over = out.terminated | out.truncated
        infos = self._infos(over, out) if over.any() else {}
        if waiting.any():
            self.engine.reset_some(waiting)
        infos |= self._masks()
        self._over = over if self._mode is not AutoresetMode.SAME_STEP else waiting
        if self._window is not None:
            _show(self._window, self.engine)
        return (
            out.obs[:, 0].copy(),
            out.reward[:, 0].copy(),
            out.terminated.copy(),
            out.truncated.copy(),
            infos,
        )

    def _masks(self) -> dict[str, Any]:
        """infos["action_mask"], int8 (N, actions), of what the environments show now, where the world has masks."""
        mask = self.engine.action_mask()
        if mask is None:
            return {}
        return {"action_mask": mask[:, 0].astype(np.int8), "_action_mask": np.ones(self.num_envs, np.bool_)}

    def _infos(self, over: Array, out: Step) -> dict[str, Any]:
        """What Gymnasium puts into `infos` when the episodes at `over`, bool (N,), have ended."""
        infos = self._episode(over) if self._statistics else {}
        if self._mode is AutoresetMode.SAME_STEP:
            rows = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(over):
                rows[i] = out.final_obs[i, 0, ...].copy()
            infos |= {"final_obs": rows, "_final_obs": over.copy()}
            final = self._episode(over) if self._statistics else {}
            if out.final_mask is not None:
                final |= {"action_mask": out.final_mask[:, 0].astype(np.int8), "_action_mask": over.copy()}
            infos |= {"final_info": final, "_final_info": over.copy()}
        return infos

    def _episode(self, over: Array) -> dict[str, Any]:
        """The engine's statistics of the episodes that have just ended, in Gymnasium's form."""
        environments, returns, lengths = self.engine.episodes()
        r, length = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        r[environments], length[environments] = returns[:, 0], lengths
        return {
            "episode": {"r": r, "_r": over.copy(), "l": length, "_l": over.copy()},
            "_episode": over.copy(),
        }

    def render(self) -> tuple[Any, ...] | None:
        """A frame of each environment, by `render_mode`; None for "human", whose window shows environment 0 by itself."""
        if self._window is not None:
            return None
        return tuple(_frame(self.engine, i, self.render_mode) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        if self._window is not None:
            self._window.close()
        self.engine.close()


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """A mode by Gymnasium's value (NextStep) or by its name (next_step)."""
    for known in AutoresetMode:
        if mode == known or str(mode).lower() in (known.value.lower(), known.name.lower()):
            return known
    raise ValueError(f"autoreset_mode is {mode!r}: known are {', '.join(m.name for m in AutoresetMode)}")
