"""Names that options had before, and have now: the one table that keeps configuration files of older runs readable.

Whoever renames an option adds a line here. A file, preset or `key=value` that uses the old name works and says the new one.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

# Options of an agent and of the components in its slots, at any depth: old name -> new name.
OPTIONS = {
    "epochs": "update_epochs",
    "minibatches": "num_minibatches",
    "capacity": "buffer_size",
    "until": "freeze_after",
    "epsilon_share": "exploration_fraction",
    "target_every": "target_update_interval",
    "rate_final": "learning_rate_final",
}
# Options of one agent alone: their old names mean something else in components.
OF_AGENT = {
    "dqn": {"heads": "ensemble_size", "prior": "prior_scale"},
    "policy-gradient": {"memory": "buffer_size"},
    "dreamer": {"behaviour": "actor_critic", "dreams": "imagined_batch_size"},
}
# Names of components, by slot.
COMPONENTS = {"bonus": {"inverse-dynamics": "icm"}}


def current(layer: dict[str, Any], where: str = "") -> dict[str, Any]:
    """`layer` of a configuration with every old name replaced; a line on stderr names the new one, once a process.

    Raises ValueError where an old and a new name of the same option are both given.
    """
    agent = layer.get("agent")
    if not isinstance(agent, dict):
        return layer
    table = OPTIONS | OF_AGENT.get(str(agent.get("name")), {})
    renamed = _renamed(agent, table, where, "agent")
    for slot, names in COMPONENTS.items():
        if slot in renamed:
            renamed[slot] = _component(renamed[slot], names, where, slot)
    return {**layer, "agent": renamed}


def _renamed(options: dict[str, Any], table: dict[str, str], where: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in options.items():
        new = table.get(key, key)
        if new != key:
            if new in options:
                raise ValueError(f"{where}{path}.{key} and {path}.{new} are the same option: give {new}")
            _say(f"{where}{path}.{key} is called {path}.{new} now")
        found[new] = _below(value, where, f"{path}.{new}")
    return found


def _below(value: Any, where: str, path: str) -> Any:
    if isinstance(value, dict):
        return _renamed(value, OPTIONS, where, path)
    return [_below(part, where, path) for part in value] if isinstance(value, list) else value


def _component(value: Any, names: dict[str, str], where: str, slot: str) -> Any:
    """`value` of a slot, a name, a mapping with a name or a list of these, with old component names replaced."""
    if isinstance(value, (list, tuple)):
        return [_component(part, names, where, slot) for part in value]
    if isinstance(value, dict):
        return {**value, "name": _component(value["name"], names, where, slot)} if "name" in value else value
    if value in names:
        _say(f"{where}{slot} {value} is called {names[value]} now")
        return names[value]
    return value


@cache
def _say(line: str) -> None:
    print(line, file=sys.stderr)
