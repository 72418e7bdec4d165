"""A world as a PettingZoo environment."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from pettingzoo import ParallelEnv

from ...store.arrays import Array
from ..world import World
from .shared import METADATA, OVER, _engine, _frame, _masked, _one_action, _show, _window


class ParallelView(ParallelEnv[str, Array, Any]):  # type: ignore[misc]  # PettingZoo has no types
    """One copy of a world with all its agents as a PettingZoo `ParallelEnv`; agents are agent_0, agent_1, ...

    All agents' episodes end together. Rewards are floats, flags bools; infos are empty, or hold
    the world's masks as "action_mask", int8 (actions,).
    """

    def __init__(self, world: str | World, render_mode: str | None = None, **options: Any) -> None:
        self.engine = _engine(world, options, 1, 1, "ParallelView", render_mode)
        self.metadata = {**METADATA, "name": f"{self.engine.id}_v0", "is_parallelizable": True}
        self.render_mode = render_mode
        self.possible_agents = [f"agent_{k}" for k in range(self.engine.num_agents)]
        self.agents: list[str] = []
        # each agent has spaces of its own, so that seeding one agent's sampling leaves the others' alone
        self._observation_spaces = {agent: deepcopy(self.engine.observation_space) for agent in self.possible_agents}
        self._action_spaces = {agent: deepcopy(self.engine.action_space) for agent in self.possible_agents}
        self._whole = isinstance(self.engine.action_space, gymnasium.spaces.Discrete)
        shape = () if self._whole else self.engine.action_space.shape or ()
        self._action = np.zeros((1, len(self.possible_agents), *shape), np.int64 if self._whole else np.float32)
        self._seeded = False
        self._window = _window(self.engine, render_mode)

    def observation_space(self, agent: str) -> gymnasium.spaces.Space[Any]:
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.spaces.Space[Any]:
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
        """Begin an episode; seeding as in `GymView`. `options` are ignored."""
        if seed is None and not self._seeded:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
        self.engine.reset(None if seed is None else np.array([int(seed) % 2**64], np.uint64))
        self._seeded = True
        self.agents = list(self.possible_agents)
        if self._window is not None:
            _show(self._window, self.engine)
        return self._observations(), self._infos(self.agents)

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Array], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """One step of all agents. Raises ValueError if an agent's action is missing or outside its space."""
        if not self.agents:
            raise ResetNeeded(OVER)
        for k, agent in enumerate(self.possible_agents):
            if agent not in actions:
                raise ValueError(f"no action for {agent}: all of {', '.join(self.agents)} act in every step")
            self._action[0, k] = _one_action(actions[agent], self._action_spaces[agent], self._whole)
        step = self.engine.step(self._action, None, False)
        ended, cut, agents = step.terminated.item(), step.truncated.item(), self.agents
        if self._window is not None:
            _show(self._window, self.engine)
        if ended or cut:
            self.agents = []
        return (
            self._observations(),
            dict(zip(agents, step.reward[0].tolist(), strict=True)),
            dict.fromkeys(agents, ended),
            dict.fromkeys(agents, cut),
            self._infos(agents),
        )

    def _infos(self, agents: list[str]) -> dict[str, dict[str, Any]]:
        return {agent: _masked(self.engine, 0, k) for k, agent in enumerate(agents)}

    def _observations(self) -> dict[str, Array]:
        return {agent: self.engine.obs[0, k, ...].copy() for k, agent in enumerate(self.possible_agents)}

    def render(self) -> Any:
        """The environment as text or picture, by `render_mode`; None for "human", whose window is up to date by itself."""
        return _frame(self.engine, 0, self.render_mode)

    def close(self) -> None:
        if self._window is not None:
            self._window.close()
        self.engine.close()


def aec(world: str | World, render_mode: str | None = None, **options: Any) -> Any:
    """A world as a PettingZoo `AECEnv`, by PettingZoo's converter: the world moves after the last agent."""
    from pettingzoo.utils.conversions import parallel_to_aec

    return parallel_to_aec(ParallelView(world, render_mode, **options))
