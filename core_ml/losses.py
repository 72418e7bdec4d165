"""Losses as pure functions of tensors; sums, so that a minibatch may be worked on in chunks that fit the cache."""

from __future__ import annotations

import torch
from torch import Tensor


def ppo_policy(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_coef: float) -> tuple[Tensor, Tensor, Tensor]:
    """Clipped surrogate objective, negated (Schulman et al. 2017, "Proximal policy optimization", eq. 7). All (B,).

    L = -sum min(ratio A, clip(ratio, 1 - eps, 1 + eps) A),  ratio = exp(log pi(a|s) - log pi_old(a|s))

    Returns the summed loss, the summed estimate of KL(old || new) = (ratio - 1) - log ratio (Schulman's k3, never
    negative), and how many ratios were outside the clip range.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_coef, 1 + clip_coef) * advantage).sum()
    with torch.no_grad():
        kl = (ratio - 1 - log_ratio).sum()
        clipped = ((ratio - 1).abs() > clip_coef).sum()
    return loss, kl, clipped


def value_error(value: Tensor, old_value: Tensor, target: Tensor, clip_coef: float | None) -> Tensor:
    """Half the summed squared error of `value` against `target`, all (B,); scalar.

    With `clip_coef` the prediction may move at most that far from `old_value` before its gain stops counting (as in the
    reference implementation of PPO; Engstrom et al. 2020, "Implementation matters", section 3).
    """
    error = (value - target).square()
    if clip_coef is not None:
        moved = old_value + (value - old_value).clamp(-clip_coef, clip_coef)
        error = torch.maximum(error, (moved - target).square())
    return 0.5 * error.sum()
