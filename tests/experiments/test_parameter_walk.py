"""How far one parameter travels: `config` of `train`, counted from the source.

A walk begins at a function's parameter. Wherever the function hands that name on as a whole (an argument of a call, not an
attribute of it; a `model_copy` of it counts), to a function, class or method that the package defines, the walk goes on in
the parameter that receives it. A method that is called on an object counts wherever a class of the package that the calling
file imports has it. The figure is the number of files visited, the first one included.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ("agents", "configs", "core_ml", "envs", "experiments", "native", "scripts", "store")


class Place(NamedTuple):
    file: Path
    function: str  # dotted: Class.method
    parameter: str


class Source:
    """A file's functions, by dotted name, and what its names stand for."""

    def __init__(self, file: Path) -> None:
        self.file = file
        tree = ast.parse(file.read_text())
        self.functions: dict[str, ast.FunctionDef] = {}
        self.imported: dict[str, tuple[Path, str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                for alias in node.names:
                    module = base / f"{alias.name}.py"
                    target = (module, "") if module.exists() else (base.with_suffix(".py"), alias.name)
                    self.imported[alias.asname or alias.name] = target
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node
            elif isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, ast.FunctionDef):
                        self.functions[f"{node.name}.{member.name}"] = member


SOURCES = {file: Source(file) for folder in PACKAGE for file in (ROOT / folder).rglob("*.py")}


def targets(source: Source, inside: str, call: ast.Call) -> list[tuple[Path, str]]:
    """(file, function) that a call may reach within the package."""
    function = call.func
    if isinstance(function, ast.Name):
        file, name = source.imported.get(function.id, (source.file, function.id))
        there = SOURCES.get(file)
        if there is None:
            return []
        return [(file, known) for known in (name, f"{name}.__init__") if known in there.functions]
    if isinstance(function, ast.Attribute):
        if isinstance(function.value, ast.Name) and function.value.id in source.imported:
            file, name = source.imported[function.value.id]
            there = SOURCES.get(file)
            known = f"{name}.{function.attr}" if name else function.attr
            return [(file, known)] if there and known in there.functions else []
        files = {source.file, *(file for file, _ in source.imported.values() if file in SOURCES)}
        return [(f, known) for f in files for known in SOURCES[f].functions if known.endswith(f".{function.attr}")]
    return []


def is_whole(given: ast.expr, parameter: str) -> bool:
    """The parameter itself, or a copy of it with some fields changed (`config.model_copy(...)`)."""
    if isinstance(given, ast.Call) and isinstance(given.func, ast.Attribute) and given.func.attr == "model_copy":
        given = given.func.value
    return isinstance(given, ast.Name) and given.id == parameter


def walk(start: Place) -> set[Place]:
    seen, waiting = {start}, [start]
    while waiting:
        place = waiting.pop()
        source = SOURCES[place.file]
        for call in (node for node in ast.walk(source.functions[place.function]) if isinstance(node, ast.Call)):
            positions = [k for k, given in enumerate(call.args) if is_whole(given, place.parameter)]
            keywords = [k.arg for k in call.keywords if is_whole(k.value, place.parameter)]
            if not positions and not keywords:
                continue
            for file, name in targets(source, place.function, call):
                parameters = [a.arg for a in SOURCES[file].functions[name].args.args]
                parameters = parameters[1:] if parameters[:1] in (["self"], ["cls"]) else parameters
                named = [parameters[k] for k in positions if k < len(parameters)] + [k for k in keywords if k in parameters]
                for parameter in named:
                    arrival = Place(file, name, parameter)
                    if arrival not in seen:
                        seen.add(arrival)
                        waiting.append(arrival)
    return seen


def test_the_configuration_visits_few_files() -> None:
    visited = walk(Place(ROOT / "experiments/run/train.py", "train", "config"))
    files = {str(place.file.relative_to(ROOT)) for place in visited}
    assert "configs/loader.py" in files and "experiments/run/selection.py" in files  # the walk does walk
    assert len(files) <= 12, sorted(files)


def test_a_path_of_a_run_is_handed_to_its_run_folder_alone() -> None:
    """In experiments/run and experiments/study, a parameter `folder` goes to nobody but RunFolder."""
    wrong = []
    for folder in ("experiments/run", "experiments/study"):
        for file in (ROOT / folder).rglob("*.py"):
            if file.name == "wandb_child.py":  # a process of its own, which imports as little as it can
                continue
            for name, function in SOURCES[file].functions.items():
                arguments = [*function.args.args, *function.args.kwonlyargs]
                paths = {a.arg for a in arguments if a.annotation and a.arg == "folder" and "Path" in ast.unparse(a.annotation)}
                for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                    given = [*call.args, *(k.value for k in call.keywords)]
                    if any(isinstance(g, ast.Name) and g.id in paths for g in given) and ast.unparse(call.func) != "RunFolder":
                        wrong.append(f"{file.relative_to(ROOT)}:{call.lineno} {name}: {ast.unparse(call)[:80]}")
    assert not wrong, "\n".join(wrong)
