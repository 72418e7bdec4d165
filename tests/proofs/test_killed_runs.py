"""Runs killed with SIGKILL at random moments end with the same bits as runs that were left alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gumdrop.store import checkpoint

pytestmark = pytest.mark.slow
KILLS = 10
RUNS = {
    "candy": ["--env", "candy", "--num-envs", "256", "--steps", "1500000"],
    "maze": ["--env", "maze", "--num-envs", "256", "--steps", "1500000", "env.slip=0.1"],
    "bandit": ["--env", "bandit", "--num-envs", "256", "--steps", "1500000"],
    "CartPole-v1": ["--env", "CartPole-v1", "--num-envs", "8", "--steps", "150000"],
}


def gumdrop(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gumdrop.scripts.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def state(folder: Path) -> dict[str, str]:
    import hashlib

    found = checkpoint.load(folder)
    metrics = (folder / "metrics.jsonl").read_bytes()
    return {"tensors": checkpoint.digest(found.tensors), "metrics": hashlib.sha256(metrics).hexdigest()}


@pytest.mark.parametrize("name", RUNS)
def test_killed_ten_times(name: str, tmp_path: Path, proof: Callable[[str, dict[str, Any]], None]) -> None:
    common = [*RUNS[name], "checkpoint_seconds=0.2", "--dir", str(tmp_path), "--no-live", "--no-report"]
    assert gumdrop("train", *common, "--name", "whole").wait() == 0
    moments = random.Random(name)
    killed = tmp_path / "killed"
    process, kills, landed = gumdrop("train", *common, "--name", "killed"), 0, []
    while kills < KILLS:
        while process.poll() is None and not (killed / "checkpoints" / "latest").exists():
            time.sleep(0.01)  # before its first checkpoint there is nothing to resume
        before = checkpoint.load(killed).step
        while process.poll() is None and checkpoint.load(killed).step == before:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.4))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        landed.append(checkpoint.load(killed).step)
        process = gumdrop("resume", "killed", "--dir", str(tmp_path), "--no-live", "--no-report")
    assert process.wait() == 0
    whole, resumed = state(tmp_path / "whole"), state(killed)
    proof(f"killed-{name}", {"world": name, "kills": kills, "killed_at_steps": landed, "whole": whole, "resumed": resumed})
    assert whole == resumed and kills == KILLS
