"""Candy: one to eight collectors on a board of candies, with too little time to fetch them all.

The defaults are a small shortest-path problem for one collector. Dials turn it into the social worlds of the
literature: payoffs to others, regrowth, waste, changing values, candies that need two, zapping, gifts, duels, scripted
inhabitants. What a configuration does not use is compiled away: `features` is a constant to the compiler.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field, field_validator, model_validator

from ..core import MOST_STEPS, Array, Entity, Game, Model, Preset, Scene, World, WorldConfig, helper, outside, rule
from ..grid import DX, DY, U1, U2, U3, U4, U5, U6, U7, U8, copy_window, slip_outcomes
from ..inhabitants import NAMES, STAY, intent
from ..registry import world
from ..rng import GOLDEN, ONE, S11, S32, TO_UNIT, below, bits, chance, mix

MODEL_STATES = 40_000  # states up to which an exact model is built: cells * 2^candies, times seasons
MODEL_ENTRIES = 6_000_000  # states * actions * outcomes of a model
GAME_ENTRIES = 1_500_000  # states * actions * actions * outcomes of a game
POCKET = 4  # candies of a kind that fit into a collector's inventory
NOBODY = 254  # marks a collector's cell while candies are laid
OUTSIDE = 255  # board code of the rim beyond the board, as wide as a window's half
EACH, LOW, HIGH = (np.uint64(v * 0x0101010101010101) for v in (1, 0x7F, 0x80))  # the same byte eight times
BYTE, S16, S24, S40, S48, S56 = (np.uint64(v) for v in (255, 16, 24, 40, 48, 56))

# What a configuration uses, bits of `features`.
PLAIN = 1  # a candy pays its value to whoever takes it, and that is all
PAYOFF, OWNED, HIDDEN, NOISE, STATUS = 2, 4, 8, 16, 32
SPOTS, GROW, NEIGHBOUR, CLEANING, RESPAWN, ENDLESS = 64, 128, 256, 512, 1024, 2048
DRIFT, SEASONS, SWITCH, REACT = 4096, 8192, 16384, 32768
JOINT, NOBODY_WINS, LEVELS, BLOCK, FIRST = 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20
ZAP, GIFT, SIGNAL, DUEL, INHABITED, DRAWN, TYPES = 1 << 21, 1 << 22, 1 << 23, 1 << 24, 1 << 25, 1 << 26, 1 << 27


@helper
def slid(rng: Array, i: int, action: int, slip: float) -> int:
    """The law and the draws of `grid.slipped` without a branch on a random outcome, which processors guess wrongly."""
    if slip <= 0.0:
        return action
    move = action < 4
    count = rng[i, 1] + np.uint64(move)
    rng[i, 1] = count
    u = np.float64(mix(rng[i, 0] + count * GOLDEN) >> S11) * TO_UNIT
    turn = (u < slip) * (3 - 2 * (2.0 * u < slip))
    return int((action + turn) & 3) if move else action


@helper
def cell_of(s: Any, i: int, k: int, c: Any) -> int:
    """Where on the flat board, rim included, collector `k` stands."""
    pad = c.window // 2
    return (int(s.y[i, k]) + pad) * (c.size + 2 * pad) + int(s.x[i, k]) + pad


@helper
def distance(s: Any, i: int, a: int, b: int) -> int:
    """Steps between two collectors, |dy| + |dx|."""
    return abs(int(s.y[i, a]) - int(s.y[i, b])) + abs(int(s.x[i, a]) - int(s.x[i, b]))


@helper
def value_of(s: Any, i: int, kind: int, c: Any) -> float:
    """What a candy of board code `kind` (from 1) is worth now."""
    if c.features & (DRIFT | REACT):
        return s.value[i, kind]
    if c.features & (SEASONS | SWITCH):
        return c.worth[1 + (kind - 1 + int(s.shift[i])) % c.kinds]
    return c.worth[kind]


@helper
def pay(s: Any, i: int, k: int, kind: int, share: float, c: Any, reward: Array) -> None:
    """Collector `k` takes `share` of a candy: rewards of all, inventory, grudges."""
    value = value_of(s, i, kind, c) * share
    owner = (kind - 1) % c.bodies
    match = (c.features & OWNED) == 0 or owner == k
    if c.features & PAYOFF:
        if k < c.agents:
            reward[k] += value * (c.payoff[0] if match else c.payoff[1])
        to_others = value * (c.payoff[2] if match else c.payoff[3])
        for o in range(c.agents):  # a foreign candy hurts, or helps, its owner; one's own all the others
            if o != k and (match or o == owner):
                reward[o] += to_others
    else:  # without a branch on who it is: an inhabitant's gain is nobody's
        reward[min(k, c.agents - 1)] += value * (k < c.agents)
    if c.features & DUEL:
        at = k * c.kinds + kind - 1
        s.pocket[i, at] = min(int(s.pocket[i, at]) + 1, POCKET)
    if c.features & INHABITED and owner != k:
        s.grudge[i, owner] = 1
        s.grudge[i, k] = 0


@helper
def removed(s: Any, i: int, at: int, kind: int, c: Any, rng: Array) -> None:
    """A candy is gone from cell `at`: what follows for prices and for the board."""
    s.candy[i, at] = 0
    s.left[i] -= 1
    if c.features & REACT:
        s.value[i, kind] *= 1.0 - c.change_rate
    if c.features & RESPAWN:
        pad = c.window // 2
        while True:
            j = below(rng, i, c.size * c.size)
            there = (j // c.size + pad) * (c.size + 2 * pad) + j % c.size + pad
            taken = s.candy[i, there] > 0
            for o in range(c.bodies):
                taken = taken or cell_of(s, i, o, c) == there
            if not taken:
                break
        s.candy[i, there] = 1 + below(rng, i, c.kinds)
        s.left[i] += 1
        if c.features & SPOTS:
            for n in range(c.candies):
                if s.spot[i, n] == at:
                    s.spot[i, n] = there


@helper
def take_together(s: Any, i: int, c: Any, rng: Array, reward: Array) -> None:
    """After all have moved: each candy under a collector goes to those on its cell, or to all in reach where it needs them.

    They share it in proportion to their levels (level-based foraging, Albrecht & Ramamoorthy 2013).
    """
    for k in range(c.bodies):
        at = cell_of(s, i, k, c)
        kind = int(s.candy[i, at])
        if 0 < kind <= c.kinds:
            here, near, crowd = 0, 0, 0
            for o in range(c.bodies):
                steps = distance(s, i, k, o)
                here += int(s.level[i, o]) * (steps == 0)
                near += int(s.level[i, o]) * (steps <= c.reach)
                crowd += steps == 0
            alone = here >= c.need[kind]
            total = here if alone else near
            if total >= c.need[kind] and not (c.features & NOBODY_WINS and crowd > 1):
                for o in range(c.bodies):
                    if distance(s, i, k, o) <= (0 if alone else c.reach):
                        pay(s, i, o, kind, int(s.level[i, o]) / (total * 1.0), c, reward)
                removed(s, i, at, kind, c, rng)


@helper
def chosen(s: Any, i: int, k: int, action: int, c: Any) -> int:
    """The move that collector `k` makes with `action`: the frozen stay, and so do those who act instead of moving."""
    if c.features & ZAP and 0 < s.frozen[i, k] <= c.zap:  # zap + 1: hit in this very step, acts one more time
        return STAY
    return min(action, STAY)


@helper
def act(s: Any, i: int, k: int, action: int, c: Any, reward: Array) -> None:
    """Social actions of collector `k`, before anyone moves: zap, gift, signal, clean."""
    awake = True
    if c.features & ZAP:
        awake = s.frozen[i, k] == 0 or s.frozen[i, k] > c.zap
        if awake and action == c.zap_action:
            if k < c.agents:
                reward[k] -= c.zap_cost
            for o in range(c.bodies):
                if o != k and s.frozen[i, o] == 0 and distance(s, i, k, o) <= c.zap_range:
                    s.frozen[i, o] = c.zap + 1
                    if c.features & INHABITED:
                        s.grudge[i, o] = 1
    if c.features & GIFT and awake and action == c.gift_action:
        to, nearest = k, 1 << 30
        for o in range(c.bodies):
            steps = distance(s, i, k, o)
            if o != k and steps < nearest:
                to, nearest = o, steps
        if to != k:
            if k < c.agents:
                reward[k] -= c.gift
            if to < c.agents:
                reward[to] += c.gift
    if c.features & SIGNAL:
        s.signal[i, k] = awake and action == c.signal_action
    if c.features & CLEANING and awake and action == c.clean_action:
        pad = c.window // 2
        for d in range(5):
            y, x = int(s.y[i, k]) + DY[d], int(s.x[i, k]) + DX[d]
            if 0 <= y < c.size and 0 <= x < c.size:
                at = (y + pad) * (c.size + 2 * pad) + x + pad
                if s.candy[i, at] == c.kinds + 1:
                    s.candy[i, at] = 0
                    s.waste[i] -= 1


@helper
def fight(s: Any, i: int, c: Any, reward: Array) -> None:
    """Duels of collectors at most one step apart who both hold candies; afterwards their pockets are empty.

    With shares x and y of the kinds in their pockets the first gets x' M y and the second y' M x.
    """
    for a in range(c.bodies):
        for b in range(a + 1, c.bodies):
            if distance(s, i, a, b) <= 1:
                mine, yours, first, second = 0, 0, 0.0, 0.0
                for m in range(c.kinds):
                    mine += int(s.pocket[i, a * c.kinds + m])
                    yours += int(s.pocket[i, b * c.kinds + m])
                    for n in range(c.kinds):
                        first += c.duel[m, n] * (int(s.pocket[i, a * c.kinds + m]) * int(s.pocket[i, b * c.kinds + n]))
                        second += c.duel[m, n] * (int(s.pocket[i, b * c.kinds + m]) * int(s.pocket[i, a * c.kinds + n]))
                if mine > 0 and yours > 0:
                    if a < c.agents:
                        reward[a] += first / (mine * yours * 1.0)
                    if b < c.agents:
                        reward[b] += second / (mine * yours * 1.0)
                    for m in range(c.kinds):
                        s.pocket[i, a * c.kinds + m] = 0
                        s.pocket[i, b * c.kinds + m] = 0


@helper
def candies_near(s: Any, i: int, at: int, c: Any) -> int:
    """Candies within distance 2 (dy^2 + dx^2 <= 4) of flat cell `at`, itself left out."""
    pad = c.window // 2
    stride = c.size + 2 * pad
    y, x, count = at // stride, at % stride, 0
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            inside = pad <= y + dy < pad + c.size and pad <= x + dx < pad + c.size
            if inside and 0 < dy * dy + dx * dx <= 4:
                kind = s.candy[i, at + dy * stride + dx]
                count += 0 < kind <= c.kinds
    return count


@helper
def grow(s: Any, i: int, c: Any, rng: Array) -> None:
    """Candies grow again where some stood at the start: one draw for each such cell, in their order."""
    rate = c.grow_rate
    if c.features & CLEANING:
        rate *= max(0.0, 1.0 - s.waste[i] * c.dirt)
    key, count = rng[i, 0], rng[i, 1]
    for n in range(c.candies):
        count = count + ONE
        at = int(s.spot[i, n])
        u = np.float64(mix(key + count * GOLDEN) >> S11) * TO_UNIT
        if (u < rate) & (s.candy[i, at] == 0):
            if (c.features & NEIGHBOUR) == 0 or u < c.by_neighbours[(min(candies_near(s, i, at, c), 5) + 1) // 2]:
                s.candy[i, at] = s.grows[i, n]
                s.left[i] += 1
    rng[i, 1] = count
    if c.features & CLEANING:
        pad = c.window // 2
        j = below(rng, i, c.river_cells)
        at = (j // c.size + pad) * (c.size + 2 * pad) + j % c.size + pad
        if chance(rng, i, c.waste_rate) and s.candy[i, at] == 0:
            s.candy[i, at] = c.kinds + 1
            s.waste[i] += 1


@helper
def revalue(s: Any, i: int, c: Any, rng: Array) -> None:
    """Values change at the end of a step."""
    if c.features & DRIFT:
        coins = bits(rng, i)
        for kind in range(1, c.kinds + 1):
            up = np.int64(coins & ONE)
            coins = coins >> ONE
            v = s.value[i, kind] + (2.0 * up - 1.0) * c.change_rate
            v = 2.0 * c.bound - v if v > c.bound else v
            s.value[i, kind] = -2.0 * c.bound - v if v < -c.bound else v
    on = False
    if c.features & SEASONS:
        s.phase[i] += 1
        on = s.phase[i] >= c.period
        if on:
            s.phase[i] = 0
    if c.features & SWITCH:
        on = chance(rng, i, c.change_rate)
    if c.features & (SEASONS | SWITCH):
        s.shift[i] = (int(s.shift[i]) + on) % c.kinds


@helper
def misread(s: Any, i: int, k: int, c: Any, out: Array, plane: int) -> None:
    """Replace each code in out[:plane], with probability `noise`, by another one drawn uniformly; the rim stays.

    `observe` draws nothing: the error is a hash of the step's own random word, the collector and the cell.
    """
    codes = c.kinds + (2 if c.features & CLEANING else 1)
    for j in range(plane):
        h = mix(s.noise[i] + np.uint64(k * plane + j + 1) * GOLDEN)
        u = np.float64(h >> S11) * TO_UNIT
        other = np.int64(((mix(h + GOLDEN) >> S32) * np.uint64(codes - 1)) >> S32)
        code = int(out[j])
        if u < c.noise and code != OUTSIDE:
            out[j] = (code + 1 + other) % codes


@helper
def word(source: Array, at: Any) -> Any:
    """Eight bytes of `source` from the uint64 index `at` on as one number, the first byte lowest: one load."""
    low = np.uint64(source[at]) | np.uint64(source[at + U1]) << U8 | np.uint64(source[at + U2]) << S16
    low = low | np.uint64(source[at + U3]) << S24 | np.uint64(source[at + U4]) << S32 | np.uint64(source[at + U5]) << S40
    return low | np.uint64(source[at + U6]) << S48 | np.uint64(source[at + U7]) << S56


@helper
def put_word(out: Array, at: int, bytes_: Any) -> None:
    """Write eight bytes from out[at] on: one store."""
    a = np.uint64(at)
    out[a], out[a + U1], out[a + U2] = (
        np.uint8(bytes_ & BYTE),
        np.uint8((bytes_ >> U8) & BYTE),
        np.uint8((bytes_ >> S16) & BYTE),
    )
    out[a + U3], out[a + U4] = np.uint8((bytes_ >> S24) & BYTE), np.uint8((bytes_ >> S32) & BYTE)
    out[a + U5], out[a + U6] = np.uint8((bytes_ >> S40) & BYTE), np.uint8((bytes_ >> S48) & BYTE)
    out[a + U7] = np.uint8(bytes_ >> S56)


@helper
def equal(bytes_: Any, code: int) -> Any:
    """1 in each of eight bytes that is `code`, else 0 (Warren, Hacker's Delight, section 6-1: find the zero byte)."""
    x = bytes_ ^ (EACH * np.uint64(code))
    return (~(((x & LOW) + LOW) | x) & HIGH) >> U7


@helper
def spread(codes: Any, k: int, c: Any, out: Array, j: int, plane: int, shown: int, waste: int) -> None:
    """Eight cells' codes, from cell `j` on, to the planes of candies, of the agent (or what is outside) and of waste."""
    if c.features & HIDDEN:
        none = equal(codes, 0) | equal(codes, OUTSIDE)
        if c.features & CLEANING:
            none = none | equal(codes, c.kinds + 1)
        put_word(out, j, none ^ EACH)
    else:
        for p in range(c.kinds):
            put_word(out, p * plane + j, equal(codes, 1 + ((p + k) % c.kinds if c.features & OWNED else p)))
    put_word(out, shown * plane + j, equal(codes, OUTSIDE) if c.window > 0 else np.uint64(0))
    if c.features & CLEANING:
        put_word(out, waste + j, equal(codes, c.kinds + 1))


@helper
def spread_one(code: Any, k: int, c: Any, out: Array, j: int, plane: int, shown: int, waste: int) -> None:
    """`spread` for the code of the single cell `j`."""
    if c.features & HIDDEN:
        out[np.uint64(j)] = (code > 0) & (code <= c.kinds)
    else:
        for p in range(c.kinds):
            out[np.uint64(p * plane + j)] = code == 1 + ((p + k) % c.kinds if c.features & OWNED else p)
    out[np.uint64(shown * plane + j)] = code == OUTSIDE
    if c.features & CLEANING:
        out[np.uint64(waste + j)] = code == c.kinds + 1


@helper
def tell(s: Any, i: int, k: int, c: Any, out: Array, at: int) -> None:
    """Write the status plane's bits from out[at] on, in the order that `Candy` documents."""
    if c.features & SEASONS:
        out[at + int(s.shift[i])] = 1
        at += c.kinds
    if c.features & ZAP:
        out[at] = 0 < s.frozen[i, k] <= c.zap
        at += 1
    if c.features & SIGNAL:
        for j in range(1, c.bodies):
            out[at + j - 1] = s.signal[i, (k + j) % c.bodies]
        at += c.bodies - 1
    if c.features & LEVELS:
        for j in range(c.bodies):
            for m in range(s.level[i, (k + j) % c.bodies]):
                out[at + m] = 1
            at += c.most_level
    if c.features & DUEL:
        for kind in range(c.kinds):
            for m in range(s.pocket[i, k * c.kinds + kind]):
                out[at + m] = 1
            at += POCKET
    if c.features & TYPES:
        for o in range(c.agents, c.bodies):
            out[at + int(s.type[i, o])] = 1
            at += c.type_names


RPS = ((0.0, -1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 1.0, 0.0))  # rock, paper, scissors


@world("candy")
class Candy(World):
    """Collect candies of different value before the time is up.

    Actions: left, down, right, up, stay; then those of the configuration, in this order: zap, gift, signal, clean. Who
    acts stays where it is. Social actions come first, then the moves, in an order drawn each step (see `tie`).

    Observation, uint8 0/1 planes (planes, rows, columns): one plane per kind of candy (with `hidden_kinds` one for all;
    with `owned` the agent's own kind first); the agent itself (in a window: what lies outside the board); a clock, as
    many ones as steps are left (scaled if they are more than cells); where there are several collectors, the others; with
    regrowth=cleaning the waste; where something else is to be known a status plane, whose cells hold, row by row: the
    season (one of the kinds), whether the agent is frozen, the others' signals, the levels of all from the agent on
    (as many ones), its inventory (four cells a kind), the inhabitants' types unless hidden. view=0 shows the whole board,
    an odd view a window centred on the agent.

    Reward: the value of the candy stepped on, unless `payoff` says otherwise. The episode is over at the deadline, and
    when no candy is left unless they grow again or duels remain. Collectors may share a cell (see `collision`).
    Inhabitants are the last collectors; they follow `envs/inhabitants.py` and are no agents of the world.
    """

    presets: ClassVar[dict[str, Preset]] = {
        "candy-solo": Preset("one collector, three kinds, 14 steps: the defaults", {}),
        "candy-race": Preset(
            "two collectors, zero-sum: what one gets the other loses",
            {"agents": 2, "size": 5, "candies": 5, "payoff": (1.0, 1.0, -1.0, -1.0), "deadline": 12},
        ),
        "coins": Preset(
            "coin game (Lerer & Peysakhovich 2017): +1 for any coin, -2 to the owner of a coin that another takes",
            {"agents": 2, "size": 3, "candies": 1, "values": (1.0, 1.0), "owned": True, "payoff": (1.0, 1.0, 0.0, -2.0),
             "regrowth": "respawn", "slip": 0.0, "deadline": 150},
        ),
        "commons": Preset(
            "common-pool harvest (Perolat et al. 2017): what is eaten bare does not grow again",
            {"agents": 4, "size": 10, "candies": 30, "values": (1.0,), "regrowth": "neighbour", "view": 7, "slip": 0.0,
             "collision": "block", "zap": 10, "zap_range": 2, "deadline": 500},
        ),
        "cleanup": Preset(
            "Clean Up (Hughes et al. 2018): candies grow only while somebody cleans the river",
            {"agents": 4, "size": 10, "candies": 24, "values": (1.0,), "regrowth": "cleaning", "river": 2, "view": 7,
             "slip": 0.0, "deadline": 500},
        ),
        "candy-stag": Preset(
            "stag hunt: a hare is taken alone, a stag, worth ten, by two who stand side by side",
            {"agents": 2, "size": 5, "candies": 4, "values": (1.0, 10.0), "needs": (1, 2), "reach": 1,
             "regrowth": "respawn", "deadline": 50},
        ),
        "candy-poison": Preset(
            "all candies look alike, a third are poison: where two lie close is as safe as where one does",
            {"values": (1.0, 2.0, -4.0), "hidden_kinds": True},
        ),
        "candy-seasons": Preset(
            "the values of the kinds go round every five steps",
            {"change": "seasons", "period": 5, "candies": 6},
        ),
        "candy-rps": Preset(
            "inventory rock-paper-scissors (after Melting Pot's running with scissors): collect, then meet",
            {"agents": 2, "size": 7, "view": 5, "candies": 12, "values": (0.0, 0.0, 0.0), "duel": RPS,
             "regrowth": "iid", "grow_rate": 0.05, "deadline": 100},
        ),
        "candy-greedy-rival": Preset(
            "one agent against a scripted collector that goes to the nearest candy",
            {"inhabitants": ("greedy",), "size": 5, "candies": 4, "slip": 0.0},
        ),
        "candy-mixed-company": Preset(
            "four agents and two inhabitants whose types are drawn each episode and not shown",
            {"agents": 4, "size": 7, "candies": 12, "deadline": 20, "drawn_inhabitants": 2,
             "inhabitants": ("greedy", "denier", "tit-for-tat", "level-2", "switcher")},
        ),
    }  # fmt: skip

    class Config(WorldConfig):
        size: int = Field(6, ge=2, le=32, description="rows and columns of the board")
        candies: int = Field(6, ge=1, le=64, description="candies at the start of an episode")
        values: tuple[float, ...] = Field((1.0, 2.0, 5.0), min_length=1, max_length=8, description="value of each kind")
        agents: int = Field(1, ge=1, le=8, description="collectors that learn")
        slip: float = Field(0.1, ge=0, le=1, description="probability that a move goes to one of its two sides")
        view: int = Field(0, ge=0, le=63, description="side of the window around the agent, odd; 0 shows the whole board")
        deadline: int = Field(14, ge=1, le=10_000, description="steps until the game is over; the agent sees the clock")
        time_limit: int = Field(
            0, ge=0, le=MOST_STEPS, description="steps until an episode is truncated, unseen; 0 means never"
        )
        hidden_kinds: bool = Field(False, description="all kinds look alike in the observation")
        noise: float = Field(0.0, ge=0, le=1, description="probability that a cell of the board is read wrongly")
        owned: bool = Field(False, description="kind j belongs to collector j modulo the number of collectors")
        payoff: tuple[float, float, float, float] = Field(
            (1.0, 1.0, 0.0, 0.0),
            description="share of a candy's value: to the taker if its own, if foreign; to each other if the taker's own, "
            "to the owner if foreign; nothing is foreign unless owned",
        )
        regrowth: Literal["none", "iid", "neighbour", "cleaning", "respawn"] = Field(
            "none",
            description="iid: each bare starting cell with grow_rate; neighbour: by candies within distance 2; "
            "cleaning: grow_rate falls with waste; respawn: a taken one appears elsewhere",
        )
        grow_rate: float = Field(0.05, ge=0, le=1, description="probability per step of regrowth iid and cleaning")
        by_neighbours: tuple[float, float, float, float] = Field(
            (0.0, 0.01, 0.05, 0.1), description="probability of regrowth with 0, 1-2, 3-4, more than 4 candies near"
        )
        river: int = Field(1, ge=1, le=16, description="rows at the top that gather waste, with regrowth=cleaning")
        waste_rate: float = Field(0.5, ge=0, le=1, description="probability per step that waste falls on a river cell")
        waste_limit: float = Field(0.4, gt=0, le=1, description="share of the river from which nothing grows")
        change: Literal["fixed", "drift", "seasons", "switch", "reaction"] = Field(
            "fixed",
            description="values: drift: a step of +-change_rate each, reflected at twice the largest; seasons: kinds swap "
            "values every period; switch: they do with probability change_rate, unseen; reaction: each candy taken "
            "by anyone lowers its kind's value by the share change_rate",
        )
        change_rate: float = Field(0.1, ge=0, le=1e6, description="size or probability of a change of values")
        period: int = Field(5, ge=1, le=10_000, description="steps of a season")
        needs: tuple[int, ...] = Field((), description="for each kind the sum of levels that takes it; empty: 1 each")
        reach: int = Field(0, ge=0, le=4, description="steps from which a collector helps one that stands on a candy")
        most_level: int = Field(1, ge=1, le=8, description="collectors' levels are drawn from 1 to this each episode")
        collision: Literal["share", "block"] = Field("share", description="block: nobody enters a cell that is taken")
        tie: Literal["random", "first", "split", "nobody"] = Field(
            "random",
            description="who gets a candy that two step on: the first in random order, or of the lowest number; all share "
            "it; nobody, and it stays",
        )
        zap: int = Field(0, ge=0, le=1000, description="steps that a zap freezes others in range; 0: no such action")
        zap_range: int = Field(1, ge=0, le=62, description="steps that a zap reaches")
        zap_cost: float = Field(0.0, ge=0, le=1e6, description="what a zap costs")
        gift: float = Field(0.0, ge=0, le=1e6, description="reward that a gift hands to the nearest other; 0: no such action")
        signal: bool = Field(False, description="an action that sets a bit which the others see after the step")
        duel: tuple[tuple[float, ...], ...] = Field(
            (), description="payoff of kinds against kinds when two meet, by their inventories; empty: no inventory"
        )
        inhabitants: tuple[Literal[NAMES], ...] = Field(  # type: ignore[valid-type]
            (), max_length=9, description="scripted collectors beside the agents, by name"
        )
        drawn_inhabitants: int = Field(
            0, ge=0, le=7, description="that many inhabitants, their types drawn from `inhabitants` each episode; 0: as listed"
        )
        inhabitants_hidden: bool = Field(True, description="agents do not see the inhabitants' types")

        @field_validator("view")
        @classmethod
        def _odd(cls, view: int) -> int:
            if view and view % 2 == 0:
                raise ValueError(f"view must be odd, so that the agent is in its middle: try {view + 1}")
            return view

        @field_validator("values", "payoff", "duel")
        @classmethod
        def _finite(cls, values: Any) -> Any:
            if not all(abs(v) <= 1e6 for row in values for v in (row if isinstance(row, tuple) else (row,))):
                raise ValueError("values must be finite and at most 1e6 in size")
            return values

        @field_validator("by_neighbours")
        @classmethod
        def _probabilities(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
            if not all(0 <= p <= 1 for p in rates):
                raise ValueError("probabilities of regrowth must be in 0..1")
            return rates

        @property
        def bodies(self) -> int:
            """Collectors on the board, inhabitants included."""
            return self.agents + (self.drawn_inhabitants or len(self.inhabitants))

        @model_validator(mode="after")
        def _fits_together(self) -> Any:
            kinds, bodies = len(self.values), self.bodies
            if self.drawn_inhabitants and not self.inhabitants:
                raise ValueError("drawn_inhabitants needs types to draw from: name some in inhabitants")
            if bodies > 8:
                raise ValueError(f"{bodies} collectors are more than 8: take fewer agents or inhabitants")
            cells = self.size * self.size - (self.river * self.size if self.regrowth == "cleaning" else 0)
            if self.candies + bodies > cells:
                raise ValueError(
                    f"{self.candies} candies and {bodies} agents do not fit on {max(cells, 0)} cells: "
                    "take a larger size or fewer candies"
                )
            if self.needs and len(self.needs) != kinds:
                raise ValueError(f"needs has {len(self.needs)} numbers for {kinds} kinds: give one for each")
            if any(not 1 <= need <= bodies * self.most_level for need in self.needs):
                raise ValueError(
                    f"needs must be from 1 to {bodies * self.most_level}, all levels together: more is out of reach"
                )
            if self.needs and self.tie == "nobody":
                raise ValueError("tie=nobody leaves candies that need two to nobody: take tie=split with needs")
            if self.duel and (len(self.duel) != kinds or any(len(row) != kinds for row in self.duel)):
                raise ValueError(f"duel must be a square matrix with a row and a column for each of {kinds} kinds")
            if self.change == "drift" and self.change_rate > 2 * max(abs(v) for v in self.values):
                raise ValueError("change_rate of a drift is above twice the largest value: take a smaller one")
            if self.change in ("switch", "reaction") and self.change_rate > 1:
                raise ValueError(f"change_rate is a share or a probability with change={self.change}: take one in 0..1")
            side = self.view or self.size
            if status_bits(self) > side * side:
                raise ValueError(
                    f"the status plane needs {status_bits(self)} cells and has {side * side}: take a larger view or size"
                )
            return self

    class State(NamedTuple):
        candy: Array  # uint8 (N, board): 0 nothing, 1 + kind, 1 + kinds waste; a window's rim of OUTSIDE around
        y: Array  # int16 (N, bodies)
        x: Array  # int16 (N, bodies)
        left: Array  # int16 (N,): candies on the board
        time: Array  # int16 (N,): steps done
        spot: Array  # int16 (N, candies): flat cells where candies stood at the start, or stand now with respawn
        grows: Array  # uint8 (N, candies): what grows there
        value: Array  # float64 (N, 1 + kinds): of drift and reaction
        shift: Array  # uint8 (N,): kind j is worth values[(j + shift) % kinds]
        phase: Array  # int16 (N,): steps of the running season
        waste: Array  # int16 (N,): cells with waste
        level: Array  # uint8 (N, bodies)
        frozen: Array  # int16 (N, bodies): steps until it may act again
        signal: Array  # uint8 (N, bodies)
        pocket: Array  # uint8 (N, bodies * kinds): inventories
        type: Array  # uint8 (N, bodies): inhabitants.NAMES
        grudge: Array  # uint8 (N, bodies): somebody took its candy or zapped it
        intent: Array  # uint8 (N, bodies): what inhabitants do in this step
        noise: Array  # uint64 (N,): the step's word for misread

    class Constants(NamedTuple):
        size: int
        candies: int
        kinds: int
        agents: int
        bodies: int
        window: int
        features: int
        slip: float
        deadline: int
        payoff: Array  # float64 (4,)
        worth: Array  # float64 (2 + kinds,): value by board code, 0 for nothing and for waste
        appeal: Array  # float64 (2 + kinds,): the same for inhabitants; 1 each where all values are 0
        need: Array  # int64 (2 + kinds,)
        reach: int
        most_level: int
        clock: Array  # int16 (deadline + 1,): ones on the clock after that many steps
        ramp: Array  # uint8 (2 * plane,): as many ones as a plane has cells, then zeros
        grow_rate: float
        by_neighbours: Array  # float64 (4,)
        river_cells: int
        waste_rate: float
        waste_start: int
        dirt: float  # 1 / (waste_limit * river cells)
        change_rate: float
        bound: float
        period: int
        noise: float
        zap: int
        zap_range: int
        zap_cost: float
        gift: float
        zap_action: int  # -1: there is none
        gift_action: int
        signal_action: int
        clean_action: int
        duel: Array  # float64 (kinds, kinds)
        types: Array  # uint8 (names,)
        type_names: int

    static = ("kinds", "agents", "bodies", "window", "size", "features")

    @property
    def horizon(self) -> int:
        return min(self.config.deadline, self.config.time_limit or self.config.deadline)

    @property
    def num_agents(self) -> int:
        return int(self.config.agents)

    @property
    def features(self) -> int:
        """The bits of everything that this configuration uses."""
        o = self.config
        used = {
            PAYOFF: o.payoff != (1.0, 1.0, 0.0, 0.0), OWNED: o.owned, HIDDEN: o.hidden_kinds, NOISE: o.noise > 0,
            STATUS: status_bits(o) > 0, SPOTS: o.regrowth in ("iid", "neighbour", "cleaning") or o.bodies > o.agents,
            GROW: o.regrowth in ("iid", "neighbour", "cleaning"), NEIGHBOUR: o.regrowth == "neighbour",
            CLEANING: o.regrowth == "cleaning", RESPAWN: o.regrowth == "respawn",
            ENDLESS: o.regrowth != "none" or bool(o.duel), DRIFT: o.change == "drift", SEASONS: o.change == "seasons",
            SWITCH: o.change == "switch", REACT: o.change == "reaction",
            JOINT: o.tie in ("split", "nobody") or bool(o.needs), NOBODY_WINS: o.tie == "nobody", LEVELS: o.most_level > 1,
            BLOCK: o.collision == "block", FIRST: o.tie == "first", ZAP: o.zap > 0, GIFT: o.gift > 0, SIGNAL: o.signal,
            DUEL: bool(o.duel), INHABITED: o.bodies > o.agents, DRAWN: o.drawn_inhabitants > 0,
            TYPES: o.bodies > o.agents and not o.inhabitants_hidden,
        }  # fmt: skip
        bits = sum(bit for bit, on in used.items() if on)
        special = PAYOFF | CLEANING | RESPAWN | DRIFT | SEASONS | SWITCH | REACT | JOINT | DUEL | INHABITED
        return bits | (0 if bits & special else PLAIN)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        o, side = self.config, self.config.view or self.config.size
        planes = (1 if o.hidden_kinds else len(o.values)) + 2 + (o.bodies > 1) + (o.regrowth == "cleaning")
        return gymnasium.spaces.Box(0, 1, (planes + (status_bits(o) > 0), side, side), np.uint8)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        o = self.config
        return gymnasium.spaces.Discrete(5 + (o.zap > 0) + (o.gift > 0) + o.signal + (o.regrowth == "cleaning"))

    def allocate(self, n: int) -> State:
        o, used = self.config, self.features
        stride, kinds = o.size + 2 * (o.view // 2), len(o.values)
        board = stride * stride + (8 if o.view else 0)  # copy_window reads whole words

        def array(dtype: Any, size: int, feature: int) -> Array:
            return np.zeros((n, size if used & feature else 1), dtype)

        return self.State(
            candy=np.zeros((n, board), np.uint8),
            y=np.zeros((n, o.bodies), np.int16),
            x=np.zeros((n, o.bodies), np.int16),
            left=np.zeros(n, np.int16),
            time=np.zeros(n, np.int16),
            spot=array(np.int16, o.candies, SPOTS),
            grows=array(np.uint8, o.candies, SPOTS),
            value=array(np.float64, 1 + kinds, DRIFT | REACT),
            shift=np.zeros(n, np.uint8),
            phase=np.zeros(n, np.int16),
            waste=np.zeros(n, np.int16),
            level=array(np.uint8, o.bodies, JOINT | LEVELS | INHABITED),
            frozen=array(np.int16, o.bodies, ZAP | INHABITED),
            signal=array(np.uint8, o.bodies, SIGNAL),
            pocket=array(np.uint8, o.bodies * kinds, DUEL),
            type=array(np.uint8, o.bodies, INHABITED),
            grudge=array(np.uint8, o.bodies, INHABITED),
            intent=array(np.uint8, o.bodies, INHABITED),
            noise=np.zeros(n, np.uint64),
        )

    def constants(self) -> Constants:
        o = self.config
        kinds, side = len(o.values), o.view or o.size
        plane = side * side
        left = o.deadline - np.arange(o.deadline + 1)
        clock = (left * plane + o.deadline - 1) // o.deadline if o.deadline > plane else left
        ramp = np.concatenate((np.ones(plane, np.uint8), np.zeros(plane, np.uint8)))
        worth = np.array([0.0, *o.values, 0.0])
        appeal = worth if worth.any() else np.array([0.0, *[1.0] * kinds, 0.0])
        actions, at = [], 5
        for there in (o.zap > 0, o.gift > 0, o.signal, o.regrowth == "cleaning"):
            actions.append(at if there else -1)
            at += there
        river = o.river * o.size if o.regrowth == "cleaning" else 0
        rate = max(o.by_neighbours) if o.regrowth == "neighbour" else o.grow_rate
        types = np.array([NAMES.index(name) for name in o.inhabitants] or [0], np.uint8)
        return self.Constants(
            size=o.size, candies=o.candies, kinds=kinds, agents=o.agents, bodies=o.bodies, window=o.view,
            features=self.features, slip=o.slip, deadline=o.deadline, payoff=np.array(o.payoff), worth=worth, appeal=appeal,
            need=np.array([1, *(o.needs or [1] * kinds), 1], np.int64), reach=o.reach, most_level=o.most_level,
            clock=clock.astype(np.int16), ramp=ramp, grow_rate=float(rate), by_neighbours=np.array(o.by_neighbours),
            river_cells=river, waste_rate=o.waste_rate, waste_start=river // 2, dirt=1.0 / max(o.waste_limit * river, 1e-9),
            change_rate=float(o.change_rate), bound=2.0 * max(abs(v) for v in o.values), period=o.period, noise=o.noise,
            zap=o.zap, zap_range=o.zap_range, zap_cost=o.zap_cost, gift=o.gift, zap_action=actions[0],
            gift_action=actions[1], signal_action=actions[2], clean_action=actions[3],
            duel=np.array(o.duel or np.zeros((1, 1)), np.float64), types=types, type_names=len(NAMES),
        )  # fmt: skip

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        pad = c.window // 2
        stride, board = c.size + 2 * pad, s.candy[i]
        if c.window > 0:
            for j in range(stride * stride):
                board[j] = OUTSIDE
            for j in range(c.size * c.size):
                board[(j // c.size + pad) * stride + j % c.size + pad] = 0
        else:
            for j in range(c.size * c.size):
                board[j] = 0
        s.left[i], s.time[i] = c.candies, 0
        start, free = c.river_cells, c.size * c.size - c.river_cells
        for k in range(c.bodies):  # distinct cells for collectors: marked while candies are laid
            while True:
                j = start + below(rng, i, c.size * c.size - start)
                y, x = j // c.size, j % c.size
                if board[(y + pad) * stride + x + pad] == 0:
                    break
            board[(y + pad) * stride + x + pad] = NOBODY
            s.y[i, k], s.x[i, k] = y, x
            free -= 1
        needed = c.candies
        for j in range(start, c.size * c.size):  # selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, S)
            at = j if c.window == 0 else (j // c.size + pad) * stride + j % c.size + pad
            if board[at] == 0:
                if below(rng, i, free) < needed:
                    kind = 1 + below(rng, i, c.kinds)
                    board[at] = kind
                    if c.features & SPOTS:
                        s.spot[i, c.candies - needed], s.grows[i, c.candies - needed] = at, kind
                    needed -= 1
                free -= 1
        for k in range(c.bodies):
            board[cell_of(s, i, k, c)] = 0
        if c.features & CLEANING:
            s.waste[i] = c.waste_start
            needed = c.waste_start
            for j in range(c.river_cells):
                if below(rng, i, c.river_cells - j) < needed:
                    board[(j // c.size + pad) * stride + j % c.size + pad] = c.kinds + 1
                    needed -= 1
        if c.features & (DRIFT | REACT):
            for kind in range(1, c.kinds + 1):
                s.value[i, kind] = c.worth[kind]
        s.shift[i], s.phase[i] = 0, 0
        for k in range(c.bodies):
            if c.features & (JOINT | LEVELS | INHABITED):
                s.level[i, k] = 1 + below(rng, i, c.most_level) if c.features & LEVELS else 1
            if c.features & (ZAP | INHABITED):
                s.frozen[i, k] = 0
            if c.features & SIGNAL:
                s.signal[i, k] = 0
            if c.features & DUEL:
                for kind in range(c.kinds):
                    s.pocket[i, k * c.kinds + kind] = 0
            if c.features & INHABITED:
                s.grudge[i, k], s.intent[i, k] = 0, 0
                if k >= c.agents:
                    s.type[i, k] = c.types[below(rng, i, c.types.shape[0]) if c.features & DRAWN else k - c.agents]
        if c.features & NOISE:
            s.noise[i] = bits(rng, i)

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        board = s.candy[i]
        if c.features & INHABITED:
            for k in range(c.agents):
                s.intent[i, k] = action[k]
            for k in range(c.agents, c.bodies):
                s.intent[i, k] = intent(s, i, k, c, rng)
        if c.features & (ZAP | GIFT | SIGNAL | CLEANING):
            for k in range(c.bodies):
                act(s, i, k, int(s.intent[i, k]) if c.features & INHABITED else action[k], c, reward)
        first = below(rng, i, c.bodies) if c.bodies > 1 and (c.features & FIRST) == 0 else 0
        for turn in range(c.bodies):
            k = (first + turn) % c.bodies
            d = slid(rng, i, chosen(s, i, k, int(s.intent[i, k]) if c.features & INHABITED else action[k], c), c.slip)
            y = min(max(int(s.y[i, k]) + DY[d], 0), c.size - 1)
            x = min(max(int(s.x[i, k]) + DX[d], 0), c.size - 1)
            if c.features & BLOCK:
                blocked = False
                for o in range(c.bodies):
                    blocked |= (o != k) & (s.y[i, o] == y) & (s.x[i, o] == x)
                y, x = (int(s.y[i, k]) if blocked else y), (int(s.x[i, k]) if blocked else x)
            s.y[i, k], s.x[i, k] = y, x
            at = cell_of(s, i, k, c)
            kind = int(board[at])
            if c.features & PLAIN:  # without a branch: nothing is worth nothing
                reward[k] += c.worth[kind]
                board[at] = 0
                s.left[i] -= kind > 0
            elif (c.features & JOINT) == 0 and 0 < kind <= c.kinds:
                pay(s, i, k, kind, 1.0, c, reward)
                removed(s, i, at, kind, c, rng)
        if c.features & JOINT:
            take_together(s, i, c, rng, reward)
        if c.features & DUEL:
            fight(s, i, c, reward)
        if c.features & GROW:
            grow(s, i, c, rng)
        if c.features & (DRIFT | SEASONS | SWITCH):
            revalue(s, i, c, rng)
        if c.features & ZAP:
            for k in range(c.bodies):
                s.frozen[i, k] -= s.frozen[i, k] > 0
        if c.features & NOISE:
            s.noise[i] = bits(rng, i)
        s.time[i] += 1
        return ((c.features & ENDLESS) == 0 and s.left[i] == 0) or s.time[i] >= c.deadline

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        side = c.window if c.window > 0 else c.size
        plane, board = side * side, s.candy[i]
        shown = 1 if c.features & HIDDEN else c.kinds
        top = int(s.y[i, k]) - c.window // 2 if c.window > 0 else 0
        left = int(s.x[i, k]) - c.window // 2 if c.window > 0 else 0
        if c.window > 0:  # the window's codes go to the first plane, and from there, the first plane last, to all others
            at = int(s.y[i, k]) * (c.size + 2 * (c.window // 2)) + int(s.x[i, k])
            copy_window(board, at, c.size + 2 * (c.window // 2), c.window, out, 0, plane)
        elif c.features & NOISE:
            for j in range(plane):
                out[j] = board[j]
        if c.features & NOISE:
            misread(s, i, k, c, out, plane)
        codes = out if c.window > 0 or c.features & NOISE else board
        last = shown + (3 if c.bodies > 1 else 2)
        waste = -1
        if c.features & CLEANING:
            waste = last * plane
            last += 1
        for j in range(0, plane - plane % 8, 8):
            spread(word(codes, np.uint64(j)), k, c, out, j, plane, shown, waste)
        for j in range(plane - plane % 8, plane):
            spread_one(codes[j], k, c, out, j, plane, shown, waste)
        if c.window == 0:
            out[np.uint64(shown * plane + int(s.y[i, k]) * side + int(s.x[i, k]))] = 1
        begin = np.uint64(plane - int(c.clock[min(s.time[i], c.deadline)]))
        for j in range(plane):
            out[np.uint64((shown + 1) * plane + j)] = c.ramp[begin + np.uint64(j)]
        if c.bodies > 1:
            base = (shown + 2) * plane
            for j in range(plane):
                out[np.uint64(base + j)] = 0
            for o in range(c.bodies):
                row, column = int(s.y[i, o]) - top, int(s.x[i, o]) - left
                seen = (o != k) & (row >= 0) & (row < side) & (column >= 0) & (column < side)
                out[np.uint64(base + (row * side + column if seen else 0))] |= seen
        if c.features & STATUS:
            for j in range(plane):
                out[np.uint64(last * plane + j)] = 0
            tell(s, i, k, c, out, last * plane)

    def check_state(self, s: Any) -> str | None:
        o, used = self.config, self.features
        n, kinds, pad = len(s.time), len(o.values), o.view // 2
        stride = o.size + 2 * pad
        board = s.candy[:, : stride * stride].reshape(n, stride, stride)
        inside = board[:, pad : pad + o.size, pad : pad + o.size]
        if pad and int((board == OUTSIDE).sum()) != n * (stride * stride - o.size * o.size):
            return "candy does not end at the board's rim"
        if outside(inside, 0, kinds + bool(used & CLEANING)) or outside(s.left, 0, o.candies):
            return "candy holds an unknown kind, or left is out of bounds"
        if (((inside > 0) & (inside <= kinds)).sum((1, 2)) != s.left).any():
            return "left is not the number of candies on the board"
        if ((inside == kinds + 1).sum((1, 2)) != s.waste).any():
            return "waste is not the number of cells that hold some"
        wrong = outside(s.y, 0, o.size - 1) or outside(s.x, 0, o.size - 1) or outside(s.time, 0, o.deadline)
        if wrong:
            return "y, x or time is out of bounds"
        if used & SPOTS:
            y, x = np.divmod(s.spot.astype(np.int64), stride)
            if outside(y, pad, pad + o.size - 1) or outside(x, pad, pad + o.size - 1) or outside(s.grows, 1, kinds):
                return "spot or grows is out of bounds"
        bounds = (
            ("shift", s.shift, kinds - 1), ("phase", s.phase, max(o.period - 1, 0)), ("level", s.level, o.most_level),
            ("frozen", s.frozen, o.zap + 1), ("signal", s.signal, 1), ("pocket", s.pocket, POCKET),
            ("type", s.type, len(NAMES) - 1), ("grudge", s.grudge, 1), ("intent", s.intent, 8),
        )  # fmt: skip
        for name, array, most in bounds:
            if outside(array, 0, most):
                return f"{name} is out of bounds"
        return "value is out of bounds" if outside(s.value, -2e6, 2e6) else None

    def scene(self, s: Any, i: int) -> Scene:
        o = self.config
        pad = o.view // 2
        stride = o.size + 2 * pad
        board = s.candy[i, : stride * stride].reshape(stride, stride)[pad : pad + o.size, pad : pad + o.size]
        kinds = len(o.values)
        candies = [
            Entity(int(y), int(x), "candy" if board[y, x] <= kinds else "waste", int(board[y, x]) - 1)
            for y, x in np.argwhere(board)
        ]
        agents = [Entity(int(s.y[i, k]), int(s.x[i, k]), "agent", k) for k in range(o.bodies)]
        caption = f"{o.deadline - int(s.time[i])} steps left"
        cells = np.full((o.size, o.size), ".")
        if o.regrowth == "cleaning":
            cells[: o.river] = "~"
            caption += f", waste {int(s.waste[i])} of {o.river * o.size}"
        if o.bodies > o.agents:
            caption += f", from {o.agents} on: " + ", ".join(NAMES[t] for t in s.type[i, o.agents :])
        if o.zap and (s.frozen[i] > 0).any():
            caption += ", frozen: " + ", ".join(str(k) for k in np.flatnonzero(s.frozen[i] > 0))
        return Scene(cells, (*candies, *agents), caption=caption)

    @property
    def _model_shape(self) -> tuple[int, int, int] | None:
        """(shifts, phases, outcomes) of an exact model with all candies, or None where there is none."""
        o, used = self.config, self.features
        never = CLEANING | NEIGHBOUR | RESPAWN | DRIFT | REACT | JOINT | LEVELS | ZAP | GIFT | SIGNAL | DUEL
        if o.bodies > 1 or used & never:
            return None
        shifts = len(o.values) if used & (SEASONS | SWITCH) else 1
        phases = o.period if used & SEASONS else 1
        sets = 1 << o.candies
        outcomes = 3 * (sets if used & GROW else 1) * (2 if used & SWITCH else 1)
        states = o.size * o.size * sets * shifts * phases
        return (shifts, phases, outcomes) if states <= MODEL_STATES and states * 5 * outcomes <= MODEL_ENTRIES else None

    @property
    def _game_fits(self) -> bool:
        o, used = self.config, self.features
        plain = used & ~(PAYOFF | OWNED | HIDDEN | NOISE | STATUS | BLOCK | FIRST | PLAIN) == 0
        states = (o.size**4) << o.candies
        orders = 1 if used & FIRST else 2
        return plain and o.bodies == o.agents == 2 and states * 25 * 9 * orders <= GAME_ENTRIES * (1 if o.slip else 9)

    @property
    def solver(self) -> str:
        if self._model_shape is not None:
            return "dynamic programming"
        own, foreign, to_others, to_owner = self.config.payoff
        zero_sum = own + to_others == 0 and foreign + to_owner == 0
        return "stochastic game" if self._game_fits and zero_sum else ""

    def model(self, s: Any, i: int) -> Model | None:
        """States: (set of candies on the board, shift and phase of the values, cell), for one collector.

        State index = ((set * shifts + shift) * phases + phase) * cells + cell; without seasons set * cells + cell.
        """
        o, used = self.config, self.features
        fit = self._model_shape
        if fit is None:
            return None
        shifts, phases, _ = fit
        pad = o.view // 2
        stride, cells = o.size + 2 * pad, o.size * o.size
        y, x = np.divmod(np.arange(cells), o.size)
        flat = (y + pad) * stride + x + pad  # (cells,) on the board with its rim
        if used & GROW:
            order = np.argsort(s.spot[i])
            where, kinds = s.spot[i][order].astype(np.int64), s.grows[i][order].astype(np.int64)
        else:
            where = flat[s.candy[i, flat] > 0]
            kinds = s.candy[i, where].astype(np.int64)
        candies = len(where)
        sets = 1 << candies
        bit = np.zeros(len(s.candy[i]), np.int64)
        bit[where] = 1 << np.arange(candies)
        bit = bit[flat]
        kind_at = np.zeros(len(s.candy[i]), np.int64)
        kind_at[where] = kinds
        turned = (kind_at[flat] - 1 + np.arange(shifts)[:, None]) % len(o.values)  # (shifts, cells)
        worth = np.where(bit > 0, np.array(o.values)[turned], 0.0) * o.payoff[0]

        # Axes: set, shift, phase, cell, action, outcome; an outcome is a slip, what grows, whether values switch.
        subset = np.arange(sets)[:, None, None, None]
        shift = np.arange(shifts)[None, :, None, None]
        phase = np.arange(phases)[None, None, :, None]
        later = (phase + 1) % phases if used & SEASONS else phase
        turns = (phase + 1 == phases).astype(np.int64) if used & SEASONS else np.zeros((1, 1, 1, 1), np.int64)
        grown = np.arange(sets) if used & GROW else np.zeros(1, np.int64)
        switched = (0, 1) if used & SWITCH else (0,)
        shape = (sets, shifts, phases, cells, 5, 3 * len(grown) * len(switched))
        next_state, probability = np.zeros(shape, np.int64), np.zeros(shape)
        reward, terminated = np.zeros(shape), np.zeros(shape, np.bool_)
        size_of = np.array([bin(j).count("1") for j in range(sets)])
        for a in range(5):
            outcome = 0
            for d, p in slip_outcomes(a, o.slip):
                cell = np.clip(y + DY[d], 0, o.size - 1) * o.size + np.clip(x + DX[d], 0, o.size - 1)  # (cells,)
                after = subset & ~bit[cell]
                gain = ((subset & bit[cell]) > 0) * worth[:, cell][None, :, None, :]
                for g in grown:
                    bare = (sets - 1) & ~after
                    q: Any = 1.0
                    if used & GROW:
                        born = size_of[g]
                        q = np.where(g & ~bare, 0.0, o.grow_rate**born * (1 - o.grow_rate) ** (size_of[bare] - born))
                    for flip in switched:
                        r = (o.change_rate if flip else 1 - o.change_rate) if used & SWITCH else 1.0
                        to = (((after | g) * shifts + (shift + turns + flip) % shifts) * phases + later) * cells + cell
                        index = (..., a, outcome)
                        next_state[index], probability[index], reward[index] = to, p * q * r, gain
                        terminated[index] = (after == 0) & (not used & ENDLESS)
                        outcome += 1
        states = sets * shifts * phases * cells
        table = (states, 5, shape[-1])
        held = (np.arange(sets)[:, None] >> np.arange(candies)) & 1  # (sets, candies)
        board = np.repeat(s.candy[i][None], sets, axis=0)
        board[:, where] = held * kinds
        full = np.broadcast_to
        grid = (sets, shifts, phases, cells)
        fields = {
            "candy": np.repeat(board, shifts * phases * cells, axis=0),
            "y": full(y.astype(np.int16), grid).reshape(states, 1),
            "x": full(x.astype(np.int16), grid).reshape(states, 1),
            "left": full(held.sum(1).astype(np.int16)[:, None, None, None], grid).reshape(states),
        }
        if used & (SEASONS | SWITCH):
            fields["shift"] = full(shift.astype(np.uint8), grid).reshape(states)
        if used & SEASONS:
            fields["phase"] = full(phase.astype(np.int16), grid).reshape(states)
        here = int((held == (s.candy[i, where] > 0)).all(1).argmax())
        start = ((here * shifts + int(s.shift[i]) % shifts) * phases + int(s.phase[i]) % phases) * cells
        return Model(
            next_state.reshape(table),
            probability.reshape(table),
            reward.reshape(table),
            terminated.reshape(table),
            start + int(s.y[i, 0]) * o.size + int(s.x[i, 0]),
            fields,
        )

    def game(self, s: Any, i: int) -> Game | None:
        """States: (set of candies left, cell of player 0, cell of player 1); the deadline is the solver's horizon.

        State index = (set * cells + cell 0) * cells + cell 1. An outcome is who moves first and how both slip.
        """
        o, used = self.config, self.features
        if not self._game_fits:
            return None
        pad = o.view // 2
        stride, cells = o.size + 2 * pad, o.size * o.size
        y, x = np.divmod(np.arange(cells), o.size)
        flat = (y + pad) * stride + x + pad
        where = flat[s.candy[i, flat] > 0]
        kinds = s.candy[i, where].astype(np.int64)
        sets = 1 << len(where)
        bit, kind_at = np.zeros(len(s.candy[i]), np.int64), np.zeros(len(s.candy[i]), np.int64)
        bit[where], kind_at[where] = 1 << np.arange(len(where)), kinds
        bit, kind_at = bit[flat], kind_at[flat]
        worth = np.where(bit > 0, np.array(o.values)[kind_at - 1], 0.0)
        subset = np.arange(sets)[:, None, None]
        spots = [np.arange(cells)[None, :, None], np.arange(cells)[None, None, :]]  # of player 0 and 1: (1, cells, cells)
        orders = (0,) if used & FIRST else (0, 1)
        slips = range(3) if o.slip > 0 else range(1)
        table = (sets, cells, cells, 5, 5, len(orders) * len(slips) ** 2)
        next_state, probability = np.zeros(table, np.int64), np.zeros(table)
        reward, terminated = np.zeros((*table, 2)), np.zeros(table, np.bool_)
        for a in range(5):
            for b in range(5):
                outcome = 0
                for first in orders:
                    for m in slips:
                        for n in slips:
                            (d0, p0), (d1, p1) = slip_outcomes(a, o.slip)[m], slip_outcomes(b, o.slip)[n]
                            at, after = list(spots), subset + 0 * spots[0] + 0 * spots[1]  # (sets, cells, cells)
                            gains = [0.0 * after, 0.0 * after]
                            for k in (first, 1 - first):
                                d, row, column = (d0, d1)[k], at[k] // o.size, at[k] % o.size
                                to = np.clip(row + DY[d], 0, o.size - 1) * o.size + np.clip(column + DX[d], 0, o.size - 1)
                                at[k] = np.where(to == at[1 - k], at[k], to) if used & BLOCK else to
                                value = ((after & bit[at[k]]) > 0) * worth[at[k]]
                                match = (kind_at[at[k]] - 1) % 2 == k if used & OWNED else True
                                gains[k] = gains[k] + value * np.where(match, o.payoff[0], o.payoff[1])
                                gains[1 - k] = gains[1 - k] + value * np.where(match, o.payoff[2], o.payoff[3])
                                after = after & ~bit[at[k]]
                            index = (..., a, b, outcome)
                            next_state[index] = (after * cells + at[0]) * cells + at[1]
                            probability[index] = p0 * p1 / len(orders)
                            reward[..., a, b, outcome, :] = np.stack(gains, -1)
                            terminated[index] = after == 0
                            outcome += 1
        states = sets * cells * cells
        held = (np.arange(sets)[:, None] >> np.arange(len(where))) & 1
        board = np.repeat(s.candy[i][None], sets, axis=0)
        board[:, where] = held * kinds
        grid = (sets, cells, cells)
        pairs = np.stack([np.broadcast_to(spot, grid).reshape(states) for spot in spots], 1)  # (states, 2)
        fields = {
            "candy": np.repeat(board, cells * cells, axis=0),
            "y": (pairs // o.size).astype(np.int16),
            "x": (pairs % o.size).astype(np.int16),
            "left": np.repeat(held.sum(1), cells * cells).astype(np.int16),
        }
        here = [int(s.y[i, k]) * o.size + int(s.x[i, k]) for k in (0, 1)]
        flat_table = (states, 5, 5, table[-1])
        return Game(
            next_state.reshape(flat_table),
            probability.reshape(flat_table),
            reward.reshape(*flat_table, 2),
            terminated.reshape(flat_table),
            ((sets - 1) * cells + here[0]) * cells + here[1],
            fields,
        )


def status_bits(o: Any) -> int:
    """Cells of the status plane that a configuration needs; 0: it has none."""
    kinds, levels = len(o.values), o.most_level if o.most_level > 1 else 0
    shown = o.bodies - o.agents if not o.inhabitants_hidden else 0
    parts = (kinds * (o.change == "seasons"), o.zap > 0, (o.bodies - 1) * o.signal, o.bodies * levels)
    return int(sum(parts) + POCKET * kinds * bool(o.duel) + shown * len(NAMES))
