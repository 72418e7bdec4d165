"""Worker processes, one pinned to each core, that do jobs and say how far they are."""

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import connection
from types import TracebackType
from typing import Any, NamedTuple

from ...configs.schema import RunConfig
from ...envs.external.process import signals_held_back
from ...store.run_folder import RunFolder
from ..live.group_view import GroupLive, State
from .evaluate import evaluate_run
from .machine import cores
from .signals import Interrupted, stop_on_signals
from .train import train

EVERY = 0.25  # seconds between two rows that a worker sends


LOOK = 0.2  # seconds until a signal is noticed


PATIENCE = 30.0  # seconds that a worker gets to save when the group ends before it


class Job(NamedTuple):
    """What is left to do for one seed."""

    seed: int
    config: RunConfig
    run: RunFolder
    train: bool
    resume: bool
    evaluate: bool


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
                for path in job.run.figure_paths():  # of a run that was killed before its first checkpoint
                    path.unlink(missing_ok=True)
            train(job.config, job.run, _Progress(job, pipe), job.resume)
        if job.evaluate:
            pipe.send(("evaluating",))
            evaluate_run(job.run)
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
        self._send("began", self.job.run.read_summary().get("yardstick"))

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
