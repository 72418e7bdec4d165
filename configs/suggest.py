"""Did you mean: the nearest of the names that are known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str], list_known: bool = True, cutoff: float = 0.5) -> str:
    """': did you mean X?', or the known names, or nothing where they are not to be listed."""
    known = list(known)
    lowered = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name[:100].lower(), lowered, n=1, cutoff=cutoff)
    if near:
        return f": did you mean {lowered[near[0]]}?"
    return f": known are {', '.join(known)}" if list_known else ""
