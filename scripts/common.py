"""What the verbs share: finding runs, checking names before anything is made, printing tables and JSON."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..store.names import CONFIG, GROUP

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of everything random.")]


def _load(ctx: typer.Context, files: list[Path] | None) -> list[Path] | None:
    if files and not ctx.resilient_parsing:
        from ..envs.names import load_plugin_files

        load_plugin_files(files)
    return files


Plugins = Annotated[  # loaded while the command line is read, before names are looked up
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE", is_eager=True, callback=_load,
        help="A Python file that registers worlds, agents or components. May be repeated.",
    ),
]  # fmt: skip
RunsFolder = Annotated[Path, typer.Option("--dir", is_eager=True, help="Folder of all runs.")]


class Refused(ValueError):
    """Something the user asked for cannot be done; the message says why, and the way out."""


def plain(value: Any) -> Any:
    """`value` as JSON knows it: arrays and named tuples as lists and objects, NaN and infinity as null."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def emit(document: Any) -> None:
    """Print the one JSON document of a `--json` command."""
    print(json.dumps(plain(document), ensure_ascii=False, indent=2, allow_nan=False))


@contextlib.contextmanager
def only_json(wanted: bool) -> Iterator[None]:
    """While it lasts, whatever others print goes to stderr, so that stdout holds the document alone."""
    with contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext():
        yield


def table(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> None:
    """Print aligned columns; on a terminal the last one is cut to the width."""
    lines = [[str(cell) for cell in row] for row in ([header, *rows] if header else rows)]
    if not lines:
        return
    widths = [max(len(row[k]) for row in lines) for k in range(len(lines[0]))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for number, row in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        text = text if len(text) <= room else text[: room - 1] + "…"
        print(f"\x1b[1m{text}\x1b[0m" if header and number == 0 and sys.stdout.isatty() else text)


def figure(value: Any, digits: int = 3) -> str:
    """A number for people: 1,024 or 0.934; a dash for nothing."""
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return "-"
    if isinstance(value, float):
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def runs_in(root: Path) -> list[str]:
    """Names of the runs and groups of runs in `root`."""
    try:
        return sorted(path.name for path in root.iterdir() if is_run(path) or is_group(path))
    except OSError:
        return []


def is_run(path: Path) -> bool:
    return _holds(path, CONFIG)


def is_group(path: Path) -> bool:
    """Whether `path` is what `train --seeds` makes: a folder of runs."""
    return _holds(path, GROUP)


def _holds(path: Path, file: str) -> bool:
    try:
        return (path / file).is_file()
    except (OSError, ValueError):
        return False


def find_run(name: str, root: Path, others: Sequence[str] = (), groups: bool = False) -> Path:
    """The folder of run `name`, under `root` or a path. Raises Refused; `others` join the suggestions.

    `groups`: whether a group of runs is wanted, too.
    """
    from ..configs.suggest import suggest

    if name.strip():
        for path in (root / name, Path(name)):
            if is_run(path) or groups and is_group(path):
                return path
            if is_group(path):
                seeds = sorted(run.name for run in path.iterdir() if is_run(run))
                which = f": name one of them, such as {path / seeds[0]}" if seeds else "; none of them has begun"
                raise Refused(f"{path} is a group of runs{which}")
    what = name if len(name) <= 80 else f"{name[:77]}..."
    runs = runs_in(root)
    near = suggest(name[:100], [*runs, *others])
    if near.startswith(": did"):
        raise Refused(f"no run {what!r} in {root}{near}")
    if _exists(name):
        raise Refused(f"{what} is not a run folder: it holds no {CONFIG}")
    if not runs:
        raise Refused(f"no run {what!r}: {root} holds no runs yet; `gumdrop train candy-ppo` makes one")
    raise Refused(f"no run {what!r} in {root}: it holds {', '.join(runs[:8])}{' ...' if len(runs) > 8 else ''}")


def _exists(name: str) -> bool:
    try:
        return bool(name.strip()) and Path(name).exists()
    except (OSError, ValueError):  # too long, or a null byte
        return False


def check_env(id: str, options: dict[str, Any]) -> None:
    """Raise ValueError, one line, if the environment or an option does not exist; nothing is compiled."""
    from ..envs import registry
    from ..envs.names import is_external

    if is_external(id):
        from ..envs.external.apart import probe

        probe(id, options)
    else:
        registry.make_world(id, options)


def check_agent(name: str, options: dict[str, Any]) -> None:
    """Raise ValueError, one line, if the agent or an option does not exist."""
    from ..agents.registry import agent_config

    agent_config(name, options)


def split_words(words: Sequence[str], what: str) -> tuple[str | None, list[str]]:
    """A leading name (or None) and the key=value words after it. Raises Refused for a second name."""
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise Refused(f"{names[1]!r:.80} is not key=value, and the {what} is {names[0]!r:.80} already")
    return (names[0] if names else None), [word for word in words if "=" in word]


def check_out(path: Path, suffixes: Sequence[str]) -> Path:
    """A file to write: refuse other kinds, a folder and a missing parent before any work is done."""
    if path.suffix.lower() not in suffixes:
        raise Refused(f"{str(path)!r:.80}: the name must end with {' or '.join(suffixes)}")
    if path.is_dir():
        raise Refused(f"{path} is a folder: name a file")
    if not path.parent.is_dir():
        raise Refused(f"{path.parent} is not a folder: make it first")
    return path
