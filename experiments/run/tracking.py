"""A run's figures: two local files that are the truth, and sinks that are copies of them.

`metrics.jsonl` is deterministic (equal seeds give equal bytes), `timing.jsonl` is the wall clock; each has
one JSON object per update. A sink can neither stop nor slow a run: W&B lives in a process of its own that
reads the files (`wandb_child.py`), and TensorBoard is dropped at its first error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from ...store.json_lines import TrackingError, encode_row
from ...store.run_folder import RunFolder
from .sinks.protocol import Sink
from .sinks.tensorboard import TensorBoard
from .sinks.wandb import Wandb

CLOSE_SECONDS = 10.0  # all that closing may cost, whatever the network does


class Tracker:
    """Writes each update's metrics and timing to the run folder and feeds the sinks.

    Args:
        run: the run's folder; made if needed.
        config: the resolved configuration, shown by W&B.
        sinks: any of "wandb", "tensorboard".
        project, name: for W&B; an empty name leaves the choice to W&B.
        resume: continue the files that are there; call `truncate` with a checkpoint's offsets before `log`.

    Raises:
        TrackingError: the folder holds metrics and `resume` is False, or an unknown sink.
    """

    def __init__(
        self,
        run: RunFolder,
        config: Mapping[str, Any],
        sinks: list[str],
        project: str = "gumdrop",
        name: str = "",
        resume: bool = False,
    ) -> None:
        self.run = run
        run.make()
        self._lines: list[str] = []
        self._resume = resume
        self._started = False
        self._sinks: list[Sink] = []
        for sink in dict.fromkeys(sinks):
            if sink == "tensorboard":
                self._sinks.append(TensorBoard(run))
            elif sink != "wandb":
                raise TrackingError(f"no sink {sink!r}: known are tensorboard, wandb")
            elif os.environ.get("WANDB_MODE", "").strip().lower() != "disabled":
                self._sinks.append(Wandb(run, config, project, name))
        self._paths = run.figure_paths()
        if not resume:
            for path in self._paths:
                if path.exists() and path.stat().st_size:
                    raise TrackingError(f"{path} holds another run: resume it or choose another name")
        self._files: list[IO[bytes]] = [open(path, "ab", buffering=0) for path in self._paths]
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
        return {path.name: os.fstat(file.fileno()).st_size for path, file in zip(self._paths, self._files, strict=True)}

    def truncate(self, offsets: Mapping[str, int]) -> None:
        """Cut both files to a checkpoint's sizes: rows that were written after it, or half written, go.

        Raises:
            TrackingError: a file does not reach that far or has no row ending there; then nothing was cut.
        """
        for path in self._paths:
            size = offsets.get(path.name)
            if type(size) is not int or size < 0:
                raise TrackingError(f"the checkpoint says {size!r} about {path.name}: a size in bytes is needed")
            if path.stat().st_size < size:
                raise TrackingError(
                    f"{path} has {path.stat().st_size} bytes, the checkpoint was written at {size}: "
                    "rows are missing, put the file back or train again"
                )
            with open(path, "rb") as file:
                file.seek(max(size - 1, 0))
                if size and file.read(1) != b"\n":
                    raise TrackingError(f"{path} has no row that ends at byte {size}: it was edited, put it back")
        for path, handle in zip(self._paths, self._files, strict=True):
            os.ftruncate(handle.fileno(), offsets[path.name])
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
            self._lines.append(f"{sink.name} is off ({first:.200}); the run's metrics are in {self.run}")
            return None
