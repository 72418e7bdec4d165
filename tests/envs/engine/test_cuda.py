"""The CUDA kernels against the CPU's, bit for bit: in numba's simulator, and by `make proofs` on a GPU where there is one.

Run as a script (with NUMBA_ENABLE_CUDASIM=1 in the environment, which numba reads when it is imported), this file plays
the games that its tests play on the CPU, and writes down what it saw.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.make import make
from gumdrop.envs.registry import make_world, presets, worlds

FULL, SHORT = (64, 200), (32, 60)  # environments, steps
GROUP = 12  # games that one simulator process plays
FIELDS = ("obs", "reward", "terminated", "truncated", "final_obs", "episodes", "state")

Game = tuple[str, dict[str, Any], int, int]  # world, options, environments, steps


def fingerprint(*arrays: Any) -> int:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(repr((array.dtype.str, array.shape)).encode() + array.tobytes())
    return int.from_bytes(sha.digest()[:8], "little")


def play(device: str, id: str, options: dict[str, Any], environments: int, steps: int) -> Any:
    """Fingerprints uint64 (steps, FIELDS) of a game: random actions, and on the way resets, pauses and a return in time."""
    env: Any = make(id, options, num_envs=environments, seed=3, device=device)
    rng, space = np.random.default_rng(0), env.action_space
    shape = (environments, env.num_agents, *space.shape)
    seen = np.zeros((steps, len(FIELDS)), np.uint64)
    saved = env.get_state()
    for t in range(steps):
        if hasattr(space, "n"):
            action = rng.integers(space.n, size=shape)
        else:
            action = rng.uniform(np.maximum(space.low, -2), np.minimum(space.high, 2), shape).astype(np.float32)
        active = rng.random(environments) < 0.7 if t % 16 == 9 else None
        step = env.step(action, active, t % 16 != 12)
        over = env.episodes()
        # where nothing has ended final_obs means nothing, yet it too has to stay as it was
        seen[t, :6] = [*(fingerprint(field) for field in step if field is not None), fingerprint(*over)]
        if t % 16 == 12:  # ended environments were left as they ended
            ended = step.terminated | step.truncated
            env.reseed_some(ended, np.arange(ended.sum()))
            env.reset_some(ended)
            assert not step.terminated.any() and not step.truncated.any()
        if t == steps // 2:
            env.set_state(saved)
        if t % 8 == 7 or t >= steps - 2:
            seen[t, 6] = fingerprint(env.obs, *env.get_state().values())
    return seen


def in_simulator(job: dict[str, Any]) -> dict[str, Any]:
    """This file as a script in a process with the simulator; what it saved."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.npz")
        done = subprocess.run(
            [sys.executable, "-W", "ignore::numba.NumbaWarning", __file__, json.dumps(job), str(out)],
            env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(out) as arrays:
            return dict(arrays)


def games() -> list[Game]:
    """Every world in full, presets shortly: the slow test plays them in full too."""
    found: list[Game] = []
    for name, cls in worlds().items():
        found.append((name, {}, *FULL))
        if "agents" in cls.Config.model_fields:
            found.append((name, {"agents": 2}, *SHORT))
    found.append(("bandit", {"reward": "gaussian"}, *SHORT))
    return found + [(id, {}, *SHORT) for id in presets()]


def name_of(game: Game) -> str:
    return "-".join([game[0], *(f"{k}={v}" for k, v in game[1].items())])


@functools.cache
def _group(names: tuple[str, ...], full: bool) -> dict[str, Any]:
    chosen = {name_of(game): game for game in games()}
    return in_simulator({"games": [[*chosen[name][:2], *(FULL if full else chosen[name][2:])] for name in names]})


def simulated(game: Game, full: bool = False) -> Any:
    """What the simulator saw of `game`; one process plays a group of them."""
    names = [name_of(one) for one in games() if not full or one[2:] != FULL]
    k = names.index(name_of(game))
    first = k - k % GROUP
    return _group(tuple(names[first : first + GROUP]), full)[str(k - first)]


def assert_same(mine: Any, theirs: Any) -> None:
    differs = np.argwhere(mine != theirs)
    assert not len(differs), f"first difference at step {differs[0, 0]} in {FIELDS[differs[0, 1]]}"


@pytest.mark.parametrize("game", games(), ids=name_of)
def test_cuda_plays_the_same_bits_as_the_cpu(game: Game) -> None:
    assert_same(simulated(game), play("cpu", *game))


@pytest.mark.slow
@pytest.mark.parametrize("game", [game for game in games() if game[2:] != FULL], ids=name_of)
def test_cuda_plays_presets_in_full_as_the_cpu_does(game: Game) -> None:
    assert_same(simulated(game, full=True), play("cpu", *game[:2], *FULL))


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("game", games(), ids=name_of)
def test_a_gpu_plays_the_same_bits_as_the_cpu(game: Game) -> None:
    assert_same(play("cuda", *game[:2], *FULL), play("cpu", *game[:2], *FULL))


def test_a_checkpoint_goes_on_on_the_other_device(tmp_path: Path) -> None:
    """CPU, then GPU, then CPU is one game; results left on the device are those brought to the host."""
    actions = np.random.default_rng(1).integers(4, size=(60, 8, 1))
    whole, part = (make("maze", num_envs=8, seed=5) for _ in range(2))
    for action in actions:
        whole.step(action)
    for action in actions[:20]:
        part.step(action)
    np.savez(tmp_path / "state.npz", **part.get_state())  # type: ignore[arg-type]
    np.save(tmp_path / "actions.npy", actions[20:40])
    back = in_simulator({"resume": str(tmp_path)})
    assert back.pop("device_is_host").all()
    assert "action [4] of environment 2 is outside" in str(back.pop("illegal"))
    part.set_state(back)
    for action in actions[40:]:
        part.step(action)
    for name, array in whole.get_state().items():
        np.testing.assert_array_equal(part.get_state()[name], array, err_msg=name)


def test_without_a_gpu_cuda_is_refused_in_one_line() -> None:
    for arguments in ("bench env bandit --device cuda --seconds 0.01", "bench env CartPole-v1 --device cuda"):
        done = subprocess.run(
            [sys.executable, "-c", "from gumdrop.scripts.cli import main; raise SystemExit(main())", *arguments.split()],
            env={k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"} | {"CUDA_VISIBLE_DEVICES": "-1"},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "take device 'cpu'" in done.stderr
    with pytest.raises(ValueError, match="device is 'cudda': did you mean cuda"):
        make("bandit", device="cudda")


def test_no_contraction_reaches_nvvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """a * b + c must round twice on a GPU as it does on a CPU."""
    from numba.cuda.cudadrv import nvvm

    from gumdrop.envs.engine import cuda

    seen: dict[str, Any] = {}
    monkeypatch.setattr(nvvm, "compile_ir", lambda ir, **options: seen.update(options))
    plain = nvvm.compile_ir
    with cuda._exact_arithmetic():
        nvvm.compile_ir("", fastmath=False, opt=3)  # as numba.cuda.codegen calls it
    assert seen == {"fma": False, "prec_div": True, "prec_sqrt": True, "ftz": False, "fastmath": False, "opt": 3}
    assert nvvm.compile_ir is plain


def test_helpers_are_rebound_for_the_device() -> None:
    """Rules call device functions, down to the last helper, and the rules themselves stay as they were."""
    from gumdrop.envs import rng
    from gumdrop.envs.engine import cuda

    made: dict[Any, Any] = {}
    before = dict(rng.normal.__globals__)
    on_device = cuda._on_device(rng.normal, made)
    scope = on_device.py_func.__globals__
    assert scope["bits"] is made[rng.bits] and made[rng.bits].py_func.__globals__["mix"] is made[rng.mix]
    assert scope["natural_log"] is made[rng.natural_log]
    assert scope["np"].float64 is np.float64 and scope["np"].sqrt is not np.sqrt
    assert rng.normal.__globals__ == before and rng.bits.__globals__["mix"] is rng.mix

    def clipped(x: int) -> int:
        return min(max(x, 0), 3)

    scope = cuda._on_device(clipped, made).py_func.__globals__
    assert [scope["max"].py_func(x, 0) for x in (-1, 2)] == [0, 2]
    assert [scope["min"].py_func(x, 3) for x in (2, 5)] == [2, 3]


def _script(job: dict[str, Any], out: str) -> None:
    sys.setswitchinterval(1e-4)  # the simulator's blocks are threads that wait for each other
    if "games" in job:
        np.savez(out, **{str(k): play("cuda", *game) for k, game in enumerate(job["games"])})
        return
    from numba import cuda

    from gumdrop.envs.engine.cuda import CudaEngine

    env = CudaEngine(make_world("maze"), num_envs=8, seed=77)
    with np.load(Path(job["resume"], "state.npz")) as state:
        env.set_state(dict(state))
    host = Engine(make_world("maze"), num_envs=8)
    host.set_state(env.get_state())
    same = []
    for action in np.load(Path(job["resume"], "actions.npy")):
        there, here = env.step_device(env.to_device(action)), host.step(action)
        same += [np.array_equal(a.copy_to_host(), b) for a, b in zip(there, here, strict=True) if b is not None]
        same += [np.array_equal(a, b) for a, b in zip(env.episodes(), host.episodes(), strict=True)]
    before, illegal = env.get_state(), ""
    try:
        action[2] = action[5] = 4
        env.step_device(cuda.to_device(action))
    except ValueError as error:
        illegal = str(error)
    same += [np.array_equal(v, before[k]) for k, v in env.get_state().items()]
    np.savez(out, device_is_host=np.array(same), illegal=np.array(illegal), **env.get_state())  # type: ignore[arg-type]


if __name__ == "__main__":
    _script(json.loads(sys.argv[1]), sys.argv[2])
