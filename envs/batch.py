"""The batched interface that every agent sees: `BatchEnv`, `Step`, `Episodes`."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium
import numpy as np

from ..store.arrays import Array
from .world import Scene, World, Yardstick


class Step(NamedTuple):
    """Result of one batched step. The arrays are the engine's own buffers: valid until the next step, read only.

    A finished environment has been reset already: `obs` is its new episode's first observation, `final_obs` the last of the
    old one (rows of `final_obs` are meaningful only where terminated or truncated).
    """

    obs: Array  # (N, A, *observation shape)
    reward: Array  # float32 (N, A)
    terminated: Array  # bool (N,): the rules ended the episode; its value is 0
    truncated: Array  # bool (N,): the time limit cut it; bootstrap from final_obs
    final_obs: Array  # (N, A, *observation shape)
    final_mask: Array | None = None  # bool (N, A, actions): legal actions of final_obs; None: the environment has no masks


class Episodes(NamedTuple):
    """Statistics of the episodes that ended in the last step."""

    env: Array  # int64 (E,): which of the environments
    return_: Array  # float64 (E, A): sum of rewards
    length: Array  # int64 (E,)


class Native(NamedTuple):
    """N environments as other compiled code sees them: a C function that steps some of them, and the arrays that it fills.

    Whoever holds it must hold the environment too.
    """

    step: int  # address of int64 (first, last, table, reals, action, limit, autoreset), all of them int64
    table: int  # addresses and numbers to be handed on
    reals: int
    limit: int
    action_shape: tuple[int, ...]  # (A,) or (A, D): one environment's; `action` above is the address of all actions, unchecked
    action_dtype: Any
    obs: Array  # (N, A, numbers of an observation)
    final_obs: Array
    reward: Array  # float32 (N, A)
    terminated: Array  # bool (N,)
    truncated: Array
    ended_return: Array  # float64 (N, A), where an episode ended
    ended_length: Array  # int64 (N,)


@runtime_checkable
class BatchEnv(Protocol):
    """N environments with A agents each: our engine, or somebody else's environments (`external/`).

    Everything that trains, evaluates or draws sees worlds through this and nothing else.
    """

    id: str  # what `registry.make` was given: "candy", "CartPole-v1", "module:Id"
    num_envs: int
    num_agents: int
    observation_space: gymnasium.spaces.Space[Any]  # of one agent: a Box
    action_space: gymnasium.spaces.Space[Any]  # of one agent: Discrete or Box

    def reset(self, seed: int | Array | None = None) -> Array:
        """Begin new episodes everywhere; obs (N, A, ...). A whole number seeds environment i with copy_seeds(seed, N)[i]."""
        ...

    @property
    def obs(self) -> Array:
        """What the agents see now, (N, A, ...)."""
        ...

    def action_mask(self) -> Array | None:
        """Which actions are legal in what `obs` shows, bool (N, A, actions), at least one each; None: no masks, all always are.

        Whether an environment has masks stays the same for its life. Valid until the next step, read only. An agent that
        takes no part at the moment may have all actions: what it does is ignored.
        """
        ...

    def step(self, action: Array, *, autoreset: bool = True) -> Step:
        """`action`: (N, A) whole numbers for Discrete, (N, A, D) float32 for Box.

        Without `autoreset` a finished environment stays as it ended, until `reset`; stepping it again has no meaning.
        """
        ...

    def episodes(self) -> Episodes:
        """Episodes that ended in the last step."""
        ...

    def get_state(self) -> dict[str, Array]:
        """Everything that the future depends on, as plain arrays of its own."""
        ...

    def set_state(self, state: dict[str, Array]) -> None:
        """Put back what `get_state` gave; afterwards `obs` is as it was."""
        ...

    def scene(self, i: int) -> Scene | None: ...

    def rgb(self, i: int) -> Array | None:
        """A picture by the environment's own renderer, uint8 (H, W, 3), where it has one and no scene."""
        ...

    def yardstick(self) -> Yardstick | None:
        """Call it right after `reset`: random and optimal expected return of the episodes now beginning."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class SteppedNatively(Protocol):
    """Optional: an environment whose step is a compiled function that other compiled code can call."""

    def native(self) -> Native | None:
        """Its function and arrays; None where this environment has none. Makes it ready, which may compile."""
        ...


@runtime_checkable
class WithWorld(Protocol):
    """Optional: an environment that runs a gumdrop world, whose rules planners and pictures may read."""

    world: World


def native_of(env: BatchEnv) -> Native | None:
    """The compiled step of an environment; None: it has none."""
    return env.native() if isinstance(env, SteppedNatively) else None


def world_of(env: BatchEnv) -> World | None:
    """The world that an environment runs; None: an external environment."""
    return env.world if isinstance(env, WithWorld) else None


def finite_bounds(space: gymnasium.spaces.Box, limit: float = 1e3) -> tuple[Array, Array]:
    """Lower and upper bounds of a Box; where there is none, `limit` away from zero or from the other bound."""
    low = np.where(
        np.isfinite(space.low), space.low, np.minimum(-limit, np.where(np.isfinite(space.high), space.high - limit, 0))
    )
    high = np.where(np.isfinite(space.high), space.high, np.maximum(limit, low + limit))
    return low, high


def flat_size(space: gymnasium.spaces.Space[Any]) -> int:
    """How many numbers one observation has."""
    if space.shape is None:
        raise TypeError(f"observation space {space} has no shape: flatten it first")
    return int(np.prod(space.shape))
