"""Connect four against a random opponent: PettingZoo's game as a single-agent Gymnasium environment with action masks.

    gumdrop train -c examples/connect_four.yaml            # from the root of a checkout; three minutes on two cores
    gumdrop eval connect-four --episodes 500

A full column cannot be played: info["action_mask"] says so, after reset() and each step. Who plays one all the same loses.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo.classic.connect_four.connect_four import raw_env


class ConnectFour(gymnasium.Env[np.ndarray, int]):
    """The learner is first or second, by chance. Each step is its move and the opponent's answer.

    Observation: uint8 (6, 7, 2), the learner's stones and the opponent's. Reward: 1 for a win, -1 for a loss, 0 for a draw.
    """

    metadata = {"render_modes": []}
    observation_space = Box(0, 1, (6, 7, 2), np.uint8)
    action_space = Discrete(7)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.game = raw_env()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.game.reset()
        self.me = self.game.possible_agents[int(self.np_random.integers(2))]
        if self.game.agent_selection != self.me:
            self._answer()
        return self._see()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self._legal()[action]:
            obs, info = self._see()
            return obs, -1.0, True, False, info
        self.game.step(int(action))
        if not self._over():
            self._answer()
        obs, info = self._see()
        return obs, float(self.game.rewards[self.me]), self._over(), False, info

    def _answer(self) -> None:
        self.game.step(int(self.np_random.choice(np.flatnonzero(self._legal()))))

    def _legal(self) -> np.ndarray:
        """Columns that are not full, bool (7,)."""
        return np.asarray(self.game.board).reshape(6, 7)[0] == 0

    def _over(self) -> bool:
        return any(self.game.terminations.values())

    def _see(self) -> tuple[np.ndarray, dict[str, Any]]:
        board = np.asarray(self.game.board).reshape(6, 7)
        mine = 1 + self.game.possible_agents.index(self.me)
        obs = np.stack([board == mine, board == 3 - mine], -1).astype(np.uint8)
        return obs, {"action_mask": self._legal().astype(np.int8)}
