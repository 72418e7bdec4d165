"""Numbers of unknown size as targets: symlog and two-hot categories (Hafner et al. 2025, "Mastering diverse control tasks
through world models": DreamerV3, methods, "Robust predictions")."""

from __future__ import annotations

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(|x| + 1)"""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp(|x|) - 1), the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


class TwoHot:
    """A number as a distribution over `bins` values, symexp(-limit .. limit): a network that predicts it learns by
    cross-entropy, whose gradients do not grow with the number. The expectation is taken over the values themselves, so noisy
    targets lead to their mean."""

    def __init__(self, bins: int = 255, limit: float = 20.0) -> None:
        if bins < 3 or bins % 2 == 0:
            raise ValueError(f"two-hot: {bins} bins have none at 0: take an odd number from 3")
        half = symexp(torch.linspace(0.0, limit, bins // 2 + 1))
        self.values = torch.cat([-half[1:].flip(0), half])  # to the bit symmetric

    def encode(self, x: Tensor) -> Tensor:
        """x (...) -> probabilities (..., bins): of the two nearest values b_k <= x <= b_{k+1}, so that their mean is x.

        p_k = (b_{k+1} - x) / (b_{k+1} - b_k),  p_{k+1} = 1 - p_k;  numbers beyond the last value count as that.
        """
        b = self.values
        x = x.clamp(b[0], b[-1])
        above = torch.searchsorted(b, x.contiguous()).clamp(1, len(b) - 1)
        share = (x - b[above - 1]) / (b[above] - b[above - 1])
        out = x.new_zeros(*x.shape, len(b))
        out.scatter_(-1, (above - 1).unsqueeze(-1), (1 - share).unsqueeze(-1))
        return out.scatter_(-1, above.unsqueeze(-1), share.unsqueeze(-1))

    def decode(self, logits: Tensor) -> Tensor:
        """The expectation of softmax(logits), (..., bins) -> (...)."""
        return self.mean(logits.softmax(-1))

    def mean(self, p: Tensor) -> Tensor:
        """sum_k p_k b_k, each value added to its negative first: large values of equal probability leave nothing behind."""
        half = len(self.values) // 2
        return ((p[..., half + 1 :] - p[..., :half].flip(-1)) * self.values[half + 1 :]).sum(-1)

    def loss(self, logits: Tensor, x: Tensor) -> Tensor:
        """Cross-entropy of the two-hot code of x (...) and logits (..., bins), (...)."""
        return -(self.encode(x) * logits.log_softmax(-1)).sum(-1)
