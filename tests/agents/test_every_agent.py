"""Every registered agent, in a small world that suits it: same seed same bits, exact resume, and a state that is checked.

An agent is tested the moment it exists. Where the world of its folder does not suit it, it has a line in `OWN`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.registry import agents, make_agent
from gumdrop.configs.schema import RunConfig
from gumdrop.envs.make import make
from gumdrop.experiments.run import train
from gumdrop.experiments.run.evaluate import evaluate_run
from gumdrop.store import checkpoint

CORRIDOR = {"env": {"id": "corridor"}, "num_envs": 4}
WORLDS: dict[str, dict[str, Any]] = {  # by the folder that an algorithm lies in
    "bandit": {"env": {"id": "bandit", "pulls": 12}, "num_envs": 4},
    "tabular": {"env": {"id": "frozenlake"}, "num_envs": 4},
    "deep": {"env": {"id": "cartpole"}, "num_envs": 4},
}
CONTEXT = {"env": {"id": "bandit-contextual", "pulls": 12}}
OWN: dict[str, dict[str, Any]] = {
    "gp-ucb": {"env": {"id": "bandit-line", "pulls": 12}},
    "lin-ucb": CONTEXT, "linear-thompson": CONTEXT, "neural-linear": CONTEXT,
    "dqn": {"agent": {"learning_starts": 64, "batch_size": 8, "buffer_size": 200}},  # learns at once, and overwrites
    "dreamer": {"agent": {"learning_starts": 64, "updates": 2, "length": 8, "horizon": 5, "buffer_size": 200}},
}  # fmt: skip
BUTTONS = {"env": {"id": "t-maze", "size": 3, "time_limit": 7}, "num_envs": 6}  # episodes of unequal length, cut and ended
SMALL = {"name": "ppo", "num_steps": 8, "hidden": [8], "update_epochs": 2, "num_minibatches": 2}
PARTS: dict[str, dict[str, Any]] = {  # slots filled; what is in them is part of the state
    "ppo+symbols+gru": {"encoder": "symbols", "belief": {"name": "gru", "hidden": 6}},
    "ppo+vae": {"encoder": {"name": "vae", "size": 3, "hidden": [8], "updates": 2, "batch": 16, "freeze_after": 0.6}},
    "ppo+untrained": {
        "encoder": {"name": "pca", "size": 3, "untrained": True}, "belief": {"name": "rnn", "hidden": 6, "untrained": True},
    },
    "ppo+one-hot+transformer": {
        "encoder": "one-hot", "belief": {"name": "transformer", "width": 8, "heads": 2, "window": 5, "layers": 1},
    },
    "ppo+symbols+hmm": {"encoder": {"name": "symbols", "size": 12}, "belief": {"name": "hmm", "states": 5, "prior": 0.1}},
    "ppo+lstm+normaliser": {"belief": {"name": "lstm", "hidden": 6, "actions": False}, "normalise_observation": True},
    "dreamer+planner": {"name": "dreamer", "controller": "planner", "planner": {"population": 8, "elites": 2, "horizon": 3}},
    "dreamer+cma": {"name": "dreamer", "controller": "cma", "cma": {"population": 4, "episodes": 2, "horizon": 3}},
    "policy-gradient+autoencoder": {
        "name": "policy-gradient", "encoder": {"name": "autoencoder", "size": 3, "hidden": [8], "updates": 2},
    },
}  # fmt: skip
BRIDGED = "bridges"  # other libraries' algorithms promise no bits; tests/agents/bridges says what they do promise
NATIVE = [*(name for name, cls in agents().items() if BRIDGED not in cls.__module__.split(".")), *PARTS]


def config_of(name: str, **changes: Any) -> RunConfig:
    """A run of about six updates."""
    if name in PARTS:
        suited = {**BUTTONS, "agent": {**SMALL, **PARTS[name]}}
        if suited["agent"]["name"] == "dreamer":
            suited = {**CORRIDOR, "agent": OWN["dreamer"]["agent"] | PARTS[name]}
        elif suited["agent"]["name"] != "ppo":
            suited["agent"] = {"name": "policy-gradient", "num_steps": 8, "hidden": [8]} | PARTS[name]
    else:
        folder = agents()[name].__module__.split(".")[-2]
        suited = {**WORLDS.get(folder, CORRIDOR), "agent": {"name": name}, **OWN.get(name, {})}
    run = {**suited, "seed": 3, "threads": 1, "checkpoint_updates": 1, "eval_episodes": 8, **changes}
    run["agent"] = {"name": name} | suited["agent"] | run["agent"]
    config = RunConfig(**run, steps=1)
    env = make(config.env_id, config.env_options, num_envs=config.num_envs)
    steps = 6 * config.num_envs * make_agent(config.agent_name, config.agent_options, env, 0).num_steps
    env.close()
    return config.model_copy(update={"steps": steps})


def everything(folder: Path) -> tuple[str, bytes]:
    return checkpoint.digest(checkpoint.load(folder).tensors), (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", NATIVE)
def test_same_seed_same_bits_and_exact_resume(name: str, tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    config = config_of(name)
    train.train(config, tmp_path / "whole", live=False)
    with pytest.raises(train.Interrupted):
        train.train(config, tmp_path / "cut", live=stop_after(2))
    train.train(config, tmp_path / "cut", live=False, resume=True)
    assert everything(tmp_path / "whole") == everything(tmp_path / "cut")

    train.train(config.model_copy(update={"seed": 4}), tmp_path / "other", live=False)
    assert everything(tmp_path / "whole")[0] != everything(tmp_path / "other")[0]
    first, second = (evaluate_run(tmp_path / run)["agent"]["returns"] for run in ("whole", "cut"))
    assert first == second


@pytest.mark.parametrize("name", NATIVE)
def test_a_state_of_another_shape_is_refused(name: str) -> None:
    config = config_of(name)
    env = make(config.env_id, config.env_options, num_envs=config.num_envs)
    agent = make_agent(config.agent_name, config.agent_options, env, 0)
    state = {key: np.array(value) for key, value in agent.state_dict().items()}
    with pytest.raises(ValueError, match="missing"):
        agent.load_state_dict(dict(list(state.items())[1:]))
    with pytest.raises(ValueError, match="unknown"):
        agent.load_state_dict({**state, "stranger": np.zeros(1)})
    agent.load_state_dict(state)
    env.close()
