"""Many seeds at once: each the same bits as alone, whoever is killed; a failure costs one seed; the table is right."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gumdrop.configs.loader import read_group, read_run
from gumdrop.configs.schema import RunConfig
from gumdrop.experiments.live.group_view import GroupLive
from gumdrop.experiments.run import pool
from gumdrop.experiments.run.group import train_group
from gumdrop.experiments.run.train import train
from gumdrop.experiments.statistics import over_seeds
from gumdrop.store import checkpoint
from gumdrop.store.run_folder import RunFolder

SEEDS = (3, 4, 5)  # on two cores one process trains two of them
LONG = 128 * 150  # environment steps of runs that are to be caught half-way


def group_config(**changes: Any) -> RunConfig:
    agent = {"name": "ppo", "num_steps": 16, "update_epochs": 1, "num_minibatches": 2}
    base: dict[str, Any] = {"env": {"id": "bandit", "pulls": 10}, "num_envs": 8, "steps": 128 * 6, "eval_episodes": 50}
    return RunConfig(**{**base, "agent": agent, "checkpoint_updates": 1, **changes})


def fingerprint(folder: Path) -> tuple[str, bytes]:
    return checkpoint.digest(checkpoint.load(folder).tensors), (folder / "metrics.jsonl").read_bytes()


def alone(config: RunConfig, seed: int, folder: Path) -> tuple[str, bytes]:
    """Fingerprint of a single run, as `gumdrop train ... --seed N threads=1` makes it."""
    train(config.model_copy(update={"seed": seed, "threads": 1}), folder, live=False)
    return fingerprint(folder)


class Follower(GroupLive):
    """Notes what it is told and where the workers are, and kills the one that trains `victim`."""

    def __init__(self, victim: int = -1) -> None:
        super().__init__(SEEDS, LONG, "", plain=True, stream=io.StringIO())
        self.victim = victim
        self.notes: list[str] = []
        self.told: dict[int, float] = {}
        self.places: dict[int | None, set[int]] = {}  # cores of each process

    def update(self, seed: int, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        super().update(seed, metrics, timing)
        self.told[seed] = metrics["env_steps"]
        for process in multiprocessing.active_children():
            self.places[process.pid] = os.sched_getaffinity(process.pid or 0)
            if seed == self.victim:
                process.kill()

    def note(self, line: str) -> None:
        self.notes.append(line)


class Made(NamedTuple):
    folder: Path
    document: dict[str, Any]
    live: Follower


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A finished group."""
    folder, live = tmp_path_factory.mktemp("runs") / "made", Follower()
    return Made(folder, train_group(group_config(), SEEDS, folder, live), live)


def test_each_seed_is_the_run_that_it_would_be_alone(made: Made, tmp_path: Path) -> None:
    folder = made.folder
    prints = {seed: fingerprint(folder / f"seed-{seed}") for seed in SEEDS}
    assert prints == {seed: alone(group_config(), seed, tmp_path / str(seed)) for seed in SEEDS}
    assert len({digest for digest, _ in prints.values()}) == len(SEEDS)
    config = read_run(folder / "seed-4" / "config.yaml")
    assert (config.seed, config.threads) == (4, 1)


def test_what_a_group_holds(made: Made) -> None:
    folder, document, live = made
    assert read_group(folder / "group.yaml") == (group_config(threads=1), list(SEEDS))
    assert json.loads((folder / "group.json").read_text()) == document
    assert document["status"] == "finished" and [row["run"] for row in document["seeds"]] == ["seed-3", "seed-4", "seed-5"]
    for row in document["seeds"]:
        evaluation = json.loads((folder / row["run"] / "evaluation.json").read_text())
        assert (row["return"], row["share_of_optimal"]) == (evaluation["agent"]["mean"], evaluation["share_of_optimal"])
        assert row["status"] == "finished" and row["env_steps"] == 768 and evaluation["episodes"] == 50
    assert document["return"] == over_seeds([row["return"] for row in document["seeds"]])
    assert live.told == dict.fromkeys(SEEDS, 768) and multiprocessing.active_children() == []


def test_workers_are_pinned(made: Made) -> None:
    """Each to a core of its own, of those that this process may use."""
    mine = os.sched_getaffinity(0)
    places = [cores for cores in made.live.places.values() if len(cores) == 1]  # one that still starts is not pinned yet
    assert 1 <= len(places) <= min(len(mine), len(SEEDS))
    assert set.union(*places) <= mine and len(set.union(*places)) == len(places)


def test_a_finished_group_is_neither_resumed_nor_overwritten(made: Made) -> None:
    folder = made.folder
    with pytest.raises(ValueError, match="is finished: all 3 seeds"):
        train_group(group_config(), SEEDS, folder, live=False, resume=True)
    with pytest.raises(ValueError, match="exists already"):
        train_group(group_config(), SEEDS, folder, live=False)
    with RunFolder(folder).lock(), pytest.raises(ValueError, match="another process"):
        train_group(group_config(), SEEDS, folder, live=False, resume=True)


def test_what_cannot_be_trained_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    for config, seeds, says in (
        (group_config(), (), "0 seeds"),
        (group_config(), (1, 1), "different"),
        (group_config(), (2**63,), "below"),
        (group_config(threads=2), (1, 2), "one core"),
        (group_config(steps=100), (1, 2), "less than one update of 128"),  # only a worker can know
    ):
        with pytest.raises(ValueError, match=says):
            train_group(config, seeds, tmp_path / "group", live=False)
        assert list(tmp_path.iterdir()) == [] and multiprocessing.active_children() == []


def test_a_dead_worker_costs_its_seed_and_resume_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "cores", lambda: 1)  # the one worker is the one that trains the victim
    config, folder, live = group_config(steps=LONG), tmp_path / "group", Follower(SEEDS[0])
    document = train_group(config, SEEDS[:2], folder, live)
    first, second = document["seeds"]
    assert document["status"] == "failed" and (first["status"], second["status"]) == ("failed", "finished")
    assert "killed by SIGKILL" in first["error"] and f"seed 3 failed: {first['error']}" in live.notes
    assert document["return"] == {"mean": second["return"], "ci95": None}
    assert live.told[4] == LONG, "the last update is always told"
    assert [live.rows[seed].state for seed in SEEDS] == ["failed", "done", "waiting"]
    assert train_group(config, SEEDS[:2], folder, live=False, resume=True)["status"] == "finished"
    assert fingerprint(folder / "seed-3") == alone(config, 3, tmp_path / "alone")


POISON = """
import math, os
import gymnasium

class Poison(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)

    def __init__(self, mark):
        try:
            os.mkdir(mark)
            self.reward = math.nan  # of the first one that is made
        except FileExistsError:
            self.reward = 1.0

    def reset(self, seed=None, options=None):
        return self.observation_space.low, {}

    def step(self, action):
        return self.observation_space.low, self.reward, True, False, {}

gymnasium.register("Poison-v0", Poison)
"""


def test_a_bad_number_fails_its_seed_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "poison.py").write_text(POISON)
    monkeypatch.syspath_prepend(tmp_path)
    env = {"id": "poison:Poison-v0", "mark": str(tmp_path / "mark")}
    live = Follower()
    document = train_group(group_config(env=env, steps=256), SEEDS[:2], tmp_path / "group", live)
    first, second = document["seeds"]
    assert first["error"].startswith("update 1: reward of environment 0 in poison:Poison-v0 is nan")
    assert (first["status"], second["status"], document["return"]["mean"]) == ("failed", "finished", 1.0)
    assert [note for note in live.notes if "failed" in note] == [f"seed 3 failed: {first['error']}"]


def gumdrop(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gumdrop.scripts.cli", *words, "--no-live"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(done: Any) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def free(folder: Path) -> bool:
    """Whether nobody trains in a run folder."""
    try:
        with RunFolder(folder).lock():
            return True
    except ValueError:
        return False


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_stopped_group_goes_on_to_the_same_bits(signum: int, tmp_path: Path) -> None:
    """Also where the group's own process is killed: then its workers save, and end without it."""
    config = group_config(steps=LONG)
    options = ["env.pulls=10", "num_envs=8", "agent.num_steps=16", "agent.update_epochs=1", "agent.num_minibatches=2"]
    words = ["--env", "bandit", "--agent", "ppo", *options, "checkpoint_updates=1", "eval_episodes=50", "--steps", str(LONG)]
    process = gumdrop("train", *words, "--seed", "3", "--seeds", "3", "--name", "it", "--dir", str(tmp_path))
    folder = tmp_path / "it"
    seeds = [folder / f"seed-{seed}" for seed in SEEDS]
    wait_for(lambda: rows(seeds[0]) > 5)
    process.send_signal(signum)
    _, err = process.communicate(timeout=120)
    wait_for(lambda: all(free(path) for path in seeds if path.exists()))
    assert process.returncode == (143 if signum == signal.SIGTERM else -signal.SIGKILL)
    assert "Traceback" not in err and ("stopped and saved" in err) == (signum == signal.SIGTERM)
    assert rows(seeds[0]) < 150, "it was to be caught half-way"
    assert json.loads((seeds[0] / "summary.json").read_text())["status"] == "interrupted"
    resumed = gumdrop("resume", "it", "--dir", str(tmp_path), "--json")
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert [row["status"] for row in json.loads(out)["seeds"]] == ["finished"] * 3
    assert fingerprint(seeds[0]) == alone(config, 3, tmp_path / "alone-3")
    assert fingerprint(seeds[2]) == alone(config, 5, tmp_path / "alone-5")


def test_the_second_signal_leaves_no_process_behind(tmp_path: Path) -> None:
    words = ["--env", "bandit", "num_envs=8", "--steps", "1e9", "--seeds", "2", "--name", "it", "--dir", str(tmp_path)]
    process = gumdrop("train", *words, "agent.num_steps=4096", "agent.update_epochs=100")  # an update that lasts
    wait_for(lambda: (tmp_path / "it" / "seed-1" / "checkpoints" / "latest").exists())
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    wait_for(lambda: all(free(tmp_path / "it" / f"seed-{k}") for k in (0, 1)))


def test_the_process_of_the_group_imports_no_torch() -> None:
    code = "import sys, gumdrop.experiments.run.group, scipy.special; print({'torch', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---- the table ----


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def half_way(seeds: int, clock: Clock, **options: Any) -> GroupLive:
    """Seed 0 done, seed 1 failed, seed 2 half-way at 1,000 steps a second, the others waiting."""
    live = GroupLive(range(seeds), 10_000, "ppo on candy", clock=clock, **options)
    live.__enter__()
    for seed, steps in ((0, 10_000), (1, 3000), (2, 5000)):
        live.began(seed, {"random": 2.0, "optimal": 12.0, "meaning": "optimum"})
        for done in range(1000, steps + 1, 1000):
            live.update(seed, {"env_steps": done, "return_mean": 2.0 + done / 1000}, {"seconds": done / 1000})
    live.state(0, "done")
    live.state(1, "failed")
    clock.now += 18
    return live


def shown(live: GroupLive, width: int, height: int) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(live.panel(width, height))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_shows_every_seed() -> None:
    words = shown(half_way(4, Clock(), stream=io.StringIO()), 100, 40)
    for pattern in (
        r"0 +done +100 % +12\.000 +100 %", r"1 +failed +30 % +5\.000 +30 %", r"2 +running +50 % +1,000 +7\.000 +50 % +▁",
        r"3 +waiting +0 % ", r" 45 %  1 of 4 seeds done, 1 failed, 1 running", r"1,000 steps/s +elapsed 0:18 +left 0:15",
    ):  # fmt: skip
        assert re.search(pattern, words), pattern
    assert max(map(len, words.splitlines())) <= 100


def test_a_low_terminal_shows_the_seeds_that_matter() -> None:
    lines = shown(half_way(500, Clock(), stream=io.StringIO()), 60, 12).splitlines()
    assert len(lines) <= 12 and max(map(len, lines)) <= 60
    assert [line.split()[1:3] for line in lines[2:5]] == [["0", "done"], ["1", "failed"], ["2", "running"]]
    assert any("and 496 more seeds" in line for line in lines)


def test_without_a_terminal_a_line_every_few_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    live = half_way(4, clock, stream=out)
    live.update(2, {"env_steps": 6000}, {"seconds": 6.0})
    live.note("seed 1 failed: loss is nan")
    live.__exit__(None, None, None)
    lines = out.getvalue().splitlines()
    assert lines[0] == "ppo on candy: 10,000 steps each" and lines[-1] == "seed 1 failed: loss is nan"
    assert len(lines) == 4, "the first state, and one after 18 seconds"
    assert re.search(r"0:18  1 of 4 seeds done, 1 failed, 1 running \(48 %\)  1,000 steps/s  return 7\.00  0:14 left", lines[2])


def test_nothing_stops_training() -> None:
    out = io.StringIO()
    with GroupLive([1], 0, "[x", plain=False, stream=out, clock=Clock()) as live:
        live.began(1, {"random": None})
        live.update(1, {"return_mean": "high", "env_steps": None}, {})
        live.update(99, {}, {})
        live.began(1, None)
        live.update(1, {"env_steps": 10**400}, {"seconds": []})
        assert "[x" in shown(live, 20, 2)
    with GroupLive([1], 10, "x", stream=out) as live:
        out.close()
        live.state(1, "done")
        live.note("still here")
        assert "1 of 1 seeds done" in live.line()
