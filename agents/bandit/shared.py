"""What bandit agents share: the worlds that they play, what an observation says, estimates of the arms, and ties.

All of them act in N environments of world `bandit` at once. What an agent has learnt in an episode is its carry,
written in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from ...store.arrays import Array, check_arrays
from ...store.random_state import generator_state, set_generator_state
from ..masks import only_legal
from ..protocol import AgentConfig, Rollout, Spaces

if TYPE_CHECKING:
    from ...envs.worlds.bandit import Bandit


class BanditConfig(AgentConfig):
    """Every bandit agent learns while it acts; `learn` gets what it did, to look at."""

    num_steps: int = Field(100, ge=1, le=100_000, description="pulls per environment between two rows of metrics")


class LinearConfig(BanditConfig):
    """Options of agents whose reward is a linear function of a context."""

    prior_sd: float = Field(0.5, gt=0, le=1e6, description="standard deviation of a weight, before anything is seen")
    noise: float | None = Field(None, gt=0, le=1e6, description="sd of a reward; null: as the world says, or 0.5")
    intercept: bool = Field(True, description="a weight that does not depend on the context")


def bandit_of(
    name: str,
    spaces: Spaces,
    rewards: tuple[str, ...] = ("bernoulli", "gaussian", "beta", "adversarial"),
    context: bool = False,
) -> Bandit:
    """The bandit that `spaces` are of. Raises ValueError where agent `name` cannot play it.

    `rewards`: the kinds that it can play; `context`: whether it needs one.
    """
    from ...envs.worlds.bandit import Bandit

    world = spaces.world
    if not isinstance(world, Bandit):
        raise ValueError(f"agent {name}: plays bandits, whose arms and pulls it is told: take --env bandit")
    o = world.config
    if o.observation != "last":
        raise ValueError(
            f"agent {name}: learns from the last arm and reward, observation={o.observation}: take observation=last"
        )
    if o.reward not in rewards:
        raise ValueError(f"agent {name}: reward={o.reward} is not for it: take reward={' or '.join(rewards)}")
    if context and o.context == "none":
        raise ValueError(f"agent {name}: needs a context: take --env bandit-contextual, or context=linear")
    return world


def only_fresh_uniform_arms(name: str, world: Bandit) -> None:
    """Raise ValueError unless arms pay 1 or 0 and stay as they were drawn, from U[0, 1]: what exact tables are made for."""
    o = world.config
    if o.reward != "bernoulli" or o.dynamics != "stationary" or o.context != "none" or o.length_scale > 0:
        raise ValueError(f"agent {name}: its tables are for Bernoulli arms with U[0, 1] means that stay: take --env bandit")


def check_prior(name: str, prior: tuple[float, float]) -> None:
    if min(prior) < 0:
        raise ValueError(f"agent {name}: prior={list(prior)} counts pulls that were never made: take numbers from 0 on")


def check_forgetting(name: str, config: Any) -> None:
    if config.discount < 1 and config.window:
        raise ValueError(f"agent {name}: discount and window both forget: choose one")


def noise_of(world: Bandit) -> float:
    """Standard deviation of a pull around its mean: as the world says, or 1/2, the largest of rewards in 0..1."""
    o = world.config
    return max(o.sd, 1e-3) if o.reward == "gaussian" else 0.5


# --- what an observation says


def last_pull(obs: Array, arms: int) -> tuple[Array, Array, Array]:
    """obs (N, 1, D) of observation `last` -> environments with a pull in this episode (M,), its arm (M,), its reward float64
    (M,)."""
    seen = obs[:, 0]
    rows = np.flatnonzero(seen[:, arms + 1] > 0)  # the share of pulls done
    return rows, seen[rows, :arms].argmax(1), seen[rows, arms].astype(np.float64)


def contexts(obs: Array, world: Bandit, intercept: bool) -> Array:
    """The feature vector of each arm, float64 (N, k, d): one that all arms share is repeated; `intercept` puts a 1 in front."""
    o = world.config
    vectors = o.arms if o.weights == "shared" else 1
    x = obs[:, 0, o.arms + 2 :].reshape(len(obs), vectors, o.features).astype(np.float64)
    if intercept:
        x = np.concatenate((np.ones((len(x), vectors, 1)), x), 2)
    return np.broadcast_to(x, (len(x), o.arms, x.shape[2]))


# --- estimates


def blank(n: int, arms: int, window: int = 0) -> dict[str, Array]:
    """Nothing seen yet: pulls and sums of rewards, float64 (N, k); with a window the last pulls, too, to take them back."""
    estimates: dict[str, Array] = {"pulls": np.zeros((n, arms)), "reward": np.zeros((n, arms))}
    if window:
        estimates["last_arm"], estimates["last_reward"] = np.zeros((n, window), np.int32), np.zeros((n, window))
        estimates["age"] = np.zeros(n, np.int64)
    return estimates


def record(carry: dict[str, Array], rows: Array, arm: Array, reward: Array, discount: float = 1.0, window: int = 0) -> None:
    """Add a pull of `arm` (M,) that paid `reward` (M,) in environments `rows` (M,), to what `blank` made.

    N_a <- discount N_a + 1[a = arm], S_a <- discount S_a + reward 1[a = arm]; with a window, the pull before it is taken out.
    """
    pulls, total = carry["pulls"], carry["reward"]
    if discount < 1:
        pulls[rows] *= discount
        total[rows] *= discount
    if window:
        at = carry["age"][rows] % window
        full = carry["age"][rows] >= window
        old, oldest = rows[full], at[full]
        gone = carry["last_arm"][old, oldest]
        pulls[old, gone] -= 1
        total[old, gone] -= carry["last_reward"][old, oldest]
        carry["last_arm"][rows, at], carry["last_reward"][rows, at] = arm, reward
        carry["age"][rows] += 1
    pulls[rows, arm] += 1
    total[rows, arm] += reward


def means(carry: dict[str, Array], prior: tuple[float, float] = (0.0, 0.0)) -> tuple[Array, Array]:
    """Estimated means and how many pulls each rests on, (N, k), where `prior` = (a, b) counts as a + b pulls that paid a.

    (S + a) / (N + a + b), infinite where that rests on nothing: what is unknown is tried first.
    """
    n = carry["pulls"] + sum(prior)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(n > 0, (carry["reward"] + prior[0]) / n, np.inf), n


def pick(
    index: Array, rng: np.random.Generator, ties: Literal["random", "first"] = "random", mask: Array | None = None
) -> Array:
    """The legal arm with the largest index (N, k) in each environment, as actions (N, 1); `mask` (N, 1, k) or None."""
    index = only_legal(index, mask)
    if ties == "random":
        index = (index == index.max(1, keepdims=True)) * (1.0 - rng.random(index.shape))  # a random number in (0, 1]
    best: Array = index.argmax(1)[:, None]
    return best


def counts(carry: dict[str, Array]) -> Array:
    """Successes and failures of each arm, int64 (N, k, 2), where rewards are 1 or 0."""
    won = carry["reward"]
    return np.stack((won, carry["pulls"] - won), 2).astype(np.int64)


# --- linear models: a regression for each arm, or one for all, and the features of the last pull


def linear_prior(n: int, world: Bandit, features: int, sd: float) -> dict[str, Array]:
    """Weights N(0, sd^2 I): mean (N, M, d), covariance (N, M, d, d), M = 1 where all arms share weights; x (N, d)."""
    from ...core_ml.maths.bayes_linear import prior

    mean, covariance = prior((n, 1 if world.config.weights == "shared" else world.config.arms), features, sd)
    return {"mean": mean, "covariance": covariance, "x": np.zeros((n, features))}


def observe_linear(carry: dict[str, Array], rows: Array, arm: Array, reward: Array, noise: float) -> None:
    """Update the regressions of the pulled arms (M,) in environments `rows` (M,)."""
    from ...core_ml.maths.bayes_linear import Posterior, update

    which = rows, np.minimum(arm, carry["mean"].shape[1] - 1)
    before = Posterior(carry["mean"][which], carry["covariance"][which])
    carry["mean"][which], carry["covariance"][which] = update(before, carry["x"][rows], reward, noise)


def remember(carry: dict[str, Array], x: Array, action: Array) -> None:
    """Keep the features of the arms about to be pulled; x (N, k, d), action (N, 1)."""
    carry["x"][:] = x[np.arange(len(x)), action[:, 0]]


# --- state


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def linear_initial(self: Any, n: int) -> dict[str, Array]:
    """`initial` of agents with a linear model of a context: the prior, in each of n environments."""
    o = self.config
    return linear_prior(n, self.world, self.world.config.features + o.intercept, o.prior_sd)


def learn_nothing(self: Any, batch: Rollout, progress: float) -> dict[str, float]:
    """`learn` of agents that learn within an episode alone."""
    return {}


def state_of(agent: Any) -> dict[str, Array]:
    """An agent that keeps nothing between episodes has its generator's state alone."""
    return {"rng": generator_state(agent.rng)}


def load_state(agent: Any, state: dict[str, Array]) -> None:
    check_arrays(state, agent.state_dict(), f"agent {agent.name}")
    set_generator_state(agent.rng, state["rng"])
