"""Learning curves of the agents' and the worlds' pages, between random and optimal: `make docs-curves`, some five minutes.

Writes docs/images/curves/NAME.svg and docs/results/curves.json, which has the command, seeds and figures of each curve.
`python docs/build/curves.py NAME...` draws only these.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

DOCS = Path(__file__).parents[1]
RESULTS = DOCS / "results" / "curves.json"
PICTURES = DOCS / "images" / "curves"
SEEDS = [1, 2, 3]
POINTS = 60  # of a curve
ROOMS = "--env four-rooms env.observe=coordinates env.time_limit=40 num_envs=16 --steps 60_000"
CLOCK = "candy: one collector against the clock"
SHORT = "--env four-rooms env.time_limit=40"
TRAINED = {  # name of the page: the words behind `gumdrop train`, and what is shown
    "ppo": ("candy-ppo --steps 700_000", CLOCK),
    "candy": ("candy-ppo --steps 700_000", "PPO on candy"),
    "random": ("--env candy --agent random --steps 100_000", CLOCK),
    "policy-gradient": (
        f"{SHORT} --agent policy-gradient num_envs=32 agent.num_steps=8 agent.gamma=0.97 --steps 150_000",
        "four rooms in 40 steps",
    ),
    "dqn": (f"{SHORT} --agent dqn num_envs=8 agent.gamma=0.97 --steps 80_000", "four rooms in 40 steps"),
    "maze": ("maze-ppo --steps 400_000", "PPO on a maze with slipping"),
    "navigation": (
        "--env point-navigation-visible --agent ppo num_envs=64 agent.gamma=0.9 --steps 1_000_000",
        "PPO on navigation with a visible goal",
    ),
    "matrix": ("--env ipd-tit-for-tat --agent ppo num_envs=64 --steps 100_000", "PPO against tit-for-tat"),
    "corridor": ("--env distractors --agent ppo num_envs=64 --steps 300_000", "PPO on a corridor with distractors"),
    "bandit": ("bandit-ppo --steps 5_000_000", "PPO on bandits of five arms"),
    **{
        name: (f"{ROOMS} --agent {name}", "four rooms in 40 steps")
        for name in ("q-learning", "sarsa", "expected-sarsa", "double-q", "monte-carlo", "dyna-q", "prioritised-sweeping")
    },
}
BANDITS = {  # agents that learn within an episode: their options
    "thompson": "",
    "ucb1": "agent.c=0.125 agent.prior=[1,1]",
    "kl-ucb": "",
    "epsilon-greedy": "",
    "epsilon-first": "",
    "exp3": "",
    "gittins": "",
}
TASKS = 4_000  # bandit tasks per seed


def trained(name: str) -> dict[str, Any]:
    """Train with each seed; return while training at POINTS numbers of steps, by seed."""
    from gumdrop.scripts.cli import main

    words, title = TRAINED[name]
    curves, lines, steps = [], None, np.zeros(0)
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for seed in SEEDS:
                run = f"curve-{seed}"
                given = ["train", *words.split(), "--seed", str(seed), "--name", run, "--no-report", "--no-live"]
                if main(given) != 0:
                    raise SystemExit(f"gumdrop {' '.join(given)} failed")
                found = [json.loads(line) for line in Path("runs", run, "metrics.jsonl").read_text().splitlines()]
                found = [row for row in found if isinstance(row.get("return_mean"), (int, float))]
                x, y = [row["env_steps"] for row in found], [row["return_mean"] for row in found]
                if not len(steps):
                    steps = np.linspace(x[0], x[-1], POINTS)
                curves.append(np.interp(steps, x, y))
                lines = json.loads(Path("runs", run, "summary.json").read_text()).get("yardstick") or lines
        finally:
            os.chdir(here)
    if lines is None:
        raise SystemExit(f"{name}: the world has no yardstick")
    command = f"gumdrop train {words} --seed SEED"
    return figure(name, title, "environment steps", "return while training", steps, curves, lines, command)


def bandit(name: str) -> dict[str, Any]:
    """Play Bernoulli bandits; mean reward of each pull over many tasks, by seed."""
    from gumdrop.agents.registry import make_agent
    from gumdrop.configs.loader import resolve
    from gumdrop.envs.make import make

    options = resolve(None, None, BANDITS[name].split(), {"env": "bandit", "agent": name}).agent_options
    curves, pulls = [], 100
    for seed in SEEDS:
        env = make("bandit", {}, num_envs=TASKS, seed=seed)
        agent = make_agent(name, options, env, seed=seed)
        obs, carry = env.reset(seed), agent.initial(TASKS)
        rewards = []
        for _ in range(pulls):
            action, carry, _ = agent.act(obs, carry, "sample")
            step = env.step(action)
            obs = step.obs
            rewards.append(step.reward.mean())
        curves.append(np.array(rewards, float))
    lines = {"random": 0.5, "optimal": 5 / 6, "meaning": "bound: the best arm is known"}
    command = f"gumdrop eval {name} --env bandit {BANDITS[name]}".strip()
    title, x = "five Bernoulli arms, means from U[0, 1]", np.arange(1, pulls + 1)
    return figure(name, title, "pull", "mean reward", x, curves, lines, command)


def figure(
    name: str, title: str, unit: str, what: str, x: Any, curves: list[Any], lines: dict[str, Any], command: str
) -> dict[str, Any]:
    mean = np.mean(curves, 0)
    plt.rcParams.update({"svg.hashsalt": name, "font.size": 10, "svg.fonttype": "path"})
    drawing, axes = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
    for curve in curves:
        axes.plot(x, curve, color="#9575cd", linewidth=0.8, alpha=0.6)
    axes.plot(x, mean, color="#5e35b1", linewidth=2)
    low, high = lines["random"], lines["optimal"]
    word = "bound" if str(lines["meaning"]).startswith("bound") else "optimal"
    for value, label, colour in ((high, word, "#2e7d32"), (low, "random", "#c62828")):
        axes.axhline(value, color=colour, linestyle="--", linewidth=1.2)
        axes.annotate(
            f"{label} {value:.3g}",
            (1, value),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color=colour,
            fontsize=9,
        )
    span = max(high, float(mean.max())) - min(low, float(np.min(curves)))
    axes.set_ylim(min(low, float(np.min(curves))) - 0.06 * span, max(high, float(mean.max())) + 0.12 * span)
    axes.set(title=f"{name}: {title}" if name not in title else title, xlabel=unit, ylabel=what)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    PICTURES.mkdir(parents=True, exist_ok=True)
    drawing.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})
    plt.close(drawing)
    return {
        "command": command,
        "caption": f"{what.capitalize()} of {len(curves)} seeds (thin) and their mean. "
        f"Dashed lines: below, random actions; above, {lines['meaning']}.",
        "seeds": SEEDS,
        "random": low,
        "optimal": high,
        "meaning": lines["meaning"],
        "unit": unit,
        "x": [round(float(value), 1) for value in x],
        "mean": [round(float(value), 5) for value in mean],
        "final_by_seed": [round(float(curve[-5:].mean()), 5) for curve in curves],
    }


def main(names: list[str]) -> int:
    from gumdrop.experiments.report.results_page import write_page
    from gumdrop.experiments.run.machine import git_commit, where

    unknown = set(names) - {*TRAINED, *BANDITS}
    if unknown:
        print(f"no curve {', '.join(sorted(unknown))}: known are {', '.join([*TRAINED, *BANDITS])}", file=sys.stderr)
        return 2
    document = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"curves": {}}
    for name in names or [*TRAINED, *BANDITS]:
        document["curves"][name] = trained(name) if name in TRAINED else bandit(name)
        print(f"{PICTURES / name}.svg", file=sys.stderr)
    document["curves"] = dict(sorted(document["curves"].items()))
    document["headline"] = [["learning curves for the documentation, by `make docs-curves`", str(len(document["curves"]))]]
    document |= {"git_commit": git_commit(), "seeds": SEEDS, "device": where("cpu")}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    write_page(RESULTS.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
