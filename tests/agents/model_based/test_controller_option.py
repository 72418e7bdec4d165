"""Option `controller` of the dreamer: what acts with the world model, the same seed the same bits, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.protocol import restart
from gumdrop.agents.registry import make_agent
from gumdrop.configs.schema import RunConfig
from gumdrop.envs.make import make
from gumdrop.experiments.run import train
from gumdrop.experiments.run.evaluate import evaluate_run

LAKE = {"id": "frozenlake", "slip": 0.0}
SMALL: dict[str, Any] = {"learning_starts": 64, "updates": 2, "length": 8, "horizon": 5, "buffer_size": 400}
PLANNER: dict[str, Any] = {"population": 16, "elites": 4, "horizon": 4, "iterations": 2}
CMA: dict[str, Any] = {"population": 6, "episodes": 4}
CHOSEN: dict[str, dict[str, Any]] = {
    "planner": {"controller": "planner", "planner": PLANNER}, "cma": {"controller": "cma", "cma": CMA},
}  # fmt: skip


def made(name: str, env: Any, seed: int = 0) -> Any:
    return make_agent("dreamer", {**SMALL, **CHOSEN[name]}, env, seed)


@pytest.mark.parametrize("name", CHOSEN)
def test_a_run_acts_and_is_evaluated_by_its_controller(name: str, tmp_path: Path) -> None:
    config = RunConfig(
        env=LAKE, agent={"name": "dreamer", **SMALL, **CHOSEN[name]}, num_envs=4, steps=256, seed=1, threads=1, eval_episodes=4
    )
    train.train(config, tmp_path / "run", live=False)
    first, again = (evaluate_run(tmp_path / "run")["agent"]["returns"] for _ in range(2))
    assert first == again and len(first) == 4


@pytest.mark.parametrize("name", CHOSEN)
def test_greedy_acting_leaves_the_random_state_alone_and_sampling_draws(name: str) -> None:
    env = make("frozenlake", {"slip": 0.0}, num_envs=6, seed=0)
    agent = made(name, env)
    obs, before = env.reset(0).copy(), agent.state_dict()["rng"].copy()
    one, carry, _ = agent.act(obs, agent.initial(6), "greedy")
    two, _, _ = agent.act(obs, agent.initial(6), "greedy")
    assert np.array_equal(one, two) and np.array_equal(agent.state_dict()["rng"], before)
    agent.act(obs, agent.initial(6), "sample")
    assert not np.array_equal(agent.state_dict()["rng"], before)
    if name == "planner":  # the next plan begins at this one, except where an episode ended
        assert carry["plan"].shape == (6, 1, 4, 4) and not np.allclose(carry["plan"], 0.25)
        step = env.step(one)
        step.truncated[:2] = True
        restart(agent, carry, step)
        assert np.allclose(carry["plan"][:2], 0.25) and not np.allclose(carry["plan"][2:], 0.25)
    env.close()


def test_cma_trains_its_policy_and_not_the_actor_critic() -> None:
    env = make("frozenlake", {"slip": 0.0}, num_envs=4, seed=0)
    agent = made("cma", env)
    from gumdrop.experiments.run.collect.host import Collector

    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    before = {name: array.copy() for name, array in agent.state_dict().items()}
    for k in range(4):
        metrics = agent.learn(collector.rollout(agent.num_steps), k / 4)
    after = agent.state_dict()
    changed = {name.partition(".")[0] for name in after if not np.array_equal(before[name], after[name])}
    assert {"cma", "model", "replay"} <= changed and "behaviour" not in changed
    assert {"imagined_return", "imagined_return_best", "sigma"} <= metrics.keys() and "loss/policy" not in metrics
    assert [row.slot for row in agent.parts()] == ["model", "controller"]
    assert agent.parts()[1].parameters == len(agent.cma.es.mean) == 4 * (agent.model.size + 1)
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planner": {"population": 8}}, "options planner with controller actor-critic: set controller=planner"),
        ({"controller": "planner", "cma": {"sigma": 1.0}}, "options cma with controller planner: set controller=cma"),
        (
            {"controller": "planner", "planner": {"populaton": 8}},
            "agent dreamer, planner has no option 'populaton': did you mean",
        ),
        ({"controller": "planner", "planner": {"elites": 9, "population": 8}}, "elites 9 are more than the population, 8"),
        ({"controller": "cma", "cma": {"sigma": 0}}, "agent dreamer, cma: sigma"),
        ({"controller": "ppo"}, "agent dreamer: controller"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], message: str) -> None:
    env = make("frozenlake", {}, num_envs=1)
    with pytest.raises(ValueError, match=message) as error:
        make_agent("dreamer", options, env, 0)
    assert "\n" not in str(error.value)
    env.close()
