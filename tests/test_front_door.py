"""`import gumdrop as gd`: cheap, lazy, documented, and enough to train, look and go on without the command line."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gumdrop as gd
from gumdrop.configs.schema import RunConfig
from gumdrop.experiments import api

ROOT = Path(__file__).parents[1]
PUBLIC = [name for name in gd.__all__ if name != "__version__"]
QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `runs/lake` has been trained."""
    folder = tmp_path_factory.mktemp("front")
    gd.train("q-learning", env="frozenlake", steps=20_000, num_envs=64, seed=1, name="lake", directory=folder / "runs", **QUIET)
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which holds `runs/lake`."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- the door itself


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, gumdrop as gd; dir(gd); gd.__version__\n"
        "assert not {'numpy', 'torch', 'numba', 'gymnasium', 'pydantic', 'yaml', 'typer'} & set(sys.modules)\n"
        "assert not [m for m in sys.modules if m.startswith('gumdrop.') and m.split('.')[1] != 'envs']\n"
        "assert callable(gd.train); assert 'torch' not in sys.modules and 'numba' not in sys.modules\n"
        "import gumdrop.agents.registry; assert callable(gd.agents) and gd.agents.registry.agents"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_names_are_there_and_no_others() -> None:
    assert set(PUBLIC) <= set(dir(gd)) and all(callable(getattr(gd, name)) for name in PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        gd.tarin  # type: ignore[attr-defined]  # noqa: B018
    assert "ppo" in gd.agents() and "frozenlake" in gd.worlds() and all({**gd.agents(), **gd.worlds()}.values())
    assert re.fullmatch(r"\d+\.\d+\.\d+", gd.__version__)


def test_an_agents_option_is_never_a_runs_option() -> None:
    """Keywords of `train` are sorted by their names alone."""
    from gumdrop.agents.registry import agents

    own = {"env", "steps", "seed", "num_envs", "name", "env_options", "directory", "progress", "what", *RunConfig.model_fields}
    assert not {(name, option) for name, cls in agents().items() for option in cls.Config.model_fields if option in own}


def _documented() -> Iterator[Any]:
    finder = doctest.DocTestFinder(recurse=True, exclude_empty=False)
    for name in PUBLIC:
        thing = getattr(gd, name)
        for case in finder.find(thing, name, module=False, globs={"gd": gd, "np": np}):  # type: ignore[arg-type]
            # of a class its public methods, too; `gd.agents` is a package: its own docstring only
            if case.examples and "._" not in case.name and (case.name == name or isinstance(thing, type)):
                yield pytest.param(case, id=case.name)


@pytest.mark.parametrize("case", [*_documented()])
def test_the_example_in_each_docstring(case: doctest.DocTest, here: Path) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(case).failed == 0


def test_every_public_name_has_an_example_and_its_errors() -> None:
    for name in PUBLIC:
        text = getattr(gd, name).__doc__ or ""
        assert ">>>" in text, f"{name} has no example"
    for name in ("make", "train", "load", "evaluate", "compare", "Policy"):
        assert "ValueError" in (getattr(gd, name).__doc__ or ""), f"{name} does not say what it raises"
    for member, value in vars(gd.Run).items():
        if not member.startswith("_"):
            assert value.__doc__, f"Run.{member} has no docstring"


# ---- training


def test_a_preset_an_agent_and_a_file_are_trained(here: Path) -> None:
    run = gd.train("frozenlake-q", steps=2e4, num_envs=64, epsilon=0.2, env_options={"slip": 0.0}, **QUIET)
    assert run.path == Path("runs/frozenlake-q-0001") and run.config.steps == 20_000
    assert run.config.agent_options["epsilon"] == 0.2 and run.config.env == {"id": "frozenlake", "slip": 0.0}
    (here / "mine.yaml").write_text("env: bandit\nagent: ucb1\nsteps: 1000\nnum_envs: 10\n")
    assert gd.train("mine.yaml", seed=4, **QUIET).path.name == "mine-0001"
    again = gd.train("random", env="bandit", steps=1000, num_envs=10, eval_episodes=30, name="by-name", **QUIET)
    assert again.config.eval_episodes == 30 and len(again.evaluate().returns) == 30


def test_equal_seeds_give_equal_metrics_in_a_thread_too(here: Path) -> None:
    how = dict(env="frozenlake", steps=20_000, num_envs=64, seed=1, name="other", **QUIET)
    found: list[Any] = []
    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        run = gd.train("q-learning", **how)  # type: ignore[arg-type]
        found.extend([run, run.policy(np.zeros((2, 7, 7), np.uint8)), run.evaluate(20)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    run, lake = found[0], gd.load("lake")
    assert all(np.array_equal(run.metrics[k], lake.metrics[k], equal_nan=True) for k in lake.metrics)
    assert (run.path / "metrics.jsonl").read_bytes() == (lake.path / "metrics.jsonl").read_bytes()


def test_ctrl_c_saves_and_resume_ends_as_if_it_had_not_been(here: Path) -> None:
    """In a script: the process ends by KeyboardInterrupt, its run is saved, and another process goes on."""
    code = "import gumdrop as gd; gd.train('q-learning', env='frozenlake', steps=4e6, num_envs=64, name='cut', progress=False)"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    metrics = here / "runs" / "cut" / "metrics.jsonl"
    until = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode != 0 and err.strip().splitlines()[-1] == (
        "KeyboardInterrupt: stopped and saved: gd.load('runs/cut').resume() goes on"
    )
    run = gd.load("cut")
    assert run.summary["status"] == "interrupted" and 0 < run.summary["env_steps"] < 4e6


def test_resume_goes_on_to_more_steps(here: Path) -> None:
    run = gd.load("lake")
    with pytest.raises(ValueError, match="finished"):
        run.resume(**QUIET)
    with pytest.raises(ValueError, match="the run's total is 20,000, give a larger whole number"):
        run.resume(steps=10)
    before = run.policy.agent.state_dict()["q"] if "q" in run.policy.agent.state_dict() else None
    assert run.resume(steps=40_960, **QUIET) is run
    assert run.config.steps == 40_960 == run.metrics["env_steps"][-1] and gd.load("lake").config.steps == 40_960
    assert before is None or not np.array_equal(before, run.policy.agent.state_dict()["q"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gd.train("pppo", env="maze"), "no preset and no agent 'pppo': did you mean ppo?"),
        (lambda: gd.train("ppo"), "agent ppo needs an environment: gd.train('ppo', env='frozenlake'); gd.worlds() names ours"),
        (lambda: gd.train("ppo", env="mase"), "no world 'mase': did you mean maze?"),
        (lambda: gd.train("ppo", env="maze", env_options={"sise": 3}), "world maze has no option 'sise': did you mean size?"),
        (lambda: gd.train("ppo", env="maze", steps=0), "steps: should be greater than or equal to 1 (got 0)"),
        (lambda: gd.train("ppo", env="maze", steps=5), "steps=5 is less than one update"),
        (lambda: gd.train("no.yaml"), "no.yaml: no such file"),
        (lambda: gd.train("ppo", env=_Local), "put it into a file such as my_env.py and say env='my_env:_Local'"),
        (lambda: gd.train("ppo", env=3), "environment 3: give an id, or a class or function that makes one"),
        (lambda: gd.train("ppo", env="maze", plugins="no.py"), "plugin no.py: no such file"),
        (lambda: gd.train("ppo", env="maze", name="lake"), "exists already"),
        (lambda: gd.load("nothing"), "no run 'nothing' in runs"),
        (lambda: gd.evaluate("lake", gamma=1), "gamma: a run keeps the options it was trained with"),
        (lambda: gd.evaluate("lak"), "no run 'lak' in runs: did you mean lake?"),
        (lambda: gd.load("lake").evaluate(mode="best"), "mode is 'best': take 'greedy' or 'sample'"),
        (lambda: gd.compare("lake"), "name at least two runs"),
        (lambda: gd.load("lake").policy(np.zeros((3, 3))), "observation has shape (3, 3): it should be (7, 7), or a batch"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(call: Any, message: str, here: Path) -> None:
    before = sorted(path.name for path in (here / "runs").iterdir())
    with pytest.raises(ValueError) as found:
        call()
    assert message in str(found.value) and len(str(found.value).splitlines()) == 1
    assert sorted(path.name for path in (here / "runs").iterdir()) == before


_Local: Any = type("_Local", (), {"__module__": "__main__"})


def test_an_importable_class_of_gymnasium_is_an_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "my_env.py").write_text(MY_ENV)
    monkeypatch.syspath_prepend(here)
    import my_env  # type: ignore[import-not-found]

    assert gd.make(my_env.Coin, num_envs=3, sides=4).reset(0).shape == (3, 1, 1)
    run = gd.train("dqn", env=my_env.Coin, steps=512, num_envs=4, **QUIET)
    assert run.config.env_id == "my_env:Coin" and len(run.evaluate(5).returns) == 5
    action, _ = run.policy(my_env.Coin().reset()[0])
    assert action in (0, 1)


MY_ENV = """
import gymnasium, numpy as np

class Coin(gymnasium.Env):
    def __init__(self, sides=2):
        self.observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.steps = 0
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), float(action), self.steps == 5, False, {}
"""


# ---- what comes of it


def test_a_run_tells_about_itself(here: Path) -> None:
    run = gd.load("lake")
    assert repr(run) == "Run('lake': q-learning on frozenlake, seed 1, finished, 19,456 of 20,000 steps)"
    assert "Run(&#x27;lake&#x27;" in run._repr_html_() and "return_mean" in run._repr_html_()
    metrics = run.metrics
    assert metrics["return_mean"].dtype == np.float64 and np.all(np.diff(metrics["env_steps"]) > 0)
    with pytest.raises(KeyError, match="did you mean return_mean"):
        metrics["return_men"]
    score = run.evaluate(200)
    assert score.mean == pytest.approx(score.returns.mean()) and score.ci95[0] <= score.mean <= score.ci95[1]
    assert repr(score).count("\n") == 0 and "% of optimal" in repr(score) and run.report().read_text().startswith("<!")
    assert gd.evaluate(run, episodes=200).mean == gd.evaluate("lake", episodes=200).mean == score.mean


def test_missing_metrics_are_nan() -> None:
    metrics = gd.Metrics([{"env_steps": 1, "a": 2.0}, {"env_steps": 2, "a": None, "b": 1}])
    assert np.array_equal(metrics["a"], [2.0, np.nan], equal_nan=True)
    assert np.array_equal(metrics["b"], [np.nan, 1], equal_nan=True) and list(metrics) == ["env_steps", "a", "b"]


def test_without_pandas_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="to_pandas needs pandas: `pip install pandas`"):
        gd.Metrics([{"env_steps": 1}]).to_pandas()

    class Frame(dict):  # type: ignore[type-arg]
        def set_index(self, name: str) -> tuple[Any, str]:
            return self, name

    stand_in = type(sys)("pandas")
    stand_in.DataFrame = Frame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", stand_in)
    frame, index = gd.Metrics([{"env_steps": 1, "a": 3}]).to_pandas()
    assert index == "env_steps" and frame["a"].tolist() == [3.0]


def test_compare_knows_groups_of_seeds(here: Path) -> None:
    from gumdrop.experiments.run.group import train_group

    config = gd.load("lake").config
    train_group(config, [1, 2], here / "runs" / "both", False)
    gd.evaluate("lake", episodes=config.eval_episodes)
    found = gd.compare("both", "lake")
    assert [row["seeds"] for row in found["algorithms"]] == [[1, 2], [1]]
    with pytest.raises(ValueError, match="both is a group of runs: load one of them, runs/both/seed-1"):
        gd.load("both")
    assert gd.load("both/seed-2").config.seed == 2


def test_one_observation_and_a_batch_agree_and_memory_is_carried(here: Path) -> None:
    run = gd.train("ppo", env="t-maze", steps=512, num_envs=8, belief="gru", learner="torch", name="memory", **QUIET)
    policy, env = run.policy, gd.make("t-maze", num_envs=4)
    obs, state, alone = env.reset(seed=3)[:, 0], None, [None] * 4
    for _ in range(6):
        action, state = policy(obs, state)
        for i in range(4):
            one, alone[i] = policy(obs[i], alone[i])
            assert one == action[i]
            assert all(np.allclose(alone[i][k][0], state[k][i], atol=1e-6) for k in state)  # type: ignore[index]
        step = env.step(action[:, None])
        ended = step.terminated | step.truncated
        state, obs = policy.restart(state, ended), step.obs[:, 0]
        alone = [None if over else kept for over, kept in zip(ended, alone, strict=True)]
    fresh = policy.restart(state, [True, False, False, False])
    assert not any(part[0].any() for part in fresh.values()) and any(part[1].any() for part in state.values())
    with pytest.raises(ValueError, match="state is that of 4 environments, observations are of 2"):
        policy(obs[:2], state)


def test_several_agents_and_continuous_actions(here: Path) -> None:
    run = gd.train("ppo", env="coins", steps=512, num_envs=4, name="coins", **QUIET)
    env = gd.make("coins", num_envs=3)
    batch, _ = run.policy(env.reset(seed=0))
    one, _ = run.policy(env.obs[1])
    assert batch.shape == (3, env.num_agents) and np.array_equal(one, batch[1])
    run = gd.train("ppo", env="point-navigation", steps=512, num_envs=4, name="point", **QUIET)
    env = gd.make("point-navigation", num_envs=3)
    batch, _ = run.policy(env.reset(seed=0)[:, 0])
    assert batch.shape == (3, 2) and batch.dtype == np.float32
    sampled, _ = run.policy(env.obs[:, 0], mode="sample")
    assert not np.array_equal(sampled, batch)


def test_masks_are_handed_on(here: Path) -> None:
    walls = {"mask_walls": True, "size": 5}
    run = gd.train("q-learning", env="maze", env_options=walls, steps=2048, num_envs=16, name="walls", **QUIET)
    env = gd.make("maze", num_envs=64, **walls)
    obs = env.reset(seed=2)
    mask = env.action_mask()
    assert mask is not None and not mask.all()
    action, _ = run.policy(obs[:, 0], mask=mask[:, 0])
    assert mask[np.arange(64), 0, action].all()
    one, _ = run.policy(obs[5, 0], mask=mask[5, 0])
    assert one == action[5]
    with pytest.raises(ValueError, match="the environment has action masks: give mask=env.action_mask"):
        run.policy(obs[:, 0])


# ---- plugins


PLUGIN = """
from gumdrop.agents.registry import agent
from gumdrop.agents.random import Random
from gumdrop.envs.registry import world
from gumdrop.envs.worlds.corridor import Corridor

@agent("mine")
class Mine(Random):
    "Random by another name."

@world('my-corridor')
class Mine2(Corridor):
    "A corridor by another name."
    presets = {}
"""


def test_a_plugin_file_is_remembered(here: Path) -> None:
    (here / "plugin.py").write_text(PLUGIN)
    code = (
        "import gumdrop as gd; r = gd.train('mine', env='my-corridor', steps=512, num_envs=4, plugins=['plugin.py'], name='p',"
        "progress=False); print(r.config.plugins)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert made.stdout.strip() == str([str(here / "plugin.py")]), made.stderr
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    code = f"import gumdrop as gd; print(len(gd.load({str(here / 'runs' / 'p')!r}).evaluate(7).returns))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=elsewhere, timeout=120)
    assert found.stdout.strip() == "7", found.stderr
    (here / "plugin.py").unlink()
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=elsewhere, timeout=120)
    assert gone.stderr.strip().splitlines()[-1] == f"ValueError: plugin {here / 'plugin.py'}: no such file"


def test_a_plugin_that_raises_is_one_line(tmp_path: Path) -> None:
    from gumdrop.envs.names import load_plugin_file

    (tmp_path / "bad.py").write_text("raise RuntimeError('no\\nlava')")
    for _ in range(2):  # a half-made module is not left behind
        with pytest.raises(ValueError, match=r"bad.py: RuntimeError: no lava$"):
            load_plugin_file(tmp_path / "bad.py")
    with pytest.raises(ValueError, match="not a Python file"):
        load_plugin_file(tmp_path)
    (tmp_path / "good.py").write_text("import sys; sys.loaded_good = getattr(sys, 'loaded_good', 0) + 1")
    load_plugin_file(tmp_path / "good.py")
    load_plugin_file(Path(os.path.relpath(tmp_path / "good.py")))
    assert sys.loaded_good == 1  # type: ignore[attr-defined]


# ---- README


def ten_lines() -> str:
    found = re.search(r"<!-- ten lines -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, "README.md has no block behind <!-- ten lines -->"
    assert len(found[1].strip().splitlines()) <= 10
    return found[1]


def test_the_ten_lines_of_the_readme(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ten_lines()], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0 and "% of optimal" in done.stdout, done.stderr


@pytest.mark.slow
def test_the_ten_lines_run_from_the_wheel_in_a_fresh_environment(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(ROOT / "constraints.txt"), f"{wheel}[export]"], check=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    run = [str(venv / "bin" / "python"), "-c", "import gumdrop; print(gumdrop.__file__)\n" + ten_lines()]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=clean, timeout=600)
    assert done.returncode == 0 and "% of optimal" in done.stdout, done.stderr
    assert done.stdout.startswith(str(venv)), done.stdout


def test_the_module_is_what_is_documented() -> None:
    assert {name for name in PUBLIC if name not in ("Policy",)} <= set(vars(api))
