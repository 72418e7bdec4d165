"""A short run of every agent, of filled slots and of every preset has the bits that it had before the files moved.

`tests/fixtures/version_0_1/short_runs.json` holds their configurations, with the options' names of then, and the sha256 of
each array of the last checkpoint and of each metric, recorded at commit 3b5ab51 (20,000 steps each; fewer where a step is
dear, and at least one update). Equal bits are promised for one kind of processor, so another one is told, and skipped.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gumdrop.configs.renamed import current
from gumdrop.configs.schema import RunConfig
from gumdrop.experiments.run.train import train

pytestmark = pytest.mark.slow
FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"
RECORD: dict[str, Any] = json.loads((FIXTURES / "short_runs.json").read_text())
_spec = importlib.util.spec_from_file_location("older_runs", Path(__file__).parents[1] / "store" / "test_older_runs.py")
assert _spec and _spec.loader
older = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(older)


def test_every_agent_and_preset(tmp_path: Path, proof: Callable[[str, dict[str, Any]], None]) -> None:
    if older.processor() != RECORD["processor"]:
        pytest.skip(f"recorded on {RECORD['processor']}, this is {older.processor()}: another processor may round differently")
    differing: dict[str, list[str]] = {}
    for number, (name, run) in enumerate(RECORD["runs"].items()):
        folder = tmp_path / str(number)
        train(RunConfig(**current(run["config"])), folder, live=False)
        metrics = older.metrics_of(folder)
        renamed = {older.metric_now(key): digest for key, digest in run["metrics"].items()}
        before, after = older.now(run["tensors"]), older.tensors_of(folder)
        wrong = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        wrong += [key for key, digest in renamed.items() if metrics.get(key) != digest]
        if wrong:
            differing[name] = wrong
    proof("same-bits", {
        "headline": [["short runs of agents, slots and presets with the bits of before the move",
                      f"{len(RECORD['runs']) - len(differing)} of {len(RECORD['runs'])}"]],
        "runs": len(RECORD["runs"]), "differing": differing, "recorded_at": RECORD["commit"], "renamed_metrics": older.METRICS,
    })  # fmt: skip
    assert not differing
