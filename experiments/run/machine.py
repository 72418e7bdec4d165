"""What a run should remember about where it was made: versions, commit, device; and how many threads pay."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("gumdrop", "numpy", "numba", "torch", "gymnasium", "pettingzoo", "pydantic", "safetensors")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_commit() -> str | None:
    """Commit of the checkout that this code runs from, '+' behind it if files differ; None outside a checkout.

    Figures in docs/results do not count: one proof writes them while the next is to come.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        changes = [*git, "status", "--porcelain", "-uno", "--", ".", ":!docs/results"]
        changed = subprocess.run(changes, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "") or None


def processor() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {cores()} cores"


def where(device: str) -> str:
    """What a run on `device` works on: the processor, or the GPU's name and the processor."""
    if device == "cpu":
        return processor()
    from ...envs.engine.cuda import gpu

    return f"{gpu()}; {processor()}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_threads(rows: int) -> int:
    """Worker threads for batches of `rows` rows: one for small ones, where waking others costs more than it brings.

    A function of sizes and cores alone, not of the clock: the number of threads may change the last bit of a sum, and the
    same seed must give the same bits. It is written into the run's configuration, so that a resumed run keeps it.
    """
    return 1 if rows < THREADED_FROM else min(cores(), 8)


THREADED_FROM = 512  # rows of a forward pass; see docs/decisions/003-threads.md for the measurement behind it
