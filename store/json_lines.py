"""Rows of numbers as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TrackingError(ValueError):
    """The local files cannot be written or continued; the message is one line."""


def encode_row(row: Mapping[str, Any]) -> bytes:
    """One JSON object and a newline: keys in the given order, floats by repr, NaN and infinity as null."""
    return _ENCODE(_plain(row)).encode() + b"\n"


_ENCODE = json.JSONEncoder(allow_nan=False).encode  # json.dumps would make an encoder for each row


def _plain(value: Any) -> Any:
    if type(value) is float:  # nearly all of them are: the questions below take longer than all the rest of a row
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, bool | int | float | str | None) and hasattr(value, "item"):
        value = value.item()  # numpy and torch scalars
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSON-lines file; a half-written last one is left out, no file means no rows.

    Raises:
        TrackingError: names a damaged line before the last.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = line
        if isinstance(row, dict):
            rows.append(row)
        elif row is not None and number < len(lines):
            raise TrackingError(f"{path} line {number} is not a JSON object: delete the line, or the file")
    return rows
