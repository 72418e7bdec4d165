"""Tabular agents against the exact optimum of what each converges to. Oracles: dynamic programming over the world's own model.

Learned policies are not sampled but evaluated exactly: `envs.mdp.evaluate_policy` on the model's states, whose observations
are looked up in the table. The tests add to one document, in which each part has the commit that it was measured with.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.protocol import Rollout
from gumdrop.agents.registry import make_agent
from gumdrop.agents.tabular.plan import StateObservations, see
from gumdrop.envs.make import make
from gumdrop.envs.registry import make_world
from gumdrop.envs.solvers import mdp
from gumdrop.experiments.analysis.tables import learned
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.machine import git_commit
from gumdrop.experiments.statistics import over_seeds

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]
RESULTS = Path(__file__).parents[2] / "docs" / "results"
SEEDS = range(10)
EPSILON = 0.1

# Observations identify the state. Budgets are environment steps of all environments together.
WORLDS: dict[str, dict[str, Any]] = {
    "frozenlake": {"env": {}, "gamma": 0.99, "steps": 400_000},
    "four-rooms": {"env": {"observe": "coordinates"}, "gamma": 0.99, "steps": 1_000_000},
    "cliffwalking": {"env": {"observe": "coordinates"}, "gamma": 1.0, "steps": 400_000},
}
COPIES = 256
ON_POLICY = {"epsilon": EPSILON}  # these converge to the best policy that explores so much
OFF_POLICY = {"epsilon": 0.3}
AGENTS: dict[str, dict[str, Any]] = {
    "q-learning": OFF_POLICY, "double-q": OFF_POLICY, "dyna-q": OFF_POLICY | {"planning": 5},
    "sarsa": ON_POLICY, "expected-sarsa": ON_POLICY,
}  # fmt: skip
# The cliff has no chance in it, so that a maximum can be learned with a constant step size. SARSA's own stumbles, one step in
# ten, are chance enough. It first keeps to the far wall; from there it learns, column by column and on the few steps that it
# strays, that a row nearer is better. Curves of other seeds settle after 2 to 22 million steps: hence its budget.
OWN: dict[tuple[str, str], dict[str, Any]] = {
    ("cliffwalking", "q-learning"): {"visit_decay": 0.0},
    ("cliffwalking", "double-q"): {"visit_decay": 0.0},
    ("cliffwalking", "dyna-q"): {"visit_decay": 0.0},
}
STEPS = {("cliffwalking", "sarsa"): 20_000_000}


def trained(
    name: str, options: dict[str, Any], env: str, env_options: dict[str, Any], environments: int, steps: int, seed: int
) -> Any:
    batch = make(env, env_options, num_envs=environments, seed=seed, threads=1)
    agent = make_agent(name, options, batch, seed)
    collector = Collector(batch, agent)
    collector.begin(batch.obs)
    updates = steps // (environments * agent.num_steps)
    for update in range(updates):
        agent.learn(collector.rollout(agent.num_steps), update / updates)
    return agent


def worth(agent: Any, seen: StateObservations, gamma: float, epsilon: float) -> float:
    """Exact expected return of the learned policy from where episodes begin, exploring with `epsilon`; -inf: it never ends."""
    solution, q = learned(agent, seen.obs, seen.model)
    policy = mdp.soft(solution.policy, epsilon, q.shape[1])
    try:
        return float(mdp.evaluate_policy(seen.model, policy, None, gamma)[np.unique(seen.start)].mean())
    except ValueError:
        return -math.inf


def add(proof: Proof, part: str, figures: dict[str, Any]) -> None:
    """Write this part of the document, and keep the others."""
    file = RESULTS / "tabular.json"
    others = json.loads(file.read_text())["parts"] if file.exists() else {}
    proof("tabular", {"parts": others | {part: figures | {"git_commit": git_commit()}}})


def share(value: float, optimum: float) -> float:
    """Of returns above 0 their ratio; of costs the optimal one over the agent's, which is the stricter figure."""
    return value / optimum if optimum > 0 else optimum / value


def path(agent: Any, seen: StateObservations) -> list[tuple[int, int]]:
    """Cells of the greedy walk in a deterministic maze, rows and columns, the start first."""
    world = make_world("cliffwalking", WORLDS["cliffwalking"]["env"])
    y, x = world.places(seen.model)  # type: ignore[attr-defined]
    policy = learned(agent, seen.obs, seen.model)[0].policy
    state, cells = seen.model.start, []
    for _ in range(60):
        cells.append((int(y[state]), int(x[state])))
        outcome = state, policy[state], 0
        state = int(seen.model.next_state[outcome])
        if seen.model.terminated[outcome]:
            return [*cells, (int(y[state]), int(x[state]))]
    return cells


@pytest.mark.parametrize("env", WORLDS)
def test_share_of_the_exact_optimum(env: str, proof: Proof) -> None:
    o = WORLDS[env]
    seen = see(make_world(env, o["env"]), resets=4096)
    starts = np.unique(seen.start)
    figures: dict[str, Any] = {}
    for name, options in AGENTS.items():
        epsilon = EPSILON if options is ON_POLICY else 0.0
        options = options | OWN.get((env, name), {})
        steps = STEPS.get((env, name), o["steps"])
        target = (
            mdp.epsilon_optimum(seen.model, epsilon, gamma=o["gamma"])
            if epsilon
            else mdp.value_iteration(seen.model, o["gamma"])
        )
        optimum = float(target.value[starts].mean())
        shares, paths = [], []
        for seed in SEEDS:
            agent = trained(name, options | {"gamma": o["gamma"]}, env, o["env"], COPIES, steps, seed)
            shares.append(share(worth(agent, seen, o["gamma"], epsilon), optimum))
            if env == "cliffwalking":
                paths.append(path(agent, seen))
        figures[name] = {
            "options": options, "steps": steps, "converges_to": f"optimum with epsilon {epsilon}" if epsilon else "optimum",
            "optimum": optimum, "shares": shares, "mean": float(np.mean(shares)), "ci95": over_seeds(shares)["ci95"],
        }  # fmt: skip
        if paths:
            beside = [sum(row == 2 and 0 < column < 11 for row, column in cells) for cells in paths]
            figures[name] |= {
                "path": paths[0],
                "path_lengths": [len(cells) - 1 for cells in paths],
                "cells_beside_the_cliff": beside,
            }
    add(proof, env, {"env": {"id": env, **o["env"]}, "gamma": o["gamma"], "num_envs": COPIES, "agents": figures})
    assert all(found["ci95"][0] >= 0.98 for found in figures.values())
    if env == "cliffwalking":
        assert figures["q-learning"]["path_lengths"] == [13] * 10  # the short one
        assert figures["sarsa"]["cells_beside_the_cliff"] == [0] * 10  # the safe one


MAZE = {"fresh": False, "observe": "coordinates", "size": 15, "step_reward": -1.0, "time_limit": 0}
PLAIN = {"num_steps": 1, "learning_rate": 1.0, "visit_decay": 0.0, "gamma": 0.95, "epsilon": 0.1}


def steps_until_optimal(
    name: str, options: dict[str, Any], seed: int, seen: StateObservations, optimum: float, most: int
) -> int:
    """Steps of one environment until the greedy policy first takes a shortest way; looked at after every 10."""
    batch = make("maze", MAZE, num_envs=1, seed=seed, threads=1)
    agent = make_agent(name, PLAIN | options, batch, seed)
    collector = Collector(batch, agent)
    collector.begin(batch.obs)
    for step in range(1, most + 1):
        agent.learn(collector.rollout(1), 0.0)
        if step % 10 == 0 and agent.table["q"].any() and worth(agent, seen, 0.95, 0.0) > optimum - 1e-9:  # type: ignore[attr-defined]
            return step
    return most


def test_planning_needs_a_fifth_of_the_steps(proof: Proof) -> None:
    """A deterministic maze at a price of 1 a step, step by step as in the textbook, step size 1."""
    seen = see(make_world("maze", MAZE))
    optimum = float(mdp.value_iteration(seen.model, 0.95).value[seen.model.start])
    agents: dict[str, dict[str, Any]] = {"q-learning": {}, "dyna-q": {"planning": 50}, "prioritised-sweeping": {"planning": 50}}
    steps = {
        name: [steps_until_optimal(name, options, seed, seen, optimum, 60_000) for seed in SEEDS]
        for name, options in agents.items()
    }
    ratios = [dyna / plain for dyna, plain in zip(steps["dyna-q"], steps["q-learning"], strict=True)]
    found = {
        "env": {"id": "maze", **MAZE}, "options": PLAIN, "agents": agents, "steps_until_optimal": steps,
        "means": {name: float(np.mean(found)) for name, found in steps.items()},
        "ratios": ratios, "ratio_ci95": over_seeds(ratios)["ci95"],
    }  # fmt: skip
    add(proof, "planning", found)
    assert over_seeds(ratios)["ci95"][1] <= 0.2


@pytest.mark.parametrize(
    "options", [{"method": "td"}, {"method": "monte-carlo", "visit_decay": 1.0}], ids=["td", "monte-carlo"]
)
def test_values_of_random_actions_in_the_corridor(options: dict[str, Any], proof: Proof) -> None:
    corridor = {"task": "match", "length": 10}
    seen = see(make_world("corridor", corridor))
    exact = mdp.evaluate_policy(seen.model, None)
    errors = []
    for seed in SEEDS:
        agent = trained("td-prediction", {"gamma": 1.0} | options, "corridor", corridor, COPIES, 3_000_000, seed)
        errors.append(float(np.abs(agent.values(seen.obs[:, None])[:, 0] - exact).max()))
    figures = {
        "env": {"id": "corridor", **corridor}, "num_envs": COPIES, "steps": 3_000_000, "options": options,
        "values_up_to": float(exact.max()), "max_errors": errors, **over_seeds(errors),
    }  # fmt: skip
    add(proof, f"prediction-{options['method']}", figures)
    assert max(errors) < 0.02


def test_a_model_of_the_opponent_pays(proof: Proof) -> None:
    """Rock, paper, scissors against a player who beats its own last action, and trembles once in five rounds."""
    game = {
        "game": "rock-paper-scissors", "agents": 1, "opponents": ["copycat-beater"], "tremble": 0.2, "rounds": 0,
        "continuation": 0.98,
    }  # fmt: skip
    seen = see(make_world("matrix", game))
    best = float(mdp.value_iteration(seen.model).value[seen.model.start])
    found: dict[str, list[float]] = {}
    for opponent in (True, False):
        options = {"opponent": opponent, "gamma": 0.98, "epsilon": 0.1, "visit_decay": 0.7}
        agents = [trained("sarsa", options, "matrix", game, 64, 200_000, seed) for seed in SEEDS]
        found["with" if opponent else "without"] = [worth(agent, seen, 1.0, 0.0) for agent in agents]
    difference = [a - b for a, b in zip(found["with"], found["without"], strict=True)]
    figures = {
        "env": {"id": "matrix", **game}, "steps": 200_000, "optimum": best, "returns": found,
        "difference_ci95": over_seeds(difference)["ci95"],
    }  # fmt: skip
    add(proof, "opponent", figures)
    assert over_seeds(difference)["ci95"][0] > 0


VISITS = {"double-q": ("visits", "visits2")}  # columns that count a table's updates


def test_updates_a_second(proof: Proof) -> None:
    """Sweeps over rollouts that were collected before, hashing and looking up included; then the whole loop. One core."""
    found = {}
    for name in ("q-learning", "sarsa", "expected-sarsa", "double-q"):
        env = make("frozenlake", {}, num_envs=1024, seed=0, threads=1)
        agent = make_agent(name, {}, env, 0)
        collector = Collector(env, agent)
        collector.begin(env.obs)
        batch = collector.rollout(16)
        batch = Rollout(*(np.array(part) for part in batch[:7]), {})  # type: ignore[arg-type]
        learning, whole = [], []
        for _ in range(7):
            began = time.perf_counter()
            for _ in range(20):
                agent.learn(batch, 0.5)
            learning.append(20 * batch.reward.size / (time.perf_counter() - began))
            began = time.perf_counter()
            for _ in range(20):
                agent.learn(collector.rollout(16), 0.5)
            whole.append(20 * batch.reward.size / (time.perf_counter() - began))
        # Each transition was one update, but for those that wait for their next action.
        updates = sum(int(agent.table[column].sum()) for column in VISITS.get(name, ("visits",)))
        made = 2 * 7 * 20 * batch.reward.size
        assert made - env.num_envs <= updates <= made
        found[name] = {"updates_per_second": float(np.median(learning)), "steps_per_second": float(np.median(whole))}
    add(proof, "speed", {"env": {"id": "frozenlake"}, "num_envs": 1024, "num_steps": 16, "agents": found})
