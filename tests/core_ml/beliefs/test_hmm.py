"""The HMM against enumeration of all sequences of states, against hmmlearn, and in worlds whose states it must find."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hmmlearn.hmm import CategoricalHMM

from gumdrop.core_ml.beliefs.hmm import HMM, expected_counts, log_sum_exp

Array = Any


def random_model(rng: Any, states: int, obs: int, actions: int, zeros: bool = False) -> HMM:
    shapes = ((states,), (actions, states, states), (states, obs))
    tables = [rng.dirichlet(np.ones(shape[-1]), shape[:-1]) for shape in shapes]
    if zeros:  # some transitions cannot be
        tables[1] = np.where(tables[1] < 0.15, 0, tables[1])
        tables[1] /= tables[1].sum(-1, keepdims=True)
    return HMM.of(*tables)


def data(rng: Any, obs: int, actions: int, lengths: list[int]) -> tuple[Array, Array, Array]:
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return rng.integers(obs, size=mask.shape), rng.integers(actions, size=mask.shape), mask


def enumerate_paths(model: HMM, obs: Array, action: Array) -> tuple[list[tuple[int, ...]], Array]:
    """Every sequence of states, and its probability together with `obs`."""
    start, transition, emission = (np.exp(table) for table in model.tables)
    paths = list(itertools.product(range(len(start)), repeat=len(obs)))
    joint = []
    for path in paths:
        p = start[path[0]] * emission[path[0], obs[0]]
        for t in range(1, len(obs)):
            p *= transition[action[t], path[t - 1], path[t]] * emission[path[t], obs[t]]
        joint.append(p)
    return paths, np.array(joint)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("actions", [1, 3])
def test_everything_is_what_enumeration_gives(actions: int, zeros: bool) -> None:
    rng = np.random.default_rng(actions + 10 * zeros)
    model = random_model(rng, 3, 4, actions, zeros)
    obs, action, mask = data(rng, 4, actions, [6, 1, 4, 5])
    filtered, likelihood = model.filter(obs, action, mask)
    smoothed, again = model.smooth(obs, action, mask)
    path, log_p = model.viterbi(obs, action, mask)
    np.testing.assert_array_equal(likelihood, again)
    counts = np.zeros(3), np.zeros((actions, 3, 3)), np.zeros((3, 4))
    for row, length in enumerate(mask.sum(1)):
        paths, joint = enumerate_paths(model, obs[row, :length], action[row, :length])
        assert likelihood[row] == pytest.approx(np.log(joint.sum()))
        found = joint[paths.index(tuple(path[row, :length].tolist()))]  # there may be others that are as likely
        assert np.log([found, joint.max()]) == pytest.approx([log_p[row]] * 2) and (path[row, length:] == -1).all()
        for p, states in zip(joint / joint.sum(), paths, strict=True):
            counts[0][states[0]] += p
            for t in range(length):
                counts[2][states[t], obs[row, t]] += p
                if t:
                    counts[1][action[row, t], states[t - 1], states[t]] += p
        for t in range(length):
            marginal = [sum(p for p, s in zip(joint, paths, strict=True) if s[t] == state) for state in range(3)]
            np.testing.assert_allclose(smoothed[row, t], marginal / joint.sum(), atol=1e-12)
            sub, part = enumerate_paths(model, obs[row, : t + 1], action[row, : t + 1])
            marginal = [sum(p for p, s in zip(part, sub, strict=True) if s[t] == state) for state in range(3)]
            np.testing.assert_allclose(filtered[row, t], marginal / part.sum(), atol=1e-12)
    expected, _ = expected_counts(model.tables, obs, action, mask)
    for ours, slow in zip(expected, counts, strict=True):
        np.testing.assert_allclose(ours, slow, atol=1e-12)
    # and one sweep's M step: counts as shares
    model.sweep(obs, action, mask)
    for table, count in zip(model.tables, counts, strict=True):
        total = count.sum(-1, keepdims=True)
        np.testing.assert_allclose(np.where(total > 0, np.exp(table) * total, 0), count, atol=1e-12)


def test_against_hmmlearn() -> None:
    """Where actions do not matter: likelihood, posteriors, Viterbi, and eight sweeps of Baum-Welch."""
    rng = np.random.default_rng(0)
    model = random_model(rng, 4, 5, 1)
    lengths = [40, 25, 33]
    obs, action, mask = data(rng, 5, 1, lengths)
    theirs = CategoricalHMM(4, algorithm="viterbi", init_params="", n_iter=8, tol=-np.inf, implementation="log")
    start, transition, emission = (np.exp(table) for table in model.tables)
    theirs.startprob_, theirs.transmat_, theirs.emissionprob_, theirs.n_features = start, transition[0], emission, 5
    flat = obs[mask][:, None]
    posterior, likelihood = model.smooth(obs, action, mask)
    assert likelihood.sum() == pytest.approx(theirs.score(flat, lengths))
    np.testing.assert_allclose(posterior[mask], theirs.predict_proba(flat, lengths), atol=1e-10)
    path, log_p = model.viterbi(obs, action, mask)
    their_log_p, their_path = theirs.decode(flat, lengths)
    assert log_p.sum() == pytest.approx(their_log_p) and path[mask].tolist() == their_path.tolist()
    theirs.fit(flat, lengths)
    found = model.fit(obs, action, mask, sweeps=8, tolerance=-np.inf)
    np.testing.assert_allclose(found, list(theirs.monitor_.history)[-len(found) :])
    np.testing.assert_allclose(np.exp(model.tables.transition[0]), theirs.transmat_, atol=1e-8)
    np.testing.assert_allclose(np.exp(model.tables.emission), theirs.emissionprob_, atol=1e-8)
    np.testing.assert_allclose(np.exp(model.tables.start), theirs.startprob_, atol=1e-8)


def test_long_sequences_do_not_underflow() -> None:
    rng = np.random.default_rng(2)
    model = random_model(rng, 3, 50, 2)
    obs, action, mask = data(rng, 50, 2, [3000])
    posterior, likelihood = model.smooth(obs, action, mask)
    assert -20_000 < likelihood[0] < -3000
    np.testing.assert_allclose(posterior.sum(2), 1, atol=1e-9)
    assert log_sum_exp(np.array([-1e6, -1e6]), 0) == pytest.approx(-1e6 + np.log(2))
    assert log_sum_exp(np.full(3, -np.inf), 0) == -np.inf


@pytest.mark.parametrize("seed", range(3))
def test_baum_welch_raises_the_likelihood_at_each_sweep(seed: int) -> None:
    rng = np.random.default_rng(seed)
    obs, action, mask = data(rng, 4, 2, [30, 20, 25, 8])
    model = HMM(HMM.Config(states=5), 4, 2, seed)
    found = model.fit(obs, action, mask, sweeps=60, tolerance=0)
    assert len(found) > 20 and found[-1] > found[0] + 10
    assert (np.diff(found) >= -1e-9).all()
    for table in model.tables:
        np.testing.assert_allclose(np.exp(table).sum(-1), 1)


def test_a_small_concentration_begins_with_few_likely_things() -> None:
    """Baum-Welch ends nearer to what made the data from there: of a state's next states, few matter."""
    plain, sparse = (HMM(HMM.Config(states=50, concentration=c), 10, 2, 0).tables for c in (1.0, 0.1))
    for wide, narrow in zip(plain[1:], sparse[1:], strict=True):
        assert np.exp(narrow).max(-1).mean() > 1.5 * np.exp(wide).max(-1).mean()
    for table in sparse:
        assert np.isfinite(table).all()  # what is impossible at first would stay so
        np.testing.assert_allclose(np.exp(table).sum(-1), 1)


def simulate(rng: Any, start: Array, transition: Array, emission: Array, rows: int, steps: int) -> tuple[Array, Array, Array]:
    """States, observations, actions (B, T); actions are uniform."""
    action = rng.integers(len(transition), size=(rows, steps))
    state = np.empty((rows, steps), int)
    obs = np.empty((rows, steps), int)

    def draw(p: Array) -> Array:
        return np.minimum((rng.random((len(p), 1)) > p.cumsum(1)).sum(1), p.shape[1] - 1)

    for t in range(steps):
        state[:, t] = draw(transition[action[:, t], state[:, t - 1]] if t else np.tile(start, (rows, 1)))
        obs[:, t] = draw(emission[state[:, t]])
    return state, obs, action


def test_baum_welch_finds_the_doors_of_three_rooms() -> None:
    """Rooms in a row, doors between neighbours; two actions walk left and right and slip with .1; the colour of the walls is
    seen, wrongly with probability .15. From six random models the likeliest is, but for the numbers of rooms, the world."""
    rng = np.random.default_rng(0)
    left = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 0.9, 0.1]])
    transition = np.stack([left, left[::-1, ::-1]])
    emission = np.full((3, 3), 0.075) + 0.775 * np.eye(3)
    _, obs, action = simulate(rng, np.ones(3) / 3, transition, emission, 40, 50)
    models = [HMM(HMM.Config(states=3), 3, 2, seed) for seed in range(6)]
    final = [model.fit(obs, action, sweeps=60)[-1] for model in models]
    best = models[int(np.argmax(final))]
    found = np.exp(best.tables.transition)
    errors = [np.abs(found[:, list(o)][:, :, list(o)] - transition).max() for o in itertools.permutations(range(3))]
    assert min(errors) < 0.08
    truth = HMM.of(np.ones(3) / 3, transition, emission)
    assert max(final) > truth.filter(obs, action)[1].sum()  # nothing better was missed
    untrained = np.exp(HMM(HMM.Config(states=3), 3, 2, 0).tables.transition)
    assert min(np.abs(untrained[:, list(o)][:, :, list(o)] - transition).max() for o in itertools.permutations(range(3))) > 0.3


def corridor(cells: int, colours: list[int], slip: float, noise: float) -> tuple[Array, Array, Array]:
    """Start anywhere, walk left or right (stay with probability `slip`, and at the ends); the floor's colour is seen, with
    probability `noise` another."""
    transition = np.zeros((2, cells, cells))
    for a, move in enumerate((-1, 1)):
        for x in range(cells):
            transition[a, x, np.clip(x + move, 0, cells - 1)] += 1 - slip
            transition[a, x, x] += slip
    k = max(colours) + 1
    emission = np.full((cells, k), noise / (k - 1))
    emission[np.arange(cells), colours] = 1 - noise
    return np.ones(cells) / cells, transition, emission


def test_viterbi_finds_the_position_in_an_aliased_corridor() -> None:
    """12 cells in 4 colours of 3 cells each: a glance leaves 3 candidates. Noise 5 %, slip 5 %, 60 steps, 100 walks."""
    world = corridor(12, [0, 1, 2, 3, 1, 0, 3, 2, 0, 2, 1, 3], slip=0.05, noise=0.05)
    state, obs, action = simulate(np.random.default_rng(0), *world, 100, 60)
    model = HMM.of(*world)
    path, _ = model.viterbi(obs, action)
    memoryless = (world[2].T[obs].argmax(-1) == state).mean()
    assert (path == state).mean() >= 0.95
    assert memoryless <= 0.4
    filtered = (model.filter(obs, action)[0].argmax(-1) == state).mean()
    smoothed = (model.smooth(obs, action)[0].argmax(-1) == state).mean()
    assert memoryless + 0.3 < filtered < smoothed


def test_belief_is_the_filter_and_restarts_with_episodes() -> None:
    rng = np.random.default_rng(1)
    model = random_model(rng, 3, 4, 2)
    obs, action, _ = data(rng, 4, 2, [5, 5])
    code, act = torch.eye(4)[torch.from_numpy(obs)], torch.eye(2)[torch.from_numpy(action)]
    is_first = torch.zeros(2, 5, dtype=torch.bool)
    is_first[0, 3] = True
    belief, _ = model.sequence(code, act, is_first, model.initial(2))  # a state before the first step is a start, too
    np.testing.assert_allclose(belief[1], model.filter(obs[1:], action[1:])[0][0], atol=1e-6)
    np.testing.assert_allclose(belief[0, :3], model.filter(obs[:1, :3], action[:1, :3])[0][0], atol=1e-6)
    np.testing.assert_allclose(belief[0, 3:], model.filter(obs[:1, 3:], action[:1, 3:])[0][0], atol=1e-6)


def test_a_lost_filter_finds_its_way_again() -> None:
    stay = np.eye(2)[None]
    model = HMM.of(np.array([1.0, 0]), stay, np.array([[1.0, 0, 0], [0, 1, 0]]))
    seen = torch.eye(3)[torch.tensor([[0, 1, 2, 1, 0]])]
    belief, _ = model.sequence(seen, torch.ones(1, 5, 1), torch.zeros(1, 5, dtype=torch.bool), model.initial(1))
    assert belief[0].tolist() == [[1, 0], [0, 1], [0, 1], [0, 1], [1, 0]]
    posterior, likelihood = model.filter(np.array([[0, 1]]), np.zeros((1, 2), int))
    assert likelihood[0] == -np.inf and posterior[0].tolist() == [[1, 0], [0, 0]]  # hides nothing
    with pytest.raises(ValueError, match="sequence 1 has probability 0"):
        model.sweep(np.array([[0, 0], [0, 1]]), np.zeros((2, 2), int))


def test_update_is_a_sweep_over_the_episodes_within() -> None:
    rng = np.random.default_rng(3)
    obs, action, mask = data(rng, 4, 2, [5, 3, 4, 6])
    flat_obs, flat_action = obs[mask].reshape(2, 9), action[mask].reshape(2, 9)  # lengths 5, 3 and 1 of 4; 3 of 4 and 6
    is_first = torch.zeros(2, 9, dtype=torch.bool)
    is_first[0, [0, 5, 8]], is_first[1, 3] = True, True
    ours, slow = HMM(HMM.Config(states=3, prior=0.5), 4, 2, 0), HMM(HMM.Config(states=3, prior=0.5), 4, 2, 0)
    figures = ours.update(torch.eye(4)[torch.from_numpy(flat_obs)], torch.eye(2)[torch.from_numpy(flat_action)], is_first)
    cut = [(0, 0, 5), (0, 5, 8), (0, 8, 9), (1, 0, 3), (1, 3, 9)]
    padded = [np.zeros((5, 6), int) for _ in range(2)]
    for i, (row, start, end) in enumerate(cut):
        for array, flat in zip(padded, (flat_obs, flat_action), strict=True):
            array[i, : end - start] = flat[row, start:end]
    lengths = np.array([end - start for _, start, end in cut])
    total = slow.sweep(*padded, np.arange(6) < lengths[:, None])
    assert figures == {"log_likelihood": pytest.approx(total / 18)}
    for a, b in zip(ours.tables, slow.tables, strict=True):
        np.testing.assert_allclose(a, b)


def test_tables_that_are_no_distributions_are_refused() -> None:
    with pytest.raises(ValueError, match="transition must hold distributions"):
        HMM.of(np.array([0.5, 0.5]), np.ones((1, 2, 2)), np.eye(2))
    with pytest.raises(ValueError, match="hmm: transition"):
        HMM.of(np.array([0.5, 0.5]), np.eye(3)[None], np.eye(2))
