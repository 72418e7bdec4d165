"""Bandit agents against what is known of them: YARDSTICKS' table, the Lai-Robbins constant, and each other.

Scores are means of the pulled arms, not sampled rewards. These agents are not trained: the units are tasks, each with its own
seed; only neural-linear has training seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.registry import make_agent
from gumdrop.configs.schema import RunConfig
from gumdrop.envs.make import make
from gumdrop.experiments.run.train import train
from gumdrop.experiments.statistics import mean_interval
from gumdrop.store.arrays import Array

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]

TASKS, SEED = 20_000, 1
SIZES = (10, 5), (10, 10), (100, 5), (100, 10)
PRIOR = {"prior": (1.0, 1.0)}


def play(
    world: str,
    options: dict[str, Any],
    name: str,
    agent_options: dict[str, Any],
    tasks: int,
    arms: tuple[float, ...] = (),
    every: Array | None = None,
) -> tuple[Array, Array]:
    """One episode of each task. Total mean reward of the pulled arms (tasks,), and cumulative regret (points, tasks) after
    `every` (points,) pulls, after all of them without it. `arms`: means instead of drawn ones."""
    env: Any = make(world, options, num_envs=tasks, seed=SEED)
    obs = env.reset(SEED)
    if arms:
        env.state.mean[:] = arms
    agent = make_agent(name, agent_options, env, SEED)
    carry = agent.initial(tasks)
    total, regret, rows = np.zeros(tasks), np.zeros(tasks), np.arange(tasks)
    pulls = env.world.config.pulls
    wanted, kept = {int(t) for t in every} if every is not None else {pulls}, []
    for t in range(1, pulls + 1):
        action, carry, _ = agent.act(obs, carry, "sample")
        got = env.state.mean[rows, action[:, 0]]
        total += got
        regret += env.state.mean.max(1) - got
        obs = env.step(action).obs
        if t in wanted:
            kept.append(regret.copy())
    env.close()
    return total, np.array(kept)


def figures(values: Array) -> dict[str, Any]:
    return {"mean": float(values.mean()), "ci95": mean_interval(values), "tasks": len(values)}


# YARDSTICKS: 95 % half widths of exact rows are given there; the paper (RL^2, Duan et al. 2016) gives none and no number of
# tasks: its rows are taken as means over 1,000 sampled episodes, printed to one digit.
EXACT = {
    "bayes-optimal": {(10, 5): (6.660, 0.0), (10, 10): (6.714, 0.0)},
    "gittins": {(100, 5): (78.48, 0.16), (100, 10): (83.67, 0.11)},
}
PAPER = {
    "random": (5.0, 5.0, 50.0, 50.0), "thompson": (5.8, 5.5, 74.7, 76.7), "greedy": (6.57, 6.6, 74.8, 77.1),
    "ucb1": (6.6, 6.7, 78.0, 82.4),
}  # fmt: skip
PAPER_TASKS = 1000
TUNED = (0.05, 0.1, 0.125, 0.15, 0.2, 0.25)
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "thompson": ("thompson", PRIOR),
    "greedy": ("epsilon-greedy", {"epsilon": 0.0, "ties": "first", **PRIOR}),
    "greedy, random ties": ("epsilon-greedy", {"epsilon": 0.0, "ties": "random", **PRIOR}),
    "ucb1": ("ucb1", {"c": 0.125, **PRIOR}),
    "ucb1, first each arm once": ("ucb1", {"c": 0.125}),
    "kl-ucb": ("kl-ucb", {}),
    "epsilon-greedy": ("epsilon-greedy", {"epsilon": 0.1}),
    "epsilon-first": ("epsilon-first", {"epsilon": 0.2}),
    "exp3": ("exp3", {}),
    "gittins": ("gittins", {}),
    "bayes-optimal": ("bayes-optimal", {}),
}


def test_the_table_of_bernoulli_bandits(proof: Proof) -> None:
    table: dict[str, Any] = {}
    for column, (pulls, arms) in enumerate(SIZES):
        options = {"pulls": pulls, "arms": arms}
        row: dict[str, Any] = {}
        for label, (name, agent_options) in AGENTS.items():
            if name == "bayes-optimal" and pulls > 10:
                continue
            total, _ = play("bandit", options, name, agent_options, TASKS)
            row[label] = {**figures(total), "agent": name, "options": agent_options}
            error = 1.96 * float(total.std()) / math.sqrt(TASKS)
            if label in PAPER:
                noise = math.sqrt(float(total.var()) + pulls / 6)  # a U[0, 1] arm's coin has variance 1 / 6 on average
                row[label] |= {
                    "table": PAPER[label][column],
                    "error": math.hypot(error, 1.96 * noise / math.sqrt(PAPER_TASKS)) + 0.05,
                }
            elif (pulls, arms) in EXACT.get(label, {}):
                value, half = EXACT[label][pulls, arms]
                row[label] |= {"table": value, "error": math.hypot(error, half)}
        tuned = {c: float(play("bandit", options, "ucb1", {"c": c, **PRIOR}, TASKS)[0].mean()) for c in TUNED}
        row["ucb1, best of tuned"] = {"mean": max(tuned.values()), "by_c": tuned}
        table[f"{pulls} pulls, {arms} arms"] = row
    proof("bandits-table", {"seed": SEED, "tasks": TASKS, "paper_tasks_assumed": PAPER_TASKS, "table": table})
    for size, row in table.items():
        for label, found in row.items():
            if "table" in found:
                assert abs(found["mean"] - found["table"]) <= found["error"], (size, label, found)


def test_gaussian_arms(proof: Proof) -> None:
    """Regret of 500 pulls of 5 arms U[0, 1] with sd 0.3, beside YARDSTICKS, within three standard errors of both together.

    Its half widths are 95 %; for greedy, where it gives none, as many tasks are taken as make UCB's.
    """
    yardstick = {"thompson": (9.36, 0.12), "ucb": (10.58, 0.09), "greedy": (17.1, None)}
    rules: dict[str, tuple[str, dict[str, Any], int]] = {
        "thompson": ("thompson", {}, 4 * TASKS),
        "ucb": ("ucb1", {"confidence": "constant"}, TASKS),
        "greedy": ("epsilon-greedy", {"epsilon": 0.0, "prior": (0.0, 0.0)}, TASKS),
    }
    found = {
        label: figures(play("bandit-gaussian", {}, name, options, tasks)[1][0])
        for label, (name, options, tasks) in rules.items()
    }

    def half(label: str) -> float:
        low, high = found[label]["ci95"]
        return float(high - low) / 2

    proof("bandits-gaussian", {"seed": SEED, "regret": found, "yardstick": yardstick})
    for label, (value, theirs) in yardstick.items():
        error = theirs or yardstick["ucb"][1] * half(label) / half("ucb")  # type: ignore[operator]
        assert abs(found[label]["mean"] - value) < 3 / 1.96 * math.hypot(half(label), error), label


LATE, LAST = 10_000, 100_000
RIVALS: dict[str, tuple[str, dict[str, Any], int, bool]] = {  # environments, and whether the slope is asserted
    "thompson": ("thompson", {}, 2000, True),
    "kl-ucb plus c=1": ("kl-ucb", {"plus": True, "c": 1.0}, 600, True),
    "kl-ucb": ("kl-ucb", {}, 200, False),
}


def test_late_regret_grows_as_slowly_as_any_can(proof: Proof) -> None:
    """Slope of regret per ln T over the last decade, within 25 % of the constant of Lai & Robbins (1985): gap / d(worse, best).

    Plain KL-UCB is asymptotically as good, but not yet there: the bound of the best arm, pulled t times, is still
    w = sqrt(2 m (1 - m) ln t / t) wide, and gap + w stands where the gap will be. Its regret falls short of ln t times the
    constant, by less and less, so that its slope is steeper; plus has no such w.
    """
    points = np.unique(np.logspace(1, 5, 41).round().astype(int))
    late = points >= LATE
    x = np.log(points[late]) - np.log(points[late]).mean()
    curves: dict[str, Any] = {}
    for arms in ((0.5, 0.6), (0.9, 0.8)):
        low, high = sorted(arms)
        constant = (high - low) / (low * math.log(low / high) + (1 - low) * math.log((1 - low) / (1 - high)))
        for label, (name, options, environments, asserted) in RIVALS.items():
            _, regret = play("bandit", {"arms": 2, "pulls": LAST}, name, options, environments, arms, points)
            slopes = x @ regret[late] / (x @ x)  # of each environment's own curve, (environments,)
            curves[f"{label} {arms}"] = {
                "agent": name, "options": options, "environments": environments, "lai_robbins": constant,
                "slope": float(slopes.mean()), "ci95": mean_interval(slopes), "ratio": float(slopes.mean() / constant),
                "asserted": asserted,
                "t": points.tolist(), "regret": regret.mean(1).tolist(),
            }  # fmt: skip
    proof("bandits-regret", {"seed": SEED, "slope_from": LATE, "slope_to": LAST, "curves": curves})
    for label, curve in curves.items():
        assert not curve["asserted"] or abs(curve["ratio"] - 1) <= 0.25, (label, curve["ratio"])


def test_forgetting_wins_where_arms_switch(proof: Proof) -> None:
    """On the same tasks: which change of means comes when does not depend on the arms that are pulled.

    Means are redrawn every 50 pulls on average. UCB1 with and without forgetting has the best of the same constants. In the
    preset's 100 pulls there is little to forget; that row is written down.
    """
    players: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = [
        ("thompson", [{}], [{"discount": 0.98}, {"window": 50}]),
        ("ucb1", [{"c": c, **PRIOR} for c in (0.1, 0.2, 0.3, 0.5)], [{"discount": 0.95}, {"window": 30}]),
    ]
    found: dict[str, Any] = {}
    for pulls in (100, 1000):

        def best(name: str, choices: list[dict[str, Any]], pulls: int = pulls) -> tuple[Array, dict[str, Any]]:
            played = [(play("bandit-switch", {"pulls": pulls}, name, o, 2000)[0], o) for o in choices]
            return max(played, key=lambda one: float(one[0].mean()))

        for name, choices, ways in players:
            plain, options = best(name, choices)
            for way in ways:
                total, chosen = best(name, [o | way for o in choices])
                found[f"{name} {way}, {pulls} pulls"] = {
                    "stationary": figures(plain) | {"options": options}, "forgetting": figures(total) | {"options": chosen},
                    "gain": figures(total - plain),
                }  # fmt: skip
    proof("bandits-switch", {"seed": SEED, "compared": found})
    assert all(pair["gain"]["ci95"][0] > 0 for label, pair in found.items() if label.endswith("1000 pulls"))


def test_structure_pays(proof: Proof) -> None:
    """Regret with the model of the world against regret without: contexts over 5,000 pulls, arms on a line over 100."""
    cases = {
        "bandit-contextual": (
            {"pulls": 5000},
            100,
            [("lin-ucb", {}), ("lin-ucb", {"alpha": 0.0}), ("linear-thompson", {}), ("epsilon-greedy", {})],
            0.4,
        ),
        "bandit-line": ({}, 1000, [("gp-ucb", {}), ("ucb1", {}), ("ucb1", {"c": 0.1, **PRIOR})], 0.5),
    }
    found: dict[str, Any] = {}
    for world, (options, tasks, players, most) in cases.items():
        regret = {f"{name} {o}": figures(play(world, options, name, o, tasks)[1][0]) for name, o in players}
        other = next(label for label in regret if label in ("epsilon-greedy {}", "ucb1 {}"))
        share = next(iter(regret.values()))["mean"] / regret[other]["mean"]
        found[world] = {"options": options, "regret": regret, "share": share, "most": most}
    proof("bandits-structure", {"seed": SEED, "worlds": found})
    assert all(case["share"] <= case["most"] for case in found.values())


def test_features_that_were_learnt_pay(tmp_path: Path, proof: Proof) -> None:
    """neural-linear, trained on other tasks, against LinUCB and itself untrained, on the nonlinear contextual preset."""
    world = {"id": "bandit-contextual-nonlinear"}
    runs = []
    from gumdrop.experiments.run.episodes import run_episodes
    from gumdrop.experiments.run.evaluate import evaluate_run

    for seed in range(10):
        config = RunConfig(env=world, agent={"name": "neural-linear"}, num_envs=64, steps=100_000, seed=seed, threads=1)
        train(config, tmp_path / str(seed), live=False)
        runs.append({"seed": seed, "mean": evaluate_run(tmp_path / str(seed), 500)["agent"]["mean"]})
    means = np.array([run["mean"] for run in runs])
    others = {
        name: figures(run_episodes(name, world["id"], {}, 500, 1_000_000, "sample", lines=False).returns)
        for name in ("neural-linear", "lin-ucb", "linear-thompson")
    }
    half = 2.262 * means.std(ddof=1) / math.sqrt(10)  # Student's t, 9 degrees of freedom
    trained = {"mean": float(means.mean()), "ci95": [float(means.mean() - half), float(means.mean() + half)], "runs": runs}
    proof("bandits-neural", {"env_steps": 100_000, "trained": trained, "untrained": others})
    assert trained["ci95"][0] > max(other["ci95"][1] for other in others.values())


def test_speed_of_thompson_sampling(proof: Proof) -> None:
    """20,000 tasks of 100 pulls on one core, world included; the time is written down, not asserted."""
    play("bandit", {"pulls": 2}, "thompson", {}, TASKS)  # compiles
    began = time.perf_counter()
    play("bandit", {}, "thompson", {}, TASKS)
    seconds = time.perf_counter() - began
    proof(
        "bandits-speed",
        {"tasks": TASKS, "pulls": 100, "seconds": round(seconds, 2), "steps_per_second": round(TASKS * 100 / seconds)},
    )
