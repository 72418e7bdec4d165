"""Arms that share a budget: which have finished, and what is said of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...configs.loader import read_group
from ...configs.schema import RunConfig
from ..run.group import GROUP
from .compare import result_of

BUDGET = ("env", "agent", "num_envs", "steps", "eval_episodes")  # what has to be equal for figures to be of one board


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def check_budget(config: RunConfig, seeds: Sequence[int], folder: Path) -> None:
    """Refuse a group that was trained with another budget or other options."""
    if not (folder / GROUP).exists():
        return
    there, numbers = read_group(folder / GROUP)
    pairs = [(name, getattr(there, name), getattr(config, name)) for name in BUDGET]
    for name, old, new in [*pairs, ("seeds", numbers, list(seeds))]:
        if old != new:
            raise ValueError(
                f"{folder} has {name} {_brief(old)}, not {_brief(new)}: one board, one budget: take another --name"
            )


def _brief(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return f"{value[0]} to {value[-1]}" if isinstance(value, list) else str(value)


def finished(folder: Path) -> bool:
    """Whether all seeds of a group are trained and evaluated."""
    try:
        return not result_of(folder).left_out
    except (OSError, ValueError):
        return False
