"""What every learner of an actor-critic takes and gives."""

from __future__ import annotations

from typing import NamedTuple

from ...store.arrays import Array


class Coefs(NamedTuple):
    """Coefficients of PPO's loss; `maths.losses.ppo_loss` has the equation. None for `value_clip`: values are not clipped."""

    clip_coef: float = 0.2
    value_clip: float | None = None
    vf_coef: float = 0.5
    ent_coef: float = 0.01


class Acted(NamedTuple):
    """B actions: int64 (B,), or (B, parts) where an action has several, or float32 (B, D) of a gaussian; and float32 (B,)."""

    action: Array
    log_prob: Array
    entropy: Array
    value: Array
