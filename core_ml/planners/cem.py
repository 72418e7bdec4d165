"""Planning in a world model: the cross-entropy method over sequences of discrete actions (Rubinstein & Kroese 2004, "The
cross-entropy method", chapter 4; as model-predictive control in Hafner et al. 2019, "Learning latent dynamics from pixels",
algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import one_hot

from ..beliefs.protocol import State
from ..component import ComponentConfig
from ..distributions import Categorical
from ..models.protocol import ImaginedTrajectory, WorldModel


class ActionPlan(NamedTuple):
    """What a planner thinks of B states, over H steps and A actions."""

    action: Tensor  # int64 (B,): what to do now
    p: Tensor  # float32 (B, H, A): probability of each action at each step of a good sequence
    value: Tensor  # (B,): mean imagined return of the last round's elites: optimistic, as they were selected by it

    @classmethod
    def of(cls, p: Tensor) -> ActionPlan:
        """The plan of one step ago, of which only `p` is known."""
        return cls(p[:, 0].argmax(-1), p, p[:, 0, 0])


class CEMPlanner:
    """Categorical cross-entropy method. In each of `iterations` rounds, for each state:

        draw `population` sequences a_1..a_H, a_t ~ p_t;  imagine each `samples` times;  E: the `elites` best
        p_t <- smoothing p_t + (1 - smoothing) share of the actions of E at step t

    from uniform p, or from the plan one step ago. Sequences are judged by sum_t gamma^t c_1 .. c_t r_{t+1}, c the probability
    that a step lets the episode go on, and with a `value` by what it says of the last features, likewise discounted. The action
    is the likeliest of p_1. Plans do not react to what will be seen (open loop): where chance decides, plan again at each step.
    """

    class Config(ComponentConfig):
        horizon: int = Field(12, ge=1, le=1000, description="steps of a plan")
        population: int = Field(128, ge=2, le=65_536, description="sequences in a round")
        elites: int = Field(16, ge=1, le=65_536, description="the best of them, which the next round is like")
        iterations: int = Field(4, ge=1, le=1000, description="rounds")
        smoothing: float = Field(0.1, ge=0, lt=1, description="share of the old distribution in the new one")
        samples: int = Field(1, ge=1, le=1000, description="imagined trajectories of each sequence, whose mean counts")
        gamma: float = Field(0.99, ge=0, le=1, description="discount of a step")
        keep: float = Field(0.5, ge=0, le=1, description="of a plan one step ago in the first round; the rest is uniform")

        @model_validator(mode="after")
        def _some(self) -> Self:
            if self.elites > self.population:
                raise ValueError(f"elites {self.elites} are more than the population, {self.population}")
            return self

    def __init__(self, config: Config, actions: int) -> None:
        self.config, self.actions = config, actions

    def plan(
        self, model: WorldModel, state: State, generator: torch.Generator, value: Callable[[Tensor], Tensor] | None = None,
        before: ActionPlan | None = None,
    ) -> ActionPlan:  # fmt: skip
        """For states of B rows. `value`: (N, size) -> (N,). `before`: the plan for these rows one step ago."""
        o, b = self.config, len(next(iter(state.values())))
        many = {name: part.repeat_interleave(o.population * o.samples, 0) for name, part in state.items()}
        p = torch.full((b, o.horizon, self.actions), 1 / self.actions)
        if before is not None:
            p[:, :-1] = torch.lerp(p[:, :-1], before.p[:, 1:], o.keep)
        for _ in range(o.iterations):
            log_p = p.log().repeat_interleave(o.population, 0).flatten(0, 1)  # (B population H, A)
            sequences = Categorical(log_p).sample(generator).view(b, o.population, o.horizon)
            score = self._score(model, many, sequences, generator, value)  # (B, population)
            best, which = score.topk(o.elites, dim=1)
            elite = sequences.gather(1, which.unsqueeze(-1).expand(-1, -1, o.horizon))  # (B, elites, H)
            p = torch.lerp(one_hot(elite, self.actions).float().mean(1), p, o.smoothing)
        return ActionPlan(p[:, 0].argmax(-1), p, best.mean(1))

    def _score(
        self, model: WorldModel, many: State, sequences: Tensor, generator: torch.Generator,
        value: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:  # fmt: skip
        """Mean returns (B, population) of sequences (B, population, H)imagined from states of B population samples rows."""
        o = self.config
        steps = one_hot(sequences.flatten(0, 1).repeat_interleave(o.samples, 0), self.actions).float().unbind(1)
        ahead = iter(steps)
        imagined = model.imagine(many, lambda features: next(ahead), o.horizon, generator)
        return returns(imagined, o.gamma, value).view(*sequences.shape[:2], o.samples).mean(-1)


def returns(imagined: ImaginedTrajectory, gamma: float, value: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Expected discounted returns (B,) of imagined trajectories, weighted by P(continue): with w_t = gamma^t c_0 .. c_{t-1},
    sum_{t < H} w_t r_t + w_H v(features at H)."""
    weight = torch.cat([torch.ones_like(imagined.continue_[:1]), (gamma * imagined.continue_).cumprod(0)])  # (H + 1, B)
    total = (weight[:-1] * imagined.reward).sum(0)
    return total if value is None else total + weight[-1] * value(imagined.features[-1])
