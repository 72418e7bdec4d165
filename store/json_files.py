"""Small JSON files: written in one motion, read in one of two tempers.

`read_json` and `read_rows` are for pages and live views: what is missing or damaged counts as not there. `require_json` and
`require_rows` are for whoever computes with what stands there: a damaged file is refused in one line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_json(path: Path, notes: list[str] | None = None) -> Row:
    """The JSON object in `path`; {} where it is missing, damaged or something else. Damage adds a sentence to `notes`."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    if notes is not None:
        notes.append(f"{path.name} is damaged and was left out.")
    return {}


def require_json(path: Path) -> Row:
    """The JSON object in `path`, {} where there is no file. Raises ValueError, one line, for a damaged one."""
    return _object(_text(path), path) if path.exists() else {}


def write_json(path: Path, document: Row) -> None:
    """Replace a small JSON file in one motion."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def read_rows(path: Path) -> list[Row]:
    """The sound rows of a JSON-lines file: of a killed run the last line may be cut. No file, no rows."""
    rows = []
    if path.is_file():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                rows.append(row)
    return rows


def require_rows(path: Path) -> list[Row]:
    """All whole rows of a JSON-lines file; a last line without its end does not count. Raises ValueError for a damaged row."""
    lines = _text(path).split("\n")[:-1] if path.exists() else []
    return [_object(line, f"{path} line {number}") for number, line in enumerate(lines, 1)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: damaged, not text") from None


def _object(text: str, what: Path | str) -> Row:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{what}: damaged, not JSON") from None
    if not isinstance(data, dict):
        raise ValueError(f"{what}: damaged, not a JSON object")
    return data
