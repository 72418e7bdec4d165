"""Optional capabilities: all of them are listed, agents offer what they should, and undeclared things are not looked for."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from gumdrop.agents import protocol
from gumdrop.agents.protocol import CAPABILITIES, Agent, agent_offers
from gumdrop.agents.registry import agents, devices_of, in_leaderboard, make_agent
from gumdrop.core_ml.component import SLOTS, component, components, protocol_of
from gumdrop.envs.batch import native_of, world_of
from gumdrop.envs.make import make

ROOT = Path(protocol.__file__).parents[1]


def test_every_optional_protocol_is_listed_and_documented() -> None:
    declared = {
        value
        for value in vars(protocol).values()
        if getattr(value, "_is_protocol", False) and value.__module__ == protocol.__name__
    } - {Agent}
    assert set(CAPABILITIES) == declared
    assert all(capability.__doc__ and not capability.__doc__.startswith("Protocol") for capability in CAPABILITIES)


@pytest.mark.parametrize(
    ("name", "world", "offers"),
    [
        ("random", "corridor", ("TakesMasks",)),
        ("q-learning", "frozenlake", ("TakesMasks", "Tabular")),
        ("value-iteration", "frozenlake", ("HasPlan",)),
        ("dreamer", "frozenlake", ("ChoosesLeaderboard", "Parted", "ModelBased")),
    ],
)
def test_agents_offer_what_they_have(name: str, world: str, offers: tuple[str, ...]) -> None:
    env = make(world, {}, num_envs=2)
    assert agent_offers(make_agent(name, {}, env, 0)) == offers
    env.close()


def test_a_recurrent_agent_bootstraps_and_a_fast_one_collects() -> None:
    env = make("cartpole", {}, num_envs=2)
    plain = agent_offers(make_agent("ppo", {"hidden": [8]}, env, 0))
    assert {"ListsDevices", "CollectsNatively", "Bootstrapping", "OnDevice", "Noted", "Parted", "Encodes"} <= set(plain)
    assert not {"Driving", "ModelBased", "Tabular", "HasPlan"} & set(plain)
    assert native_of(env) is not None and world_of(env) is env.world  # type: ignore[attr-defined]
    env.close()


def test_what_classes_declare_has_defaults() -> None:
    known = agents()
    assert devices_of(known["ppo"]) == ("cpu", "cuda") and devices_of(known["random"]) == ("cpu",)
    assert {name for name, cls in known.items() if not in_leaderboard(cls)} == {"dreamer", "guarded"}


def test_nothing_undeclared_is_asked_for() -> None:
    """`getattr(x, "name")` and `hasattr(x, "name")` with an agent or an environment: none in experiments and in agents."""
    found = []
    for path in [*(ROOT / "experiments").rglob("*.py"), *(ROOT / "agents").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
                asked = ast.unparse(node.args[0])
                if asked.split(".")[-1] in ("agent", "cls", "actor", "env", "component", "encoder"):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    bench = [
        line for line in found if line.startswith("experiments/bench") or "self.env, name" in line or "self._env, name" in line
    ]
    assert sorted(set(found) - set(bench)) == []


@pytest.mark.parametrize("slot", SLOTS)
def test_components_have_what_the_protocol_of_their_slot_declares(slot: str) -> None:
    declared = protocol_of(slot)
    methods = [name for name, value in vars(declared).items() if callable(value) and not name.startswith("_")]
    assert methods and declared.__doc__
    for name, entry in components(slot).items():
        missing = [method for method in methods if not callable(getattr(entry.cls, method, None))]
        assert not missing, f"{slot} {name} lacks {missing}"


def test_a_slot_that_does_not_exist_is_refused() -> None:
    decorate: Any = component
    with pytest.raises(ValueError, match=r"no slot 'encodr': did you mean encoder\?"):
        decorate("encodr", "x")
