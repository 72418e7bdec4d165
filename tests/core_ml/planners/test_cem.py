"""Planning: a lock with one combination, small exact worlds behind the interface of a world model, ends, last values."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gumdrop.core_ml.beliefs.protocol import State
from gumdrop.core_ml.models.protocol import ImaginedTrajectory, Outcome, imagine
from gumdrop.core_ml.planners.cem import CEMPlanner, returns


class Table:
    """A finite world as a world model: probability and reward (S, A, S), ends (S, A); features are one-hot states."""

    def __init__(self, p: Tensor, reward: Tensor, continue_: Tensor) -> None:
        self.p, self.reward, self.continue_ = p, reward, continue_
        self.size, self.actions = p.shape[0], p.shape[1]

    def features(self, state: State) -> Tensor:
        return torch.eye(self.size)[state["s"]]

    def step(self, state: State, action: Tensor, generator: torch.Generator | None = None) -> tuple[State, Outcome]:
        s, a = state["s"], action.argmax(-1)
        after = torch.multinomial(self.p[s, a], 1, generator=generator)[:, 0]
        reward = (self.p[s, a] * self.reward[s, a]).sum(-1)
        return {"s": after}, Outcome(reward, reward, self.continue_[s, a])

    def imagine(self, state: State, policy: Any, steps: int, generator: torch.Generator) -> ImaginedTrajectory:
        return imagine(self, state, policy, steps, generator)  # type: ignore[arg-type]

    def worth(self, start: int, plan: tuple[int, ...], gamma: float, value: Tensor | None = None) -> float:
        """The exact expected return of a sequence of actions."""
        now, total = torch.eye(self.size, dtype=torch.float64)[start], 0.0
        for t, a in enumerate(plan):
            step = self.p[:, a].double()
            total += gamma**t * float(now @ (step * self.reward[:, a].double()).sum(1))
            now = (now * self.continue_[:, a].double()) @ step
        return total + (0.0 if value is None else gamma ** len(plan) * float(now @ value.double()))


def table(seed: int, states: int = 6, actions: int = 3, sharp: bool = False) -> Table:
    rng = torch.Generator().manual_seed(seed)
    p = (torch.randn(states, actions, states, generator=rng) * 2).softmax(-1)
    if sharp:
        p = torch.eye(states)[p.argmax(-1)]
    reward = torch.randn(states, actions, states, generator=rng)
    return Table(p, reward, torch.rand(states, actions, generator=rng) * 0.5 + 0.5)


def lock(combination: list[int], actions: int) -> Table:
    """State k: the first k digits were right; the last pays 1; a wrong digit leads to a state that nothing leads out of."""
    n = len(combination)
    p, reward = torch.zeros(n + 2, actions, n + 2), torch.zeros(n + 2, actions, n + 2)
    p[:, :, n + 1] = 1.0
    for k, digit in enumerate(combination):
        p[k, digit, n + 1], p[k, digit, k + 1] = 0.0, 1.0
        reward[k, digit, k + 1] = 0.1 if k < n - 1 else 1.0
    return Table(p, reward, torch.ones(n + 2, actions))


def test_the_combination_of_a_lock_is_found() -> None:
    combination = [2, 0, 1, 1, 2]
    planner = CEMPlanner(CEMPlanner.Config(horizon=5, population=200, elites=10, iterations=6, gamma=1.0), 3)
    model = lock(combination, 3)
    found = planner.plan(model, {"s": torch.zeros(4, dtype=torch.int64)}, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert found.action.tolist() == [2] * 4 and found.p.shape == (4, 5, 3)
    assert found.p.argmax(-1).tolist() == [combination] * 4
    torch.testing.assert_close(found.p.sum(-1), torch.ones(4, 5))
    torch.testing.assert_close(found.value, torch.full((4,), 1.4), rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_in_certain_worlds_the_plan_is_the_optimum(seed: int) -> None:
    """Every row its own state; optimum by trying all plans. Where nothing is left to chance, an open loop loses nothing."""
    model, h, gamma = table(seed, sharp=True), 4, 0.9
    planner = CEMPlanner(CEMPlanner.Config(horizon=h, population=160, elites=12, iterations=5, gamma=gamma), 3)
    plan = planner.plan(model, {"s": torch.arange(6)}, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    for start in range(6):
        worth = {way: model.worth(start, way, gamma) for way in itertools.product(range(3), repeat=h)}
        mine = worth[tuple(plan.p[start].argmax(-1).tolist())]
        assert mine >= max(worth.values()) - 1e-9
        assert int(plan.action[start]) == max(worth, key=worth.__getitem__)[0]


@pytest.mark.parametrize("seed", range(3))
def test_where_chance_decides_plans_are_good_on_average(seed: int) -> None:
    model, h, gamma = table(seed), 3, 0.9
    value = torch.randn(6, generator=torch.Generator().manual_seed(seed + 10))
    config = CEMPlanner.Config(horizon=h, population=100, elites=10, iterations=6, gamma=gamma, samples=40)
    plan = CEMPlanner(config, 3).plan(
        model, {"s": torch.arange(6)}, torch.Generator().manual_seed(seed), value=lambda f: f @ value  # type: ignore[arg-type]
    )  # fmt: skip
    for start in range(6):
        worth = sorted(model.worth(start, way, gamma, value) for way in itertools.product(range(3), repeat=h))
        mine = model.worth(start, tuple(plan.p[start].argmax(-1).tolist()), gamma, value)
        assert mine >= worth[-1] - 0.15 * (worth[-1] - worth[0])


def test_the_value_of_the_end_decides_where_rewards_do_not() -> None:
    """Two places, action a leads to place a, nothing pays; the value of the last features is all there is."""
    p = torch.eye(2).expand(2, 2, 2).clone()
    model = Table(p, torch.zeros(2, 2, 2), torch.ones(2, 2))
    planner = CEMPlanner(CEMPlanner.Config(horizon=1, population=32, elites=4), 2)
    for best in (0, 1):
        plan = planner.plan(
            model, {"s": torch.zeros(2, dtype=torch.int64)}, torch.Generator().manual_seed(0),  # type: ignore[arg-type]
            value=lambda f, best=best: f[:, best],  # type: ignore[misc]
        )  # fmt: skip
        assert plan.action.tolist() == [best] * 2
        torch.testing.assert_close(plan.value, torch.full((2,), 0.99))


def test_what_comes_after_an_end_does_not_count() -> None:
    dream = ImaginedTrajectory(
        torch.tensor([[[0.0]], [[0.0]], [[3.0]]]),
        torch.zeros(2, 1, 1),
        torch.tensor([[1.0], [10.0]]),
        torch.tensor([[0.5], [0.2]]),
    )
    assert returns(dream, 0.9).item() == pytest.approx(1 + 0.9 * 0.5 * 10)
    assert returns(dream, 0.9, lambda f: f[:, 0]).item() == pytest.approx(1 + 0.9 * 0.5 * 10 + 0.9**2 * 0.1 * 3)


def test_same_generator_same_plan_and_a_plan_goes_on() -> None:
    model, state = table(0), {"s": torch.arange(6)}
    planner = CEMPlanner(CEMPlanner.Config(horizon=4, population=20, elites=4, iterations=2), 3)
    before = torch.random.get_rng_state()
    one, two = (planner.plan(model, state, torch.Generator().manual_seed(1)) for _ in range(2))  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert torch.equal(before, torch.random.get_rng_state())
    # A sharp plan of before, shifted by a step, is where the next one begins: with nothing of the new, p stays like it.
    sharp = one._replace(p=torch.eye(3)[torch.tensor([0, 1, 2, 0])].expand(6, 4, 3))
    lazy = CEMPlanner(CEMPlanner.Config(horizon=4, population=20, elites=20, iterations=1, smoothing=0.0, keep=1.0), 3)
    again = lazy.plan(model, state, torch.Generator().manual_seed(1), before=sharp)  # type: ignore[arg-type]
    assert again.p[:, :3].argmax(-1).tolist() == [[1, 2, 0]] * 6
    assert np.allclose(again.p[:, :3].amax(-1).numpy(), 1.0)
    with pytest.raises(ValueError, match="elites"):
        CEMPlanner.Config(population=4, elites=5)
