"""`gumdrop agent`: the agents that there are, and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, Refused, RunsFolder, check_out, emit, find_run, only_json, table


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
    name: Annotated[str, typer.Argument(metavar="NAME|RUN", help="An agent, or a run (name or path).")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.png", help="Draw what a tabular run learned: PNG, SVG or PDF.")
    ] = None,
    directory: RunsFolder = Path("runs"),
    json: Json = False,
) -> None:
    """Show an agent's options with their defaults; or a run's agent, a tabular one with its values and greedy policy."""
    from ..agents.core import agents
    from .env import first_line, option_rows

    known = agents()
    if name not in known:
        show_run(find_run(name, directory, [*known]), out, json)
        return
    if out is not None:
        raise Refused(
            f"{name} is an agent that has learned nothing, so there is nothing to draw: name a run, or leave out --out"
        )
    cls = known[name]
    rows = option_rows(cls.Config, {})
    if json:
        emit({"name": name, "description": first_line(cls), "options": rows})
        return
    print(f"{name}: {first_line(cls)}\n")
    table(
        [[r["name"], r["value"], r["type"], r["description"]] for r in rows],
        ("option", "default", "type", "meaning"),
    )


def show_run(folder: Path, out: Path | None, json: bool) -> None:
    from ..agents.core import agent_config, agents
    from ..agents.runtime.compare import run_name
    from ..agents.tabular import show as tabular
    from ..envs import portrait
    from .env import first_line, option_rows

    if out is not None:
        check_out(out, portrait.SUFFIXES)
    with only_json(json):
        shown = tabular.show(folder)
    document = shown.document
    name = document["agent"]
    cls = agents()[name]
    rows = option_rows(cls.Config, dict(agent_config(name, document["options"])))
    if out is not None:
        if shown.picture is None:
            raise Refused(f"run {run_name(folder)} has no table over a board, so there is nothing to draw: leave out --out")
        portrait.save(out, shown.picture, f"{name} in {document['env']['id']}", "learned value")
    if json:
        emit({"run": run_name(folder), "description": first_line(cls), **document, "options": rows})
        return
    print(f"{run_name(folder)}: {name} in {document['env']['id']}. {first_line(cls)}\n")
    table([[r["name"], r["value"], r["default"], r["description"]] for r in rows], ("option", "value", "default", "meaning"))
    if "met" in document:
        print(f"\nobservations met: {document['met']:,}")
    if document["text"]:
        print(f"\n{document['text']}")
    if out is not None:
        print(f"\n{out}: the picture")
