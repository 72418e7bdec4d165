"""Speed, measured: worlds alone, and PPO with learning, against stable-baselines3 in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...envs.core import finite_bounds
from ...envs.registry import make, worlds
from ..core import make_agent
from .collect import Collector
from .system import choose_threads, cores, git_commit, processor, use_threads, versions

MAZE = {"size": 11, "slip": 0.1, "view": 7}  # the maze of the tables: fresh mazes, 7 x 7 byte view, auto-reset
PPO: dict[str, Any] = {
    "num_steps": 32,
    "epochs": 4,
    "minibatches": 4,
    "hidden": (64, 64),
    "activation": "tanh",
    "shared_trunk": True,
}
COPIES = 4096


def median_rate(step: Callable[[], int], seconds: float, repeats: int = 3) -> float:
    """Median over `repeats` of (units done by `step`) per second, each measured for a share of `seconds`."""
    rates = []
    for _ in range(repeats):
        began, units = time.perf_counter(), 0
        while (spent := time.perf_counter() - began) < seconds / repeats:
            units += step()
        rates.append(units / spent)
    return float(np.median(rates))


def bench_env(
    ids: list[str] | None = None, copies: int = COPIES, threads: list[int] | None = None, seconds: float = 2.0
) -> dict[str, Any]:
    """Environment steps per second with random actions drawn beforehand, auto-reset included, per world and threads."""
    threads = sorted({min(n, cores()) for n in threads or (1, 2)})
    rows = []
    for id in ids or list(worlds()):
        options: dict[str, Any] = dict(MAZE) if id == "maze" else {}
        env = make(id, options, num_envs=copies)
        rng = np.random.Generator(np.random.PCG64(0))
        actions = [_random_actions(env, rng) for _ in range(64)]
        for _ in range(4):  # episodes out of step with each other, caches warm
            for action in actions:
                env.step(action)
        row: dict[str, Any] = {"world": id, "options": options, "copies": copies, "agents": env.num_agents}
        count = [0]

        def burst(env: Any = env, actions: list[Any] = actions, count: list[int] = count) -> int:
            for _ in range(16):
                env.step(actions[count[0] % 64])
                count[0] += 1
            return 16 * copies

        row["steps_per_second"] = {}
        for n in threads if hasattr(env, "threads") else [1]:
            if hasattr(env, "threads"):
                env.threads = n
            row["steps_per_second"][str(n)] = median_rate(burst, seconds)
        env.close()
        rows.append(row)
    return {"worlds": rows, "device": processor(), "versions": versions(), "git_commit": git_commit()}


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
    return median_rate(product, seconds)


def useful_flops(inputs: int, hidden: tuple[int, ...], actions: int, epochs: int) -> int:
    """Floating point operations that PPO needs per environment step: one forward pass to act, and per epoch a forward
    pass and a backward pass (twice a forward, less the first layer's input gradient). A multiply-add counts two."""
    sizes = [inputs, *hidden]
    layers = [i * o for i, o in zip(sizes[:-1], sizes[1:], strict=True)] + [hidden[-1] * (actions + 1)]
    forward = 2 * sum(layers)
    return forward + epochs * (3 * forward - 2 * layers[0])


def bench_train(
    world: str = "maze", copies: int = COPIES, seconds: float = 20.0, rounds: int = 3, baseline: bool = True
) -> dict[str, Any]:
    """Environment steps per second of PPO, learning included, with the split of time; stable-baselines3 measured alternately.

    Ours runs `seconds` in all, in `rounds` rounds; after each one, with `baseline`, one rollout and update of
    stable-baselines3 (16,384 steps). The ratio is the median over rounds.
    """
    import torch

    use_threads()
    threads = choose_threads(copies)
    options: dict[str, Any] = dict(MAZE) if world == "maze" else {}
    env = make(world, options, num_envs=copies)
    agent = make_agent("ppo", PPO, env, 0, threads)
    collector = Collector(env, agent)
    collector.begin(env.reset(0))

    def ours(duration: float) -> dict[str, float]:
        collector.pop_seconds()
        began, learn, updates = time.perf_counter(), 0.0, 0
        while time.perf_counter() - began < duration:
            batch = collector.rollout(agent.num_steps)
            t = time.perf_counter()
            agent.learn(batch, 0.0)
            learn += time.perf_counter() - t
            updates += 1
        spent = time.perf_counter() - began
        world_s, policy_s = collector.pop_seconds()
        return {
            "steps_per_second": updates * copies * agent.num_steps / spent,
            "world": world_s / spent, "policy": policy_s / spent, "learn": learn / spent,
        }  # fmt: skip

    ours(2.0)  # warm up
    theirs = _sb3(world, options) if baseline else None
    mine, others = [], []
    for _ in range(rounds):
        mine.append(ours(seconds / rounds))
        if theirs:
            torch.set_num_threads(threads)
            others.append(theirs())
            use_threads()
    torch.set_num_threads(threads)  # the rate to compare with is that of all threads together
    peak = matrix_rate()
    use_threads()
    rate = float(np.median([m["steps_per_second"] for m in mine]))
    assert env.observation_space.shape is not None
    inputs, actions = int(np.prod(env.observation_space.shape)), int(getattr(env.action_space, "n", 0))
    flops = useful_flops(inputs, PPO["hidden"], actions, PPO["epochs"])
    env.close()
    result: dict[str, Any] = {
        "world": world, "options": options, "copies": copies, "ppo": {k: v for k, v in PPO.items()},
        "steps_per_second": rate, "rounds": [m["steps_per_second"] for m in mine],
        "time_split": {k: float(np.median([m[k] for m in mine])) for k in ("world", "policy", "learn")},
        "matrix_product_flops": peak, "useful_flops_per_step": flops, "share_of_matrix_product_rate": rate * flops / peak,
        "threads": threads,
        "device": processor(), "versions": versions(), "git_commit": git_commit(),
    }  # fmt: skip
    if others:
        result["sb3_steps_per_second"] = float(np.median(others))
        result["ratio_to_sb3"] = float(np.median([m["steps_per_second"] / s for m, s in zip(mine, others, strict=True)]))
    return result


def _sb3(world: str, options: dict[str, Any], steps: int = 16_384) -> Callable[[], float]:
    """Steps per second of stable-baselines3's PPO: 8 copies through our Gymnasium view, its own defaults."""
    import gymnasium
    from stable_baselines3 import PPO as Theirs
    from stable_baselines3.common.vec_env import DummyVecEnv

    from ...envs import gym_id

    env = DummyVecEnv([lambda: gymnasium.make(gym_id(world), **options)] * 8)
    model = Theirs("MlpPolicy", env, seed=0, device="cpu")

    def run() -> float:
        began = time.perf_counter()
        model.learn(steps, reset_num_timesteps=False)
        return steps / (time.perf_counter() - began)

    return run
