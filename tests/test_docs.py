"""Every command and every Python block of README and guides runs; long trainings are cut short, nothing else is changed."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from gumdrop.scripts.cli import main

ROOT = Path(__file__).parents[1]
GUIDES = ("*.md", "worlds/*.md", "agents/*.md")
PAGES = [ROOT / "README.md", *(page for pattern in GUIDES for page in sorted((ROOT / "docs").glob(pattern)))]
SHORT = ["--steps", "16384", "eval_episodes=20"]  # put behind every `gumdrop train`
FEW = ["--seeds", "3"]  # and behind those of many seeds


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        if command[0] == "make":
            done = subprocess.run(["make", "-n", *command[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            continue
        assert command[0] == "gumdrop", command
        words = command[1:] + (SHORT if command[1] == "train" else []) + (FEW if "--seeds" in command else [])
        status = main(words)
        assert status == 0, f"{' '.join(command)}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what trains makes a run folder
    from gumdrop.core_ml import component
    from gumdrop.envs import registry
    from gumdrop.envs.checks.conformance import check_world
    from gumdrop.envs.examine import solution as solve
    from gumdrop.envs.make import make

    names: dict[str, object] = {"__name__": "docs_example"}  # later blocks go on from earlier ones
    registered = dict(component._COMPONENTS)
    try:
        for block in blocks(page, "python"):
            exec(compile(block, page.name, "exec"), names)
    finally:
        for key in component._COMPONENTS.keys() - registered.keys():
            if getattr(component._COMPONENTS[key].cls, "__module__", "") == "docs_example":
                del component._COMPONENTS[key]
    if page.name == "worlds.md":
        try:
            env = make("hallway", {"length": 3}, num_envs=2)
            assert env.step([[1], [0]]).obs[:, 0, 0].tolist() == [0.5, 0.0]
            world = env.world  # type: ignore[attr-defined]
            hallway = type(world)
            hallway.scene, hallway.model = names["scene"], names["model"]  # type: ignore[method-assign, assignment]
            assert solve.yardstick(world, env.state).optimal.tolist() == [1, 1]  # type: ignore[union-attr, attr-defined]
            assert all(check.ok for check in check_world("hallway"))
        finally:
            registry._WORLDS.pop("hallway", None)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text()):
            path = target[0] or target[1]
            assert path.startswith("https://") or (page.parent / path).exists(), f"{page.name}: {path}"
