"""What collectors do to each other: zaps, gifts, signals, cleaning, duels."""

from __future__ import annotations

from typing import Any

from ....store.arrays import Array
from ...grid import DX, DY, STAY
from ...world import helper
from .features import CLEANING, GIFT, INHABITED, SIGNAL, ZAP
from .taking import distance


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
