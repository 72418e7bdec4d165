"""Action distributions as a few pure functions; randomness only through a passed generator."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

FORBIDDEN = -1e30  # the logit of an illegal action


class Distribution(Protocol):
    """What a policy head gives out. B rows; an action is (B,) for `Categorical`, (B, D) for `Gaussian`."""

    def sample(self, generator: torch.Generator) -> Tensor: ...
    def mode(self) -> Tensor: ...
    def log_prob(self, action: Tensor) -> Tensor: ...
    def entropy(self) -> Tensor: ...


class Categorical(NamedTuple):
    """Discrete actions from log-probabilities (B, n). Actions are int64 (B,)."""

    log_p: Tensor
    legal: Tensor | None = None  # bool (B, n): actions that are not have probability 0 exactly; None: all are

    @classmethod
    def of(cls, logits: Tensor, mask: Tensor | None = None) -> Categorical:
        """From unnormalised logits (B, n), over the actions that `mask`, bool (B, n), allows: at least one in each row."""
        if mask is None:
            return cls(logits.log_softmax(-1))
        # Finite, so that p log p is 0 where p is, and no gradient is NaN: exp(-1e30) is 0, and so is its derivative.
        return cls(logits.masked_fill(~mask, FORBIDDEN).log_softmax(-1), mask)

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.quantile(torch.rand(len(self.log_p), 1, generator=generator))

    def quantile(self, u: Tensor) -> Tensor:
        """Inverse distribution function at `u` (B, 1) in [0, 1): what makes actions of uniform numbers."""
        cumulative = self.log_p.exp().cumsum(-1)
        action = (cumulative[:, :-1] <= u * cumulative[:, -1:]).sum(-1)
        if self.legal is None:
            return action
        # Sums of a parallel scan may differ by a rounding error where nothing was added: then the likeliest action.
        allowed = self.legal.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return torch.where(allowed, action, self.mode())

    def mode(self) -> Tensor:
        return self.log_p.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.log_p.exp() * self.log_p).sum(-1)


class Gaussian(NamedTuple):
    """Independent normal actions: mean (B, D), log standard deviation (D,) or (B, D). Actions are float32 (B, D)."""

    mean: Tensor
    log_std: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        return self.mean + self.log_std.exp() * torch.randn(self.mean.shape, generator=generator)

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        per_dimension = self.log_std + 0.5 * math.log(2 * math.pi * math.e)
        return per_dimension.expand_as(self.mean).sum(-1)
