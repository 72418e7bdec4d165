"""The W&B side of a run, in a process of its own: `python -m gumdrop.experiments.run.sinks.wandb_child RUN_FOLDER`.

It reads the run's `metrics.jsonl` and `timing.jsonl` as they grow and hands the rows to wandb: whatever
wandb does (blocks, raises, crashes), it cannot touch the run. `tracking.py` starts it and says when to
finish by one byte, or the end, of stdin. It reports in `RUN_FOLDER/wandb/status.json`; what wandb prints
goes to `wandb/child.log`.

The server's own step decides which rows an online run still lacks; what was handed over offline is
remembered in the status. Rows that a resumed run repeats are bit-identical to those sent before, so they
are skipped.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ....store.names import METRICS, TIMING, WANDB, WANDB_START, WANDB_STATUS

PROBE_SECONDS = 3.0  # for the server to say anything at all
INIT_SECONDS = 5.0  # for wandb.init to reach it
FINISH_SECONDS = 6.0  # for wandb to upload the rest at the end
LINGER_SECONDS = 15.0  # after being told to finish, or being orphaned, the process is gone by then
POLL_SECONDS = 0.25
MODES = ("online", "run", "shared", "offline", "dryrun", "disabled")  # W&B's own names


class Status:
    """What the parent and the next resume want to know, in `wandb/status.json` (replaced atomically)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.values: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            self.values = {}

    def write(self, **values: Any) -> None:
        self.values |= values
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.values))
        os.replace(temporary, self.path)


class Tail:
    """Complete rows of a JSON-lines file that is still growing."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset, self.rest = path, 0, b""

    def rows(self) -> list[dict[str, Any]]:
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self.offset += len(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


class Started(NamedTuple):
    """A started wandb run."""

    run: Any
    mode: str  # online | offline
    why: str  # for offline: the reason


def main(folder: Path) -> int:
    """Serve until told to finish. Exit status 0: all rows were handed to wandb (and uploaded, if online)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the run, which then tells us to finish
    os.nice(5)
    closing = threading.Event()
    threading.Thread(target=_watch, args=(closing, os.getppid()), daemon=True).start()
    status = Status(folder / WANDB / WANDB_STATUS)
    try:
        return _serve(folder, status, closing)
    except Exception as error:
        status.write(state="failed", error=_one_line(error))
        raise


def _serve(folder: Path, status: Status, closing: threading.Event) -> int:
    start = json.loads((folder / WANDB / WANDB_START).read_text())
    started = _begin(folder, start)
    if started is None:
        status.write(state="disabled")
        return 0
    run, online = started.run, started.mode == "online"
    # Until all is uploaded, `wandb sync` has to include this run's online folders.
    rest = online or bool(status.values.get("online_rest"))
    first = run.step if online else status.values.get("sent", 0) + 1
    status.write(state="running", mode=started.mode, why=started.why, url=run.url or "", online_rest=rest, first=first)
    metrics, timing = Tail(folder / METRICS), Tail(folder / TIMING)
    count, waiting, seconds = 0, [], []
    sent = first - 1
    while True:
        last = closing.is_set()  # before reading: rows written before the word came are never missed
        waiting += metrics.rows()
        seconds += timing.rows()
        ready = len(waiting) if last else min(len(waiting), len(seconds))
        for row, times in zip(waiting[:ready], seconds[:ready] + [{}] * (ready - len(seconds)), strict=True):
            count += 1
            step = row.get("updates", count)
            if step >= first:
                figures = row | {f"timing/{key}": value for key, value in times.items()}
                run.log(figures, step=step, commit=True)  # or the newest row would wait for the next
                sent = step
        waiting, seconds = waiting[ready:], seconds[ready:]
        if last:
            break
        closing.wait(POLL_SECONDS)
    try:
        run.finish()
    except TimeoutError:  # FINISH_SECONDS were not enough: the rest is in wandb's own file
        status.write(state="finished", sent=sent, online_rest=True)
        return 1
    status.write(state="finished", sent=sent, online_rest=rest and not online)
    return 0


def _begin(folder: Path, start: dict[str, Any]) -> Started | None:
    """Start or continue the wandb run; online where that can work, else offline and why. None: disabled."""
    os.environ["WANDB_SILENT"] = "true"
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own telemetry waits for a network, too
    os.environ.pop("WANDB_SERVICE", None)  # never share a service process with the run
    wish = os.environ.get("WANDB_MODE", "online")
    if wish not in MODES:
        raise ValueError(f"WANDB_MODE={wish!r:.40} does not exist: online, offline or disabled do")
    import wandb

    defaults = wandb.setup().settings
    if defaults.mode == "disabled":
        return None
    why = ""
    if defaults.mode in ("offline", "dryrun"):
        why = "W&B is set to offline"
    else:
        try:
            if not wandb.login(prompt=False, verify=False):
                why = "no API key, `wandb login` stores one"
        except wandb.errors.AuthenticationError as error:
            why = _one_line(error)
        if not why and not reachable(defaults.base_url):
            why = f"no answer from {defaults.base_url}"
    if not why:
        try:
            return Started(_init(folder, start, "online"), "online", "")
        except Exception as error:  # a refused key, a server that stops answering, a crash of its service
            why = f"{defaults.base_url}: {_one_line(error)}"
            wandb.teardown()
    return Started(_init(folder, start, "offline"), "offline", why)


def _init(folder: Path, start: dict[str, Any], mode: Literal["online", "offline"]) -> Any:
    import wandb

    wanted: dict[str, Any] = {
        "console": "off",
        "silent": True,
        "init_timeout": INIT_SECONDS,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
        "save_code": False,
        "use_dot_wandb": False,
        "x_disable_stats": True,  # it would measure this process, not the run
    }
    known = wandb.Settings.model_fields
    run = wandb.init(
        project=start["project"],
        name=start["name"] or None,
        id=start["id"],
        config=start["config"],
        dir=str(folder),
        mode=mode,
        # Not for a new run: `wandb sync` would append its rows to those that arrived, instead of replacing them.
        resume="allow" if start["resume"] else None,
        settings=wandb.Settings(**{key: value for key, value in wanted.items() if key in known}),
    )
    run.define_metric("env_steps")
    run.define_metric("*", step_metric="env_steps")
    return run


def reachable(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """True if the server answers HTTP, whatever it says, within `seconds`; proxies are honoured.

    Connecting alone proves little: a captive network accepts and never answers, and wandb would wait for it.
    """
    answer: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds):
                answer.append(True)
        except urllib.error.HTTPError:
            answer.append(True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)  # an untrusted certificate: wandb has its own settings for that
            answer.append("certificate" in str(reason).lower())
        except Exception:
            answer.append(False)

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name knows no timeout of its own
    thread.start()
    thread.join(seconds)
    return bool(answer and answer[0])


def _watch(closing: threading.Event, parent: int) -> None:
    """Wait for a byte or the end of stdin, or for the parent's death (a fork of it may hold stdin open)."""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], 1.0)
        if readable:
            break
    closing.set()
    time.sleep(LINGER_SECONDS)
    os._exit(3)  # wandb's service process ends itself when this one is gone


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text:.200}".rstrip(".")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
