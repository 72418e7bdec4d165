"""Encoders that learn nothing by gradient: cells as planes of zeros and ones, and whole observations as symbols."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig, component
from ..observations import Observation


@component("encoder", "one-hot")
class OneHot:
    """`Observation.rows`: a grid as a plane of zeros and ones for each code, images and vectors as numbers. Learns nothing."""

    class Config(ComponentConfig):
        pass

    can_decode: ClassVar[bool] = True
    num_parameters: ClassVar[int] = 0

    def __init__(self, config: Config, observation: Observation, seed: int) -> None:
        self.config, self.observation = config, observation
        self.size = int(np.prod(observation.planes(True)))

    def encode(self, obs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.observation.rows(obs, True)

    def decode(self, code: Tensor) -> Tensor:
        return self.observation.unrows(code, True)

    def update(self, obs: Tensor, generator: torch.Generator) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Array]:
        return {}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, {}, "encoder one-hot")


@component("encoder", "symbols")
class Symbols:
    """A code is the number of the observation, one-hot, float32 (B, size): observations are numbered as `update` meets them.

    Zeros for one that has no number: not met yet, or `size` others were there before. Two observations share a number if 64
    bits of a hash agree, for a thousand observations with a probability of 3e-14.
    """

    class Config(ComponentConfig):
        size: int = Field(64, ge=1, le=65_536, description="observations that get a number")

    can_decode: ClassVar[bool] = True
    num_parameters: ClassVar[int] = 0

    def __init__(self, config: Config, observation: Observation, seed: int) -> None:
        self.config, self.observation, self.size = config, observation, config.size
        self.met = np.zeros(self.size, np.uint64)  # hashes in the order of their numbers
        self.rows = np.zeros((self.size, observation.size), np.float32 if observation.kind == "vector" else np.uint8)
        self.count = 0
        odd = np.random.default_rng(0).integers(2**63, size=observation.size, dtype=np.uint64)
        self.weights = odd * np.uint64(2) + np.uint64(1)

    def encode(self, obs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        self.observation.check(obs)
        key = self._keys(obs)
        order = np.argsort(self.met[: self.count])
        at = np.searchsorted(self.met[: self.count], key, sorter=order)
        known = np.zeros(len(key), np.bool_)
        code = np.zeros((len(key), self.size), np.float32)
        if self.count:
            number = order[np.minimum(at, self.count - 1)]
            known = self.met[number] == key
            code[np.flatnonzero(known), number[known]] = 1.0
        return torch.from_numpy(code)

    def decode(self, code: Tensor) -> Tensor:
        """The observation of the largest number, (B, *shape)."""
        rows = self.rows[code.argmax(1).numpy()]
        return torch.from_numpy(rows.reshape(-1, *self.observation.shape))

    def update(self, obs: Tensor, generator: torch.Generator) -> dict[str, float]:
        """Give numbers to the observations of `obs` that have none, in their order."""
        self.observation.check(obs)
        key, first = np.unique(self._keys(obs), return_index=True)
        new = np.sort(first[~np.isin(key, self.met[: self.count])])[: self.size - self.count]
        flat = obs.reshape(len(obs), -1).numpy()[new]
        self.met[self.count : self.count + len(new)] = self._keys(obs)[new]
        self.rows[self.count : self.count + len(new)] = flat
        self.count += len(new)
        return {"met": float(self.count)}

    def _keys(self, obs: Tensor) -> Array:
        """64-bit hashes of observations, (B,): numbers times odd random weights, summed modulo 2^64, mixed."""
        flat = obs.reshape(len(obs), -1).numpy()
        words = np.ascontiguousarray(flat, np.float32).view(np.uint32) if flat.dtype == np.float32 else flat
        with np.errstate(over="ignore"):
            total = ((words.astype(np.uint64) + np.uint64(1)) * self.weights).sum(1, dtype=np.uint64)
        mixed: Array = total ^ (total >> np.uint64(29))
        return mixed

    def state_dict(self) -> dict[str, Array]:
        return {"met": self.met.copy(), "rows": self.rows.copy(), "count": np.array(self.count, np.int64)}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "encoder symbols")
        self.met, self.rows, self.count = state["met"].copy(), state["rows"].copy(), int(state["count"])
