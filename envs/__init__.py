"""Worlds and everything that shows them: engine, views, foreign environments, checks; nothing of learning.

This file only announces the worlds' ids to Gymnasium. `gumdrop --help` passes here: keep it cheap to import.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

_DECLARED = re.compile(r'^(?:@world\(| +)"([a-z0-9-]+)"(?:\)|: Preset\()', re.MULTILINE)


def gym_id(world: str) -> str:
    """Gymnasium's id of a world: candy -> gumdrop/Candy-v0, dark_room -> gumdrop/DarkRoom-v0."""
    return f"gumdrop/{''.join(part[:1].upper() + part[1:] for part in re.split('[-_]', world))}-v0"


def declared_worlds() -> list[str]:
    """Names of our worlds, of their presets and of the plugins' entry points, found without importing one of them."""
    from importlib.metadata import entry_points

    names: set[str] = {point.name for point in entry_points(group="gumdrop.worlds")}
    for file in (Path(__file__).parent / "worlds").glob("**/*.py"):
        names.update(_DECLARED.findall(file.read_text(encoding="utf-8")))
    return sorted(names)


def register_ids(worlds: Iterable[str]) -> None:
    """Register `gym_id(world)` for each name with Gymnasium; ids that it knows already stay as they are."""
    from gymnasium.envs.registration import register, registry

    for world in worlds:
        if gym_id(world) not in registry:
            # no max_episode_steps: the time limit is the world's option, truncation the engine's work
            register(
                gym_id(world),
                entry_point="gumdrop.envs.views.gym_view:GymView",
                vector_entry_point="gumdrop.envs.views.vector_view:VectorView",
                kwargs={"world": world},
            )


class _AfterGymnasium:
    """Import hook that registers our ids the moment somebody imports Gymnasium, and is gone.

    Importing Gymnasium ourselves would cost every `gumdrop --help` a tenth of a second.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "gymnasium":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: Any) -> None:
                execute(module)
                register_ids(declared_worlds())

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]  # of this one loader object
        return spec


def announce() -> None:
    """Make our ids known to Gymnasium: now if it is imported already, else as soon as it is."""
    if "gymnasium" in sys.modules:
        register_ids(declared_worlds())
    elif not any(isinstance(finder, _AfterGymnasium) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterGymnasium())
