"""Arms of a study: groups of seeds that share a budget, trained one after the other, the finished ones left as they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...configs.schema import RunConfig
from ...store.run_folder import RunFolder
from ..run.group import check_seeds, train_group
from ..run.signals import Interrupted
from .compare import Result, result_of

BUDGET = ("env", "agent", "num_envs", "steps", "eval_episodes")  # what has to be equal for figures to be of one board


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def check_budget(config: RunConfig, seeds: Sequence[int], group: RunFolder) -> None:
    """Refuse a group that was trained with another budget or other options."""
    if not group.is_group:
        return
    there, numbers = group.group()
    pairs = [(name, getattr(there, name), getattr(config, name)) for name in BUDGET]
    for name, old, new in [*pairs, ("seeds", numbers, list(seeds))]:
        if old != new:
            raise ValueError(f"{group} has {name} {_brief(old)}, not {_brief(new)}: one board, one budget: take another --name")


def _brief(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return f"{value[0]} to {value[-1]}" if isinstance(value, list) else str(value)


def finished(group: RunFolder) -> bool:
    """Whether all seeds of a group are trained and evaluated."""
    try:
        return not result_of(group).left_out
    except (OSError, ValueError):
        return False


def train_arms(
    arms: Mapping[str, RunConfig],
    seeds: Sequence[int],
    folder: RunFolder,
    live: bool | None,
    say: Callable[[str], None],
    failed: Callable[[str, Exception], None] | None = None,
) -> list[Result]:
    """Train every arm with all `seeds` in `folder`/ARM, evaluate each seed, and read what came out.

    A second call goes on where a first one was stopped. `failed(arm, error)` is told of an arm whose training fails, and the
    others go on; without it the error is raised. Raises Interrupted after a signal, when everything has been saved.
    """
    found: list[Result] = []
    for k, (arm, config) in enumerate(arms.items()):
        group = folder.arm(arm)
        try:
            if finished(group):
                say(f"{k + 1} of {len(arms)}: {arm} is finished already")
            else:
                say(f"{k + 1} of {len(arms)}: {arm}")
                named = config.model_copy(update={"name": f"{folder.name}-{arm}"[:90]})
                train_group(named, seeds, group, live, resume=group.is_group)
            found.append(result_of(group))
        except Interrupted:
            raise
        except Exception as error:
            if failed is None:
                raise
            failed(arm, error)
    return found


def check_arms(arms: Mapping[str, RunConfig], seeds: Sequence[int], folder: RunFolder) -> None:
    """Refuse, in one line, arms that cannot be trained with `seeds`, or that `folder` holds with another budget."""
    for arm, config in arms.items():
        check_seeds(config, seeds)
        check_budget(config, seeds, folder.arm(arm))
