"""Numbers that come from files, from users or from other libraries."""

from __future__ import annotations

from typing import Any


def finite(value: Any) -> float | None:
    """`value` as a float where it is one finite number, else None: no bool, no text, nothing that would overflow a sum."""
    if isinstance(value, bool | str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 1e100 else None  # a comparison with NaN is false
