"""Networks learned in fused kernels, actor-critics (full layers or a GRU) by PPO and Q-networks by Q-learning: a tile of
samples goes forward, meets the loss and goes backward while it is in the cache."""

from __future__ import annotations

from .gru import FusedRecurrent
from .gru_plan import GRUSpec
from .network import Acted, Coefs, FusedActorCritic, Records
from .plan import MLPSpec
from .q_network import FusedQ

__all__ = ["Acted", "Coefs", "FusedActorCritic", "FusedQ", "FusedRecurrent", "GRUSpec", "MLPSpec", "Records"]
