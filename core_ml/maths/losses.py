"""Losses as pure functions of tensors. They are sums, so that a minibatch can be computed in chunks that fit the cache."""

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

    With `clip_coef` the error is the larger one of V and of V clipped to `old_value` +- clip_coef (as in the reference
    implementation of PPO; Engstrom et al. 2020, "Implementation matters", section 3).
    """
    error = (value - target).square()
    if clip_coef is not None:
        moved = old_value + (value - old_value).clamp(-clip_coef, clip_coef)
        error = torch.maximum(error, (moved - target).square())
    return 0.5 * error.sum()


def ppo_loss(
    log_prob: Tensor, value: Tensor, entropy: Tensor,
    old_log_prob: Tensor, advantage: Tensor, target: Tensor, old_value: Tensor,
    *, clip_coef: float, value_clip: float | None, vf_coef: float, ent_coef: float | Tensor, num_samples: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """PPO's loss (Schulman et al. 2017, eq. 9, negated), for B of the `num_samples` samples of a minibatch; all tensors (B,).

    L = (1 / num_samples) sum_i [L^CLIP_i + vf_coef L^VF_i - ent_coef H_i]

    L^CLIP is `ppo_policy`, L^VF is `value_error`, H the entropy of pi(.|s). `log_prob`, `value` and `entropy` come from the
    present parameters and carry the gradient; the other four were computed before the update. The losses of the chunks of
    a minibatch add up to its loss. Returns the loss, a scalar, and (5,) without gradient, summed over B: policy loss,
    value loss, entropy, estimated KL(old || new), number of clipped ratios.
    """
    policy_loss, kl, clipped = ppo_policy(log_prob, old_log_prob, advantage, clip_coef)
    value_loss = value_error(value, old_value, target, value_clip)
    entropy = entropy.sum()
    loss = (policy_loss + vf_coef * value_loss - ent_coef * entropy) / num_samples
    return loss, torch.stack([policy_loss.detach(), value_loss.detach(), entropy.detach(), kl, clipped.to(kl.dtype)])


def huber(error: Tensor) -> Tensor:
    """Huber's loss, elementwise: error^2 / 2 up to 1, beyond it |error| - 1/2: no gradient is larger than 1."""
    size = error.abs()
    return torch.where(size <= 1, 0.5 * error.square(), size - 0.5)


def quantile_huber(quantile: Tensor, goal: Tensor) -> Tensor:
    """Quantile regression towards samples `goal` (B, M) of a return by its quantiles (B, N); (B,).

    sum_i mean_j |tau_i - 1{u_ij < 0}| huber(u_ij),  u_ij = goal_j - quantile_i,  tau_i = (2 i + 1) / 2 N, i from 0
    (Dabney et al. 2018, "Distributional reinforcement learning with quantile regression", eq. 9, 10 and algorithm 1).
    """
    n = quantile.shape[1]
    tau = (2 * torch.arange(n, dtype=quantile.dtype) + 1) / (2 * n)
    u = goal[:, None, :] - quantile[:, :, None]  # (B, N, M)
    return ((tau[:, None] - (u.detach() < 0).to(u.dtype)).abs() * huber(u)).mean(2).sum(1)


def td_target(
    return_: Tensor, discount: Tensor, following: Tensor, chooser: Tensor, apart: bool = False,
    mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """y = R + discount Z(s', a*),  a* = argmax_a mean Z_chooser(s', a); (B, Z).

    `following` (B, A, Z) are the target network's values of s', Z quantiles or one value for each action. `chooser` picks a*:
    the same values give Q-learning's target, those of the learning network double Q-learning's (van Hasselt et al. 2016,
    arXiv:1509.06461, eq. 4). `apart`: the Z are separate estimates, each with its own a*.
    """
    if mask is not None:  # a* is the best of the legal actions, bool (B, A)
        chooser = chooser.masked_fill(~mask.unsqueeze(-1), -torch.inf)
    if apart:
        return return_[:, None] + discount[:, None] * following.gather(1, chooser.argmax(1, keepdim=True))[:, 0]
    best = chooser.mean(2).argmax(1)
    return return_[:, None] + discount[:, None] * following[torch.arange(len(best)), best]
