"""Exact solvers: what random actions get and what is provably best, for every world small enough.

Everything works on a `Model` (`core.py`), the tables of a Markov decision process. They become one sparse
matrix with a row for each (action, state); then a Bellman backup is a matrix-vector product. Bandits with
unknown arms have their own solver, in `bayes.py`. scipy is imported where it is used, late.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .core import Array, Model, World, Yardstick

MEANING = "optimum of an agent that sees the whole state"
SWEEPS = 2**15  # of value iteration without discount before it gives up
MEMORY = 10_000_000  # states whose values `yardstick` keeps for the next copy: 160 MB


class Solution(NamedTuple):
    """Optimal values and a greedy policy; with a horizon T, row t is for after t steps."""

    value: Array  # float64 (T + 1, S), or (S,) without horizon
    policy: Array  # int64 (T, S), or (S,)


class _Flat(NamedTuple):
    """A model as linear algebra; rows are action-major, so that a maximum over actions runs along memory."""

    move: Any  # CSR (A * S, S), row a * S + s: probabilities of going on in each next state
    reward: Array  # (A, S): expected
    ends: Array  # (A, S): probability of terminating


def _flatten(model: Model) -> _Flat:
    from scipy import sparse

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
    return _Flat(move, np.ascontiguousarray(reward), (p - on).sum(2))


def _backup(flat: _Flat, value: Array, gamma: float = 1.0) -> Array:
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
    if not 0 <= model.start < states:
        raise ValueError(f"model.start is {model.start}: it must be in 0..{states - 1}")
    for name, field in model.fields.items():
        if len(field) != states:
            raise ValueError(f"model.fields[{name!r}] has {len(field)} rows: it must have one for each of {states} states")


def finite_horizon(model: Model, horizon: int) -> Solution:
    """Backward induction: V_T = 0, V_t(s) = max_a Q_t+1(a, s) (Puterman 1994, section 4.5). Undiscounted.

    Where actions tie, the policy takes the one that is best with fewer steps left too: it does not dawdle.
    """
    if horizon < 0:
        raise ValueError(f"horizon is {horizon}: it must be at least 0 steps")
    flat = _flatten(model)
    value = np.zeros((horizon + 1, flat.reward.shape[1]))
    policy = np.zeros((horizon, flat.reward.shape[1]), np.int64)
    best = np.zeros(flat.reward.shape[1], np.int64)
    for t in range(horizon - 1, -1, -1):
        q = _backup(flat, value[t + 1])
        policy[t] = best = _improve(q, best)[0]
        value[t] = q.max(0)
    return Solution(value, policy)


def _chain(flat: _Flat, policy: Array | None) -> tuple[Any, Array, Array]:
    """The Markov chain of a stationary policy: CSR (S, S) of going on, reward (S,), chance to end (S,)."""
    from scipy import sparse

    actions, states = flat.reward.shape
    if policy is not None and policy.ndim == 1:
        rows = policy * states + np.arange(states)
        return flat.move[rows], flat.reward.ravel()[rows], flat.ends.ravel()[rows]
    share = np.full((states, actions), 1 / actions) if policy is None else policy
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
    flat = _flatten(model)
    policy = _checked_policy(policy, (flat.reward.shape[1], flat.reward.shape[0]), horizon)
    if horizon is None:
        return _forever(*_chain(flat, policy), gamma)
    value = np.zeros(flat.reward.shape[1])
    if policy is None or policy.ndim == (1 if policy.dtype.kind in "iu" else 2):
        move, reward, _ = _chain(flat, policy)
        for _ in range(horizon):
            value = reward + gamma * (move @ value)
        return value
    for t in range(horizon - 1, -1, -1):
        q = _backup(flat, value, gamma)
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


def _check_gamma(gamma: float) -> None:
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma}: it must be in 0..1")


def _improve(q: Array, policy: Array) -> tuple[Array, bool]:
    """Switch only where an action is truly better: ties would trade a way to the goal for standing still."""
    here = q[policy, np.arange(q.shape[1])]
    better = q.max(0) > here + 1e-12 * max(1.0, float(np.abs(q).max()))
    return np.where(better, q.argmax(0), policy), bool(better.any())


def value_iteration(model: Model, gamma: float = 1.0, tol: float = 1e-8) -> Solution:
    """Optimal values without a time limit, each within `tol`; value and policy have shape (S,).

    gamma < 1: sweeps until gamma / (1 - gamma) |V_k+1 - V_k| <= tol, which bounds |V_k+1 - V*| (Puterman
    1994, theorem 6.3.1). gamma = 1, for worlds whose episodes end: sweeps from V = 0; after every doubling of
    their number the policy so far is evaluated exactly, and returned once no action improves on it and the
    sweeps promise no more than it gets. Raises ValueError where that does not happen in 32,768 sweeps: the
    returns grow without bound, or too slowly.
    """
    _check_gamma(gamma)
    if not tol > 0:
        raise ValueError(f"tol is {tol}: it must be above 0")
    flat = _flatten(model)
    value = np.zeros(flat.reward.shape[1])
    if gamma == 1.0:
        return _undiscounted(flat, tol)
    first = float(np.abs(flat.reward.max(0)).max())
    target = tol * (1 - gamma) / 2  # half of tol, and half for rounding
    sweeps = 2 if not gamma or first <= target else 3 + math.ceil(math.log(target / first) / math.log(gamma))
    for _ in range(sweeps):
        q = _backup(flat, value, gamma)
        change = float(np.abs(q.max(0) - value).max())
        value = q.max(0)
        rounding = 4 * np.finfo(np.float64).eps * float(np.abs(value).max())
        if gamma * change + rounding <= tol * (1 - gamma):
            return Solution(value, _backup(flat, value, gamma).argmax(0))
    raise ValueError(f"value iteration cannot reach tol {tol:g} with gamma {gamma:g} in float64: raise tol")


def _undiscounted(flat: _Flat, tol: float) -> Solution:
    policy = np.zeros(flat.reward.shape[1], np.int64)
    value = np.zeros(len(policy))
    reason = "the values still change"
    for sweep in range(1, SWEEPS + 1):
        q = _backup(flat, value)
        policy, _ = _improve(q, policy)
        value = q.max(0)
        if sweep >= 32 and sweep & (sweep - 1) == 0:
            try:
                exact = _forever(*_chain(flat, policy), 1.0)
            except ValueError as error:
                reason = str(error)
                continue
            _, improvable = _improve(_backup(flat, exact), policy)
            if not improvable and float((value - exact).max()) <= tol:
                return Solution(exact, policy)
            reason = "the values still change; set a time limit or gamma < 1"
    raise ValueError(f"value iteration with gamma 1 does not converge in {SWEEPS:,} sweeps: {reason}")


def policy_iteration(model: Model, gamma: float = 1.0) -> Solution:
    """Howard's policy iteration: evaluate exactly, improve, until no action is better. Shapes (S,).

    gamma = 1 starts from the policy of `value_iteration`, because others may never end, and fails where that fails.
    """
    _check_gamma(gamma)
    flat = _flatten(model)
    policy = np.zeros(flat.reward.shape[1], np.int64) if gamma < 1 else _undiscounted(flat, 1e-8).policy
    for _ in range(1000):  # a handful in practice
        value = _forever(*_chain(flat, policy), gamma)
        policy, changed = _improve(_backup(flat, value, gamma), policy)
        if not changed:
            return Solution(value, policy)
    raise ValueError(f"policy iteration with gamma {gamma:g} does not settle in 1,000 rounds: use value_iteration")


# --- worlds


def _both(model: Model, horizon: int) -> tuple[Array, Array]:
    """Return of random and of optimal actions from each state, (S,) each; horizon 0: no time limit."""
    if horizon == 0:
        return evaluate_policy(model), value_iteration(model).value
    flat = _flatten(model)
    move, reward, _ = _chain(flat, None)
    lazy = best = np.zeros(len(reward))
    for _ in range(horizon):
        before = lazy, best
        lazy = reward + move @ lazy
        best = _backup(flat, best).max(0)
        if max(np.abs(lazy - before[0]).max(), np.abs(best - before[1]).max()) == 0.0:  # a longer limit changes nothing
            break
    return lazy, best


def yardstick(world: World, state: Any) -> Yardstick | None:
    """Exact return of random and optimal play for each copy of `state`, a State at the start of episodes.

    The world's own `yardstick` goes first; else each copy's `model` is solved, equal ones once; else None.
    """
    own = world.yardstick(state)
    if own is not None:
        return own
    n = len(state[0])
    flat = np.concatenate([np.ascontiguousarray(a).reshape(n, -1).view(np.uint8) for a in state], axis=1)
    solved: dict[bytes, tuple[Array, Array]] = {}
    seen: dict[bytes, tuple[float, float]] = {}
    random, optimal = np.zeros(n), np.zeros(n)
    room = MEMORY
    for i in range(n):
        row = flat[i].tobytes()
        if row not in seen:
            model = world.model(state, i)
            if model is None:
                return None
            digest = hashlib.blake2b(repr(model.next_state.shape).encode())
            for array in model[:4]:
                digest.update(np.ascontiguousarray(array).data)
            key = digest.digest()
            if key not in solved:
                room -= len(model.next_state)
                if room < 0:
                    solved.clear()
                    room = MEMORY
                solved[key] = _both(model, world.horizon)
            seen[row] = float(solved[key][0][model.start]), float(solved[key][1][model.start])
        random[i], optimal[i] = seen[row]
    return Yardstick(random, optimal, MEANING)


class StateIndex:
    """Finds the model's state of a real copy, by the contents of `model.fields`."""

    def __init__(self, model: Model) -> None:
        self._dtypes = {name: field.dtype for name, field in model.fields.items()}
        keys = self._pack(model.fields)
        self._order = np.argsort(keys)
        self._keys = keys[self._order]

    def _pack(self, arrays: Mapping[str, Array]) -> Array:
        parts = []
        for name, dtype in self._dtypes.items():
            array = np.ascontiguousarray(arrays[name], dtype)
            parts.append(array.reshape(len(array), -1).view(np.uint8))
        packed = np.ascontiguousarray(np.concatenate(parts, axis=1))
        return packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]

    def __call__(self, arrays: Mapping[str, Array]) -> Array:
        """`arrays`: name -> (N, ...) for at least the model's fields. State numbers, int64 (N,); -1: none."""
        keys = self._pack(arrays)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._order[at], -1)


def index_of(model: Model, arrays: Mapping[str, Array], i: int) -> int:
    """Which state of `model` copy `i` is in; `arrays`: name -> (N, ...), as a State's `_asdict()`.

    Raises ValueError where it is in none. For many look-ups in one model, keep a `StateIndex`.
    """
    found = int(StateIndex(model)({name: arrays[name][i : i + 1] for name in model.fields})[0])
    if found < 0:
        raise ValueError(f"copy {i} is in no state of this model: build the model from that copy's own episode")
    return found


def solve_world(id: str, options: dict[str, Any] | None = None, seed: int = 0) -> dict[str, Any]:
    """Solve the first episode of world `id` with `seed`: plain numbers, lists and text, ready for JSON.

    "id", "random", "optimal", "meaning", "states", "actions", "horizon" (0: none), "value" (optimal return
    from each state at the start of an episode), "text" (the best first action on each cell, where states have
    rows and columns). A world with a yardstick but no model has no states, no text. ValueError: without both.
    """
    from .engine import Engine
    from .registry import is_foreign, make_world

    if is_foreign(id):
        raise ValueError(f"{id} is a foreign environment without an exact model: solve takes gumdrop's own worlds")
    world = make_world(id, options)
    engine = Engine(world, num_envs=1, seed=seed)
    model, horizon = world.model(engine.state, 0), int(world.horizon)
    known: dict[str, Any] = {
        "id": id,
        "horizon": horizon,
        "actions": int(getattr(world.action_space, "n", 0)) or None,
    }
    own = world.yardstick(engine.state)
    if own is not None:
        known |= {"random": float(own.random[0]), "optimal": float(own.optimal[0]), "meaning": own.meaning}
    if model is None:
        if own is None:
            way = "agents=1" if world.num_agents > 1 else "a smaller world (see its options with `gumdrop env show`)"
            raise ValueError(f"world {id} has no exact solver with these options: it would with {way}")
        return known | {"states": None, "value": None, "text": ""}
    check_model(model)
    if horizon:
        solution = finite_horizon(model, horizon)
        after = solution.value[1]
        solution = Solution(solution.value[0], solution.policy[0])
    else:
        solution = value_iteration(model)
        after = solution.value
    if own is None:
        random = float(evaluate_policy(model, None, horizon or None)[model.start])
        known |= {"random": random, "optimal": float(solution.value[model.start]), "meaning": MEANING}
    cells = getattr(world.scene(engine.state, 0), "cells", None)
    text = _drawing(model, solution, _backup(_flatten(model), after), cells)
    return known | {"states": len(solution.value), "value": solution.value.tolist(), "text": text}


def _drawing(model: Model, solution: Solution, q: Array, cells: Array | None) -> str:
    """Arrows and values on the grid, for states that differ from the start only in "y" and "x"; else ""."""
    states = len(model.next_state)
    if any(name not in model.fields or model.fields[name].size != states for name in ("y", "x")):
        return ""
    y, x = (model.fields[name].reshape(states).astype(np.int64) for name in ("y", "x"))
    if min(y.min(), x.min()) < 0:
        return ""
    others = [field.reshape(states, -1) for name, field in model.fields.items() if name not in ("y", "x")]
    same = np.ones(states, np.bool_)
    for field in others:
        same &= (field == field[model.start]).all(1)
    # An action's arrow is where it leads on average over all states: slip and walls cancel out.
    weight = model.probability
    moves = [((weight * (axis[model.next_state] - axis[:, None, None])).sum((0, 2))) / states for axis in (y, x)]
    marks = []
    for dy, dx in zip(*moves, strict=True):
        vertical = abs(dy) > abs(dx)
        marks.append("o" if max(abs(dy), abs(dx)) < 1e-6 else ("^v"[int(dy > 0)] if vertical else "<>"[int(dx > 0)]))
    height, width = int(y.max()) + 1, int(x.max()) + 1
    if cells is not None and cells.shape[0] >= height and cells.shape[1] >= width:
        height, width = cells.shape
        arrows = np.where(cells == "#", "#", " ")
    else:
        arrows = np.full((height, width), " ")
    hopeless = (np.ptp(q, axis=0) < 1e-12) & (np.abs(solution.value) < 1e-12)  # all the same: nothing to be got
    numbers = np.full((height, width), " " * 7, dtype="<U7")
    for s in np.flatnonzero(same):
        at = y[s], x[s]
        if cells is not None and cells.shape == arrows.shape and str(cells[at]) in "GH":
            arrows[at] = cells[at]
            continue
        arrows[at] = "." if hopeless[s] else marks[solution.policy[s]]
        numbers[at] = f"{solution.value[s]:7.3g}"
    start = f"start: row {y[model.start]}, column {x[model.start]}; o: stay; optimal return from each cell:"
    lines = [" ".join(row) for row in arrows] + [start] + ["".join(row).rstrip() for row in numbers]
    return "\n".join(lines)
