"""World and learner on one device: torch on its CPU, the world in numba's simulator; and on a GPU where there is one.

A CUDA graph repeats the operations that were captured, on the same memory, without Python. `Tape` does that on the CPU, so what
would go stale in a graph, a number of Python's for one, goes stale here. Run as a script (with NUMBA_ENABLE_CUDASIM=1 in the
environment), this file does the jobs that need the simulator.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gumdrop.agents.protocol import NonFinite, Rollout
from gumdrop.agents.registry import make_agent
from gumdrop.configs.schema import RunConfig
from gumdrop.core_ml.distributions import Categorical, Gaussian
from gumdrop.core_ml.learners.cuda import actor_critic as device
from gumdrop.core_ml.learners.cuda import graphs as cuda_graphs
from gumdrop.core_ml.learners.cuda import random
from gumdrop.core_ml.optim.adam import FlatAdam
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.group import train_group

TINY = {"num_steps": 8, "update_epochs": 2, "num_minibatches": 3, "hidden": (16,)}
HOST = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "lift_fresh", "_unique2", "is_nonzero"}


class Tape(TorchDispatchMode):
    """Writes down every operation of some work, and refuses those for which a graph would have to ask the host."""

    running: list[Tape] = []

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Callable[[], None]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        assert name not in HOST, name
        if name.startswith("index") and name != "index_select":
            assert all(x.dtype == torch.int64 for x in tree_leaves(args[1]) if x is not None), "a mask's shape depends on data"
        out = function(*args, **(kwargs or {}))

        def again() -> None:
            for old, new in zip(tree_leaves(out), tree_leaves(function(*args, **(kwargs or {}))), strict=True):
                if old is not None and new.data_ptr() != old.data_ptr():
                    old.copy_(new)

        self.steps.append(again)
        return out

    @classmethod
    def capture(cls, work: Callable[[], None], place: Any) -> Callable[[], None]:
        """As `device.capture`; but recording does the work already, so that the first replay has nothing left to do."""
        tape, replays = cls(), [0]
        cls.running.append(tape)
        with tape:
            work()
        cls.running.pop()

        def replay() -> None:
            replays[0] += 1
            if replays[0] > 1:
                with torch.no_grad():
                    for step in tape.steps:
                        step()

        return replay


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1)


NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=NEEDS_GPU)])
def on_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes an agent for a device whose torch is the CPU's, or for a GPU."""
    if request.param == "cpu":
        monkeypatch.setattr(cuda_graphs, "_torch_device", lambda name: "cpu")
    return lambda options, env, seed: make_agent("ppo", options, env, seed, device="cuda")


def as_tensors(batch: Rollout, values: Callable[[Any], Any]) -> Rollout:
    """A host's rollout as `DeviceCollector` would have made it; what counts for nothing is not a number."""
    final = np.full_like(batch.reward, np.nan)
    if len(batch.final_obs):
        final[batch.truncated] = values(batch.final_obs).reshape(-1, final.shape[-1])
    extras = {"raw_action": batch.action, **batch.extras, "final_value": final}
    there = [torch.from_numpy(np.ascontiguousarray(x)) for x in batch[:7]]
    return Rollout(*there, {k: torch.from_numpy(v) for k, v in extras.items()})


@pytest.mark.parametrize("graphs", [False, True], ids=["called", "captured"])
@pytest.mark.parametrize(
    ("world", "options"),
    [
        ("maze", {}), ("maze", {"shared_trunk": False, "activation": "relu", "value_clip": 0.1}),
        ("maze", {"normalise_advantage": False, "max_grad_norm": 0.0}), ("maze", {"network": "cnn", "channels": 4}),
        ("point-maze", {"ent_coef_final": 0.0}), ("candy-race", {"target_kl": 1e9}),
    ],
    ids=str,
)  # fmt: skip
def test_one_update_is_that_of_the_torch_learner(
    world: str, options: dict[str, Any], graphs: bool, on_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one minibatch the order of rows means nothing: the same rollout leads to the same parameters, up to rounding."""
    env = make(world, {"time_limit": 7}, num_envs=24, seed=3)
    chosen = {"num_minibatches": 1, "update_epochs": 3, "num_steps": 20, **options}
    torchs, there = make_agent("ppo", {**chosen, "learner": "torch"}, env, 5), on_device(chosen, env, 5)
    if not graphs:
        monkeypatch.setattr(cuda_graphs, "capture", lambda work, place: work)
    elif there.learner.place.device.type == "cpu":
        monkeypatch.setattr(cuda_graphs, "capture", Tape.capture)
    collector = Collector(env, torchs)
    collector.begin(env.reset(1))
    for update in range(5):  # the third one captures where minibatches are many, all after it replay
        batch = collector.rollout(20)
        assert len(batch.final_obs)  # truncations bootstrap
        before = torchs.state_dict()
        there.load_state_dict(before)
        moved = as_tensors(batch, lambda obs: torchs.actor.values(obs))  # type: ignore[attr-defined]
        theirs, ours = torchs.learn(batch, update / 5), there.learn(moved, update / 5)
        assert list(theirs) == list(ours)
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
        after, mine = torchs.state_dict(), there.state_dict()
        for name in after:
            if name.startswith("model."):
                way = np.linalg.norm(after[name] - before[name])
                assert np.linalg.norm(mine[name] - after[name]) <= 1e-3 * way + 1e-7, name
        assert mine["optimiser.steps"] == after["optimiser.steps"] == 3 * (update + 1)


def test_adam_is_flat_adam_and_a_bad_gradient_changes_nothing() -> None:
    module = torch.nn.Linear(5, 3)
    reference = FlatAdam(module)
    parameters = device.DeviceParameters(reference.parameters.shapes, device.Place("cpu"))
    parameters.load(reference.parameters.state())
    yes, rate = torch.tensor(True), torch.tensor(0.01, dtype=torch.float64)
    for step in range(4):
        grad = torch.linspace(-1, 1, 18) * 10.0 ** (step - 2)  # both sides of the clip
        reference.grad.copy_(grad)
        norm = reference.step(0.01, 0.5)
        found, applied = parameters.step(grad, rate, 0.5, yes)
        assert float(found) == pytest.approx(norm) and applied
        for bad, allowed in ((grad * math.nan, yes), (grad * math.inf, yes), (grad, ~yes)):
            assert not parameters.step(bad, rate, 0.5, allowed)[1]
        for name, array in parameters.state().items():
            np.testing.assert_allclose(array, reference.parameters.state()[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_first_bad_gradient_ends_the_update_and_is_named(on_device: Any) -> None:
    env = make("maze", {"time_limit": 7}, num_envs=8, seed=0)
    agent, host = on_device({**TINY, "num_minibatches": 4, "update_epochs": 1}, env, 0), make_agent("ppo", TINY, env, 0)
    collector = Collector(env, host)
    collector.begin(env.reset(0))
    batch = as_tensors(collector.rollout(8), lambda obs: host.actor.values(obs))  # type: ignore[attr-defined]
    batch.extras["log_prob"][2, 3] = math.nan  # a row of one of four minibatches
    with pytest.raises(NonFinite, match="policy loss is nan"):
        agent.learn(batch, 0.0)
    state = agent.state_dict()
    order = random.permutation(64, agent.learner.shuffle).tolist()
    assert state["optimiser.steps"] == order.index(2 * 8 + 3) // 16  # steps before that minibatch; none after it
    assert all(np.isfinite(array).all() for name, array in state.items() if name != "rng")
    assert agent.learner.parameters.bad_gradient()


def test_random_bits_are_splitmix64() -> None:
    def mixed(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    seed = 2**62 - 12345
    want = [mixed((mixed(seed) + k * 0x9E3779B97F4A7C15) % 2**64) for k in range(4, 104)]
    found = random._bits(torch.tensor(seed), 3, 100).numpy().view(np.uint64)
    assert found.tolist() == want


def test_samples_follow_their_distribution() -> None:
    log_p = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    share = torch.bincount(random.sample(Categorical(log_p.expand(200_000, 4)), torch.tensor(7)), minlength=4) / 200_000
    np.testing.assert_allclose(share, [0.1, 0.2, 0.3, 0.4], atol=5 * math.sqrt(0.25 / 200_000))
    normal = Gaussian(torch.full((100_000, 2), 3.0), torch.tensor([0.0, math.log(2)]))
    x = random.sample(normal, torch.tensor(7), 5)
    np.testing.assert_allclose(x.mean(0), [3, 3], atol=5 * 2 / math.sqrt(100_000))
    np.testing.assert_allclose(x.std(0), [1, 2], rtol=0.02)
    np.testing.assert_allclose(((x - 3) / x.std(0)).pow(4).mean(0), [3, 3], rtol=0.05)  # a normal's fourth moment
    assert abs(float(torch.corrcoef(x.T)[0, 1])) < 5 / math.sqrt(100_000)
    again = [random.sample(normal, torch.tensor(seed), t) for seed, t in ((7, 5), (8, 5), (7, 6))]
    assert torch.equal(again[0], x) and not any((other == x).any() for other in again[1:])


@pytest.mark.parametrize(("world", "options"), [("maze", {}), ("point-maze", {"shared_trunk": False})], ids=str)
def test_checkpoints_are_those_of_the_cpu(world: str, options: dict[str, Any], on_device: Any) -> None:
    """Names, shapes and dtypes are; what one agent has learned, the other acts by, in both directions."""
    env = make(world, {"time_limit": 7}, num_envs=64, seed=0)
    host, there = make_agent("ppo", {**TINY, **options}, env, 1), on_device({**TINY, **options}, env, 2)
    collector = Collector(env, host)
    collector.begin(env.reset(0))
    host.learn(collector.rollout(8), 0.0)
    for giver, taker in ((host, there), (there, make_agent("ppo", {**TINY, **options}, env, 3))):
        state = giver.state_dict()
        taker.load_state_dict(state)
        for name, array in taker.state_dict().items():
            assert array.dtype == state[name].dtype
            np.testing.assert_array_equal(array, state[name], err_msg=name)
        a, b = (x.act(env.obs, None, "greedy")[0] for x in (giver, taker))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    first, twice = there.act(env.obs, None, "sample"), on_device({**TINY, **options}, env, 4)
    twice.load_state_dict(state)
    np.testing.assert_array_equal(twice.act(env.obs, None, "sample")[0], first[0])  # random numbers came along


def test_what_cannot_be_done_there_is_refused_in_one_line(on_device: Any, tmp_path: Path) -> None:
    env = make("maze", num_envs=4)
    for options in ({"normalise_observation": True}, {"learner": "fused"}):
        with pytest.raises(ValueError, match="is for the processor: leave it out, or take device=cpu"):
            on_device(options, env, 0)
    with pytest.raises(ValueError, match="agent random cannot work on device 'cuda'"):
        make_agent("random", {}, env, 0, device="cuda")
    with pytest.raises(ValueError, match="device=cuda: the seeds of a group work on the processor's cores"):
        train_group(RunConfig(device="cuda"), [0, 1], tmp_path / "group")
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finds no GPU for device 'cuda': take device 'cpu'"):
        make_agent("ppo", {}, make("maze"), 0, device="cuda")
    for arguments in (["train", "maze-ppo", "device=cuda", "--dir", str(tmp_path)], ["bench", "train", "--device", "cuda"]):
        done = subprocess.run(
            [sys.executable, "-c", "from gumdrop.scripts.cli import main; raise SystemExit(main())", *arguments],
            env={k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "take device 'cpu'" in done.stderr
    assert not any(tmp_path.iterdir())


PLACES = pytest.mark.parametrize("place", ["simulator", pytest.param("gpu", marks=NEEDS_GPU)])


def in_process(place: str, job: str, folder: Path) -> dict[str, Any]:
    """This file as a script in a process with the simulator or a GPU; what it found."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::numba.NumbaWarning", __file__, job, str(folder)],
        env=os.environ | ({"NUMBA_ENABLE_CUDASIM": "1", "CUDA_VISIBLE_DEVICES": ""} if place == "simulator" else {}),
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@PLACES
@pytest.mark.parametrize("world", ["maze", "candy-race", "point-maze"])
def test_rollouts_are_what_happened(world: str, place: str, tmp_path: Path) -> None:
    """The CPU's world, given the actions of a rollout on the device, does the same; graphs and plain calls do the same."""
    assert in_process(place, f"rollouts {world}", tmp_path) == {"differ": [], "episodes": True}


@PLACES
def test_runs_repeat_resume_and_replay_to_the_same_bits(place: str, tmp_path: Path) -> None:
    """Also: what a run on the device has learned, the CPU evaluates; and the bench measures it."""
    from gumdrop.experiments.run.evaluate import evaluate_run

    found = in_process(place, "runs", tmp_path)
    assert found["whole"] == found["resumed"] == found["captured"]
    assert found["summary"]["status"] == "finished"
    assert found["summary"]["device"].startswith("simulator" if place == "simulator" else torch.cuda.get_device_name())
    assert found["bench"]["steps_per_second"] > 0 and set(found["bench"]["time_split"]) == {"act", "learn"}
    assert evaluate_run(tmp_path / "whole", episodes=20)["episodes"] == 20


def on_host(batch: Rollout) -> Rollout:
    return Rollout(*(x.cpu() for x in batch[:7]), {name: x.cpu() for name, x in batch.extras.items()})


def _rollouts(world: str) -> dict[str, Any]:
    """Rollouts on the device, the last ones as graphs, against the CPU's world."""
    from gumdrop.core_ml.learners.torch_actor_critic import TorchActorCritic
    from gumdrop.experiments.run.collect.device import DeviceCollector

    options = {"time_limit": 11}
    env: Any = make(world, options, num_envs=24, seed=3, device="cuda")
    host = make(world, options, num_envs=24, seed=3)
    agent: Any = make_agent("ppo", TINY, env, 0, device="cuda")
    plain: Any = make_agent("ppo", {**TINY, "learner": "torch"}, host, 9)
    assert isinstance(plain.learner, TorchActorCritic)
    plain.load_state_dict(agent.state_dict())
    ours, theirs = DeviceCollector(env, agent), Collector(host, plain)
    ours.begin(env.obs)
    differ, counted = [], True
    for _ in range(5):
        there = on_host(ours.rollout(8))
        steps: dict[str, list[Any]] = {name: [] for name in ("obs", "reward", "terminated", "truncated", "final")}
        for t in range(8):
            steps["obs"].append(host.obs.copy())
            step = host.step(there.action[t].numpy())
            for name in ("reward", "terminated", "truncated"):
                steps[name].append(getattr(step, name).copy())
            final = plain.actor.values(step.final_obs).reshape(step.reward.shape)
            steps["final"].append(np.where(step.truncated[:, None], final, 0.0))
            ended = host.episodes()
            if len(ended.env):
                theirs._count(np.full(len(ended.env), t), ended)
        for name in ("obs", "reward", "terminated", "truncated"):
            if not np.array_equal(getattr(there, name).numpy(), steps[name]):
                differ.append(name)
        if not np.array_equal(there.last_obs.numpy(), host.obs):
            differ.append("last_obs")
        final = there.extras["final_value"].numpy() * there.truncated.numpy()[:, :, None]
        if not np.allclose(final, steps["final"], rtol=1e-4, atol=1e-5):
            differ.append("final_value")
        with torch.no_grad():
            distribution, value = plain.learner.model(there.obs.reshape(-1, plain.actor.input.size).float())
            raw = there.extras["raw_action"].reshape(len(value), *[-1] * plain.actor.actions.continuous)
            for name, wanted in (("value", value), ("log_prob", distribution.log_prob(raw))):
                if not np.allclose(there.extras[name].reshape(-1), wanted, rtol=1e-4, atol=1e-4):
                    differ.append(name)
        counted &= ours.pop_statistics() == theirs.pop_statistics()
        same = {k: np.array_equal(v, host.get_state()[k]) for k, v in env.get_state().items()}
        differ += [name for name, equal in same.items() if not equal]
    return {"differ": differ, "episodes": counted}


def _runs(folder: Path) -> dict[str, Any]:
    """A run; the same run stopped and resumed; and the same run with graphs. The first ones go without, on a GPU, too."""
    from gumdrop.configs.loader import read_run
    from gumdrop.experiments.bench.bench import bench_device
    from gumdrop.experiments.run.signals import Interrupted
    from gumdrop.experiments.run.train import train
    from gumdrop.store import checkpoint

    class StopAt:
        def __init__(self, update: int) -> None:
            self.left = update

        def __enter__(self) -> StopAt:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def note(self, line: str) -> None:
            pass

        def update(self, row: Any, timing: Any) -> None:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGINT)

    def fingerprint(name: str) -> list[str]:
        return [checkpoint.digest(checkpoint.load(folder / name).tensors), (folder / name / "metrics.jsonl").read_text()]

    env = {"id": "maze", "time_limit": 9}
    settings: Any = {"env": env, "agent": {"name": "ppo", **TINY}, "num_envs": 64, "steps": 64 * 8 * 5, "device": "cuda"}
    config = RunConfig(**settings, checkpoint_updates=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_graphs, "capture", lambda work, place: work)
        summary = train(config, folder / "whole", live=False)
    stop: Any = StopAt(2)
    try:
        train(config, folder / "resumed", live=stop)
    except Interrupted:
        train(read_run(folder / "resumed" / "config.yaml"), folder / "resumed", live=False, resume=True)
    with pytest.MonkeyPatch.context() as patch:
        _capture(patch)
        train(config, folder / "captured", live=False)
    found = {name: fingerprint(name) for name in ("whole", "resumed", "captured")}
    return found | {"summary": summary, "bench": bench_device(num_envs=16, seconds=0.01, rounds=1)}


def _capture(patch: pytest.MonkeyPatch) -> None:
    """From now on work is recorded and replayed, the world's kernel too; on a GPU CUDA does that by itself."""
    if torch.cuda.is_available():
        return
    from gumdrop.envs.engine.cuda import CudaEngine

    plain = CudaEngine.step_shared

    def step(self: Any, stream: int = 0) -> None:
        for tape in Tape.running:
            tape.steps.append(lambda: plain(self, stream))
        plain(self, stream)

    patch.setattr(CudaEngine, "step_shared", step)
    patch.setattr(cuda_graphs, "capture", Tape.capture)


def _script(job: str, folder: Path) -> None:
    sys.setswitchinterval(1e-4)  # the simulator's blocks are threads that wait for each other
    torch.set_num_threads(1)
    if job == "runs":
        found = _runs(folder)
    else:
        with pytest.MonkeyPatch.context() as patch:
            _capture(patch)
            found = _rollouts(job.split()[1])
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _script(sys.argv[1], Path(sys.argv[2]))
