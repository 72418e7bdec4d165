"""The dials of candy, one by one, against hand-computed steps; the defaults against what they always were."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gumdrop.envs.checks.conformance import play, random_actions
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.examine import solution as solve
from gumdrop.envs.registry import make_world, presets
from gumdrop.envs.rng import copy_seeds, fresh_streams
from gumdrop.envs.worlds.candy import Candy
from gumdrop.store.arrays import Array

LEFT, DOWN, RIGHT, UP, STAY = range(5)


class Plain:
    """One copy of a candy world in plain Python, its board laid by hand; nothing is compiled."""

    def __init__(self, board: str, where: list[tuple[int, int]], **options: Any) -> None:
        """`board`: rows of '.', digits for kinds from 1 on; `where`: the collectors' (row, column)."""
        rows = board.split("/")
        size = len(rows)
        kinds = len(options.get("values", (1.0, 2.0, 5.0)))
        cells = [(y, x, int(rows[y][x])) for y in range(size) for x in range(size) if rows[y][x] != "."]
        candies = sum(kind <= kinds for _, _, kind in cells)
        options = {"size": size, "slip": 0.0, "candies": max(candies, 1), "agents": len(where), "deadline": 1000} | options
        self.world: Any = make_world("candy", options)
        self.c, self.s = self.world.constants(), self.world.allocate(1)
        self.rng = fresh_streams(copy_seeds(0, 1))
        with np.errstate(over="ignore"):
            Candy.reset(self.s, 0, self.c, self.rng)
        pad = self.c.window // 2
        stride = size + 2 * pad
        inside = self.s.candy[0, : stride * stride].reshape(stride, stride)[pad : pad + size, pad : pad + size]
        inside[:] = 0
        laid = 0
        for y, x, kind in cells:
            inside[y, x] = kind
            if kind <= kinds and self.s.spot.shape[1] > laid:
                self.s.spot[0, laid], self.s.grows[0, laid] = (y + pad) * stride + x + pad, kind
                laid += 1
        self.inside = inside
        self.s.left[0], self.s.waste[0] = candies, int((inside == kinds + 1).sum())
        for k, (y, x) in enumerate(where):
            self.s.y[0, k], self.s.x[0, k] = y, x

    def step(self, *actions: int) -> tuple[list[float], bool]:
        reward = np.zeros(self.c.agents, np.float32)
        with np.errstate(over="ignore"):
            done = bool(Candy.step(self.s, 0, np.array(actions), self.c, self.rng, reward))
        assert self.world.check_state(self.s) is None
        return [round(float(r), 5) for r in reward], done

    def see(self, k: int = 0) -> Array:
        space = self.world.observation_space
        out = np.full(int(np.prod(space.shape)), 7, np.uint8)
        with np.errstate(over="ignore"):
            Candy.observe(self.s, 0, k, self.c, out)
        return out.reshape(space.shape)

    def at(self, k: int = 0) -> tuple[int, int]:
        return int(self.s.y[0, k]), int(self.s.x[0, k])


def begin(world: Any, n: int) -> tuple[Any, Any]:
    """State and constants of `n` environments at the start of their episodes, in plain Python."""
    s, c, rng = world.allocate(n), world.constants(), fresh_streams(copy_seeds(3, n))
    with np.errstate(over="ignore"):
        for i in range(n):
            Candy.reset(s, i, c, rng)
    assert world.check_state(s) is None
    return s, c


GOLDEN = [
    ({}, "e48eb7eeb40ed7e2"),
    ({"agents": 3}, "265787e08f17a284"),  # made anew when the order of moves of more than two became fair
    ({"view": 5, "slip": 0.0}, "baddb627af6f5ad2"),
    ({"agents": 2, "view": 7, "deadline": 90, "candies": 11}, "c24308812c71851f"),
    ({"size": 9, "candies": 20, "values": (1.0, -2.0), "deadline": 200, "time_limit": 33}, "6bd1bdf6c5c4025b"),
]


@pytest.mark.parametrize(("options", "golden"), GOLDEN)
def test_play_without_dials_stays_what_it_was(options: dict[str, Any], golden: str) -> None:
    """Hashes made with the first version of the world: draws, observations, rewards and ends are bit for bit the same."""
    env = Engine(make_world("candy", options), 32, threads=1)
    sha = hashlib.sha256()
    for array in play(env, random_actions(env, 120, 5), copy_seeds(17, 32)):
        sha.update(np.ascontiguousarray(array).tobytes())
    sha.update(env.get_state()["engine.rng"].tobytes())
    assert sha.hexdigest()[:16] == golden


def test_coin_game_payoffs() -> None:
    coin = {"values": (1.0, 1.0), "owned": True, "payoff": (1.0, 1.0, 0.0, -2.0)}
    assert Plain("1../.../...", [(0, 1), (2, 2)], **coin).step(LEFT, STAY) == ([1.0, 0.0], True)
    assert Plain("2../.../...", [(0, 1), (2, 2)], **coin).step(LEFT, STAY) == ([1.0, -2.0], True)
    assert Plain("2../.../...", [(2, 2), (0, 1)], **coin).step(STAY, LEFT) == ([0.0, 1.0], True)
    world = Plain("1.2/.../...", [(2, 0), (2, 2)], **coin)
    assert world.see(0)[0, 0, 0] == world.see(1)[0, 0, 2] == 1, "one's own kind is the first plane"
    race = Plain("3../.../...", [(0, 1), (2, 2)], payoff=(1.0, 1.0, -1.0, -1.0))
    assert race.step(LEFT, STAY) == ([5.0, -5.0], True)


def test_hidden_kinds_look_alike() -> None:
    world = Plain("1.3/.../.2.", [(1, 1)], hidden_kinds=True)
    assert world.see().shape == (3, 3, 3)
    assert world.see()[0].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(("tie", "want"), [("first", [5.0, 0.0]), ("split", [2.5, 2.5]), ("nobody", [0.0, 0.0])])
def test_ties(tie: str, want: list[float]) -> None:
    world = Plain(".3./.../...", [(0, 0), (0, 2)], tie=tie)
    assert world.step(RIGHT, LEFT) == (want, tie != "nobody")
    assert world.inside[0, 1] == (3 if tie == "nobody" else 0)


def test_random_ties_are_fair_and_blocked_cells_closed() -> None:
    wins = 0
    for seed in range(400):
        world = Plain(".3./.../...", [(0, 0), (0, 2)])
        world.rng[:] = fresh_streams(copy_seeds(seed, 1))
        wins += world.step(RIGHT, LEFT)[0][0] > 0
    assert 150 < wins < 250
    for pair in ((0, 1), (1, 2), (0, 2)):  # a third collector far away must not turn the odds
        wins, where = 0, [(2, 2)] * 3
        where[pair[0]], where[pair[1]] = (0, 0), (0, 2)
        for seed in range(400):
            world = Plain(".3./.../...", where)
            world.rng[:] = fresh_streams(copy_seeds(seed, 1))
            wins += world.step(*[{(0, 0): RIGHT, (0, 2): LEFT}.get(cell, STAY) for cell in where])[0][pair[0]] > 0
        assert 150 < wins < 250
    world = Plain(".../.../..1", [(0, 0), (0, 1)], collision="block", tie="first")
    world.step(RIGHT, STAY)
    assert world.at(0) == (0, 0) and world.at(1) == (0, 1)
    world.step(STAY, RIGHT)
    world.step(RIGHT, STAY)
    assert world.at(0) == (0, 1) and world.at(1) == (0, 2)


def test_a_stag_needs_two_and_a_hare_one() -> None:
    stag = {"values": (1.0, 10.0), "needs": (1, 2), "reach": 1}
    world = Plain(".2./..1/...", [(0, 0), (2, 2)], **stag)
    assert world.step(RIGHT, STAY) == ([0.0, 0.0], False), "alone it stays"
    assert world.step(STAY, UP) == ([0.0, 1.0], False), "a hare is its taker's, whoever stands near"
    assert world.step(STAY, UP) == ([5.0, 5.0], True), "one on the stag's cell, one beside it"


@pytest.mark.parametrize(
    ("tie", "want"),
    [("random", {(1.0, 0.0), (0.0, 1.0)}), ("first", {(1.0, 0.0)}), ("split", {(0.5, 0.5)}), ("nobody", {(0.0, 0.0)})],
)
def test_what_one_can_take_alone_goes_by_tie_and_what_needs_two_is_shared(tie: str, want: set[tuple[float, float]]) -> None:
    options: dict[str, Any] = {"values": (1.0, 10.0), "needs": (1, 2), "tie": tie}
    hares = set()
    for seed in range(20):
        hare = Plain(".1./.../...", [(0, 0), (0, 2)], **options)
        hare.rng[:] = fresh_streams(copy_seeds(seed, 1))
        hares.add(tuple(hare.step(RIGHT, LEFT)[0]))
        assert hare.s.left[0] == (tie == "nobody")
    assert hares == want
    assert Plain(".2./.../...", [(0, 0), (0, 2)], **options).step(RIGHT, LEFT) == ([5.0, 5.0], True)


@pytest.mark.parametrize(("tie", "want"), [("first", [0.0, 8.0, 0.0]), ("nobody", [0.0, 8.0, 0.0]), ("split", [1.6, 4.8, 1.6])])
def test_who_cannot_take_it_alone_has_no_part_in_a_tie(tie: str, want: list[float]) -> None:
    world = Plain(".1./.../...", [(0, 0), (0, 2), (1, 1)], values=(8.0,), needs=(3,), most_level=3, tie=tie)
    world.s.level[0] = 1, 3, 1
    assert world.step(RIGHT, LEFT, UP) == (want, True)


def test_of_two_candies_taken_in_one_step_neither_has_always_the_better_price() -> None:
    got = set()
    for seed in range(20):
        world = Plain("1.1/.../...", [(1, 0), (1, 2)], values=(1.0,), change="reaction", change_rate=0.5, tie="split")
        world.rng[:] = fresh_streams(copy_seeds(seed, 1))
        got.add(tuple(world.step(UP, UP)[0]))
    assert got == {(1.0, 0.5), (0.5, 1.0)}


def test_levels_must_sum_and_share() -> None:
    world = Plain(".1./.../...", [(0, 0), (0, 2)], values=(8.0,), needs=(4,), most_level=3)
    world.s.level[0] = 3, 1
    assert world.see(1)[-1].ravel().tolist() == [1, 0, 0, 1, 1, 1, 0, 0, 0], "one's own level first"
    assert world.step(RIGHT, STAY) == ([0.0, 0.0], False)
    assert world.step(STAY, LEFT) == ([6.0, 2.0], True)


def test_zap_freezes_and_thaws() -> None:
    world = Plain(".../.../..1", [(0, 0), (0, 1)], zap=2, zap_cost=0.5)
    assert world.step(5, STAY) == ([-0.5, 0.0], False)
    assert world.see(1)[-1, 0, 0] == 1 and world.see(0)[-1, 0, 0] == 0
    for _ in range(2):
        world.step(STAY, RIGHT)
        assert world.at(1) == (0, 1), "frozen"
    world.step(STAY, RIGHT)
    assert world.at(1) == (0, 2) and world.see(1)[-1, 0, 0] == 0
    both = Plain(".../.../..1", [(0, 0), (0, 1)], zap=2)
    both.step(5, 5)
    assert both.s.frozen[0].tolist() == [2, 2], "zaps of one step cross"


def test_gift_and_signal() -> None:
    world = Plain(".../.../..1", [(0, 0), (0, 1)], gift=0.25, signal=True)
    assert world.world.action_space.n == 7
    assert world.step(5, 6) == ([-0.25, 0.25], False)
    assert world.see(0)[-1, 0, 0] == 1 and world.see(1)[-1, 0, 0] == 0
    world.step(STAY, STAY)
    assert world.see(0)[-1, 0, 0] == 0


def test_cleaning_lets_candies_grow() -> None:
    world = Plain("222/1../...", [(1, 1)], values=(1.0,), regrowth="cleaning", grow_rate=1.0, waste_rate=0.0, waste_limit=0.5)
    assert world.s.waste[0] == 3 and world.see()[3].tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert world.step(LEFT) == ([1.0], False)
    world.step(RIGHT)
    assert world.inside[1, 0] == 0, "waste above the limit: nothing grows"
    world.step(5)
    assert world.s.waste[0] == 2 and world.inside[0].tolist() == [2, 0, 2]
    world.step(UP)
    world.step(5)
    assert world.s.waste[0] == 0 and world.inside[1, 0] == 1


def test_growth_rates() -> None:
    """iid: a bare cell grows with its rate. Neighbours: 1 candy within distance 2 gives the second rate, 3 the third."""
    for options, board, want in (
        ({"regrowth": "iid", "grow_rate": 0.3}, "11.../...../...../...../....1", 0.3),
        ({"regrowth": "neighbour", "by_neighbours": (0, 0.2, 0.6, 1)}, "1.1../...../...../...../....1", 0.2),
        ({"regrowth": "neighbour", "by_neighbours": (0, 0.2, 0.6, 1)}, "111../1..../...../...../....1", 0.6),
        ({"regrowth": "neighbour", "by_neighbours": (0, 0.2, 0.6, 1)}, "1..1./...../...../...../....1", 0.0),
    ):
        grown = 0
        world = Plain(board, [(4, 0)], values=(1.0,), **options)  # type: ignore[arg-type]
        for _ in range(600):
            world.inside[0, 0] = 0
            world.s.left[0] = int((world.inside > 0).sum())
            world.step(STAY)
            grown += int(world.inside[0, 0] > 0)
        assert stats.binomtest(grown, 600, want).pvalue > 1e-3 if 0 < want < 1 else grown == 600 * want


def test_respawn_keeps_the_number_of_candies() -> None:
    world = Plain("12./.../...", [(1, 0), (2, 2)], regrowth="respawn")
    for _ in range(3):
        for action in (UP, RIGHT, DOWN, LEFT):
            world.step(action, STAY)
            assert (world.inside > 0).sum() == world.s.left[0] == 2
            assert world.inside[world.at(0)] == 0


def test_values_change() -> None:
    world = Plain("111/111/111", [(0, 0)], values=(1.0, 2.0), candies=8, change="seasons", period=2)
    got = [world.step(action)[0][0] for action in (STAY, RIGHT, RIGHT, DOWN, LEFT)]
    assert got == [1.0, 1.0, 2.0, 2.0, 1.0]
    assert world.see()[-1, 0].tolist() == [1, 0, 0], "the season shows"
    react = Plain("111/.../...", [(0, 0)], values=(1.0,), change="reaction", change_rate=0.5)
    assert [react.step(action)[0][0] for action in (STAY, RIGHT, RIGHT)] == [1.0, 0.5, 0.25]
    switch = Plain("111/.../...", [(0, 0)], values=(1.0, 2.0), change="switch", change_rate=1.0)
    assert [switch.step(action)[0][0] for action in (STAY, RIGHT, RIGHT)] == [1.0, 2.0, 1.0]
    drift = Plain("1../.../...", [(1, 1)], values=(1.0, 2.0), change="drift", change_rate=0.5)
    seen = set()
    for _ in range(300):
        drift.step(STAY)
        seen |= set(drift.s.value[0, 1:].tolist())
    assert seen == {k / 2 for k in range(-8, 9)}, "every step of the walk, and none beyond twice the largest value"


def test_noise_is_as_frequent_as_said_and_never_the_truth() -> None:
    world = Plain("1234./...../...../...../.....", [(4, 4)], values=(1.0,) * 4, noise=0.2)
    truth = np.array([1, 2, 3, 4] + [0] * 21)
    wrong, codes = 0, np.zeros(5)
    for _ in range(200):
        world.step(STAY)
        planes = world.see()[:4].reshape(4, 25)
        assert planes.sum(0).max() <= 1
        read = (planes * np.arange(1, 5)[:, None]).sum(0)
        wrong += int((read != truth).sum())
        codes += np.bincount(read[4:][read[4:] > 0], minlength=5)
        assert (world.see()[:4].reshape(4, 25) == planes).all(), "looking twice shows the same"
    assert stats.binomtest(wrong, 5000, 0.2).pvalue > 1e-3
    assert stats.chisquare(codes[1:]).pvalue > 1e-3


def test_duels() -> None:
    rps = {"values": (0.0, 0.0, 0.0), "duel": ((0, -1, 1), (1, 0, -1), (-1, 1, 0)), "deadline": 99, "view": 5}
    world = Plain("12../12../..../...3", [(0, 0), (3, 2)], **rps)
    world.step(STAY, RIGHT)
    world.step(RIGHT, STAY)  # rock and paper against scissors
    assert world.s.pocket[0].tolist() == [1, 1, 0, 0, 0, 1]
    assert world.see(0)[-1].ravel()[:12].tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    world.step(RIGHT, UP)
    world.step(RIGHT, STAY)
    reward, _ = world.step(DOWN, STAY)
    assert reward == [0.0, 0.0] and world.s.pocket[0].sum() == 0, "half rock that wins, half paper that loses"
    world.s.pocket[0] = [2, 0, 0, 0, 0, 1]
    assert world.step(STAY, STAY)[0] == [1.0, -1.0]


@pytest.mark.parametrize("options", [
    {"view": 5}, {"view": 3, "hidden_kinds": True}, {"agents": 3, "view": 7, "size": 5, "owned": True},
    {"regrowth": "cleaning", "view": 5, "river": 2}, {"regrowth": "cleaning", "agents": 2, "hidden_kinds": True},
])  # fmt: skip
def test_observation_against_a_slow_one(options: dict[str, Any]) -> None:
    """Cell by cell, from the State alone."""
    world: Any = make_world("candy", {"deadline": 9} | options)
    o, s, c = world.config, *begin(world, 16)
    side, pad, kinds = o.view or o.size, o.view // 2, len(o.values)
    for i in range(16):
        stride = o.size + 2 * pad
        board = s.candy[i, : stride * stride].reshape(stride, stride)[pad : pad + o.size, pad : pad + o.size]
        for k in range(o.agents):
            want = np.zeros(world.observation_space.shape, np.uint8)
            shown = 1 if o.hidden_kinds else kinds
            top, left = (int(s.y[i, k]) - pad, int(s.x[i, k]) - pad) if o.view else (0, 0)
            for row in range(side):
                for column in range(side):
                    y, x = top + row, left + column
                    if not (0 <= y < o.size and 0 <= x < o.size):
                        want[shown, row, column] = 1
                        continue
                    kind = int(board[y, x])
                    if 1 <= kind <= kinds:
                        plane = 0 if o.hidden_kinds else (kind - 1 - k) % kinds if o.owned else kind - 1
                        want[plane, row, column] = 1
                    if kind == kinds + 1:
                        want[shown + 2 + (o.agents > 1), row, column] = 1
                    if not o.view and (y, x) == (s.y[i, k], s.x[i, k]):
                        want[shown, row, column] = 1
                    if any(q != k and (y, x) == (s.y[i, q], s.x[i, q]) for q in range(o.agents)):
                        want[shown + 2, row, column] = 1
            want[shown + 1].ravel()[: min(int(c.clock[s.time[i]]), side * side)] = 1
            out = np.full(want.size, 7, np.uint8)
            Candy.observe(s, i, k, c, out)
            assert (out.reshape(want.shape) == want).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drawn_inhabitants": 2}, "name some in inhabitants"),
        ({"agents": 7, "inhabitants": ("greedy", "greedy")}, "more than 8"),
        ({"needs": (1, 2)}, "give one for each"),
        ({"needs": (1, 1, 3), "agents": 2}, "out of reach"),
        ({"needs": (1, 1, 2), "agents": 2, "collision": "block"}, "take reach=1"),
        ({"duel": ((0.0,),)}, "square matrix"),
        ({"view": 3, "agents": 8, "most_level": 8}, "status plane"),
        ({"change": "switch", "change_rate": 3}, "0..1"),
        ({"inhabitants": ("gredy",)}, "greedy"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make_world("candy", options)
    assert "\n" not in str(error.value)


def test_game_and_rules_are_the_same_world() -> None:
    """One step of a race from every 37th state with all pairs of actions, 400 times: chi-square, and exact rewards."""
    options = {"size": 3, "agents": 2, "candies": 2, "payoff": (1.0, 1.0, -1.0, -1.0), "slip": 0.2, "deadline": 6}
    world: Any = make_world("candy", options)
    assert world.solver == "stochastic game"
    one = Engine(world, 1, seed=3, threads=1)
    game = world.game(one.state, 0)
    assert game is not None and np.allclose(game.probability.sum(-1), 1)
    assert np.allclose(game.reward.sum(-1), 0), "what one gets the other loses"
    repeats, states = 400, np.arange(82, len(game.next_state), 37)
    state = np.repeat(states, 25 * repeats)
    action = np.tile(np.repeat(np.arange(25), repeats), len(states))
    batch = Engine(world, len(state), seed=5, threads=1)
    arrays = batch.get_state()
    for field, rows in game.fields.items():
        arrays[f"state.{field}"][:] = rows[state]
    batch.set_state(arrays)
    step = batch.step(np.stack((action // 5, action % 5), 1), autoreset=False)
    lookup = solve.StateIndex(game)  # type: ignore[arg-type]
    after = np.where(step.terminated, -2, lookup(batch.state._asdict()))
    pvalues = []
    for n in range(len(states) * 25):
        rows = slice(n * repeats, (n + 1) * repeats)
        s, a, b = int(state[rows][0]), int(action[rows][0]) // 5, int(action[rows][0]) % 5
        expected: dict[tuple[int, float], float] = {}
        for p, to, r, end in zip(
            game.probability[s, a, b],
            game.next_state[s, a, b],
            game.reward[s, a, b, :, 0],
            game.terminated[s, a, b],
            strict=True,
        ):
            key = (-2 if end else int(to), float(r))
            expected[key] = expected.get(key, 0.0) + float(p)
        seen = list(zip(after[rows].tolist(), step.reward[rows, 0].astype(float).tolist(), strict=True))
        assert set(seen) <= set(expected), f"state {s}, actions {a}, {b}"
        counts = np.array([seen.count(key) for key in expected], float)
        wanted = np.array(list(expected.values())) * repeats
        small = wanted < 5
        counts, wanted = (np.append(v[~small], v[small].sum()) for v in (counts, wanted))
        counts, wanted = counts[wanted > 0], wanted[wanted > 0]
        if len(wanted) > 1:
            pvalues.append(stats.chi2.sf(((counts - wanted) ** 2 / wanted).sum(), len(wanted) - 1))
    assert min(pvalues) > 1e-3 / len(pvalues)
    assert stats.kstest(pvalues, "uniform").statistic < 0.2


def test_solver_says_what_there_is() -> None:
    for id, (cls, _) in presets().items():
        if cls is Candy:
            world: Any = make_world(id)
            state, _ = begin(world, 1)
            if world.solver == "dynamic programming":
                assert world.model(state, 0) is not None
            elif world.solver:
                assert world.game(state, 0) is not None
            else:
                assert world.model(state, 0) is None and world.game(state, 0) is None


def test_a_full_board_with_a_wrong_count_is_refused() -> None:
    """Respawning looks for a free cell: on a board that is fuller than it says, it would look for ever."""
    env = Engine(make_world("candy", {"agents": 2, "size": 3, "candies": 1, "regrowth": "respawn"}), 1)
    state = env.get_state()
    state["state.candy"][state["state.candy"] == 0] = 1
    with pytest.raises(ValueError, match="left is not the number of candies"):
        env.set_state(state)
