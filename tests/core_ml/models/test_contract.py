"""What every world model keeps to: shapes, episode starts, steps equal to sequences, chance only from generators, checkpoints,
and that it learns what a step brings: the next observation, the reward, and an end that the rules made."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gumdrop.core_ml.beliefs.protocol import State
from gumdrop.core_ml.component import components
from gumdrop.core_ml.data.sequences import Sequences
from gumdrop.core_ml.maths.two_hot import TwoHot
from gumdrop.core_ml.models.mdn_gru import MdnGru
from gumdrop.core_ml.models.protocol import OutcomeHeads, WorldModel, before, imagine, tensors
from gumdrop.core_ml.models.rssm import RSSM
from gumdrop.core_ml.models.token_model import TokenModel
from gumdrop.core_ml.observations import Observation

B, T, K = 5, 9, 3
GRID = Observation.of((2, 3), np.uint8, 3)
VECTOR = Observation.of((4,), np.float32)

SMALL: dict[str, Any] = {"width": 8, "hidden": (8,), "reward_bins": 9}
PAPER: dict[str, Any] = {"posterior": "history", "chain": False, "representation": 0.1}  # PlaNet, DreamerV2
GAUSSIAN = {"latent": "gaussian", **PAPER}
SOFTMAX = {"latent": "categorical", "unimix": 0.01, **PAPER}
MODELS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "rssm": (RSSM, {**SMALL, "deter": 8, "groups": 3, "classes": 4, "code": 6}),
    "rssm-cells": (RSSM, {**SMALL, "latent": "cells", "deter": 8}),
    "rssm-softmax": (RSSM, {**SMALL, **SOFTMAX, "deter": 8, "groups": 3, "classes": 4, "code": 6}),
    "rssm-gaussian": (RSSM, {**SMALL, **GAUSSIAN, "deter": 8, "groups": 3, "code": 6}),
    "mdn-gru": (MdnGru, {**SMALL, "deter": 8, "size": 3, "components": 3}),
    "mdn-gru-apart": (MdnGru, {**SMALL, "deter": 8, "size": 3, "components": 3, "joint": False, "temperature": 1.3}),
}
TOKENS = {**SMALL, "positions": 2, "codes": 6, "code_size": 3, "heads": 2, "window": 3}
MODELS |= {
    "tokens": (TokenModel, TOKENS),
    "tokens-gated": (TokenModel, {**TOKENS, "positions": 1, "layers": 1, "gate": "gru", "window": 20}),
}
for _name, _entry in components("model").items():  # a new one is tested the moment that its file exists
    if _entry.cls not in {cls for cls, _ in MODELS.values()}:
        MODELS[_name] = (_entry.cls, _entry.fixed)
WIDE: dict[str, Any] = {"width": 32, "hidden": (32,), "learning_rate": 1e-2}
MDN = {**WIDE, "deter": 32, "size": 2, "warmup": 30, "settle": 60}
WORDS = {**WIDE, "learning_rate": 5e-3, "codes": 6, "code_size": 4, "heads": 2, "settle": 100}
LEARNERS: dict[str, dict[str, Any]] = {  # large enough for the small worlds below
    "rssm": {**WIDE, "deter": 16, "groups": 8, "classes": 5, "learning_rate": 5e-3},
    "rssm-cells": {**WIDE, "deter": 16, "latent": "cells"},
    "rssm-softmax": {**WIDE, **SOFTMAX, "deter": 16, "groups": 1, "classes": 6, "usage": 1.0},
    "rssm-gaussian": {**WIDE, **GAUSSIAN, "deter": 16, "groups": 4},
    "mdn-gru": MDN,
    "mdn-gru-apart": {**MDN, "joint": False},
    "tokens": {**WORDS, "positions": 2},
    "tokens-gated": {**WORDS, "positions": 1, "gate": "gru"},
}
every = pytest.mark.parametrize("name", MODELS)
both = pytest.mark.parametrize("seed", [None, 3])


def make(name: str, seed: int = 0, observation: Observation = GRID) -> Any:
    """A model that is no longer as it was made: what is zero at first would hide faults."""
    cls, options = MODELS[name]
    model: WorldModel = cls(cls.Config(**options), observation, K, seed)
    rng, state = np.random.default_rng(seed), model.state_dict()
    for part, array in state.items():
        if "model." in part:
            array += 0.2 * rng.standard_normal(array.shape).astype(np.float32)
    model.load_state_dict(state)
    return model


def batch(seed: int = 0, rows: int = B, steps: int = T) -> Sequences:
    rng = np.random.default_rng(seed)
    return Sequences(
        rng.integers(4, size=(rows, steps, 2, 3), dtype=np.uint8), rng.integers(K, size=(rows, steps)),
        rng.normal(size=(rows, steps)).astype(np.float32), rng.random((rows, steps)) < 0.2, rng.random((rows, steps)) < 0.2,
    )  # fmt: skip


def data(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """obs, previous action, is_first."""
    obs, action, _, _, is_first = tensors(batch(seed), K)
    return obs, action, is_first


def used(model: Any, seed: int = 7) -> State:
    """A state in the middle of episodes."""
    obs, action, is_first = data(seed)
    is_first[:, 1:] = False
    with torch.no_grad():
        return model.sequence(obs, action, is_first, model.initial(B))[1]  # type: ignore[no-any-return]


def chance(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)


def same(a: State, b: State, atol: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].shape == b[name].shape and a[name].dtype == b[name].dtype, name
        torch.testing.assert_close(a[name].double(), b[name].double(), rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def rows(state: State, i: int) -> State:
    return {name: part[i : i + 1] for name, part in state.items()}


@every
@pytest.mark.parametrize("observation", [GRID, VECTOR], ids=["grid", "vector"])
def test_shapes(name: str, observation: Observation) -> None:
    if name == "rssm-cells" and observation is VECTOR:
        with pytest.raises(ValueError, match="symbolic grids"):
            make(name, observation=observation)
        return
    model, found = make(name, observation=observation), batch()
    if observation is VECTOR:
        found = found._replace(obs=np.random.default_rng(0).normal(size=(B, T, 4)).astype(np.float32))
    obs, action, _, _, is_first = tensors(found, K)
    start = model.initial(B)
    kinds = {part: (tuple(t.shape), t.dtype) for part, t in start.items()}
    for part in start.values():
        assert part.shape[0] == B and all(torch.equal(row, part[0]) for row in part)
    with torch.no_grad():
        one, after = model.observe(obs[:, 0], action[:, 0], is_first[:, 0], start)
        all_, last = model.sequence(obs, action, is_first, start)
        imagined, outcome = model.step(last, action[:, 0], chance(0))
    assert one.shape == (B, model.size) and all_.shape == (B, T, model.size) and one.dtype == all_.dtype == torch.float32
    assert torch.equal(model.features(last), all_[:, -1])
    for state in (after, last, imagined):
        assert {part: (tuple(t.shape), t.dtype) for part, t in state.items()} == kinds
    assert outcome.reward.shape == outcome.continue_.shape == (B,)
    assert ((outcome.continue_ > 0) & (outcome.continue_ < 1)).all()
    seen = model.decode(model.features(imagined))
    assert seen.shape == obs[:, 0].shape and seen.dtype == obs.dtype
    metrics, states = model.learn(found, torch.Generator().manual_seed(0))
    assert all(np.isfinite(value) for value in metrics.values()) and "loss" in metrics
    for state in (states, model.posterior(found)):
        assert {part: ((B, T, *shape[1:]), dtype) for part, (shape, dtype) in kinds.items()} == {
            part: (tuple(t.shape), t.dtype) for part, t in state.items()
        }
        assert not any(part.requires_grad for part in state.values())


@every
@both
def test_steps_equal_a_sequence_and_its_halves(name: str, seed: int | None) -> None:
    model, (obs, action, is_first) = make(name), data()
    for state in (model.initial(B), used(model)):
        with torch.no_grad():
            whole, end = model.sequence(obs, action, is_first, state, chance(seed))
            generator, one, found = chance(seed), state, []
            for t in range(T):
                belief, one = model.observe(obs[:, t], action[:, t], is_first[:, t], one, generator)
                found.append(belief)
            torch.testing.assert_close(torch.stack(found, 1), whole, rtol=0, atol=1e-5)
            same(one, end, 1e-5)
            generator = chance(seed)
            first, middle = model.sequence(obs[:, :4], action[:, :4], is_first[:, :4], state, generator)
            rest, last = model.sequence(obs[:, 4:], action[:, 4:], is_first[:, 4:], middle, generator)
            torch.testing.assert_close(torch.cat([first, rest], 1), whole, rtol=0, atol=1e-5)
            same(last, end, 1e-5)


@every
def test_an_episode_start_is_a_fresh_start(name: str) -> None:
    """Whatever was before, NaN included: same features, same state, same future, to the bit."""
    model, (obs, action, is_first) = make(name), data()
    is_first[:, 0], is_first[:, 1:] = True, False
    junk = {part: torch.full_like(t, torch.nan) if t.is_floating_point() else t + 3 for part, t in used(model).items()}
    other = torch.cat([action[:, :1].roll(1, -1), action[:, 1:]], 1)
    with torch.no_grad():
        for steps in (1, T):
            one, after = model.sequence(obs[:, :steps], action[:, :steps], is_first[:, :steps], model.initial(B))
            two, later = model.sequence(obs[:, :steps], other[:, :steps], is_first[:, :steps], junk)
            assert torch.equal(one, two)
            same(after, later)
        one, after = model.observe(obs[:, 0], action[:, 0], is_first[:, 0], model.initial(B))
        two, later = model.observe(obs[:, 0], other[:, 0], is_first[:, 0], junk)
        assert torch.equal(one, two)
        same(after, later)
        used_, _ = model.observe(obs[:, 0], action[:, 0], ~is_first[:, 0], used(model))
        assert not torch.allclose(one, used_)


@every
def test_a_start_within_a_sequence_hides_what_was_before(name: str) -> None:
    model, (obs, action, is_first) = make(name), data()
    is_first[:, 5] = True
    with torch.no_grad():
        whole, end = model.sequence(obs, action, is_first, used(model))
        alone, last = model.sequence(obs[:, 5:], action[:, 5:], is_first[:, 5:], model.initial(B))
    torch.testing.assert_close(whole[:, 5:], alone, rtol=0, atol=1e-5)
    same(end, last, 1e-5)


@every
def test_nothing_that_is_learned_from_flows_over_the_end_of_an_episode(name: str) -> None:
    """What a model learns of one episode depends on the other only through shared parameters: states of `posterior` differ
    before the seam and not behind it."""
    model, found = make(name), batch()
    found.is_first[:], found.is_first[:, 4] = False, True
    states = []
    for shift in (0, 1):
        changed = found._replace(obs=found.obs.copy(), action=found.action.copy())
        changed.obs[:, :4] = (found.obs[:, :4] + shift) % 4
        changed.action[:, :4] = (found.action[:, :4] + shift) % K
        state = model.posterior(changed, chance(0))
        flat = model.features({part: t.flatten(0, 1) for part, t in state.items()})
        states.append(flat.unflatten(0, (B, T)))
    torch.testing.assert_close(states[0][:, 4:], states[1][:, 4:], rtol=0, atol=1e-5)
    assert not torch.equal(states[0][:, 1:4], states[1][:, 1:4])


@every
def test_a_row_alone_is_that_row_of_a_batch(name: str) -> None:
    model, (obs, action, is_first) = make(name), data()
    state = used(model)
    with torch.no_grad():
        whole, end = model.sequence(obs, action, is_first, state)
        imagined, outcome = model.step(end, action[:, 0])
        for i in range(B):
            row = slice(i, i + 1)
            alone, after = model.sequence(obs[row], action[row], is_first[row], rows(state, i))
            torch.testing.assert_close(whole[row], alone, rtol=0, atol=1e-5)
            same(rows(end, i), after, 1e-5)
            later, mine = model.step(rows(end, i), action[row, 0])
            same(rows(imagined, i), later, 1e-5)
            torch.testing.assert_close(mine.reward, outcome.reward[row], rtol=0, atol=1e-5)
            torch.testing.assert_close(mine.continue_, outcome.continue_[row], rtol=0, atol=1e-5)


@every
def test_posterior_gives_the_states_that_observing_leads_through(name: str) -> None:
    model, found = make(name), batch()
    obs, action, _, _, is_first = tensors(found, K)
    is_first[:, 0] = True
    states, one, previous = model.posterior(copy.deepcopy(found)), model.initial(B), before(action)
    with torch.no_grad():
        for t in range(T):
            _, one = model.observe(obs[:, t], previous[:, t], is_first[:, t], one)
            same(one, {part: s[:, t] for part, s in states.items()}, 1e-5)


@every
def test_a_dream_is_its_steps(name: str) -> None:
    model = make(name)
    start = used(model)
    policy = lambda seen: torch.eye(K)[seen[:, :K].argmax(1)]  # noqa: E731
    imagined = model.imagine(start, policy, 6, torch.Generator().manual_seed(0))
    again = imagine(model, start, policy, 6, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(imagined, again, strict=True))
    assert imagined.features.shape == (7, B, model.size) and imagined.reward.shape == (6, B)
    generator, state = torch.Generator().manual_seed(0), start
    for t in range(6):
        assert torch.equal(imagined.features[t], model.features(state))
        with torch.no_grad():
            state, outcome = model.step(state, policy(imagined.features[t]), generator)
        assert torch.equal(imagined.reward[t], outcome.reward) and torch.equal(imagined.continue_[t], outcome.continue_)


@every
def test_chance_is_the_generators_and_without_one_there_is_none(name: str) -> None:
    torch.manual_seed(3)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    model, found = make(name), batch()
    state, action = used(model), torch.eye(K)[torch.arange(B) % K]
    kept = copy.deepcopy((state, action))

    def after(generator: torch.Generator | None) -> Tensor:
        now = state
        with torch.no_grad():
            for _ in range(6):
                now, _ = model.step(now, action, generator)
        return model.features(now)  # type: ignore[no-any-return]

    assert torch.equal(after(None), after(None)) and torch.equal(after(chance(1)), after(chance(1)))
    assert not torch.equal(after(chance(1)), after(chance(2)))
    model.learn(found, torch.Generator().manual_seed(0))
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # type: ignore[index]
    same(state, kept[0])
    assert torch.equal(action, kept[1])


@every
def test_what_is_learned_from_stays_as_it_is(name: str) -> None:
    model, found = make(name), batch()
    found.is_first[:, 0] = False
    kept = copy.deepcopy(found)
    model.learn(found, torch.Generator().manual_seed(0))
    model.posterior(found)
    assert all(np.array_equal(a, b) for a, b in zip(found, kept, strict=True))


@every
def test_learning_goes_on_from_a_checkpoint_to_the_bit(name: str) -> None:
    model, other = make(name), make(name, seed=1)
    for k in range(3):
        model.update(batch(k), torch.Generator().manual_seed(k))
    state = model.state_dict()
    kept = copy.deepcopy(state)
    other.load_state_dict(state)
    for array in state.values():  # the checkpoint is nobody's memory
        array += 1
    found = []
    for one in (model, other):
        metrics = [one.learn(batch(k), torch.Generator().manual_seed(k))[0] for k in (3, 4)]
        found.append((metrics, [array.tobytes() for array in one.state_dict().values()]))
    assert found[0] == found[1]
    assert any(not np.array_equal(array, kept[part]) for part, array in model.state_dict().items())
    part, array = next(iter(kept.items()))
    faults = [kept | {"more": np.zeros(1)}, {n: a for n, a in kept.items() if n != part}, kept | {part: array[..., None]}]
    for fault in faults:
        with pytest.raises(ValueError, match="configuration"):
            other.load_state_dict(fault)


def play(seed: int, kind: str, count: int = 24, steps: int = 6) -> Sequences:
    """A small world: the first cell tells the place 0, 1 or 2, action a leads to place a; from place 1 to place 2 pays 1. To go
    to place 0 ends the episode, by the rules (`terminated`) or not (`truncated`); a new one begins anywhere."""
    rng = np.random.default_rng(seed)
    place, first = rng.integers(3, size=count), np.zeros(count, np.bool_)
    found = Sequences(
        np.zeros((count, steps, 2, 3), np.uint8), rng.integers(K, size=(count, steps)), np.zeros((count, steps), np.float32),
        np.zeros((count, steps), np.bool_), np.zeros((count, steps), np.bool_),
    )  # fmt: skip
    for t in range(steps):
        action = found.action[:, t]
        found.obs[:, t, 0, 0], found.is_first[:, t] = place, first
        found.reward[:, t] = (place == 1) & (action == 2)
        found.terminated[:, t] = (action == 0) & (kind == "terminated")
        first = action == 0
        place = np.where(first, rng.integers(3, size=count), action)
    return found


@every
def test_it_learns_what_a_step_brings_and_that_a_time_limit_is_no_end(name: str) -> None:
    """The same world twice, where episodes end by the rules and where they are cut at the same places: everything alike, but
    going on. Imagined trajectories of two steps tell where they lead and what they pay."""
    continue_ = {}
    for kind in ("terminated", "truncated"):
        cls = MODELS[name][0]
        model = cls(cls.Config(**LEARNERS.get(name, {})), GRID, K, 0)
        for k in range(180):  # 80 of them after words have settled: with 20, three seeds of eight had not read them all
            model.update(play(k, kind), torch.Generator().manual_seed(k))
        place, action = (part.flatten() for part in torch.meshgrid(torch.arange(3), torch.arange(K), indexing="ij"))
        obs = torch.zeros(9, 2, 3, dtype=torch.uint8)
        obs[:, 0, 0] = place.to(torch.uint8)
        with torch.no_grad():
            _, state = model.observe(obs, torch.zeros(9, K), torch.ones(9, dtype=torch.bool), model.initial(9))
            state, outcome = model.step(state, torch.eye(K)[action])
            continue_[kind] = outcome.continue_
            assert (outcome.reward - ((place == 1) & (action == 2)).float()).abs().max() < 0.2
            inner = action != 0  # where the episode goes on, and one knows where
            assert torch.equal(model.decode(model.features(state))[inner, 0, 0].long(), action[inner])
            _, outcome = model.step(state, torch.eye(K)[torch.full((9,), 2)])
            assert (outcome.reward - (action == 1).float())[inner].abs().max() < 0.3
    assert (continue_["truncated"] > 0.9).all()
    assert (continue_["terminated"][action != 0] > 0.9).all() and (continue_["terminated"][action == 0] < 0.1).all()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "rssm-gaussian"])  # one peak cannot say two places
def test_chance_is_dreamt_as_often_as_it_happens(name: str) -> None:
    """From place 0 one comes to place 1 with probability 0.3, else to place 2: imagined trajectories lead to either and to
    nothing between."""
    cls, options = MODELS[name][0], LEARNERS.get(name, {})
    model = cls(cls.Config(**options), GRID, K, 0)
    rng = np.random.default_rng(0)
    obs = np.zeros((192, 2, 2, 3), np.uint8)
    nothing, never = np.zeros((192, 2), np.float32), np.zeros((192, 2), np.bool_)
    for k in range(150):
        obs[:, 1, 0, 0] = np.where(rng.random(192) < 0.3, 1, 2)
        first = never.copy()
        first[:, 0] = True
        model.update(Sequences(obs, rng.integers(K, size=(192, 2)), nothing, never, first), torch.Generator().manual_seed(k))
    with torch.no_grad():
        seen, first_, none = torch.from_numpy(obs)[:1, 0], torch.ones(1, dtype=torch.bool), torch.zeros(1, K)
        _, state = model.observe(seen, none, first_, model.initial(1))
        many = {part: t.expand(4000, *t.shape[1:]) for part, t in state.items()}
        imagined, _ = model.step(many, torch.eye(K)[[0]].expand(4000, K), torch.Generator().manual_seed(0))
        place = model.decode(model.features(imagined))[:, 0, 0]
    assert ((place == 1) | (place == 2)).float().mean() > 0.97
    assert abs((place == 1).float().mean() - 0.3) < 0.08


def test_outcome_heads_are_a_cross_entropy_each() -> None:
    heads = OutcomeHeads(4, 8, "relu", TwoHot(9, 3.0))
    heads.begin()
    h, reward, terminated = torch.randn(2, 5, 4), torch.randn(2, 5), torch.rand(2, 5) < 0.5
    loss, goes = heads.loss(h, reward, terminated)
    outcome = heads.outcome(h)
    on, over = (heads.reward(torch.cat([h, torch.full((2, 5, 1), case)], -1)).softmax(-1) for case in (0.0, 1.0))
    p = torch.where(terminated.unsqueeze(-1), over, on)
    torch.testing.assert_close(loss, -(heads.two_hot.encode(reward) * p.log()).sum(-1))
    torch.testing.assert_close(outcome.reward_on, (on * heads.two_hot.values).sum(-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(outcome.reward_over, (over * heads.two_hot.values).sum(-1), rtol=0, atol=1e-5)
    chance = outcome.continue_
    torch.testing.assert_close(outcome.reward, chance * outcome.reward_on + (1 - chance) * outcome.reward_over)
    torch.testing.assert_close(goes, -torch.where(terminated, 1 - chance, chance).log())


def test_what_is_paid_at_an_end_is_dreamt_at_ends_alone() -> None:
    """One state, in which half of the steps end the episode and pay 1, and the others go on and pay nothing: an imagined
    trajectory is paid where it ends, and once; its expectation is one half."""
    heads, rng = OutcomeHeads(1, 8, "relu", TwoHot(9, 3.0)), torch.Generator().manual_seed(0)
    heads.begin()
    optimiser = torch.optim.Adam(heads.parameters(), 0.03)
    for _ in range(150):
        over = torch.rand(64, generator=rng) < 0.5
        optimiser.zero_grad()
        torch.stack(heads.loss(torch.ones(64, 1), over.float(), over)).mean(1).sum().backward()
        optimiser.step()
    outcome = heads.outcome(torch.ones(1, 1))
    assert abs(outcome.reward_on.item()) < 0.05 and abs(outcome.reward_over.item() - 1) < 0.05
    assert abs(outcome.reward.item() - 0.5) < 0.1 and abs(outcome.continue_.item() - 0.5) < 0.1
