"""CMA-ES against a slow implementation and against the package cma; a controller of dreams against a known best policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gumdrop.core_ml.beliefs.protocol import State
from gumdrop.core_ml.maths.cma_es import CMAES
from gumdrop.core_ml.models.protocol import ImaginedTrajectory, Outcome, imagine
from gumdrop.core_ml.planners.cma_controller import CmaController
from gumdrop.store.arrays import Array


def sphere(x: Array) -> Array:
    return (x**2).sum(-1)


def rosenbrock(x: Array) -> Array:
    return (100 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1 - x[..., :-1]) ** 2).sum(-1)


def ellipsoid(x: Array) -> Array:
    """A long valley along a direction that is no axis."""
    n = x.shape[-1]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    return ((x @ turn) ** 2 * 10.0 ** (4 * np.arange(n) / (n - 1))).sum(-1)


def search(f: Callable[[Array], Array], n: int, seed: int, goal: float = 1e-9, most: int = 40_000) -> int:
    """Evaluations until a value is below `goal`."""
    es, generator, count = CMAES(np.full(n, 3.0), 1.0), torch.Generator().manual_seed(seed), 0
    while count < most:
        x = es.ask(generator)
        value = f(x)
        es.tell(x, value)
        count += len(x)
        if value.min() < goal:
            return count
    return most


@pytest.mark.parametrize("f,n,most", [(sphere, 8, 3000), (ellipsoid, 6, 6000), (rosenbrock, 5, 8000)])
def test_it_minimises(f: Callable[[Array], Array], n: int, most: int) -> None:
    assert all(search(f, n, seed) < most for seed in range(3))


@pytest.mark.parametrize("f,n", [(sphere, 5), (rosenbrock, 4)])
def test_it_is_as_good_as_the_package_cma(f: Callable[[Array], Array], n: int) -> None:
    """Median evaluations of 7 searches each, within a third."""
    cma: Any = pytest.importorskip("cma")
    theirs = []
    for seed in range(1, 8):
        es = cma.CMAEvolutionStrategy(np.full(n, 3.0), 1.0, {"seed": seed, "verbose": -9, "ftarget": 1e-7})
        es.optimize(lambda x: float(f(np.asarray(x))))
        theirs.append(es.result.evaluations)
    ours = [search(f, n, seed, 1e-7) for seed in range(7)]
    assert np.median(ours) < 4 / 3 * np.median(theirs)


def slow_update(es: CMAES, x: Array, value: Array) -> dict[str, Any]:
    """The tutorial's figure 6, number by number, with C^{-1/2} from scratch."""
    n, size = es.n, len(x)
    mu = size // 2
    w_ = [math.log((size + 1) / 2) - math.log(i) for i in range(1, size + 1)]
    mu_eff = sum(w_[:mu]) ** 2 / sum(w**2 for w in w_[:mu])
    mu_bad = sum(w_[mu:]) ** 2 / sum(w**2 for w in w_[mu:])
    c_s = (mu_eff + 2) / (n + mu_eff + 5)
    d_s = 1 + 2 * max(0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_s
    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)
    c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)
    c_mu = min(1 - c_1, 2 * (1 / 4 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + 2 * mu_eff / 2))
    alpha = min(1 + c_1 / c_mu, 1 + 2 * mu_bad / (mu_eff + 2), (1 - c_1 - c_mu) / (n * c_mu))
    up, down = sum(w for w in w_ if w > 0), -sum(w for w in w_ if w < 0)
    w = [v / up if v >= 0 else alpha * v / down for v in w_]
    order = sorted(range(size), key=lambda i: value[i])
    y = [(x[i] - es.mean) / es.sigma for i in order]
    square, vectors = np.linalg.eigh(es.C)
    root = vectors @ np.diag(square**-0.5) @ vectors.T
    best = sum(w[i] * y[i] for i in range(mu))
    expected = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
    p_s = (1 - c_s) * es.p_s + math.sqrt(c_s * (2 - c_s) * mu_eff) * root @ best
    length, g = np.linalg.norm(p_s), int(es.updates)
    h = 1 if length / math.sqrt(1 - (1 - c_s) ** (2 * (g + 1))) < (1.4 + 2 / (n + 1)) * expected else 0
    p_c = (1 - c_c) * es.p_c + h * math.sqrt(c_c * (2 - c_c) * mu_eff) * best
    c = (1 + c_1 * (1 - h) * c_c * (2 - c_c) - c_1 - c_mu * sum(w)) * es.C + c_1 * np.outer(p_c, p_c)
    for weight, one in zip(w, y, strict=True):
        c = c + c_mu * (weight if weight >= 0 else weight * n / ((root @ one) @ (root @ one))) * np.outer(one, one)
    sigma = es.sigma * math.exp(c_s / d_s * (length / expected - 1))
    return {"mean": es.mean + es.sigma * best, "sigma": sigma, "C": c, "p_s": p_s, "p_c": p_c, "h": h}


@pytest.mark.parametrize("size", [0, 9, 40])
def test_an_update_is_the_tutorials(size: int) -> None:
    es, generator, seen = CMAES(np.array([1.0, -2.0, 0.5]), 0.7, size), torch.Generator().manual_seed(0), set()
    for _ in range(12):
        x = es.ask(generator)
        want = slow_update(es, x, sphere(x))
        es.tell(x, sphere(x))
        for name in ("mean", "sigma", "C", "p_s", "p_c"):
            np.testing.assert_allclose(getattr(es, name), want[name], rtol=1e-8, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(es.B @ np.diag(es.D**2) @ es.B.T, es.C, atol=1e-12)
        seen.add(want["h"])
    assert es.period == 1 and 1 in seen
    assert es.population == (size or 7)


def test_samples_have_the_distributions_mean_and_covariance() -> None:
    es = CMAES(np.array([1.0, -1.0]), 0.5, 20_000)
    c = np.array([[2.0, 0.8], [0.8, 1.0]])
    square, vectors = np.linalg.eigh(c)
    es.C[...], es.B[...], es.D[...] = c, vectors, np.sqrt(square)
    x = es.ask(torch.Generator().manual_seed(0))
    np.testing.assert_allclose(x.mean(0), [1.0, -1.0], atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), 0.25 * c, atol=0.02)


def test_a_search_goes_on_from_its_arrays_to_the_bit() -> None:
    one, two = CMAES(np.full(12, 1.0), 0.3), CMAES(np.zeros(12), 1.0)
    one.period = two.period = 3  # as with hundreds of numbers
    generator = torch.Generator().manual_seed(0)
    for k in range(11):
        if k == 5:  # between two decompositions
            two.load_state_dict(one.state_dict())
            after = generator.get_state()
        x = one.ask(generator)
        one.tell(x, sphere(x))
    generator.set_state(after)
    for _ in range(6):
        x = two.ask(generator)
        two.tell(x, sphere(x))
    assert all(np.array_equal(a, two.state_dict()[name]) for name, a in one.state_dict().items())
    with pytest.raises(ValueError, match="configuration"):
        two.load_state_dict(CMAES(np.zeros(11), 1.0).state_dict())
    with pytest.raises(ValueError, match="at least 2"):
        CMAES(np.zeros(3), 0.0)


class Line:
    """A point at x in a world of dreams: actions move it by -1, 0 and 1 tenths with some noise, and to be there costs
    |x - goal|. Features are x - goal and noise that means nothing."""

    size, actions = 3, 3

    def features(self, state: State) -> Tensor:
        return torch.cat([(state["x"] - state["goal"]).unsqueeze(1), state["noise"]], 1)

    def step(self, state: State, action: Tensor, generator: torch.Generator | None = None) -> tuple[State, Outcome]:
        noise = torch.randn(len(action), 3, generator=generator)
        x = state["x"] + 0.1 * (action[:, 2] - action[:, 0]) + 0.01 * noise[:, 0]
        reward = -(x - state["goal"]).abs()
        return {"x": x, "goal": state["goal"], "noise": noise[:, 1:]}, Outcome(reward, reward, torch.ones(len(action)))

    def imagine(self, state: State, policy: Any, steps: int, generator: torch.Generator) -> ImaginedTrajectory:
        return imagine(self, state, policy, steps, generator)  # type: ignore[arg-type]


def starts(count: int = 64) -> State:
    generator = torch.Generator().manual_seed(5)
    x, goal = torch.rand(2, count, generator=generator)
    return {"x": x, "goal": goal, "noise": torch.zeros(count, 2)}


def earned(controller: CmaController, model: Any, steps: int = 15) -> float:
    policy = lambda f: torch.eye(3)[controller.act(f)]  # noqa: E731
    return float(model.imagine(starts(), policy, steps, torch.Generator().manual_seed(9)).reward.sum(0).mean())


@pytest.mark.parametrize("hidden", [0, 4])
def test_a_controller_learns_in_dreams_alone(hidden: int) -> None:
    model: Any = Line()
    controller = CmaController(CmaController.Config(hidden=hidden, horizon=15, episodes=16), 3, 3)
    best = -sum(  # the distance, less a tenth a step while there is any
        (starts()["x"] - starts()["goal"]).abs().sub(0.1 * t).clamp_min(0.0).mean().item() for t in range(1, 16)
    )
    before, generator = earned(controller, model), torch.Generator().manual_seed(0)
    found = [controller.update(model, starts(), generator) for _ in range(40)]
    after = earned(controller, model)
    assert found[-1]["imagined_return"] > found[0]["imagined_return"]
    assert after > best - 1.0 and after > before + 2.0 if hidden == 0 else after > before + 2.0


def test_every_candidate_acts_with_its_own_parameters_from_the_same_states() -> None:
    """A dream of all candidates at once is the dreams of each: checked by a world that remembers who did what."""
    controller = CmaController(CmaController.Config(hidden=2, population=5, episodes=3, horizon=2), 3, 3)
    parameters = torch.randn(5, controller.es.n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(1))
    scores = controller.scores(features, parameters)
    for k in range(5):
        v, w = parameters[k].float().split([8, 9])
        v, w = v.view(4, 2), w.view(3, 3)
        want = torch.tanh(features[k] @ v[:3] + v[3]) @ w[:2] + w[2]
        torch.testing.assert_close(scores[k], want, rtol=0, atol=1e-5)

    class Watched(Line):
        seen: list[Tensor] = []

        def step(self, state: State, action: Tensor, generator: torch.Generator | None = None) -> tuple[State, Outcome]:
            self.seen.append(state["x"])
            return super().step(state, action, generator)

    controller.update(Watched(), starts(), torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    first = Watched.seen[0].view(5, 3)
    assert torch.equal(first, first[:1].expand(5, 3)) and len(first[0].unique()) == 3


def test_a_controller_goes_on_exactly() -> None:
    model: Any = Line()
    one, two = (CmaController(CmaController.Config(horizon=4), 3, 3) for _ in range(2))
    for k in range(3):
        one.update(model, starts(), torch.Generator().manual_seed(k))
    two.load_state_dict(one.state_dict())
    results = [c.update(model, starts(), torch.Generator().manual_seed(7)) for c in (one, two)]
    assert results[0] == results[1]
    assert torch.equal(one.act(torch.randn(9, 3, generator=torch.Generator().manual_seed(1))),
                       two.act(torch.randn(9, 3, generator=torch.Generator().manual_seed(1))))  # fmt: skip
