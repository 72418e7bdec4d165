"""`gumdrop env`: the worlds that there are, their options, checks and exact solutions."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import complete
from .common import Json, Plugins, Refused, Seed, check_env, check_out, emit, figure, only_json, table

Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="A world, or any Gymnasium id.",
        autocompletion=complete.worlds,
    ),
]
Words = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options.", show_default=False)]


def list(plugin: Plugins = None, json: Json = False) -> None:
    """List all worlds, and the plugins that could not be loaded with their reason."""
    from ..envs import registry
    from ..envs.names import PluginError

    about = {id: (id, first_line(cls)) for id, cls in registry.worlds().items()}
    about |= {id: (cls.name, preset.about) for id, (cls, preset) in registry.presets().items()}
    rows, broken = [], [*registry.plugin_errors()]
    for id, (world, text) in sorted(about.items(), key=lambda item: (item[1][0], item[0] != item[1][0], item[0])):
        try:
            rows.append(describe(registry.make_world(id), text, world, id))
        except Exception as error:  # of a stranger's world: it is listed, and harms no other
            broken.append(PluginError(id, f"{type(error).__name__}: {error}"))
    if json:
        emit({"worlds": rows, "broken": broken})
        return
    header = ("id", "observation", "actions", "agents", "solver", "description")
    for row in rows:
        row["id"] = row["id"] if row["id"] == row["world"] else f"  {row['id']}"
    table([[*(r[key] for key in header[:4]), r["solver"] or "no", r["description"]] for r in rows], header)
    for failed in broken:
        print(f"broken plugin {failed.name}: {failed.reason}")
    print("Indented: presets of the world above. Gymnasium ids work too, e.g. CartPole-v1, and module:Id, also of PettingZoo.")


def describe(world: Any, about: str, family: str, id: str) -> dict[str, Any]:
    """One row of the list; nothing is compiled."""
    return {
        "id": id,
        "world": family,
        "observation": space(world.observation_space),
        "actions": space(world.action_space),
        "agents": world.num_agents,
        "solver": world.solver,
        "description": about,
    }


def first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def space(value: Any) -> str:
    """A space in a few characters: `uint8 (7, 7)`, `5 actions`."""
    if hasattr(value, "n"):
        return f"{value.n} discrete"
    return f"{value.dtype} {tuple(value.shape)}" if value.shape is not None else type(value).__name__


def show(
    id: Id,
    words: Words = None,
    seed: Seed = 0,
    steps: Annotated[int, typer.Option("--steps", min=0, max=100_000, help="Random steps before the picture.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.png", help="Draw the picture to a file.")] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Show an environment: its options, its spaces and a picture of a first state."""
    from ..configs.loader import parse_options
    from ..envs import registry
    from ..envs.checks.conformance import random_actions
    from ..envs.draw import render
    from ..envs.make import make
    from ..envs.names import is_external

    options = parse_options(words or [], "env.")
    if out is not None:
        check_out(out, (".png",))
    with only_json(json):
        check_env(id, options)
        batch = make(id, options, num_envs=1, seed=seed, threads=1)
        for action in random_actions(batch, steps, seed):
            batch.step(action)
        picture = render.text(batch, 0)
    if out is not None:
        from PIL import Image

        Image.fromarray(render.rgb(batch, 0)).save(out)
    external = is_external(id)
    world = None if external else registry.make_world(id, options)
    cls = None if world is None else type(world)
    fields = [] if cls is None or world is None else option_rows(cls.Config, dict(world.config))
    preset = registry.presets().get(id)
    document = {
        "id": id,
        "preset": None if preset is None else preset[1].about,
        "description": "" if cls is None else " ".join((cls.__doc__ or "").split()),
        "options": fields,
        "observation": str(batch.observation_space),
        "actions": str(batch.action_space),
        "agents": batch.num_agents,
        "picture": picture,
    }
    batch.close()
    if json:
        emit(document)
        return
    if preset:
        print(f"{id}, a setting of {preset[0].name}: {preset[1].about}")
    print(f"{id if world is None else world.name}: {document['description'] or 'an external environment'}\n")
    if fields:
        table(
            [[f["name"], f["value"], f["type"], f["description"]] for f in fields],
            ("option", "value", "type", "meaning"),
        )
        print()
    print(f"observation  {document['observation']}\nactions      {document['actions']}")
    print(f"agents       {document['agents']}\n\n{f'after {steps} random steps' if steps else 'a first state'}:\n{picture}")
    if out is not None:
        print(f"\n{out}: the picture")


def option_rows(config: Any, given: dict[str, Any]) -> Any:
    """Options of a pydantic class as rows: name, value (given or default), default, type, description."""
    rows = []
    for name, field in config.model_fields.items():
        annotation = field.annotation
        kind = annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
        kind = kind.replace("typing.", "").replace("Literal", "one of ")
        default = field.get_default(call_default_factory=True)
        rows.append(
            {
                "name": name,
                "value": given.get(name, default),
                "default": default,
                "type": kind + "".join(_bound(m) for m in field.metadata),
                "description": field.description or "",
            }
        )
    return rows


def _bound(constraint: Any) -> str:
    signs = {"ge": " >= ", "gt": " > ", "le": " <= ", "lt": " < "}
    return "".join(f",{sign}{getattr(constraint, k)}" for k, sign in signs.items() if hasattr(constraint, k))


def check(id: Id, words: Words = None, plugin: Plugins = None, json: Json = False) -> None:
    """Check that an environment keeps its contract; exit status 1 if it does not."""
    from ..configs.loader import parse_options
    from ..envs.checks.conformance import check_world
    from .common import check_env

    options = parse_options(words or [], "env.")
    check_env(id, options)
    with only_json(json):
        results = check_world(id, options)
    good = all(result.ok for result in results)
    if json:
        emit({"id": id, "ok": good, "checks": results})
    else:
        table([["ok  " if r.ok else "FAIL", r.name, r.detail] for r in results])
        print(f"{id}: {'all' if good else sum(bool(r.ok) for r in results)} of {len(results)} checks hold")
    if not good:
        raise typer.Exit(1)


def solve(
    id: Id,
    words: Words = None,
    seed: Seed = 0,
    gamma: Annotated[float, typer.Option(help="Discount; below 1 there is no time limit.", min=0.0, max=1.0)] = 1.0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.png", help="Draw the value function: PNG, SVG or PDF.")
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Solve an environment exactly: what a random and what the best agent gets, and what is best where."""
    from ..configs.loader import parse_options
    from ..envs.examine import value_map as value_map
    from ..envs.examine.solution import examine

    options = parse_options(words or [], "env.")
    if out is not None:
        check_out(out, value_map.SUFFIXES)
    check_env(id, options)
    began = last = time.monotonic()

    def progress(done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        live = sys.stderr.isatty()
        if now - began > 2 and now - last > (0.5 if live else 10):
            last = now
            line = f"solving: {done:,}{f' of {of:,}' if of else ''} steps"
            print(f"\r{line}\x1b[K" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)

    with only_json(json):
        solved = examine(id, options, seed, gamma, progress)
    if last > began and sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    result = solved.document
    if out is not None:
        if solved.picture is None:
            raise Refused(f"{id} is solved without states, so there is no value function to draw: leave out --out")
        ends = f"random {figure(result['random'])}, optimal {figure(result['optimal'])}"
        label = "optimal return" if gamma == 1 else f"optimal return, gamma {gamma:g}"
        value_map.save(out, solved.picture, f"{id}: {ends}", label)
    if json:
        emit(result)
        return
    shown = {key: value for key, value in result.items() if isinstance(value, (int, float, str)) and key != "text"}
    table([[key.replace("_", " "), figure(value, 6)] for key, value in shown.items()])
    if result.get("text"):
        print(f"\n{result['text']}")
    if out is not None:
        print(f"\n{out}: the picture")
