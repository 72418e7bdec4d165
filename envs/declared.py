"""Names of worlds, their presets and agents, read from the syntax trees of their files: a tenth of the time of importing them.

A world's name is the argument of its class decorator `@world(...)`; its presets' names are the keys of the class attribute
`presets`, a dictionary display or a constant that is one, of the same file or imported from another one. What a tree does not
show, such as a name that is computed, is found by importing the worlds.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "worlds"


class Unreadable(Exception):
    """A name that the syntax tree does not show."""


def declared_worlds(folder: Path | None = None) -> list[str]:
    """Names of our worlds, of their presets and of the plugins' entry points; no world is imported unless it must be.

    `folder`: where worlds are, if not in `envs/worlds`.
    """
    from importlib.metadata import entry_points

    try:
        found = _names_in(FOLDER if folder is None else folder, "world")
    except (Unreadable, SyntaxError):
        from .registry import presets, worlds

        found = {*worlds(), *presets()}
    return sorted(found | {point.name for point in entry_points(group="gumdrop.worlds")})


def declared(folder: Path, decorator: str) -> set[str]:
    """Names in the class decorators `@decorator("name")` of all files under `folder`. Those that are computed are left out."""
    return _names_in(folder, decorator, lenient=True)


def _names_in(folder: Path, decorator: str, lenient: bool = False) -> set[str]:
    names: set[str] = set()
    for file in sorted(folder.glob("**/*.py")):
        lines = file.read_text(encoding="utf-8").splitlines()
        if any(decorator in line and line.lstrip().startswith("@") for line in lines):  # other files need no tree
            for node in ast.walk(_tree(file)):
                if isinstance(node, ast.ClassDef):
                    try:
                        names |= _names_of(node, file, decorator)
                    except Unreadable:
                        if not lenient:
                            raise
    return names


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _names_of(node: ast.ClassDef, file: Path, decorator: str) -> set[str]:
    """Names that a class declares: none without the decorator."""
    calls = [call for call in node.decorator_list if isinstance(call, ast.Call) and _last_word(call.func) == decorator]
    names = {_text((call.args or [keyword.value for keyword in call.keywords])[0]) for call in calls}
    presets = _assigned(node.body, "presets") if names else None
    return names if presets is None else names | _keys(presets, file)


def _last_word(node: ast.expr) -> str:
    """`world` of `world` and of `registry.world`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise Unreadable


def _assigned(body: list[ast.stmt], name: str) -> ast.expr | None:
    """What `name = ...` in `body` assigns; the last one counts."""
    found = None
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            found = node.value  # type: ignore[attr-defined]
    return found


def _keys(node: ast.expr, file: Path) -> set[str]:
    """The keys of a dictionary, given as an expression in `file`."""
    if isinstance(node, ast.Dict):
        plain = {_text(key) for key in node.keys if key is not None}
        spread = [value for key, value in zip(node.keys, node.values, strict=True) if key is None]  # **other
        return plain.union(*(_keys(value, file) for value in spread))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _keys(node.left, file) | _keys(node.right, file)
    if isinstance(node, ast.Name):
        return _keys_of_name(node.id, file)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):  # config.PRESETS
        return _keys_of_name(node.attr, _imported(node.value.id, file)[0])
    raise Unreadable


def _keys_of_name(name: str, file: Path) -> set[str]:
    value = _assigned(_tree(file).body, name)
    if value is not None:
        return _keys(value, file)
    source, original = _imported(name, file)
    return _keys_of_name(original, source)


def _imported(name: str, file: Path) -> tuple[Path, str]:
    """The file that `from .x import name` or `from . import name` in `file` reads, and the name there."""
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    folder = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                    for source in (folder.with_suffix(".py"), folder / f"{alias.name}.py", folder / "__init__.py"):
                        if source.is_file():
                            return source, alias.name
    raise Unreadable
