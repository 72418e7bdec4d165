"""Speed figures for docs/results. Nothing is asserted about time here: a shared machine decides that, not the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gumdrop.agents.runtime.bench import bench_env, bench_train

pytestmark = pytest.mark.slow


def test_worlds(proof: Callable[[str, dict[str, Any]], None]) -> None:
    result = bench_env(seconds=3.0)
    proof("bench-env", result)
    assert {row["world"] for row in result["worlds"]} >= {"bandit", "candy", "maze"}


def test_training(proof: Callable[[str, dict[str, Any]], None]) -> None:
    result = bench_train(seconds=30.0)
    proof("bench-train", result)
    assert result["ratio_to_sb3"] > 1
