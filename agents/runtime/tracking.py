"""A run's figures: two local files that are the truth, and sinks that are copies of them.

`metrics.jsonl` is deterministic (equal seeds give equal bytes), `timing.jsonl` is the wall clock; each has
one JSON object per update. A sink can neither stop nor slow a run: W&B lives in a process of its own that
reads the files (`wandb_child.py`), and TensorBoard is dropped at its first error.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

FILES = ("metrics.jsonl", "timing.jsonl")
CLOSE_SECONDS = 10.0  # all that closing may cost, whatever the network does


class TrackingError(ValueError):
    """The local files cannot be written or continued; the message is one line."""


class Sink(Protocol):
    """A copy of the metrics elsewhere. Whatever its methods raise only ends the sink."""

    name: str

    def start(self, resume: bool) -> None: ...

    def log(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None: ...

    def news(self) -> str:
        """A line for the user while the run goes on, or ''."""
        ...

    def close(self, seconds: float) -> str:
        """Finish within `seconds`; a line for the user, or ''."""
        ...


class Tracker:
    """Writes each update's metrics and timing to the run folder and feeds the sinks.

    Args:
        folder: the run folder; made if needed.
        config: the resolved configuration, shown by W&B.
        sinks: any of "wandb", "tensorboard".
        project, name: for W&B; an empty name leaves the choice to W&B.
        resume: continue the files that are there; call `truncate` with a checkpoint's offsets before `log`.

    Raises:
        TrackingError: the folder holds metrics and `resume` is False, or an unknown sink.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        sinks: list[str],
        project: str = "gumdrop",
        name: str = "",
        resume: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lines: list[str] = []
        self._resume = resume
        self._started = False
        self._sinks: list[Sink] = []
        for sink in dict.fromkeys(sinks):
            if sink == "tensorboard":
                self._sinks.append(TensorBoard(self.folder))
            elif sink != "wandb":
                raise TrackingError(f"no sink {sink!r}: known are tensorboard, wandb")
            elif os.environ.get("WANDB_MODE", "").strip().lower() != "disabled":
                self._sinks.append(Wandb(self.folder, config, project, name))
        paths = [self.folder / file for file in FILES]
        if not resume:
            for path in paths:
                if path.exists() and path.stat().st_size:
                    raise TrackingError(f"{path} holds another run: resume it or choose another name")
        self._files: list[IO[bytes]] = [open(path, "ab", buffering=0) for path in paths]
        if not resume:
            self._start()

    def log(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Append one row to each file. Values: numbers (also numpy or torch scalars), text, None, lists, dicts.

        NaN and infinity are written as null. Raises OSError if the disk refuses, never because of a sink.
        """
        self._start()
        for file, row in zip(self._files, (metrics, timing), strict=True):
            line = encode_row(row)
            written = file.write(line)  # one write, so that a kill leaves whole rows
            if written != len(line):
                raise OSError(f"{file.name}: the disk is full: free some space and resume the run")
        for sink in list(self._sinks):
            self._guard(sink, sink.log, metrics, timing)

    def news(self) -> list[str]:
        """Lines that sinks want the user to see now, each once."""
        lines, self._lines = self._lines, []
        for sink in list(self._sinks):
            line = self._guard(sink, sink.news)
            lines += [line] if line else []
        return lines

    def offset(self) -> dict[str, int]:
        """Byte size of each file, for a checkpoint; all rows so far are on the disk afterwards."""
        for file in self._files:
            os.fsync(file.fileno())
        return {name: os.fstat(file.fileno()).st_size for name, file in zip(FILES, self._files, strict=True)}

    def truncate(self, offsets: Mapping[str, int]) -> None:
        """Cut both files to a checkpoint's sizes: rows that were written after it, or half written, go.

        Raises:
            TrackingError: a file does not reach that far or has no row ending there; then nothing was cut.
        """
        for name in FILES:
            path, size = self.folder / name, offsets.get(name)
            if type(size) is not int or size < 0:
                raise TrackingError(f"the checkpoint says {size!r} about {name}: a size in bytes is needed")
            if path.stat().st_size < size:
                raise TrackingError(
                    f"{path} has {path.stat().st_size} bytes, the checkpoint was written at {size}: "
                    "rows are missing, put the file back or train again"
                )
            with open(path, "rb") as file:
                file.seek(max(size - 1, 0))
                if size and file.read(1) != b"\n":
                    raise TrackingError(f"{path} has no row that ends at byte {size}: it was edited, put it back")
        for name, handle in zip(FILES, self._files, strict=True):
            os.ftruncate(handle.fileno(), offsets[name])
            os.fsync(handle.fileno())
        self._start()

    def close(self, seconds: float = CLOSE_SECONDS) -> list[str]:
        """Close files and sinks within about `seconds`. Returns lines for the user, such as how to sync."""
        end = time.monotonic() + seconds
        for file in self._files:
            file.close()
        lines, self._lines = self._lines, []
        for sink in list(self._sinks):
            line = self._guard(sink, sink.close, max(end - time.monotonic(), 1.0))
            lines += [line] if line else []
        self._sinks.clear()
        lines += self._lines
        return lines

    def _start(self) -> None:
        """Start the sinks once the files are as the run continues them."""
        if not self._started:
            self._started = True
            for sink in list(self._sinks):
                self._guard(sink, sink.start, self._resume)

    def _guard(self, sink: Sink, call: Callable[..., Any], *args: Any) -> Any:
        """Call a sink; whatever goes wrong there costs one line and the sink, nothing else."""
        try:
            return call(*args)
        except Exception as error:
            self._sinks.remove(sink)
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._lines.append(f"{sink.name} is off ({first:.200}); the run's metrics are in {self.folder}")
            return None


def encode_row(row: Mapping[str, Any]) -> bytes:
    """One JSON object and a newline: keys in the given order, floats by repr, NaN and infinity as null."""
    return _ENCODE(_plain(row)).encode() + b"\n"


_ENCODE = json.JSONEncoder(allow_nan=False).encode  # json.dumps would make an encoder for each row


def _plain(value: Any) -> Any:
    if type(value) is float:  # nearly all of them are: the questions below take longer than all the rest of a row
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, bool | int | float | str | None) and hasattr(value, "item"):
        value = value.item()  # numpy and torch scalars
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSON-lines file; a half-written last one is left out, no file means no rows.

    Raises:
        TrackingError: names a damaged line before the last.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = line
        if isinstance(row, dict):
            rows.append(row)
        elif row is not None and number < len(lines):
            raise TrackingError(f"{path} line {number} is not a JSON object: delete the line, or the file")
    return rows


class TensorBoard:
    """Event files in `RUN/tensorboard`; the step is env_steps."""

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None
        self._resume = False
        self._module: Any = None

    def start(self, resume: bool) -> None:
        self._resume = resume
        try:
            self._module = importlib.import_module("torch.utils.tensorboard")
        except ImportError:
            raise RuntimeError("it is not installed: pip install 'gumdrop[tensorboard]'") from None

    def log(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        step = int(metrics.get("env_steps", metrics.get("updates", 0)))
        if self._writer is None:
            # A resumed run repeats the rows after its checkpoint: TensorBoard forgets the first copy.
            purge = step if self._resume else None
            self._writer = self._module.SummaryWriter(str(self.folder / "tensorboard"), purge_step=purge)
        for key, value in [*metrics.items(), *((f"timing/{key}", value) for key, value in timing.items())]:
            value = _plain(value)
            if isinstance(value, int | float):
                self._writer.add_scalar(key, value, step)

    def news(self) -> str:
        return ""

    def close(self, seconds: float) -> str:
        if self._writer is not None:
            self._writer.close()
        return ""


class Wandb:
    """Starts, tells to finish, and if need be kills the process that feeds W&B."""

    name = "W&B"

    def __init__(self, folder: Path, config: Mapping[str, Any], project: str, name: str) -> None:
        self.folder = folder
        self.home = folder / "wandb"
        self.start_values = {"project": project, "name": name, "config": config}
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False

    def start(self, resume: bool) -> None:
        self.home.mkdir(exist_ok=True)
        identity = self.folder / "wandb_id"
        known = resume and identity.exists() and bool(identity.read_text().strip())
        if not known:
            identity.write_text(f"{secrets.token_hex(4)}\n")
            (self.home / "status.json").unlink(missing_ok=True)
        values = self.start_values | {"id": identity.read_text().strip(), "resume": known}
        (self.home / "child.json").write_text(json.dumps(values, default=str))
        status = self._status() | {"state": "starting", "mode": "", "why": "", "url": "", "error": ""}
        (self.home / "status.json").write_text(json.dumps(status))
        with open(self.home / "child.log", "ab") as log:
            # A process group of its own: Ctrl-C in the terminal reaches the run, which tells the child.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.wandb_child", str(self.folder.absolute())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def log(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Nothing: the child reads the files."""

    def news(self) -> str:
        if self._told:
            return ""
        status = self._status()
        if status.get("state") in (None, "starting"):
            return ""
        self._told = True
        if status["state"] == "failed":
            return f"W&B is off ({status.get('error', '')}); the run's metrics are in {self.folder}"
        if status.get("mode") == "offline":
            return f"W&B is offline: {status['why']}"
        return f"W&B: {status.get('url', '')}" if status.get("url") else ""

    def close(self, seconds: float) -> str:
        process = self._process
        if process is None or process.stdin is None:
            return ""
        try:
            try:
                process.stdin.write(b"q")  # a fork of this process may hold the pipe open: its end is not enough
                process.stdin.close()
            except OSError:
                pass  # the child is gone already
            process.wait(max(seconds - 0.5, 0.5))
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when the user's second Ctrl-C ends the waiting
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # wandb's own service ends itself when its parent is gone
                process.wait()
        return self._last_line(process.returncode)

    def _last_line(self, code: int) -> str:
        status = self._status()
        online, folder = status.get("mode") == "online", shlex.quote(str(self.home))
        flag = "--include-online " if status.get("online_rest") else ""
        sync = f"wandb sync {flag}{folder}"
        if status.get("state") == "disabled":
            return ""
        if code == 0 and online:
            return f"W&B: {status.get('url', '')}"
        if code == 0:
            return f"W&B is offline: {status.get('why', '')}; to upload this run: {sync}"
        if online:
            return f"W&B has not received everything; to upload the rest: {sync}"
        if any(self.home.glob("*/*.wandb")):
            return f"W&B was stopped ({status.get('error') or 'too slow'}); to upload what it has: {sync}"
        why = status.get("error") or f"it did not start in time, see {self.home / 'child.log'}"
        return f"W&B is off ({why}); the run's metrics are in {self.folder}"

    def _status(self) -> dict[str, Any]:
        try:
            value = json.loads((self.home / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
