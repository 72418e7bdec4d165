"""The kernel of Q-learning: values of actions, rollouts, and steps of gradient descent on temporal differences.

The passes are those of `mlp/passes.py`. One kernel for all tasks, as in `mlp/kernels.py`; minibatches are small, so one
thread does all.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .....store.arrays import Array
from ..mlp.kernels import adam, now, refresh, step_tile
from ..mlp.passes import backward, fetch, forward, unpack
from ..mlp.plan import TILE, P
from ..simd.cache import kernel
from ..simd.vectors import LANES, inner, spread, store

OUTPUTS, COLLECT, LEARN = 0, 1, 2


class Frozen(NamedTuple):
    """The target network's parameters; the network's own arrays where there is no target network."""

    flat: Array
    known: Array
    packed: Array


class ObsRows(NamedTuple):
    """Observations: row j is the one at selected[j], or number j itself where `selected` is empty."""

    data: Array  # uint8, flat
    stride: int  # bytes a row
    raw: bool  # float32 numbers, not bytes
    scale: Array  # empty
    selected: Array  # int64


class TransitionBatch(NamedTuple):
    """B transitions, without their observations."""

    action: Array  # int64 (B,)
    return_: Array  # float32 (B,)
    discount: Array  # float32 (B,)
    weight: Array  # float32 (B,)
    error: Array  # float32 (B,): output, the temporal differences
    mask: Array  # uint8 (B * actions,): 0 where an action is illegal in the next observation; empty: all are legal


@inner
def q_values(net: Any, packed: Any, rows: Any, low: int, count: int) -> None:
    """Values of all actions in rows low .. low + count - 1, to P.OUT."""
    fetch(net.whole, net.work, 0, rows.data, rows.stride, rows.raw, rows.selected, low, count, rows.scale)
    forward(net.layers, net.whole, packed, net.work, 0, count)


@inner
def best(whole: Any, work: Any, s: int, mask: Any, row: int) -> int:
    """The legal action of highest value of sample s, the first of equals; `row`: of `mask`, which is empty if all are legal."""
    out, action, actions = whole[P.OUT] + s, -1, whole[P.ACTIONS]
    for j in range(actions):
        if mask.shape[0] and mask[row * actions + j] == 0:
            continue
        if action < 0 or work[out + j * TILE] > work[out + action * TILE]:
            action = j
    return action


@inner
def learn_tile(
    net: Any,
    frozen: Any,
    now_rows: Any,
    then_rows: Any,
    transitions: Any,
    low: int,
    count: int,
    double: bool,
    share: Any,
    total: Any,
) -> None:
    """Transitions low .. low + count - 1 of a minibatch of 1 / `share`: targets, errors, and their gradient, which is added."""
    whole, work = net.whole, net.work
    out, keep, goal = whole[P.OUT], whole[P.PROBABILITY], whole[P.FACTS]
    # y = R + discount Q'(s', a*), with a* the best of Q' itself, or (double) of Q
    q_values(net, frozen.packed, then_rows, low, count)
    for j in range(whole[P.ACTIONS]):
        for s in range(count):
            work[keep + j * TILE + s] = work[out + j * TILE + s]
    if double:
        forward(net.layers, whole, net.packed, work, 0, count)  # the observations are still there
    for s in range(count):
        worth = work[keep + best(whole, work, s, transitions.mask, low + s) * TILE + s]
        work[goal + s] = transitions.return_[low + s] + transitions.discount[low + s] * worth
    # Huber's loss of y - Q(s, a)
    q_values(net, net.packed, now_rows, low, count)
    for s in range(count):
        chosen = out + transitions.action[low + s] * TILE + s
        value, weight = work[chosen], transitions.weight[low + s]
        error = work[goal + s] - value
        transitions.error[low + s] = error
        size = abs(error)
        total[0] += weight * (np.float32(0.5) * error * error if size <= 1 else size - np.float32(0.5))
        total[1] += value
        total[2] += size
        slope = error if size <= 1 else np.float32(math.copysign(1.0, error))
        for j in range(whole[P.ACTIONS]):
            work[out + j * TILE + s] = np.float32(0.0)
        work[chosen] = -slope * weight * share if error == error else error
    backward(net.layers, whole, net.packed, work, 0, count, net.grads, 0)


@kernel
def q_work(
    task: int, net: Any, frozen: Any, now_rows: Any, then_rows: Any, transitions: Any, double: bool, learning: Any, forced: Any,
    action: Any, outputs: Any, world: Any, total: int, size: int,
) -> int:  # fmt: skip
    """`task` for `total` rows, `size` at a time.

    OUTPUTS: values of observations `now_rows` to `outputs`. COLLECT: `size` is N A, `now_rows` are the world's present
    observations; row j takes action forced[j], or where that is negative the best one, which goes to action[j]. LEARN: a step
    of Adam after each `size` transitions. Returns how many parts were finished before a gradient was not finite.
    """
    whole, work = net.whole, net.work
    actions = whole[P.ACTIONS]
    refresh(net.layers, whole, net.flat, net.known, net.packed)
    if task == LEARN:
        refresh(net.layers, whole, frozen.flat, frozen.known, frozen.packed)
    for low in range(0, total, size):
        high = min(low + size, total)
        if task == LEARN:
            for j in range(0, whole[P.GROUP], LANES):
                store(net.grads, j, spread(0.0))
        for at in range(low, high, TILE):
            count = min(TILE, high - at)
            if task == LEARN:
                share = np.float32(1.0 / (high - low))
                learn_tile(net, frozen, now_rows, then_rows, transitions, at, count, double, share, learning.total)
                continue
            row = at - low if task == COLLECT else at
            began = now(world) if task == COLLECT else 0
            q_values(net, net.packed, now_rows, row, count)
            if task == OUTPUTS:
                for s in range(count):
                    for j in range(actions):
                        outputs[(at + s) * actions + j] = work[whole[P.OUT] + j * TILE + s]
                continue
            for s in range(count):
                action[at + s] = forced[at + s] if forced[at + s] >= 0 else best(whole, work, s, transitions.mask, 0)
            acted = now(world)
            step_tile(world, now_rows.stride, low // size, row, count)
            world.clock[2] += now(world) - acted
            world.clock[3] += now(world) - began
        if task == LEARN:
            unpack(net.layers, whole, net.grads, learning.grad)
            norm = adam(net.flat, learning.grad, learning.mean, learning.square, learning.steps, learning.coefs)
            learning.norms[low // size] = norm
            if not math.isfinite(norm):
                return low // size
            refresh(net.layers, whole, net.flat, net.known, net.packed)
    return (total + size - 1) // size
