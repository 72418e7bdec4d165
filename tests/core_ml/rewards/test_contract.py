"""Parts of a reward: shaping by hand and on an exact model, RND and ICM against slow versions, states, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.core_ml.component import components
from gumdrop.core_ml.observations import BonusInputs, Observation
from gumdrop.core_ml.rewards.icm import ICM
from gumdrop.core_ml.rewards.rnd import RND
from gumdrop.core_ml.rewards.shaping import Shaping
from gumdrop.envs.solvers.mdp import value_iteration
from gumdrop.envs.world import Model

GRID = Observation.of((2,), np.uint8, 5)  # row and column
VECTOR = Observation.of((3,), np.float32)
NEVER = np.zeros(64, np.bool_)


def steps(seed: int, n: int = 64, observation: Observation = VECTOR, ends: float = 0.0) -> tuple[Any, ...]:
    """obs, action, next_obs, terminated of n steps; where terminated, the next observation is nonsense."""
    rng = np.random.default_rng(seed)
    if observation.kind == "grid":
        obs, next_obs = rng.integers(0, 6, (2, n, 2), dtype=np.uint8)
    else:
        obs, next_obs = rng.normal(size=(2, n, 3)).astype(np.float32)
    return obs, rng.integers(0, 4, n), next_obs, rng.random(n) < ends


PARTS: dict[str, Any] = {
    "rnd": lambda o, seed: RND(RND.Config(hidden=(16,), size=8, batch=32, update_epochs=2), BonusInputs(o), seed),
    "icm": lambda o, seed: ICM(ICM.Config(hidden=(16,), size=8, batch=32), BonusInputs(o, 4), seed),
    "icm count": lambda o, seed: ICM(
        ICM.Config(hidden=(16,), size=8, batch=32, novelty="count", bits=8), BonusInputs(o, 4), seed
    ),
}
for _name, _entry in components("bonus").items():  # a new one is tested the moment that its file exists
    if _entry.cls not in (RND, ICM, Shaping):
        PARTS[_name] = lambda o, seed, e=_entry: e.cls(e.cls.Config(**e.fixed), BonusInputs(o, 4), seed)


def numbers(n: int) -> BonusInputs:
    return BonusInputs(Observation.of((n,), np.float32))


# --- shaping


def test_shaping_by_hand() -> None:
    """gamma 1/2, Phi = table: 4 -> 8; 8 -> terminated, whatever stands there; 8 -> truncated at 2, which keeps its worth."""
    part = Shaping(Shaping.Config(gamma=0.5, table=((0, 4), (8, 2))), numbers(2))
    obs = np.array([[0, 1], [1, 0], [1, 0]], np.uint8)
    next_obs = np.array([[1, 0], [99, 99], [1, 1]], np.uint8)
    paid = part.bonus(obs, np.zeros(3), next_obs, np.array([False, True, False]))
    np.testing.assert_array_equal(paid, [0.5 * 8 - 4, -8, 0.5 * 2 - 8])
    assert paid.dtype == np.float32


def test_linear_and_function_potentials_by_hand() -> None:
    obs = np.array([[1.0, 2.0, 3.0]], np.float32)
    next_obs = np.array([[2.0, 0.0, 1.0]], np.float32)
    linear = Shaping(Shaping.Config(gamma=0.9, weights=(1, 10, 100)), numbers(3))
    np.testing.assert_allclose(linear.bonus(obs, np.zeros(1), next_obs, np.array([False])), [0.9 * 102 - 321])
    net = torch.nn.Linear(3, 1)
    part = Shaping(Shaping.Config(gamma=0.9), numbers(3), potential=lambda rows: net(torch.from_numpy(rows)).detach().numpy())
    want = 0.9 * net(torch.from_numpy(next_obs)) - net(torch.from_numpy(obs))
    np.testing.assert_allclose(part.bonus(obs, np.zeros(1), next_obs, np.array([False])), want.detach().numpy()[0], rtol=1e-5)


def test_shaping_keeps_the_optimal_policy_and_moves_values_by_the_potential() -> None:
    """Theorem 1 on random MDPs, solved exactly: V' = V - Phi, Q' = Q - Phi, the same best actions; a bonus that pays for
    states without taking back does change them."""
    rng = np.random.default_rng(0)
    states, gamma, changed = 12, 0.9, 0
    for _ in range(5):
        shape = states, 3, 2
        p = rng.dirichlet([1, 1], (states, 3))
        ends = rng.random(shape) < 0.2
        model = Model(rng.integers(0, states, shape), p, rng.normal(size=shape), ends, 0, {})
        phi = rng.normal(size=states) * 5
        part = Shaping(Shaping.Config(gamma=gamma, table=tuple(phi)), numbers(1))
        here = np.broadcast_to(np.arange(states)[:, None, None], shape)
        paid = part.bonus(here[..., None], here, model.next_state[..., None], ends)
        shaped = model._replace(reward=model.reward + paid)
        plain, other = value_iteration(model, gamma, 1e-9), value_iteration(shaped, gamma, 1e-9)
        np.testing.assert_array_equal(plain.policy, other.policy)
        np.testing.assert_allclose(other.value, plain.value - phi, atol=1e-4)
        naive = model._replace(reward=model.reward + phi[model.next_state])
        changed += (value_iteration(naive, gamma, 1e-9).policy != plain.policy).any()
    assert changed == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "one potential"),
        ({"table": (1.0,), "weights": (1.0, 1.0)}, "one potential"),
        ({"table": (1.0, 2.0)}, "2 numbers, table has 1"),
        ({"table": ((1.0, 2.0), (1.0,))}, "different lengths"),
        ({"weights": (1.0,)}, "weights are 1"),
    ],
)
def test_a_bad_potential_is_told_in_a_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        Shaping(Shaping.Config(**options), numbers(2))
    assert "\n" not in str(error.value)


def test_a_table_refuses_what_is_not_in_it() -> None:
    part = Shaping(Shaping.Config(table=((0, 4), (8, 2))), numbers(2))
    here = np.array([[0, 2]], np.uint8)
    with pytest.raises(ValueError, match="table is"):
        part.bonus(here, here, here, np.array([False]))
    with pytest.raises(ValueError, match="whole numbers"):
        part.bonus(here.astype(np.float32), here, here, np.array([False]))


# --- random network distillation


def slow_net(weights: dict[str, Any], x: Any) -> Any:
    """Full layers with relu between, float64."""
    names = [name for name in weights if name.endswith("weight")]
    for k, name in enumerate(names):
        x = x @ weights[name].astype(np.float64).T + weights[name.replace("weight", "bias")]
        x = np.maximum(x, 0) if k < len(names) - 1 else x
    return x


def test_rnd_bonus_equals_a_slow_reference() -> None:
    part = PARTS["rnd"](VECTOR, 3)
    errors, seen = [], []

    def slow(next_obs: Any) -> Any:
        x = next_obs.astype(np.float64)
        if seen:
            rows = np.concatenate(seen).astype(np.float64)
            x = (x - rows.mean(0)) / rows.std(0)
        x = np.clip(x, -5, 5)
        difference = slow_net(part.parameters.views(part.parameters.flat), x) - slow_net(
            part.target_parameters.views(part.target_parameters.flat), x
        )
        return np.square(difference).mean(1)

    for seed in range(3):
        batch = steps(seed, ends=0.3)
        on = ~batch[3]
        want = np.where(on, slow(batch[2]), 0.0)
        rms = np.sqrt(np.mean(np.square(np.concatenate(errors)))) if errors else 1.0
        np.testing.assert_allclose(part.bonus(*batch), want / rms, rtol=2e-4, atol=1e-6)
        errors.append(want[on])
        part.update(*batch)
        seen.append(batch[2][on])


def test_rnd_bonus_falls_with_visits_and_the_target_stays() -> None:
    config = RND.Config(hidden=(64,), size=16, batch=8, normalise=False, update_epochs=10)
    part = RND(config, BonusInputs(GRID), 0)
    often, seldom, never = (np.tile(np.array([cell], np.uint8), (8, 1)) for cell in ([0, 1], [3, 2], [5, 5]))
    target, no = part.target_parameters.flat.copy(), np.zeros(8, np.bool_)
    for update in range(60):
        next_obs = often.copy()
        if update % 6 == 0:
            next_obs[0] = seldom[0]
        part.update(next_obs, no, next_obs, no)
    found = [float(part.bonus(cell, no, cell, no)[0]) for cell in (often, seldom, never)]
    assert 10 * found[0] < found[1] and 3 * found[1] < found[2], found
    np.testing.assert_array_equal(part.target_parameters.flat, target)


# --- inverse dynamics


def test_the_forward_loss_does_not_reach_the_features_nor_the_inverse_model_the_forward_one() -> None:
    part = PARTS["icm"](VECTOR, 0)
    obs, action, next_obs, _ = steps(0)
    inverse, forward, _ = part.losses(*(torch.from_numpy(x) for x in (obs, action, next_obs)))

    def touched(loss: Any) -> set[str]:
        part.optimiser.zero_grad()
        loss.backward(retain_graph=True)
        return {name.partition(".")[0] for name, p in part.model.named_parameters() if p.grad.abs().sum() > 0}

    assert touched(forward) == {"forward_model"}
    assert touched(inverse) == {"features", "inverse_model"}


@pytest.mark.parametrize("discrete", [True, False])
def test_features_tell_actions_and_the_forward_model_foresees(discrete: bool) -> None:
    """A point that an action moves, beside two numbers of noise: the inverse model finds the action out, the forward model's
    error falls far below its first, and a step that goes elsewhere than actions lead is a surprise."""
    rng = np.random.default_rng(0)
    moves = np.array([-0.5, 0.5])

    def walk(n: int = 256) -> tuple[Any, ...]:
        obs, next_obs = rng.normal(size=(2, n, 3)).astype(np.float32)
        action = rng.integers(0, 2, n)
        next_obs[:, 0] = obs[:, 0] + moves[action]
        given = action if discrete else moves[action][:, None].astype(np.float32)
        return obs, given, next_obs, np.zeros(n, np.bool_)

    part = ICM(
        ICM.Config(hidden=(32,), size=8, learning_rate=5e-3, normalise=False),
        BonusInputs(VECTOR, 2 if discrete else 1, discrete),
        0,
    )
    first = part.update(*walk())
    for _ in range(150):
        last = part.update(*walk())
    if discrete:
        assert first["accuracy"] < 0.7 and last["accuracy"] > 0.95
    assert last["inverse_loss"] < 0.2 * first["inverse_loss"]
    obs, action, next_obs, ends = walk()
    jump = next_obs.copy()
    jump[:, 0] += 4
    assert part.bonus(obs, action, jump, ends).mean() > 2 * part.bonus(obs, action, next_obs, ends).mean()


def test_counts_fall_like_one_over_the_root() -> None:
    part = PARTS["icm count"](VECTOR, 0)
    obs, action, _, _ = steps(0)
    here = np.tile(np.float32([1, 2, 3]), (64, 1))
    assert (part.bonus(obs, action, here, NEVER) == 1).all()
    part.visits[part._codes(part._rows(here[:1]))] = 16
    np.testing.assert_allclose(part.bonus(obs, action, here, NEVER), 0.25)
    before = part.visits.sum()
    part.update(obs, action, here, NEVER)
    assert part.visits.sum() == before + 64


# --- all


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("observation", [GRID, VECTOR], ids=["grid", "vector"])
def test_resume_is_exact_and_seeds_matter(name: str, observation: Observation) -> None:
    whole, cut, other = PARTS[name](observation, 1), PARTS[name](observation, 1), PARTS[name](observation, 2)
    for seed in range(3):
        whole.update(*steps(seed, observation=observation, ends=0.2))
        cut.update(*steps(seed, observation=observation, ends=0.2))
    again = PARTS[name](observation, 7)
    again.load_state_dict(cut.state_dict())
    for seed in range(3, 6):
        batch = steps(seed, observation=observation, ends=0.2)
        np.testing.assert_array_equal(whole.bonus(*batch), again.bonus(*batch))
        assert whole.update(*batch) == again.update(*batch)
    for key, array in whole.state_dict().items():
        np.testing.assert_array_equal(array, again.state_dict()[key])
    assert any((array != whole.state_dict()[key]).any() for key, array in other.state_dict().items())
    with pytest.raises(ValueError, match="missing"):
        again.load_state_dict({})


@pytest.mark.parametrize("name", PARTS)
def test_what_stands_after_a_termination_is_not_read(name: str) -> None:
    obs, action, next_obs, ends = steps(0, ends=0.5)
    nonsense = np.where(ends[:, None], np.float32(np.nan), next_obs)
    one, two = PARTS[name](VECTOR, 0), PARTS[name](VECTOR, 0)
    for _ in range(2):
        paid = one.bonus(obs, action, nonsense, ends)
        np.testing.assert_array_equal(paid, two.bonus(obs, action, next_obs, ends))
        assert (paid[ends] == 0).all() and np.isfinite(paid).all()
        one.update(obs, action, nonsense, ends)
        two.update(obs, action, next_obs, ends)
    assert one.update(obs, action, nonsense, np.ones(64, np.bool_)) == {}


@pytest.mark.parametrize("name", PARTS)
def test_any_leading_axes(name: str) -> None:
    obs, action, next_obs, ends = steps(0, ends=0.3)
    part = PARTS[name](VECTOR, 0)
    part.update(obs, action, next_obs, ends)
    flat = part.bonus(obs, action, next_obs, ends)
    folded = (obs.reshape(8, 4, 2, 3), action.reshape(8, 4, 2), next_obs.reshape(8, 4, 2, 3), ends.reshape(8, 4, 2))
    np.testing.assert_array_equal(part.bonus(*folded), flat.reshape(8, 4, 2))
