"""The world model: how fast it imagined trajectories, and what a controller that learned in imagination alone is worth in the
world.

Oracles: FrozenLake's optimum, .7442 of episodes; in the maze every start can reach the goal in time, so 1 is possible; in candy
and in the maze the controller of the same world trained outside, with five times as many real steps. Settings were found with
seeds 0 and 1 on FrozenLake, seed 0 in the other two worlds; the proofs have seeds 10 to 14.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from gumdrop.agents.model_based.controllers import Deciding, Planning
from gumdrop.agents.model_based.world_model_env import WorldModelEnv
from gumdrop.agents.model_based.world_model_policy import WorldModelPolicy
from gumdrop.agents.registry import make_agent
from gumdrop.core_ml.models.open_loop import calibration
from gumdrop.core_ml.models.rssm import RSSM
from gumdrop.core_ml.observations import Observation
from gumdrop.core_ml.planners.cem import CEMPlanner
from gumdrop.core_ml.planners.cma_controller import CmaController
from gumdrop.envs.make import make
from gumdrop.experiments.analysis.prediction import wandering
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.collect.make import fit
from gumdrop.experiments.run.episodes import run_episodes
from gumdrop.experiments.statistics import over_seeds, welch

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]

SEEDS, COPIES, EPISODES, HELD_OUT = range(10, 15), 32, 2000, 1_000_000
MEMORY = {"encoder": "symbols", "belief": {"name": "gru", "hidden": 32}, "hidden": [], "num_steps": 32, "learning_rate": 3e-3}


class Task(NamedTuple):
    id: str
    world: dict[str, Any]
    steps: int  # in the world, of who imagined trajectories; of the others five times as many
    dreamer: dict[str, Any]
    ppo: dict[str, Any]  # what learns in the world itself
    longest: int  # steps of an episode


LAKE = Task(
    "frozenlake", {}, 100_000,
    {
        "updates": 32, "length": 4, "batch_size": 256, "imagined_batch_size": 128, "horizon": 10, "learning_starts": 10_000,
        "ent_coef": 0.05, "ent_coef_final": 0.003, "learning_rate_final": 0.1, "actor_critic": {"slow": 0.05, "limit": 1.0},
        "model": {"name": "rssm", "groups": 6, "commitment": 1.0, "reward_limit": 1.0, "learning_rate": 4e-3},
    },
    {"ent_coef": 0.01, "learning_rate": 3e-3, "num_steps": 64}, 100,
)  # fmt: skip
MAZE = Task(
    "maze", {"size": 9, "fresh": False, "view": 3, "start": "random", "time_limit": 60}, 60_000,
    {
        "updates": 24, "length": 24, "batch_size": 24, "horizon": 12, "learning_starts": 8000, "ent_coef": 0.01, "gamma": 0.97,
        "learning_rate_final": 0.2, "actor_critic": {"slow": 0.05, "limit": 1.0},
        "model": {"name": "rssm", "groups": 6, "commitment": 1.0, "reward_limit": 1.0, "learning_rate": 3e-3},
    },
    {**MEMORY, "ent_coef": 0.01}, 60,
)  # fmt: skip
CANDY = Task(
    "candy", {"size": 4, "candies": 3, "deadline": 10, "view": 3}, 30_000,
    {
        "updates": 32, "length": 10, "batch_size": 64, "horizon": 8, "learning_starts": 4000, "ent_coef": 0.01,
        "learning_rate_final": 0.2, "actor_critic": {"slow": 0.05, "limit": 3.0},
        "model": {"name": "rssm", "latent": "cells", "width": 128, "reward_limit": 2.0, "learning_rate": 3e-3},
    },
    {**MEMORY, "ent_coef": 0.01}, 10,
)  # fmt: skip
TASKS = {"frozenlake": LAKE, "maze": MAZE, "candy": CANDY}


START: Any = None  # the line that processes side by side begin at


def at_the_start(barrier: Any) -> None:
    global START
    START = barrier


def share(rows: int) -> float:
    """Latent steps in each second of ten, on one thread, beside as many others as there are cores."""
    torch.set_num_threads(1)
    model = RSSM(RSSM.Config(), Observation.of((7, 7), np.uint8, 3), 4, 0)
    generator = torch.Generator().manual_seed(0)
    action = torch.eye(4)[torch.randint(4, (rows,), generator=generator)]
    model.imagine(model.initial(rows), lambda seen: action, 20, generator)
    START.wait(120)
    began, done = time.perf_counter(), 0
    while time.perf_counter() < began + 10:
        model.imagine(model.initial(rows), lambda seen: action, 20, generator)
        done += 20 * rows
    return done / (time.perf_counter() - began)


def test_imagination_is_fast(proof: Proof) -> None:
    """At the default width, with reward and going on: one thread, per second of a core's work, since others may work too; and
    one process on each core, all together by the clock."""
    context, cores = multiprocessing.get_context("spawn"), os.cpu_count() or 1
    with ProcessPoolExecutor(cores, context, at_the_start, (context.Barrier(cores),)) as pool:
        together = round(sum(pool.map(share, [1024] * cores)))
    model = RSSM(RSSM.Config(), Observation.of((7, 7), np.uint8, 3), 4, 0)
    speeds, walls, generator = {}, {}, torch.Generator().manual_seed(0)
    for rows in (512, 1024, 2048, 4096):
        action = torch.eye(4)[torch.randint(4, (rows,), generator=generator)]
        best = wall = 0.0
        for _ in range(8):
            began, clock = time.thread_time(), time.perf_counter()
            imagined = model.imagine(model.initial(rows), lambda seen, a=action: a, 20, generator)  # type: ignore[misc]
            best = max(best, 20 * rows / (time.thread_time() - began))
            wall = max(wall, 20 * rows / (time.perf_counter() - clock))
        speeds[rows], walls[rows] = round(best), round(wall)
        # Nothing is asserted of time; what was timed must have been whole imagined trajectories.
        assert imagined.features.shape == (21, rows, model.size) and imagined.reward.shape == imagined.continue_.shape == (
            20,
            rows,
        )
        assert all(part.isfinite().all() for part in imagined)
    o = model.config
    width = f"h of {o.deter}, {o.groups} numbers of {o.classes} levels, heads of {o.width}"
    proof("imagination", {
        "width": width, "threads": 1, "latent_steps_per_core_second": speeds, "per_second_on_the_clock": walls,
        "cores": cores, "all_cores_on_the_clock": together,
        "headline": [
            [f"latent steps per second of one core, {width}", f"{max(speeds.values()):,}"],
            [f"by the clock, on {cores} cores at once", f"{together:,}"],
        ],
    })  # fmt: skip


def test_collecting_costs_what_acting_costs(proof: Proof) -> None:
    """Real steps of who imagined trajectories: rollouts by the collector, with all that is kept for learning and the replay,
    beside the bare loop of acting and stepping the engine, in turns."""
    from gumdrop.agents.protocol import restart

    found: dict[str, dict[str, float]] = {}
    for environments in (64, 1024):
        env = make("maze", {"fresh": False}, num_envs=environments, seed=0)
        agent: Any = make_agent("dreamer", {"learning_starts": 10**9}, env, 0)
        collector = Collector(env, agent)
        collector.begin(env.reset(0))
        obs, carry, rounds = env.obs, agent.initial(environments), []
        for _ in range(15):
            began = time.perf_counter()
            agent.learn(collector.rollout(16), 0.0)
            middle = time.perf_counter()
            for _ in range(16):
                action, carry, _ = agent.act(obs, carry, "sample")
                step = env.step(action)
                restart(agent, carry, step)
                obs = step.obs
            rounds.append((middle - began, time.perf_counter() - middle))
        ratios = [bare / whole for whole, bare in rounds[2:]]
        speed = 16 * environments / statistics.median(whole for whole, _ in rounds[2:])
        found[str(environments)] = {"share_of_the_bare_loop": statistics.median(ratios), "steps_per_second": round(speed)}
        assert agent.replay.head == 15 * 16 * environments and agent.replay.streams == environments  # all of it is kept
    proof("collection", {
        "environments": found,
        "headline": [
            [f"collecting beside the bare loop of acting and stepping, {n} environments", f"{x['share_of_the_bare_loop']:.2f}"]
            for n, x in found.items()
        ],
    })  # fmt: skip


def trained(task: Task, name: str, options: dict[str, Any], steps: int, seed: int) -> Any:
    env = make(task.id, task.world, num_envs=COPIES, seed=seed)
    agent = make_agent(name, options, env, seed)
    fit(agent, env, steps // (COPIES * agent.num_steps))
    return agent


def real(task: Task, agent: Any) -> float:
    return float(run_episodes(agent, task.id, task.world, EPISODES, HELD_OUT, lines=False).returns.mean())


def begins(agent: Any, seed: int, steps: int = 4) -> dict[str, Any]:
    """States in which real episodes began."""
    batch = agent.replay.draw(np.random.default_rng(seed), 20_000, steps)
    return {name: part.numpy()[batch.is_first] for name, part in agent.model.posterior(batch).items()}


def imagined(task: Task, agent: Any, seed: int) -> float:
    """Mean return of the greedy policy in imagination that begin as real episodes did."""
    env = WorldModelEnv(
        agent.model, agent.spaces.action, begins(agent, seed), num_envs=EPISODES, seed=seed, horizon=task.longest
    )  # fmt: skip
    total, running = np.zeros(EPISODES), np.ones(EPISODES, np.bool_)
    for _ in range(task.longest):
        with torch.inference_mode():
            action = agent.actor_critic.policy(torch.from_numpy(env.obs[:, 0])).mode().numpy()
        step = env.step(action[:, None])
        total += running * step.reward[:, 0]
        running &= ~(step.terminated | step.truncated)
    return float(total.mean())


def arm(job: tuple[str, str, int]) -> dict[str, Any]:
    torch.set_num_threads(1)
    which, name, seed = job
    task, began = TASKS[which], time.perf_counter()
    found: dict[str, Any] = {"task": which, "arm": name, "seed": seed}
    if name.startswith("world"):  # without the model
        steps = task.steps * (5 if name == "world, 5 x steps" else 1)
        agent = trained(task, "ppo", task.ppo, steps, seed)
        found |= {"return": real(task, agent), "env_steps": steps}
    else:
        options = task.dreamer | {"model": {**task.dreamer["model"], "untrained": name == "untrained"}}
        agent = trained(task, "dreamer", options, task.steps, seed)
        found |= {"return": real(task, agent), "env_steps": task.steps}
        if name == "imagined":
            found["imagined_return"] = imagined(task, agent, seed)
            blind = wandering(agent, make(task.id, task.world, num_envs=COPIES), seed, context=4, horizon=10, count=2000)
            found["calibration"] = calibration(agent.model, blind, 10, torch.Generator().manual_seed(seed))
    return found | {"seconds": round(time.perf_counter() - began)}


def states(agent: Any, seed: int) -> dict[str, Any]:
    return dict(agent.model.posterior(agent.replay.draw(np.random.default_rng(seed), 1000, 4)))


ARMS = ("imagined", "untrained", "world", "world, 5 x steps")


@pytest.mark.parametrize("which", TASKS)
def test_a_controller_from_dreams_alone(which: str, proof: Proof) -> None:
    task = TASKS[which]
    jobs = [(which, name, seed) for name in ARMS for seed in SEEDS]
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1), multiprocessing.get_context("spawn")) as pool:
        runs = list(pool.map(arm, jobs))
    values = {name: [run["return"] for run in runs if run["arm"] == name] for name in ARMS}
    table, more = {name: over_seeds(found) for name, found in values.items()}, welch(values["imagined"], values["untrained"])
    awake = [run for run in runs if run["arm"] == "imagined"]
    ratios = [run["imagined_return"] / max(run["return"], 1e-9) for run in awake]
    ratio = statistics.mean(run["imagined_return"] for run in awake) / table["imagined"]["mean"]
    share = table["imagined"]["mean"] / table["world, 5 x steps"]["mean"]
    lines = run_episodes(make_agent("random", {}, make(task.id, task.world), 0), task.id, task.world, EPISODES, HELD_OUT)
    proof(f"world-model-{which}", {
        "world": {"id": task.id, **task.world}, "env_steps": task.steps, "environments": COPIES, "dreamer": task.dreamer,
        "ppo": task.ppo, "seeds": list(SEEDS), "episodes": EPISODES, "random": float(lines.returns.mean()), "arms": table,
        "dreams_minus_untrained": more, "dream_over_real": ratio, "by_seed": ratios,
        "of_five_times_the_steps": share, "runs": runs,
        "headline": [
            [f"{which}: return from imagined alone, {task.steps:,} real steps", f"{table['imagined']['mean']:.3f}"],
            ["imagined of an untrained model", f"{table['untrained']['mean']:.3f}"],
            [f"PPO in the world, {task.steps:,} steps", f"{table['world']['mean']:.3f}"],
            [f"PPO in the world, {5 * task.steps:,} steps", f"{table['world, 5 x steps']['mean']:.3f}"],
            ["imagined return / real return", f"{ratio:.2f}"],
        ],
    })  # fmt: skip
    assert more["ci95"][0] > 0
    assert 0.9 <= ratio <= 1.1
    assert share >= 0.9
    if which == "frozenlake":
        assert min(values["imagined"]) >= 0.7


def controllers(seed: int) -> dict[str, float]:
    """The actor-critic of a model, and other controllers in imagination of the same model, each then awake."""
    torch.set_num_threads(1)
    task = LAKE
    agent = trained(task, "dreamer", task.dreamer, task.steps, seed)
    model, starts = agent.model, {name: part.flatten(0, 1).numpy() for name, part in states(agent, seed).items()}
    imagined = WorldModelEnv(model, agent.spaces.action, starts, num_envs=64, seed=seed, horizon=task.longest)
    ppo = make_agent("ppo", {"ent_coef": 0.01, "learning_rate": 2e-3, "num_steps": 64, "hidden": [64]}, imagined, seed)
    fit(ppo, imagined, updates=150)
    evolved = CmaController(CmaController.Config(horizon=30, episodes=32), model.size, agent.actions)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(200):
        evolved.update(model, {name: torch.from_numpy(part) for name, part in starts.items()}, generator)
    planner = CEMPlanner(CEMPlanner.Config(horizon=3, population=32, elites=4, iterations=2, samples=4), agent.actions)
    planning = Planning(model, planner, seed, agent.actor_critic.value)
    played = {
        "ppo": WorldModelPolicy(model, ppo, agent.actions),
        "cma-es": WorldModelPolicy(model, Deciding(evolved.act), agent.actions),
    }
    found = {"actor-critic": real(task, agent)} | {name: real(task, player) for name, player in played.items()}
    few = run_episodes(planning, task.id, task.world, 100, HELD_OUT, lines=False)
    return found | {"planner, 100 episodes": float(few.returns.mean())}


def test_controllers_of_one_model(proof: Proof) -> None:
    """What each finds in imagination of a model that the actor-critic gathered the steps for; no bound is asked of the
    others."""
    with ProcessPoolExecutor(os.cpu_count() or 1, multiprocessing.get_context("spawn")) as pool:
        runs = list(pool.map(controllers, SEEDS))
    means = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
    proof("world-model-controllers", {
        "world": LAKE.id, "env_steps": LAKE.steps, "dreamer": LAKE.dreamer, "seeds": list(SEEDS), "runs": runs,
        "headline": [[f"frozenlake, {name} in imagined of one model", f"{mean:.3f}"] for name, mean in means.items()],
    })  # fmt: skip
    assert all(found > 0.02 for run in runs for found in run.values())  # beyond chance, .01
