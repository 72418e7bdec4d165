"""What memory contributes on T-mazes: PPO with each belief, with it untrained, and without, over training seeds.

Oracle: a policy that does not remember the cue gets 1/2 at most, one that does gets 1. Training is shaped by the distance to
the goal, which shows no cue, and in long corridors a step has a cost; success is measured without either.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from gumdrop.agents.registry import make_agent
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.make import fit
from gumdrop.experiments.run.episodes import run_episodes
from gumdrop.experiments.statistics import over_seeds, welch

pytestmark = pytest.mark.slow
Proof = Callable[[str, dict[str, Any]], None]
SEEDS, EPISODES, HELD_OUT, VALIDATION = 5, 500, 1_000_000, 2_000_000
GAMMA = 0.99


class Lesson(NamedTuple):
    size: int  # of a T-maze: steps along its corridor
    time_limit: int
    steps: int
    shaping: float  # reward for a cell nearer to the goal; the goal pays 1
    # Shaped with the agent's own discount, no policy changes its rank, but whoever stands still at a distance of d is paid
    # (1 - discount) shaping d: much in a long corridor, for a value that cannot tell how far it is.
    discount: float = 1.0
    # What a step costs. Who waits before the arm that pays loses 1 % of it by the discount, and entropy pays about as much: who
    # learned that remembers, turns at last by chance, and waits for ever when it acts greedily.
    cost: float = 0.0


class Task(NamedTuple):
    # One after the other; the last is the world that counts. Where there are several, an agent is kept as it was after the one
    # update of the last lesson with the best return there, on episodes for that alone.
    lessons: tuple[Lesson, ...]
    environments: int
    num_steps: int  # longer than an episode of who knows the way
    ppo: dict[str, Any]


# Settings were chosen on seeds from 100 on.
COMMON: dict[str, Any] = {
    "encoder": "symbols", "hidden": [32], "gamma": GAMMA, "learning_rate": 3e-3, "ent_coef": 0.02, "num_minibatches": 8,
}  # fmt: skip
# Cells of the corridor look alike, so one value stands for all of them. Advantages that mix it in (lambda < 1) reward a walk
# back from the junction, and so does the value of an episode that is cut; whole returns and a small shaping do not.
RETURNS = {**COMMON, "gae_lambda": 1.0}
SHORT = Task((Lesson(20, 60, 400_000, 0.1, GAMMA),), 128, 64, COMMON)
PLAIN = Task((Lesson(20, 60, 400_000, 0.03, GAMMA),), 128, 64, RETURNS)
# In a long corridor whole returns give a hundred steps the blame of the last one. Advantages over some ten steps do not, and
# are right where a shaping is so small that the junction is worth more than the corridor, on average over its cells.
LONG = Task((Lesson(100, 200, 2_000_000, 0.02),), 128, 128, {**COMMON, "ent_coef": 0.01})
# A long corridor shows its junction a few dozen times in an update. What to look back for is learned in shorter ones; some
# seeds lost it again at a learning rate of 3e-3, from minibatches of four episodes, or where the loss of the value, which
# shares the belief, weighed .5.
STEADY = {
    **COMMON, "gae_lambda": 0.9, "ent_coef": 0.01, "ent_coef_final": 0.0, "vf_coef": 0.2, "target_kl": 0.02,
    "learning_rate": 1.5e-3, "num_minibatches": 4,
}  # fmt: skip
LESSONS = (
    Lesson(20, 52, 300_000, 0.03, cost=0.02), Lesson(40, 84, 100_000, 0.02, cost=0.02),
    Lesson(64, 120, 100_000, 0.01, cost=0.01), Lesson(100, 200, 150_000, 0.004, cost=0.01),
    Lesson(160, 276, 100_000, 0.004, cost=0.005), Lesson(250, 420, 100_000, 0.002, cost=0.005),
)  # fmt: skip
FAR, FARTHER = Task(LESSONS[:4], 64, 128, STEADY), Task(LESSONS, 32, 288, STEADY)
# With distances it may learn how far to look back, not for what, and forget the cue where the corridor grows.
CONTENTS = {"name": "transformer", "width": 16, "layers": 1, "heads": 1, "distances": False}
BELIEFS: dict[str, tuple[Task, dict[str, Any]]] = {
    "gru, corridor 20": (SHORT, {"belief": {"name": "gru", "hidden": 32, "span": 40}, "hidden": []}),
    "lstm, corridor 20": (SHORT, {"belief": {"name": "lstm", "hidden": 32, "span": 40}}),
    # Sees 64 steps, a whole episode. Random convolutions with more channels keep the cue: 32 with taps 3 did in three of five.
    "tcn, corridor 20": (PLAIN, {"belief": {"name": "tcn", "width": 16, "taps": 4, "layers": 3}}),
    "transformer, corridor 20": (
        PLAIN, {"belief": {"name": "transformer", "width": 32, "layers": 1, "heads": 2, "window": 32}},
    ),
    "gru, corridor 100": (LONG, {"belief": {"name": "gru", "hidden": 32, "span": 200}, "hidden": []}),
    "transformer, corridor 100": (FAR, {"belief": {**CONTENTS, "window": 160}}),
    "transformer, corridor 250": (FARTHER, {"belief": {**CONTENTS, "window": 288}}),
}  # fmt: skip
# A corridor with three chutes of ice that look alike: up the middle one is the goal, unseen, up the others a hole. Only the
# ends look like no other cell: which chute one stands under is known to who has come from an end, and has counted.
CHUTES = {
    "layout": "##H##G##H##/##I##I##I##/...........", "view": 3, "time_limit": 40, "fresh": False, "start": "random",
    "show_goal": False,
}  # fmt: skip
MODEL = {"states": 40, "prior": 0.001, "concentration": 0.3}
FILTER: dict[str, Any] = {
    "encoder": {"name": "symbols", "size": 8}, "belief": {"name": "hmm", "sweeps": 5, "freeze_after": 0.6, **MODEL},
    "num_steps": 64, "hidden": [64], "learning_rate": 5e-3, "gae_lambda": 1.0, "ent_coef": 0.02, "ent_coef_final": 0.0,
}  # fmt: skip


def success(task: Task, options: dict[str, Any], seed: int) -> dict[str, Any]:
    ppo, lessons = {**task.ppo, "num_steps": task.num_steps, **options}, []
    for lesson in task.lessons:
        world = {"size": lesson.size, "time_limit": lesson.time_limit}
        shaped = {
            **world, "shaping": "distance", "shaping_gamma": lesson.discount, "shaping_scale": lesson.shaping,
            "step_reward": -lesson.cost,
        }  # fmt: skip
        lessons.append((shaped, lesson.steps))
    agent, seconds = trained("t-maze", lessons, ppo, task.environments, seed)
    found = run_episodes(agent, "t-maze", world, EPISODES, HELD_OUT, lines=False).returns.mean()
    return {"seed": seed, "success": float(found), "seconds": round(seconds, 1)}


def trained(
    id: str, lessons: list[tuple[dict[str, Any], int]], ppo: dict[str, Any], environments: int, seed: int
) -> tuple[Any, float]:
    """An agent that has been in one world after the other for so many steps, and the seconds of its training."""
    agent, began, done, budget = None, time.perf_counter(), 0, sum(steps for _, steps in lessons)
    best, kept = -math.inf, None

    def look(metrics: dict[str, float]) -> None:
        nonlocal best, kept
        found = run_episodes(agent, id, world, 100, VALIDATION, lines=False).returns.mean()
        if found >= best:
            best, kept = found, copy.deepcopy(agent.state_dict())

    for k, (world, steps) in enumerate(lessons):
        env = make(id, world, num_envs=environments, seed=seed)
        agent = agent or make_agent("ppo", ppo, env, seed)
        progress, last = (done / budget, (done + steps) / budget), 0 < k == len(lessons) - 1
        fit(agent, env, steps // (environments * agent.num_steps), say=look if last else None, progress=progress)
        done += steps
    if kept:
        agent.load_state_dict(kept)
    return agent, time.perf_counter() - began


def arms(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    belief = options["belief"]
    without = {**options, "belief": None, "hidden": [32]}
    return {"trained": options, "untrained": {**options, "belief": {**belief, "untrained": True}}, "none": without}


@pytest.mark.parametrize("name", BELIEFS)
def test_memory_is_worth_the_cue(name: str, proof: Proof) -> None:
    task, options = BELIEFS[name]
    runs = {arm: [success(task, chosen, seed) for seed in range(SEEDS)] for arm, chosen in arms(options).items()}
    values = {arm: [run["success"] for run in found] for arm, found in runs.items()}
    found = {arm: over_seeds(seen) for arm, seen in values.items()}
    more = welch(values["trained"], values["untrained"])
    proof(f"memory-{name.replace(', ', '-').replace(' ', '-')}", {
        "headline": [[f"success, {arm}", f"{mean['mean']:.3f}"] for arm, mean in found.items()],
        "task": task._asdict(), "options": options, "seeds": list(range(SEEDS)), "arms": found,
        "trained_minus_untrained": more, "runs": runs,
    })  # fmt: skip
    assert found["trained"]["mean"] >= 0.95
    assert max(values["none"]) <= 0.6
    assert more["ci95"][0] > 0


def test_an_hmm_knows_where_it_is(proof: Proof) -> None:
    """A model that Baum-Welch learns from the agent's own rollouts, whose filter the policy reads; and its Viterbi path."""
    walk = walked(300, 60, seed=1000)
    runs: dict[str, list[dict[str, Any]]] = {}
    for arm, chosen in arms(FILTER).items():
        runs[arm] = []
        for seed in range(SEEDS):
            agent, seconds = trained("maze", [(CHUTES, 300_000)], {**FILTER, **chosen}, 64, seed)
            found = run_episodes(agent, "maze", CHUTES, EPISODES, HELD_OUT, lines=False).returns.mean()
            run = {"seed": seed, "success": float(found), "seconds": round(seconds, 1)}
            if chosen["belief"]:
                code = agent.actor.encoding.codes(walk.obs).argmax(1).reshape(walk.cell.shape)
                run["places"] = named(agent.actor.belief, code, walk)
            runs[arm].append(run)
    values = {arm: [run["success"] for run in seen] for arm, seen in runs.items()}
    found, more = {arm: over_seeds(seen) for arm, seen in values.items()}, welch(values["trained"], values["untrained"])
    places = {arm: over_seeds([run["places"] for run in runs[arm]]) for arm in ("trained", "untrained")}
    proof("memory-hmm", {
        "headline": [
            *([f"success, {arm}", f"{mean['mean']:.3f}"] for arm, mean in found.items()),
            *([f"places that Viterbi names, {arm}", f"{mean['mean']:.3f}"] for arm, mean in places.items()),
        ],
        "world": CHUTES, "ppo": FILTER, "seeds": list(range(SEEDS)), "arms": found, "places": places,
        "trained_minus_untrained": more, "runs": runs,
    })  # fmt: skip
    assert min(values["trained"]) >= 0.9
    assert max(values["none"]) <= 0.5
    assert more["ci95"][0] > 0


def test_viterbi_names_the_place(proof: Proof) -> None:
    """Of walks under the chutes: by the rules, by the likeliest of three models that Baum-Welch made of other walks, by a
    random model."""
    import numpy as np

    from gumdrop.core_ml.beliefs.hmm import HMM

    runs = []
    for seed in range(SEEDS):
        met, walk = walked(100, 60, seed), walked(300, 60, seed=1000 + seed)
        looks, number = np.unique(np.concatenate([met.obs, walk.obs]).reshape(-1, 9), axis=0, return_inverse=True)
        code, other = np.split(number.reshape(-1, met.cell.shape[1]), [len(met.cell)])
        models = [HMM(HMM.Config(**MODEL), len(looks), 4, 3 * seed + k) for k in range(3)]
        untrained = named(models[0], other, walk)
        final = [model.fit(code, met.action, met.own, tolerance=0)[-1] for model in models]
        learned = named(models[int(np.argmax(final))], other, walk)
        runs.append(
            {"seed": seed, "rules": named(by_the_rules(looks), other, walk), "learned": learned, "untrained": untrained}
        )
    values = {arm: [run[arm] for run in runs] for arm in ("rules", "learned", "untrained")}
    found = {arm: over_seeds(seen) for arm, seen in values.items()}
    more = welch(values["learned"], values["untrained"])
    proof("memory-hmm-places", {
        "headline": [[f"places that Viterbi names, {arm}", f"{mean['mean']:.3f}"] for arm, mean in found.items()],
        "world": CHUTES, "model": MODEL, "seeds": list(range(SEEDS)), "arms": found, "learned_minus_untrained": more,
        "runs": runs,
    })  # fmt: skip
    assert min(values["rules"]) >= 0.95
    assert min(values["learned"]) >= 0.95
    assert more["ci95"][0] > 0


class Walks(NamedTuple):
    """B walks of T steps."""

    obs: Any  # uint8 (B, T, 9)
    action: Any  # int64 (B, T): what led to it
    cell: Any  # int32 (B, T): where that was
    own: Any  # bool (B, T): the walk had not ended before


def walked(environments: int, steps: int, seed: int) -> Walks:
    """Left or right for some ten steps at a time; one step in twenty goes up or down."""
    import numpy as np

    env: Any = make("maze", {**CHUTES, "time_limit": 0}, num_envs=environments, seed=seed)
    rng, obs, own = np.random.default_rng(seed), env.reset(seed), np.ones(environments, np.bool_)
    action, right, seen = np.zeros(environments, np.int64), rng.integers(2, size=environments), []
    for _ in range(steps):
        seen.append((obs.reshape(environments, 9).copy(), action, env.state.cell.copy(), own))
        right = np.where(rng.random(environments) < 0.1, 1 - right, right)
        action = np.where(rng.random(environments) < 0.05, 1 + 2 * rng.integers(2, size=environments), 2 * right)
        step = env.step(action[:, None])
        obs, own = step.obs, own & ~step.terminated
    return Walks(*(np.stack(part, 1) for part in zip(*seen, strict=True)))


def named(hmm: Any, code: Any, walk: Walks) -> float:
    """Share of steps at which the likeliest path's state is the one that stands for the true cell.

    States have no names: each stands for the cell that it most often goes with in the first half of the walks; the rest count.
    """
    import numpy as np

    path, half = hmm.viterbi(code, walk.action, walk.own)[0], len(code) // 2
    names, others = walk.own[:half], walk.own[half:]
    votes = np.zeros((hmm.size, int(walk.cell.max()) + 1))
    np.add.at(votes, (path[:half][names], walk.cell[:half][names]), 1)
    return float((votes.argmax(1)[path[half:][others]] == walk.cell[half:][others]).mean())


def by_the_rules(looks: Any) -> Any:
    """The exact model; `looks`, uint8 (O, 9): what its observations stand for."""
    import numpy as np

    from gumdrop.core_ml.beliefs.hmm import HMM

    env: Any = make("maze", CHUTES, num_envs=1000, seed=0)
    obs = env.reset(0).reshape(-1, 9)
    model = env.world.model(env.state, 0)
    states, actions, _ = model.next_state.shape
    transition = np.zeros((actions, states, states))
    for (s, a, k), after in np.ndenumerate(model.next_state):
        transition[a, s, after] += model.probability[s, a, k]
    at = np.searchsorted(model.fields["cell"], env.state.cell)
    start = np.bincount(at, minlength=states) > 0
    emission = np.where(start[:, None], 0, 1 / len(looks)) * np.ones(len(looks))  # where nobody starts an episode has ended
    emission[at, (obs[:, None] == looks).all(2).argmax(1)] = 1
    return HMM.of(start / start.sum(), transition, emission)


def test_baum_welch_recovers_three_rooms(proof: Proof) -> None:
    """Rooms in a row, doors between neighbours; two actions walk left and right and slip with .1; walls have the room's colour,
    which is seen wrongly with .2. The likeliest of six random models is the world, but for the numbers of its rooms."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    from gumdrop.core_ml.beliefs.hmm import HMM

    left = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 0.9, 0.1]])
    truth, wrong = np.stack([left, left[::-1, ::-1]]), 0.2

    def off(model: HMM, code: Any, action: Any, room: Any) -> float:
        """Largest error of a transition's probability, its states matched to the rooms that they most often stand for."""
        together = np.zeros((3, 3))
        np.add.at(together, (room, model.viterbi(code, action)[0]), 1)
        order = linear_sum_assignment(together, maximize=True)[1]
        return float(np.abs(np.exp(model.tables.transition)[:, order][:, :, order] - truth).max())

    runs = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        action, room = rng.integers(2, size=(200, 100)), np.empty((200, 100), np.int64)
        room[:, 0] = rng.integers(3, size=200)
        for t in range(1, 100):
            row = truth[action[:, t], room[:, t - 1]].cumsum(1)
            row[:, -1] = 1.0
            room[:, t] = (rng.random((200, 1)) >= row).sum(1)
        code = np.where(rng.random(room.shape) < wrong, (room + rng.integers(1, 3, size=room.shape)) % 3, room)
        models = [HMM(HMM.Config(states=3), 3, 2, 6 * seed + k) for k in range(6)]
        before = off(models[0], code, action, room)
        climbs = [model.fit(code, action, tolerance=1e-6) for model in models]
        best = int(np.argmax([climb[-1] for climb in climbs]))
        least = min(float(np.diff(climb).min()) for climb in climbs)
        runs.append({"seed": seed, "error": off(models[best], code, action, room), "untrained": before, "least_gain": least})
    found = {arm: over_seeds([run[arm] for run in runs]) for arm in ("error", "untrained")}
    proof("memory-hmm-rooms", {
        "headline": [
            ["largest error of a transition, learned", f"{found['error']['mean']:.3f}"],
            ["untrained", f"{found['untrained']['mean']:.3f}"],
        ],
        "steps": 20_000, "seeds": list(range(SEEDS)), "arms": found, "runs": runs,
    })  # fmt: skip
    assert max(run["error"] for run in runs) <= 0.05
    assert min(run["least_gain"] for run in runs) >= -1e-6  # nats, of 20,000 steps: no sweep loses
