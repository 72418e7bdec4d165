"""Worker processes give the bits of a plain loop; what a copy does to its process is named and leaves nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from gumdrop.envs.batch import BatchEnv
from gumdrop.envs.checks.conformance import play, random_actions, require_same
from gumdrop.envs.external.batch import ExternalBatch, ReplayMismatch
from gumdrop.envs.external.loop import EnvironmentFailed
from gumdrop.envs.make import make
from gumdrop.envs.names import UnknownName
from gumdrop.envs.rng import copy_seeds


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Strange environments can be imported, here and in workers; afterwards no process is left."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    files = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    yield
    assert multiprocessing.active_children() == []
    if files:
        assert not [name for name in set(os.listdir("/dev/shm")) - files if "gumdrop" in name]


def gone(pid: int) -> bool:
    """No such process, not even as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("id", "options"),
    [("CartPole-v1", {}), ("Pendulum-v1", {"max_episode_steps": 30}), ("strange:parallel_env", {})],
)
def test_workers_give_the_same_bits_and_resume_each_other(id: str, options: dict[str, Any]) -> None:
    here = ExternalBatch(id, options, num_envs=5, seed=3)
    there = ExternalBatch(id, options, num_envs=5, seed=3, workers=2, timeout=60)
    assert isinstance(there, BatchEnv) and there.workers == 2 and len(there._loop._workers) == 2
    actions = random_actions(here, 130)
    require_same(play(here, actions[:90]), play(there, actions[:90]), "here against workers", "")
    assert (here.reset() == there.reset()).all()  # the next episodes
    play(here, actions[:7])
    play(there, actions[:7])
    mine, theirs = here.get_state(), there.get_state()
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)
    ahead = play(here, actions[-30:])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReplayMismatch)
        there.reset(9)
        there.set_state(mine)  # from the plain loop into workers ...
        require_same(ahead, play(there, actions[-30:]), "resumed in workers", "")
        here.set_state(theirs)  # ... and back
    require_same(ahead, play(here, actions[-30:]), "resumed here", "")
    seeds = copy_seeds(8, 5)
    require_same(play(here, actions[:20], seeds), play(there, actions[:20], seeds), "reseeded", "")
    there.close()


def test_more_workers_than_copies_and_pictures() -> None:
    here = ExternalBatch("strange:Fine-v0", num_envs=3, seed=1)
    there = make("strange:Fine-v0", {"workers": 8, "timeout": 60}, num_envs=3, seed=1)
    assert there.workers == 3 and there.options == {}  # type: ignore[attr-defined]
    for action in random_actions(here, 3):
        here.step(action)
        there.step(action)
    for i in range(3):
        a, b = here.rgb(i), there.rgb(i)
        assert a is not None and b is not None and (a == b).all()
    assert make("strange:Fine-v0", workers=0).workers == 0  # type: ignore[attr-defined]
    there.close()
    there.close()
    with pytest.raises(ValueError, match="is closed: make it anew"):
        there.reset()


def fails(env: ExternalBatch, copy: int = 2, steps: int = 40) -> EnvironmentFailed:
    """Step until a copy fails: `copy`, which alone goes right."""
    pids = [worker.process.pid for worker in env._loop._workers] if env.workers else []
    action = np.zeros((env.num_envs, 1), np.int64)
    action[copy] = 1
    with pytest.raises(EnvironmentFailed) as caught:
        for _ in range(steps):
            env.step(action)
    assert all(gone(pid) for pid in pids)
    if pids:
        with pytest.raises(ValueError, match="is closed"):
            env.reset()
    assert "\n" not in caught.value.line and caught.value.env == copy
    return caught.value


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_names_the_copy_the_step_and_the_line(workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    error = fails(ExternalBatch("strange:Raises-v0", num_envs=5, workers=workers), copy=3)
    want = (
        r".* strange:Raises-v0: environment 3 failed in step 2 of episode 0: KeyError: .no.ndoor. \(strange.py:\d+ in strike\)"
    )
    assert re.fullmatch(want, error.line), error.line
    assert 'raise KeyError("no\\ndoor")' in error.trace and "in step\n    self.strike()" in error.trace
    assert "loop.py" not in error.trace and str(error) == f"{error.line}\n{error.trace}"
    out, err = capfd.readouterr()
    assert ("printed by the environment" in out) == (not workers)  # a worker's prints would spoil `--json`
    assert ("printed by the environment" in err) == bool(workers)


@pytest.mark.parametrize(
    ("id", "timeout", "message", "trace"),
    [
        ("Exits", 60, r"environment 2 ended its process in step 2 of episode 0: exit status 7", ""),
        (
            "SaysGoodbye",
            60,
            r"environment 2 failed in step 2 of episode 0: SystemExit: goodbye \(strange.py:\d+ in str",
            "sys.exit",
        ),
        (
            "Crashes",
            60,
            r"environment 2 ended its process in step 2 of episode 0: SIGSEGV \(.*:\d+ in string_at\)",
            "in strike",
        ),
        ("Hangs", 1, r"environment 2 did not return within 1 s in step 2 of episode 0 \(strange.py:\d+ in strike\)", "in step"),
    ],
)
def test_what_takes_a_process_down_is_named(id: str, timeout: float, message: str, trace: str) -> None:
    began = time.monotonic()
    error = fails(ExternalBatch(f"strange:{id}-v0", num_envs=4, workers=2, timeout=timeout))
    assert re.search(message, error.line), error.line
    assert trace in error.trace and (trace or not error.trace) and "loop.py" not in error.trace
    assert time.monotonic() - began < 25  # the one that hangs would take 30


def test_a_slow_copy_is_not_a_hanging_one() -> None:
    """The limit holds for one call, not for a worker's whole round, nor for a whole replay."""
    env = ExternalBatch("strange:Hangs-v0", {"sleep": 0.4, "when": 1}, num_envs=4, workers=1, timeout=1)
    right = np.ones((4, 1), np.int64)
    began = time.monotonic()
    env.step(right)
    assert time.monotonic() - began > 1.6
    env.set_state(env.get_state())
    env.close()
    waits = ExternalBatch("strange:Hangs-v0", {"sleep": 0.3, "when": 1}, num_envs=1, workers=1, timeout=0)
    waits.step(right[:1])  # 0: for ever
    waits.close()


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("HangsInReset", r"environment 1 did not return within 0.5 s in reset\(\) of episode 0 \(strange.py:\d+ in reset\)"),
        ("HangsWhenMade", r"environment 1 did not return within 0.5 s while it was made \(strange.py:\d+ in __init__\)"),
        ("ExitsWhenMade", r"environment 0 ended its process while it was made: exit status 3"),
    ],
)
def test_copies_that_never_begin(id: str, message: str) -> None:
    with pytest.raises(EnvironmentFailed, match=message):
        ExternalBatch(f"strange:{id}-v0", num_envs=2, workers=1, timeout=0.5)


def test_a_killed_worker_is_noticed() -> None:
    env = ExternalBatch("CartPole-v1", num_envs=4, workers=2)
    os.kill(env._loop._workers[1].process.pid, signal.SIGKILL)
    with pytest.raises(
        EnvironmentFailed, match=r"the worker of environments 2 to 3 ended its process between two calls: SIGKILL"
    ):
        for action in random_actions(env, 5):
            env.step(action)


@pytest.mark.parametrize(
    ("id", "options", "error", "message"),
    [
        ("CartPole-v1", {"workers": -1}, ValueError, "workers is -1: give a whole number"),
        ("CartPole-v1", {"workers": 1.5}, ValueError, "workers is 1.5"),
        ("CartPole-v1", {"workers": True}, ValueError, "workers is True"),
        ("CartPole-v1", {"timeout": 3}, ValueError, "timeout needs worker processes: give workers=1"),
        ("CartPole-v1", {"workers": 1, "timeout": -3}, ValueError, "timeout is -3: give seconds"),
        ("CartPole-v1", {"workers": 1, "timeout": float("inf")}, ValueError, "timeout is inf"),
        ("CartPole-v1", {"workers": 1, "gravity": 3}, ValueError, "unexpected keyword argument 'gravity'"),
        ("CartPol-v1", {"workers": 1}, UnknownName, "did you mean CartPole-v1"),
        ("strange:Together", {"workers": 1, "sizes": (3, 3, 2)}, ValueError, "observation spaces of ann and cyd differ"),
    ],
)
def test_what_cannot_be_made_costs_one_line(id: str, options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        make(id, options)
    assert "\n" not in str(caught.value)


def test_workers_are_for_foreign_environments() -> None:
    with pytest.raises(ValueError, match="world bandit runs in threads of this process: leave out workers"):
        make("bandit", workers=2)
    assert make("bandit", workers=0).num_envs == 1


def test_ids_that_the_program_registered_reach_the_workers() -> None:
    import strange  # type: ignore[import-not-found]

    gymnasium.register("tests/Ours-v0", strange.Fine)  # a class: a worker imports its module
    gymnasium.register("tests/Lambda-v0", lambda **options: strange.Fine(**options))  # nothing that a worker could import
    try:
        env = ExternalBatch("tests/Ours-v0", num_envs=2, workers=1)
        assert (env.obs == ExternalBatch("tests/Ours-v0", num_envs=2).obs).all()
        env.close()
        with pytest.raises(UnknownName, match="no environment 'tests/Lambda-v0'"):
            ExternalBatch("tests/Lambda-v0", num_envs=2, workers=1)
    finally:
        del gymnasium.registry["tests/Ours-v0"], gymnasium.registry["tests/Lambda-v0"]


PROGRAM = """
import signal, sys, time
from gumdrop.envs.external.batch import ExternalBatch
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    env = ExternalBatch("strange:Hangs-v0", num_envs=2, workers=2, timeout=100)
    print(*[w.process.pid for w in env._loop._workers], flush=True)
    if sys.argv[1] == "leave":
        sys.exit(0)
    import numpy as np
    for k in range(100):
        env.step(np.ones((2, 1), np.int64))
"""


@pytest.mark.parametrize("how", ["leave", "SIGINT", "SIGTERM", "SIGKILL"])
def test_workers_end_with_the_program(how: str, tmp_path: Path) -> None:
    """However the program ends, and although an environment hangs then (which it does, but for `leave`)."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    program = subprocess.Popen(
        [sys.executable, str(file), how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
    )  # fmt: skip
    assert program.stdout and program.stderr
    pids = [int(pid) for pid in program.stdout.readline().split()]
    assert len(pids) == 2
    if how == "SIGINT":  # Ctrl-C reaches the whole group, the others a single process
        time.sleep(0.5)
        os.killpg(program.pid, signal.SIGINT)
    elif how != "leave":
        time.sleep(0.5)
        os.kill(program.pid, getattr(signal, how))
    _, err = program.communicate(timeout=30)
    until = time.monotonic() + 10
    while not all(map(gone, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert all(map(gone, pids))
    if how == "leave":
        assert program.returncode == 0 and not err
    if how == "SIGINT":
        assert program.returncode != 0 and err.count("KeyboardInterrupt") == 1, err  # the program's own, not the workers'
