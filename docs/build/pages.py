"""Pages of the site that are made from the registers: mkdocs runs this file as a hook, so that no table goes stale.

A page says where a table goes with a comment on a line of its own: `<!-- agents -->`, `<!-- agent: ppo -->`, `<!-- worlds -->`,
`<!-- world: maze -->`,
`<!-- components: encoder -->`, `<!-- component options: encoder -->`, `<!-- decisions -->`, `<!-- curve: ppo -->`,
`<!-- source: examples/reinforce.py -->`. Every registered agent and world that no
page under docs/agents or docs/worlds is named after gets a page that is made here, and a place in the navigation.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parents[1]
MARK = re.compile(
    r"^<!-- (agents|worlds|decisions|api|source|agent|world|curve|components|component options)(?:: ([\w./-]+))? -->$",
    re.MULTILINE,
)
PLAIN = {
    bool: "true / false",
    int: "whole number",
    float: "number",
    str: "text",
    type(None): "none",
    Path: "path",
    Any: "anything",
}
FAMILIES = {  # what a folder of `agents/` holds, in the order of the table
    "bandit": "Bandits: learn within an episode",
    "tabular": "Tables: one row for each observation",
    "deep": "Networks",
    "model_based": "World models",
    "safe": "Guards",
    "bridges": "stable-baselines3 and sb3-contrib",
    "random": "Baseline",
}
GUIDES = {  # the guide of a family
    "bandit": "agents/bandits.md",
    "tabular": "agents/tabular.md",
    "model_based": "agents/world-models.md",
    "safe": "agents/detectors.md",
    "bridges": "agents/stable-baselines3.md",
}


# ---- what the registers know ----


@functools.cache
def agents() -> dict[str, type[Any]]:
    from gumdrop.agents.registry import agents as registered

    return {name: cls for name, cls in registered().items() if cls.__module__.startswith("gumdrop.agents.")}


@functools.cache
def worlds() -> dict[str, type[Any]]:
    from gumdrop.envs.registry import worlds as registered

    return {name: cls for name, cls in registered().items() if cls.__module__.startswith("gumdrop.envs.")}


def family(cls: type[Any]) -> str:
    return cls.__module__.split(".")[2]


def source(cls: type[Any]) -> str:
    return cls.__module__.removeprefix("gumdrop.").replace(".", "/") + ".py"


def sentence(cls: type[Any]) -> str:
    """The first sentence of a docstring."""
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    found = re.match(r"(.+?[.:])(?= [A-Z]|$)", text)
    return cell((found.group(1) if found else text).rstrip(":"))


def paragraphs(cls: type[Any]) -> str:
    return inspect.getdoc(cls) or ""


# ---- tables ----


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("][", "\\]\\[").replace("\n", " ")


def kind(annotation: Any) -> str:
    """A type as people write it: `encoder or none`, `fast / slow`, `number`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return kind(args[0])
    if origin is Literal:
        return " / ".join(str(value) for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(kind(arg) for arg in args))
    if origin in (tuple, list):
        return "list of " + kind(next((arg for arg in args if arg is not Ellipsis), Any))
    if origin is dict:
        return "mapping"
    if annotation is Any:
        return "anything"
    if annotation in PLAIN:
        return PLAIN[annotation]
    name = getattr(annotation, "__name__", str(annotation))
    return "component" if name == "Part" else name.removesuffix("Part").lower() if name.endswith("Part") else name.lower()


def value(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, BaseModel):
        return str(getattr(default, "name", "see below"))
    if isinstance(default, (list, tuple)):
        return "[" + ", ".join(value(item) for item in default) + "]"
    return f"{default:g}" if isinstance(default, float) else str(default)


def options(config: type[BaseModel], leave_out: tuple[str, ...] = ()) -> str:
    rows = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for name, field in config.model_fields.items():
        if name in leave_out:
            continue
        bounds = [bound(item) for item in field.metadata]
        what = cell(" ".join([kind(field.annotation), *filter(None, bounds)]))
        default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
        given = "required" if default is PydanticUndefined else f"`{value(default)}`"
        rows.append(f"| `{name}` | {what} | {cell(given)} | {cell(field.description or '')} |")
    return "\n".join(rows) if len(rows) > 2 else "No options."


def bound(constraint: Any) -> str:
    for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if hasattr(constraint, attribute):
            limit = getattr(constraint, attribute)
            return "" if abs(limit) > 1e9 else f"{sign} {limit:,}" if isinstance(limit, int) else f"{sign} {limit:g}"
    return ""


def curve(name: str, page: str) -> str:
    """The learning curve of an agent or a world, where `make docs-curves` has drawn one."""
    picture = DOCS / "images" / "curves" / f"{name}.svg"
    if not picture.is_file():
        return ""
    import json

    drawn = json.loads((DOCS / "results" / "curves.json").read_text())["curves"][name]
    up = "../" * page.count("/")
    return (
        f"## Between random and optimal\n\n"
        f"![Learning curve of {name} between random and optimal]({up}images/curves/{name}.svg){{ .curve }}\n\n"
        f"{drawn['caption']} Made by `{drawn['command']}`, seeds {', '.join(map(str, drawn['seeds']))}; "
        f"figures in [curves.json]({up}results/curves.json), drawn by `make docs-curves`.\n"
    )


def agent(name: str, page: str) -> str:
    cls = agents()[name]
    return (
        f"{curve(name, page)}\n## Options of `{name}`\n\nIn a configuration: `agent.OPTION=VALUE`.\n\n{options(cls.Config)}\n"
    )


def world(name: str, page: str) -> str:
    cls = worlds()[name]
    text = f"{curve(name, page)}\n## Options of `{name}`\n\nIn a configuration: `env.OPTION=VALUE`.\n\n{options(cls.Config)}\n"
    if cls.presets:
        rows = ["| id | what it is | options |", "|---|---|---|"]
        for id, preset in cls.presets.items():
            given = " ".join(f"{key}={value(item)}" for key, item in preset.options.items())
            shown = cell(given) if len(given) < 120 else f"see `gumdrop env show {id}`"
            rows.append(f"| `{id}` | {cell(preset.about)} | {shown} |")
        text += f"\n## Presets of `{name}`\n\n" + "\n".join(rows) + "\n"
    return text


def agent_table(page: str) -> str:
    up, out = "../" * page.count("/"), []
    for folder, title in FAMILIES.items():
        rows = [(name, cls) for name, cls in agents().items() if family(cls) == folder]
        if rows:
            guide = f" ([guide]({up}{GUIDES[folder]}))" if folder in GUIDES else ""
            out += [f"### {title}{guide}", "", "| agent | what it does |", "|---|---|"]
            out += [f"| [`{name}`]({up}agents/{name}.md) | {sentence(cls)} |" for name, cls in rows] + [""]
    return "\n".join(out)


def world_table(page: str) -> str:
    up = "../" * page.count("/")
    rows = ["| world | what it is | presets |", "|---|---|---|"]
    rows += [f"| [`{name}`]({up}worlds/{name}.md) | {sentence(cls)} | {len(cls.presets)} |" for name, cls in worlds().items()]
    return "\n".join(rows)


def component_table(slot: Any) -> str:
    from gumdrop.core_ml.component import components

    rows = ["| name | what it is | file |", "|---|---|---|"]
    for name, entry in components(slot).items():
        fixed = ", ".join(f"{key}={value(item)}" for key, item in entry.fixed.items())
        rows.append(f"| `{name}` | {sentence(entry.cls)}{f' With {fixed}.' if fixed else ''} | `{source(entry.cls)}` |")
    return "\n".join(rows)


def component_options(slot: Any) -> str:
    from gumdrop.core_ml.component import components

    parts = []
    for name, entry in components(slot).items():
        parts.append(f"### `{name}`\n\n{options(entry.cls.Config, tuple(entry.fixed))}\n")
    return "\n".join(parts)


def api() -> str:
    """Directives for mkdocstrings: what `import gumdrop` offers, functions first."""
    import gumdrop

    public = [name for name in getattr(gumdrop, "__all__", []) if not name.startswith("__")]
    parts = []
    for name in sorted(public, key=lambda name: (name[0].isupper(), name)):
        door = importlib.import_module("gumdrop.experiments.api")
        module = door.__name__ if hasattr(door, name) else getattr(gumdrop, name).__module__
        parts.append(f"::: {module}.{name}\n")
    return "\n".join(parts)


def decision_list() -> str:
    lines = []
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = path.read_text().splitlines()[0].lstrip("# ").split(maxsplit=1)
        lines.append(f"- [{title[0].rstrip(':')}]({path.name}) {title[1]}")
    return "\n".join(lines)


# ---- what mkdocs calls ----


def made() -> dict[str, str]:
    """Pages that no file holds, by their path under docs/."""
    pages = {}
    for name, cls in agents().items():
        path = f"agents/{name}.md"
        if not (DOCS / path).is_file():
            guide = GUIDES.get(family(cls))
            see = f"Guide: [{FAMILIES[family(cls)].split(':')[0]}](../{guide}). " if guide else ""
            pages[path] = f"# {name}\n\n{paragraphs(cls)}\n\n{see}Source: `{source(cls)}`.\n\n<!-- agent: {name} -->\n"
    for name, cls in worlds().items():
        path = f"worlds/{name}.md"
        if not (DOCS / path).is_file():
            pages[path] = f"# {name}\n\n{paragraphs(cls)}\n\nSource: `{source(cls)}`.\n\n<!-- world: {name} -->\n"
    return pages


def on_config(config: Any) -> Any:
    listed = str(config["nav"])
    every = [{name: f"agents/{name}.md"} for name in agents() if f"agents/{name}.md" not in listed]
    decisions: list[Any] = ["decisions/index.md"]
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        decisions.append({path.read_text().splitlines()[0].lstrip("# "): f"decisions/{path.name}"})
    for section in config["nav"]:
        if "Agents" in section:
            section["Agents"].append({"Every other agent": every})
        if "Reference" in section:
            section["Reference"].append({"Decisions": decisions})
    return config


def on_files(files: Files, config: Any) -> Files:
    for path, text in made().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    path = page.file.src_uri

    def fill(match: re.Match[str]) -> str:
        what, name = match.groups()
        if what == "agents":
            return agent_table(path)
        if what == "worlds":
            return world_table(path)
        if what == "decisions":
            return decision_list()
        if what == "api":
            return api()
        if what == "source":
            return f"```python\n{(DOCS.parent / name).read_text()}```"
        if what == "curve":
            return curve(name, path).replace("## Between random and optimal", f"## Between random and optimal: {name}")
        if what == "agent":
            return agent(name, path)
        if what == "world":
            return world(name, path)
        return component_table(name) if what == "components" else component_options(name)

    return MARK.sub(fill, markdown)
