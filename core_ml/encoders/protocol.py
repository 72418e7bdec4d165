"""What every encoder does: the interface of slot `encoder`.

Register a class with `@component("encoder", "name")`. It has `Config`, a ComponentConfig, and is made by
`cls(config, observation, seed)`: two encoders made alike are equal bit for bit. B observations, D = `size` numbers in a code.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ...store.arrays import Array
from ..observations import Observation


class Encoder(Protocol):
    """Observations (B, *shape) as `observation` describes them -> codes float32 (B, D). Rows do not affect each other."""

    observation: Observation
    size: int  # D
    can_decode: bool  # False: `decode` raises ValueError

    @property
    def num_parameters(self) -> int:
        """How many parameters are trained by gradient descent."""
        ...

    def encode(self, obs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, *shape) -> float32 (B, D). With a generator a stochastic encoder samples; without one it takes its mode.
        Differentiable where the encoder is trained by gradient descent."""
        ...

    def decode(self, code: Tensor) -> Tensor:
        """float32 (B, D) -> the most likely observations, (B, *shape) in their own dtype."""
        ...

    def update(self, obs: Tensor, generator: torch.Generator) -> dict[str, float]:
        """One training step on B observations, with all its random numbers from `generator`. Returns metrics."""
        ...

    def state_dict(self) -> dict[str, Array]:
        """Everything that later codes and updates depend on, as copies: parameters, optimiser, statistics."""
        ...

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Put back what `state_dict` gave. Raises ValueError where names, shapes or dtypes differ."""
        ...


@runtime_checkable
class Samples(Protocol):
    """Optional: an encoder that is a generative model."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n generated observations, (n, *shape)."""
        ...


@runtime_checkable
class Tokenises(Protocol):
    """Optional: an encoder whose codes are rows of a codebook."""

    codebook: Tensor  # float32 (codes, numbers in a row)

    def tokens(self, obs: Tensor) -> Tensor:
        """(B, *shape) -> int64 (B, positions): the number of the row at each position."""
        ...

    def code_of(self, tokens: Tensor) -> Tensor:
        """int64 (B, positions) -> code (B, D)."""
        ...
