"""World and learner on a GPU, in steps per second. What they do there is tested by test_cuda.py and test_device.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gumdrop.experiments.bench.bench import bench_device, bench_env

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
Proof = Callable[[str, dict[str, Any]], None]
WORLDS = ["maze", "candy", "candy-race", "cartpole", "bandit"]
COPIES = 65_536


def test_speed_on_a_gpu(proof: Proof) -> None:
    worlds = bench_env(WORLDS, COPIES, seconds=1.0, device="cuda")
    trained = [bench_device(environments, seconds=6.0, rounds=3) for environments in (4096, COPIES)]
    maze = worlds["worlds"][0]["steps_per_second"]
    headline = [
        [f"{worlds['gpu']}: maze, {COPIES:,} environments, results left there", f"{max(maze.values()):.3g} steps/s"],
        [f"{worlds['gpu']}: PPO on it, learning included", f"{trained[-1]['steps_per_second']:.3g} steps/s"],
    ]
    proof("gpu", {"headline": headline, "gpu": worlds["gpu"], "worlds": worlds["worlds"], "ppo": trained})
    assert (
        trained[-1]["steps_per_second"] > trained[0]["steps_per_second"]
    )  # a GPU that more environments do not fill faster is idle
