"""The engine's promises, for every registered world: same seed same bits, alone or in a crowd, on any
number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.envs.checks.conformance import Trace, play, play_plain, random_actions
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.make import make
from gumdrop.envs.registry import make_world
from gumdrop.envs.rng import copy_seeds

Variant = tuple[str, dict[str, Any]]


def engine(variant: Variant, n: int, threads: int = 1, seed: int = 0) -> Engine:
    return Engine(make_world(*variant), n, seed, threads)


def require_equal(a: Trace, b: Trace) -> None:
    for name, x, y in zip(Trace._fields, a, b, strict=True):
        assert x.dtype == y.dtype and x.tobytes() == y.tobytes(), name


def test_alone_in_a_crowd_on_two_threads(variant: Variant) -> None:
    one, two = engine(variant, 4_096, threads=1), engine(variant, 4_096, threads=2)
    if two.threads < 2:
        pytest.skip("this machine lets numba have one thread only")
    actions, seeds = random_actions(one, 40), copy_seeds(3, 4_096)
    crowd = play(one, actions, seeds)
    require_equal(crowd, play(two, actions, seeds))
    alone = engine(variant, 1)
    for i in np.random.default_rng(0).choice(4_096, 4, replace=False).tolist():
        mine = Trace(*(x[:, i : i + 1] for x in crowd))
        require_equal(mine, play(alone, actions[:, i : i + 1], seeds[i : i + 1]))


def test_a_thousand_steps_from_the_same_seed(variant: Variant) -> None:
    a, b = engine(variant, 4, seed=11), engine(variant, 4, seed=11)
    actions = random_actions(a, 1_000)
    first = play(a, actions)
    require_equal(first, play(b, actions))
    b.reset(11)
    require_equal(first, play(b, actions))
    if not a.get_state()["engine.rng"][:, 1].any():
        return  # rules that never draw, as a matrix game's, have nothing to seed
    a.reset(11)
    b.reset(12)
    one, two = ({k: v for k, v in env.get_state().items() if k.startswith("state.")} for env in (a, b))
    shown = any(x.tobytes() != y.tobytes() for x, y in zip(first, play(b, actions), strict=True))
    hidden = any((one[name] != two[name]).any() for name in one)
    assert shown or (hidden and not first.reward.any())  # a hidden goal that was never reached, as in point-sparse


def test_plain_python_gives_the_same_bits(variant: Variant) -> None:
    env = engine(variant, 4)
    if not 0 < env.world.horizon <= 120:  # episodes must end within the test
        env = engine((variant[0], variant[1] | {"time_limit": 50}), 4)
    actions, seeds = random_actions(env, 120), copy_seeds(4, 4)
    plain = play_plain(env.world, actions, seeds)
    assert (plain.terminated | plain.truncated).any()
    require_equal(plain, play(env, actions, seeds))


def test_state_carries_on_in_another_engine(variant: Variant) -> None:
    a, b = engine(variant, 8, seed=1), engine(variant, 8, seed=2)
    actions = random_actions(a, 150)
    play(a, actions[:67])
    state = a.get_state()
    after = play(a, actions[67:])
    b.set_state(state)
    require_equal(after, play(b, actions[67:]))


def test_whole_seed_and_one_seed_each_agree(variant: Variant) -> None:
    a, b = engine(variant, 5), engine(variant, 3)
    a.reset(21)
    b.reset(copy_seeds(21, 5)[:3])
    actions = random_actions(a, 50)
    few = play(b, actions[:, :3])
    require_equal(Trace(*(x[:, :3] for x in play(a, actions))), few)


def test_masked_reset_and_inactive_copies_leave_the_others_alone(variant: Variant) -> None:
    env = engine(variant, 6, seed=5)
    actions = random_actions(env, 30)
    play(env, actions[:9])
    before, which = env.get_state(), np.array([True, False, True, False, False, False])
    env.reset_some(which)
    after = env.get_state()
    for name in before:
        assert before[name][~which].tobytes() == after[name][~which].tobytes(), name
    assert (after["engine.elapsed"][which] == 0).all()
    out = env.step(actions[10], active=which)
    assert (out.reward[~which] == 0).all() and not out.terminated[~which].any() and not out.truncated[~which].any()
    stepped = env.get_state()
    for name in before:
        assert after[name][~which].tobytes() == stepped[name][~which].tobytes(), name
    assert (stepped["engine.elapsed"][which] <= 1).all()


def test_an_illegal_action_names_its_copy(variant: Variant) -> None:
    env = engine(variant, 3)
    action = random_actions(env, 1)[0]
    if hasattr(env.action_space, "n"):  # numbers outside a Box are the rules' affair, which clip them
        action[1, -1] = int(env.action_space.n)
        with pytest.raises(ValueError, match=r"environment 1 .*Discrete"):
            env.step(action)
    with pytest.raises(ValueError, match="shape"):
        env.step(action[:2])


def test_a_state_of_another_size_is_refused(variant: Variant) -> None:
    with pytest.raises(ValueError, match="holds"):
        engine(variant, 3).set_state(engine(variant, 4).get_state())
    state = engine(variant, 3).get_state()
    state.pop("engine.rng")
    with pytest.raises(ValueError, match="engine.rng"):
        engine(variant, 3).set_state(state)


@pytest.mark.parametrize("order", [("3", "7"), ("7", "3")])
def test_kernels_that_two_processes_cached_do_not_mix_in_a_third(order: tuple[str, str], tmp_path: Path) -> None:
    """Machine code finds its functions by name: equal names of two variants once called each other."""
    code = (
        "import sys\n"
        "from gumdrop.envs.checks.conformance import check_plain\n"
        "from gumdrop.envs.registry import make_world\n"
        "for arms in sys.argv[1:]: check_plain(make_world('bandit', {'arms': int(arms), 'time_limit': 13}))\n"
    )
    home = {**os.environ, "GUMDROP_CACHE": str(tmp_path)}
    for arms in ([order[0]], [order[1]], list(order)):
        subprocess.run(
            [sys.executable, "-c", code, *arms],
            check=True,
            timeout=120,
            env=home,
        )


@pytest.mark.parametrize("view", [1, 3, 7, 9, 15, 17, 33])
@pytest.mark.parametrize("size", [5, 11])
def test_maze_windows_against_a_padded_board(view: int, size: int) -> None:
    """An independent window: the board padded with walls, sliced around the agent."""
    env = make("maze", {"size": size, "view": view}, num_envs=5, seed=view)
    rng = np.random.default_rng(0)
    for _ in range(20):
        for i in range(5):
            board = env.world._board(env.state, i)  # type: ignore[attr-defined]
            padded = np.pad(board, view // 2, constant_values=1)
            y, x = env.world._place(env.state.cell[i])  # type: ignore[attr-defined]
            np.testing.assert_array_equal(env.obs[i, 0], padded[y : y + view, x : x + view])
        env.step(rng.integers(4, size=(5, 1)))


@pytest.mark.parametrize(
    ("id", "name", "value"),
    [("maze", "cell", 10**9), ("maze", "cell", -1), ("maze", "goal", 0), ("maze", "level", 1),
     ("maze", "tiles", 9), ("maze", "tiles", 0), ("bandit", "arm", 5),
     ("bandit", "mean", np.nan), ("candy", "y", 6), ("candy", "candy", 4), ("candy", "time", -1)],
)  # fmt: skip
def test_a_state_that_rules_cannot_reach_is_refused(id: str, name: str, value: float) -> None:
    """Kernels index without bounds checks: what a stranger's checkpoint says is looked at first."""
    env = make(id, num_envs=3)
    state = env.get_state()
    state[f"state.{name}"][1] = value
    before = env.get_state()
    with pytest.raises(ValueError, match="not one that its rules can reach"):
        env.set_state(state)
    for key, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[key])
