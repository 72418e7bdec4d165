"""Many seeds of one configuration: whole runs over worker processes, one pinned to each core, each on one thread.

A worker imports and compiles once, then trains seed after seed. It has a pipe to itself: what several processes share, such
as the lock of a queue, would stay locked when one of them is killed. A seed's run folder is what a single run with `threads=1`
makes, to the same bits; `group.yaml` beside them says what there is to train, `group.json` at the end what came out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ...configs.schema import RunConfig
from ...store.run_folder import RunFolder
from ..live.group_view import GroupLive
from ..statistics import over_seeds
from .machine import git_commit, processor, versions
from .pool import Job, _Pool
from .signals import Interrupted

MOST = 10_000  # seeds of a group


def train_group(
    config: RunConfig,
    seeds: Sequence[int],
    folder: RunFolder | Path,
    live: GroupLive | bool | None = None,
    resume: bool = False,
    evaluate: bool = True,
) -> dict[str, Any]:
    """Train `config` with each of `seeds` in `folder`/seed-N, side by side; with `resume` finish what is unfinished there.

    Call it under `if __name__ == "__main__":`; worker processes import the calling script. `live`: None chooses a view for
    the terminal, False shows nothing. `evaluate`: then also evaluate each seed. Returns what group.json holds: a seed that
    failed has status "failed" and its "error", the others go on. Raises Interrupted after a signal (everything is saved
    first), ValueError where the group cannot be trained so; nothing is left behind then.
    """
    check_seeds(config, seeds)
    group = RunFolder(folder)
    with group.alone():
        if not resume:
            if group.is_run or group.is_group:
                raise ValueError(f"run {group} exists already: resume it, or name another folder")
            group.write_group(config.model_copy(update={"threads": 1}), seeds)
        try:
            return _train_group(config, list(seeds), group, live, resume, evaluate)
        except Interrupted:
            raise
        except BaseException:
            if not resume and not group.has_seeds:  # refused before anything began
                group.remove_group()
            raise


def check_seeds(config: RunConfig, seeds: Sequence[int]) -> None:
    """Raise ValueError, one line, where `config` cannot be trained with `seeds` as a group."""
    if not 1 <= len(seeds) <= MOST:
        raise ValueError(f"{len(seeds):,} seeds: a group has 1 to {MOST:,}")
    if len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**63:
        raise ValueError("seeds: should be different whole numbers from 0 to below 2^63")
    if config.threads > 1:
        raise ValueError(f"threads={config.threads}: each seed of a group works on one core; leave threads away")
    if config.device != "cpu":
        raise ValueError(f"device={config.device}: the seeds of a group work on the processor's cores; train them one by one")


def _train_group(
    config: RunConfig, seeds: list[int], group: RunFolder, live: GroupLive | bool | None, resume: bool, evaluate: bool
) -> dict[str, Any]:
    began = time.monotonic()
    jobs = [_job(config, seed, group.seed(seed), evaluate) for seed in seeds]
    open_jobs = [job for job in jobs if job.train or job.evaluate]
    if resume and not any(job.train for job in jobs) and group.read_group_result().get("status") == "finished":
        raise ValueError(f"run {group} is finished: all {len(seeds)} seeds are trained")
    if live is None:
        span = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {min(seeds)} to {max(seeds)}"
        live = GroupLive(seeds, config.steps, f"{config.agent['name']} on {config.env['id']}, {span}")
    pool = _Pool(open_jobs, None if isinstance(live, bool) else live, begun=resume)
    with pool.view or nullcontext():
        if pool.view:
            for seed in {job.seed for job in jobs} - {job.seed for job in open_jobs}:
                pool.view.state(seed, "done")
        pool.run()
    if pool.stopped:
        raise Interrupted(pool.signum)
    rows = [_row(job, pool.failures.get(job.seed)) for job in jobs]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in ("return", "share_of_optimal")}
    document = {
        "status": "failed" if pool.failures else "finished", "env": config.env_id, "agent": config.agent_name,
        **{name: over_seeds(values) if values else None for name, values in known.items()},
        "interval": "Student t over training seeds", "wall_seconds": time.monotonic() - began, "workers": pool.size,
        "seeds": rows, "versions": versions(), "git_commit": git_commit(), "device": processor(),
    }  # fmt: skip
    group.write_group_result(document)
    return document


def _job(config: RunConfig, seed: int, run: RunFolder, evaluate: bool) -> Job:
    """What is left to do for a seed, by what lies in its folder."""
    name = f"{config.name[:70]}-{run.name}" if config.name else run.name
    config = config.model_copy(update={"seed": seed, "threads": 1, "name": name})
    resume = run.has_checkpoint
    done = resume and run.read_summary().get("status") == "finished"
    episodes = run.read_evaluation().get("episodes")
    known = done and type(episodes) is int and episodes >= config.eval_episodes
    return Job(seed, config, run, not done, resume, evaluate and not known)


def _row(job: Job, error: str | None) -> dict[str, Any]:
    """A seed's figures, from what lies in its folder."""
    summary, evaluation = job.run.read_summary(), job.run.read_evaluation()
    agent = evaluation.get("agent")
    return {
        "seed": job.seed, "run": job.run.name, "status": "failed" if error else summary.get("status", "waiting"),
        "env_steps": summary.get("env_steps"), "seconds": summary.get("seconds"),
        "return": agent.get("mean") if isinstance(agent, dict) else None,
        "share_of_optimal": evaluation.get("share_of_optimal"), **({"error": error} if error else {}),
    }  # fmt: skip
