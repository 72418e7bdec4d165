"""Weights & Biases as a copy of a run's metrics, sent by a child process."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from ....store.names import WANDB_LOG, WANDB_START, WANDB_STATUS
from ....store.run_folder import RunFolder


class Wandb:
    """Starts, tells to finish, and if need be kills the process that feeds W&B."""

    name = "W&B"

    def __init__(self, run: RunFolder, config: Mapping[str, Any], project: str, name: str) -> None:
        self.run, self.home = run, run.wandb_path
        self.start_values = {"project": project, "name": name, "config": config}
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False

    def start(self, resume: bool) -> None:
        self.home.mkdir(exist_ok=True)
        identity = self.run.wandb_id_path
        known = resume and identity.exists() and bool(identity.read_text().strip())
        if not known:
            identity.write_text(f"{secrets.token_hex(4)}\n")
            (self.home / WANDB_STATUS).unlink(missing_ok=True)
        values = self.start_values | {"id": identity.read_text().strip(), "resume": known}
        (self.home / WANDB_START).write_text(json.dumps(values, default=str))
        status = self._status() | {"state": "starting", "mode": "", "why": "", "url": "", "error": ""}
        (self.home / WANDB_STATUS).write_text(json.dumps(status))
        with open(self.home / WANDB_LOG, "ab") as log:
            # A process group of its own: Ctrl-C in the terminal reaches the run, which tells the child.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.wandb_child", str(self.run.path.absolute())],
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
            return f"W&B is off ({status.get('error', '')}); the run's metrics are in {self.run}"
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
        why = status.get("error") or f"it did not start in time, see {self.home / WANDB_LOG}"
        return f"W&B is off ({why}); the run's metrics are in {self.run}"

    def _status(self) -> dict[str, Any]:
        try:
            value = json.loads((self.home / WANDB_STATUS).read_text())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
