"""Ten seeds beside one, as a user waits for them: whole commands, evaluation included. Nothing is asserted about time here."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gumdrop.experiments.run.machine import cores

pytestmark = pytest.mark.slow
SEEDS, ROUNDS = 10, 1


def seconds(*words: str) -> float:
    """Of one `gumdrop train candy-ppo`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "gumdrop.scripts.cli", "train", "candy-ppo", *words, "--no-live"], check=True)
    return time.perf_counter() - began


def measure(folder: Path, seeds: int = SEEDS, rounds: int = ROUNDS, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """One seed as the command line runs it by default, and `seeds` of them, in turns."""
    common = ("--dir", str(folder), *extra)
    seconds(*common, "--steps", "20000", "--seeds", "1", "--name", "warm")  # kernels compile at their first use
    seconds(*common, "--steps", "20000", "--name", "warm-alone")
    one, many = [], []
    for k in range(rounds):
        one.append(seconds(*common, "--name", f"one-{k}"))
        many.append(seconds(*common, "--name", f"many-{k}", "--seeds", str(seeds)))
    documents = [json.loads((folder / f"many-{k}" / "group.json").read_text()) for k in range(rounds)]
    assert all(document["status"] == "finished" for document in documents)
    threads = json.loads((folder / "one-0" / "summary.json").read_text())["threads"]
    ratios = [all_of_them / single for single, all_of_them in zip(one, many, strict=True)]
    return {
        "preset": "candy-ppo", "seeds": seeds, "cores": cores(), "one_seed_s": one, "many_seeds_s": many, "ratios": ratios,
        "ratio": statistics.median(ratios), "threads_of_one_seed": threads,
        "share_of_optimal": documents[0]["share_of_optimal"],
    }  # fmt: skip


def test_ten_seeds_beside_one(tmp_path: Path, proof: Callable[[str, dict[str, Any]], None]) -> None:
    result = measure(tmp_path)
    proof("seeds", result)
    assert result["share_of_optimal"]["mean"] >= 0.85
