"""The Q-network, in torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .layers import ACTIVATIONS, NoisyLinear, mlp, small_cnn


class QNetwork(nn.Module):
    """Values of `actions` actions over flat observations (B, D): (B, actions, Z); Z is `quantiles`, or `heads`, or 1.

    `dueling`: Q = V + A - mean A (Wang et al. 2016, arXiv:1511.06581, eq. 9); V and A have a last hidden layer each. `noisy`:
    full layers are `NoisyLinear`. `heads`: number of estimates; `prior` times a fixed random function is added to each (Osband
    et al. 2018, "Randomized prior functions for deep reinforcement learning"). Without all these, parameters are those of
    `parameters.q_shapes`.
    """

    def __init__(
        self, shape: tuple[int, ...], actions: int, network: Literal["mlp", "cnn"], hidden: Sequence[int], channels: int,
        activation: str, dueling: bool, noisy: bool, quantiles: int, heads: int = 0, prior: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.actions, self.atoms, self.heads, self.prior_scale = actions, max(quantiles, heads, 1), heads, prior
        full = NoisyLinear if noisy else nn.Linear

        def layers(sizes: Sequence[int]) -> list[nn.Module]:
            pairs = [(full(i, o), ACTIVATIONS[activation]()) for i, o in zip(sizes[:-1], sizes[1:], strict=True)]
            return [module for pair in pairs for module in pair]

        inputs = math.prod(shape)
        first: list[nn.Module] = []
        if network == "cnn":
            c, h, w = shape if len(shape) == 3 else (1, *shape)
            first = list(small_cnn(shape, channels, 1, activation))[:-2]  # up to its full layer
            inputs = channels * h * w
        sizes = [inputs, *hidden]
        self.trunk = nn.Sequential(*first, *layers(sizes[:-1] if dueling else sizes))
        stream = sizes[-2:] if dueling else sizes[-1:]
        self.value = nn.Sequential(*layers(stream), full(sizes[-1], self.atoms)) if dueling else None
        if dueling:
            self.advantage = nn.Sequential(*layers(stream), full(sizes[-1], actions * self.atoms))
        else:
            self.head = full(sizes[-1], actions * self.atoms)
        self.prior = mlp([math.prod(shape), hidden[-1], actions * heads], activation)[:-1] if heads else None

    @property
    def noises(self) -> int:
        """Random numbers that a row of a noisy network needs."""
        return sum(m.in_features + m.out_features for m in self.modules() if isinstance(m, NoisyLinear))

    def forward(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """`noise` (B, noises): standard normal numbers; without it a noisy network takes the means of its weights."""
        parts = self._parts(noise)
        features = _through(self.trunk, obs, parts)
        if self.value is None:
            q: Tensor = _through([self.head], features, parts).view(-1, self.actions, self.atoms)
            if self.prior is not None:
                q = q + self.prior_scale * self.prior(obs).detach().view(q.shape)
            return q
        value = _through(self.value, features, parts).view(-1, 1, self.atoms)
        advantage = _through(self.advantage, features, parts).view(-1, self.actions, self.atoms)
        return value + advantage - advantage.mean(1, keepdim=True)

    def _parts(self, noise: Tensor | None) -> Iterator[Tensor] | None:
        """f(eps) for the inputs and the outputs of each noisy layer, in the order of `forward`."""
        if noise is None:
            return None
        sizes = [n for m in self.modules() if isinstance(m, NoisyLinear) for n in (m.in_features, m.out_features)]
        parts: tuple[Tensor, ...] = (noise.sign() * noise.abs().sqrt()).split(sizes, 1)
        return iter(parts)


def _through(layers: Any, x: Tensor, noise: Iterator[Tensor] | None) -> Tensor:
    for layer in layers:
        x = layer.noisy(x, next(noise), next(noise)) if noise and isinstance(layer, NoisyLinear) else layer(x)
    return x


def q_network(*args: Any) -> QNetwork:
    """A `QNetwork` whose parameters have no values yet: `FlatAdam` makes them views of a `Parameters`."""
    with torch.device("meta"):
        model = QNetwork(*args)
    return model.to_empty(device="cpu")
