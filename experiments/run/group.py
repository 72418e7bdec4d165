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

from ...configs.loader import dump_group
from ...configs.schema import RunConfig
from ...store.json_files import read_json, write_json
from ..live.group_view import GroupLive
from ..statistics import over_seeds
from .lock import one_process, remove_unused
from .machine import git_commit, processor, versions
from .pool import Job, _Pool
from .signals import Interrupted

GROUP, RESULT = "group.yaml", "group.json"
MOST = 10_000  # seeds of a group


def train_group(
    config: RunConfig,
    seeds: Sequence[int],
    folder: Path,
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
    fresh = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with one_process(folder):
            if not resume:
                if any((folder / name).exists() for name in (GROUP, "config.yaml")):
                    raise ValueError(f"run {folder} exists already: resume it, or name another folder")
                (folder / GROUP).write_text(dump_group(config.model_copy(update={"threads": 1}), seeds))
            try:
                return _train_group(config, list(seeds), folder, live, resume, evaluate)
            except Interrupted:
                raise
            except BaseException:
                if not resume and not any(folder.glob("seed-*")):  # refused before anything began
                    (folder / GROUP).unlink()
                raise
    except BaseException:
        if fresh:
            remove_unused(folder)
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
    config: RunConfig, seeds: list[int], folder: Path, live: GroupLive | bool | None, resume: bool, evaluate: bool
) -> dict[str, Any]:
    began = time.monotonic()
    jobs = [_job(config, seed, folder / f"seed-{seed}", evaluate) for seed in seeds]
    open_jobs = [job for job in jobs if job.train or job.evaluate]
    if resume and not any(job.train for job in jobs) and read_json(folder / RESULT).get("status") == "finished":
        raise ValueError(f"run {folder} is finished: all {len(seeds)} seeds are trained")
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
    write_json(folder / RESULT, document)
    return document


def _job(config: RunConfig, seed: int, folder: Path, evaluate: bool) -> Job:
    """What is left to do for a seed, by what lies in its folder."""
    name = f"{config.name[:70]}-seed-{seed}" if config.name else f"seed-{seed}"
    config = config.model_copy(update={"seed": seed, "threads": 1, "name": name})
    resume = any((folder / "checkpoints").glob("step-*"))
    done = resume and read_json(folder / "summary.json").get("status") == "finished"
    episodes = read_json(folder / "evaluation.json").get("episodes")
    known = done and type(episodes) is int and episodes >= config.eval_episodes
    return Job(seed, config, folder, not done, resume, evaluate and not known)


def _row(job: Job, error: str | None) -> dict[str, Any]:
    """A seed's figures, from what lies in its folder."""
    summary, evaluation = (read_json(job.folder / name) for name in ("summary.json", "evaluation.json"))
    agent = evaluation.get("agent")
    return {
        "seed": job.seed, "run": job.folder.name, "status": "failed" if error else summary.get("status", "waiting"),
        "env_steps": summary.get("env_steps"), "seconds": summary.get("seconds"),
        "return": agent.get("mean") if isinstance(agent, dict) else None,
        "share_of_optimal": evaluation.get("share_of_optimal"), **({"error": error} if error else {}),
    }  # fmt: skip


# ---- here: the group's process, which imports no torch ----


# ---- there: a worker's life ----
