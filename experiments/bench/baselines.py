"""Other people's environments under random actions, for `gumdrop bench env --vs`: what is compared, and how it steps.

Each baseline does what its own documentation shows for speed, with its own automatic resets. None is a dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

P = TypeVar("P")
T = TypeVar("T")
BURST = 64  # steps of a single environment, or of a batch, between two looks at the clock


class Baseline(NamedTuple):
    package: str
    what: str  # environment, and how it is stepped
    num_envs: int
    burst: Callable[[], int]  # does some steps, returns how many environment steps


def single(env: Any) -> Callable[[], int]:
    """Random actions, drawn beforehand, in one Gymnasium environment; a burst returns its steps."""
    rng = np.random.Generator(np.random.PCG64(0))
    actions: list[int] = rng.integers(int(env.action_space.n), size=1024).tolist()
    env.reset(seed=0)
    at = [0]

    def burst() -> int:
        for action in actions[at[0] : at[0] + BURST]:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        at[0] = (at[0] + BURST) % 1024
        return BURST

    return burst


def _batch(step: Callable[[Any], Any], actions: int, num_envs: int, dtype: Any) -> Callable[[], int]:
    """Random actions, drawn beforehand, in a batch that resets itself."""
    rng = np.random.Generator(np.random.PCG64(0))
    drawn = [rng.integers(actions, size=num_envs).astype(dtype) for _ in range(BURST)]
    at = [0]

    def burst() -> int:
        for _ in range(4):
            step(drawn[at[0] % BURST])
            at[0] += 1
        return 4 * num_envs

    return burst


def minigrid(num_envs: int) -> Iterator[Baseline]:
    import gymnasium
    import minigrid  # noqa: F401  # registers its ids

    for id in ("MiniGrid-Empty-8x8-v0", "MiniGrid-FourRooms-v0"):
        yield Baseline("minigrid", id, 1, single(gymnasium.make(id, disable_env_checker=True).unwrapped))


def gymnasium(num_envs: int) -> Iterator[Baseline]:
    import gymnasium as theirs

    lake = theirs.make("FrozenLake-v1", is_slippery=True, disable_env_checker=True)
    yield Baseline("gymnasium", "FrozenLake-v1", 1, single(lake))
    pole = theirs.make_vec("CartPole-v1", num_envs=num_envs, vectorization_mode="vector_entry_point")
    pole.reset(seed=0)
    yield Baseline("gymnasium", "CartPole-v1, vector entry point", num_envs, _batch(pole.step, 2, num_envs, np.int64))


def envpool(num_envs: int) -> Iterator[Baseline]:
    import envpool as theirs

    for id in ("MiniGrid-Empty-8x8-v0", "CartPole-v1"):
        env = theirs.make(id, env_type="gymnasium", num_envs=num_envs)
        env.reset()
        yield Baseline("envpool", id, num_envs, _batch(env.step, int(env.action_space.n), num_envs, np.int32))


def pufferlib(num_envs: int) -> Iterator[Baseline]:
    from pufferlib.ocean.squared.squared import Squared

    env = Squared(num_envs=num_envs)
    env.reset()
    yield Baseline("pufferlib", "Squared 11x11", num_envs, _batch(env.step, 5, num_envs, np.int32))


def gymnax(num_envs: int) -> Iterator[Baseline]:
    import gymnax as theirs
    import jax

    for id in ("FourRooms-misc", "CartPole-v1"):
        env, params = theirs.make(id)
        keys = jax.random.split(jax.random.key(0), num_envs)
        state = [jax.vmap(env.reset, in_axes=(0, None))(keys, params)[1], jax.random.key(1)]

        def loop(state: Any, key: Any, env: Any = env, params: Any = params) -> Any:
            """BURST steps in one compiled loop: what jax is made for."""

            def one(carry: Any, _: Any) -> Any:
                state, key = carry
                key, draw, move = jax.random.split(key, 3)
                actions = jax.random.randint(draw, (num_envs,), 0, env.num_actions)
                result = jax.vmap(env.step, in_axes=(0, 0, 0, None))(jax.random.split(move, num_envs), state, actions, params)
                return (result[1], key), (result[0].sum(), result[2].sum())  # observations are made, not kept

            return jax.lax.scan(one, (state, key), None, BURST)

        many = jax.jit(loop)

        def burst(state: list[Any] = state, many: Any = many) -> int:
            (state[0], state[1]), seen = many(state[0], state[1])
            jax.block_until_ready(seen)
            return BURST * num_envs

        yield Baseline("gymnax", f"{id}, scan of {BURST} steps", num_envs, burst)


BASELINES: dict[str, Callable[[int], Iterator[Baseline]]] = {
    f.__name__: f for f in (minigrid, gymnasium, envpool, pufferlib, gymnax)
}


def find(makers: Mapping[str, Callable[[T], Iterator[P]]], names: list[str], task: T) -> tuple[list[P], dict[str, str]]:
    """The baselines that `makers` give of the packages `names`, and for each package that does not run here the reason."""
    found: list[P] = []
    missing: dict[str, str] = {}
    for name in names:
        try:
            found += makers[name](task)
        except ImportError as error:
            missing[name] = f"not installed: {error}"
        except Exception as error:  # somebody else's code: whatever it raises is its reason
            missing[name] = f"does not run here: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return found, missing
