"""Our PPO beside stable-baselines3's: the same hyperparameters, worlds and environments, in turns on the same core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from gumdrop.agents.bridges.sb3.vec_env import vec_env
from gumdrop.agents.protocol import Spaces
from gumdrop.agents.registry import make_agent
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.episodes import run_episodes

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]
Array = Any

SEEDS = 10  # takes a quarter of an hour, nearly all of it stable-baselines3's
HELD_OUT = 1_000_000  # seed of the episodes that both are evaluated on


class Task(NamedTuple):
    world: str
    options: dict[str, Any]
    copies: int
    updates: int
    every: int  # updates between evaluations, which no clock sees
    episodes: int  # of an evaluation, greedy
    final_episodes: int
    threshold: float  # mean return
    ppo: dict[str, Any]  # our names; what is not named is equal in both, or as said in `theirs`


COMMON: dict[str, Any] = {"shared_trunk": False, "vf_coef": 0.5, "max_grad_norm": 0.5, "schedule": "linear"}
TASKS = {
    "cartpole": Task("cartpole", {}, 32, 78, 3, 50, 500, 475.0, {  # the preset cartpole-fast
        **COMMON, "num_steps": 32, "update_epochs": 10, "num_minibatches": 4, "learning_rate": 2e-3,
        "gamma": 0.98, "gae_lambda": 0.8, "clip_coef": 0.1, "ent_coef": 0.0, "hidden": (32, 32),
    }),
    # Nine tenths of the exact optimum. With ent_coef=0.02 ours settled too soon with seed 3, and with one of 20 others.
    "frozenlake": Task("frozenlake", {}, 64, 80, 2, 1000, 5000, 0.67, {
        **COMMON, "num_steps": 32, "update_epochs": 4, "num_minibatches": 32, "learning_rate": 2e-3,
        "gamma": 0.99, "gae_lambda": 0.95, "clip_coef": 0.2, "ent_coef": 0.05, "hidden": (32, 32),
    }),
    "candy": Task("candy", {"view": 7}, 16, 120, 3, 500, 5000, 12.2, {  # 85 % of the exact optimum
        **COMMON, "num_steps": 56, "update_epochs": 4, "num_minibatches": 28, "learning_rate": 2e-3,
        "gamma": 1.0, "gae_lambda": 0.95, "clip_coef": 0.2, "ent_coef": 0.02, "hidden": (32, 32),
    }),
}  # fmt: skip


class Course:
    """How a training went: seconds of training alone, and what evaluations between found."""

    def __init__(self, task: Task) -> None:
        self.task, self.updates, self.seconds = task, 0, 0.0
        self.solved_after: float | None = None
        self.began = time.perf_counter()

    def updated(self, player: Any) -> None:
        """After each update."""
        self.seconds += time.perf_counter() - self.began
        self.updates += 1
        if self.solved_after is None and (self.updates % self.task.every == 0 or self.updates == self.task.updates):
            if self.score(player, self.task.episodes) >= self.task.threshold:
                self.solved_after = self.seconds
        self.began = time.perf_counter()

    def score(self, player: Any, episodes: int) -> float:
        return float(run_episodes(player, self.task.world, self.task.options, episodes, HELD_OUT, lines=False).returns.mean())


def ours(task: Task, seed: int, updates: int) -> tuple[Course, float]:
    env = make(task.world, task.options, num_envs=task.environments, seed=seed)
    course = Course(task)
    agent = make_agent("ppo", task.ppo, env, seed)
    collector = Collector(env, agent)
    collector.begin(env.reset(seed))
    for update in range(updates):
        agent.learn(collector.rollout(agent.num_steps), update / task.updates)
        course.updated(agent)
    return course, course.score(agent, task.final_episodes)


def theirs(task: Task, seed: int, updates: int) -> tuple[Course, float]:
    """Theirs counts the whole squared error of a value, ours half of it; and the linear schedule an update sooner."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    o, course = task.ppo, Course(task)
    steps = task.environments * o["num_steps"]
    width = list(o["hidden"])
    env = make(task.world, task.options, num_envs=task.environments, seed=seed)
    env.reset(seed)

    class Player:
        def initial(self, n: int) -> None:
            return None

        def act(self, obs: Array, carry: Any, mode: str) -> tuple[Array, Any, dict[str, Array]]:
            return model.predict(obs[:, 0], deterministic=True)[0][:, None], carry, {}

    class After(BaseCallback):  # type: ignore[misc]
        collected = False

        def _on_rollout_start(self) -> None:
            if self.collected:
                course.updated(Player())
            self.collected = True

        def _on_step(self) -> bool:
            return True

    model = PPO(
        "MlpPolicy", vec_env(env, Spaces.of(env), task.environments), n_steps=o["num_steps"],
        batch_size=steps // o["num_minibatches"], n_epochs=o["update_epochs"],
        learning_rate=lambda left: (left + 1 / task.updates) * o["learning_rate"], gamma=o["gamma"], gae_lambda=o["gae_lambda"],
        clip_range=o["clip_coef"], ent_coef=o["ent_coef"], vf_coef=o["vf_coef"] / 2, max_grad_norm=o["max_grad_norm"],
        seed=seed, policy_kwargs={"net_arch": {"pi": width, "vf": width}}, device="cpu",
    )  # fmt: skip
    model.learn(updates * steps, After())
    course.updated(Player())
    return course, course.score(Player(), task.final_episodes)


def test_beside_stable_baselines3(proof: Proof) -> None:
    import torch
    from scipy import stats

    torch.set_num_threads(1)  # faster than two for both libraries at these sizes
    sides = {"ours": ours, "stable_baselines3": theirs}
    figures: dict[str, Any] = {}
    for name, task in TASKS.items():
        for side in sides.values():
            side(task, 99, 1)  # imports and kept kernels: not counted
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for seed in range(SEEDS):
            for side, learn in sides.items():
                course, final = learn(task, seed, task.updates)
                runs[side].append({
                    "seed": seed, "final": final, "seconds": round(course.seconds, 3),
                    "seconds_to_threshold": None if course.solved_after is None else round(course.solved_after, 3),
                })  # fmt: skip
        a, b = ([run["final"] for run in runs[side]] for side in sides)
        gap = statistics.mean(a) - statistics.mean(b)
        low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95) if len({*a, *b}) > 1 else (gap, gap)
        to = {side: [run["seconds_to_threshold"] for run in found] for side, found in runs.items()}
        # A run that never got there counts with all of its time, which is too little: in favour of whoever failed.
        spent = {side: [x["seconds_to_threshold"] or x["seconds"] for x in found] for side, found in runs.items()}
        figures[name] = {
            "task": task._asdict(), "env_steps": task.updates * task.environments * task.ppo["num_steps"],
            "final": {side: statistics.mean(run["final"] for run in found) for side, found in runs.items()},
            "difference_ci95": [float(low), float(high)],
            "solved": {side: len(found) - found.count(None) for side, found in to.items()},
            "median_seconds_to_threshold": {side: statistics.median(found) for side, found in spent.items()},
            "times_sooner": statistics.median(y / x for x, y in zip(*spent.values(), strict=True)),
            "times_faster": statistics.median(
                y["seconds"] / x["seconds"] for x, y in zip(*runs.values(), strict=True)
            ),
            "runs": runs,
        }  # fmt: skip
    proof("ppo-sb3", {"seeds": list(range(SEEDS)), "threads": 1, "tasks": figures})
    for name, found in figures.items():
        assert found["difference_ci95"][1] >= 0, f"{name}: worse than stable-baselines3"
        assert found["solved"]["ours"] >= found["solved"]["stable_baselines3"], name
