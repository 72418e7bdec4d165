"""Worker processes for external environments: each holds a share of the environments and runs the very loop of `loop.py`.

Observations, rewards, flags and actions lie in memory that all processes map. It has no name, so that nothing of it
can stay behind. A pipe to each worker carries requests and answers, another one what `faulthandler` writes where a
worker crashes or hangs. Before each call of an environment a worker notes the environment and what it does in shared
memory: so the caller can tell whose call does not return, and which environment took its process down.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import multiprocessing
import os
import re
import signal
import tempfile
import threading
import time
from multiprocessing import connection, reduction, util
from pathlib import Path
from typing import Any

import numpy as np

from ...store.arrays import Array
from ..names import UnknownName
from .environments import ExternalSpaces, adapt
from .loop import DOING, IDLE, MAKE, EnvironmentFailed, Loop, LoopBuffers, layout, where_failed
from .make import make_external
from .process import PATIENCE, START, _end_with_caller, _register, _registration, _settle, signals_held_back

ALIGN = 64  # bytes: each array begins on a cache line of its own
OURS = str(Path(__file__).parent)  # frames in this folder say nothing about the environment


class _Worker:
    """The caller's side of one process, which holds the environments from `first` to before `last`."""

    def __init__(self, context: Any, number: int, share: range, args: tuple[Any, ...]) -> None:
        self.number, self.first, self.last = number, share.start, share.stop
        self.conn, theirs = context.Pipe()
        self.trace, writer = context.Pipe(duplex=False)
        with theirs, writer:  # ours to close: a worker's end is then seen as the end of its pipes
            self.process = context.Process(target=_serve, args=(theirs, writer, number, share, *args), daemon=False)
            self.process.start()
        self.seen: Any = None  # what it was at when it was last looked at, and when that began
        self.since = 0.0

    def traceback(self, wait: float) -> str:
        """What faulthandler wrote, innermost call first, down to where this package called the environment."""
        text = b""
        with contextlib.suppress(OSError):
            while self.trace.poll(0.1 if text else wait):
                part = os.read(self.trace.fileno(), 65_536)
                if not part:
                    break
                text += part
        lines = text.decode(errors="replace").splitlines()
        ours = next((k for k, line in enumerate(lines) if f'"{OURS}{os.sep}' in line), len(lines))
        return "\n".join(lines[:ours])

    def end(self) -> None:
        """Kill the process if it lives, and wait for it; nothing of it stays."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.conn.close()
        self.trace.close()


def _end(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().end()


class Workers:
    """`Loop` for environments in worker processes: the same calls, the same bits; `buffers` are shared with them.

    `timeout`: seconds that one call of an environment may take, 0 for ever. Raises EnvironmentFailed where one takes longer,
    raises or ends its process; whatever is raised, all workers are ended first.
    """

    def __init__(self, id: str, options: dict[str, Any], masks: bool, num_envs: int, count: int, timeout: float) -> None:
        self._id, self._timeout = id, timeout
        self._buffers: LoopBuffers | None = None
        context = multiprocessing.get_context("spawn")
        bounds = [num_envs * w // count for w in range(count + 1)]
        args = (id, options, masks, _registration(id))
        self._workers: list[_Worker] = []
        # also at the interpreter's end, and before multiprocessing waits for its children there
        self._finalize = util.Finalize(self, _end, args=(self._workers,), exitpriority=100)
        try:
            with signals_held_back():
                for w in range(count):
                    self._workers.append(_Worker(context, w, range(bounds[w], bounds[w + 1]), args))
            self._answers(max(START, timeout))  # imported
            self.spaces: ExternalSpaces = self._answers(timeout)[0]  # the first environment of each is made
            places = layout(self.spaces, num_envs, count)
            memory, file = _shared(_size(places))
            self.buffers = self._buffers = _arrays(memory, places)
            for worker in self._workers:
                self.buffers.mark[worker.number] = 0, MAKE, 0
            try:
                for worker in self._workers:
                    with contextlib.suppress(OSError):  # it has died: its answer says how
                        worker.conn.send(places)
                        reduction.send_handle(worker.conn, file, worker.process.pid)
            finally:
                os.close(file)
            self._answers(timeout)  # all environments are made
        except BaseException:
            self._finalize()
            raise

    def reset(self) -> None:
        self._ask([("reset", ())] * len(self._workers))

    def step(self, autoreset: bool) -> None:
        self._ask([("step", (autoreset,))] * len(self._workers))

    def replay(self, actions: Array, elapsed: Array, over: Array) -> Array:
        parts = [tuple(array[w.first : w.last] for array in (actions, elapsed, over)) for w in self._workers]
        return np.concatenate(self._ask([("replay", part) for part in parts]))

    def draw(self, i: int, actions: Array) -> Array | None:
        requests = [("draw", (i - w.first, actions)) if w.first <= i < w.last else None for w in self._workers]
        pictures: list[Array | None] = self._ask(requests)
        return pictures[0]

    def close(self) -> None:
        """Let the workers close their environments, then end them."""
        try:
            for worker in self._workers:
                with contextlib.suppress(OSError):
                    worker.conn.send(("close", ()))
            until = time.monotonic() + PATIENCE
            for worker in self._workers:
                worker.process.join(max(0.0, until - time.monotonic()))
        finally:
            self._finalize()

    def _ask(self, requests: list[tuple[str, Any] | None]) -> list[Any]:
        """Send each worker its request, if it has one, and collect the answers in order."""
        if not self._workers:
            raise ValueError(f"environment {self._id} is closed: make it anew")
        try:
            asked = [(w, r) for w, r in zip(self._workers, requests, strict=True) if r is not None]
            for worker, request in asked:
                with contextlib.suppress(OSError):  # it has died: its answer says how
                    worker.conn.send(request)
            return self._answers(self._timeout, [worker for worker, _ in asked])
        except BaseException:  # Ctrl-C too: half a request cannot be gone on with
            self._finalize()
            raise

    def _answers(self, timeout: float, workers: list[_Worker] | None = None) -> list[Any]:
        """One answer of each worker. Raises what a worker reports, and EnvironmentFailed for one that died or hangs."""
        workers = self._workers if workers is None else workers
        waiting: dict[Any, _Worker] = {worker.conn: worker for worker in workers}
        answers: dict[int, Any] = {}
        tick, now = (min(timeout / 10, 1.0) if timeout else None), time.monotonic()
        for worker in workers:
            worker.seen, worker.since = None, now
        while waiting:
            ready: list[Any] = connection.wait(list(waiting), tick)
            for conn in ready:
                worker = waiting.pop(conn)
                try:
                    kind, content = conn.recv()
                except (EOFError, OSError):
                    raise self._died(worker) from None
                if kind != "done":
                    raise _reported(kind, content)
                answers[worker.number] = content
            now = time.monotonic()
            for worker in waiting.values() if timeout else ():
                at = self._at(worker)
                if at != worker.seen:
                    worker.seen, worker.since = at, now
                elif now - worker.since > timeout:
                    raise self._hung(worker, timeout)
        return [answers[worker.number] for worker in workers]

    def _at(self, worker: _Worker) -> tuple[int, ...]:
        """What a worker is at: it moves on as long as its calls return."""
        if self._buffers is None:
            return ()
        i, doing, count = self._buffers.mark[worker.number].tolist()
        return i, doing, count, int(self._buffers.elapsed[worker.first + i])

    def _failed(self, worker: _Worker, what: str, trace: str) -> EnvironmentFailed:
        """What happened to a worker: `what`, with its environment and what that was doing for `{who}` and `{doing}`."""
        which, who, doing = worker.first, f"environment {worker.first}", DOING[MAKE]
        if self._buffers is not None:
            i, at, _ = self._buffers.mark[worker.number].tolist()
            which = worker.first + i
            who = f"environment {which}"
            if at == IDLE:
                which, who = worker.first, f"the worker of environments {worker.first} to {worker.last - 1}"
            doing = DOING[at].format(elapsed=self._buffers.elapsed[which], episode=self._buffers.episode[which])
        return EnvironmentFailed(f"environment {self._id}: {what.format(who=who, doing=doing)}", which, trace)

    def _died(self, worker: _Worker) -> EnvironmentFailed:
        worker.process.join(PATIENCE)
        status = worker.process.exitcode
        how = f"exit status {status}"
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-status).name
        trace = worker.traceback(0.0)
        if worker.seen is None and self._buffers is None and not trace and status == 1:
            how += ", perhaps before it was up: start workers from a file, under if __name__ == '__main__'"
        elif status == -signal.SIGKILL:
            how += ": out of memory? take fewer environments"
        return self._failed(worker, f"{{who}} ended its process {{doing}}: {how}{_innermost(trace)}", trace)

    def _hung(self, worker: _Worker, timeout: float) -> EnvironmentFailed:
        trace = ""
        if hasattr(faulthandler, "register") and worker.process.pid:
            with contextlib.suppress(OSError):
                os.kill(worker.process.pid, signal.SIGUSR1)
                trace = worker.traceback(PATIENCE)
        late = f"{{who}} did not return within {timeout:g} s {{doing}}{_innermost(trace)}: raise timeout if it is only slow"
        return self._failed(worker, late, trace)


def _innermost(trace: str) -> str:
    """' (maze.py:12 in step)' from what faulthandler wrote."""
    found = re.search(r'File "(.*)", line (\d+) in (\S+)', trace)
    return f" ({Path(found[1]).name}:{found[2]} in {found[3]})" if found else ""


def _reported(kind: str, content: Any) -> Exception:
    if kind == "failed":
        return EnvironmentFailed(*content)
    return UnknownName(content) if kind == "unknown" else ValueError(content)


def _size(places: list[tuple[tuple[int, ...], Any]]) -> int:
    return sum(_room(shape, dtype) for shape, dtype in places)


def _room(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes that an array takes, up to where the next one may begin."""
    size = int(np.prod(shape)) * int(np.dtype(dtype).itemsize)
    return -(-size // ALIGN) * ALIGN


def _shared(size: int) -> tuple[mmap.mmap, int]:
    """Zeroed memory that other processes can map, and the file descriptor to map it by; it has no name."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("gumdrop")
    else:
        with tempfile.TemporaryFile() as nameless:
            file = os.dup(nameless.fileno())
    os.ftruncate(file, size)
    return mmap.mmap(file, size), file


def _arrays(memory: mmap.mmap, places: list[tuple[tuple[int, ...], Any]]) -> LoopBuffers:
    arrays, at = [], 0
    for shape, dtype in places:
        arrays.append(np.frombuffer(memory, dtype, int(np.prod(shape)), at).reshape(shape))
        at += _room(shape, dtype)
    return LoopBuffers(*arrays)


def _serve(
    conn: Any, trace: Any, number: int, share: range, id: str, options: dict[str, Any], masks: bool, known: bytes | None
) -> None:  # fmt: skip
    """A worker's life: make the environments, then answer requests until there is nobody to ask."""
    _settle()
    faulthandler.enable(trace.fileno(), all_threads=False)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, trace.fileno(), all_threads=False)
    threading.Thread(target=_end_with_caller, daemon=True).start()
    try:
        if known is not None:
            _register(id, known)
        conn.send(("done", None))
        loop = _made(conn, number, share, id, options, masks)
        conn.send(("done", None))
        while True:
            request, args = conn.recv()
            answer = getattr(loop, request)(*args)
            if request == "close":
                return
            conn.send(("done", answer))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the caller has gone
    except EnvironmentFailed as error:
        conn.send(("failed", error.args))
    except UnknownName as error:
        conn.send(("unknown", str(error)))
    except ValueError as error:  # what cannot be made
        conn.send(("refused", str(error)))


def _made(conn: Any, number: int, share: range, id: str, options: dict[str, Any], masks: bool) -> Loop:
    """Make the environments: the first says what there is to share, the others are made when that is there."""
    i = share.start
    try:
        envs = [adapt(id, make_external(id, options), masks)]
        conn.send(("done", envs[0].spaces))
        places = conn.recv()
        file = reduction.recv_handle(conn)
        b = _arrays(mmap.mmap(file, _size(places)), places)
        os.close(file)
        b = LoopBuffers._make([*(x[share.start : share.stop] for x in b[:-1]), b.mark[number : number + 1]])
        for i in share[1:]:
            b.mark[0, 0] = i - share.start
            envs.append(adapt(id, make_external(id, options), masks))
    except (EOFError, OSError, ValueError):
        raise
    except BaseException as error:  # make_external turns errors into one line; this ends the process, as sys.exit does
        what, trace = where_failed(error)
        raise EnvironmentFailed(f"environment {id}: environment {i} failed {DOING[MAKE]}: {what}", i, trace) from None
    b.mark[0] = 0, IDLE, 0
    return Loop(id, options, envs, b, share.start)
