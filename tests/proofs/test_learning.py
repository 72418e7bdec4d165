"""Learning, measured over training seeds against exact optima. Oracles: dynamic programming; CartPole's ceiling of 500."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gumdrop.agents.runtime.evaluate import evaluate_run
from gumdrop.agents.runtime.train import train
from gumdrop.configs.loader import resolve

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]


def trained(preset: str, seed: int, folder: Path, episodes: int) -> dict[str, Any]:
    config = resolve(preset, None, [], {"seed": seed})
    summary = train(config, folder, live=False)
    result = evaluate_run(folder, episodes)
    keep = {k: result[k] for k in ("share_of_optimal", "normalised", "random_exact") if k in result}
    return {
        "seed": seed, "env_steps": summary["env_steps"], "training_seconds": round(summary["seconds"], 2),
        "mean": result["agent"]["mean"], "ci95": result["agent"]["ci95"], "random": result["random"]["mean"],
        "optimal": (result["optimal"] or {}).get("mean"), **keep,
    }  # fmt: skip


@pytest.mark.parametrize(("preset", "least"), [("candy-ppo", 0.85), ("maze-ppo", 0.85)])
def test_share_of_the_exact_optimum(preset: str, least: float, tmp_path: Path, proof: Proof) -> None:
    runs = [trained(preset, seed, tmp_path / str(seed), 1000) for seed in range(5)]
    proof(preset, {"preset": preset, "episodes": 1000, "runs": runs})
    assert all(run["share_of_optimal"] >= least for run in runs)


def test_cartpole_within_100_000_steps(tmp_path: Path, proof: Proof) -> None:
    runs = [trained("cartpole-ppo", seed, tmp_path / str(seed), 20) for seed in range(5)]
    proof("cartpole-ppo", {"preset": "cartpole-ppo", "episodes": 20, "runs": runs})
    assert all(run["env_steps"] <= 100_000 and run["mean"] >= 475 for run in runs)


def test_cartpole_on_our_own_engine(tmp_path: Path, proof: Proof) -> None:
    runs = [trained("cartpole-fast", seed, tmp_path / str(seed), 20) for seed in range(5)]
    proof("cartpole-fast", {"preset": "cartpole-fast", "episodes": 20, "runs": runs})
    assert all(run["mean"] >= 475 for run in runs)
