"""What action masks are worth: PPO on connect four against a random opponent, with masks and with masks ignored."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gumdrop.agents.saved import load_run
from gumdrop.configs.schema import RunConfig
from gumdrop.experiments.run.episodes import run_episodes
from gumdrop.experiments.run.train import train

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]
ROOT = Path(__file__).parents[2]
GAMES, SEEDS = 500, (0, 1, 2)


def play(masked: bool, seed: int, folder: Path) -> dict[str, Any]:
    """Train one run of examples/connect_four.yaml; shares of won and lost games, seconds and steps of training."""
    document = yaml.safe_load((ROOT / "examples" / "connect_four.yaml").read_text())
    document["env"]["action_mask"] = masked
    config = RunConfig(**document | {"seed": seed, "eval_episodes": 10})
    began = time.perf_counter()
    train(config, folder, live=False)
    seconds = time.perf_counter() - began
    agent, config, _ = load_run(folder)
    found = run_episodes(agent, config.env_id, config.env_options, GAMES, seed)
    return {
        "seed": seed, "seconds": round(seconds, 1), "env_steps": config.steps,
        "won": float((found.returns > 0).mean()), "lost": float((found.returns < 0).mean()),
    }  # fmt: skip


def test_ppo_with_masks_beats_a_random_opponent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proof: Proof) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    arms = {
        name: [play(masked, seed, tmp_path / f"{name}-{seed}") for seed in SEEDS]
        for name, masked in (("masks", True), ("masks ignored", False))
    }
    won = {name: sum(run["won"] for run in runs) / len(runs) for name, runs in arms.items()}
    lines = [f"connect four against random, {GAMES} games x {len(SEEDS)} seeds: won with masks", "and with masks ignored"]
    headline = [[line, f"{share:.1%}"] for line, share in zip(lines, won.values(), strict=True)]
    proof("masks", {"headline": headline, "games": GAMES, "arms": arms, "seconds_allowed": 180})
    assert min(run["won"] for run in arms["masks"]) >= 0.95
    assert max(run["seconds"] for run in arms["masks"]) <= 180
