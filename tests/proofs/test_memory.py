"""What memory contributes on T-mazes: PPO with each belief, with it untrained, and without, over training seeds.

Oracle: a policy that does not remember the cue gets 1/2 at most, one that does gets 1. Training is shaped by the
distance to the goal, which changes no policy's rank and shows no cue; success is measured without.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from gumdrop.agents.core import make_agent
from gumdrop.agents.runtime.collect import Collector
from gumdrop.agents.runtime.evaluate import run_episodes
from gumdrop.envs.registry import make

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]
SEEDS, EPISODES, HELD_OUT = 5, 500, 1_000_000
GAMMA = 0.99


class Task(NamedTuple):
    size: int  # of the T-maze: steps along its corridor
    time_limit: int
    copies: int
    num_steps: int  # longer than an episode of who knows the way
    steps: int
    shaping: float  # reward for a cell nearer to the goal; the goal pays 1
    ppo: dict[str, Any]


# Settings were chosen on seeds from 100 on.
COMMON: dict[str, Any] = {
    "encoder": "symbols", "hidden": [32], "gamma": GAMMA, "learning_rate": 3e-3, "ent_coef": 0.02, "minibatches": 8,
}  # fmt: skip
# Cells of the corridor look alike, so one value stands for all of them. Advantages that mix it in (lambda < 1) reward a walk back
# from the junction, and so does the value of an episode that is cut; whole returns and a small shaping do not.
RETURNS = {**COMMON, "gae_lambda": 1.0}
SHORT = Task(20, 60, 128, 64, 400_000, 0.1, COMMON)
PLAIN = SHORT._replace(shaping=0.03, ppo=RETURNS)
LONG = Task(100, 200, 128, 128, 3_000_000, 0.02, {**COMMON, "ent_coef": 0.01})
BELIEFS: dict[str, tuple[Task, dict[str, Any]]] = {
    "gru, corridor 20": (SHORT, {"belief": {"name": "gru", "hidden": 32, "span": 40}, "hidden": []}),
    "lstm, corridor 20": (SHORT, {"belief": {"name": "lstm", "hidden": 32, "span": 40}}),
    "tcn, corridor 20": (SHORT, {"belief": {"name": "tcn", "width": 32, "taps": 3, "layers": 3}}),
    "transformer, corridor 20": (
        PLAIN, {"belief": {"name": "transformer", "width": 32, "layers": 1, "heads": 2, "window": 32}},
    ),
    "gru, corridor 100": (LONG, {"belief": {"name": "gru", "hidden": 32, "span": 200}, "hidden": []}),
}  # fmt: skip
# Cells look alike but for the ends, and the goal in the middle is unseen: always left finds it from half of the starts.
ALIASED = {"layout": "....G....", "view": 3, "time_limit": 8, "fresh": False, "start": "random", "show_goal": False}
FILTER: dict[str, Any] = {
    "encoder": {"name": "symbols", "size": 12}, "belief": {"name": "hmm", "states": 12, "prior": 0.01, "until": 0.3},
    "num_steps": 64, "hidden": [64], "learning_rate": 5e-3, "ent_coef": 0.02, "ent_coef_final": 0.0,
}  # fmt: skip


def success(task: Task, options: dict[str, Any], seed: int) -> dict[str, Any]:
    world = {"size": task.size, "time_limit": task.time_limit}
    ppo = {**task.ppo, "num_steps": task.num_steps, **options}
    shaped = {**world, "shaping": "distance", "shaping_gamma": GAMMA, "shaping_scale": task.shaping}
    agent, seconds = trained("t-maze", shaped, ppo, task.copies, task.steps, seed)
    found = run_episodes(agent, "t-maze", world, EPISODES, HELD_OUT, lines=False).returns.mean()
    return {"seed": seed, "success": float(found), "seconds": round(seconds, 1)}


def trained(id: str, world: dict[str, Any], ppo: dict[str, Any], copies: int, steps: int, seed: int) -> tuple[Any, float]:
    """An agent, and the seconds of its training."""
    env = make(id, world, num_envs=copies, seed=seed)
    agent = make_agent("ppo", ppo, env, seed)
    collector = Collector(env, agent)
    collector.begin(env.reset(seed))
    updates, began = steps // (copies * ppo["num_steps"]), time.perf_counter()
    for update in range(updates):
        agent.learn(collector.rollout(ppo["num_steps"]), update / updates)
    return agent, time.perf_counter() - began


def arms(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    belief = options["belief"]
    without = {**options, "belief": None, "hidden": [32]}
    return {"trained": options, "untrained": {**options, "belief": {**belief, "untrained": True}}, "none": without}


def over_seeds(values: list[float]) -> dict[str, Any]:
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.mean(values), "ci95": [statistics.mean(values) - half, statistics.mean(values) + half]}


@pytest.mark.parametrize("name", BELIEFS)
def test_memory_is_worth_the_cue(name: str, proof: Proof) -> None:
    from scipy import stats

    task, options = BELIEFS[name]
    runs = {arm: [success(task, chosen, seed) for seed in range(SEEDS)] for arm, chosen in arms(options).items()}
    values = {arm: [run["success"] for run in found] for arm, found in runs.items()}
    low, high = stats.ttest_ind(values["trained"], values["untrained"], equal_var=False).confidence_interval(0.95)
    found = {arm: over_seeds(seen) for arm, seen in values.items()}
    proof(f"memory-{name.replace(', ', '-').replace(' ', '-')}", {
        "headline": [[f"success, {arm}", f"{mean['mean']:.3f}"] for arm, mean in found.items()],
        "task": task._asdict(), "options": options, "seeds": list(range(SEEDS)), "arms": found,
        "trained_minus_untrained": {
            "difference": found["trained"]["mean"] - found["untrained"]["mean"], "ci95": [float(low), float(high)],
        },
        "runs": runs,
    })  # fmt: skip
    assert found["trained"]["mean"] >= 0.95
    assert max(values["none"]) <= 0.6
    assert low > 0


def test_an_hmm_knows_where_it_is(proof: Proof) -> None:
    """A model that Baum-Welch learned from the agent's own rollouts, whose filter the policy reads; and its Viterbi path."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for arm, chosen in arms(FILTER).items():
        runs[arm] = []
        for seed in range(SEEDS):
            agent, seconds = trained("maze", ALIASED, {**FILTER, **chosen}, 64, 200_000, seed)
            found = run_episodes(agent, "maze", ALIASED, EPISODES, HELD_OUT, lines=False).returns.mean()
            run = {"seed": seed, "success": float(found), "seconds": round(seconds, 1)}
            runs[arm].append(run | ({"viterbi": known_places(agent, seed)} if chosen["belief"] else {}))
    found = {arm: over_seeds([run["success"] for run in seen]) for arm, seen in runs.items()}
    viterbi = over_seeds([run["viterbi"] for run in runs["trained"]])
    proof("memory-hmm", {
        "headline": [
            *([f"success, {arm}", f"{mean['mean']:.3f}"] for arm, mean in found.items()),
            ["places that Viterbi recovers", f"{viterbi['mean']:.3f}"],
        ],
        "world": ALIASED, "ppo": FILTER, "seeds": list(range(SEEDS)), "arms": found, "viterbi": viterbi, "runs": runs,
    })  # fmt: skip
    assert min(run["success"] for run in runs["trained"]) >= 0.9
    assert found["none"]["mean"] <= 0.52  # half, up to the sample of starts


def known_places(agent: Any, seed: int) -> float:
    """Share of steps of random walks at which the likeliest path's state is the one that stands for the true cell.

    States have no names: each stands for the cell that it most often goes with in other walks.
    """
    import numpy as np

    hmm, walks = agent.actor.belief, []
    for walk in (0, 1):
        env: Any = make("maze", {**ALIASED, "time_limit": 0}, num_envs=200, seed=seed + 100 + walk)
        rng, obs, running = np.random.default_rng(seed + walk), env.reset(seed + 100 + walk), np.ones(200, np.bool_)
        action, steps = np.zeros(200, np.int64), []
        for _ in range(20):
            steps.append((agent.actor.encoding.codes(obs).argmax(1), action, env.state.cell.copy(), running.copy()))
            action = rng.integers(4, size=200)
            step = env.step(action[:, None])
            obs, running = step.obs, running & ~step.terminated
        walks.append([np.stack(part, 1) for part in zip(*steps, strict=True)])
    (path, cell, own), (other, truth, seen) = (
        (hmm.viterbi(code, act, mask)[0], where, mask) for code, act, where, mask in walks
    )
    votes = np.zeros((hmm.config.states, int(max(cell.max(), truth.max())) + 1))
    np.add.at(votes, (path[own], cell[own]), 1)
    return float((votes.argmax(1)[other[seen]] == truth[seen]).mean())
