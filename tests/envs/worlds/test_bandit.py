"""The bandit family: its distributions, its observations, and its exact yardsticks against play."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.examine import solution as solve
from gumdrop.envs.make import make
from gumdrop.envs.registry import make_world
from gumdrop.envs.rng import fresh_streams
from gumdrop.envs.solvers import bayes
from gumdrop.envs.worlds import bandit
from gumdrop.store.arrays import Array

SURE = 1e-4  # chance that a statistical test fails although all is well; seeds are fixed


def engine(n: int, id: str = "bandit", seed: int = 1, **options: Any) -> Engine:
    return Engine(make_world(id, options), num_envs=n, seed=seed)


def pull(env: Engine, arm: int | Array) -> Array:
    """Pull one arm in all environments, or each environment's own; rewards (N,)."""
    return env.step(np.broadcast_to(arm, env.num_envs)[:, None].copy(), autoreset=False).reward[:, 0].copy()


def close(values: Array, wanted: float) -> None:
    """The mean of independent values is what was wanted."""
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - wanted) < 4.5 * error + 1e-6, f"{values.mean():g} +- {error:g}, wanted {wanted:g}"


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({}, "49b216995c3f84cf"),
        ({"reward": "gaussian"}, "ce9424ebde8c7cc3"),
        ({"arms": 3, "pulls": 7}, "0023690d6c257baf"),
        ({"arms": 10, "reward": "gaussian", "sd": 0.1, "pulls": 13, "time_limit": 5}, "7b0e8c10c3084342"),
    ],
)
def test_play_of_the_plain_bandit_never_changes(options: dict[str, Any], digest: str) -> None:
    """Trained agents and published results rest on these bits."""
    env = make("bandit", options, num_envs=64, seed=3)
    sha, rng = hashlib.sha256(env.obs.tobytes()), np.random.default_rng(0)
    for _ in range(250):
        step = env.step(rng.integers(env.action_space.n, size=(64, 1)))  # type: ignore[attr-defined]
        for array in (step.obs, step.reward, step.terminated, step.truncated):
            sha.update(array.tobytes())
    sha.update(env.get_state()["engine.rng"].tobytes())
    assert sha.hexdigest()[:16] == digest


# --- draws


def draws(function: Any, *arguments: float, count: int) -> Array:
    """By the plain Python function: what is compiled is checked to be the same bits elsewhere."""
    rng = fresh_streams(np.array([5]))
    with np.errstate(over="ignore"):
        return np.array([function(rng, 0, *arguments) for _ in range(count)])


def test_exponential() -> None:
    for x in (0.0, -1e-9, -0.3, -0.35, -1.0, -17.5, -300.0, -699.9):
        assert bandit.exponential(x) == pytest.approx(math.exp(x), rel=1e-15)
    assert bandit.exponential(-701.0) == 0.0


def test_quick_normal() -> None:
    x = draws(bandit.quick_normal, count=200_000)
    assert stats.kstest(x, "norm").pvalue > SURE
    far = int((np.abs(x) > bandit.TAIL).sum())  # the tail has a way of its own
    assert stats.binomtest(far, len(x), 2 * stats.norm.sf(bandit.TAIL)).pvalue > SURE
    beyond = np.abs(x[np.abs(x) > bandit.TAIL])
    assert stats.kstest(beyond, lambda v: 1 - stats.norm.sf(v) / stats.norm.sf(bandit.TAIL)).pvalue > SURE
    # every layer has the area of all others, so that each is chosen with the same probability
    boxes = bandit.EDGE[1:-1] * np.diff(bandit.HEIGHT)[1:]
    np.testing.assert_allclose(boxes, bandit.AREA, rtol=1e-8)


@pytest.mark.parametrize("shape", [0.07, 0.6, 1.0, 7.5])
def test_gamma_draw(shape: float) -> None:
    assert stats.kstest(draws(bandit.gamma_draw, shape, count=10_000), stats.gamma(shape).cdf).pvalue > SURE


@pytest.mark.parametrize(("mean", "concentration"), [(0.5, 2.0), (0.1, 4.0), (0.93, 30.0)])
def test_beta_draw(mean: float, concentration: float) -> None:
    law = stats.beta(mean * concentration, (1 - mean) * concentration)
    assert stats.kstest(draws(bandit.beta_draw, mean, concentration, count=10_000), law.cdf).pvalue > SURE
    assert draws(bandit.beta_draw, 0.0, concentration, count=1) == 0
    assert draws(bandit.beta_draw, 1.0, concentration, count=1) == 1


def test_beta_rewards_of_the_engine() -> None:
    env = engine(20_000, "bandit-beta", concentration=3.0)
    mean, reward = env.state.mean[:, 2].copy(), pull(env, 2).astype(np.float64)
    inner = (mean > 0.2) & (mean < 0.8)  # beyond, many rewards are 0 or 1 up to float32
    grade = special.betainc(mean * 3, (1 - mean) * 3, reward)[inner]  # uniform if the law is right
    assert stats.kstest(grade, "uniform").pvalue > SURE


def test_gaussian_rewards_and_bounds() -> None:
    env = engine(20_000, "bandit-gaussian", sd=2.0)
    mean = env.state.mean[:, 1].copy()
    assert stats.kstest((pull(env, 1) - mean) / 2, "norm").pvalue > SURE
    high = env.observation_space.high
    assert high[5] == pytest.approx(1 + 2 * 8.3) and np.isfinite(high).all()
    extreme = np.array([[0, 0]], np.uint64)

    def word(rng: Array, i: int) -> np.uint64:
        return np.uint64(2**64 - 1)

    original = bandit.normal.__globals__["bits"]
    try:  # the largest draw that the generator's bits allow
        bandit.normal.__globals__["bits"] = word
        assert 8 < bandit.normal(extreme, 0) < bandit.FARTHEST
    finally:
        bandit.normal.__globals__["bits"] = original


# --- dynamics


def test_drift_stays_uniform() -> None:
    env = engine(20_000, "bandit-drift", drift=0.1)
    before = env.state.mean.copy()
    pull(env, 0)
    moved = (env.state.mean - before)[(before > 0.45) & (before < 0.55)]  # out of reach of the borders, mostly
    assert stats.kstest(moved / 0.1, "norm").pvalue > SURE
    for _ in range(30):
        pull(env, 0)
    assert stats.kstest(env.state.mean[:, 3], "uniform").pvalue > SURE
    assert abs(np.corrcoef(before[:, 0], env.state.mean[:, 0])[0, 1]) < 0.9


def test_switch() -> None:
    env = engine(20_000, "bandit-switch", switch=0.2)
    before = env.state.mean.copy()
    pull(env, 0)
    changed = env.state.mean != before
    assert (changed.all(1) == changed.any(1)).all()
    assert stats.binomtest(int(changed.all(1).sum()), 20_000, 0.2).pvalue > SURE
    env = engine(8, "bandit-switch", switch_every=3)
    history = [env.state.mean.copy()]
    for _ in range(9):
        pull(env, 0)
        history.append(env.state.mean.copy())
    assert [bool((a != b).all()) for a, b in zip(history, history[1:], strict=False)] == [False, False, True] * 3


def test_restless() -> None:
    options = {"rise": 0.2, "fall": 0.3, "low": 0.25, "high": 0.75}
    env = engine(20_000, "bandit-restless", **options)
    before = env.state.mean.copy()
    assert stats.binomtest(int((before == 0.75).sum()), 60_000, 0.4).pvalue > SURE
    reward = pull(env, 1)
    assert stats.binomtest(int(reward[before[:, 1] == 0.75].sum()), int((before[:, 1] == 0.75).sum()), 0.75).pvalue > SURE
    for arm in range(3):  # pulled or not
        good = before[:, arm] == 0.75
        after = env.state.mean[:, arm] == 0.75
        assert stats.binomtest(int(after[good].sum()), int(good.sum()), 0.7).pvalue > SURE
        assert stats.binomtest(int(after[~good].sum()), int((~good).sum()), 0.2).pvalue > SURE


def test_adversary() -> None:
    env = engine(3000, "bandit-adversarial", gap=0.3)
    best = env.state.mean.argmax(1)
    assert stats.chisquare(np.bincount(best, minlength=5)).pvalue > SURE
    phase = [0, 1, 1, 2, 2, 2] + [3] * 5 + [4] * 7  # lengths: 1.6^n rounded up
    for t in range(18):
        high, low = (1.0, 0.7) if phase[t] % 2 == 0 else (0.3, 0.0)
        wanted = np.full((3000, 5), low)
        wanted[np.arange(3000), best] = high
        np.testing.assert_allclose(env.state.mean, wanted)
        close(pull(env, best), high)


def test_sequence_pays_what_is_written() -> None:
    rows = ((0.1, 0.2, 0.9), (1.0, 0.0, 0.5))
    env = engine(50, arms=3, pulls=5, reward="adversarial", sequence=rows)
    shift = env.state.shift.copy()
    assert set(shift.tolist()) == {0, 1, 2}
    for t in range(5):
        np.testing.assert_array_equal(pull(env, 1), np.array(rows, np.float32)[t % 2, (1 + shift) % 3])
    line = env.yardstick()
    assert line is not None
    assert line.optimal[0] == pytest.approx(3 * 0.9 + 2 * 1.0) and line.random[0] == pytest.approx(3 * 0.4 + 2 * 0.5)


# --- contexts and lines


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_context(kind: str, shared: bool) -> None:
    options = {"features": 3, "arms": 4, "weights": "shared" if shared else "disjoint", "sd": 0.0}
    env = engine(2000, "bandit-contextual" + ("-nonlinear" if kind == "nonlinear" else ""), **options)
    last = None
    for _ in range(3):
        x = env.obs[:, 0, 6:].astype(np.float64).reshape(2000, -1, 3)
        assert x.shape[1] == (4 if shared else 1) and (last is None or (x != last).all())
        w = env.state.weights.reshape(2000, -1, 3)
        assert w.shape[1] == (1 if shared else 4)
        np.testing.assert_allclose(np.linalg.norm(x, axis=2), 1, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(w, axis=2), 1, atol=1e-12)
        for part in (x, w):  # in three dimensions every coordinate of a uniform direction is uniform
            assert stats.kstest(part[:, 0, 2], "uniform", (-1, 2)).pvalue > SURE
        score = (w * x).sum(2)
        mean = (1 + score) / 2 if kind == "linear" else score**2
        np.testing.assert_allclose(env.state.mean, mean, atol=1e-6)
        np.testing.assert_allclose(pull(env, 2), mean[:, 2], atol=1e-6)
        last = x.copy()


def test_arms_on_a_line() -> None:
    env = engine(50_000, "bandit-line", arms=6, length_scale=0.3, spread=0.5)
    place = np.arange(6) / 5
    kernel = 0.25 * np.exp(-0.5 * (place[:, None] - place) ** 2 / 0.3**2)
    np.testing.assert_allclose(np.cov(env.state.mean.T), kernel, atol=0.008)
    assert stats.kstest((env.state.mean[:, 5] - 0.5) / 0.5, "norm").pvalue > SURE
    np.testing.assert_allclose(env.state.mean.mean(0), 0.5, atol=0.01)
    clipped = engine(500, "bandit-line", reward="bernoulli", spread=1.0).state.mean
    assert clipped.min() == 0 and clipped.max() == 1
    long = make_world("bandit-line", {"arms": 200, "length_scale": 5.0}).constants().factor  # a singular kernel
    assert np.isfinite(long).all()


def test_fixed_task() -> None:
    a, b, other = (engine(6, "bandit-fixed", seed=s, task_seed=t, pulls=3) for s, t in ((1, 4), (2, 4), (1, 5)))
    assert (a.state.mean == b.state.mean[0]).all() and (a.state.mean != other.state.mean).all()
    task = a.state.mean[0].copy()
    for _ in range(7):
        a.step(np.zeros((6, 1), np.int64))
    assert (a.state.mean == task).all()
    line = a.yardstick()
    assert line is not None and "learnt" in line.meaning
    np.testing.assert_allclose(line.optimal, 3 * task.max())
    np.testing.assert_allclose(line.random, 3 * task.mean())
    context = [engine(3, "bandit-contextual", seed=s, fresh=False).state for s in (1, 2)]
    assert (context[0].weights == context[1].weights[0]).all() and (context[0].context != context[1].context).all()


# --- what is seen


def test_observations() -> None:
    env = engine(2, observation="none")
    assert env.obs.shape == (2, 1, 1) and (env.obs == 1).all()
    pull(env, 0)
    assert (env.obs == 1).all()
    env = engine(2, "bandit-contextual", observation="context")
    assert env.obs.shape == (2, 1, 4)
    np.testing.assert_array_equal(env.obs[:, 0], env.state.context.astype(np.float32))
    env = engine(2, "bandit-contextual", features=2, arms=3, pulls=10)
    reward = pull(env, 2)
    np.testing.assert_allclose(env.obs[:, 0, :5], [[0, 0, 1, r, 0.1] for r in reward], rtol=1e-6)
    env = engine(2, arms=3, pulls=4, observation="means")
    np.testing.assert_array_equal(env.obs[:, 0], env.state.mean.astype(np.float32))


def test_counts_are_sufficient_statistics() -> None:
    env, rng = engine(30, "bandit-gaussian", arms=3, pulls=8, observation="counts"), np.random.default_rng(0)
    count, total = np.zeros((30, 3)), np.zeros((30, 3))
    for t in range(24):
        arm = rng.integers(3, size=30)
        reward = env.step(arm[:, None]).reward[:, 0]
        count[np.arange(30), arm] += 1
        total[np.arange(30), arm] += reward
        if t % 8 == 7:
            count[:], total[:] = 0, 0
        np.testing.assert_array_equal(env.obs[:, 0, :3], count)
        np.testing.assert_allclose(env.obs[:, 0, 3:6], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(env.obs[:, 0, 6], (t + 1) % 8 / 8)


# --- yardsticks

YARDSTICKS: list[tuple[str, dict[str, Any], str]] = [
    ("bandit", {}, "bound"),
    ("bandit", {"arms": 10, "pulls": 10}, "Bayes"),
    ("bandit", {"observation": "means"}, "closed form"),
    ("bandit-gaussian", {"pulls": 50}, "bound"),
    ("bandit-beta", {"pulls": 20}, "bound"),
    ("bandit-adversarial", {"pulls": 60}, "bound"),
    ("bandit-drift", {"pulls": 50, "drift": 0.2}, "bound"),
    ("bandit-switch", {"pulls": 50}, "bound"),
    ("bandit-switch", {"pulls": 50, "fresh": False, "switch": 0.03}, "bound"),
    ("bandit-switch", {"pulls": 50, "fresh": False, "switch_every": 7}, "bound"),
    ("bandit-restless", {}, "dynamic programming"),
    ("bandit-restless", {"low": 0.2, "high": 0.7, "rise": 0.3}, "bound"),
    ("bandit-restless", {"fresh": False, "task_seed": 3, "fall": 0.3}, "bound"),
    ("bandit-contextual", {"pulls": 30}, "bound"),
    ("bandit-contextual", {"pulls": 30, "weights": "shared"}, "bound"),
    ("bandit-contextual-nonlinear", {"pulls": 30, "features": 3}, "bound"),
    ("bandit-contextual-nonlinear", {"pulls": 30, "weights": "shared", "time_limit": 9}, "bound"),
    ("bandit-line", {"pulls": 20}, "bound"),
    ("bandit-fixed", {"pulls": 20}, "closed form"),
    ("bandit-contextual", {"fresh": False}, ""),
    ("bandit-drift", {"fresh": False}, ""),
    ("bandit-line", {"dynamics": "switch"}, ""),
]


@pytest.mark.parametrize(("id", "options", "solver"), YARDSTICKS, ids=[f"{i}-{o}" for i, o, _ in YARDSTICKS])
def test_yardsticks_against_play(id: str, options: dict[str, Any], solver: str) -> None:
    """Score random play, and the play of one who sees the means, by the means: the yardstick's expectations."""
    env, rng = engine(4000, id, seed=9, **options), np.random.default_rng(1)
    line, rows = env.yardstick(), np.arange(4000)
    assert env.world.solver == solver and (line is not None) == bool(solver)
    if line is None:
        return
    assert line.meaning.startswith("bound") == (solver == "bound")
    random, oracle = np.zeros(4000), np.zeros(4000)
    for _ in range(env.world.horizon):
        random += env.state.mean[rows, rng.integers(env.world.config.arms, size=4000)]
        oracle += env.state.mean.max(1)
        pull(env, 0)
    close(random - line.random, 0)
    if solver in ("Bayes", "dynamic programming"):
        assert line.random[0] < line.optimal[0] < oracle.mean()
    else:
        close(oracle - line.optimal, 0)


@pytest.mark.parametrize(("arms", "pulls"), [(5, 10), (10, 10), (5, 100), (10, 500)])
def test_random_and_oracle_rows(arms: int, pulls: int) -> None:
    line = engine(1, arms=arms, pulls=pulls, observation="means").yardstick()
    assert line is not None
    assert line.random[0] == pytest.approx(pulls / 2) and line.optimal[0] == pytest.approx(pulls * arms / (arms + 1))


def test_restless_optimum_is_reached() -> None:
    """Equal arms with rise + fall < 1: pulling the arm with the best belief is optimal (Ahmad et al. 2009)."""
    env = engine(20_000, "bandit-restless", rise=0.1, fall=0.2)
    line = env.yardstick()
    assert line is not None and "infers" in line.meaning
    belief, got, rows = np.full((20_000, 3), 1 / 3), np.zeros(20_000), np.arange(20_000)
    for _ in range(40):
        arm = belief.argmax(1)
        reward = pull(env, arm)
        got += reward
        belief[rows, arm] = reward
        belief = 0.1 + belief * 0.7
    close(got, float(line.optimal[0]))


# --- the process of the counts


def test_model_of_counts_is_the_bayes_bandit() -> None:
    for arms, pulls in ((2, 6), (3, 4)):
        env = engine(1, arms=arms, pulls=pulls, observation="counts")
        model = env.world.model(env.state, 0)
        assert model is not None and len(model.next_state) == bayes.count_states(arms, pulls)
        solve.check_model(model)
        value = solve.finite_horizon(model, pulls).value[0][model.start]
        assert value == pytest.approx(bayes.bayes_bandit(arms, pulls).value, abs=1e-12)
        assert solve.evaluate_policy(model, None, pulls)[model.start] == pytest.approx(pulls / 2)
    assert engine(1, observation="counts").world.model(env.state, 0) is None


def test_counts_move_as_the_model_says() -> None:
    """Fresh episodes with random pulls: how often each success follows each state, in one chi-square."""
    env, rng = engine(60_000, arms=2, pulls=5, observation="counts"), np.random.default_rng(2)
    model = env.world.model(env.state, 0)
    assert model is not None
    lookup, seen = solve.StateIndex(model), np.zeros((len(model.next_state), 2, 2))
    for t in range(5):
        state, arm = lookup(env.state._asdict()), rng.integers(2, size=60_000)
        assert (state >= 0).all()
        lost = 1 - pull(env, arm).astype(np.int64)
        np.add.at(seen, (state, arm, lost), 1)
        if t < 4:
            np.testing.assert_array_equal(lookup(env.state._asdict()), model.next_state[state, arm, lost])
        assert (model.terminated[state, arm, lost] == (t == 4)).all()
        assert (model.reward[state, arm, lost] == 1 - lost).all()
    wanted = seen.sum(2, keepdims=True) * model.probability
    enough = (wanted >= 5).all(2)
    assert enough.sum() > 120
    chi = ((seen - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum(2)[enough]
    assert stats.chi2.sf(chi.sum(), len(chi)) > SURE
    assert stats.chi2.sf(chi.max(), 1) > SURE / len(chi)


# --- regret rows


def thompson(count: Array, total: Array, t: int, rng: np.random.Generator) -> Array:
    """Posterior sampling with the noise known and the prior N(1/2, 1/12), which has U[0, 1]'s mean and variance."""
    precision = 12 + count / 0.09
    return (6 + total / 0.09) / precision + rng.standard_normal(count.shape) / np.sqrt(precision)


def ucb(count: Array, total: Array, t: int, rng: np.random.Generator) -> Array:
    """Each arm once, then the largest mean + 1 / sqrt(count)."""
    return np.where(count == 0, np.inf, total / np.maximum(count, 1) + 1 / np.sqrt(np.maximum(count, 1)))


def greedy(count: Array, total: Array, t: int, rng: np.random.Generator) -> Array:
    """Each arm once, then the largest mean."""
    return np.where(count == 0, np.inf, total / np.maximum(count, 1))


@pytest.mark.parametrize(
    ("policy", "wanted", "error"),
    [(thompson, 9.36, 0.12), (ucb, 10.58, 0.09), (greedy, 17.1, 0.0)],
    ids=["thompson", "ucb", "greedy"],
)
def test_gaussian_regret_rows(policy: Any, wanted: float, error: float) -> None:
    """Five Gaussian arms, means U[0, 1], sd 0.3, 500 pulls; errors are two standard errors, as the literature's are."""
    tasks, rng = 10_000, np.random.default_rng(4)
    env = engine(tasks, "bandit-gaussian", observation="counts", seed=6)
    mean, rows, regret = env.state.mean.copy(), np.arange(tasks), np.zeros(tasks)
    for t in range(500):
        arm = policy(env.state.counts, env.state.total, t, rng).argmax(1)
        regret += mean.max(1) - mean[rows, arm]
        pull(env, arm)
    mine = float(regret.std()) / math.sqrt(tasks)
    assert abs(float(regret.mean()) - wanted) < 3 * math.hypot(error / 2, mine), f"{regret.mean():.2f} +- {mine:.2f}"


# --- faults


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sequence": ((1, 0),), "arms": 2}, "add reward=adversarial"),
        ({"sequence": ((1, 0, 0),), "arms": 2, "reward": "adversarial"}, r"lengths \[3\]: give a reward for each of 2"),
        ({"sequence": ((1, 2),), "arms": 2, "reward": "adversarial"}, "in 0..1: rescale"),
        ({"reward": "adversarial", "context": "linear"}, "choose one of"),
        ({"reward": "adversarial", "dynamics": "drift"}, "use dynamics=stationary"),
        ({"context": "linear", "dynamics": "restless"}, "a context cannot go with dynamics=restless"),
        ({"length_scale": 0.1, "dynamics": "drift"}, "arms on a line cannot go"),
        ({"dynamics": "switch", "switch": 0}, "never switches"),
        ({"dynamics": "restless", "low": 0.5, "high": 0.5}, "the good state must pay more"),
        ({"observation": "context"}, "needs a context"),
        ({"observe": "last"}, "did you mean observation"),
    ],
)
def test_faults_cost_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        make_world("bandit", options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("shift", 5), ("counts", -1), ("weights", np.nan), ("context", 2), ("pulls", 101)])
def test_a_state_out_of_bounds_is_refused(name: str, value: float) -> None:
    env = make("bandit", num_envs=2)
    state = env.get_state()
    state[f"state.{name}"][1] = value
    with pytest.raises(ValueError, match="out of bounds"):
        env.set_state(state)


def test_options_travel_as_json() -> None:
    options = {"reward": "adversarial", "arms": 2, "sequence": [[0, 1], [1, 0]]}
    assert make_world("bandit", json.loads(json.dumps(options))).config.sequence == ((0, 1), (1, 0))
