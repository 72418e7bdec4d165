"""`gumdrop agent`: the agents that there are, and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import Json, check_agent, emit, table


def list(json: Json = False) -> None:
    """List all agents."""
    from ..agents.core import agents, broken_plugins
    from .env import first_line

    rows = [{"name": name, "description": first_line(cls)} for name, cls in agents().items()]
    if json:
        emit({"agents": rows, "broken": broken_plugins()})
        return
    table([[row["name"], row["description"]] for row in rows], ("name", "description"))
    for plugin in broken_plugins():
        print(f"broken plugin {plugin.name}: {plugin.reason}")


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An agent.")],
    json: Json = False,
) -> None:
    """Show an agent's options with their defaults."""
    from ..agents.core import agents
    from .env import first_line, option_rows

    check_agent(name, {})
    cls = agents()[name]
    rows = option_rows(cls.Config, {})
    if json:
        emit({"name": name, "description": first_line(cls), "options": rows})
        return
    print(f"{name}: {first_line(cls)}\n")
    table(
        [[r["name"], r["value"], r["type"], r["description"]] for r in rows],
        ("option", "default", "type", "meaning"),
    )
