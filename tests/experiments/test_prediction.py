"""What a trained agent's world model foresees, from the command line; recorded steps are what happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gumdrop.agents.registry import make_agent
from gumdrop.envs.make import make
from gumdrop.envs.rng import copy_seeds
from gumdrop.experiments.analysis.prediction import drawing, longest, record, wandering, world_model
from gumdrop.experiments.run.episodes import HELD_OUT
from gumdrop.scripts.cli import main

SMALL = {"deter": 8, "groups": 2, "classes": 4, "width": 8, "hidden": [8], "code": 8}
WORDS = ["agent.model.name=rssm", *(f"agent.model.{name}={value}" for name, value in SMALL.items())]


def test_show_writes_a_film_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["train", "--env", "frozenlake", "--no-live", "num_envs=4", "eval_episodes=4"]
    options = ["agent.learning_starts=0", "agent.updates=1", "agent.length=4", *WORDS]
    assert main([*train, "--agent", "dreamer", "--steps", "256", "--name", "d", *options]) == 0
    assert main([*train, "--agent", "random", "--steps", "256", "--name", "r"]) == 0
    capsys.readouterr()
    assert main(["agent", "show", "d", "--out", "seen"]) == 0
    assert "prediction.gif" in capsys.readouterr().out
    assert sorted(path.name for path in Path("seen").iterdir()) == ["calibration.json", "calibration.png", "prediction.gif"]
    with Image.open("seen/prediction.gif") as film:
        assert film.n_frames > 10 and film.width > film.height / 2
    figures = json.loads(Path("seen/calibration.json").read_text())
    assert figures["horizon"] == list(range(1, 16)) and figures["rows"][0] == figures["sequences"]
    assert all(0 <= x <= 1 for name in ("continue", "true_continue", "brier") for x in figures[name] if x is not None)
    first = Path("seen/calibration.json").read_bytes()
    assert main(["agent", "show", "d", "--out", "seen", "--json"]) == 0  # a folder that is there; same seed, same figures
    assert json.loads(capsys.readouterr().out)["calibration"]["brier"] == figures["brier"]
    assert Path("seen/calibration.json").read_bytes() == first
    for words, said in (
        (["r", "--out", "seen2"], "no world model"), (["d", "--out", "x.png"], "--out FOLDER"),
        (["d", "--out", "none/seen"], "not a folder"),
    ):  # fmt: skip
        assert main(["agent", "show", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and said in error
    assert not Path("seen2").exists()


def test_what_is_recorded_is_what_happened() -> None:
    env = make("frozenlake", {"time_limit": 5}, num_envs=3, seed=0)
    agent: Any = make_agent("dreamer", {"model": {"name": "rssm", **SMALL}}, env, 0)
    act, begun = agent.act, []

    def watched(obs: Any, carry: Any, mode: Any, mask: Any = None) -> Any:
        begun.append(carry["first"][:, 0].copy())
        return act(obs, carry, mode, mask)

    agent.act = watched
    replay = record(agent, env, 7, 12)
    found = replay.at(np.arange(3), 12)
    assert np.array_equal(np.stack(begun, 1), found.is_first)  # who acts knows where episodes begin
    env.reset(copy_seeds(7 ^ HELD_OUT, 3))
    fresh = np.ones(3, np.bool_)
    for t in range(12):
        assert np.array_equal(found.obs[:, t], env.obs[:, 0]) and np.array_equal(found.is_first[:, t], fresh)
        step = env.step(found.action[:, t, None])
        assert np.array_equal(found.reward[:, t], step.reward[:, 0])
        assert np.array_equal(found.terminated[:, t], step.terminated)
        fresh = step.terminated | step.truncated
    shown = longest(replay, 6, 2)
    assert shown.reward.shape == (2, 6) and shown.is_first[:, 0].all()
    assert world_model(agent) is agent.model and world_model(make_agent("ppo", {}, env, 0)) is None
    draw: Any = drawing(env)
    import torch

    assert draw(torch.from_numpy(found.obs[0])).shape[0] == 12
    env.close()
    other = make("cartpole", {}, num_envs=1)
    assert drawing(other) is None
    other.close()


def test_wandering_leaves_the_agents_own_play_alone() -> None:
    """The steps that the model may see are those of one uninterrupted play; those it foresees go on from there, at random."""
    env = make("frozenlake", {"time_limit": 9}, num_envs=3)
    first, second = (make_agent("dreamer", {"model": {"name": "rssm", **SMALL}}, env, 0) for _ in range(2))
    context, horizon, rounds = 2, 5, 4
    played = record(first, env, 7, context * rounds).at(np.arange(3), context * rounds)
    found = wandering(second, env, 7, context, horizon, 3 * rounds - 1)  # the last row is not asked for
    assert found.obs.shape == (3 * rounds - 1, context + horizon, 7, 7) and found.is_first[:, 0].all()
    for name in ("obs", "action", "reward", "terminated"):
        mine, whole = getattr(found, name)[:, :context], getattr(played, name)
        rows = np.concatenate([whole[:, context * k : context * (k + 1)] for k in range(rounds)])
        assert np.array_equal(mine, rows[:-1]), name
    assert not np.array_equal(found.action[:3, context:], played.action[:, context : context + horizon])

    env.reset(copy_seeds(7 ^ HELD_OUT, 3))
    for t in range(context + horizon):  # the first round is one walk through the world
        assert np.array_equal(found.obs[:3, t], env.obs[:, 0])
        assert np.array_equal(found.reward[:3, t], env.step(found.action[:3, t, None]).reward[:, 0])
    env.close()
