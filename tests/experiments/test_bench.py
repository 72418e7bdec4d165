"""`bench train`: turns, ratios, baselines that are missing, and what a baseline is shown of our engine. Nothing about time."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.envs.make import make
from gumdrop.experiments.bench import baselines_train, bench
from gumdrop.experiments.bench.baselines import find
from gumdrop.experiments.bench.baselines_train import BASELINES, FUSED, TWO_TRUNKS, Task, TrainedBaseline
from gumdrop.scripts.cli import main

STUB = """
import torch

__version__, turns = "1.2", []

def learn():
    turns.append(("candyfloss", torch.get_num_threads()))
"""
OURS = ["fused", "torch", "fused, one epoch"]


@pytest.fixture
def turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Who worked, in order, with how many threads of torch, where the package `candyfloss` is installed."""
    (tmp_path / "candyfloss.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "candyfloss", raising=False)
    import candyfloss as theirs  # type: ignore[import-not-found]

    def candyfloss(task: Task) -> Iterator[TrainedBaseline]:
        def burst() -> int:
            theirs.learn()
            return task.num_envs * 1000 ** torch.get_num_threads()  # two threads are better

        for ours in (FUSED, TWO_TRUNKS):
            yield TrainedBaseline("candyfloss", theirs.__version__, "sweet", ours, (1, 2), burst)

    def absent(task: Task) -> Iterator[TrainedBaseline]:
        import no_such_learner  # type: ignore[import-not-found]  # noqa: F401

        yield from ()

    def broken(task: Task) -> Iterator[TrainedBaseline]:
        raise RuntimeError("no\n  sugar")

    run = bench._Trainee.run

    def told(self: bench._Trainee, duration: float) -> dict[str, float]:
        theirs.turns.append((self.agent.config.learner, torch.get_num_threads()))  # type: ignore[attr-defined]
        return run(self, duration)

    for maker in (candyfloss, absent, broken):
        monkeypatch.setitem(BASELINES, maker.__name__, maker)
    monkeypatch.setattr(bench._Trainee, "run", told)
    monkeypatch.setattr(bench, "rate", lambda burst, seconds: float(burst()))  # the clock has no say
    return theirs.turns  # type: ignore[no-any-return]


def test_peers_take_turns_with_ours(turns: list[tuple[str, int]]) -> None:
    result = bench.bench_train(num_envs=16, seconds=0.02, rounds=2, baseline=False, vs=["absent", "candyfloss", "broken"])
    assert torch.get_num_threads() == 1  # put back

    mine = [("fused", 1), ("torch", 1), ("fused", 1), ("fused", 1)]  # the third has one epoch, the fourth two trunks
    order = [turn for turn, _ in itertools.groupby(turns)]
    expected = mine + 2 * (mine + 2 * [("candyfloss", 1), ("candyfloss", 2)])  # warm-up, two rounds
    assert order == [turn for turn, _ in itertools.groupby(expected)]

    assert result["not_measured"] == {
        "absent": "not installed: No module named 'no_such_learner'",
        "broken": "does not run here: RuntimeError: no sugar",
    }
    assert [*result["learners"]] == [*OURS, TWO_TRUNKS]
    assert [baseline["ours"] for baseline in result["baselines"]] == [FUSED, TWO_TRUNKS]
    for baseline in result["baselines"]:
        assert (baseline["package"], baseline["version"], baseline["what"]) == ("candyfloss", "1.2", "sweet")
        assert baseline["threads"] == [2, 2]
        assert baseline["steps_per_second"] == statistics.median(baseline["rounds"]) > 0
        ratios = [a / b for a, b in zip(result["learners"][baseline["ours"]]["rounds"], baseline["rounds"], strict=True)]
        assert len(ratios) == 2 and baseline["times_slower"] == pytest.approx(statistics.median(ratios))
    assert "fused_to_sb3" not in result
    json.dumps(result, allow_nan=False)


def test_without_peers_there_is_nothing_about_them(turns: list[tuple[str, int]]) -> None:
    result = bench.bench_train(num_envs=16, seconds=0.01, rounds=1, baseline=False)
    assert [*result["learners"]] == OURS
    assert not {"baselines", "not_measured", "sb3_steps_per_second", "fused_to_sb3"} & result.keys()


def test_the_baseline_is_a_peer_like_others(turns: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    sb3 = next(BASELINES["candyfloss"](Task("maze", {}, 16, {})))
    monkeypatch.setattr(baselines_train, "stable_baselines3", lambda task: sb3._replace(package="stable_baselines3"))
    result = bench.bench_train(num_envs=16, seconds=0.01, rounds=1)
    (baseline,) = result["baselines"]
    assert baseline["package"] == "stable_baselines3"
    assert result["sb3_steps_per_second"] == baseline["steps_per_second"] and result["fused_to_sb3"] == baseline["times_slower"]


def test_two_trunks_need_more() -> None:
    """49 inputs, 2 x 64, 4 actions: layers of 3,136, 4,096 and 320 weights; two trunks double all but the last."""
    assert bench.useful_flops(49, (64, 64), 4, 4) == 26 * 7552 - 8 * 3136
    assert bench.useful_flops(49, (64, 64), 4, 4, trunks=2) == 26 * (2 * 7232 + 320) - 16 * 3136


def test_the_command_passes_names_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def bench_train(**given: Any) -> dict[str, Any]:
        return given

    monkeypatch.setattr(bench, "bench_train", bench_train)
    assert main(["bench", "train", "--vs", "skrl, rsl_rl", "--no-baseline", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seconds": 20.0, "baseline": False, "vs": ["skrl", "rsl_rl"]}


@pytest.mark.parametrize(
    ("world", "options"), [("maze", {"size": 5, "view": 3, "time_limit": 20}), ("cartpole", {"time_limit": 20})]
)
def test_what_a_peer_is_shown_is_the_engine(world: str, options: dict[str, Any]) -> None:
    """The same numbers as the engine's, bytes or floats, in torch; observations stay as they were when the engine goes on."""
    task = Task(world, options | {"time_limit": 20}, 32, {})
    num_envs, env = baselines_train._Environments(task), make(task.world, task.options, num_envs=32)
    obs, rng = env.reset(0), np.random.default_rng(0)
    shown, kept = num_envs.obs, torch.from_numpy(obs.reshape(32, -1).astype(np.float32))
    ended = np.zeros(2)
    for _ in range(60):
        action = rng.integers(2, size=(32, 1))
        assert shown.dtype == torch.float32 and shown.equal(kept)
        step = env.step(action)
        reward, terminated, truncated = num_envs.step(torch.from_numpy(action).float())
        assert shown.equal(kept)
        assert reward.dtype == torch.float32 and reward.tolist() == step.reward[:, 0].tolist()
        assert terminated.tolist() == step.terminated.tolist() and truncated.tolist() == step.truncated.tolist()
        ended += terminated.sum().item(), truncated.sum().item()
        shown, kept = num_envs.obs, torch.from_numpy(step.obs.reshape(32, -1).astype(np.float32))
    assert ended.all()  # both kinds of end were seen


@pytest.mark.parametrize("name", [*BASELINES])
def test_peers_that_are_installed_learn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They reach the goal of a small maze more often: they are shown the right things at the right time."""
    step, rewards = baselines_train._Environments.step, []

    def told(self: Any, actions: Any) -> Any:
        seen = step(self, actions)
        rewards.append(float(seen[0].sum()))
        return seen

    monkeypatch.setattr(baselines_train._Environments, "step", told)
    torch.manual_seed(0)
    found, missing = find(BASELINES, [name], Task("maze", {"size": 5, "view": 3}, 256, bench.PPO))
    if missing.get(name, "").startswith("not installed"):
        pytest.skip(missing[name])
    (baseline,) = found
    assert [baseline.burst() for _ in range(30)] == 30 * [256 * 32]
    assert sum(rewards[-160:]) > 1.2 * sum(rewards[:160])  # 1.4 and 3.6 were seen
