"""What every learner of an actor-critic takes and gives."""

from __future__ import annotations

from typing import NamedTuple

from ...store.arrays import Array


class Coefs(NamedTuple):
    """What the loss is made of, as `agents.deep.ppo` names it."""

    clip_coef: float = 0.2
    value_clip: float | None = None
    vf_coef: float = 0.5
    ent_coef: float = 0.01


class Acted(NamedTuple):
    """B rows: action int64 (B,), (B, parts) for several, float32 (B, D) for a gaussian; the others float32 (B,)."""

    action: Array
    log_prob: Array
    entropy: Array
    value: Array
