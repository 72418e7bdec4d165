"""Multilayer networks learned in fused kernels, actor-critics by PPO and Q-networks by Q-learning: a tile of samples goes
forward, meets the loss and goes backward while it is in the cache."""

from __future__ import annotations

from .network import Acted, Coefs, FusedActorCritic, Records
from .plan import MLPSpec
from .q_network import FusedQ

__all__ = ["Acted", "Coefs", "FusedActorCritic", "FusedQ", "MLPSpec", "Records"]
