"""What the live view and the metrics of a run cost, beside the work that they show."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gumdrop.configs.loader import resolve
from gumdrop.experiments.live.run_view import Live
from gumdrop.experiments.run.tracking import Tracker
from gumdrop.experiments.run.train import train

pytestmark = pytest.mark.slow
RUNS = {"candy-ppo": 400_000, "cartpole-fast": 80_000}  # environment steps; the second has small, frequent updates


@contextmanager
def counted(owner: type, name: str, spent: list[float]) -> Iterator[None]:
    """While it lasts, the processor's seconds that the thread which calls `owner.name` spends in it are added to `spent`."""
    before = getattr(owner, name)

    def timed(*args: Any, **options: Any) -> Any:
        began = time.thread_time()
        try:
            return before(*args, **options)
        finally:
            spent.append(time.thread_time() - began)

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, before)


def cost(preset: str, steps: int, folder: Path) -> dict[str, Any]:
    """One run with the panel drawn as for a terminal. Seconds of the view, of metrics, and of the whole run."""
    from rich.live import Live as Panel

    config = resolve(preset, None, [], {"steps": steps})
    view, rows, drawn = Live(steps, preset, (0.0, 1.0, "optimum"), plain=False, stream=io.StringIO()), [], []
    taken: list[float] = []
    began = time.perf_counter()
    with counted(Tracker, "log", rows), counted(Live, "update", taken), counted(Panel, "refresh", drawn):
        summary = train(config, folder, live=view)
    whole = time.perf_counter() - began
    assert summary["status"] == "finished" and len(rows) == len(taken) and drawn
    seconds = summary["seconds"]
    shown, kept = sum(taken) + sum(drawn), sum(rows)
    return {
        "preset": preset, "env_steps": summary["env_steps"], "updates": len(rows), "whole_s": whole, "training_s": seconds,
        "view_s": shown, "metrics_s": kept, "share_of_training": (shown + kept) / seconds,
    }  # fmt: skip


def test_live_view_and_metrics(tmp_path: Path, proof: Callable[[str, dict[str, Any]], None]) -> None:
    train(
        resolve("candy-ppo", None, [], {"steps": 20_000}), tmp_path / "warm", live=False
    )  # kernels compile at their first use
    rows = [cost(preset, steps, tmp_path / preset) for preset, steps in RUNS.items()]
    proof("live-view", {"runs": rows})
    assert all(row["view_s"] > 0 and row["metrics_s"] > 0 for row in rows)
