"""Many agents in one world under one budget, ranked over training seeds. What is finished is not trained again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...agents.registry import agents, in_leaderboard, make_agent
from ...configs.schema import RunConfig
from ...envs.make import make
from ...store.run_folder import RunFolder
from .. import statistics
from ..run.group import check_seeds
from ..run.machine import git_commit, processor, versions
from .compare import Result, judge
from .groups import check_arms, say_on_stderr, train_arms


class Board(NamedTuple):
    """The document of leaderboard.json, and the algorithms in its order, for drawing."""

    document: dict[str, Any]
    ranked: list[Result]


def leaderboard(
    base: RunConfig,
    seeds: Sequence[int],
    folder: Path,
    names: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    live: bool | None = None,
    say: Callable[[str], None] = say_on_stderr,
) -> Board:
    """Train agents as `base` says, each with all `seeds` in `folder`/NAME, evaluate and rank them; write leaderboard.json.

    `names`: which agents; None takes all registered ones that can play the world, the others are skipped with a reason, as
    are those whose class has `in_leaderboard = False`.
    `options`: of agents, by name. Call it under `if __name__ == "__main__":`, as `train_group`. An agent whose training fails
    costs a line and stands in `failed`. A second call goes on where a first one was stopped. Raises Interrupted after a signal
    (everything is saved first), ValueError for agents named that cannot play, and where `folder` holds another budget.
    """
    check_seeds(base, seeds)
    study = RunFolder(folder)
    if study.is_run or study.is_group:
        raise ValueError(f"{folder} is a run of its own: name another folder")
    configs, skipped = entrants(base, names, options or {})
    if not configs:
        raise ValueError(f"no agent can play {base.env_id}: {'; '.join(f'{name}: {why}' for name, why in skipped.items())}")
    check_arms(configs, seeds, study)
    with study.alone():
        return _play(configs, skipped, list(seeds), study, live, say)


def entrants(
    base: RunConfig, names: Sequence[str] | None, options: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, RunConfig], dict[str, str]]:
    """Configurations of the agents that can be made for the world, and why the others cannot."""
    known = agents()
    wanted = list(dict.fromkeys(known if names is None else names))
    for name in options:
        if name not in wanted:
            raise ValueError(f"options for agent {name}, which does not take part")
    env = make(base.env_id, base.env_options, num_envs=base.num_envs, seed=base.seed)
    configs: dict[str, RunConfig] = {}
    skipped: dict[str, str] = {}
    try:
        for name in wanted:
            if name in known and not in_leaderboard(known[name]) and names is None and name not in options:
                skipped[name] = "it takes part when it is named"
                continue
            config = base.model_copy(update={"agent": {"name": name, **options.get(name, {})}})
            try:
                made = make_agent(name, config.agent_options, env, base.seed)
                update = base.num_envs * made.num_steps
                if update > base.steps:
                    raise ValueError(f"one update takes {update:,} steps, more than steps={base.steps:,}")
            except Exception as error:  # a plugin's agent may fail in any way
                if names is not None or name in options:
                    raise
                line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
                skipped[name] = line.removeprefix(f"agent {name}: ")
            else:
                configs[name] = config
    finally:
        env.close()
    return configs, skipped


def _play(
    configs: dict[str, RunConfig], skipped: dict[str, str], seeds: list[int], study: RunFolder, live: bool | None,
    say: Callable[[str], None],
) -> Board:  # fmt: skip
    for name, why in skipped.items():
        say(f"skipped {name}: {why}")
    failed: dict[str, str] = {}

    def note(name: str, error: Exception) -> None:
        line = next(iter(str(error).strip().splitlines()), "")
        failed[name] = line if isinstance(error, ValueError | ArithmeticError) and line else f"{type(error).__name__}: {line}"
        say(f"{name} failed: {failed[name]}")

    found = train_arms(configs, seeds, study, live, say, note)
    base = next(iter(configs.values()))
    document: dict[str, Any] = {
        "env": base.env, "steps": base.steps, "num_envs": base.num_envs, "seeds": seeds, "episodes": base.eval_episodes,
        "algorithms": [], "skipped": skipped, "failed": failed, "notes": [], "versions": versions(), "git_commit": git_commit(),
        "device": processor(),
    }  # fmt: skip
    found.sort(key=lambda c: -float(statistics.iqm(c.scores)))
    if found:
        document |= judge(found)
        for place, row in enumerate(document["algorithms"]):
            row |= {"rank": place + 1, "overlaps_best": overlaps(row, document["algorithms"][0])}
    study.write_leaderboard(document)
    return Board(document, found)


def overlaps(row: dict[str, Any], best: dict[str, Any]) -> bool | None:
    """Whether the intervals of the two have a point in common; None where one has no interval."""
    a, b = row["iqm"]["ci95"], best["iqm"]["ci95"]
    return None if a is None or b is None else bool(a[1] >= b[0] and b[1] >= a[0])
