"""Multi-armed bandits: every episode is a fresh task of k unknown arms and `horizon` pulls."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field

from ..bayes import bandit_horizon, bandit_oracle, bayes_bandit
from ..core import MOST_STEPS, Array, Scene, World, WorldConfig, Yardstick, outside, rule
from ..registry import world
from ..rng import normal, unit


@world("bandit")
class Bandit(World):
    """k arms with means drawn from U[0, 1] at the start of each episode (Lai & Robbins 1985; RL^2, Duan et al. 2016).

    Action: the arm. Reward: Bernoulli with the arm's mean, or Gaussian around it. Observation, float32 (k + 2,): the last
    arm as one-hot, the last reward, the share of pulls done; what an agent knows of the arms, it has to remember.
    """

    class Config(WorldConfig):
        arms: int = Field(5, ge=2, le=1000, description="how many arms, k")
        reward: Literal["bernoulli", "gaussian"] = Field("bernoulli", description="distribution of a pull")
        sd: float = Field(0.3, ge=0, le=100, description="standard deviation of a Gaussian pull")
        pulls: int = Field(100, ge=1, le=1_000_000, description="pulls per episode, known to the agent")
        time_limit: int = Field(
            0, ge=0, le=MOST_STEPS, description="steps until an episode is truncated, unseen; 0 means never"
        )

    class State(NamedTuple):
        mean: Array  # float64 (N, k)
        arm: Array  # int64 (N,): last arm, -1 before the first pull
        reward: Array  # float32 (N,): last reward
        pulls: Array  # int64 (N,)

    class Constants(NamedTuple):
        arms: int
        gaussian: bool
        sd: float
        horizon: int

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        k = self.config.arms
        bound = np.inf if self.config.reward == "gaussian" else 1.0
        low, high = np.zeros(k + 2, np.float32), np.ones(k + 2, np.float32)
        low[k], high[k] = (-bound if self.config.reward == "gaussian" else 0.0), bound
        return gymnasium.spaces.Box(low, high, dtype=np.float32)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.config.arms)

    @property
    def horizon(self) -> int:
        return min(self.config.pulls, self.config.time_limit or self.config.pulls)

    def allocate(self, n: int) -> State:
        return self.State(np.zeros((n, self.config.arms)), np.full(n, -1), np.zeros(n, np.float32), np.zeros(n, np.int64))

    def constants(self) -> Constants:
        return self.Constants(self.config.arms, self.config.reward == "gaussian", self.config.sd, self.config.pulls)

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        for k in range(c.arms):
            s.mean[i, k] = unit(rng, i)
        s.arm[i] = -1
        s.reward[i] = 0.0
        s.pulls[i] = 0

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        arm = action[0]
        if c.gaussian:
            reward[0] = s.mean[i, arm] + c.sd * normal(rng, i)
        else:
            reward[0] = 1.0 if unit(rng, i) < s.mean[i, arm] else 0.0
        s.arm[i] = arm
        s.reward[i] = reward[0]
        s.pulls[i] += 1
        return s.pulls[i] >= c.horizon

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        for j in range(c.arms):
            out[j] = 0.0
        if s.arm[i] >= 0:
            out[s.arm[i]] = 1.0
        out[c.arms] = s.reward[i]
        out[c.arms + 1] = s.pulls[i] / c.horizon

    def yardstick(self, s: Any) -> Yardstick:
        """Before the arms are drawn, so the same for all copies: an optimum that has to explore, where it is known."""
        arms, pulls = self.config.arms, self.horizon
        best, meaning = pulls * bandit_oracle(arms), "bound: what an agent gets that knows every arm"
        if self.config.reward == "bernoulli" and pulls <= bandit_horizon(arms):
            best, meaning = bayes_bandit(arms, pulls).value, "Bayes-optimal exploration"
        n = len(s.arm)
        return Yardstick(np.full(n, pulls / 2), np.full(n, best), meaning)

    def check_state(self, s: Any) -> str | None:
        wrong = outside(s.arm, -1, self.config.arms - 1) or outside(s.pulls, 0, self.config.pulls) or outside(s.mean, 0, 1)
        return "arm, pulls or mean is out of bounds" if wrong else None

    def scene(self, s: Any, i: int) -> Scene:
        bars = tuple((f"arm {k}" + (" <" if s.arm[i] == k else ""), float(m)) for k, m in enumerate(s.mean[i]))
        return Scene(np.empty((0, 0), "<U1"), bars=bars, caption=f"pull {s.pulls[i]}, last reward {s.reward[i]:g}")
