"""Fixtures that run a test for everything that is registered: a new world is tested the moment it exists."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest


class StopAfter:
    """A live view that asks for a stop, as Ctrl-C does, after so many updates."""

    def __init__(self, updates: int, signum: int = signal.SIGINT) -> None:
        self.left, self.signum = updates, signum

    def __enter__(self) -> StopAfter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, line: str) -> None:
        pass

    def update(self, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.signum)


@pytest.fixture
def stop_after() -> type[StopAfter]:
    """`train(..., live=stop_after(2))` is stopped by a signal after two updates."""
    return StopAfter


def _variants() -> list[tuple[str, dict[str, Any]]]:
    """Every registered world as it comes, with two agents where it can have them, and every preset."""
    from gumdrop.envs import registry

    found: list[tuple[str, dict[str, Any]]] = []
    for name, cls in registry.worlds().items():
        found.append((name, {}))
        if "agents" in cls.Config.model_fields:
            found.append((name, {"agents": 2}))
    found.extend((id, {}) for id in registry.presets())
    found.append(("bandit", {"reward": "gaussian"}))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`variant`: (world, options) of every world; `single`: of those with one agent."""
    from gumdrop.envs.registry import make_world

    for fixture in {"variant", "single"} & set(metafunc.fixturenames):
        cases = [v for v in _variants() if fixture == "variant" or make_world(*v).num_agents == 1]
        ids = [name + "".join(f"-{k}={v}" for k, v in options.items()) for name, options in cases]
        # one worker for all tests of a world: what it has compiled, the others find
        groups = [pytest.param(case, marks=pytest.mark.xdist_group(id)) for case, id in zip(cases, ids, strict=True)]
        metafunc.parametrize(fixture, groups, ids=ids)
