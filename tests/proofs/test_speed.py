"""Speed figures for docs/results. Nothing is asserted about time here: a shared machine decides that, not the code."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from gumdrop.envs.registry import presets, worlds
from gumdrop.experiments.bench import baselines_train
from gumdrop.experiments.bench.baselines import BASELINES
from gumdrop.experiments.bench.bench import bench_env, bench_train

pytestmark = pytest.mark.slow


def test_start(proof: Callable[[str, dict[str, Any]], None]) -> None:
    """How soon the command line answers: five whole processes each."""
    seconds: dict[str, list[float]] = {"--help": [], "env list": []}
    for _ in range(5):
        for words, found in seconds.items():
            began = time.perf_counter()
            done = subprocess.run([sys.executable, "-m", "gumdrop.scripts.cli", *words.split()], capture_output=True)
            found.append(round(time.perf_counter() - began, 3))
            assert done.returncode == 0 and done.stdout
    proof("start", {"seconds": seconds, "median": {words: statistics.median(found) for words, found in seconds.items()}})


def test_worlds(proof: Callable[[str, dict[str, Any]], None]) -> None:
    """Every family, in turns with the baselines that are installed here."""
    result = bench_env(seconds=5.0, vs=[*BASELINES])
    proof("bench-env", result)
    assert {row["world"] for row in result["worlds"]} == set(worlds())
    assert {baseline["package"] for baseline in result["baselines"]} >= {"gymnasium", "minigrid"}
    assert all(baseline["times_faster"] > 1 for baseline in result["baselines"])


def test_presets(proof: Callable[[str, dict[str, Any]], None]) -> None:
    result = bench_env([*worlds(), *presets()], seconds=1.0)
    proof("bench-presets", result)
    assert len(result["worlds"]) == len(worlds()) + len(presets())


def test_training(proof: Callable[[str, dict[str, Any]], None]) -> None:
    """Both learners, in turns with the baselines that are installed here."""
    result = bench_train(seconds=30.0, vs=[*baselines_train.BASELINES])
    proof("bench-train", result)
    assert result["fused_to_torch"] > 1 and result["fused_to_sb3"] > 1
    assert result["baselines"][0]["package"] == "stable_baselines3"
    assert all(baseline["times_slower"] > 1 for baseline in result["baselines"])
