"""The library's algorithms, driven by our commands: an LSTM on a T-maze, and continuous control.

Oracles: 1/2 without memory; the optimum of an agent that knows the goal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.configs.schema import RunConfig
from gumdrop.experiments.run.evaluate import evaluate_run
from gumdrop.experiments.run.train import train
from gumdrop.experiments.statistics import over_seeds

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]
SEEDS, FEW = range(10), range(5)  # a recurrent run takes two minutes and more
T_MAZE = {
    "env": {"id": "t-maze", "size": 3, "time_limit": 12}, "num_envs": 64, "steps": 240_000, "threads": 1,
    "agent": {"name": "sb3-recurrent-ppo", "num_steps": 32, "options": {
        "n_epochs": 8, "batch_size": 256, "learning_rate": "lin_1e-3", "ent_coef": 0.1, "gamma": 0.95,
        "policy_kwargs": {"lstm_hidden_size": 32, "net_arch": [32]},
    }},
}  # fmt: skip
STEER = {
    "env": {"id": "point-navigation-visible"}, "num_envs": 8, "steps": 16_000, "threads": 1,
    "agent": {"num_steps": 100, "options": {
        "policy_kwargs": {"net_arch": [64, 64]}, "learning_starts": 500, "learning_rate": 1e-3, "gamma": 0.9, "batch_size": 128,
    }},
}  # fmt: skip


def trained(run: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    summary = train(RunConfig(**run, seed=seed), folder, live=False)
    result = evaluate_run(folder, 1000)
    return {
        "seed": seed, "env_steps": summary["env_steps"], "training_seconds": round(summary["seconds"], 1),
        "mean": result["agent"]["mean"], "random": result["random"]["mean"], "optimal": result["optimal"]["mean"],
    }  # fmt: skip


def final(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean final return with its 95 % interval; the units are training seeds."""
    return over_seeds([run["mean"] for run in runs]) | {"runs": runs}


def test_recurrent_ppo_remembers_the_cue_of_a_t_maze(tmp_path: Path, proof: Proof) -> None:
    found = final([trained(T_MAZE, seed, tmp_path / str(seed)) for seed in FEW])
    proof("bridge", {"config": json.loads(json.dumps(T_MAZE)), "episodes": 1000, "without_memory": 0.5, **found})
    assert found["ci95"][0] > 0.5 and np.median([run["mean"] for run in found["runs"]]) >= 0.95


@pytest.mark.parametrize(("name", "least"), [("sb3-sac", -4.0), ("sb3-td3", -3.0)])
def test_continuous_control(name: str, least: float, tmp_path: Path, proof: Proof) -> None:
    """Standing still gets -38, random actions -62, an agent that knows the goal -0.5."""
    run = {**STEER, "agent": {"name": name, **STEER["agent"]}}
    found = final([trained(run, seed, tmp_path / str(seed)) for seed in SEEDS])
    proof(f"bridge-{name}", {"config": json.loads(json.dumps(run)), "episodes": 1000, **found})
    assert found["ci95"][0] >= least
