"""Names of arrays that checkpoints had before, and have now: the one table that keeps older checkpoints readable.

Whoever renames an array of an agent's state adds a line here.
"""

from __future__ import annotations

import re

from .arrays import Array

PARTS = (  # (pattern in an array's name, what stands there now)
    (re.compile(r"^bonus\.inverse-dynamics/"), "bonus.icm/"),
    (re.compile(r"\bheads\.going_on\."), "heads.continue_."),
)


def current_name(name: str) -> str:
    """The name that an array of an older checkpoint has now."""
    for pattern, new in PARTS:
        name = pattern.sub(new, name)
    return name


def current_names(arrays: dict[str, Array]) -> dict[str, Array]:
    """`arrays` under the names that they have now."""
    return {current_name(name): array for name, array in arrays.items()}
