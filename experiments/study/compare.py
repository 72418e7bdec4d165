"""Runs beside each other: single ones as they are, groups of seeds as algorithms with intervals over their training seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...configs.schema import RunConfig
from ...store.numbers import finite
from ...store.run_folder import RunFolder
from .. import statistics
from ..live.lines import distinct_names
from ..statistics import Estimate

ENDED_WELL = "finished"


class Seed(NamedTuple):
    """One training seed that counts."""

    seed: int
    folder: Path
    score: float  # mean return over its held-out episodes
    share: float | None  # of the optimum of those episodes
    random: float | None  # mean returns of random actions and of the optimum on those episodes
    optimal: float | None
    meaning: str
    episodes: tuple[Any, Any]  # which ones: their number and the seed they come from
    env_steps: int
    seconds: float


class Result(NamedTuple):
    """An algorithm: its configuration and all its seeds. A single run is one with one seed."""

    name: str
    folder: Path
    config: RunConfig
    seeds: list[Seed]
    left_out: list[tuple[int, str]]  # seeds that do not count, and why: "failed", "running", "has not begun", ...

    @property
    def scores(self) -> list[float]:
        return [seed.score for seed in self.seeds]


# ---- reading ----


def result_of(folder: RunFolder | Path) -> Result:
    """What a group, or a run, says of its seeds. Raises ValueError, one line, for damaged files and seeds not evaluated."""
    group = RunFolder(folder)
    if group.is_group:
        config, numbers = group.group()
        runs = [(number, group.seed(number)) for number in numbers]
    else:
        config = group.config()
        runs = [(config.seed, group)]
    seeds, left_out = [], []
    for number, run in runs:
        summary = run.require_summary()
        status = str(summary.get("status") or "has not begun")
        if status == ENDED_WELL:
            seeds.append(_seed(number, run, summary))
        else:
            left_out.append((number, "has not ended" if status == "running" else status))
    if not seeds:
        what = "none of its seeds is finished" if group.is_group else "it is not finished"
        raise ValueError(f"{folder}: {what}: `gumdrop resume {folder}` goes on")
    return Result(group.name, group.path, config, seeds, left_out)


def _seed(number: int, run: RunFolder, summary: dict[str, Any]) -> Seed:
    path, evaluation = run.evaluation_path, run.require_evaluation()
    if not evaluation:
        raise ValueError(f"{run} is not evaluated: `gumdrop eval {run}` does it")
    agent, random, optimal = (evaluation.get(key) for key in ("agent", "random", "optimal"))
    score = finite(agent.get("mean")) if isinstance(agent, dict) else None
    if score is None:
        raise ValueError(f"{path}: the agent's mean return is no finite number: `gumdrop eval {run}` evaluates it again")
    by_chance = finite(random.get("mean")) if isinstance(random, dict) else None
    exact, steps = finite(evaluation.get("random_exact")), finite(summary.get("env_steps"))
    return Seed(
        number, run.path, score, finite(evaluation.get("share_of_optimal")), by_chance if exact is None else exact,
        finite(optimal.get("mean")) if isinstance(optimal, dict) else None,
        str(optimal.get("meaning") or "") if isinstance(optimal, dict) else "",
        (evaluation.get("episodes"), evaluation.get("seed")), round(steps or 0), finite(summary.get("seconds")) or 0.0,
    )  # fmt: skip


def results(folders: Sequence[Path]) -> list[Result]:
    """Read all of them under names that differ. Raises ValueError as `result_of`, and where their worlds differ."""
    found = [result_of(folder) for folder in folders]
    first = found[0]
    for other in found[1:]:
        if _world(other.config) != _world(first.config):
            raise ValueError(
                f"{first.folder} was trained in {_shown(first.config)}, {other.folder} in {_shown(other.config)}: "
                "algorithms are compared in one world"
            )
    names = [c.name for c in found]
    distinct = distinct_names(names, [f"{c.folder.resolve().parent.name}/{c.name}" for c in found])
    return [c._replace(name=name) for c, name in zip(found, distinct, strict=True)]


def _world(config: RunConfig) -> object:
    """Equal for equal worlds, whether or not a default is written out."""
    from ...envs.registry import make_world

    try:
        world = make_world(config.env_id, config.env_options)
    except ValueError:  # another library's, or one that is gone
        return config.env
    return type(world), world.config.model_dump()


def _shown(config: RunConfig) -> str:
    options = ", ".join(f"{key}={value}" for key, value in config.env_options.items())
    return f"{config.env_id}({options})" if options else config.env_id


# ---- judging ----


def compare_results(found: Sequence[Result], seed: int = 0) -> dict[str, Any]:
    """Interquartile means over training seeds with intervals, each beside the first one. All resampling comes from `seed`."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return {
        "env": found[0].config.env,
        "algorithms": [_judged(c, found[0], rng) for c in found],
        "notes": notes(found),
        "statistics": {
            "score": "mean return over held-out episodes", "over": "training seeds", "level": statistics.LEVEL,
            "interval": "stratified bootstrap, expanded percentiles", "resamples": statistics.RESAMPLES, "seed": seed,
        },
    }  # fmt: skip


def _judged(c: Result, first: Result, rng: np.random.Generator) -> dict[str, Any]:
    shares = [seed.share for seed in c.seeds if seed.share is not None]
    beside = c is not first
    return {
        "name": c.name, "agent": c.config.agent_name, "options": c.config.agent_options,
        "seeds": [seed.seed for seed in c.seeds], "scores": c.scores,
        "left_out": [{"seed": number, "why": why} for number, why in c.left_out],
        "iqm": _figure(statistics.interval(c.scores, rng)),
        "mean": _figure(statistics.interval(c.scores, rng, statistics.mean)),
        "improvement": _figure(statistics.improvement(c.scores, first.scores, rng)) if beside else None,
        "difference": _figure(statistics.difference(c.scores, first.scores, rng)) if beside else None,
        "share_of_optimal": _figure(statistics.interval(shares, rng)) if len(shares) == len(c.seeds) else None,
        "env_steps": round(_mean([seed.env_steps for seed in c.seeds])), "seconds": _mean([seed.seconds for seed in c.seeds]),
    }  # fmt: skip


def _figure(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "ci95": list(estimate.ci95) if estimate.ci95 else None}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def notes(found: Sequence[Result]) -> list[str]:
    """What a reader of the table must know before believing it."""
    said = []
    for c in found:
        count = len(c.seeds) + len(c.left_out)
        if c.left_out:
            why = ", ".join(f"seed {number} {reason}" for number, reason in c.left_out[:3])
            more = ", ..." if len(c.left_out) > 3 else ""
            said.append(
                f"{c.name}: {len(c.left_out)} of {count} seeds left out ({why}{more}): "
                "those that remain may look better than the algorithm is"
            )
        if len(c.seeds) == 1:
            said.append(f"{c.name}: one training seed: no interval over seeds")
        elif len(c.seeds) < statistics.FEW:
            said.append(f"{c.name}: {len(c.seeds)} training seeds: intervals of fewer than {statistics.FEW} are too short")
    budgets = {c.name: c.config.steps for c in found}
    if len(set(budgets.values())) > 1:
        said.append(f"budgets differ: {', '.join(f'{name} {steps:,} steps' for name, steps in budgets.items())}")
    if len({seed.episodes for c in found for seed in c.seeds}) > 1:
        said.append("not all seeds were evaluated on the same episodes: `gumdrop eval` with one --episodes and --seed mends it")
    return said


# ---- single runs ----


def run_name(run: RunFolder) -> str:
    """What a run is called in a table; the name of its group stands before a seed's."""
    return f"{run.parent.name}/{run.name}" if run.parent.is_group else run.name


def row(folder: Path) -> dict[str, Any]:
    """What a run folder says of its run; missing files leave None. Raises ValueError for damaged ones."""
    run = RunFolder(folder)
    config, summary, evaluation = run.config(), run.require_summary(), run.require_evaluation()
    rows = run.require_metrics()
    last = rows[-1] if rows else {}
    returns = [row["return_mean"] for row in rows if "return_mean" in row]
    agent = evaluation.get("agent")
    agent = agent if isinstance(agent, dict) else {}
    return {
        "run": run_name(run),
        "env": config.env["id"], "agent": config.agent["name"], "seed": config.seed, "status": summary.get("status"),
        "env_steps": last.get("env_steps", summary.get("env_steps")), "seconds": summary.get("seconds"),
        "return_last": returns[-1] if returns else None, "evaluated": agent.get("mean"), "ci95": agent.get("ci95"),
        "share_of_optimal": evaluation.get("share_of_optimal"), "yardstick": summary.get("yardstick"),
    }  # fmt: skip
