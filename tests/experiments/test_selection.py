"""The best checkpoint of a training, and when to stop: exact, and the same after a stop or a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gumdrop.agents.saved import load_run
from gumdrop.configs.schema import RunConfig
from gumdrop.experiments.run import selection, train
from gumdrop.experiments.run.evaluate import evaluate_run
from gumdrop.scripts.eval import show
from gumdrop.store import checkpoint
from gumdrop.store.run_folder import RunFolder

AGENT = {"name": "ppo", "num_steps": 8, "hidden": [8], "update_epochs": 2, "num_minibatches": 2}


def config(**changes: Any) -> RunConfig:
    run = {"env": {"id": "cartpole"}, "agent": AGENT, "num_envs": 4, "steps": 320, "seed": 3, "threads": 1}
    run |= {"eval_every": 2, "eval_every_episodes": 4, "checkpoint_updates": 3, "keep_checkpoints": 1}
    return RunConfig(**{**run, **changes})


class Scored:
    """Stands for `run_episodes`: the k-th evaluation of a process gives the k-th score."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.agents = list(scores), list[dict[str, Any]]()

    def __call__(self, agent: Any, *_: Any, **__: Any) -> Any:
        import numpy as np

        from gumdrop.experiments.run.episodes import Evaluation

        self.agents.append({name: np.array(array) for name, array in agent.state_dict().items()})
        score = self.scores.pop(0)
        if score < 0:
            raise RuntimeError("the simulator is on fire")
        return Evaluation(np.full(4, score), np.ones(4, np.int64), None, None, "", 0)


def everything(folder: Path) -> tuple[str, bytes, int | None]:
    found = checkpoint.load(folder)
    return checkpoint.digest(found.tensors), (folder / "metrics.jsonl").read_bytes(), checkpoint.best_step(folder)


def test_the_best_is_kept_and_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = Scored(1.0, 5.0, 2.0, 5.0, 3.0)
    monkeypatch.setattr(selection, "run_episodes", scored)
    summary = train.train(config(), tmp_path / "run", live=False)
    run = RunFolder(tmp_path / "run")
    assert (summary["best_return"], summary["best_env_steps"], summary["stopped_early"]) == (5.0, 4 * 32, False)
    best, last = run.checkpoint("best"), run.checkpoint()
    assert (best.step, last.step) == (4 * 32, 10 * 32) and run.checkpoint("deploy").step == best.step
    evaluated = scored.agents[1]
    assert all((best.tensors["agent"][name] == evaluated[name]).all() for name in evaluated)  # the agent that scored 5
    assert any((last.tensors["agent"][name] != evaluated[name]).any() for name in evaluated)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("eval/return_mean") for row in rows] == [None, 1.0, None, 5.0, None, 2.0, None, 5.0, None, 3.0]


def test_training_stops_when_it_gets_no_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "run_episodes", Scored(1.0, 5.0, 4.0, 5.0))
    summary = train.train(config(patience=2), tmp_path / "run", live=False)
    assert summary["status"] == "finished" and summary["stopped_early"] and summary["env_steps"] == 8 * 32
    with pytest.raises(ValueError, match="is finished: 256 of 320 steps"):
        train.train(config(patience=2), tmp_path / "run", live=False, resume=True)


def test_a_failing_evaluation_costs_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selection, "run_episodes", Scored(-1.0, 5.0, -1.0, 4.0, -1.0))
    assert train.train(config(), tmp_path / "run", live=False)["best_env_steps"] == 4 * 32
    assert "evaluation at 64 steps failed: RuntimeError: the simulator is on fire" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("agent", "env"),
    [
        (AGENT, "cartpole"),
        (AGENT, "CartPole-v1"),  # Gymnasium's: the evaluation makes its own
        ({"name": "dqn", "learning_starts": 16, "batch_size": 8, "hidden": [8]}, "cartpole"),
        ({"name": "thompson"}, "bandit"),  # its greedy actions break ties by drawing
    ],
    ids=["ppo", "external", "dqn", "thompson"],
)
def test_evaluating_changes_nothing_of_the_training(agent: dict[str, Any], env: str, tmp_path: Path) -> None:
    options = {"agent": agent, "env": {"id": env}, "steps": 2000 if env == "bandit" else 320}
    train.train(config(**options), tmp_path / "with", live=False)
    train.train(config(**options, eval_every=0), tmp_path / "without", live=False)
    rows = [json.loads(line) for line in (tmp_path / "with" / "metrics.jsonl").read_text().splitlines()]
    assert any("eval/return_mean" in row for row in rows)
    assert everything(tmp_path / "with")[0] == everything(tmp_path / "without")[0]


@pytest.mark.parametrize("after", [3, 4, 7])
def test_a_stopped_run_chooses_the_same(after: int, tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    train.train(config(), tmp_path / "whole", live=False)
    with pytest.raises(train.Interrupted):
        train.train(config(), tmp_path / "cut", live=stop_after(after))
    train.train(config(), tmp_path / "cut", live=False, resume=True)
    assert everything(tmp_path / "whole") == everything(tmp_path / "cut")
    whole, cut = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("whole", "cut"))
    assert all(whole[key] == cut[key] for key in ("best_return", "best_env_steps", "stopped_early"))


@pytest.mark.parametrize("after", [3, 5, 7])
def test_a_stopped_run_stops_early_at_the_same_update(
    after: int, tmp_path: Path, stop_after: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best evaluation is that of update 2; those of 4, 6 and 8 are no better, whatever was counted before the stop."""
    monkeypatch.setattr(selection, "run_episodes", Scored(*[1.0] * 20))
    with pytest.raises(train.Interrupted):
        train.train(config(patience=3), tmp_path / "cut", live=stop_after(after))
    summary = train.train(config(patience=3), tmp_path / "cut", live=False, resume=True)
    assert (summary["env_steps"], summary["best_env_steps"], summary["stopped_early"]) == (8 * 32, 2 * 32, True)
    assert RunFolder(tmp_path / "cut").checkpoint("best").step == 2 * 32


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_chooses_the_same(signum: signal.Signals, tmp_path: Path) -> None:
    words = [
        "train", "--env", "cartpole", "--agent", "ppo", "--num-envs", "16", "--steps", "60000", "--seed", "3", "eval_every=5",
        "eval_every_episodes=8", "agent.num_steps=16", "checkpoint_seconds=0.05", "threads=1", "--dir", str(tmp_path),
        "--no-live", "--no-report",
    ]  # fmt: skip
    command = [sys.executable, "-m", "gumdrop.scripts.cli"]
    subprocess.run([*command, *words, "--name", "whole"], check=True, capture_output=True)
    process = subprocess.Popen([*command, *words, "--name", "cut"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and checkpoint.best_step(tmp_path / "cut") is None:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be stopped"
    os.kill(process.pid, signum)
    process.wait()
    resume = [*command, "resume", "cut", "--dir", str(tmp_path), "--no-live", "--no-report"]
    subprocess.run(resume, check=True, capture_output=True)
    assert everything(tmp_path / "whole") == everything(tmp_path / "cut")


def test_an_evaluation_by_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.train(config(), tmp_path / "run", live=False)
    agent, _, _ = load_run(tmp_path / "run", "best")
    best = RunFolder(tmp_path / "run").checkpoint("best")
    assert all((array == best.tensors["agent"][name]).all() for name, array in agent.state_dict().items())
    evaluation = evaluate_run(tmp_path / "run", 4, checkpoint="best")
    assert (evaluation["checkpoint"], evaluation["checkpoint_env_steps"]) == ("best", best.step)
    show(evaluation)
    assert f"checkpoint best, {best.step} steps\n" in capsys.readouterr().out
    assert not (tmp_path / "run" / "evaluation.json").exists()  # comparisons read the last one's
    with pytest.raises(ValueError, match="no checkpoint of 7 steps"):
        evaluate_run(tmp_path / "run", 4, checkpoint="7")
    with pytest.raises(ValueError, match="patience=3 needs evaluations"):
        config(eval_every=0, patience=3)
