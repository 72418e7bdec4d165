"""Markov decision processes solved exactly: dynamic programming, linear systems, visits and shortest paths.

Everything works on a `Model` (`core.py`), the tables of a Markov decision process. They become one sparse
matrix with a row for each (action, state); then a Bellman backup is a matrix-vector product. scipy is imported where it
is used, late.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...store.arrays import Array
from ..world import Model

SWEEPS = 2**15  # of value iteration without discount before it gives up

Progress = Callable[[int, int], None]  # (steps done, steps in all)


class Solution(NamedTuple):
    """Optimal values and a greedy policy; with a horizon T, row t is for after t steps."""

    value: Array  # float64 (T + 1, S), or (S,) without horizon
    policy: Array  # int64 (T, S), or (S,)


class Flat(NamedTuple):
    """A model as linear algebra: what `flatten` gives.

    Rows are action-major, so that a maximum over actions runs along memory.
    """

    move: Any  # CSR (A * S, S), row a * S + s: probabilities of going on in each next state
    reward: Array  # (A, S): expected
    ends: Array  # (A, S): probability of terminating
    legal: Array | None = None  # bool (S, A), from the model
    stand_in: Array | None = None  # int64 (S, A): the action whose row stands in each place, another one where it is illegal

    def named(self, policy: Array) -> Array:
        """A policy (S,) by actions that are legal."""
        found: Array = policy if self.stand_in is None else self.stand_in[np.arange(len(policy)), policy]
        return found

    def mean(self, q: Array) -> Array:
        """Mean of action values (A, S) over the legal actions, (S,)."""
        mean: Array = q.mean(0) if self.legal is None else np.einsum("as,sa->s", q, uniform(self.legal))
        return mean


def flatten(model: Model) -> Flat:
    """The model's tables as one sparse matrix and two dense ones; outcomes with probability 0 vanish.

    The row of an illegal action is that of the state's first legal one: so a maximum over all is one over the legal.
    """
    from scipy import sparse

    legal, stand_in = model.legal, None
    if legal is not None:
        stand_in = np.where(legal, np.arange(legal.shape[1]), legal.argmax(1)[:, None])
        names = ("next_state", "probability", "reward", "terminated")
        tables: dict[str, Any] = {name: np.take_along_axis(getattr(model, name), stand_in[:, :, None], 1) for name in names}
        model = model._replace(legal=None, **tables)
    states, actions, _ = model.next_state.shape
    p = model.probability.transpose(1, 0, 2)
    term = model.terminated.transpose(1, 0, 2)
    on = np.where(term, 0.0, p)
    kept = on != 0.0
    ends_at = np.zeros(actions * states + 1, np.int32)
    np.cumsum(kept.sum(2).ravel(), out=ends_at[1:])
    columns = model.next_state.transpose(1, 0, 2)[kept].astype(np.int32)
    move = sparse.csr_array((on[kept], columns, ends_at), shape=(actions * states, states))
    reward = np.einsum("sak,sak->as", model.probability, model.reward)
    return Flat(move, np.ascontiguousarray(reward), (p - on).sum(2), legal, stand_in)


def backup(flat: Flat, value: Array, gamma: float = 1.0) -> Array:
    """Q(a, s) = r(s, a) + gamma sum_s' p(s' | s, a) V(s'), float64 (A, S); V = 0 after termination."""
    q: Array = (flat.move @ value).reshape(flat.reward.shape)
    if gamma != 1.0:
        q *= gamma
    q += flat.reward
    return q


def check_model(model: Model) -> None:
    """Raise ValueError, in one line, where `model` is no Markov decision process."""
    shape = np.shape(model.next_state)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"model.next_state has shape {shape}: it must be (states, actions, outcomes), none of them 0")
    states = shape[0]
    for name, kind in (("next_state", "iu"), ("probability", "f"), ("reward", "f"), ("terminated", "b")):
        array = getattr(model, name)
        if array.shape != shape:
            raise ValueError(f"model.{name} has shape {array.shape}, next_state {shape}: make them equal")
        if array.dtype.kind not in kind:
            raise ValueError(f"model.{name} is {array.dtype}: see core.Model for the dtypes")

    def fault(bad: Array, what: str) -> None:
        if bad.any():
            where = tuple(int(j) for j in np.argwhere(bad)[0])
            raise ValueError(f"model: {what} at (state, action, outcome) {where}")

    p = model.probability
    fault((model.next_state < 0) | (model.next_state >= states), f"next_state is outside 0..{states - 1}")
    fault(~np.isfinite(model.reward), "reward is not finite")
    fault(~((p >= 0) & (p <= 1 + 1e-9)), "probability is outside 0..1")
    fault(np.abs(p.sum(2) - 1) > 1e-9, "probabilities do not sum to 1")
    if model.legal is not None:
        if model.legal.shape != shape[:2] or model.legal.dtype.kind != "b":
            raise ValueError(f"model.legal is {model.legal.dtype} {model.legal.shape}: it must be bool {shape[:2]}")
        if not model.legal.any(1).all():
            raise ValueError(f"model: state {int((~model.legal.any(1)).argmax())} has no legal action")
    if not 0 <= model.start < states:
        raise ValueError(f"model.start is {model.start}: it must be in 0..{states - 1}")
    for name, field in model.fields.items():
        if len(field) != states:
            raise ValueError(f"model.fields[{name!r}] has {len(field)} rows: it must have one for each of {states} states")


def finite_horizon(model: Model, horizon: int, gamma: float = 1.0, progress: Progress | None = None) -> Solution:
    """Backward induction: V_T = 0, V_t(s) = max_a Q_t+1(a, s) (Puterman 1994, section 4.5).

    Where actions tie, the policy takes the one that is best with fewer steps left too: it does not dawdle.
    """
    if horizon < 0:
        raise ValueError(f"horizon is {horizon}: it must be at least 0 steps")
    check_gamma(gamma)
    flat = flatten(model)
    value = np.zeros((horizon + 1, flat.reward.shape[1]))
    policy = np.zeros((horizon, flat.reward.shape[1]), np.int64)
    best = np.zeros(flat.reward.shape[1], np.int64)
    for t in range(horizon - 1, -1, -1):
        q = backup(flat, value[t + 1], gamma)
        best = _improve(q, best)[0]
        policy[t], value[t] = flat.named(best), q.max(0)
        if progress:
            progress(horizon - t, horizon)
    return Solution(value, policy)


def first_step(model: Model, horizon: int, gamma: float = 1.0, progress: Progress | None = None) -> tuple[Solution, Array]:
    """The first row of `finite_horizon`, shapes (S,), and its action values (A, S), in the memory of two rows.

    It ends early where one more step changes nothing: then no number of steps would.
    """
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}: it must be at least 1 step")
    check_gamma(gamma)
    flat = flatten(model)
    value = np.zeros(flat.reward.shape[1])
    best = np.zeros(len(value), np.int64)
    for t in range(1, horizon + 1):
        q = backup(flat, value, gamma)
        policy, after = _improve(q, best)[0], q.max(0)
        settled = bool((after == value).all() and (policy == best).all())
        value, best = after, policy
        if progress:
            progress(horizon if settled else t, horizon)
        if settled:
            break
    return Solution(value, flat.named(best)), q


def chain(flat: Flat, policy: Array | None) -> tuple[Any, Array, Array]:
    """The Markov chain of a stationary policy: CSR (S, S) of going on, reward (S,), chance to end (S,)."""
    from scipy import sparse

    actions, states = flat.reward.shape
    if policy is not None and policy.ndim == 1:
        rows = policy * states + np.arange(states)
        return flat.move[rows], flat.reward.ravel()[rows], flat.ends.ravel()[rows]
    share = _shares(policy, states, actions, flat.legal)
    columns = np.arange(states)[:, None] + states * np.arange(actions)
    indptr = np.arange(0, states * actions + 1, actions)
    mixing = sparse.csr_array((share.ravel(), columns.ravel(), indptr), shape=(states, actions * states))
    return mixing @ flat.move, mixing @ flat.reward.ravel(), mixing @ flat.ends.ravel()


def _checked_policy(policy: Array | None, shape: tuple[int, int], horizon: int | None) -> Array | None:
    if policy is None:
        return None
    states, actions = shape
    policy = np.asarray(policy)
    whole = policy.dtype.kind in "iu"
    shapes = {(states,)} if whole else {shape}
    if horizon is not None:
        shapes |= {(horizon, *one) for one in shapes}
    if policy.shape not in shapes:
        raise ValueError(f"policy has shape {policy.shape}, dtype {policy.dtype}: it must be one of {sorted(shapes)}")
    if whole and policy.size and not (0 <= policy.min() and policy.max() < actions):
        raise ValueError(f"policy has actions outside 0..{actions - 1}")
    if not whole and (policy.min() < 0 or np.abs(policy.sum(-1) - 1).max() > 1e-9):
        raise ValueError("policy is no distribution: its rows must be at least 0 and sum to 1 over the actions")
    return policy


def evaluate_policy(model: Model, policy: Array | None = None, horizon: int | None = None, gamma: float = 1.0) -> Array:
    """Expected return from each state, float64 (S,), over `horizon` steps; None: until the episode ends.

    `policy`: None is uniformly random; whole numbers (S,) or (T, S) are actions; floats (S, A) or (T, S, A)
    probabilities of actions. Raises ValueError where the undiscounted return without horizon does not exist.
    """
    flat = flatten(model)
    policy = _checked_policy(policy, (flat.reward.shape[1], flat.reward.shape[0]), horizon)
    if horizon is None:
        return _forever(*chain(flat, policy), gamma)
    value = np.zeros(flat.reward.shape[1])
    if policy is None or policy.ndim == (1 if policy.dtype.kind in "iu" else 2):
        move, reward, _ = chain(flat, policy)
        for _ in range(horizon):
            before, value = value, reward + gamma * (move @ value)
            if (value == before).all():  # nor would any further step change it
                break
        return value
    for t in range(horizon - 1, -1, -1):
        q = backup(flat, value, gamma)
        whole = policy.dtype.kind in "iu"
        value = q[policy[t], np.arange(len(value))] if whole else np.einsum("sa,as->s", policy[t], q)
    return value


def _forever(move: Any, reward: Array, ends: Array, gamma: float) -> Array:
    """Solve V = r + gamma P V exactly. With gamma 1, to go on for ever without reward is worth 0."""
    from scipy.sparse import csgraph, eye_array, linalg

    value = np.zeros(len(reward))
    live = np.arange(len(reward))
    if gamma == 1.0:
        move = move.copy()
        move.sum_duplicates()  # connected_components can loop for ever on a matrix that has an entry twice
        count, group = csgraph.connected_components(move, connection="strong")
        edges = move.tocoo()
        open_ = np.zeros(count, np.bool_)  # groups that the chain can leave
        open_[group[edges.row[group[edges.row] != group[edges.col]]]] = True
        open_[group[ends > 0]] = True
        trapped = ~open_[group]
        if (reward[trapped] != 0).any():
            state = int(np.flatnonzero(trapped & (reward != 0))[0])
            raise ValueError(
                f"no finite return: the policy stays for ever where reward is paid (state {state}); "
                "set a time limit or gamma < 1"
            )
        live = np.flatnonzero(~trapped)
    if len(live):
        system = eye_array(len(live), format="csc") - gamma * move[live][:, live].tocsc()
        value[live] = linalg.spsolve(system.tocsc(), reward[live])
    return value


def check_gamma(gamma: float) -> None:
    """Raise ValueError unless `gamma` is in 0..1."""
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma}: it must be in 0..1")


def _improve(q: Array, policy: Array) -> tuple[Array, bool]:
    """Switch only where an action is truly better: ties would trade a way to the goal for standing still."""
    here = q[policy, np.arange(q.shape[1])]
    better = q.max(0) > here + 1e-12 * max(1.0, float(np.abs(q).max()))
    return np.where(better, q.argmax(0), policy), bool(better.any())


def value_iteration(model: Model, gamma: float = 1.0, tol: float = 1e-8, progress: Progress | None = None) -> Solution:
    """Optimal values without a time limit, each within `tol`; value and policy have shape (S,).

    gamma < 1: sweeps until gamma / (1 - gamma) |V_k+1 - V_k| <= tol, which bounds |V_k+1 - V*| (Puterman
    1994, theorem 6.3.1). gamma = 1, for worlds whose episodes end: sweeps from V = 0; after every doubling of
    their number the policy so far is evaluated exactly, and returned once no action improves on it and the
    sweeps promise no more than it gets. Raises ValueError where that does not happen in 32,768 sweeps: the
    returns grow without bound, or too slowly.
    """
    check_gamma(gamma)
    if not tol > 0:
        raise ValueError(f"tol is {tol}: it must be above 0")
    flat = flatten(model)
    value = np.zeros(flat.reward.shape[1])
    if gamma == 1.0:
        return _undiscounted(flat, tol, progress)
    first = float(np.abs(flat.reward.max(0)).max())
    target = tol * (1 - gamma) / 2  # half of tol, and half for rounding
    sweeps = 2 if not gamma or first <= target else 3 + math.ceil(math.log(target / first) / math.log(gamma))
    for sweep in range(sweeps):
        if progress:
            progress(sweep, sweeps)
        q = backup(flat, value, gamma)
        change = float(np.abs(q.max(0) - value).max())
        value = q.max(0)
        rounding = 4 * np.finfo(np.float64).eps * float(np.abs(value).max())
        if gamma * change + rounding <= tol * (1 - gamma):
            return Solution(value, flat.named(backup(flat, value, gamma).argmax(0)))
    raise ValueError(f"value iteration cannot reach tol {tol:g} with gamma {gamma:g} in float64: raise tol")


def _undiscounted(flat: Flat, tol: float, progress: Progress | None = None) -> Solution:
    policy = np.zeros(flat.reward.shape[1], np.int64)
    value = np.zeros(len(policy))
    reason = "the values still change"
    for sweep in range(1, SWEEPS + 1):
        if progress:
            progress(sweep, 0)
        q = backup(flat, value)
        policy, _ = _improve(q, policy)
        value = q.max(0)
        if sweep >= 32 and sweep & (sweep - 1) == 0:
            try:
                exact = _forever(*chain(flat, policy), 1.0)
            except ValueError as error:
                reason = str(error)
                continue
            _, improvable = _improve(backup(flat, exact), policy)
            if not improvable and float((value - exact).max()) <= tol:
                return Solution(exact, flat.named(policy))
            reason = "the values still change; set a time limit or gamma < 1"
    raise ValueError(f"value iteration with gamma 1 does not converge in {SWEEPS:,} sweeps: {reason}")


def policy_iteration(model: Model, gamma: float = 1.0) -> Solution:
    """Howard's policy iteration: evaluate exactly, improve, until no action is better. Shapes (S,).

    gamma = 1 starts from the policy of `value_iteration`, because others may never end, and fails where that fails.
    """
    check_gamma(gamma)
    flat = flatten(model)
    policy = np.zeros(flat.reward.shape[1], np.int64) if gamma < 1 else _undiscounted(flat, 1e-8).policy
    for _ in range(1000):  # a handful in practice
        value = _forever(*chain(flat, policy), gamma)
        policy, changed = _improve(backup(flat, value, gamma), policy)
        if not changed:
            return Solution(value, flat.named(policy))
    raise ValueError(f"policy iteration with gamma {gamma:g} does not settle in 1,000 rounds: use value_iteration")


def epsilon_optimum(model: Model, epsilon: float, horizon: int | None = None, gamma: float = 1.0) -> Solution:
    """The best that an agent gets that must explore: with probability `epsilon` its action is uniformly random.

    Values of V(s) = (1 - epsilon) max_a Q(s, a) + epsilon / A sum_a Q(s, a), what SARSA with a constant epsilon converges to,
    and the greedy part of the policy (Sutton & Barto 2018, section 5.4). Shapes as in `finite_horizon` with a horizon; without
    one (S,), exact by policy iteration from the uniformly random policy, whose return must exist (ValueError).
    """
    check_gamma(gamma)
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon is {epsilon}: it must be in 0..1")
    flat = flatten(model)
    actions, states = flat.reward.shape
    if horizon is not None:
        value = np.zeros((horizon + 1, states))
        policy = np.zeros((horizon, states), np.int64)
        best = np.zeros(states, np.int64)
        for t in range(horizon - 1, -1, -1):
            q = backup(flat, value[t + 1], gamma)
            best = _improve(q, best)[0]
            policy[t] = flat.named(best)
            value[t] = (1 - epsilon) * q.max(0) + epsilon * flat.mean(q)
        return Solution(value, policy)
    value = _forever(*chain(flat, None), gamma)
    best = backup(flat, value, gamma).argmax(0)
    for _ in range(1000):  # a handful in practice
        value = _forever(*chain(flat, soft(flat.named(best), epsilon, actions, flat.legal)), gamma)
        best, changed = _improve(backup(flat, value, gamma), best)
        if not changed:
            return Solution(value, flat.named(best))
    raise ValueError(f"policy iteration with epsilon {epsilon:g} and gamma {gamma:g} does not settle in 1,000 rounds")


def soft(policy: Array, epsilon: float, actions: int, legal: Array | None = None) -> Array:
    """Greedy actions (S,) as an epsilon-greedy policy, float64 (S, actions)."""
    shares: Array = np.full((len(policy), actions), epsilon / actions) if legal is None else epsilon * uniform(legal)
    shares[np.arange(len(policy)), policy] += 1 - epsilon
    return shares


# --- visits and paths


def occupancy(
    model: Model,
    policy: Array | None = None,
    horizon: int | None = None,
    gamma: float = 1.0,
    start: Array | None = None,
) -> Array:
    """Expected visits of each state and action, float64 (S, A): sum_t gamma^t P(s_t = s, a_t = a).

    `policy` and `horizon` as in `evaluate_policy`; `start`: a distribution over states (S,), None: `model.start` for certain.
    Visits times rewards sum to the policy's return; visits sum to the expected length of an episode (with gamma < 1, to
    1 / (1 - gamma) where episodes never end). They solve the dual linear programme of the process: what flows into a
    state flows out of it, mu(s) = start(s) + gamma sum_s',a' p(s | s', a') mu(s', a') (Puterman 1994, section 6.9).
    ValueError: without horizon and discount, a state is visited for ever.
    """
    check_gamma(gamma)
    flat = flatten(model)
    actions, states = flat.reward.shape
    policy = _checked_policy(policy, (states, actions), horizon)
    at = np.zeros(states)
    if start is None:
        at[model.start] = 1.0
    else:
        at = np.asarray(start, np.float64)
        if at.shape != (states,) or not (at >= 0).all() or abs(float(at.sum()) - 1) > 1e-9:
            raise ValueError(f"start must be {states} probabilities that sum to 1")
    if horizon is None:
        visits: Array = _visits(chain(flat, policy)[0], at, gamma)[:, None] * _shares(policy, states, actions, flat.legal)
        return visits
    stationary = policy is None or policy.ndim == (1 if policy.dtype.kind in "iu" else 2)
    visits, back = np.zeros((states, actions)), flat.move.T.tocsr()
    for t in range(horizon):
        now = at[:, None] * _shares(policy if stationary or policy is None else policy[t], states, actions, flat.legal)
        visits += gamma**t * now
        at = back @ now.T.ravel()
    return visits


def uniform(legal: Array) -> Array:
    """The uniform distribution over legal actions, float64 (S, A)."""
    shares: Array = legal / legal.sum(1, keepdims=True)
    return shares


def _shares(policy: Array | None, states: int, actions: int, legal: Array | None = None) -> Array:
    """A stationary policy as probabilities (S, A); None: uniform over the legal actions."""
    if policy is None:
        return np.full((states, actions), 1 / actions) if legal is None else uniform(legal)
    shares: Array = np.eye(actions)[policy] if policy.dtype.kind in "iu" else policy
    return shares


def _visits(move: Any, start: Array, gamma: float) -> Array:
    """Solve mu = start + gamma P' mu over the states that can be reached at all."""
    from scipy.sparse import csgraph, eye_array, linalg

    move = move.tocsr(copy=True)
    move.sum_duplicates()
    reached = start > 0
    edges = move.tocoo()
    while True:
        before = int(reached.sum())
        reached[edges.col[reached[edges.row]]] = True
        if int(reached.sum()) == before:
            break
    live = np.flatnonzero(reached)
    inner = move[live][:, live].tocsr()
    if gamma == 1.0:
        count, group = csgraph.connected_components(inner, connection="strong")
        leaving = np.zeros(count, np.bool_)
        pairs = inner.tocoo()
        leaving[group[pairs.row[group[pairs.row] != group[pairs.col]]]] = True
        leaving[group[np.asarray(inner.sum(1)).ravel() < 1 - 1e-12]] = True  # the rest ends the episode
        if not leaving.all():
            state = int(live[~leaving[group]][0])
            raise ValueError(f"state {state} is visited for ever: set a horizon or gamma < 1")
    system = eye_array(len(live), format="csc") - gamma * inner.T.tocsc()
    visits = np.zeros(len(start))
    visits[live] = linalg.spsolve(system.tocsc(), start[live])
    return visits


def fewest_steps(model: Model, wanted: Array | None = None, certain: bool = False) -> Array:
    """Shortest paths: the fewest steps from each state to a wanted outcome, int64 (S,); -1 where there is no way.

    `wanted`: bool (S, A, K), which outcomes arrive; None: all that terminate. Chance is on the agent's side: any outcome with
    probability above 0 can be hoped for. With `certain` it is against: the fewest steps within which a policy arrives
    whatever happens. In a deterministic world both are the same, and minus the optimal return at a reward of -1 a step.
    """
    possible = model.probability > 0
    wanted = model.terminated if wanted is None else np.asarray(wanted)
    if wanted.shape != possible.shape or wanted.dtype.kind != "b":
        raise ValueError(f"wanted is {wanted.dtype} {wanted.shape}: it must be bool {possible.shape}, one for each outcome")
    arrives, goes_on = possible & wanted, possible & ~model.terminated & ~wanted
    steps = np.full(len(possible), -1, np.int64)
    for distance in range(1, len(steps) + 1):
        good = arrives | goes_on & (steps >= 0)[model.next_state]
        if certain:
            good = good | ~possible
        sure: Array = np.all(good, 2) if certain else np.any(good, 2)
        reached = np.any(sure, 1) & (steps < 0)
        if not reached.any():
            break
        steps[reached] = distance
    return steps


# --- tables of other people


def from_table(table: Mapping[int, Mapping[int, Sequence[tuple[Any, ...]]]], start: int = 0) -> Model:
    """A `Model` from a dictionary in the form of Gymnasium's toy-text `env.unwrapped.P`.

    `table[state][action]` lists outcomes (probability, next state, reward, terminated); states and actions count from 0.
    The model's one field is "s", the state's number. ValueError: numbers are missing, or the tables are no decision process.
    """
    states = len(table)
    if not states or set(table) != set(range(states)):
        raise ValueError(f"the table's {states} states must be numbered 0..{states - 1}")
    actions = len(table[0])
    width = max((len(outcomes) for row in table.values() for outcomes in row.values()), default=0)
    if not actions or not width:
        raise ValueError("the table has a state without actions or outcomes")
    shape = (states, actions, width)
    next_state, probability, reward = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)
    terminated = np.zeros(shape, np.bool_)
    for s, row in table.items():
        if set(row) != set(range(actions)):
            raise ValueError(f"state {s} of the table has actions {sorted(row)}: every state needs 0..{actions - 1}")
        for a, outcomes in row.items():
            for k, (p, to, r, end) in enumerate(outcomes):
                next_state[s, a, k], probability[s, a, k], reward[s, a, k], terminated[s, a, k] = to, p, r, end
    model = Model(next_state, probability, reward, terminated, start, {"s": np.arange(states)})
    check_model(model)
    return model
