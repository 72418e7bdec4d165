"""`gumdrop agent`: the agents that there are, and their options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import complete
from .common import Json, Plugins, Refused, RunsFolder, check_out, emit, find_run, only_json, table
from .env import Words


def list(plugin: Plugins = None, json: Json = False) -> None:
    """List all agents."""
    from ..agents.registry import agents, plugin_errors
    from .env import first_line

    rows = [{"name": name, "description": first_line(cls)} for name, cls in agents().items()]
    if json:
        emit({"agents": rows, "broken": plugin_errors()})
        return
    table([[row["name"], row["description"]] for row in rows], ("name", "description"))
    for failed in plugin_errors():
        print(f"broken plugin {failed.name}: {failed.reason}")


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PRESET|FILE|RUN",
            help="An agent, a preset, a YAML file, or a run.",
            autocompletion=complete.agents_presets_and_runs,
        ),
    ],
    words: Words = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.png|FOLDER",
            help="Draw what a run has learned: a table over its board, or its encoder; of a world model a folder of what it "
            "foresees.",
        ),
    ] = None,
    directory: RunsFolder = Path("runs"),
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Show an agent's options with their defaults; the parts of one that a preset or a file describes; or a run's agent, a
    tabular one with its values and greedy policy, one with an encoder by what that makes of observations, one with a world
    model by what that foresees."""
    from ..agents.registry import agents
    from ..configs.loader import presets
    from .env import first_line, option_rows

    known = agents()
    file = Path(name) if name.endswith((".yaml", ".yml")) else None
    if name not in known and (name in presets() or file):
        show_spec(name, file, words or [], out, json)
        return
    if words:
        raise Refused(f"{words[0]!r:.80}: changes go with a preset or a file, {name!r:.80} is neither")
    if name not in known:
        show_run(find_run(name, directory, [*known, *presets()]), out, json)
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


def show_spec(name: str, file: Path | None, words: Sequence[str], out: Path | None, json: bool) -> None:
    """The parts of an agent that has not learned yet."""
    from ..configs.loader import resolve
    from ..envs.names import load_plugin_files
    from ..experiments.analysis.parts import as_rows, outline
    from .common import check_agent, check_env

    if out is not None:
        raise Refused(f"{name} has learned nothing, so there is nothing to draw: name a run, or leave out --out")
    config = resolve(None if file else name, file, [*words], {})
    load_plugin_files(config.plugins)
    check_env(config.env_id, config.env_options)
    check_agent(config.agent_name, config.agent_options)
    parts = outline(config)
    if json:
        emit({"name": name, "agent": config.agent, "env": config.env, "parts": as_rows(parts)})
        return
    print(f"{name}: {config.agent_name} in {config.env_id}\n")
    show_parts(parts)


def show_parts(parts: Sequence[Any]) -> None:
    if not parts:
        print("one piece: it has no slots")
        return
    cells = [[part.slot, part.what, part.gives, f"{part.parameters:,}" if part.parameters else ""] for part in parts]
    table(cells, ("slot", "part", "gives", "parameters"))


def show_run(folder: Path, out: Path | None, json: bool) -> None:
    from ..agents.protocol import Parted
    from ..agents.registry import agent_config, agents
    from ..agents.saved import load_run
    from ..envs.examine import value_map as value_map
    from ..experiments.analysis import parts as slots
    from ..experiments.analysis import tables as tabular
    from ..experiments.analysis.prediction import predict, world_model
    from ..experiments.study.compare import run_name
    from ..store.run_folder import RunFolder
    from .env import first_line, option_rows

    into = out is not None and (not out.suffix or out.is_dir())  # a folder
    if out is not None and not into:
        check_out(out, value_map.SUFFIXES)
    elif out is not None and not (out if out.exists() else out.parent).is_dir():
        raise Refused(f"{out if out.exists() else out.parent} is not a folder: make one, or name a FILE.png")
    with only_json(json):
        shown = tabular.show(folder)
    document = shown.document
    name = document["agent"]
    cls = agents()[name]
    rows = option_rows(cls.Config, dict(agent_config(name, document["options"])))
    agent, config, _ = load_run(folder)
    parts = agent.parts() if isinstance(agent, Parted) else []
    foresees = world_model(agent) is not None
    if out is not None and into:
        if not foresees:
            raise Refused(
                f"run {run_name(RunFolder(folder))} has no world model to fill the folder {out} with: name a FILE.png"
            )
        with only_json(json):
            document["calibration"] = predict(agent, config, out, config.seed)
    elif out is not None:
        sheet = slots.encoder_sheet(agent, config) if shown.picture is None and out.suffix == ".png" else None
        if sheet is not None:
            slots.save_picture(out, sheet)
        elif shown.picture is None:
            has = "no table over a board and no encoder that can draw (as .png)"
            way = "--out FOLDER shows what its world model foresees" if foresees else "leave out --out"
            raise Refused(f"run {run_name(RunFolder(folder))} has {has}, so there is nothing to draw: {way}")
        else:
            value_map.save(out, shown.picture, f"{name} in {document['env']['id']}", "learned value")
    if json:
        emit(
            {
                "run": run_name(RunFolder(folder)),
                "description": first_line(cls),
                **document,
                "options": rows,
                "parts": slots.as_rows(parts),
            }
        )
        return
    print(f"{run_name(RunFolder(folder))}: {name} in {document['env']['id']}. {first_line(cls)}\n")
    table([[r["name"], r["value"], r["default"], r["description"]] for r in rows], ("option", "value", "default", "meaning"))
    if parts:
        print()
        show_parts(parts)
    if "met" in document:
        print(f"\nobservations met: {document['met']:,}")
    if document["text"]:
        print(f"\n{document['text']}")
    if out is not None:
        names = "the picture" if not into else "prediction.gif, calibration.png and calibration.json"
        print(f"\n{out}: {names}")
