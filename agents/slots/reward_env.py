"""A batch of environments that pays the rewards of components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic

from ...core_ml.component import BonusPart
from ...envs.batch import BatchEnv, Step
from ...envs.names import explain
from ...store.arrays import Array
from ..protocol import Spaces
from .rewards import BONUSES, Rewards, Steps


class RewardEnv:
    """A batch of environments whose rewards have bonuses added, for whoever steps them: algorithms of other libraries.

    The episodes that it tells of are the world's own: a return is what the world paid. Parts learn after every `every` steps.
    Everything else is that of `env`.
    """

    def __init__(self, env: BatchEnv, bonuses: list[Any] | tuple[Any, ...], gamma: float, seed: int, every: int = 32) -> None:
        """`bonuses` as options say them, such as ["rnd"]. Raises ValueError for those that cannot be."""
        if every < 1:
            raise ValueError(f"every is {every}: parts of a reward learn after 1 step or more")
        self.env, self.every = env, every
        try:
            found = BONUSES.validate_python(bonuses)
        except pydantic.ValidationError as error:
            raise ValueError(explain(error, "bonus", list(BonusPart.model_fields))) from None
        self.rewards = Rewards(found, Spaces.of(env), gamma, seed)
        self._seen: list[Steps] = []
        self.metrics: dict[str, float] = {}  # of the last time that parts learned

    def __getattr__(self, name: str) -> Any:
        if name in ("env", "native"):  # `native` would step the world past this
            raise AttributeError(name)
        return getattr(self.env, name)

    def step(self, action: Array, *, autoreset: bool = True) -> Step:
        """As the environment's, with the bonuses added to a reward of its own."""
        obs = np.array(self.env.obs)
        step = self.env.step(action, autoreset=autoreset)
        ended = (step.terminated | step.truncated).reshape(-1, *[1] * (obs.ndim - 1))
        next_obs = np.where(ended, step.final_obs, step.obs)
        terminated = np.repeat(step.terminated[:, None], step.reward.shape[1], 1)
        acted = np.array(action).reshape(step.reward.shape + np.shape(action)[2:])
        steps = Steps(obs, acted, next_obs, terminated)
        paid, metrics = self.rewards.pay(steps)
        self._seen.append(steps)
        if len(self._seen) == self.every:
            self.metrics = metrics | self.rewards.update(Steps(*map(np.stack, zip(*self._seen, strict=True))))
            self._seen = []
        return step._replace(reward=step.reward + paid)

    def get_state(self) -> dict[str, Array]:
        """The environment's, the parts', and the steps that they have not learned from yet."""
        waiting = {
            f"waiting.{t}/{name}": array for t, steps in enumerate(self._seen) for name, array in steps._asdict().items()
        }
        return self.env.get_state() | self.rewards.state() | waiting

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave."""
        others = self.rewards.load(state)
        waiting = [name for name in others if name.startswith("waiting.")]
        self.env.set_state({name: array for name, array in others.items() if name not in waiting})
        self._seen = [
            Steps(*(others[f"waiting.{t}/{name}"] for name in Steps._fields)) for t in range(len(waiting) // len(Steps._fields))
        ]
