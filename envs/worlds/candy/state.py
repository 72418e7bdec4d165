"""The arrays of candy: what an environment's rules write, what they read, and what they may hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ....store.arrays import Array
from ...world import outside
from .config import Config
from .features import CLEANING, DRIFT, DUEL, INHABITED, JOINT, LEVELS, OUTSIDE, POCKET, REACT, SIGNAL, SPOTS, ZAP
from .inhabitants import NAMES


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


class CandyConstants(NamedTuple):
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


def allocate(o: Config, n: int) -> State:
    """Empty arrays for `n` environments; what the configuration does not use is one number long."""
    used = o.features
    stride, kinds = o.size + 2 * (o.view // 2), len(o.values)
    board = stride * stride + (8 if o.view else 0)  # copy_window reads whole words

    def array(dtype: Any, size: int, feature: int) -> Array:
        return np.zeros((n, size if used & feature else 1), dtype)

    return State(
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


def constants(o: Config) -> CandyConstants:
    """What the rules read."""
    kinds, side = len(o.values), o.view or o.size
    plane = side * side
    left = o.deadline - np.arange(o.deadline + 1)
    clock = (left * plane + o.deadline - 1) // o.deadline if o.deadline > plane else left
    ramp = np.concatenate((np.ones(plane, np.uint8), np.zeros(plane, np.uint8)))
    worth = np.array([0.0, *o.values, 0.0])
    actions, at = [], 5
    for there in (o.zap > 0, o.gift > 0, o.signal, o.regrowth == "cleaning"):
        actions.append(at if there else -1)
        at += there
    river = o.river * o.size if o.regrowth == "cleaning" else 0
    rate = max(o.by_neighbours) if o.regrowth == "neighbour" else o.grow_rate
    types = np.array([NAMES.index(name) for name in o.inhabitants] or [0], np.uint8)
    return CandyConstants(
        size=o.size, candies=o.candies, kinds=kinds, agents=o.agents, bodies=o.bodies, window=o.view,
        features=o.features, slip=o.slip, deadline=o.deadline, payoff=np.array(o.payoff), worth=worth,
        need=np.array([1, *(o.needs or [1] * kinds), 1], np.int64), reach=o.reach, most_level=o.most_level,
        clock=clock.astype(np.int16), ramp=ramp, grow_rate=float(rate), by_neighbours=np.array(o.by_neighbours),
        river_cells=river, waste_rate=o.waste_rate, waste_start=river // 2, dirt=1.0 / max(o.waste_limit * river, 1e-9),
        change_rate=float(o.change_rate), bound=2.0 * max(abs(v) for v in o.values), period=o.period, noise=o.noise,
        zap=o.zap, zap_range=o.zap_range, zap_cost=o.zap_cost, gift=o.gift, zap_action=actions[0],
        gift_action=actions[1], signal_action=actions[2], clean_action=actions[3],
        duel=np.array(o.duel or np.zeros((1, 1)), np.float64), types=types, type_names=len(NAMES),
    )  # fmt: skip


def fault(o: Config, s: State) -> str | None:
    """What is wrong with a state that came from a file, else None."""
    used, n, kinds, pad = o.features, len(s.time), len(o.values), o.view // 2
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
