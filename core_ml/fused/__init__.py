"""Multilayer actor-critics learned by PPO in fused kernels: a tile of samples goes forward, meets the loss and goes backward
while it is in the cache."""

from __future__ import annotations

from .network import Acted, Coefs, FusedActorCritic, Records
from .plan import MLPSpec

__all__ = ["Acted", "Coefs", "FusedActorCritic", "MLPSpec", "Records"]
