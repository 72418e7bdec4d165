"""The slot for parts of a reward: which steps they see, sums, checkpoints, faults in a line, and the wrapper."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.protocol import Rollout, Spaces
from gumdrop.agents.registry import make_agent
from gumdrop.agents.slots.reward_env import RewardEnv
from gumdrop.agents.slots.rewards import Rewards, Steps
from gumdrop.configs.schema import RunConfig
from gumdrop.core_ml import component
from gumdrop.core_ml.component import BonusPart
from gumdrop.core_ml.observations import BonusInputs
from gumdrop.envs.make import make
from gumdrop.experiments.run import train
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.collect.make import collector_of
from gumdrop.store import checkpoint

WORLD: dict[str, Any] = {"layout": "S..G", "observe": "coordinates", "time_limit": 6}
SMALL = {"name": "rnd", "hidden": [8], "size": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "ppo": {}, "policy-gradient": {}, "dqn": {"learning_starts": 16, "batch_size": 8, "buffer_size": 200},
}  # fmt: skip


class Fixed:
    """A part that pays `paid` and counts what it was shown."""

    def __init__(self, paid: float) -> None:
        self.paid, self.shown = paid, np.zeros(1)

    def bonus(self, obs: Any, action: Any, next_obs: Any, terminated: Any) -> Any:
        return np.full(terminated.shape, self.paid, np.float32)

    def update(self, obs: Any, action: Any, next_obs: Any, terminated: Any) -> dict[str, float]:
        self.shown += terminated.size
        return {"shown": float(self.shown[0])}

    def state_dict(self) -> dict[str, Any]:
        return {"shown": self.shown.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shown[:] = state["shown"]


def rollout() -> Rollout:
    """3 steps of 2 copies; copy 0 is truncated at step 1 (at 99), copy 1 terminated at step 0."""
    obs = np.array([[10, 20], [11, 21], [12, 22]], np.float32).reshape(3, 2, 1, 1)
    terminated, truncated = np.zeros((2, 3, 2), np.bool_)
    terminated[0, 1] = truncated[1, 0] = True
    none = np.zeros((3, 2, 1))
    last, final = np.array([13, 23], np.float32).reshape(2, 1, 1), np.full((1, 1, 1), 99, np.float32)
    return Rollout(obs, none.astype(np.int64), none.astype(np.float32) + 1, terminated, truncated, last, final, {})


def filled(*paid: float, **options: Any) -> Rewards:
    rewards = Rewards((), Spaces.of(make("corridor", {}, num_envs=1)), 0.9, 0)
    rewards.bonuses = tuple(BonusPart(name="rnd", weight=10.0**k, **options) for k in range(len(paid)))
    rewards.parts, rewards.labels = [Fixed(p) for p in paid], [f"fixed.{k}" for k in range(len(paid))]
    return rewards


def test_which_observation_a_step_led_to() -> None:
    steps = Steps.of(rollout())
    assert steps.next_obs[:, 0, 0, 0].tolist() == [11, 99, 13]
    assert steps.next_obs[1:, 1, 0, 0].tolist() == [22, 23]
    assert steps.terminated[:, :, 0].tolist() == [[False, True], [False, False], [False, False]]


def test_weighted_sum_on_top_of_the_worlds_reward() -> None:
    batch = rollout()
    added, metrics = filled(2.0, 0.5).add(batch)
    np.testing.assert_array_equal(added.reward, np.full((3, 2, 1), 1 + 2 + 10 * 0.5, np.float32))
    assert (batch.reward == 1).all() and added.reward.dtype == np.float32
    assert metrics["bonus/fixed.0"] == 2 and metrics["bonus/fixed.1"] == 5 and metrics["bonus/fixed.1/shown"] == 6
    untrained, metrics = filled(2.0, untrained=True).add(batch)
    assert untrained.reward[0, 0, 0] == 3 and list(metrics) == ["bonus/fixed.0"]


def test_without_parts_nothing_changes() -> None:
    batch = rollout()
    rewards = filled()
    assert rewards.add(batch)[0] is batch and rewards.state() == {} and rewards.load({"x": np.zeros(1)}).keys() == {"x"}


def test_without_parts_torch_is_not_imported() -> None:
    code = (
        "import sys; from gumdrop.agents.registry import agents, make_agent; from gumdrop.envs.make import make; agents(); "
        "make_agent('ppo', {'bonus': []}, make('corridor', {}, num_envs=1), 0); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("bonus", "says"),
    [
        (["rdn"], "did you mean rnd"),
        ([{"name": "rnd", "weigth": 2}], "did you mean weight"),
        ([{"name": "rnd", "size": 0}], "size"),
        ([{"name": "rnd", "weight": "x"}], "weight"),
        (["shaping"], "one potential"),
        ([{"weight": 1}], "name"),
    ],
)
def test_a_bad_bonus_is_told_in_a_line(bonus: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        make_agent("ppo", {"bonus": bonus}, make("corridor", {}, num_envs=1), 0)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=says) as error:
        RewardEnv(make("corridor", {}, num_envs=1), bonus, 0.9, 0)
    assert "\n" not in str(error.value)


def test_a_name_alone_is_a_part_and_none_is_no_part() -> None:
    env = make("corridor", {}, num_envs=1)
    for bonus, labels in (("rnd", ["rnd"]), (["rnd", "rnd"], ["rnd.0", "rnd.1"]), (None, []), ("none", []), ([], [])):
        agent: Any = make_agent("ppo", {"bonus": bonus}, env, 0)
        assert agent.rewards.labels == labels


def test_shaping_takes_the_agents_discount() -> None:
    agent: Any = make_agent(
        "ppo", {"gamma": 0.8, "bonus": [{"name": "shaping", "weights": [0] * 6}]}, make("corridor", {}, num_envs=1), 0
    )
    assert agent.rewards.parts[0].gamma == 0.8


def test_a_plugins_bonus_is_made_as_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told observations, actions and the agent's discount, and has a seed; every bonus of ours takes the same."""
    monkeypatch.setattr(component, "_COMPONENTS", {**component._COMPONENTS})

    class Told(Fixed):
        Config = component.ComponentConfig

        def __init__(self, config: Any, facts: BonusInputs, seed: int) -> None:
            super().__init__(1.0)
            self.facts, self.seed = facts, seed

    component.component("bonus", "told")(Told)
    made = {
        world: make_agent("ppo", {"gamma": 0.7, "bonus": ["told", "told"]}, make(world, {}, num_envs=1), 0).rewards.parts  # type: ignore[attr-defined]
        for world in ("maze", "point-maze")
    }
    observation, actions, discrete, gamma = made["maze"][0].facts
    assert (observation.kind, observation.shape, actions, discrete, gamma) == ("grid", (7, 7), 4, True, 0.7)
    assert made["point-maze"][0].facts[1:] == (2, False, 0.7) and made["point-maze"][0].facts.observation.kind == "vector"
    assert made["maze"][0].seed != made["maze"][1].seed
    for found in component.components("bonus").values():
        assert [*inspect.signature(found.cls).parameters][:3] == ["config", "facts", "seed"]


@pytest.mark.parametrize("name", OPTIONS)
def test_agents_resume_exactly_and_report_the_worlds_return(name: str, tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    parts = [SMALL, {"name": "icm", "hidden": [8], "size": 4, "weight": 100.0}]
    agent = {"name": name, "num_steps": 8, "bonus": parts} | OPTIONS[name]
    config = RunConfig(
        env={"id": "maze", **WORLD}, agent=agent, num_envs=4, steps=6 * 32, seed=3, threads=1, checkpoint_updates=1
    )
    train.train(config, tmp_path / "whole", live=False)
    with pytest.raises(train.Interrupted):
        train.train(config, tmp_path / "cut", live=stop_after(2))
    train.train(config, tmp_path / "cut", live=False, resume=True)
    states = [checkpoint.load(tmp_path / run).tensors for run in ("whole", "cut")]
    assert checkpoint.digest(states[0]) == checkpoint.digest(states[1])
    metrics = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "cut")]
    assert metrics[0] == metrics[1] and "bonus/rnd" in metrics[0]
    returns = [row["return_mean"] for row in map(json.loads, metrics[0].splitlines()) if "return_mean" in row]
    assert returns and max(returns) <= 1


def test_the_agent_learns_from_reward_and_bonus() -> None:
    """PPO's advantages are those of the sum: without a world's reward a constant bonus is what the critic learns."""
    env = make("maze", WORLD | {"goal_reward": 0}, num_envs=8)
    agent: Any = make_agent(
        "ppo", {"num_steps": 16, "bonus": [SMALL], "gamma": 0.0, "gae_lambda": 0.0, "update_epochs": 8}, env, 0
    )
    agent.rewards.parts = [Fixed(3.0)]
    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    for _ in range(60):
        agent.learn(collector.rollout(16), 0.0)
    assert abs(float(agent.actor.values(env.obs).mean()) - 3) < 0.3


def test_wrapper_adds_to_rewards_and_leaves_returns() -> None:
    env = RewardEnv(make("maze", WORLD, num_envs=3), [SMALL], 0.9, 0, every=4)
    plain = make("maze", WORLD, num_envs=3)
    np.testing.assert_array_equal(env.reset(0), plain.reset(0))
    rng, returns = np.random.default_rng(0), []
    for t in range(30):
        action = rng.integers(0, 4, (3, 1))
        before = np.array(plain.obs)
        ours, theirs = env.step(action), plain.step(action)
        next_obs = np.where((theirs.terminated | theirs.truncated)[:, None, None], theirs.final_obs, theirs.obs)
        if t % 4 != 3:  # else the parts have learned from it since
            want = env.rewards.parts[0].bonus(before, action, next_obs, theirs.terminated[:, None])
            np.testing.assert_allclose(ours.reward - theirs.reward, want, atol=1e-6)
        returns += env.episodes().return_.ravel().tolist()
        assert env.episodes().return_.tolist() == plain.episodes().return_.tolist()
    assert set(returns) <= {0.0, 1.0} and returns
    assert env.metrics["bonus/rnd"] > 0


def test_wrapper_goes_on_exactly() -> None:
    def walk(env: Any, seed: int) -> list[Any]:
        rng = np.random.default_rng(seed)
        return [np.array(env.step(rng.integers(0, 4, (3, 1))).reward) for _ in range(7)]

    one, two = (RewardEnv(make("maze", WORLD, num_envs=3), [SMALL], 0.9, seed, every=4) for seed in (0, 1))
    one.reset(0)
    two.reset(5)
    walk(one, 0)
    state = one.get_state()
    rest = walk(one, 1)
    two.set_state(state)
    np.testing.assert_array_equal(rest, walk(two, 1))


def test_stable_baselines_learns_from_the_bonus_through_the_bridge() -> None:
    pytest.importorskip("stable_baselines3")
    env: Any = RewardEnv(make("maze", WORLD, num_envs=4), [SMALL], 0.99, 0)
    agent = make_agent("sb3-ppo", {"num_steps": 16, "options": {"n_epochs": 1, "batch_size": 32}}, env, 0)
    collector = collector_of(env, agent)
    collector.begin(env.reset(0))
    for _ in range(3):
        agent.learn(collector.rollout(16), 0.0)
    assert float(agent.model.rollout_buffer.rewards.min()) > 0  # type: ignore[attr-defined]  # the world pays 0 or 1
    assert collector.pop_statistics()["return_mean"] <= 1
    assert env.metrics["bonus/rnd"] > 0
