"""Other people's environments, as bad as they come: what `test_foreign.py` and `test_workers.py` name by `strange:Id`.

A module of its own, because worker processes must be able to import it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import AECEnv, ParallelEnv


class Fine(gymnasium.Env[Any, Any]):
    """A walk on 0..9 from a random place; episodes end at 9, or by the limit of 12 steps. Keeps every promise."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = Box(0, 20, (2,), np.float32)
    action_space = Discrete(2)
    made = 0  # in this process

    def __init__(self, when: int = 2, sleep: float = 30.0, render_mode: str | None = None) -> None:
        self.when, self.sleep, self.render_mode = when, sleep, render_mode
        self.x, self.t = 0, 0
        self.number = type(self).made
        type(self).made += 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = int(self.np_random.integers(8)), 0
        return self.look(), {}

    def look(self) -> Any:
        return np.array([self.x, self.t], np.float32)

    def gain(self) -> Any:
        return float(self.np_random.random()) - 0.5

    def strike(self) -> None:
        """What a strange one does in step `when` of an episode, if it goes right there."""

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.t == self.when and action == 1:
            self.strike()
        self.x = max(self.x + 2 * int(action) - 1, 0)
        return self.look(), self.gain(), self.x == 9, self.t == 12, {}

    def render(self) -> Any:
        return np.full((2, 3, 3), 10 * self.x + self.t, np.uint8)


class Raises(Fine):
    def strike(self) -> None:
        print("printed by the environment")
        raise KeyError("no\ndoor")


class Exits(Fine):
    def strike(self) -> None:
        os._exit(7)


class SaysGoodbye(Fine):
    def strike(self) -> None:
        sys.exit("goodbye")


class Crashes(Fine):
    def strike(self) -> None:
        ctypes.string_at(0)  # reads address 0: a segmentation fault


class Hangs(Fine):
    def strike(self) -> None:
        time.sleep(self.sleep)


class HangsInReset(Fine):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.number == 1:
            time.sleep(self.sleep)
        return super().reset(seed=seed)


class HangsWhenMade(Fine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.number == 1:
            time.sleep(self.sleep)


class ExitsWhenMade(Fine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        os._exit(3)


class Float64(Fine):
    def look(self) -> Any:
        return super().look().astype(np.float64)


class Outside(Fine):
    def look(self) -> Any:
        return super().look() + (9 if self.t == 12 else 0)


class NotANumber(Fine):
    def gain(self) -> Any:
        return float("nan") if self.t == 3 else 0.0


class WrongShape(Fine):
    def look(self) -> Any:
        return np.array([self.x], np.float32)


class RewardArray(Fine):
    def gain(self) -> Any:
        return np.array([0.5, 0.5])


class Luck(Fine):
    def gain(self) -> Any:
        return float(np.random.default_rng().random())


class Together(ParallelEnv):  # type: ignore[misc]  # PettingZoo has no types
    """Three agents; agent k leaves after `ends[k]` steps, cut where its name is in `cut`. Reward: own action + 1."""

    metadata = {"name": "together_v0", "render_modes": ["rgb_array"]}

    def __init__(
        self, ends: tuple[int, ...] = (2, 4, 4), cut: str = "", sizes: tuple[int, ...] = (3, 3, 3),
        choices: tuple[int, ...] = (4, 4, 4), start: int = 0, render_mode: str | None = None, luck: bool = False,
    ) -> None:  # fmt: skip
        self.possible_agents = ["ann", "bob", "cyd"]
        self.agents: list[str] = []
        self.ends, self.cut = dict(zip(self.possible_agents, ends, strict=True)), cut.split("+")
        self.seen = {a: Box(-100, 100, (n,), np.float32) for a, n in zip(self.possible_agents, sizes, strict=True)}
        self.moves = {a: Discrete(n, start=start) for a, n in zip(self.possible_agents, choices, strict=True)}
        self.render_mode, self.luck, self.t = render_mode, luck, 0
        self.rng = np.random.default_rng(0)
        self.given: list[Any] = []

    def observation_space(self, agent: str) -> Any:
        return self.seen[agent]

    def action_space(self, agent: str) -> Any:
        return self.moves[agent]

    def look(self, action: Any = None) -> dict[str, Any]:
        draw = float(self.rng.integers(10))
        return {a: np.array([self.t, (action or {}).get(a, -1), draw], np.float32) for a in self.agents}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None and not self.luck:
            self.rng = np.random.default_rng(seed)
        self.t, self.agents = 0, list(self.possible_agents)
        return self.look(), {a: {} for a in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        assert set(actions) == set(self.agents)
        self.given.append(dict(actions))
        self.t += 1
        there = list(self.agents)
        over = {a: self.t >= self.ends[a] for a in there}
        ended = {a: over[a] and a not in self.cut for a in there}
        cut = {a: over[a] and a in self.cut for a in there}
        seen = self.look(actions)
        self.agents = [a for a in there if not over[a]]
        return seen, {a: float(actions[a]) + 1 for a in there}, ended, cut, {a: {} for a in there}

    def render(self) -> Any:
        return np.full((2, 3, 3), self.t, np.uint8)


class Nobody(Together):
    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = []


class ZooRaises(Together):
    def step(self, actions: dict[str, Any]) -> Any:
        raise RuntimeError("the zoo is closed")


class ZooOutside(Together):
    def look(self, action: Any = None) -> dict[str, Any]:
        return {a: obs + 1000 * (self.t == 3) for a, obs in super().look(action).items()}


class Turns(AECEnv):  # type: ignore[misc]  # PettingZoo has no types
    pass


def parallel_env(**options: Any) -> Together:
    return Together(**options)


def fine() -> Fine:
    return Fine()


def number() -> int:
    return 3


for _cls in (
    Fine, Raises, Exits, SaysGoodbye, Crashes, Hangs, HangsInReset, HangsWhenMade, ExitsWhenMade, Float64, Outside,
    NotANumber, WrongShape, RewardArray, Luck,
):  # fmt: skip
    gymnasium.register(f"{_cls.__name__}-v0", f"strange:{_cls.__name__}")
