"""Tabular agents against the textbook's loops over dictionaries, written independently; tables, exploration, planners, show."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from gumdrop.agents.protocol import Rollout, Spaces
from gumdrop.agents.registry import make_agent
from gumdrop.agents.tabular.behaviour import choose
from gumdrop.agents.tabular.table import UNKNOWN, Table
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector

ACTIONS = 4
WORLD = {"layout": "SF./.HF/F.G", "slip": 0.3, "step_reward": -0.1, "time_limit": 6}  # episodes end in both ways
COMMON: dict[str, Any] = {"epsilon": 0.3, "gamma": 0.9, "learning_rate": 0.4, "visit_decay": 0.3}


class Seen(NamedTuple):
    """One transition of one stream."""

    s: bytes
    a: int
    r: float
    after: bytes | None  # None: terminated
    ended: bool
    draws: list[np.ndarray]  # what was drawn in `learn`


class Tape:
    """Hands on the numbers of a generator and keeps them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.drawn = rng, list[np.ndarray]()

    def random(self, size: Any) -> np.ndarray:
        self.drawn.append(self.rng.random(size))
        return self.drawn[-1]

    def choice(self, *args: Any, **options: Any) -> Any:
        return self.rng.choice(*args, **options)


def copied(batch: Rollout) -> Rollout:
    return Rollout(*(np.array(part) for part in batch[:7]), {})  # type: ignore[arg-type]


def played(name: str, options: dict[str, Any], steps: int, seed: int = 0) -> tuple[Any, list[Seen]]:
    """One copy, one step at a time, and what it went through."""
    env = make("maze", WORLD, num_envs=1, seed=seed, threads=1)
    agent: Any = make_agent(name, {**options, "num_steps": 1}, env, seed)
    holder = agent.behaviour if hasattr(agent, "behaviour") else agent
    tape = holder.rng = Tape(holder.rng)  # type: ignore[assignment]
    collector = Collector(env, agent)
    collector.begin(env.obs)
    seen = []
    for _ in range(steps):
        batch = collector.rollout(1)
        tape.drawn.clear()
        agent.learn(batch, 0.0)
        end = batch.final_obs[0, 0] if batch.truncated[0, 0] else batch.last_obs[0, 0]
        after = None if batch.terminated[0, 0] else end.tobytes()
        ended = bool(batch.terminated[0, 0] or batch.truncated[0, 0])
        action, reward = int(batch.action[0, 0, 0]), float(batch.reward[0, 0, 0])
        seen.append(Seen(batch.obs[0, 0, 0].tobytes(), action, reward, after, ended, [d.copy() for d in tape.drawn]))
    assert any(x.ended and x.after for x in seen) and any(x.after is None for x in seen)
    return agent, seen


def assert_same(agent: Any, column: str, wanted: dict[bytes, Any], least: int = 5) -> None:
    """The table's column is `wanted`, by observation."""
    assert len(wanted) >= least
    for s, values in wanted.items():
        row = agent.table.find(np.frombuffer(s, np.uint8).reshape(1, 1, -1))[0]
        np.testing.assert_allclose(agent.table[column][row], values, rtol=0, atol=1e-12)


def zeros() -> Any:
    return defaultdict(lambda: np.zeros(ACTIONS))


class Alpha:
    """alpha / n^omega."""

    def __init__(self) -> None:
        self.n: Any = defaultdict(int)

    def __call__(self, *pair: Any) -> float:
        self.n[pair] += 1
        return COMMON["learning_rate"] / self.n[pair] ** COMMON["visit_decay"]

    def again(self, *pair: Any) -> float:
        return COMMON["learning_rate"] / self.n[pair] ** COMMON["visit_decay"]


def on_policy(values: Any, temperature: float = 0.0) -> float:
    if temperature:
        p = np.exp(values / temperature)
        return float(p @ values / p.sum())
    return float((1 - COMMON["epsilon"]) * values.max() + COMMON["epsilon"] * values.mean())


def test_q_learning_is_the_textbooks() -> None:
    agent, seen = played("q-learning", COMMON, 400)
    q, alpha = zeros(), Alpha()
    for x in seen:
        target = x.r + 0.9 * (q[x.after].max() if x.after else 0.0)
        q[x.s][x.a] += alpha(x.s, x.a) * (target - q[x.s][x.a])
    assert_same(agent, "q", q)


@pytest.mark.parametrize("temperature", [0.0, 0.2])
def test_expected_sarsa_is_the_textbooks(temperature: float) -> None:
    options = {"exploration": "softmax", "temperature": temperature} if temperature else {}
    agent, seen = played("expected-sarsa", COMMON | options, 400)
    q, alpha = zeros(), Alpha()
    for x in seen:
        target = x.r + 0.9 * (on_policy(q[x.after], temperature) if x.after else 0.0)
        q[x.s][x.a] += alpha(x.s, x.a) * (target - q[x.s][x.a])
    assert_same(agent, "q", q)


def test_double_q_is_the_textbooks() -> None:
    agent, seen = played("double-q", COMMON, 400)
    q, alpha = (zeros(), zeros()), (Alpha(), Alpha())
    for x in seen:
        k = 0 if x.draws[0].item() < 0.5 else 1
        value = q[1 - k][x.after][q[k][x.after].argmax()] if x.after else 0.0
        q[k][x.s][x.a] += alpha[k](x.s, x.a) * (x.r + 0.9 * value - q[k][x.s][x.a])
    assert_same(agent, "q", q[0])
    assert_same(agent, "q2", q[1])


def episodes(seen: list[Seen]) -> list[list[Seen]]:
    """Split where one ends; the last one may be unfinished."""
    found: list[list[Seen]] = [[]]
    for x in seen:
        found[-1].append(x)
        if x.ended:
            found.append([])
    return [episode for episode in found if episode]


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_n_step_sarsa_is_the_textbooks(n: int) -> None:
    agent, seen = played("sarsa", COMMON | {"n": n}, 400)
    q, alpha, gamma = zeros(), Alpha(), 0.9
    for episode in episodes(seen):
        whole = episode[-1].ended
        last = len(episode)
        for tau in range(last):  # Sutton & Barto 2018, section 7.2; tau is updated when A_(tau + n) is known, or at the end
            if tau + n >= last and not whole:
                break
            g = sum(gamma ** (i - tau) * episode[i].r for i in range(tau, min(tau + n, last)))
            if tau + n < last:
                g += gamma**n * q[episode[tau + n].s][episode[tau + n].a]
            elif episode[-1].after:
                if tau == max(last - n, 0):
                    end = on_policy(q[episode[-1].after])
                g += gamma ** (last - tau) * end
            x = episode[tau]
            q[x.s][x.a] += alpha(x.s, x.a) * (g - q[x.s][x.a])
    assert_same(agent, "q", q)


@pytest.mark.parametrize("trace", ["accumulating", "replacing"])
def test_sarsa_lambda_is_the_textbooks(trace: str) -> None:
    agent, seen = played("sarsa", COMMON | {"trace_lambda": 0.8, "trace": trace}, 400)
    q, alpha = zeros(), Alpha()
    for episode in episodes(seen):
        e = zeros()
        for k, x in enumerate(episode):
            if k + 1 < len(episode):
                value = q[episode[k + 1].s][episode[k + 1].a]
            elif x.ended:
                value = on_policy(q[x.after]) if x.after else 0.0
            else:
                break  # its next action is not known
            delta = x.r + 0.9 * value - q[x.s][x.a]
            e[x.s][x.a] = 1.0 if trace == "replacing" else e[x.s][x.a] + 1.0
            alpha(x.s, x.a)
            for s in e:
                for a in range(ACTIONS):
                    if e[s][a]:
                        q[s][a] += alpha.again(s, a) * delta * e[s][a]
                e[s] *= 0.9 * 0.8
    assert_same(agent, "q", q)


def returns(episode: list[Seen], end: float) -> list[float]:
    return [sum(0.9 ** (i - k) * episode[i].r for i in range(k, len(episode))) + 0.9 ** (len(episode) - k) * end
            for k in range(len(episode))]  # fmt: skip


@pytest.mark.parametrize("visit", ["first", "every"])
def test_monte_carlo_is_the_mean_of_returns(visit: str) -> None:
    agent, seen = played("monte-carlo", {"epsilon": 0.3, "gamma": 0.9, "visit": visit}, 400)
    q, found = zeros(), defaultdict(list)
    for episode in episodes(seen):
        if not episode[-1].ended:
            break
        gs = returns(episode, on_policy(q[episode[-1].after]) if episode[-1].after else 0.0)
        for k in range(len(episode)):
            pair = episode[k].s, episode[k].a
            if visit == "every" or pair not in [(x.s, x.a) for x in episode[:k]]:
                found[pair].append(gs[k])
        for (s, a), values in found.items():
            q[s][a] = np.mean(values)
    assert_same(agent, "q", q)


@pytest.mark.parametrize("options", [{}, {"trace_lambda": 0.8}, {"trace_lambda": 0.8, "trace": "replacing"}], ids=str)
def test_td_prediction_is_the_textbooks(options: dict[str, Any]) -> None:
    rates = {key: COMMON[key] for key in ("gamma", "learning_rate", "visit_decay")}
    agent, seen = played("td-prediction", rates | options, 400)
    v, alpha = defaultdict(float), Alpha()
    for episode in episodes(seen):
        e: Any = defaultdict(float)
        for x in episode:
            delta = x.r + (0.9 * v[x.after] if x.after else 0.0) - v[x.s]
            e[x.s] = 1.0 if options.get("trace") == "replacing" else e[x.s] + 1.0
            alpha(x.s)
            for s in list(e):
                v[s] += alpha.again(s) * delta * e[s]
                e[s] *= 0.9 * options.get("trace_lambda", 0.0)
    assert_same(agent, "v", v)


def test_monte_carlo_prediction_is_the_mean_of_returns() -> None:
    options = {"method": "monte-carlo", "gamma": 0.9, "visit_decay": 1.0, "policy": (0.1, 0.2, 0.3, 0.4)}
    agent, seen = played("td-prediction", options, 400)
    v, found = defaultdict(float), defaultdict(list)
    for episode in episodes(seen):
        if episode[-1].ended:
            gs = returns(episode, v[episode[-1].after] if episode[-1].after else 0.0)
            for k, x in enumerate(episode):
                if x.s not in [y.s for y in episode[:k]]:
                    found[x.s].append(gs[k])
            for s, values in found.items():
                v[s] = float(np.mean(values))
    assert_same(agent, "v", v)
    share = np.bincount([x.a for x in seen], minlength=4) / len(seen)
    assert np.abs(share - [0.1, 0.2, 0.3, 0.4]).max() < 0.08


def test_dyna_q_is_the_textbooks() -> None:
    agent, seen = played("dyna-q", COMMON | {"planning": 3}, 400)
    q, alpha = zeros(), Alpha()
    model: Any = {}  # s -> a -> outcome -> rewards
    for x in seen:
        target = x.r + 0.9 * (q[x.after].max() if x.after else 0.0)
        q[x.s][x.a] += alpha(x.s, x.a) * (target - q[x.s][x.a])
        outcomes = model.setdefault(x.s, {}).setdefault(x.a, {})
        outcomes.setdefault(x.after, []).append(x.r)
        for u, w, z in x.draws[0].reshape(-1, 3):
            s = list(model)[int(u * len(model))]
            a = sorted(model[s])[int(w * len(model[s]))]
            ways = list(model[s][a].items())[::-1]  # the newest outcome first
            left = z * sum(len(rewards) for _, rewards in ways)
            for after, rewards in ways:  # noqa: B007  (it is used below)
                if left < len(rewards):
                    break
                left -= len(rewards)
            target = np.mean(rewards) + 0.9 * (q[after].max() if after else 0.0)
            q[s][a] += alpha.again(s, a) * (target - q[s][a])
    assert_same(agent, "q", q)


def test_prioritised_sweeping_is_the_textbooks() -> None:
    agent, seen = played("prioritised-sweeping", COMMON | {"planning": 3, "threshold": 1e-3}, 300)
    q, queue = zeros(), dict[Any, float]()
    model: Any = defaultdict(lambda: defaultdict(list))

    def backup(s: bytes, a: int) -> float:
        ways = model[s, a]
        total = sum(len(rewards) for rewards in ways.values())
        return sum(sum(rewards) + len(rewards) * 0.9 * (q[t].max() if t else 0.0) for t, rewards in ways.items()) / total

    for x in seen:
        model[x.s, x.a][x.after].append(x.r)
        change = abs(backup(x.s, x.a) - q[x.s][x.a])
        if change > 1e-3:
            queue[x.s, x.a] = change
        for _ in range(3):
            if not queue:
                break
            s, a = max(queue, key=lambda pair: queue[pair])
            del queue[s, a]
            q[s][a] = backup(s, a)
            for before, did in list(model):
                if s in model[before, did]:
                    change = abs(backup(before, did) - q[before][did])
                    if change > 1e-3:
                        queue[before, did] = change
    assert len(queue) == len(agent.queue)
    assert_same(agent, "q", q)


@pytest.mark.parametrize(
    ("name", "options"),
    [("sarsa", {}), ("sarsa", {"n": 3}), ("sarsa", {"trace_lambda": 0.7}), ("monte-carlo", {}), ("q-learning", {}),
     ("prioritised-sweeping", {}), ("td-prediction", {"trace_lambda": 0.5})],
    ids=str,
)  # fmt: skip
def test_where_a_rollout_is_cut_does_not_matter(name: str, options: dict[str, Any]) -> None:
    env = make("maze", WORLD, num_envs=3, seed=5, threads=1)
    collector = Collector(env, make_agent("random", {}, env, 1))
    collector.begin(env.obs)
    pieces = [copied(collector.rollout(1)) for _ in range(60)]
    joined = [np.concatenate([getattr(p, field) for p in pieces]) for field in Rollout._fields[:5]]
    whole = Rollout(*joined, pieces[-1].last_obs, np.concatenate([p.final_obs for p in pieces]), {})  # type: ignore[arg-type]
    one, many = make_agent(name, options, env, 0), make_agent(name, options, env, 0)
    one.learn(whole, 0.0)
    for piece in pieces:
        many.learn(piece, 0.0)
    first, second = one.state_dict(), many.state_dict()
    assert first["table/visits" if "table/visits" in first else "table/tried"].sum() > 100
    values = "table/v" if name == "td-prediction" else "table/q"
    order = np.argsort(first["table/key"][:, 0]), np.argsort(second["table/key"][:, 0])  # rows come in the order of entering
    np.testing.assert_array_equal(first[values][order[0]], second[values][order[1]])


def test_a_table_grows_and_keeps_its_rows() -> None:
    table = Table(q=(2, 0.5), visits=(1, 0))
    obs = np.random.default_rng(0).integers(0, 255, (5000, 1, 3, 3), np.uint8)
    rows = table.enter(obs)
    assert table.count == 5000 and rows.tolist() == list(range(5000))
    assert (table["q"][:5000] == 0.5).all()
    table["q"][rows, 0] = np.arange(5000)
    assert table.find(obs[::-1]).tolist() == rows[::-1].tolist()
    stranger = np.full((1, 1, 3, 3), 255, np.uint8)
    assert table.find(stranger).tolist() == [UNKNOWN] and table.values("q", stranger, 7.0).tolist() == [[7.0, 7.0]]
    assert table.count == 5000
    again = Table(q=(2, 0.5), visits=(1, 0))
    again.load(table.state())
    assert again.find(obs).tolist() == rows.tolist() and (again["q"][:5000] == table["q"][:5000]).all()
    assert again.enter(stranger).tolist() == [5000]


@pytest.mark.parametrize(
    ("name", "array"),
    [("sarsa", "held.held/row"), ("monte-carlo", "held/action"), ("dyna-q", "outcomes/next"), ("dyna-q", "outcomes/chain"),
     ("dyna-q", "visited/visited"), ("dyna-q", "table/first"), ("prioritised-sweeping", "queue/pair"),
     ("prioritised-sweeping", "table/place"), ("q-learning", "table/key")],
)  # fmt: skip
def test_a_checkpoint_that_points_beyond_its_table_is_refused(name: str, array: str) -> None:
    env = make("maze", WORLD, num_envs=3, seed=5, threads=1)
    agent = make_agent(name, {"epsilon": 1.0, **({"planning": 0} if name == "prioritised-sweeping" else {})}, env, 0)
    collector = Collector(env, agent)
    collector.begin(env.obs)
    for _ in range(3):
        agent.learn(collector.rollout(16), 0.0)
    state = agent.state_dict()
    agent.load_state_dict(state)
    assert state[array].size >= 1
    spoiled = {key: value.copy() for key, value in state.items()}
    spoiled[array].flat[0] = spoiled[array].flat[1] if array == "table/key" else 10**9
    with pytest.raises(ValueError, match="is the checkpoint whole"):
        agent.load_state_dict(spoiled)


def test_observations_that_are_equal_share_a_row() -> None:
    table = Table()
    obs = np.array([[[0.0, 1.0]], [[-0.0, 1.0]], [[1.0, 0.0]]], np.float32)
    assert table.enter(obs).tolist() == [0, 0, 1]
    blind = Table(slice(0, 1))
    assert blind.enter(np.array([[[1, 2]], [[9, 2]], [[1, 3]]], np.uint8)).tolist() == [0, 0, 1]


def test_exploration_has_the_chances_it_should() -> None:
    values = np.tile([0.0, 1.0, 1.0, -1.0], (200_000, 1))
    draws, out = np.random.default_rng(0).random((len(values), 2)), np.empty(len(values), np.int64)
    choose(values, 0.2, 0.0, draws, out)
    np.testing.assert_allclose(np.bincount(out) / len(out), [0.05, 0.45, 0.45, 0.05], atol=0.005)
    choose(values, 0.2, 0.5, draws, out)
    wanted = np.exp(np.array([0.0, 1.0, 1.0, -1.0]) / 0.5)
    np.testing.assert_allclose(np.bincount(out) / len(out), wanted / wanted.sum(), atol=0.005)


def test_epsilon_and_temperature_follow_the_progress() -> None:
    env = make("frozenlake", {}, num_envs=1)
    agent: Any = make_agent("q-learning", {"epsilon": 0.5, "epsilon_final": 0.1}, env, 0)
    agent.behaviour.advance(0.25)
    assert agent.behaviour.epsilon == pytest.approx(0.4) and agent.behaviour.temperature == 0.0
    agent = make_agent("q-learning", {"exploration": "softmax", "temperature": 1.0, "temperature_final": 0.01}, env, 0)
    agent.behaviour.advance(0.5)
    assert agent.behaviour.temperature == pytest.approx(0.1)


def test_optimism_tries_everything() -> None:
    env = make("maze", {**WORLD, "time_limit": 50}, num_envs=1, threads=1)
    agent: Any = make_agent("q-learning", {"initial_value": 5.0, "epsilon": 0.0}, env, 0)
    collector = Collector(env, agent)
    collector.begin(env.obs)
    for _ in range(20):
        agent.learn(collector.rollout(16), 0.0)
    acted = agent.table["visits"][: agent.table.count]
    assert (acted[acted.sum(1) > 8] > 0).all() and (acted > 0).sum() >= 12


# --- agents that are told the rules


@pytest.mark.parametrize("name", ["value-iteration", "policy-iteration"])
def test_planners_play_the_exact_optimum(name: str) -> None:
    from gumdrop.experiments.run.evaluate import evaluate_named

    result = evaluate_named(name, "four-rooms", {"observe": "coordinates", "time_limit": 0}, 500, 1, {"gamma": 0.95})
    assert result["agent"]["mean"] == 1.0
    result = evaluate_named(name, "frozenlake", {}, 4000, 1)
    assert abs(result["agent"]["mean"] - 0.74) < 0.03


@pytest.mark.parametrize(
    ("env", "options", "line"),
    [
        ("maze", {}, "another in each episode: fix its board"),
        ("four-rooms", {"view": 3}, "show it the state"),
        ("CartPole-v1", {}, "not ours: take q-learning"),
        ("matrix", {}, "2 agents"),
        ("bandit", {}, "no exact model"),
        ("point-maze", {}, "a table has a column for each action"),
    ],
)
def test_planners_refuse_in_one_line(env: str, options: dict[str, Any], line: str) -> None:
    made = make(env, options, num_envs=1)
    with pytest.raises(ValueError, match=line) as error:
        make_agent("value-iteration", {}, made, 0)
    assert "\n" not in str(error.value) and str(error.value).startswith("agent value-iteration:")
    made.close()


def test_options_that_do_not_fit_are_refused() -> None:
    env = make("frozenlake", {}, num_envs=1)
    with pytest.raises(ValueError, match="opponent=True: this world shows nobody's last action"):
        make_agent("sarsa", {"opponent": True}, env, 0)
    with pytest.raises(ValueError, match="both look ahead"):
        make_agent("sarsa", {"n": 2, "trace_lambda": 0.5}, env, 0)
    with pytest.raises(ValueError, match="sum to 1"):
        make_agent("td-prediction", {"policy": [0.5, 0.6]}, env, 0)
    with pytest.raises(ValueError, match="2 probabilities, the world 4 actions"):
        make_agent("td-prediction", {"policy": [0.5, 0.5]}, env, 0)


def test_a_blind_player_does_not_see_the_opponent() -> None:
    game = {"game": "rock-paper-scissors", "agents": 1, "opponents": ["copycat-beater"], "rounds": 0, "continuation": 0.9}
    spaces = Spaces.of(make("matrix", game, num_envs=1))
    from gumdrop.agents.tabular.sarsa import Sarsa

    obs = np.zeros((2, 1, 7), np.float32)
    obs[0, 0, [0, 3, 6]] = obs[1, 0, [0, 4, 6]] = 1  # the same own action, another one of the opponent
    rows = [len(set(Sarsa(Sarsa.Config(opponent=o), spaces, 0).table.enter(obs))) for o in (None, True, False)]
    assert rows == [2, 2, 1]


# --- gumdrop agent show


def test_show_draws_what_a_run_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gumdrop.agents.saved import load_run
    from gumdrop.agents.tabular.plan import see
    from gumdrop.envs.registry import make_world
    from gumdrop.scripts.cli import main

    monkeypatch.chdir(tmp_path)
    words = ["env.layout=S..#/.#.G/....", "env.observe=coordinates", "num_envs=4", "eval_episodes=4"]
    train = ["train", "--no-live", "--env", "maze", *words]
    assert main([*train, "--agent", "q-learning", "--steps", "6400", "--name", "known"]) == 0
    assert main([*train, "--agent", "q-learning", "--steps", "64", "--name", "young"]) == 0
    assert main([*train, "--agent", "td-prediction", "--steps", "640", "--name", "td"]) == 0
    capsys.readouterr()
    assert main(["agent", "show", "known", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    agent, config, _ = load_run(Path("runs/known"))
    seen = see(make_world("maze", config.env_options), config.seed)
    q = agent.values(seen.obs[:, None])  # type: ignore[attr-defined]
    met = [k for k, value in enumerate(shown["values"]) if value is not None]
    assert len(met) >= 8 and [shown["values"][k] for k in met] == pytest.approx(q.max(1)[met].tolist())
    assert [shown["policy"][k] for k in met] == q.argmax(1)[met].tolist()
    assert shown["text"].splitlines()[0] in ("> > v #", "v > v #", "> v v #", "v v v #") and "learned value" in shown["text"]
    assert {row["name"]: row["value"] for row in shown["options"]}["gamma"] == 0.99
    assert main(["agent", "show", "known", "--out", "known.png"]) == 0 and Path("known.png").stat().st_size > 5000
    assert "observations met" in capsys.readouterr().out
    assert main(["agent", "show", "young"]) == 0
    assert "?: never met" in capsys.readouterr().out
    assert main(["agent", "show", "td"]) == 0
    assert "learned value from each cell" in capsys.readouterr().out


def test_show_of_other_runs_and_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gumdrop.scripts.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["train", "--env", "bandit", "--agent", "random", "steps=256", "num_envs=4", "--no-live", "--name", "r"]) == 0
    assert main(["train", "--env", "bandit", "--agent", "sarsa", "steps=256", "num_envs=4", "--no-live", "--name", "b"]) == 0
    capsys.readouterr()
    assert main(["agent", "show", "r"]) == 0
    assert "random in bandit" in capsys.readouterr().out
    assert main(["agent", "show", "b"]) == 0
    assert "no board: world bandit gives no exact model" in capsys.readouterr().out
    for words in (
        ["r", "--out", "x.png"],
        ["b", "--out", "x.png"],
        ["sarsa", "--out", "x.png"],
        ["nothing"],
        ["b", "--out", "x.txt"],
    ):
        assert main(["agent", "show", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not Path("x.png").exists()
