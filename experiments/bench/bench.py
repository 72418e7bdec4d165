"""Speed, measured: worlds alone, and PPO with learning, each in turns with other packages in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from ...agents.registry import make_agent
from ...envs.batch import finite_bounds
from ...envs.make import make
from ...envs.registry import worlds
from ...envs.views.gym_view import GymView
from ...store.arrays import Array
from ..run.collect.make import collector_of
from ..run.machine import choose_threads, cores, git_commit, processor, versions, where
from . import baselines_train
from .baselines import BASELINES, find, single
from .baselines_train import FUSED, TWO_TRUNKS

MAZE = {"size": 11, "slip": 0.1, "view": 7}  # the maze of the tables: fresh mazes, 7 x 7 byte view, auto-reset
PPO: dict[str, Any] = {
    "num_steps": 32,
    "update_epochs": 4,
    "num_minibatches": 4,
    "hidden": (64, 64),
    "activation": "tanh",
    "shared_trunk": True,
}
NUM_ENVS = 4096
ROUNDS = 5
LAUNCHED = int(numba.config.NUMBA_NUM_THREADS)  # threads that numba has, at most
GPU_WAYS = ("cuda, results brought to the host", "cuda, results left on the device")
SINGLE = ("maze", "bandit")  # whose single-environment Gymnasium views are measured beside the baselines
CASES: list[tuple[str, dict[str, Any]]] = [
    ("maze", MAZE),
    ("maze", MAZE | {"fresh": False}),
    ("candy", {}),
    ("candy", {"agents": 2}),
]


def rate(burst: Callable[[], int], seconds: float) -> float:
    """Units per second of `burst`, which returns how many it did, over `seconds`."""
    began, units = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        units += burst()
    return units / spent


def in_turns(results: dict[str, Callable[[], int]], seconds: float) -> dict[str, Array]:
    """Units per second of each result_of, float64 (ROUNDS,). All take their turn in each round: where the machine slows
    down, it slows all of them."""
    out = {name: np.zeros(ROUNDS) for name in results}
    for r in range(ROUNDS):
        for name, burst in results.items():
            out[name][r] = rate(burst, seconds / ROUNDS)
    return out


def bench_env(
    ids: list[str] | None = None,
    num_envs: int = NUM_ENVS,
    threads: list[int] | None = None,
    seconds: float = 2.0,
    vs: list[str] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Environment steps per second with random actions drawn beforehand, automatic resets included; medians over rounds.

    One row for each of `ids` (without: every family and the settings in CASES) with a figure for each number of threads;
    several agents are counted in agent steps too. `vs` names packages of `baselines.py`: their environments and our own
    single-environment views take turns with the rows, and `times_faster` is the median over rounds of ours by theirs.
    On `device` "cuda" the figures are those of GPU_WAYS instead of threads. Raises ValueError where there is no GPU.
    """
    ways = (
        [str(n) for n in sorted({min(n, cores(), LAUNCHED) for n in threads or (1, 2)})] if device == "cpu" else list(GPU_WAYS)
    )
    cases = [(id, _options(id)) for id in ids] if ids else all_cases()
    rows: list[dict[str, Any]] = []
    results: dict[str, Callable[[], int]] = {}
    envs = []
    for id, options in cases:
        env: Any = make(id, options, num_envs=num_envs, device=device)
        envs.append(env)
        own = ways if hasattr(env, "threads") else ["1"]  # a stranger's environment knows no threads of ours
        results |= {f"{len(rows)} {way}": _burst(env, way) for way in own}
        rows.append({"world": id, "options": options, "num_envs": num_envs, "agents": env.num_agents})
    baselines, missing = find(BASELINES, vs or [], num_envs)
    results |= {f"baseline {k}": other.burst for k, other in enumerate(baselines)}
    if vs:
        views = {id: single(GymView(id, **_options(id))) for id in SINGLE}
        results |= {f"view {id}": burst for id, burst in views.items()}
    for burst in results.values():
        rate(burst, 0.05)  # episodes out of step with each other, caches warm
    seen = in_turns(results, seconds)
    for k, row in enumerate(rows):
        row["steps_per_second"] = {n: float(np.median(seen[f"{k} {n}"])) for n in ("1", *ways) if f"{k} {n}" in seen}
        if row["agents"] > 1:
            row["agent_steps_per_second"] = {n: row["agents"] * v for n, v in row["steps_per_second"].items()}
    result: dict[str, Any] = {"worlds": rows, "rounds": ROUNDS}
    if vs:
        first = next((k for k, row in enumerate(rows) if row["world"] == "maze"), 0)
        theirs, widest = [], [*rows[first]["steps_per_second"]][-1]
        for k, other in enumerate(baselines):
            ours = f"view {SINGLE[0]}" if other.num_envs == 1 else f"{first} {widest}"
            ratio = float(np.median(seen[ours] / seen[f"baseline {k}"]))
            name = (
                f"single-environment view of {SINGLE[0]}"
                if other.num_envs == 1
                else f"{rows[first]['world']}, {way_name(widest)}"
            )
            theirs.append({
                "package": other.package, "environment": other.what, "num_envs": other.num_envs,
                "steps_per_second": float(np.median(seen[f"baseline {k}"])), "ours": name, "times_faster": ratio,
            })  # fmt: skip
        single_rates = {id: float(np.median(seen[f"view {id}"])) for id in SINGLE}
        result |= {"single_copy_view": single_rates, "baselines": theirs, "not_measured": missing}
    for env in envs:
        env.close()
    if device == "cuda":
        from ...envs.engine.cuda import gpu

        result["gpu"] = gpu()
    return result | {"device": processor(), "versions": versions(), "git_commit": git_commit()}


def way_name(way: str) -> str:
    """A column's name: "2 threads", or one of GPU_WAYS as it is."""
    return f"{way} threads" if way.isdigit() else way


def _options(id: str) -> dict[str, Any]:
    return dict(MAZE) if id == "maze" else {}


def all_cases() -> list[tuple[str, dict[str, Any]]]:
    """What `bench env` measures by itself: every family as it comes, and the settings of CASES."""
    named = [id for id, _ in CASES]
    return [*CASES, *((id, {}) for id in worlds() if id not in named)]


def _burst(env: Any, way: str) -> Callable[[], int]:
    """Sixteen steps of a batch with `way` threads or in a GPU's way; returns how many environment steps that were."""
    rng = np.random.Generator(np.random.PCG64(0))
    actions = [_random_actions(env, rng) for _ in range(64)]
    count = [0]
    if way == GPU_WAYS[1]:
        there = [env.to_device(action) for action in actions]

        def burst_there() -> int:
            for _ in range(16):
                env.step_device(there[count[0] % 64])
                count[0] += 1
            env.synchronize()
            return 16 * int(env.num_envs)

        return burst_there

    def burst() -> int:
        if way.isdigit() and hasattr(env, "threads"):
            env.threads = int(way)
        for _ in range(16):
            env.step(actions[count[0] % 64])
            count[0] += 1
        return 16 * int(env.num_envs)

    return burst


def _random_actions(env: Any, rng: np.random.Generator) -> Any:
    space = env.action_space
    if hasattr(space, "n"):
        return rng.integers(int(space.n), size=(env.num_envs, env.num_agents))
    return rng.uniform(*finite_bounds(space), (env.num_envs, env.num_agents, *space.shape)).astype(np.float32)


def matrix_rate(seconds: float = 1.0) -> float:
    """Floating point operations per second of a large float32 matrix product with torch's present threads."""
    import torch

    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    out = torch.empty(1024, 1024)

    def product() -> int:
        torch.mm(a, b, out=out)
        return 2 * 1024**3

    product()
    return float(np.median([rate(product, seconds / 3) for _ in range(3)]))


def useful_flops(inputs: int, hidden: tuple[int, ...], actions: int, epochs: int, trunks: int = 1) -> int:
    """Floating point operations that PPO needs per environment step: one forward pass to act, and per epoch a forward
    pass and a backward pass (twice a forward, less the first layer's input gradient). A multiply-add counts two."""
    sizes = [inputs, *hidden]
    layers = [trunks * i * o for i, o in zip(sizes[:-1], sizes[1:], strict=True)] + [hidden[-1] * (actions + 1)]
    forward = 2 * sum(layers)
    return forward + epochs * (3 * forward - 2 * layers[0])


class _Trainee:
    """PPO on environments of a world, updated for a while at a time."""

    def __init__(
        self, world: str, options: dict[str, Any], num_envs: int, threads: int, ppo: dict[str, Any], device: str = "cpu"
    ) -> None:
        self.env = make(world, options, num_envs=num_envs, device=device)
        self.agent = make_agent("ppo", ppo, self.env, 0, threads, device)
        self.collector = collector_of(self.env, self.agent, device)
        self.collector.begin(self.env.reset(0))

    def run(self, duration: float) -> dict[str, float]:
        """Environment steps per second over `duration` seconds, and the shares of world, policy and learning."""
        self.collector.pop_seconds()
        began, learn, updates = time.perf_counter(), 0.0, 0
        while time.perf_counter() - began < duration:
            batch = self.collector.rollout(self.agent.num_steps)
            t = time.perf_counter()
            self.agent.learn(batch, 0.0)
            learn += time.perf_counter() - t
            updates += 1
        spent = time.perf_counter() - began
        world, policy = self.collector.pop_seconds()
        steps = updates * self.env.num_envs * self.agent.num_steps
        return {"steps_per_second": steps / spent, "world": world / spent, "policy": policy / spent, "learn": learn / spent}


def _best_rate(other: baselines_train.TrainedBaseline, seconds: float) -> tuple[float, int]:
    """Steps per second of a baseline with the number of torch's threads with which it is fastest now, and that number."""
    import torch

    found = []
    for threads in other.threads:
        torch.set_num_threads(threads)
        found.append((rate(other.burst, seconds / len(other.threads)), threads))
    return max(found)


def bench_train(
    world: str = "maze",
    num_envs: int = NUM_ENVS,
    seconds: float = 20.0,
    rounds: int = 5,
    baseline: bool = True,
    vs: list[str] | None = None,
) -> dict[str, Any]:
    """Environment steps per second of PPO, learning included, with the split of time; all results in turns.

    Each of "fused" and "torch" (the two learners), "fused, one epoch", with `baseline` stable-baselines3, and the packages
    of `baselines_train.py` that `vs` names works `seconds` in all, in `rounds` rounds. A baseline works as long as an update
    takes, at least, and its figure is the better one of those with fewer and with more of torch's threads. Ratios are medians
    over rounds; `times_slower` compares a baseline with `ours`, our learner of the same network. In each round the rate of a
    large matrix product is measured, too, with as many threads: what the processor could do.
    """
    import torch

    from ...core_ml.optim.parallel import one_thread_each

    threads = choose_threads(num_envs)
    options: dict[str, Any] = dict(MAZE) if world == "maze" else {}
    task = baselines_train.Task(world, options, num_envs, PPO)
    baselines, missing = find(baselines_train.BASELINES, vs or [], task)
    if baseline:
        baselines.insert(0, baselines_train.stable_baselines3(task))
    cases = {FUSED: PPO | {"learner": "fused"}, "torch": PPO | {"learner": "torch"}}
    cases["fused, one epoch"] = cases[FUSED] | {"update_epochs": 1}
    if any(other.ours == TWO_TRUNKS for other in baselines):
        cases[TWO_TRUNKS] = cases[FUSED] | {"shared_trunk": False}
    ours = {name: _Trainee(world, options, num_envs, threads, ppo) for name, ppo in cases.items()}
    for one in ours.values():
        one.run(min(1.0, seconds))  # warm up
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in ours}
    others: list[list[tuple[float, int]]] = [[] for _ in baselines]  # steps per second, threads
    peaks = []
    for _ in range(rounds):
        for name, one in ours.items():
            seen[name].append(one.run(seconds / rounds))
        torch.set_num_threads(threads)
        peaks.append(matrix_rate(0.3))
        for other, found in zip(baselines, others, strict=True):
            found.append(_best_rate(other, seconds / rounds))
        one_thread_each()
    env = ours[FUSED].env
    assert env.observation_space.shape is not None
    inputs, actions = int(np.prod(env.observation_space.shape)), int(getattr(env.action_space, "n", 0))
    learners: dict[str, Any] = {}
    for name, measured in seen.items():
        trunks = 1 if cases[name]["shared_trunk"] else 2
        flops = useful_flops(inputs, PPO["hidden"], actions, int(cases[name]["update_epochs"]), trunks)
        shares = [m["steps_per_second"] * flops / peak for m, peak in zip(measured, peaks, strict=True)]
        learners[name] = {
            "steps_per_second": float(np.median([m["steps_per_second"] for m in measured])),
            "rounds": [m["steps_per_second"] for m in measured],
            "time_split": {k: float(np.median([m[k] for m in measured])) for k in ("world", "policy", "learn")},
            "useful_flops_per_step": flops, "share_of_matrix_product_rate": float(np.median(shares)),
        }  # fmt: skip

    def times(name: str, theirs: list[float]) -> float:
        return float(np.median([x / y for x, y in zip(learners[name]["rounds"], theirs, strict=True)]))

    result: dict[str, Any] = {
        "world": world, "options": options, "num_envs": num_envs, "ppo": dict(PPO), "threads": threads, "learners": learners,
        "fused_to_torch": times(FUSED, learners["torch"]["rounds"]), "matrix_product_flops": float(np.median(peaks)),
        "device": processor(), "versions": versions(), "git_commit": git_commit(),
    }  # fmt: skip
    if baseline:
        sb3 = [steps for steps, _ in others[0]]
        result |= {"sb3_steps_per_second": float(np.median(sb3)), "fused_to_sb3": times(FUSED, sb3)}
    if baselines or vs:
        result |= {"baselines": [], "not_measured": missing}
        for other, found in zip(baselines, others, strict=True):
            theirs = [steps for steps, _ in found]
            result["baselines"].append({
                "package": other.package, "version": other.version, "what": other.what,
                "steps_per_second": float(np.median(theirs)), "rounds": theirs, "threads": [n for _, n in found],
                "ours": other.ours, "times_slower": times(other.ours, theirs),
            })  # fmt: skip
    for one in ours.values():
        one.env.close()
    return result


def bench_device(num_envs: int = 65_536, seconds: float = 20.0, rounds: int = 5, device: str = "cuda") -> dict[str, Any]:
    """Environment steps per second of PPO on the maze of the tables with world and learner on `device`, learning included.

    The median over `rounds`. World and policy are one CUDA graph there, so the split of time knows only acting and learning.
    Raises ValueError where there is no GPU.
    """
    one = _Trainee("maze", dict(MAZE), num_envs, 1, PPO, device)
    for _ in range(4):  # updates: two that warm up, the one that captures, the first that only replays
        one.run(1e-9)
    found = [one.run(seconds / rounds) for _ in range(rounds)]
    one.env.close()
    split = {name: float(np.median([m[name] for m in found])) for name in ("policy", "learn")}
    return {
        "world": "maze", "options": dict(MAZE), "num_envs": num_envs, "ppo": dict(PPO),
        "steps_per_second": float(np.median([m["steps_per_second"] for m in found])),
        "rounds": [m["steps_per_second"] for m in found],
        "time_split": {"act": split["policy"], "learn": split["learn"]},
        "device": where(device), "versions": versions(), "git_commit": git_commit(),
    }  # fmt: skip
