"""The guide's algorithm, `examples/reinforce.py`: small, found by --plugin and by an entry point, learns, resumes exactly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gumdrop as gd

FILE = Path(__file__).parents[1] / "examples" / "reinforce.py"


def gumdrop(*words: str, cwd: Path, **env: str) -> Any:
    """The document that a command prints with --json, in a process of its own."""
    command = [sys.executable, "-m", "gumdrop.scripts.cli", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_small_and_outside_the_package() -> None:
    assert len(FILE.read_text().splitlines()) <= 80
    known = [sys.executable, "-c", "import gumdrop as gd; print('reinforce' in gd.agents())"]
    assert subprocess.run(known, capture_output=True, text=True).stdout.strip() == "False"


def test_it_learns_cartpole_from_the_command_line(tmp_path: Path) -> None:
    words = ["train", "--plugin", str(FILE), "--agent", "reinforce", "--env", "cartpole", "--num-envs", "32", "--no-report"]
    gumdrop(*words, "--steps", "2e5", "--name", "learned", cwd=tmp_path)
    gumdrop(*words, "--steps", "8192", "agent.learning_rate=0", "--name", "control", cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    runs = str(tmp_path / "runs")  # the file's path is in the run's configuration
    learned, control = (
        gumdrop("eval", name, "--dir", runs, "--episodes", "100", cwd=elsewhere) for name in ("learned", "control")
    )
    assert learned["agent"]["mean"] >= 150 and control["agent"]["mean"] <= 60


def test_it_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    how: dict[str, Any] = {
        "env": "cartpole",
        "num_envs": 8,
        "num_steps": 64,
        "plugins": [FILE],
        "directory": tmp_path,
        "progress": False,
    }
    whole = gd.train("reinforce", steps=4096, **how)
    parts = gd.train("reinforce", steps=2048, **how).resume(steps=4096, progress=False)
    one, other = (run.policy.agent.state_dict() for run in (whole, parts))
    assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    assert np.array_equal(whole.metrics["loss/policy"], parts.metrics["loss/policy"])
    with pytest.raises(ValueError, match="agent reinforce: it cannot act in Box"):
        gd.train("reinforce", steps=4096, **{**how, "env": "point-navigation"})


def test_an_entry_point_finds_it(tmp_path: Path) -> None:
    """What pip writes for a package with `[project.entry-points."gumdrop.agents"] reinforce = "gumdrop_reinforce"`."""
    shutil.copy(FILE, tmp_path / "gumdrop_reinforce.py")
    about = tmp_path / "gumdrop_reinforce-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gumdrop-reinforce\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[gumdrop.agents]\nreinforce = gumdrop_reinforce\n")
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    assert "reinforce" in [row["name"] for row in gumdrop("agent", "list", cwd=tmp_path, **path)["agents"]]
    words = ["train", "--agent", "reinforce", "--env", "cartpole", "--steps", "8192", "num_envs=8", "--no-report"]
    assert gumdrop(*words, cwd=tmp_path, **path)["status"] == "finished"
