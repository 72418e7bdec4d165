"""A hidden Markov model whose transitions depend on the action: filter, smoother, Viterbi, Baum-Welch; all in log space.

S states, O observations, A actions. Sequences are int64 (B, T): `obs[:, t]` is seen after `action[:, t]` led there, so the
first action of a sequence is of no account. `mask` (B, T), true for a sequence's own steps and false behind its end, lets
sequences of different length share an array. The recursions are those of Rabiner 1989, "A tutorial on hidden Markov models",
with a(s, s') replaced by a(s, s' | action).
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig, component
from .protocol import State, inputs


class Tables(NamedTuple):
    """Log-probabilities, float64."""

    start: Array  # (S,)
    transition: Array  # (A, S, S): from, to
    emission: Array  # (S, O)


def log_sum_exp(x: Array, axis: int) -> Array:
    """log sum exp x along `axis`; -inf where all are."""
    top = x.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        total: Array = np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis)
    return total


def shares(log_p: Array, log_total: Array) -> Array:
    """exp(log_p) of a total; zeros where the total is zero."""
    share: Array = np.exp(log_p - np.where(np.isfinite(log_total), log_total, 0.0))
    return share


def forward(p: Tables, obs: Array, action: Array, mask: Array) -> Array:
    """log P(o_1 .. o_t, s_t), (B, T, S); behind a sequence's end its last value. Its sum over s at the end is the likelihood.

    alpha_1(s) = pi(s) b(o_1 | s);  alpha_t(s') = b(o_t | s') sum_s alpha_{t-1}(s) a(s, s' | action_t)
    """
    alpha, a = np.empty((*obs.shape, len(p.start))), np.exp(p.transition)
    alpha[:, 0] = p.start + p.emission.T[obs[:, 0]]
    for t in range(1, obs.shape[1]):
        own = mask[:, t]
        alpha[:, t] = alpha[:, t - 1]
        alpha[own, t] = moved(a, alpha[own, t - 1], action[own, t]) + p.emission.T[obs[own, t]]
    return alpha


def moved(a: Array, log_x: Array, action: Array) -> Array:
    """log sum_s exp(log_x(s)) a(s, s' | action), (B, S). Terms below e^-700 of a row's largest count as none."""
    top = log_x.max(1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        found: Array = np.log((np.exp(log_x - top)[:, None] @ a[action])[:, 0]) + top  # row by row: rows see no others
    return found


def backward(p: Tables, obs: Array, action: Array, mask: Array) -> Array:
    """log P(o_{t+1} .. o_T | s_t), (B, T, S).

    beta_T(s) = 1;  beta_t(s) = sum_s' a(s, s' | action_{t+1}) b(o_{t+1} | s') beta_{t+1}(s')
    """
    beta, a = np.zeros((*obs.shape, len(p.start))), np.ascontiguousarray(np.exp(p.transition).swapaxes(1, 2))
    for t in range(obs.shape[1] - 2, -1, -1):
        own = mask[:, t + 1]
        beta[own, t] = moved(a, p.emission.T[obs[own, t + 1]] + beta[own, t + 1], action[own, t + 1])
    return beta


def viterbi(p: Tables, obs: Array, action: Array, mask: Array) -> tuple[Array, Array]:
    """The likeliest sequence of states, int64 (B, T), -1 behind a sequence's end; and its log-probability with `obs`, (B,).

    delta_t(s') = b(o_t | s') max_s delta_{t-1}(s) a(s, s' | action_t)
    """
    delta = p.start + p.emission.T[obs[:, 0]]
    came_from = np.empty((*obs.shape, len(p.start)), np.int64)
    for t in range(1, obs.shape[1]):
        ways = delta[:, :, None] + p.transition[action[:, t]]
        own = mask[:, t, None]
        came_from[:, t] = np.where(own, ways.argmax(1), np.arange(len(p.start)))
        delta = np.where(own, ways.max(1) + p.emission.T[obs[:, t]], delta)
    path = np.empty(obs.shape, np.int64)
    path[:, -1] = delta.argmax(1)
    for t in range(obs.shape[1] - 1, 0, -1):
        path[:, t - 1] = np.take_along_axis(came_from[:, t], path[:, t, None], 1)[:, 0]
    return np.where(mask, path, -1), delta.max(1)


class Counts(NamedTuple):
    """How often things are expected to have happened, given observations and actions; shapes of `Tables`."""

    start: Array
    transition: Array
    emission: Array


def expected_counts(p: Tables, obs: Array, action: Array, mask: Array) -> tuple[Counts, Array]:
    """Baum-Welch's E step; and the log-likelihood of each sequence, (B,). Raises ValueError where one is impossible.

    gamma_t(s) = alpha_t(s) beta_t(s) / P(o);  xi_t(s, s') = alpha_{t-1}(s) a(s, s' | action_t) b(o_t | s') beta_t(s') / P(o)
    """
    alpha, beta = forward(p, obs, action, mask), backward(p, obs, action, mask)
    likelihood = log_sum_exp(alpha[:, -1], 1)
    if not np.isfinite(likelihood).all():
        row = int(np.argmin(np.isfinite(likelihood)))
        raise ValueError(f"hmm: sequence {row} has probability 0 in this model: begin with no zeros, or give a prior")
    gamma = np.where(mask[..., None], np.exp(alpha + beta - likelihood[:, None, None]), 0.0)
    counts = Counts(gamma[:, 0].sum(0), np.zeros_like(p.transition), np.zeros_like(p.emission))
    np.add.at(counts.emission.T, obs, gamma)
    total = log_sum_exp(alpha, 2)
    for act, a in enumerate(np.exp(p.transition)):
        rows, at = np.nonzero(mask[:, 1:] & (action[:, 1:] == act))  # steps from `at` to the next
        before, so_far = alpha[rows, at], total[rows, at, None]
        ahead = p.emission.T[obs[rows, at + 1]] + beta[rows, at + 1] + so_far - likelihood[rows, None]
        # xi = exp(before - so_far) a exp(ahead): large only where it meets something as small, and so must not overflow
        counts.transition[act] = a * (np.exp(before - so_far).T @ np.exp(np.minimum(ahead, 600.0)))
    return counts, likelihood


def likeliest(counts: Counts, prior: float, p: Tables) -> Tables:
    """Baum-Welch's M step: counts, each `prior` larger, as shares. What was never met stays as it is in `p`."""

    def normalised(count: Array, old: Array) -> Array:
        count = count + prior
        total = count.sum(-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(total > 0, np.log(count) - np.log(total), old)

    return Tables(*map(normalised, counts, p))


@component("belief", "hmm")
class HMM:
    """Belief: P(state | codes and actions so far), float32 (B, states), for codes and actions that are one-hot.

    With K = 0 actions there is one kind of transition. A filter that sees what cannot be is lost: it begins anew with every
    state where that could be seen (and keeps what it expected if there is none). Nothing here is trained by gradient: `sweep`,
    `fit` and `update` are Baum-Welch.
    """

    class Config(ComponentConfig):
        states: int = Field(8, ge=1, description="hidden states")
        prior: float = Field(0.0, ge=0, description="count given to everything before Baum-Welch counts; 0: maximum likelihood")
        concentration: float = Field(1.0, ge=0.01, description="of the Dirichlet distributions that it begins with")
        sweeps: int = Field(1, ge=1, le=10_000, description="of Baum-Welch over each rollout")

    def __init__(self, config: Config, code_size: int, action_size: int, seed: int) -> None:
        """A model of Dirichlet(`concentration`) distributions drawn from `seed`."""
        self.config, self.sizes, self.size = config, (code_size, action_size), config.states
        self.net: nn.Module = nn.Identity()
        rng, s, a = np.random.default_rng(seed), config.states, max(action_size, 1)

        def drawn(*shape: int) -> Array:
            share = rng.dirichlet(np.full(shape[-1], config.concentration), shape[:-1])
            return np.log(np.maximum(share, 1e-12))  # what is 0 stays 0: Baum-Welch could not find it

        self.tables = Tables(drawn(s), drawn(a, s, s), drawn(s, code_size))

    @classmethod
    def of(cls, start: Array, transition: Array, emission: Array) -> Self:
        """A model whose probabilities are known: (S,), (A, S, S), (S, O). Raises ValueError where rows do not sum to 1."""
        for name, table in (("start", start), ("transition", transition), ("emission", emission)):
            if (table < 0).any() or not np.allclose(table.sum(-1), 1):
                raise ValueError(f"hmm: {name} must hold distributions along its last axis")
        made = cls(cls.Config(states=len(start), prior=0.0, concentration=1.0, sweeps=1), emission.shape[1], len(transition), 0)
        with np.errstate(divide="ignore"):
            given = Tables(*(np.log(np.asarray(table, np.float64)) for table in (start, transition, emission)))
        check_arrays(given._asdict(), made.state_dict(), "hmm")
        made.tables = given
        return made

    def filter(self, obs: Array, action: Array, mask: Array | None = None) -> tuple[Array, Array]:
        """P(s_t | o_1 .. o_t), (B, T, S), and the log-likelihood of each sequence, (B,); zeros and -inf for what cannot be."""
        alpha = forward(self.tables, obs, action, _all(obs, mask))
        return shares(alpha, log_sum_exp(alpha, 2)[..., None]), log_sum_exp(alpha[:, -1], 1)

    def smooth(self, obs: Array, action: Array, mask: Array | None = None) -> tuple[Array, Array]:
        """P(s_t | o_1 .. o_T), (B, T, S), and the log-likelihood of each sequence, (B,)."""
        mask = _all(obs, mask)
        alpha = forward(self.tables, obs, action, mask)
        likelihood = log_sum_exp(alpha[:, -1], 1)
        return shares(alpha + backward(self.tables, obs, action, mask), likelihood[:, None, None]), likelihood

    def viterbi(self, obs: Array, action: Array, mask: Array | None = None) -> tuple[Array, Array]:
        return viterbi(self.tables, obs, action, _all(obs, mask))

    def sweep(self, obs: Array, action: Array, mask: Array | None = None) -> float:
        """One sweep of Baum-Welch. Returns the log-likelihood of all sequences before it; with prior 0 it never falls."""
        counts, likelihood = expected_counts(self.tables, obs, action, _all(obs, mask))
        self.tables = likeliest(counts, self.config.prior, self.tables)
        return float(likelihood.sum())

    def fit(
        self, obs: Array, action: Array, mask: Array | None = None, sweeps: int = 100, tolerance: float = 1e-4
    ) -> list[float]:
        """Sweep until a sweep gains less than `tolerance` nats per step. Returns the log-likelihoods before each sweep."""
        gains = tolerance * _all(obs, mask).sum()
        found = [self.sweep(obs, action, mask)]
        while len(found) < sweeps and (len(found) == 1 or found[-1] - found[-2] >= gains):
            found.append(self.sweep(obs, action, mask))
        return found

    def update(
        self, code: Tensor, action: Tensor, is_first: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, float]:
        """Sweeps over (B, T, O), (B, T, K), (B, T); each episode within is a sequence, and a row's first step begins one.

        Returns the log-likelihood per step before the last of them.
        """
        obs, act = self._indices(code, action, is_first)
        cut = is_first.numpy().copy()
        cut[:, 0] = True
        begin = np.flatnonzero(cut)
        length = np.diff(begin, append=cut.size)
        mask = np.arange(length.max()) < length[:, None]
        index = np.minimum(begin[:, None] + np.arange(length.max()), cut.size - 1)
        sequences = obs.reshape(-1)[index], act.reshape(-1)[index], mask
        return {"log_likelihood": [self.sweep(*sequences) for _ in range(self.config.sweeps)][-1] / cut.size}

    def initial(self, n: int) -> State:
        return {"log_belief": torch.zeros(n, self.size, dtype=torch.float64), "begun": torch.zeros(n, dtype=torch.bool)}

    def observe(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        belief, state = self.sequence(code.unsqueeze(1), action.unsqueeze(1), is_first.unsqueeze(1), state)
        return belief.squeeze(1), state

    def sequence(self, code: Tensor, action: Tensor, is_first: Tensor, state: State) -> tuple[Tensor, State]:
        """Not differentiable: codes are read as numbers of observations."""
        obs, act = self._indices(code, action, is_first)
        first, p = is_first.numpy(), self.tables
        a = np.exp(p.transition)
        belief, begun = state["log_belief"].numpy(), state["begun"].numpy()
        beliefs = np.empty((*obs.shape, self.size), np.float32)
        for t in range(obs.shape[1]):
            goes_on = (begun & ~first[:, t])[:, None]
            expected = np.where(goes_on, moved(a, belief, act[:, t]), p.start)
            seen = p.emission.T[obs[:, t]]  # (B, S)
            belief, begun = expected + seen, np.ones_like(begun)
            for other in (seen, expected):  # where what was seen cannot be, and where it could be nowhere
                belief = np.where(np.isfinite(belief).any(1, keepdims=True), belief, other)
            belief = belief - log_sum_exp(belief, 1)[:, None]
            beliefs[:, t] = np.exp(belief)
        new = {"log_belief": torch.from_numpy(belief), "begun": torch.ones(len(belief), dtype=torch.bool)}
        return torch.from_numpy(beliefs), new

    def _indices(self, code: Tensor, action: Tensor, is_first: Tensor) -> tuple[Array, Array]:
        """Numbers of observations and actions, int64, of the shape of `is_first`."""
        inputs(code, action, is_first, self.sizes)  # checks shapes
        obs: Array = code.argmax(-1).numpy()
        return obs, action.argmax(-1).numpy() if self.sizes[1] else np.zeros_like(obs)

    def state_dict(self) -> dict[str, Array]:
        return {name: table.copy() for name, table in self.tables._asdict().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "hmm")
        self.tables = Tables(**{name: table.copy() for name, table in state.items()})


def _all(obs: Array, mask: Array | None) -> Array:
    return np.ones(obs.shape, bool) if mask is None else mask
