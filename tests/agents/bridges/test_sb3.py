"""The bridge to stable-baselines3: its own learning to the bit, exact resume, and a line for what does not fit."""

from __future__ import annotations

import copy
import importlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.bridges.sb3.agent import TABLE
from gumdrop.agents.bridges.sb3.vec_env import vec_env
from gumdrop.agents.protocol import Driving, NonFinite, Spaces
from gumdrop.agents.registry import agents, make_agent
from gumdrop.agents.saved import load_run
from gumdrop.configs.schema import RunConfig
from gumdrop.envs.make import make
from gumdrop.experiments.run import train
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.collect.make import collector_of
from gumdrop.experiments.run.evaluate import evaluate_run
from gumdrop.scripts.cli import main
from gumdrop.store import checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("sb3_contrib")

SMALL = {"policy_kwargs": {"net_arch": [8]}}
OFF = {**SMALL, "learning_starts": 20, "batch_size": 8, "buffer_size": 60, "train_freq": 2}
LSTM = {"policy_kwargs": {"net_arch": [8], "lstm_hidden_size": 4}, "batch_size": 16, "n_epochs": 2}
OPTIONS: dict[str, dict[str, Any]] = {  # few rows, so that the replay buffers fill up and go round
    "sb3-ppo": {**SMALL, "batch_size": 16, "n_epochs": 2, "learning_rate": "lin_0.003"}, "sb3-a2c": SMALL,
    "sb3-trpo": {**SMALL, "batch_size": 16}, "sb3-recurrent-ppo": LSTM,
    "sb3-dqn": {**OFF, "target_update_interval": 30, "exploration_fraction": 0.9, "n_steps": 2},
    "sb3-qrdqn": {**OFF, "target_update_interval": 30},
    **{name: OFF for name in ("sb3-sac", "sb3-td3", "sb3-ddpg", "sb3-tqc", "sb3-crossq")},
}  # fmt: skip
COPIES, STEPS, UPDATES = 3, 10, 5


def world_of(name: str) -> dict[str, Any]:
    if name == "sb3-recurrent-ppo":
        return {"id": "t-maze", "size": 3, "time_limit": 12}  # a world that asks for memory
    return {"id": "navigation", "time_limit": 7} if TABLE[name].actions == "continuous" else {"id": "cartpole"}


def config_of(name: str, **changes: Any) -> RunConfig:
    chosen = {"name": name, "num_steps": STEPS, "options": OPTIONS[name]}
    run: dict[str, Any] = {
        "env": world_of(name),
        "num_envs": COPIES,
        "steps": COPIES * STEPS * UPDATES,
        "seed": 3,
        "threads": 1,
    }
    return RunConfig(**{**run, "agent": chosen, "checkpoint_updates": 2, "eval_episodes": 4, **changes})


def everything(folder: Path) -> tuple[str, bytes]:
    return checkpoint.digest(checkpoint.load(folder).tensors), (folder / "metrics.jsonl").read_bytes()


def test_every_row_of_the_table_is_registered_and_tested() -> None:
    assert set(TABLE) == {name for name in agents() if name.startswith("sb3-")} == set(OPTIONS)


@pytest.mark.parametrize("name", TABLE)
def test_trains_saves_reloads_evaluates_and_goes_on_exactly(name: str, tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    config = config_of(name)
    train.train(config, tmp_path / "whole", live=False)
    with pytest.raises(train.Interrupted):
        train.train(config, tmp_path / "cut", live=stop_after(3))
    torch.manual_seed(99), np.random.seed(99)
    train.train(config, tmp_path / "cut", live=False, resume=True)
    assert everything(tmp_path / "whole") == everything(tmp_path / "cut")
    returns = evaluate_run(tmp_path / "cut")["agent"]["returns"]
    assert len(returns) == 4 and np.isfinite(returns).all()
    env = make(config.env_id, config.env_options, num_envs=1)
    first, again, other = (checkpoint.digest(make_agent(name, config.agent_options, env, s).state_dict()) for s in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("name", TABLE)
def test_learns_as_the_library_does(name: str) -> None:
    """Updates driven by us leave the parameters that `model.learn` leaves, with the same seed and environments."""
    config = config_of(name)
    theirs = make(config.env_id, config.env_options, num_envs=COPIES)
    theirs.reset(3)
    row = TABLE[name]
    options = copy.deepcopy(OPTIONS[name])  # they write into policy_kwargs
    if row.num_steps:
        options["n_steps"] = STEPS
    if name == "sb3-ppo":
        options["learning_rate"] = lambda left: 0.003 * left
    if row.noise:
        from stable_baselines3.common.noise import NormalActionNoise

        options["action_noise"] = NormalActionNoise(np.zeros(2), np.full(2, row.noise))
    cls = getattr(importlib.import_module(row.package), row.cls)
    state = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(1)
    model = cls(row.policy, vec_env(theirs, Spaces.of(theirs), COPIES), seed=3, device="cpu", **options)
    model.learn(config.steps)

    env, agent, _ = train.build(config)
    env.reset(3)
    collector = collector_of(env, agent, "cpu", config.steps)
    collector.begin(env.obs)
    for done in range(UPDATES):
        metrics = agent.learn(collector.rollout(agent.num_steps), done / UPDATES)
    ours: Any = agent
    assert model.num_timesteps == ours.model.num_timesteps == config.steps and model._n_updates > 0
    assert metrics["learning_rate"] == model.logger.name_to_value.get("train/learning_rate", metrics["learning_rate"])
    want, got = model.policy.state_dict(), ours.model.policy.state_dict()
    untrained: Any = make_agent(name, config.agent_options, env, 3)
    assert any(not torch.equal(want[key], value) for key, value in untrained.model.policy.state_dict().items())
    assert all(torch.equal(want[key], got[key]) for key in want)
    torch.set_rng_state(state[0])
    torch.set_num_threads(state[1])


def test_nobody_elses_random_numbers_change() -> None:
    config = config_of("sb3-sac")
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    env, agent, _ = train.build(config)
    collector = collector_of(env, agent)
    collector.begin(env.reset(3))
    agent.learn(collector.rollout(STEPS), 0.0)
    agent.act(env.obs, None, "sample")
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[2]
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]


def test_the_books_are_kept_as_for_everyone() -> None:
    """Statistics of a driven rollout are those of the plain collector with an agent that plays the same actions."""
    env, twin = (make("cartpole", {}, num_envs=4) for _ in range(2))
    agent = make_agent("sb3-a2c", {"num_steps": 64}, env, 0)
    assert isinstance(agent, Driving) and not isinstance(make_agent("random", {}, env, 0), Driving)
    played: list[Any] = []
    plain_step = env.step

    def step(action: Any, *, autoreset: bool = True) -> Any:
        played.append(action.copy())
        return plain_step(action, autoreset=autoreset)

    env.step = step  # type: ignore[method-assign]
    collector = collector_of(env, agent)
    collector.begin(env.reset(5))
    batch = collector.rollout(64)
    assert len(played) == 64 and len(batch.reward) == 0 and (batch.last_obs == env.obs).all()

    class Player:
        def initial(self, n: int) -> None:
            return None

        def act(self, obs: Any, carry: Any, mode: str, mask: Any = None) -> tuple[Any, None, dict[str, Any]]:
            return played.pop(0), None, {}

    plain = Collector(twin, Player())  # type: ignore[arg-type]
    plain.begin(twin.reset(5))
    plain.rollout(64)
    statistics = collector.pop_statistics()
    assert statistics == plain.pop_statistics() and statistics["return_mean"] > 0
    cohort = plain.get_state()
    assert all((collector.get_state()[name] == cohort[name]).all() for name in cohort)
    assert min(collector.pop_seconds()) > 0


def test_several_agents_are_rows(tmp_path: Path) -> None:
    """Two players: four environments are eight rows, each with its own reward."""
    env = make("prisoners-dilemma", {}, num_envs=4)
    env.reset(0)
    rows = vec_env(env, Spaces.of(env), 8)
    actions = np.array([0, 1, 1, 1, 0, 0, 1, 0])
    twin = make("prisoners-dilemma", {}, num_envs=4)
    twin.reset(0)
    expected = twin.step(actions.reshape(4, 2))
    obs, reward, done, infos = rows.step(actions)
    assert (obs == expected.obs.reshape(8, -1)).all() and (reward == expected.reward.reshape(8)).all() and len(infos) == 8
    for _ in range(20):
        obs, reward, done, infos = rows.step(actions)
        if done.any():
            break
    assert done.all() and all("terminal_observation" in info for info in infos)
    agent = {"name": "sb3-recurrent-ppo", "num_steps": 8, "options": LSTM}
    config = config_of("sb3-recurrent-ppo", env={"id": "prisoners-dilemma"}, agent=agent)
    train.train(config, tmp_path / "two", live=False)
    assert len(evaluate_run(tmp_path / "two")["agent"]["returns"]) == 4


def test_termination_and_time_limits_are_told_apart() -> None:
    for options, truncated in (({"time_limit": 1}, True), ({"time_limit": 0}, False)):
        env = make("frozenlake", options, num_envs=16)
        env.reset(1)
        rows = vec_env(env, Spaces.of(env), 16)
        shown = rows.reset()
        for _ in range(300):
            kept = shown.copy()
            after, _, done, infos = rows.step(np.zeros(16, np.int64) + 1)
            assert (shown == kept).all()  # what it has given stays as it was
            shown = after
            if done.any():
                break
        ends = [info for info, over in zip(infos, done, strict=True) if over]
        assert done.any() and all(info["TimeLimit.truncated"] is truncated for info in ends)
        assert not any(infos[k] for k in np.flatnonzero(~done))


def test_what_an_lstm_remembers_ends_with_the_episode() -> None:
    """Acting step by step with the carry, fresh rows at episode ends, is the library's `predict` with `episode_start`."""
    env = make("cartpole", {}, num_envs=3)
    agent: Any = make_agent("sb3-recurrent-ppo", {"options": LSTM}, env, 0)
    rng = np.random.Generator(np.random.PCG64(0))
    obs = rng.normal(size=(6, 3, 1, 4)).astype(np.float32)
    carry, state = agent.initial(3), None
    for t in range(6):
        begun = np.array([t == 0, t in (0, 3), t in (0, 4)])
        for name, fresh in agent.initial(1).items():
            carry[name][begun] = fresh
        want, state = agent.model.policy.predict(obs[t, :, 0], state, begun, deterministic=True)
        got, carry, _ = agent.act(obs[t], carry, "greedy")
        assert (got[:, 0] == want).all()
        assert np.allclose(carry["hidden"][:, 0].swapaxes(0, 1), state[0], atol=1e-6)
    assert np.abs(carry["hidden"]).max() > 1e-3


@pytest.mark.parametrize("name", ["sb3-ppo", "sb3-td3"])
def test_a_gymnasium_environment(name: str, tmp_path: Path) -> None:
    env = {"id": "Pendulum-v1" if name == "sb3-td3" else "CartPole-v1"}
    config = config_of(name, env=env, num_envs=2, steps=40)
    train.train(config, tmp_path / name, live=False)
    assert len(evaluate_run(tmp_path / name)["agent"]["returns"]) == 4


def test_the_commands_take_these_agents_as_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--dir", str(tmp_path)]
    words = ["--env", "cartpole", "num_envs=2", "steps=40", "eval_episodes=4", "--no-live", "--no-report", *runs]
    network = "agent.options.policy_kwargs.net_arch=[8]"
    for name, agent, steps in (("a", "sb3-a2c", 10), ("b", "sb3-dqn", 8)):
        assert main(["train", *words, "--agent", agent, f"agent.num_steps={steps}", network, "--name", name]) == 0
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["eval", a, "--episodes", "4"]) == 0
    assert main(["rollout", b, "--episodes", "1"]) == 0
    assert main(["compare", a, b, "--out", str(tmp_path / "c.html")]) == 0
    assert main(["resume", a]) == 2  # finished
    assert "is finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "env", "options", "line"),
    [
        ("sb3-ppo", "cartpole", {"options": {"batchsize": 8}}, "no option 'batchsize': did you mean batch_size"),
        ("sb3-ppo", "cartpole", {"options": {"batch_size": 0.5}}, "options.batch_size is 0.5: give a whole number"),
        ("sb3-ppo", "cartpole", {"options": {"batch_size": True}}, "options.batch_size is True: give a whole number"),
        ("sb3-ppo", "cartpole", {"options": {"n_epochs": 0}}, "options.n_epochs is 0: it should be at least 1"),
        ("sb3-ppo", "cartpole", {"options": {"learning_rate": "fast"}}, "learning_rate is 'fast': give a number or lin_NUMBER"),
        ("sb3-ppo", "cartpole", {"options": {"learning_rate": "lin_x"}}, "after lin_ comes a number"),
        ("sb3-ppo", "cartpole", {"options": {"n_steps": 5}}, "n_steps is not for options: set agent.num_steps"),
        ("sb3-ppo", "cartpole", {"options": {"seed": 5}}, "seed is not for options: set seed"),
        ("sb3-ppo", "cartpole", {"options": {"policy_kwargs": {"net_arc": [8]}}}, "stable-baselines3 refuses.*net_arc"),
        (
            "sb3-ppo",
            "cartpole",
            {"options": {"policy_kwargs": {"activation_fn": "os.system"}}},
            "activation_fn: no 'os.system'",
        ),
        ("sb3-ppo", "cartpole", {"policy": "MlpPolice"}, "no policy 'MlpPolice': did you mean MlpPolicy"),
        ("sb3-dqn", "cartpole", {"num_steps": 6}, "num_steps=6 is no multiple of train_freq=4"),
        ("sb3-dqn", "navigation", {}, "chooses discrete actions.*take sb3-sac"),
        ("sb3-sac", "cartpole", {}, "chooses continuous actions.*take sb3-dqn"),
    ],
)
def test_a_wrong_option_costs_one_line(name: str, env: str, options: dict[str, Any], line: str) -> None:
    world = make(env, {}, num_envs=2)
    with pytest.raises(ValueError, match=f"^agent {name}.*{line}") as found:
        make_agent(name, options, world, 0)
    assert "\n" not in str(found.value)


def test_without_sb3_contrib_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sb3_contrib", None)
    env = make("cartpole", {}, num_envs=2)
    with pytest.raises(ValueError, match=r"^agent sb3-trpo: sb3-contrib is not installed: pip install 'gumdrop\[sb3\]'$"):
        make_agent("sb3-trpo", {}, env, 0)
    make_agent("sb3-ppo", {}, env, 0)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, stop_after: Callable[..., Any]) -> None:
    config = config_of("sb3-dqn", keep_checkpoints=1)
    with pytest.raises(train.Interrupted):
        train.train(config, tmp_path / "run", live=stop_after(4))
    found = checkpoint.load(tmp_path / "run")
    agent, _, _ = load_run(tmp_path / "run")
    state = dict(found.tensors["agent"])
    with pytest.raises(ValueError, match="missing"):
        agent.load_state_dict(dict(list(state.items())[1:]))
    with pytest.raises(ValueError, match="unknown"):
        agent.load_state_dict({**state, "stranger": np.zeros(1)})
    cohort = found.tensors["cohort"]
    for name, array in (
        ("driven/replay.at", np.array([77, 0])),
        ("driven/replay.actions", cohort["driven/replay.actions"][1:]),
    ):
        checkpoint.save(tmp_path / "run", found.step, {**found.tensors, "cohort": {**cohort, name: array}}, found.info, 1)
        with pytest.raises(ValueError, match="replay"):
            train.train(config, tmp_path / "run", live=False, resume=True)
    file = next((tmp_path / "run" / "checkpoints").glob("step-*/agent.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(checkpoint.CheckpointError, match="no intact checkpoint"):
        load_run(tmp_path / "run")


def test_parameters_that_are_not_finite_stop_the_run() -> None:
    env = make("cartpole", {}, num_envs=2)
    options = {"num_steps": 8, "options": {**OPTIONS["sb3-ppo"], "batch_size": 8, "learning_rate": 1e30}}
    agent = make_agent("sb3-ppo", options, env, 0)
    collector = collector_of(env, agent)
    collector.begin(env.reset(0))
    with pytest.raises(NonFinite, match="is not finite: lower agent.options.learning_rate"):
        for _ in range(5):
            agent.learn(collector.rollout(8), 0.0)


def test_an_observation_that_is_not_finite_is_named() -> None:
    env: Any = make("cartpole", {}, num_envs=2)
    agent = make_agent("sb3-a2c", {}, env, 0)
    collector = collector_of(env, agent)
    collector.begin(env.reset(0))
    env.state.x[1] = np.nan
    with pytest.raises(NonFinite, match="observation of environment 1 in cartpole is nan, 1 steps into the rollout"):
        collector.rollout(5)
