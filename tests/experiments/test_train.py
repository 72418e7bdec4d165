"""The training loop: same seed same bits, interruption and exact resume, and loud failure on bad numbers."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.protocol import NonFinite
from gumdrop.agents.registry import make_agent
from gumdrop.configs.schema import RunConfig
from gumdrop.envs.make import make
from gumdrop.experiments.run import train
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.store import checkpoint
from gumdrop.store.run_folder import RunFolder

RUNS: dict[str, dict[str, Any]] = {
    "candy": {"env": {"id": "candy", "agents": 2}, "num_envs": 8, "steps": 8 * 16 * 6},
    "maze": {"env": {"id": "maze", "slip": 0.2, "size": 7, "time_limit": 20}, "num_envs": 8, "steps": 8 * 16 * 6},
    "bandit": {"env": {"id": "bandit", "pulls": 10}, "num_envs": 8, "steps": 8 * 16 * 6},
    "CartPole-v1": {"env": {"id": "CartPole-v1"}, "num_envs": 4, "steps": 4 * 16 * 6},
    "Pendulum-v1": {"env": {"id": "Pendulum-v1"}, "num_envs": 4, "steps": 4 * 16 * 6},
}


def run_config(name: str, **changes: Any) -> RunConfig:
    agent = {"name": "ppo", "num_steps": 16, "update_epochs": 2, "num_minibatches": 2, "normalise_observation": True}
    return RunConfig(**{**RUNS[name], "agent": agent, "threads": 1, "checkpoint_updates": 1, **changes})


def fingerprint(folder: Path) -> tuple[str, bytes]:
    """Everything that must be equal: parameters, optimiser, normaliser, random state, simulators, metrics."""
    return checkpoint.digest(checkpoint.load(folder).tensors), (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", RUNS)
def test_same_seed_same_bits_and_exact_resume(name: str, tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    config = run_config(name)
    for run in ("a", "b"):
        assert train.train(config, tmp_path / run, live=False)["status"] == "finished"
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")

    with pytest.raises(train.Interrupted) as stop:
        train.train(config, tmp_path / "c", live=stop_after(2))
    assert stop.value.exit_code == 130
    assert json.loads((tmp_path / "c" / "summary.json").read_text())["status"] == "interrupted"
    with pytest.raises(train.Interrupted) as stop:
        train.train(config, tmp_path / "c", live=stop_after(1, signal.SIGTERM), resume=True)
    assert stop.value.exit_code == 143
    train.train(config, tmp_path / "c", live=False, resume=True)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "c")

    other = config.model_copy(update={"seed": 1})
    train.train(other, tmp_path / "d", live=False)
    assert fingerprint(tmp_path / "a")[0] != fingerprint(tmp_path / "d")[0]


def test_a_killed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    config = run_config("candy")
    train.train(config, tmp_path / "whole", live=False)
    with pytest.raises(train.Interrupted):
        train.train(config, tmp_path / "killed", live=stop_after(3))
    with open(tmp_path / "killed" / "metrics.jsonl", "a") as file:
        file.write('{"updates": 4, "env_steps": 99}\n{"upda')  # what SIGKILL may leave behind
    train.train(config, tmp_path / "killed", live=False, resume=True)
    assert fingerprint(tmp_path / "whole") == fingerprint(tmp_path / "killed")


def test_a_crash_in_the_first_update_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config("candy")
    train.train(config, tmp_path / "whole", live=False)
    real = train.build

    def crashing(config: RunConfig) -> Any:
        env, agent, threads = real(config)
        monkeypatch.setattr(agent, "learn", lambda *_: 1 // 0)
        return env, agent, threads

    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(train, "build", crashing)
        train.train(config, tmp_path / "crashed", live=False)
    assert json.loads((tmp_path / "crashed" / "summary.json").read_text())["status"] == "failed"
    train.train(config, tmp_path / "crashed", live=False, resume=True)
    assert fingerprint(tmp_path / "whole") == fingerprint(tmp_path / "crashed")


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    train.train(run_config("bandit"), tmp_path / "run", live=False)
    with pytest.raises(ValueError, match="is finished"):
        train.train(run_config("bandit"), tmp_path / "run", live=False, resume=True)


def test_another_configuration_is_refused_on_resume(tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    with pytest.raises(train.Interrupted):
        train.train(run_config("bandit"), tmp_path / "run", live=stop_after(1))
    wider = run_config("bandit", agent={**run_config("bandit").agent, "hidden": (32,)})
    with pytest.raises(ValueError, match="model|optimiser"):
        train.train(wider, tmp_path / "run", live=False, resume=True)


@pytest.mark.parametrize("what", ["observation", "reward", "gradient", "loss"])
def test_a_bad_number_stops_the_run_and_is_named(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config("CartPole-v1")
    if what == "gradient":  # the other learner has no place to put a bad one
        config = config.model_copy(update={"agent": {**config.agent, "learner": "torch"}})
    real = train.build

    def broken(config: RunConfig) -> Any:
        env, agent, threads = real(config)
        step, learn = env.step, agent.learn
        calls = [0]

        def bad_step(action: Any) -> Any:
            result = step(action)
            calls[0] += 1
            if calls[0] == 40:  # in the third update
                if what == "observation":
                    result.obs[2, 0, 1] = np.nan
                elif what == "reward":
                    result.reward[1, 0] = np.inf
            return result

        def bad_learn(batch: Any, progress: float) -> Any:
            calls.append(0)
            if len(calls) == 4 and what == "gradient":
                agent.learner.model.policy_head.weight.register_hook(lambda g: g * np.nan)  # type: ignore[attr-defined]
            if len(calls) == 4 and what == "loss":
                batch.extras["log_prob"][3, 1] = np.nan
            return learn(batch, progress)

        monkeypatch.setattr(env, "step", bad_step)
        monkeypatch.setattr(agent, "learn", bad_learn)
        return env, agent, threads

    monkeypatch.setattr(train, "build", broken)
    named = {
        "observation": "update 3: observation of environment 2 in CartPole-v1 is nan, 8 steps",
        "reward": "update 3: reward of environment 1 in CartPole-v1 is inf, 7 steps",
        "gradient": "update 3: gradient of policy_head.weight is not finite",
        "loss": "update 3: policy loss is nan",
    }
    with pytest.raises(NonFinite, match=named[what]):
        train.train(config, tmp_path / "run", live=False)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    assert checkpoint.load(tmp_path / "run").step == 2 * 4 * 16  # the last good one still stands


def test_the_curve_of_random_actions_is_the_random_line() -> None:
    """Oracle: policy evaluation. Copies begin together, and the first episodes to end are the lucky ones: not their mean."""
    options = {"fresh": False, "slip": 0.1, "step_reward": -0.01}
    env = make("maze", options, num_envs=256, seed=3)
    collector = Collector(env, make_agent("random", {}, env, 1))
    collector.begin(env.reset(3))
    line = env.yardstick()
    assert line is not None
    seen = []
    for _ in range(40):
        collector.rollout(16)
        statistics = collector.pop_statistics()
        if "return_mean" in statistics:
            seen.append(statistics)
            assert abs(statistics["return_mean"] - line.random[0]) < 5 * statistics["return_std"] / 256**0.5
    assert len(seen) >= 3


def test_a_run_killed_behind_its_last_checkpoint_is_finished_by_resume(tmp_path: Path) -> None:
    config = run_config("bandit")
    train.train(config, tmp_path / "run", live=False)
    before = fingerprint(tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    summary.write_text(summary.read_text().replace('"finished"', '"running"'))
    assert train.train(config, tmp_path / "run", live=False, resume=True)["status"] == "finished"
    assert fingerprint(tmp_path / "run") == before


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"episodes": "many", "yardstick": 3}', '{"yardstick": {"random": "x"}}'])
def test_damaged_summaries_and_evaluations_are_made_anew(text: str, tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    from gumdrop.experiments.run.evaluate import evaluate_run

    config = run_config("bandit")
    with pytest.raises(train.Interrupted):
        train.train(config, tmp_path / "run", live=stop_after(2))
    for name in ("summary.json", "evaluation.json"):
        (tmp_path / "run" / name).write_text(text)
    summary = train.train(config, tmp_path / "run", live=False, resume=True)
    assert summary["status"] == "finished" and summary["yardstick"]["random"] == 5.0
    evaluate_run(tmp_path / "run", 7)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["episodes"] == 7
    evaluate_run(tmp_path / "run", 3)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["episodes"] == 7


def test_drawn_actions_are_evaluated_beside_the_likeliest(tmp_path: Path) -> None:
    """Of bandits, by a policy that has hardly learned: always the same arm, or one and another. Nobody's file is replaced."""
    from gumdrop.experiments.run.evaluate import evaluate_run

    train.train(run_config("bandit"), tmp_path / "run", live=False)
    greedy = evaluate_run(tmp_path / "run", 50)
    kept = (tmp_path / "run" / "evaluation.json").read_bytes()
    drawn = evaluate_run(tmp_path / "run", 50, mode="sample")
    assert (greedy["mode"], drawn["mode"]) == ("greedy", "sample")
    assert greedy["agent"]["returns"] != drawn["agent"]["returns"] and greedy["random"] == drawn["random"]
    assert (tmp_path / "run" / "evaluation.json").read_bytes() == kept


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    tmp_path.joinpath("run").mkdir()
    with RunFolder(tmp_path / "run").lock(), pytest.raises(ValueError, match="another process"):
        train.train(run_config("bandit"), tmp_path / "run", live=False)


def test_less_than_one_update_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="less than one update of 128"):
        train.train(run_config("bandit", steps=100), tmp_path / "run", live=False)


def test_random_evaluation_draws_new_actions_in_every_batch() -> None:
    from gumdrop.experiments.run.episodes import run_episodes

    returns = run_episodes("random", "CartPole-v1", {}, 320, 0, "sample").returns.reshape(10, 32)
    assert abs(np.corrcoef(returns[0], returns[1])[0, 1]) < 0.5
    between = returns.mean(0).var() / returns.var()  # about 1/10 for independent batches, 0.6 where they repeat
    assert between < 0.25


def test_episodes_that_nothing_ends_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from gumdrop.experiments.run import episodes

    monkeypatch.setattr(episodes, "LONGEST", 50)
    options = {"layout": "S.G", "goal_ends": False, "goal_reward": -1.0, "step_reward": -1.0, "time_limit": 0}
    result = episodes.run_episodes("random", "maze", options, 3, 0, "sample")
    assert result.unfinished == 3 and result.returns.tolist() == [-50.0] * 3 and result.optimal is None


def test_collector_counts_episodes_exactly() -> None:
    env = make("bandit", {"pulls": 5}, num_envs=3, seed=1)
    collector = Collector(env, make_agent("random", {}, env, 0))
    collector.begin(env.reset(1))
    batch = collector.rollout(11)
    statistics = collector.pop_statistics()
    assert statistics["episodes"] == 6 and statistics["length_mean"] == 5
    np.testing.assert_allclose(statistics["return_mean"], batch.reward[:10].sum() / 6)
    assert collector.pop_statistics() == {"episodes": 0}
