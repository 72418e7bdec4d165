"""Scripted collectors for candy worlds: they stand on the board beside the agents and follow a rule of thumb.

Each is a helper that rules call (numba's subset of Python): it sees the whole board as it was before anyone moved in
this step and returns an action. "Rival" is the nearest other collector, the lower number where two are equally near.
Distances count steps without obstacles. A value is what a candy is worth now, whatever `change` has made of it; where all
configured values are 0, all kinds are as good. Of equally good candies the first in the State's list is taken.

greedy       goes to the nearest candy of positive value
denier       goes to the candy nearest to its rival; zaps a rival in range where zapping is allowed
tit-for-tat  leaves what belongs to others (kind j belongs to collector j mod collectors) until somebody takes a candy of
             its own kind or zaps it; then it wants any candy, until it has taken another's (Axelrod 1984, on a board)
cleaner      removes waste, the nearest first, while there is any; then greedy
free-rider   goes to the nearest candy that it can take alone and never cleans
level-0      plays uniformly random moves
level-1      best reply to level-0, which hardly interferes: the candy with the largest value / (distance + 1)
level-2      best reply to level-1: the same among the candies that it reaches no later than its rival, if there are any
             (level-k reasoning: Stahl & Wilson 1995)
switcher     greedy for the first half of the time, then denier
"""

from __future__ import annotations

from typing import Any

from ....store.arrays import Array
from ...grid import STAY
from ...rng import below
from ...world import helper
from .features import ALIKE
from .taking import value_of

NAMES = ("greedy", "denier", "tit-for-tat", "cleaner", "free-rider", "level-0", "level-1", "level-2", "switcher")
GREEDY, DENIER, TIT_FOR_TAT, CLEANER, FREE_RIDER, LEVEL_0, LEVEL_1, LEVEL_2, SWITCHER = range(len(NAMES))
FAR = 1e9  # a cost above all real ones
LATE = 1e6  # what level-2 adds to the cost of a candy that its rival reaches first


@helper
def towards(dy: int, dx: int) -> int:
    """The move along the longer axis of the way (dy, dx) to a target, columns first: 0..3 left, down, right, up; 4 stay."""
    if dy == 0 and dx == 0:
        return STAY
    right = (dx > 0) - (dx < 0)
    down = (dy > 0) - (dy < 0)
    return 1 + right if abs(dx) >= abs(dy) else 2 - down


@helper
def rival_of(s: Any, i: int, k: int, c: Any) -> int:
    """The collector nearest to collector `k`; itself where there is no other."""
    rival, nearest = k, 1 << 30
    for o in range(c.bodies):
        distance = abs(int(s.y[i, o]) - int(s.y[i, k])) + abs(int(s.x[i, o]) - int(s.x[i, k]))
        if o != k and distance < nearest:
            rival, nearest = o, distance
    return rival


@helper
def appeal_of(s: Any, i: int, kind: int, c: Any) -> float:
    """What a candy of board code `kind` is worth to an inhabitant now: its value, 1 where no kind has any."""
    return 1.0 if c.features & ALIKE else value_of(s, i, kind, c)


@helper
def to_waste(s: Any, i: int, k: int, c: Any) -> int:
    """The cleaner's action while there is waste: clean where it reaches some, else a move to the nearest."""
    y, x, pad = int(s.y[i, k]), int(s.x[i, k]), c.window // 2
    stride = c.size + 2 * pad
    nearest, dy, dx = 1 << 30, 0, 0
    for j in range(c.river_cells):
        row, column = j // c.size, j % c.size
        distance = abs(row - y) + abs(column - x)
        if s.candy[i, (row + pad) * stride + column + pad] == c.kinds + 1 and distance < nearest:
            nearest, dy, dx = distance, row - y, column - x
    return int(c.clean_action) if nearest <= 1 else towards(dy, dx)


@helper
def intent(s: Any, i: int, k: int, c: Any, rng: Array) -> int:
    """The action of the scripted collector `k` in environment `i`. Draws random numbers for level-0 only."""
    kind_of = int(s.type[i, k])
    if kind_of == LEVEL_0:
        return below(rng, i, 5)
    if kind_of == SWITCHER:
        kind_of = GREEDY if 2 * s.time[i] < c.deadline else DENIER
    if kind_of == CLEANER and s.waste[i] > 0:
        return to_waste(s, i, k, c)
    rival = rival_of(s, i, k, c) if kind_of == DENIER or kind_of == LEVEL_2 else k
    y, x, rival_y, rival_x = int(s.y[i, k]), int(s.x[i, k]), int(s.y[i, rival]), int(s.x[i, rival])
    if kind_of == DENIER and c.zap_action > 0 and rival != k and s.frozen[i, rival] == 0:
        if abs(y - rival_y) + abs(x - rival_x) <= c.zap_range:
            return int(c.zap_action)
    pad = c.window // 2
    stride = c.size + 2 * pad
    own_only = kind_of == TIT_FOR_TAT and s.grudge[i, k] == 0 and k < c.kinds  # beyond, no kind is its own
    ability = int(s.level[i, k]) if kind_of == FREE_RIDER else 1 << 30
    wanted = 0  # a bit for each board code
    for kind in range(1, c.kinds + 1):
        mine_too = (not own_only) or (kind - 1) % c.bodies == k
        wanted |= ((appeal_of(s, i, kind, c) > 0.0) & mine_too & (c.need[kind] <= ability)) << kind
    nearest, chosen = 1 << 30, -1
    if kind_of == LEVEL_1 or kind_of == LEVEL_2:
        late = LATE if kind_of == LEVEL_2 and rival != k else 0.0
        best = FAR
        for n in range(c.candies):
            at = int(s.spot[i, n])
            kind = int(s.candy[i, at])
            row, column = at // stride - pad, at % stride - pad
            mine = abs(row - y) + abs(column - x)
            theirs = abs(row - rival_y) + abs(column - rival_x)
            cost = (late if theirs < mine else 0.0) - appeal_of(s, i, kind, c) / (mine + 1.0)
            if (wanted >> kind) & 1 and cost < best:
                best, chosen = cost, n
    else:
        by_rival = kind_of == DENIER and rival != k
        from_y, from_x = (rival_y if by_rival else y), (rival_x if by_rival else x)
        for n in range(c.candies):  # distance and number in one, so that a minimum without a branch finds both
            at = int(s.spot[i, n])
            row, column = at // stride - pad, at % stride - pad
            cost = (abs(row - from_y) + abs(column - from_x)) * 64 + n
            nearest = min(nearest, cost + (1 - ((wanted >> int(s.candy[i, at])) & 1)) * (1 << 30))
        chosen = nearest % 64 if nearest < 1 << 30 else -1
    if chosen < 0:
        return STAY
    at = int(s.spot[i, chosen])
    return towards(at // stride - pad - y, at % stride - pad - x)
