"""What every bonus does: the interface of slot `bonus`, rewards that are added to the world's own.

Register a class with `@component("bonus", "name")`. It has `Config`, a ComponentConfig, and is made by
`cls(config, inputs, seed)` with `inputs` a BonusInputs. Leading axes (...) are any, such as time, environment and agent.
"""

from __future__ import annotations

from typing import Protocol

from ...store.arrays import Array


class Bonus(Protocol):
    """A bonus for each step, computed with the parameters before the update on that step."""

    def bonus(self, obs: Array, action: Array, next_obs: Array, terminated: Array) -> Array:
        """float32 (...) for obs and next_obs (..., *shape), action int64 (...) or float32 (..., D), terminated bool (...).

        At a truncation `next_obs` is the episode's last observation. Where `terminated` is true it is undefined and must not
        affect the result.
        """
        ...

    def update(self, obs: Array, action: Array, next_obs: Array, terminated: Array) -> dict[str, float]:
        """Train on steps, arrays as for `bonus`. Returns metrics."""
        ...

    def state_dict(self) -> dict[str, Array]:
        """Everything that later bonuses and updates depend on, as copies."""
        ...

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Put back what `state_dict` gave. Raises ValueError where names, shapes or dtypes differ."""
        ...
