"""Do a world's rules and its exact model tell of the same world? One engine step from known states, counted and compared.

Environments are put into sampled states of the model and play every action; outcomes that the model excludes, frequencies (by
chi-square) and rewards that differ are the faults.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...store.arrays import Array
from ..engine.engine import Engine
from ..examine import solution as solve
from ..world import Model, World

STATES, REPEATS = 40, 600  # at most so many states of a model, and environments for each state and action
ALPHA = 1e-3  # chance that faults are named although rules and model agree; seeds are fixed


class Transitions(NamedTuple):
    """What `repeats` environments did in each (state, action): flat arrays (states * actions * repeats,)."""

    state: Array
    action: Array
    next_state: Array  # -1: not a state of the model
    reward: Array
    terminated: Array
    repeats: int


def run(world: World, one: Engine, model: Model, repeats: int = REPEATS) -> Transitions:
    """Put environments of `one`, environment 0's episode, into sampled states of its `model`, all actions in each, and step
    once.

    Raises ValueError where the model is none, or does not name the arrays of State that tell its states apart.
    """
    solve.check_model(model)
    rng = np.random.default_rng(0)
    chosen = live = reachable(model)
    if len(live) > STATES:  # ends are rare in large models: make sure of some
        last = live[(model.terminated[live] & (model.probability[live] > 0)).any((1, 2))]
        last = rng.choice(last, min(len(last), STATES // 4), replace=False)
        chosen = np.unique(np.concatenate((last, rng.choice(live, STATES - len(last), replace=False), [model.start])))
    actions = model.next_state.shape[1]
    state = np.repeat(chosen, actions * repeats)
    action = np.tile(np.repeat(np.arange(actions), repeats), len(chosen))
    batch = Engine(world, num_envs=len(state), seed=11, threads=1)
    arrays = batch.get_state()
    for key, row in one.get_state().items():
        if key.startswith("state."):
            arrays[key][:] = row
    for field, rows in model.fields.items():
        if f"state.{field}" not in arrays:
            raise ValueError(
                f"model.fields has {field!r}: its keys are arrays of State, which has {', '.join(one.state._fields)}"
            )
        if rows.shape[1:] != arrays[f"state.{field}"].shape[1:]:
            raise ValueError(f"model.fields[{field!r}] is {rows.shape}, State.{field} {arrays[f'state.{field}'].shape} a batch")
        arrays[f"state.{field}"][:] = rows[state]
    batch.set_state(arrays)
    lookup = solve.StateIndex(model)
    if (lookup(batch.state._asdict()) != state).any():
        raise ValueError("model.fields do not tell the states apart: name every array of State in which they differ")
    step = batch.step(action[:, None], autoreset=False)
    after = lookup(batch.state._asdict())
    return Transitions(state, action, after, step.reward[:, 0].astype(np.float64), step.terminated.copy(), repeats)


def reachable(model: Model) -> Array:
    """States that an episode can be in before it ends."""
    seen, border = {model.start}, [model.start]
    while border:
        s = border.pop()
        on = (model.probability[s] > 0) & ~model.terminated[s]
        new = set(model.next_state[s][on].tolist()) - seen
        seen |= new
        border += new
    return np.array(sorted(seen))


def faults(model: Model, seen: Transitions, alpha: float = ALPHA) -> list[str]:
    """Where the engine's outcomes are not the model's: impossible ones, wrong frequencies, wrong rewards."""
    from scipy import stats

    repeats = seen.repeats
    found: list[str] = []
    tests: list[tuple[float, str]] = []
    total, freedom = 0.0, 0
    groups = len(seen.state) // repeats
    for g in range(groups):
        rows = slice(g * repeats, (g + 1) * repeats)
        s, a = int(seen.state[rows][0]), int(seen.action[rows][0])
        place = f"state {s}, action {a}"
        expected: dict[int, list[tuple[float, float]]] = {}  # next state, or -2 for the end -> (probability, reward)
        for p, to, r, end in zip(*(array[s, a] for array in model_arrays(model)), strict=True):
            if p > 0:
                expected.setdefault(-2 if end else int(to), []).append((float(p), float(r)))
        outcome = np.where(seen.terminated[rows], -2, seen.next_state[rows])
        impossible = set(outcome.tolist()) - expected.keys()
        if impossible:
            found.append(f"{place}: the model excludes {sorted(impossible)}, it has {sorted(expected)}")
            continue
        observed: list[float] = []
        wanted: list[float] = []
        rest = [0.0, 0.0]
        for to, parts in expected.items():
            share = sum(p for p, _ in parts)
            count = int((outcome == to).sum())
            mean = sum(p * r for p, r in parts) / share
            variance = sum(p * (r - mean) ** 2 for p, r in parts) / share
            rewards = seen.reward[rows][outcome == to]
            if count and variance < 1e-12 and float(rewards.std()) < 1e-6:
                if abs(float(rewards.mean()) - mean) > 1e-5 * (1 + abs(mean)):
                    found.append(f"{place} to {to}: reward {rewards.mean():g}, in the model {mean:g}")
            elif count:
                error = math.sqrt(max(variance, float(rewards.var())) / count)
                tests.append((2 * stats.norm.sf(abs(float(rewards.mean()) - mean) / error), f"{place} to {to}: reward"))
            if share * repeats < 5:  # too rare for the chi-square law: pooled
                rest = [rest[0] + count, rest[1] + share * repeats]
            else:
                observed.append(float(count))
                wanted.append(share * repeats)
        if rest[1]:
            observed.append(rest[0])
            wanted.append(rest[1])
        if len(observed) > 1:
            chi = float(((np.array(observed) - wanted) ** 2 / np.array(wanted)).sum())
            tests.append((stats.chi2.sf(chi, len(observed) - 1), f"{place}: {observed}, expected {wanted}"))
            total, freedom = total + chi, freedom + len(observed) - 1
    if freedom:  # a small error everywhere shows in the sum only
        tests.append((stats.chi2.sf(total, freedom), f"all together: chi-square {total:.0f} with {freedom} degrees"))
    return found + [f"{what} (p = {p:.1e})" for p, what in tests if p < alpha / len(tests)]


def model_arrays(model: Model) -> tuple[Array, Array, Array, Array]:
    return model.probability, model.next_state, model.reward, model.terminated
