"""A small policy of a world model's features whose parameters evolve by imagined returns (Ha & Schmidhuber 2018, "World
models", sections 2.3 and 4: controller C, trained in imagination)."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot

from ...store.arrays import Array
from ..beliefs.protocol import State
from ..component import ComponentConfig
from ..maths.cma_es import CMAES
from ..models.protocol import WorldModel
from .cem import returns


class CmaController:
    """Action: argmax of W f + b, or with `hidden` units of W tanh(V f + c) + b, for features f (B, size).

    An update is one generation of `CMAES`: `population` candidates, each of which acts in `episodes` imagined
    trajectories from the same real states as all others; all are rows of one batch, each with its candidate's parameters. What
    acts is the mean of the distribution. No gradients: returns may be as rough as they like, but parameters should be few (C
    has their square).
    """

    class Config(ComponentConfig):
        hidden: int = Field(0, ge=0, le=256, description="units between features and actions; 0: none")
        population: int = Field(0, ge=0, le=65_536, description="candidates in a generation; 0: 4 + 3 ln parameters")
        episodes: int = Field(8, ge=1, le=65_536, description="imagined trajectories whose mean return a candidate has")
        horizon: int = Field(50, ge=1, le=100_000, description="steps of an imagined trajectory")
        gamma: float = Field(1.0, ge=0, le=1, description="discount of a step")
        sigma: float = Field(0.5, gt=0, le=1e3, description="deviation of parameters, around 0, in the first generation")

    def __init__(self, config: Config, size: int, actions: int) -> None:
        o, self.config, self.actions = config, config, actions
        layers = [size, o.hidden, actions] if o.hidden else [size, actions]
        self.shapes = [(i + 1, out) for i, out in zip(layers[:-1], layers[1:], strict=True)]  # with biases
        self.es = CMAES(np.zeros(sum(i * out for i, out in self.shapes)), o.sigma, o.population)

    def act(self, features: Tensor) -> Tensor:
        """(B, size) -> int64 (B,)."""
        return self.mean_scores(features).argmax(-1)

    def mean_scores(self, features: Tensor) -> Tensor:
        """(B, size) -> (B, actions): scores by the mean of the distribution."""
        return self.scores(features[None], torch.from_numpy(self.es.mean)[None])[0]

    def scores(self, features: Tensor, parameters: Tensor) -> Tensor:
        """Of P candidates (P, n), each for its own E rows: (P, E, size) -> (P, E, actions)."""
        x, start = features, 0
        for number, (i, out) in enumerate(self.shapes):
            w = parameters[:, start : start + i * out].view(-1, i, out).to(x.dtype)
            x = torch.baddbmm(w[:, -1:], x if number == 0 else x.tanh(), w[:, :-1])
            start += i * out
        return x

    def update(self, model: WorldModel, starts: State, generator: torch.Generator) -> dict[str, float]:
        """One generation, in imagination from rows of `starts`, (S, ...) by name."""
        o, x = self.config, self.es.ask(generator)
        parameters = torch.from_numpy(x)
        drawn = torch.randint(len(next(iter(starts.values()))), (o.episodes,), generator=generator).repeat(len(x))

        def policy(features: Tensor) -> Tensor:
            score = self.scores(features.view(len(x), o.episodes, -1), parameters)
            return one_hot(score.argmax(-1).flatten(), self.actions).float()

        imagined = model.imagine({name: part[drawn] for name, part in starts.items()}, policy, o.horizon, generator)
        earned = returns(imagined, o.gamma).view(len(x), o.episodes).mean(1).numpy().astype(np.float64)
        self.es.tell(x, -earned)
        return {
            "imagined_return": float(earned.mean()), "imagined_return_best": float(earned.max()), "sigma": float(self.es.sigma),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Array]:
        return self.es.state_dict()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        self.es.load_state_dict(state)
