"""Ferry: the rules written once more, in words of their own, and what the package promises."""

import gymnasium
import numpy as np
import pytest
from gumdrop_ferry import Ferry

from gumdrop.envs.checks.conformance import check_world
from gumdrop.envs.examine import solution as solve
from gumdrop.envs.make import make

START, END = (0, 0, 0, 0), (1, 1, 1, 1)  # banks of boat, wolf, goat, cabbage


def crossed(banks, action):
    """The banks after a crossing, what it pays and whether it is the last."""
    aboard = {0, action} if banks[action] == banks[0] else {0}
    after = tuple(1 - bank if who in aboard else bank for who, bank in enumerate(banks))
    boat, wolf, goat, cabbage = after
    if goat != boat and goat in (wolf, cabbage):
        return after, -1, True
    return after, int(after == END), after == END


def reachable():
    """Each state that play may go on from, with a shortest way to it."""
    ways = {START: ()}
    queue = [START]
    for banks in queue:
        for action in range(4):
            after, _, ended = crossed(banks, action)
            if not ended and after not in ways:
                ways[after] = (*ways[banks], action)
                queue.append(after)
    return ways


def number(banks):
    return int("".join(str(int(bank)) for bank in banks), 2)


def model_of(**options):
    world = make("ferry", options, num_envs=1, seed=0).world
    return world.model(world.allocate(1), 0)


@pytest.mark.parametrize("options", [{}, {"wind": 0.3}, {"wind": 1.0}, {"time_limit": 7}, {"time_limit": 0, "wind": 0.5}])
def test_conformance(options):
    results = check_world("ferry", options)
    assert results
    assert not [f"{result.name}: {result.detail}" for result in results if not result.ok]


def test_made_by_gymnasium():
    env = gymnasium.make("gumdrop/Ferry-v0", wind=0.0)
    obs, _ = env.reset(seed=0)
    assert tuple(obs) == START and env.action_space.n == 4


def test_shortest_solution():
    """Seven crossings and return 1; within six nothing can be had."""
    env = gymnasium.make("gumdrop/Ferry-v0")
    env.reset(seed=0)
    total = 0.0
    for crossing, action in enumerate((2, 0, 1, 2, 3, 0, 2), start=1):
        obs, reward, terminated, truncated, _ = env.step(action)
        total += reward
        assert terminated == (crossing == 7) and not truncated
    assert total == 1 and tuple(obs) == END
    model = model_of()
    assert solve.finite_horizon(model, 6).value[0][number(START)] == 0
    assert solve.fewest_steps(model, model.reward == 1)[number(START)] == 7
    assert solve.finite_horizon(model, 7).value[0][number(START)] == 1


@pytest.mark.parametrize("wind", [0.0, 1.0])
def test_model_agrees_with_play(wind):
    """Every action in every state that can be reached, played with gymnasium, against the model's tables."""
    model, ways = model_of(wind=wind), reachable()
    assert len(ways) == 9
    for banks, way in ways.items():
        if wind and way:
            continue  # one never leaves the start
        for action in range(4):
            env = gymnasium.make("gumdrop/Ferry-v0", wind=wind)
            env.reset(seed=1)
            for step in way:
                assert not env.step(step)[2]
            obs, reward, terminated, _, _ = env.step(action)
            assert (tuple(obs), reward, terminated) == ((banks, 0, False) if wind else crossed(banks, action))
            row = number(banks), action
            (outcome,) = np.flatnonzero(model.probability[row])
            assert model.probability[row][outcome] == 1
            assert model.next_state[row][outcome] == number(obs)
            assert model.reward[row][outcome] == reward and model.terminated[row][outcome] == terminated


def test_wind():
    """With wind the shares of the outcomes are those of the model, in all states and for all actions."""
    env = make("ferry", {"wind": 0.3}, num_envs=2000, seed=0)
    obs, rng, turned = env.reset(0)[:, 0], np.random.default_rng(0), {}
    for _ in range(40):
        before, action = obs.copy(), rng.integers(0, 4, (2000, 1))
        result = env.step(action)
        ended = (result.terminated | result.truncated).reshape(2000)
        obs = result.obs[:, 0]
        after = np.where(ended[:, None], result.final_obs[:, 0], obs)
        for old, new, act in zip(before, after, action[:, 0], strict=True):
            banks = tuple(int(bank) for bank in old)
            assert tuple(new) in (banks, crossed(banks, act)[0])
            turned.setdefault((banks, int(act)), []).append(tuple(new) == banks)
    assert {banks for banks, _ in turned} == set(reachable())
    for (banks, act), seen in turned.items():
        assert abs(np.mean(seen) - 0.3) < 5 * np.sqrt(0.21 / len(seen)), (banks, act)


def test_scene_and_state():
    env = gymnasium.make("gumdrop/Ferry-v0", render_mode="ansi")
    env.reset(seed=0)
    assert [row.split()[0] for row in env.render().splitlines()] == ["@", "w", "g", "c"]
    world = make("ferry", num_envs=1, seed=0).world
    assert isinstance(world, Ferry)
    assert world.check_state(Ferry.State(np.array([15]))) is None
    assert "0 to 15" in world.check_state(Ferry.State(np.array([16])))
