"""Networks learned in fused kernels, actor-critics (full layers or a GRU) by PPO and Q-networks by Q-learning: a tile of
samples goes forward, meets the loss and goes backward while it is in the cache."""

from __future__ import annotations

from ..types import Acted, Coefs
from .gru.network import FusedRecurrent
from .gru.plan import GRUSpec
from .mlp.network import FusedActorCritic, PackedBatch
from .mlp.plan import MLPSpec
from .q.network import FusedQ

__all__ = ["Acted", "Coefs", "FusedActorCritic", "FusedQ", "FusedRecurrent", "GRUSpec", "MLPSpec", "PackedBatch"]
