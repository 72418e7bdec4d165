"""Rows of numbers as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


class TrackingError(ValueError):
    """The local files cannot be written or continued; the message is one line."""


def encode_row(row: Mapping[str, Any]) -> bytes:
    """One JSON object and a newline: keys in the given order, floats by repr, NaN and infinity as null."""
    return _ENCODE(plain(row)).encode() + b"\n"


_ENCODE = json.JSONEncoder(allow_nan=False).encode  # json.dumps would make an encoder for each row


def plain(value: Any) -> Any:
    """`value` as JSON knows it: numpy and torch scalars as numbers, NaN and infinity as null."""
    if type(value) is float:  # nearly all of them are: the questions below take longer than all the rest of a row
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if not isinstance(value, bool | int | float | str | None) and hasattr(value, "item"):
        value = value.item()  # numpy and torch scalars
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
