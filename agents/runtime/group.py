"""Many seeds of one configuration: whole runs over worker processes, one pinned to each core, each on one thread.

A worker imports and compiles once, then trains seed after seed. It has a pipe to itself: what several processes share, such
as the lock of a queue, would stay locked when one of them is killed. A seed's run folder is what a single run with `threads=1`
makes, to the same bits; `group.yaml` beside them says what there is to train, `group.json` at the end what came out.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ...configs.loader import dump_group
from ...configs.schema import RunConfig
from ...envs.workers import signals_held_back
from .evaluate import evaluate_run
from .live_group import GroupLive, State
from .statistics import over_seeds
from .system import cores, git_commit, processor, read_json, versions, write_json
from .tracking import FILES
from .train import Interrupted, one_process, remove_unused, stop_on_signals, train

GROUP, RESULT = "group.yaml", "group.json"
MOST = 10_000  # seeds of a group
EVERY = 0.25  # seconds between two rows that a worker sends
LOOK = 0.2  # seconds until a signal is noticed
PATIENCE = 30.0  # seconds that a worker gets to save when the group ends before it


class Job(NamedTuple):
    """What is left to do for one seed."""

    seed: int
    config: RunConfig
    folder: Path
    train: bool
    resume: bool
    evaluate: bool


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


class _Worker:
    """One process on one core, seen from here."""

    def __init__(self, core: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.core = core
        self.job: Job | None = None
        self.ready = False
        self.conn, theirs = context.Pipe()
        with theirs, signals_held_back():  # ours to close: a worker's end is then seen as the end of its pipe
            self.process = context.Process(target=_work, args=(theirs, core), daemon=False)  # worlds may have processes, too
            self.process.start()

    def send(self, job: Job | None) -> None:
        self.job = job
        with suppress(OSError):  # it has died: the end of its pipe says so
            self.conn.send(job)

    def end(self) -> None:
        """Wait until it has saved what it was at; nothing of it stays."""
        self.process.join(PATIENCE)
        self.process.kill()
        self.process.join()
        self.conn.close()


class _Pool:
    """Workers, and the jobs that wait for one.

    `failures`: a line for each seed that failed. `signum`: the signal that stopped the jobs, `stopped`: some were not done.
    """

    def __init__(self, jobs: list[Job], view: GroupLive | None, begun: bool) -> None:
        self.waiting = deque(jobs)
        self.view = view
        self.begun = begun
        self.size = min(cores(), len(jobs))
        self.failures: dict[int, str] = {}
        self.signum, self.stopped = 0, False
        self._workers: list[_Worker] = []
        self._said: set[str] = set()

    def run(self) -> None:
        """Do all jobs, or stop at a signal. Raises what the first one raised before its training began."""
        places: list[int | None] = [None] * self.size
        if hasattr(os, "sched_getaffinity"):
            places = [*sorted(os.sched_getaffinity(0))]
        with stop_on_signals(self._kill) as stop, self._ended():
            for core in places[: self.size]:
                self._workers.append(_Worker(core))
            while self.waiting or any(worker.job for worker in self._workers):
                readable = connection.wait([worker.conn for worker in self._workers], LOOK)
                for worker in [worker for worker in self._workers if worker.conn in readable]:
                    self._read(worker)
                if stop.signum and not self.signum:
                    self.signum = stop.signum
                    self.stopped = bool(self.waiting)
                    self.waiting.clear()
                    for worker in self._workers:
                        worker.process.terminate()
                self._hand_out()

    def _hand_out(self) -> None:
        """Lowest seeds first. The first one goes ahead alone until it trains: what is refused is refused once."""
        for worker in self._workers:
            if not worker.ready or worker.job or not self.waiting:
                continue
            if self.begun or not any(other.job for other in self._workers):
                worker.send(self.waiting.popleft())

    def _read(self, worker: _Worker) -> None:
        """Take one message of a worker, or learn that it has died."""
        try:
            kind, *content = worker.conn.recv()
        except (EOFError, OSError):
            self._died(worker)
            return
        if kind == "ready":
            worker.ready = True
            return
        assert worker.job is not None
        seed = worker.job.seed
        if kind == "failed":
            line, error = content
            if not self.begun:
                raise error
            self._failed(worker, line)
        elif kind == "done":
            worker.job = None
            self._state(seed, kind)
        elif kind == "stopped":
            self._interrupted(worker)
        elif kind == "note":
            if content[0] not in self._said:  # most say the same
                self._said.add(content[0])
                self._say(content[0] if self.size == 1 else f"seed {seed}: {content[0]}")
        elif kind == "evaluating":
            self._state(seed, kind)
        elif kind == "began":
            self.begun = True
            if self.view:
                self.view.began(seed, *content)
        elif self.view:
            self.view.update(seed, *content)

    def _died(self, worker: _Worker) -> None:
        """Another process takes its place, its seed is given up: what took it down may be the seed's own doing."""
        worker.process.join()
        code = worker.process.exitcode or 0
        self._workers.remove(worker)
        worker.conn.close()
        if self.signum:
            self._interrupted(worker)
            return
        if not worker.ready:
            way = 'in a script, call train_group under `if __name__ == "__main__":`'
            raise RuntimeError(f"a worker process did not start (exit status {code}): {way}")
        if worker.job:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            memory = " (out of memory?)" if code == -signal.SIGKILL else ""
            self._failed(worker, f"its process {how}{memory}")
        if self.waiting:
            self._workers.append(_Worker(worker.core))

    def _interrupted(self, worker: _Worker) -> None:
        if worker.job and not self.signum:
            self._failed(worker, "its process was told to stop; it has been saved")
        elif worker.job:
            self._state(worker.job.seed, "stopped")
            worker.job, self.stopped = None, True

    def _failed(self, worker: _Worker, line: str) -> None:
        assert worker.job is not None
        self.failures[worker.job.seed] = line
        self._say(f"seed {worker.job.seed} failed: {line}")
        self._state(worker.job.seed, "failed")
        worker.job = None

    def _state(self, seed: int, state: State) -> None:
        if self.view:
            self.view.state(seed, state)

    def _say(self, line: str) -> None:
        self.view.note(line) if self.view else print(line, file=sys.stderr)

    def _kill(self) -> None:
        for worker in self._workers:
            worker.process.kill()

    @contextmanager
    def _ended(self) -> Iterator[None]:
        """However it ends, no worker is left."""
        try:
            yield
        finally:
            for worker in self._workers:
                if worker.job is None:
                    worker.send(None)
                elif not self.signum:  # else it knows; a second signal would end it before it has saved
                    worker.process.terminate()
            for worker in self._workers:
                worker.end()


# ---- there: a worker's life ----


def _work(pipe: Any, core: int | None) -> None:
    """Train one job after another until there is nobody who sends them."""
    os.setsid()  # Ctrl-C in the terminal reaches the group's process alone, which tells us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    if core is not None:
        with suppress(OSError):  # a core that was taken away
            os.sched_setaffinity(0, {core})
    sys.stdout.flush()
    os.dup2(2, 1)  # stdout may carry one JSON document
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the group's process has gone
        pipe.send(("ready",))
        while (job := pipe.recv()) is not None:
            _do(job, pipe)


def _stop_with_parent() -> None:
    """When the group's process is gone without a word: save and stop, as at a signal."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os._exit(1)


def _do(job: Job, pipe: Any) -> None:
    try:
        if job.train:
            if not job.resume:
                for name in FILES:  # of a run that was killed before its first checkpoint
                    (job.folder / name).unlink(missing_ok=True)
            train(job.config, job.folder, _Progress(job, pipe), job.resume)
        if job.evaluate:
            pipe.send(("evaluating",))
            evaluate_run(job.folder)
        pipe.send(("done",))
    except Interrupted:
        pipe.send(("stopped",))
    except Exception as error:
        if os.environ.get("GUMDROP_DEBUG"):
            import traceback

            traceback.print_exc()
        line = _line(error)
        try:
            pickle.loads(pickle.dumps(error))
            pipe.send(("failed", line, error))
        except Exception:  # an exception that cannot travel
            pipe.send(("failed", line, RuntimeError(line)))


def _line(error: BaseException) -> str:
    """One line; errors that are made for people go without the name of their class."""
    first = next(iter(str(error).strip().splitlines()), "")
    return first if first and isinstance(error, ValueError | ArithmeticError) else f"{type(error).__name__}: {first}"


class _Progress:
    """A run's view that sends on what it is told, a few times a second."""

    def __init__(self, job: Job, pipe: Any) -> None:
        self.job, self.pipe = job, pipe
        self.metrics: dict[str, Any] = {}  # the newest of each: an update without an ended episode has no return
        self.timing: Mapping[str, Any] | None = None
        self.sent = -math.inf

    def __enter__(self) -> None:
        self._send("began", read_json(self.job.folder / "summary.json").get("yardstick"))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._flush()

    def update(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        self.metrics.update(metrics)
        self.timing = timing
        if time.monotonic() - self.sent >= EVERY:
            self._flush()

    def note(self, line: str) -> None:
        self._send("note", line)

    def _flush(self) -> None:
        if self.timing is not None:
            self._send("row", self.metrics, self.timing)
            self.timing, self.sent = None, time.monotonic()

    def _send(self, *message: Any) -> None:
        with suppress(OSError):  # the group's process has gone, and the run shall be saved
            self.pipe.send(message)
