"""Parts of a reward: bonuses that an agent learns from beside what the world pays, as options say them.

bonus: []                                       the world's reward and nothing else
bonus: [rnd]                                    a part as it comes
bonus: [{name: rnd, weight: 0.5}, shaping]      a weighted sum, with options of the part's own
bonus: [{name: rnd, untrained: true}]           as it was made: what does its training contribute?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import gymnasium
import numpy as np
import pydantic
from pydantic import AfterValidator, BeforeValidator

from ...core_ml.component import BonusPart
from ...envs.batch import flat_size
from ...store.arrays import Array, check_arrays
from ..protocol import Rollout, Spaces
from .spec import observation_of, resolve

if TYPE_CHECKING:
    from ...core_ml.rewards.protocol import Bonus


def _listed(value: object) -> object:
    """A part alone is a list of one, a name alone a part as it comes; "none" and null are no parts."""
    if value is None or value == "none":
        return ()
    several = value if isinstance(value, (list, tuple)) else (value,)
    return tuple({"name": part} if isinstance(part, str) else part for part in several)


def _known(bonuses: tuple[BonusPart, ...]) -> tuple[BonusPart, ...]:
    for bonus in bonuses:
        resolve("bonus", bonus)
    return bonuses


Bonuses = Annotated[tuple[BonusPart, ...], AfterValidator(_known), BeforeValidator(_listed)]
BONUSES: pydantic.TypeAdapter[tuple[BonusPart, ...]] = pydantic.TypeAdapter(Bonuses)


def make_bonus(part: BonusPart, spaces: Spaces, gamma: float, seed: int) -> Bonus:
    """The bonus that `part` names, for an agent with discount `gamma`. Raises ValueError with one line."""
    from ...core_ml.observations import BonusInputs

    found, config = resolve("bonus", part)
    observation, action = observation_of(spaces.observation, f"bonus {part.name}"), spaces.action
    discrete = isinstance(action, gymnasium.spaces.Discrete)
    actions = int(action.n) if isinstance(action, gymnasium.spaces.Discrete) else flat_size(action)
    made: Bonus = found.cls(config, BonusInputs(observation, actions, discrete, gamma), seed)
    return made


class Rewards:
    """The weighted sum of an agent's bonuses, over the reward that the world pays. Without parts it changes nothing.

    Bonuses are computed with the parameters before the update; the models are then trained on the same rollout.
    """

    def __init__(self, bonuses: tuple[BonusPart, ...], spaces: Spaces, gamma: float, seed: int, device: str = "cpu") -> None:
        if bonuses and device != "cpu":
            raise ValueError(f"bonus {bonuses[0].name} is for the processor: leave it out, or take device=cpu")
        self.bonuses, self.spaces = bonuses, spaces
        seeds = np.random.SeedSequence(seed).generate_state(len(bonuses) or 1, np.uint64) >> 2
        self.parts = [make_bonus(bonus, spaces, gamma, int(s)) for bonus, s in zip(bonuses, seeds, strict=False)]
        names = [bonus.name for bonus in bonuses]
        self.labels = [name if names.count(name) == 1 else f"{name}.{k}" for k, name in enumerate(names)]

    def pay(self, steps: Steps) -> tuple[Array, dict[str, float]]:
        """The sum of the bonuses of `steps`, float32 of the shape of `steps.terminated`; means of each part's for metrics."""
        total, metrics = np.zeros(steps.terminated.shape, np.float32), {}
        for bonus, part, label in zip(self.bonuses, self.parts, self.labels, strict=True):
            paid = np.float32(bonus.weight) * part.bonus(*steps)
            total += paid
            metrics[f"bonus/{label}"] = float(paid.mean())
        return total, metrics

    def update(self, steps: Steps) -> dict[str, float]:
        """Have the parts learn from `steps`, but those left untrained."""
        metrics: dict[str, float] = {}
        for bonus, part, label in zip(self.bonuses, self.parts, self.labels, strict=True):
            if not bonus.untrained:
                metrics |= {f"bonus/{label}/{name}": value for name, value in part.update(*steps).items()}
        return metrics

    def add(self, batch: Rollout) -> tuple[Rollout, dict[str, float]]:
        """`batch` with bonuses added to its rewards, and metrics; the parts have learned from it."""
        if not self.parts:
            return batch, {}
        steps = Steps.of(batch)
        paid, metrics = self.pay(steps)
        return batch._replace(reward=batch.reward + paid), metrics | self.update(steps)

    def state(self) -> dict[str, Array]:
        """The parts' states as arrays by name."""
        parts = zip(self.labels, self.parts, strict=True)
        return {f"bonus.{label}/{name}": array for label, part in parts for name, array in part.state_dict().items()}

    def load(self, state: dict[str, Array]) -> dict[str, Array]:
        """Put back what `state` gave; returns what else there is. Raises ValueError where it is another configuration's."""
        own = {name: array for name, array in state.items() if name.startswith("bonus.")}
        check_arrays(own, self.state(), "bonus")
        for label, part in zip(self.labels, self.parts, strict=True):
            prefix = f"bonus.{label}/"
            part.load_state_dict({k.removeprefix(prefix): array for k, array in own.items() if k.startswith(prefix)})
        return {name: array for name, array in state.items() if name not in own}


class Steps(NamedTuple):
    """Steps as parts of a reward see them; leading axes (T, N, A) or (N, A)."""

    obs: Array
    action: Array
    next_obs: Array  # the last observation of the episode where it was truncated; anything where it terminated
    terminated: Array  # bool, one for each agent

    @classmethod
    def of(cls, batch: Rollout) -> Steps:
        """All steps of a rollout, (T, N, A, ...)."""
        from ...core_ml.maths.returns import next_step

        next_obs = next_step(batch.obs, batch.last_obs, batch.truncated, batch.final_obs)
        terminated = np.broadcast_to(batch.terminated[:, :, None], batch.reward.shape)
        return cls(batch.obs, batch.action, next_obs, terminated)
