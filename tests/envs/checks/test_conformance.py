"""The conformance checks pass what is right, and catch worlds that break exactly one promise."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest

from gumdrop.envs import registry
from gumdrop.envs.checks import conformance as checks
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.names import UnknownName
from gumdrop.envs.rng import below
from gumdrop.envs.world import Entity, Model, Scene, World, WorldConfig, rule
from gumdrop.store.arrays import Array


class Walk(World):
    """Right world from which the broken ones differ by one rule: a walk on 0..9 that ends at 9."""

    name = "walk"

    class Config(WorldConfig):
        time_limit: int = 12

    class State(NamedTuple):
        x: Array  # int64 (N,)

    class Constants(NamedTuple):
        memory: Array

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        return gymnasium.spaces.Box(0, 1, (10,), np.uint8)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(2)

    def allocate(self, n: int) -> Any:
        return self.State(np.zeros(n, np.int64))

    def constants(self) -> Any:
        return self.Constants(np.zeros(1, np.int64))

    @rule
    def reset(s, i, c, rng):  # type: ignore[no-untyped-def]
        s.x[i] = below(rng, i, 8)

    @rule
    def step(s, i, action, c, rng, reward):  # type: ignore[no-untyped-def]
        s.x[i] = max(s.x[i] + 2 * action[0] - 1, 0)
        reward[0] = s.x[i]
        return s.x[i] == 9

    @rule
    def observe(s, i, k, c, out):  # type: ignore[no-untyped-def]
        for j in range(10):
            out[j] = 1 if j == s.x[i] else 0

    def scene(self, s: Any, i: int) -> Scene | None:
        return Scene(np.full((1, 10), ".", "<U1"), (Entity(0, int(s.x[i]), "agent"),))


class Outside(Walk):
    @rule
    def observe(s, i, k, c, out):  # type: ignore[no-untyped-def]
        for j in range(10):
            out[j] = s.x[i]


class NotFinite(Walk):
    @rule
    def step(s, i, action, c, rng, reward):  # type: ignore[no-untyped-def]
        s.x[i] = max(s.x[i] + 2 * action[0] - 1, 0)
        reward[0] = np.inf if s.x[i] == 0 else 1.0
        return s.x[i] == 9


class Neighbour(Walk):
    @rule
    def reset(s, i, c, rng):  # type: ignore[no-untyped-def]
        s.x[i] = (below(rng, i, 8) + s.x[0]) % 8


class Chance(Walk):
    @rule
    def reset(s, i, c, rng):  # type: ignore[no-untyped-def]
        s.x[i] = int(np.random.random() * 8)


class Hidden(Walk):
    @rule
    def reset(s, i, c, rng):  # type: ignore[no-untyped-def]
        c.memory[0] += 1
        s.x[i] = min(c.memory[0] // 16, 8)


class Wraps(Walk):
    @rule
    def step(s, i, action, c, rng, reward):  # type: ignore[no-untyped-def]
        s.x[i] = max(s.x[i] + 2 * action[0] - 1, 0)
        reward[0] = np.uint8(s.x[i]) - np.uint8(5)  # numpy wraps around, numba computes in 64 bits
        return s.x[i] == 9


class Beside(Walk):
    def scene(self, s: Any, i: int) -> Scene | None:
        return Scene(np.full((1, 10), ".", "<U1"), (Entity(1, 3, "agent"),))


class Hides(Walk):
    class Config(WorldConfig):
        threads: int = 1


class Unwritten(Walk):
    @rule
    def observe(s, i, k, c, out):  # type: ignore[no-untyped-def]
        for j in range(9):
            out[j] = 1 if j == s.x[i] else 0


class Painted(Walk):
    def scene(self, s: Any, i: int) -> Scene | None:
        return Scene(np.full((1, 10), "%", "<U1"))


def walks(pay: float, field: str) -> Model:
    """The exact model of a Walk, if `pay` is 1 and `field` "x"."""
    x = np.arange(10)
    to = np.clip(x[:, None] + np.array([-1, 1]), 0, None)[:, :, None]
    to = np.minimum(to, 9)
    return Model(to, np.ones(to.shape), pay * to, to == 9, 0, {field: x})


class Modelled(Walk):
    def model(self, s: Any, i: int) -> Model:
        return walks(1.0, "x")._replace(start=int(s.x[i]))


class Overpaid(Walk):
    def model(self, s: Any, i: int) -> Model:
        return walks(2.0, "x")._replace(start=int(s.x[i]))


class Misnamed(Walk):
    def model(self, s: Any, i: int) -> Model:
        return walks(1.0, "place")._replace(start=int(s.x[i]))


BROKEN = [
    (
        Outside,
        checks.check_observations,
        r"observation at environment \d+, step \d+, agent 0 has \d at \[0\], space says 0 to 1",
    ),
    (NotFinite, checks.check_rewards_and_flags, r"reward at environment \d+, step \d+ is inf"),
    (
        Neighbour,
        checks.check_alone,
        r"environment 17 of 64 against the same environment alone: obs differs at environment 0, step \d+",
    ),
    (Chance, checks.check_seeds, "draw random numbers from rng only"),
    (Hidden, checks.check_seeds, "keep what changes in State"),
    (Hidden, checks.check_state, "keep everything that the future depends on in State"),
    (Wraps, checks.check_plain, "plain Python against compiled: reward differs"),
    (Beside, checks.check_scene, r"agent at row 1, column 3, outside \(1, 10\)"),
    (Hides, checks.check_options, "option 'threads' is a parameter"),
    (Painted, checks.check_scene, "scene has cells '%', which nobody draws"),
    (Unwritten, checks.check_all_written, r"observe leaves \[9\] of agent 0 unwritten"),
    (Overpaid, checks.check_model_agrees, r"state \d, action \d to \d: reward \d, in the model \d"),
    (Misnamed, checks.check_model_agrees, "model.fields has 'place': its keys are arrays of State, which has x"),
]


@pytest.mark.parametrize(("cls", "check", "message"), BROKEN, ids=[f"{c.__name__}-{f.__name__}" for c, f, _ in BROKEN])
def test_a_broken_promise_is_named(cls: type[Walk], check: Any, message: str) -> None:
    takes_factory = check in (checks.check_observations, checks.check_rewards_and_flags, checks.check_alone,
                              checks.check_seeds, checks.check_state)  # fmt: skip
    with pytest.raises(ValueError, match=message):
        check((lambda n: Engine(cls(cls.Config()), n)) if takes_factory else cls(cls.Config()))


def test_what_holds_is_said() -> None:
    assert "steps from known states went where the model of 10 states says" in checks.check_model_agrees(
        Modelled(Walk.Config())
    )
    assert checks.check_model_agrees(Walk(Walk.Config())) == "there is none"
    assert checks.check_time_limit(Walk(Walk.Config(time_limit=1000))) == "no random episode lasted 1000 steps, so none was cut"


def test_every_world_passes(variant: tuple[str, dict[str, Any]]) -> None:
    results = checks.check_world(*variant)
    assert len(results) == 17 and not [c for c in results if not c.ok]


@pytest.mark.parametrize("id", ["CartPole-v1", "FrozenLake-v1", "Pendulum-v1"])
def test_foreign_environments_pass(id: str) -> None:
    results = checks.check_world(id)
    assert len(results) == 11 and not [c for c in results if not c.ok]


def test_a_fault_and_a_crash_become_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Crashes(Outside):
        def scene(self, s: Any, i: int) -> Scene | None:
            raise KeyError("no\nscene")

    registry.worlds()
    monkeypatch.setitem(registry._WORLDS, "crashes", Crashes)
    rows = {c.name: c for c in checks.check_world("crashes")}
    assert {name for name, c in rows.items() if not c.ok} == {"observations", "scene"}
    assert "KeyError" in rows["scene"].detail and "\n" not in rows["scene"].detail


def test_unknown_ids_and_options_raise_one_line() -> None:
    with pytest.raises(UnknownName, match="did you mean bandit"):
        checks.check_world("bandi")
    with pytest.raises(UnknownName, match="did you mean CartPole-v1"):
        checks.check_world("CartPol-v1")
    with pytest.raises(ValueError, match="no option 'armz': did you mean arms"):
        checks.check_world("bandit", {"armz": 3})


class Float64(gymnasium.Env[Any, Any]):
    """Says float32, gives float64: what `ExternalBatch` casts in silence, a check tells the author."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        return np.array([0.1, 0.2]), {}

    def step(self, action: Any) -> Any:
        return np.array([0.1, 0.2]), 0.0, bool(self.np_random.random() < 0.1), False, {}


def test_a_foreign_float64_is_named() -> None:
    if "tests/Float64-v0" not in gymnasium.registry:
        gymnasium.register("tests/Float64-v0", Float64)
    rows = [c for c in checks.check_world("tests/Float64-v0") if not c.ok]
    assert [c.name for c in rows] == ["raw observation", "gymnasium's own check"]
    assert "is float64 (2,), not in Box" in rows[0].detail
