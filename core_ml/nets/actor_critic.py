"""The actor-critic network of full layers or convolutions, in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..distributions import Categorical, Distribution, Gaussian
from .layers import mlp, small_cnn


class ActorCritic(nn.Module):
    """Policy and value over flat observations (B, D) of any number type.

    `actions`: how many discrete actions, or with `continuous` how many action dimensions. With a shared trunk the two heads
    read the same features (one forward pass); with separate trunks they share nothing. Parameters are torch's defaults;
    `actor_critic` makes one without values: a learner gives it its `Parameters`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        actions: int,
        continuous: bool,
        network: Literal["mlp", "cnn"],
        hidden: Sequence[int],
        channels: int,
        activation: str,
        shared: bool,
    ) -> None:
        super().__init__()

        def trunk() -> nn.Sequential:
            if network == "cnn":
                first = small_cnn(shape, channels, hidden[0], activation)
                return nn.Sequential(*first, *mlp(hidden, activation)) if len(hidden) > 1 else first
            return mlp([math.prod(shape), *hidden], activation)

        self.policy_trunk = trunk()
        self.value_trunk: nn.Module = self.policy_trunk if shared else trunk()
        self.shared = shared
        self.policy_head = nn.Linear(hidden[-1], actions)
        self.value_head = nn.Linear(hidden[-1], 1)
        self.log_std = nn.Parameter(torch.zeros(actions)) if continuous else None

    def outputs(self, obs: Tensor) -> Tensor:
        """(B, D) float32 -> (B, actions + 1): logits or means, then the value; for `split`."""
        features = self.policy_trunk(obs)
        if self.shared:  # both heads in one product: saves a quarter of the backward pass
            weight = torch.cat([self.policy_head.weight, self.value_head.weight])
            bias = torch.cat([b for b in (self.policy_head.bias, self.value_head.bias) if b is not None])
            return nn.functional.linear(features, weight, bias)
        return torch.cat([self.policy_head(features), self.value_head(self.value_trunk(obs))], 1)

    def split(self, outputs: Tensor, mask: Tensor | None = None) -> tuple[Distribution, Tensor]:
        """`outputs` -> distribution over B actions, value (B,)."""
        return self._distribution(outputs[:, :-1], mask), outputs[:, -1]

    def forward(self, obs: Tensor, mask: Tensor | None = None) -> tuple[Distribution, Tensor]:
        return self.split(self.outputs(obs), mask)

    def _distribution(self, out: Tensor, mask: Tensor | None = None) -> Distribution:
        return Categorical.of(out, mask) if self.log_std is None else Gaussian(out, self.log_std)

    def policy(self, obs: Tensor) -> Distribution:
        return self._distribution(self.policy_head(self.policy_trunk(obs)))

    def value(self, obs: Tensor) -> Tensor:
        value: Tensor = self.value_head(self.value_trunk(obs)).squeeze(-1)
        return value


def actor_critic(*args: Any) -> ActorCritic:
    """An `ActorCritic` whose parameters have no values yet: `FlatAdam` makes them views of a `Parameters`."""
    with torch.device("meta"):  # no draws from torch's global generator
        model = ActorCritic(*args)
    return model.to_empty(device="cpu")
