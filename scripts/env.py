"""`gumdrop env`: the worlds that there are, their options, checks and exact solutions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .common import Json, Seed, emit, figure, only_json, table

Id = Annotated[str, typer.Argument(metavar="ID", help="A world, or any Gymnasium id.")]
Words = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options.", show_default=False)]


def list(json: Json = False) -> None:
    """List all worlds, and the plugins that could not be loaded with their reason."""
    from ..envs import registry

    rows = [describe(registry.make_world(id), first_line(cls)) for id, cls in registry.worlds().items()]
    named = [describe(registry.make_world(id), preset.about, id) for id, (_, preset) in registry.presets().items()]
    rows = [row for world in rows for row in (world, *(p for p in named if p["world"] == world["id"]))]
    broken = registry.broken_plugins()
    if json:
        emit({"worlds": rows, "broken": broken})
        return
    header = ("id", "observation", "actions", "agents", "solver", "description")
    for row in rows:
        row["id"] = row["id"] if row["id"] == row["world"] else f"  {row['id']}"
    table([[*(r[key] for key in header[:4]), r["solver"] or "no", r["description"]] for r in rows], header)
    for plugin in broken:
        print(f"broken plugin {plugin.name}: {plugin.reason}")
    print("Indented: presets, settings of the world above. Any Gymnasium id works too, e.g. CartPole-v1, and module:Id.")


def describe(world: Any, about: str, id: str = "") -> dict[str, Any]:
    """One row of the list; nothing is compiled."""
    return {
        "id": id or world.name,
        "world": world.name,
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


def show(id: Id, words: Words = None, seed: Seed = 0, json: Json = False) -> None:
    """Show an environment: its options, its spaces and a picture of a first state."""
    from ..configs.loader import parse_options
    from ..envs import registry, render
    from .common import check_env

    options = parse_options(words or [], "env.")
    check_env(id, options)
    batch = registry.make(id, options, num_envs=1, seed=seed, threads=1)
    picture = render.text(batch, 0)
    foreign = registry.is_foreign(id) and not id.startswith("gumdrop")
    world = None if foreign else registry.make_world(id, options)
    cls = None if world is None else type(world)
    fields = [] if cls is None or world is None else option_rows(cls.Config, dict(world.config))
    document = {
        "id": id,
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
    print(f"{id}: {document['description']}\n" if cls else f"{id}: a Gymnasium environment\n")
    if fields:
        table(
            [[f["name"], f["value"], f["type"], f["description"]] for f in fields],
            ("option", "value", "type", "meaning"),
        )
        print()
    print(f"observation  {document['observation']}\nactions      {document['actions']}")
    print(f"agents       {document['agents']}\n\na first state:\n{picture}")


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


def check(id: Id, words: Words = None, json: Json = False) -> None:
    """Check that an environment keeps its contract; exit status 1 if it does not."""
    from ..configs.loader import parse_options
    from ..envs.checks import check_world
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


def solve(id: Id, words: Words = None, seed: Seed = 0, json: Json = False) -> None:
    """Solve an environment exactly: what a random and what the best agent gets."""
    from ..configs.loader import parse_options
    from ..envs.solve import solve_world
    from .common import check_env

    options = parse_options(words or [], "env.")
    check_env(id, options)
    with only_json(json):
        result = solve_world(id, options, seed)
    if json:
        emit(result)
        return
    shown = {key: value for key, value in result.items() if isinstance(value, (int, float, str)) and key != "text"}
    table([[key.replace("_", " "), figure(value, 6)] for key, value in shown.items()])
    if result.get("text"):
        print(f"\n{result['text']}")
