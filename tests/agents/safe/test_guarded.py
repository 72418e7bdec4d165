"""The guarded agent: who acts when, what is counted, whole episodes only, and what it says to options that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.protocol import restart
from gumdrop.agents.registry import make_agent
from gumdrop.agents.safe.guarded import Guarded
from gumdrop.agents.saved import load_run
from gumdrop.configs.schema import RunConfig
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.train import train

LAKE = {"slip": 0.1, "time_limit": 20}
OTHER = {**LAKE, "layout": "SFFF/FFFF/FFFF/FFFG"}  # without holes: who only goes down stays there


class Always:
    """Does `action`, and counts its steps in an episode in its carry."""

    def __init__(self, action: int) -> None:
        self.action, self.calls = action, 0

    def initial(self, n: int) -> dict[str, Any]:
        return {"steps": np.zeros(n, np.int64)}

    def act(self, obs: Any, carry: Any, mode: str, mask: Any = None) -> Any:
        self.calls += 1
        return np.full(obs.shape[:2], self.action), {"steps": carry["steps"] + 1}, {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state


def made(world: str = "frozenlake", options: Any = LAKE, num_envs: int = 16, **agent: Any) -> tuple[Guarded, Any]:
    env = make(world, options, num_envs=num_envs, seed=0, threads=1)
    found = make_agent("guarded", agent, env, 0)
    assert isinstance(found, Guarded)
    return found, env


def watched(agent: Guarded, env: Any, updates: int = 12) -> list[dict[str, float]]:
    collector = Collector(env, agent)
    collector.begin(env.obs)
    return [agent.learn(collector.rollout(agent.num_steps), k / updates) for k in range(updates)]


def played(agent: Guarded, options: Any, steps: int = 20, num_envs: int = 64) -> Any:
    """Actions (T, N), alarms (T, N) and ends (T, N) of environments whose episodes begin anew."""
    env = make("frozenlake", options, num_envs=num_envs, seed=5, threads=1)
    obs, carry, found = env.obs, agent.initial(num_envs), []
    for _ in range(steps):
        action, carry, extras = agent.act(obs, carry, "greedy")
        step = env.step(action)
        found.append((action[:, 0], extras["alarm"], step.terminated | step.truncated, carry["fallback.steps"].copy()))
        restart(agent, carry, step)
        obs = step.obs
    return [np.array(part) for part in zip(*found, strict=True)]


@pytest.mark.parametrize("detector", ["mahalanobis", "reconstruction", "isolation", "surprise"])
def test_the_fallback_acts_in_flagged_episodes_until_they_end(detector: str) -> None:
    small = {"reconstruction": {"steps": 20}, "isolation": {"trees": 20}}.get(detector, {})
    agent, env = made(detector=detector, detector_options=small, alpha=0.1)
    agent.policy, agent.fallback = Always(1), Always(2)  # type: ignore[assignment]
    metrics = watched(agent, env)
    assert agent.fallback.calls == 0, "nothing is flagged before the last update"  # type: ignore[attr-defined]
    assert [row["armed"] for row in metrics] == [0.0] * 11 + [1.0] and metrics[-1]["detector/calibration_episodes"] >= 64

    action, alarm, ended, steps = played(agent, OTHER)
    assert (action == np.where(alarm, 2, 1)).all()
    first = np.concatenate((np.ones((1, 64), np.bool_), ended[:-1]))
    assert (alarm[1:] >= alarm[:-1])[~first[1:]].all(), "an episode stays flagged"
    assert alarm.mean() > (0.05 if detector == "isolation" else 0.5)  # with few observations its trees cut little
    begins = alarm & (first | ~np.concatenate((np.zeros((1, 64), np.bool_), alarm[:-1])))
    assert (steps[begins] == 1).all() and (steps[~alarm] == 0).all(), "the fallback begins when it is called"

    _, alarm, ended, _ = played(agent, LAKE, steps=60)
    assert alarm[ended].mean() < 0.2  # alpha, and what 150 episodes vary by


def test_calibration_takes_equally_many_episodes_of_every_environment() -> None:
    agent, _ = made(num_envs=3, alpha=0.4)
    guard = agent.guard
    guard.envs, guard.num_envs = np.array([1, 0, 1, 1, 2, 0, 2]), 3
    guard.peaks = np.array([5.0, 1.0, 6.0, 70.0, 3.0, 2.0, 4.0])  # the slowest have two: 70 is left out
    assert guard.calibrate() == 6
    assert guard.detector.threshold.scores.tolist() == [1, 2, 3, 4, 5, 6]
    assert guard.detector.threshold.threshold == 5.0  # k = ceil(7 * 0.6)
    guard.envs, guard.peaks = guard.envs[:4], guard.peaks[:4]
    assert guard.calibrate() == 0 and not guard.detector.flag(np.array([1e9])).any(), "copy 2 has none yet"


def test_only_episodes_that_one_detector_saw_from_their_start_count() -> None:
    agent, env = made(num_envs=4)
    watched(agent, env, updates=12)
    guard = agent.guard
    assert len(guard.peaks) > 8 and np.isfinite(guard.peaks).all()
    batch = Collector(env, agent)
    batch.begin(env.obs)
    rollout = batch.rollout(32)
    guard.envs, guard.peaks = guard.envs[:0], guard.peaks[:0]
    guard.version += 1
    guard.collect(rollout)
    assert not len(guard.peaks), "all of them began under another version"


def test_steps_are_judged_by_what_led_to_them() -> None:
    """The surprise detector in a fixed lake without slipping: after an episode's first step all is known, and said again."""
    agent, env = made(options={**LAKE, "slip": 0.0}, detector="surprise", num_envs=8)
    collector = Collector(env, agent)
    collector.begin(env.obs)
    for _ in range(30):
        agent.guard.fit(collector.rollout(32), 0)
    rollout = collector.rollout(32)
    score, ended = rollout.extras["score"][:, :, 0], rollout.terminated | rollout.truncated
    assert np.isnan(score[1:][ended[:-1]]).all() and not np.isnan(score[1:][~ended[:-1]]).any()
    assert np.nanmedian(score) < 0.1


def test_it_keeps_the_arrays_of_a_run(tmp_path: Path) -> None:
    run, guard = tmp_path / "run", tmp_path / "guard"
    world = {"env": {"id": "frozenlake"}, "num_envs": 4, "threads": 1}
    train(RunConfig(**world, agent={"name": "q-learning"}, steps=640), run, live=False)
    agent = {"name": "guarded", "policy": str(run), "fallback": "value-iteration", "num_steps": 8}
    train(RunConfig(**world, agent=agent, steps=8 * 4 * 8), guard, live=False)
    theirs, loaded = load_run(run)[0], load_run(guard)[0]
    mine = {key.removeprefix("policy/"): part for key, part in loaded.state_dict().items() if key.startswith("policy/")}
    assert mine.keys() == theirs.state_dict().keys()
    assert all(np.array_equal(mine[key], part) for key, part in theirs.state_dict().items())
    obs = make("frozenlake", num_envs=3, seed=1).obs
    assert (loaded.act(obs, loaded.initial(3), "sample")[0] == theirs.act(obs, None, "greedy")[0]).all()

    with pytest.raises(ValueError, match="keeps its options: leave policy_options out"):
        made(policy=str(run), policy_options={"gamma": 0.9})
    with pytest.raises(ValueError, match="does Discrete"):
        made("cartpole", {}, fallback=str(run))


def test_messages() -> None:
    for options, message in (
        ({"policy": "nobody"}, "policy='nobody' is neither a run's folder nor an agent's name"),
        ({"detector": "mahalanobi"}, "no detector 'mahalanobi': did you mean mahalanobis"),
        ({"detector_options": {"shrinkag": 1}}, r"detector mahalanobis has no option 'shrinkag': did you mean shrinkage"),
        ({"detector": "linear-surprise"}, "take surprise"),
        ({"alpha": 0.0}, "alpha"),
        ({"zeta": 0.0}, "no option 'zeta'"),
    ):
        with pytest.raises(ValueError, match=message):
            made(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("world", "detector"), [("candy", "mahalanobis"), ("cartpole", "linear-surprise"), ("navigation", "mahalanobis")]
)
def test_several_agents_and_other_actions(world: str, detector: str) -> None:
    options = {"candy": {"agents": 2}, "navigation": {"time_limit": 10}}.get(world, {})
    agent, env = made(world, options, num_envs=4, detector=detector, alpha=0.3)
    watched(agent, env, updates=8)
    assert agent.armed and len(agent.guard.peaks) > 4 and agent.guard.peaks.ndim == 1
    carry = agent.initial(4)
    action, after, extras = agent.act(env.obs, carry, "sample")
    assert action.shape[:2] == env.obs.shape[:2] and extras["alarm"].shape == (4,)
    assert {k: (v.shape, v.dtype) for k, v in after.items()} == {k: (v.shape, v.dtype) for k, v in carry.items()}  # type: ignore[union-attr]
