"""Rules cut down to static constants mean what they meant; engines that are copied own their arrays."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest

from gumdrop.envs.constants import plain
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.engine.packing import layout_of, pack
from gumdrop.envs.engine.partial_evaluation import partially_evaluated
from gumdrop.envs.make import make
from gumdrop.envs.views.gym_view import GymView
from gumdrop.envs.world import World, WorldConfig, rule
from gumdrop.store.arrays import Array

LIMIT = 3


def value(a: int, c: Any) -> Any:
    return a and c.bonus


def branch(a: int, c: Any, more: int = LIMIT) -> Any:
    if c.on and a > LIMIT:
        return a + more
    elif not c.on or c.bonus > LIMIT:
        return -1
    return 0 if c.bonus == 2 else 1


def nested(a: int, c: Any) -> Any:
    double = lambda c: c + c  # noqa: E731
    return double(a) + c.bonus


def either(a: int, c: Any) -> Any:
    return (a > 5 or c.on) and (c.on or a)


class C(NamedTuple):
    on: bool
    bonus: Any


@pytest.mark.parametrize("function", [value, branch, nested, either])
@pytest.mark.parametrize("c", [C(True, 2), C(False, 2), C(True, 7), C(False, 0), C(True, 2.5)])
def test_it_means_the_same(function: Any, c: C) -> None:
    cut = partially_evaluated(function, (("on", c.on), ("bonus", c.bonus)))
    for a in range(9):
        want, got = function(a, c), cut(a, c)
        assert got == want and type(got) is type(want)


def test_branches_go_and_numbers_of_other_types_are_others() -> None:
    cut = partially_evaluated(branch, (("on", True), ("bonus", 2)))
    assert "c" not in cut.__code__.co_names and "bonus" not in cut.__code__.co_names and -1 not in cut.__code__.co_consts
    whole, real = (partially_evaluated(value, (("bonus", number),)) for number in (3, 3.0))
    assert type(whole(1, None)) is int and type(real(1, None)) is float


def test_a_default_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(branch.__globals__, "LIMIT", 4)
    cut = partially_evaluated(branch, (("on", True), ("bonus", 2)))
    assert cut(5, None) == 8 and branch(5, C(True, 2)) == 8


def test_a_file_that_changed_after_the_import_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import inspect

    monkeypatch.setattr(inspect, "getsourcelines", lambda f: (["def value(a, c):\n", "    return a or c.bonus\n"], 1))
    assert partially_evaluated(value, (("bonus", 11),)) is value


class Copied(World):
    """Test-only: a counter whose steps a constant scales."""

    name = "copied"

    class State(NamedTuple):
        x: Array

    class Constants(NamedTuple):
        scale: Any
        table: Array

    observation_space = gymnasium.spaces.Box(-1e9, 1e9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    scale: Any = np.float32(0.1)
    table: Any = np.arange(3)
    static = ("scale",)

    def allocate(self, n: int) -> Any:
        return self.State(np.zeros(n))

    def constants(self) -> Any:
        return self.Constants(self.scale, self.table)

    @rule
    def reset(s, i, c, rng):  # type: ignore[no-untyped-def]
        s.x[i] = 0

    @rule
    def step(s, i, action, c, rng, reward):  # type: ignore[no-untyped-def]
        s.x[i] += c.scale
        reward[0] = s.x[i]
        return False

    @rule
    def observe(s, i, k, c, out):  # type: ignore[no-untyped-def]
        out[0] = s.x[i]


def test_numpy_numbers_are_pythons() -> None:
    env = Engine(Copied(WorldConfig()), 2)
    assert env.step(np.zeros((2, 1), int)).reward[0, 0] == np.float32(0.1)
    infinite = type("Infinite", (Copied,), {"scale": np.float64("inf")})
    assert np.isinf(Engine(infinite(WorldConfig()), 2).step(np.zeros((2, 1), int)).reward).all()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"table": np.arange(3).astype(">i8")}, "Constants.table is >i8"),
        ({"table": np.arange(6)[::2]}, "Constants.table is not contiguous"),
        ({"table": np.array(1.0)}, "Constants.table is <f8"),
        ({"scale": "much"}, "Constants.scale is str"),
        ({"scale": np.uint64(2**64 - 1)}, "Constants.scale is 18446744073709551615"),
    ],
)
def test_what_rules_do_not_know_is_named(attributes: dict[str, Any], message: str) -> None:
    world = type("Wrong", (Copied,), attributes)(WorldConfig())
    with pytest.raises(TypeError, match=message):
        Engine(world, 2)


def test_a_pack_names_every_array() -> None:
    parts = (Copied.State(np.zeros(5)), plain(Copied.Constants(True, np.ones((2, 3), np.uint8))))
    packed = pack(*parts)
    assert layout_of(*parts)[1][1] == ("bool", ("uint8", 2))
    assert packed.table.tolist() == [parts[0].x.ctypes.data, 5, 1, parts[1].table.ctypes.data, 2, 3]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_a_copy_goes_its_own_way(again: Any) -> None:
    env = make("candy", {}, num_envs=3, seed=5)
    action = np.ones((3, 1), int)
    env.step(action)
    other = again(env)
    assert other.obs.tobytes() == env.obs.tobytes() and (other._step.reward == env._step.reward).all()
    before = env.get_state()
    first = other.step(action).obs.copy()
    assert all((before[name] == array).all() for name, array in env.get_state().items())
    assert env.step(action).obs.tobytes() == first.tobytes()


def test_a_copied_view_sees_its_own_world() -> None:
    view = GymView("bandit")
    view.reset(seed=1)
    view.step(0)
    other = copy.deepcopy(view)
    a, b = view.step(2), other.step(2)
    assert a[0].tobytes() == b[0].tobytes() and a[1:] == b[1:]
    assert view.engine.state.pulls[0] == other.engine.state.pulls[0] == 2


def test_rules_without_a_module_are_compiled_anew(tmp_path: Path) -> None:
    """A world that exec made leaves kernels on disk that no other process can load: it must not trip over them."""
    code = """
import sys, numpy as np
source = open(sys.argv[1]).read().split("# ---")[1]
names = {"__name__": "nowhere"}
exec(source, names)
from gumdrop.envs.engine.engine import Engine
env = Engine(names["Up"](names["WorldConfig"]()), 2)
print(env.step(np.zeros((2, 1), int)).reward.ravel().tolist())
"""
    file = tmp_path / "world.txt"
    file.write_text(UP)
    for _ in range(2):  # the second one finds the first one's kernels
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)],
            env={**os.environ, "GUMDROP_CACHE": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == "[1.0, 1.0]", done.stderr
        assert list((tmp_path / "kernels").iterdir())


UP = """# ---
from typing import NamedTuple

import gymnasium
import numpy as np

from gumdrop.envs.world import World, WorldConfig, helper, rule


@helper
def one(x):
    return x + 1.0


class State(NamedTuple):
    x: np.ndarray


class Up(World):
    name = "up"
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    State = State

    def allocate(self, n):
        return State(np.zeros(n))

    @rule
    def reset(s, i, c, rng):
        s.x[i] = 0

    @rule
    def step(s, i, action, c, rng, reward):
        reward[0] = one(s.x[i])
        return False

    @rule
    def observe(s, i, k, c, out):
        out[0] = 0
"""
