"""The kernel of recurrent actor-critics: acting, and an epoch of PPO over sequences. Threads share groups of tiles of streams.

As `mlp/kernels.py`, but a tile holds all steps of some streams: forward through time, then backward. How streams fall into
tiles and tiles into groups depends on their number alone: one thread and sixteen give the same bits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .....native.splitmix64 import GOLDEN
from .....store.arrays import Array
from ..mlp.kernels import (
    CLIP,
    COLLECT,
    ENTROPY_WEIGHT,
    GRADIENT,
    MEAN,
    STATISTICS,
    VALUE_CLIP,
    VALUE_WEIGHT,
    WEIGHT_SCALE,
    act_tile,
    add_groups,
    advantage_scale,
    finish,
    mix,
    now,
    step_tile,
)
from ..mlp.passes import backward, fetch_row, forbid, forward, loss, pack, unpack
from ..mlp.plan import GROUPS, TILE, P
from ..simd.cache import kernel
from ..simd.threads import meet
from ..simd.vectors import LANES, copy_bytes, float_raw, inner, load, put_raw, spread, store
from .passes import gate_gradient, hidden_states, pack_gates, step, step_back, unpack_gates
from .plan import STREAMS, U


class Streams(NamedTuple):
    """B streams of T steps. A record is an observation, float32 log-probability, advantage, target, value, the action's
    parts, and 1 where an episode begins; a stream's records lie one after the other. For acting T is 1, and a record is the
    observation alone."""

    data: Array  # uint8 (B * T * stride,)
    stride: int  # bytes a record
    steps: int  # T
    raw: bool  # an observation is float32 numbers, not bytes
    scale: Array  # float32 (2 D,): mean, 1 / deviation; or empty
    selected: Array  # int64: the streams to take; not for acting
    advantage: Array  # float32 (B * T,), as in the records
    h: Array  # float32 (B * H,): before the first step
    last: Array  # float32 (B * actions,): the action before the first step; empty where the GRU does not read it
    after: Array  # float32 (B * H,): output, h after acting; `h` itself in COLLECT
    mask: int  # byte of a record at which its action mask begins; 0: there is none
    final_h: Array  # float32 (T * B * H,): output of COLLECT, h after steps that truncated an episode


@inner
def refresh(net: Any, gru: Any) -> None:
    """Pack the parameters, if they are not those that were packed last."""
    flat, known = net.flat, net.known
    same = True
    for j in range(flat.shape[0]):
        same &= flat[j] == known[j]
    if not same:
        for j in range(flat.shape[0]):
            known[j] = flat[j]
        pack(net.layers, net.whole, flat, net.packed)
        pack_gates(gru, flat, net.packed)


@inner
def facts_at(gru: Any, raw: bool) -> int:
    """Where log-probability, advantage, target and value begin in a record; action and flag follow them."""
    place: int = gru[U.INPUTS] * 4 if raw else (gru[U.INPUTS] + 3) // 4 * 4
    return place


@inner
def copy_row(to: Any, to_at: int, source: Any, at: int, count: int) -> None:
    """`count` numbers from one array to another."""
    if count < LANES:
        for k in range(count):
            to[to_at + k] = source[at + k]
        return
    for first in range(0, count, LANES):
        k = min(first, count - LANES)  # the last vector overlaps the one before
        store(to, to_at + k, load(source, at + k))


@inner
def fetch_state(whole: Any, gru: Any, work: Any, base: int, streams: Any, stream: int, row: int) -> None:
    """h before the first step, and the action before it, into a row; numbers beyond H become zero."""
    h, at = gru[U.H], base + gru[U.ROW] + row * gru[U.ROW_STRIDE] + gru[U.X] + 1
    copy_row(work, at, streams.h, stream * h, h)
    for k in range(h, gru[U.WIDE]):
        work[at + k] = np.float32(0.0)
    if gru[U.READS_ACTION]:
        actions = whole[P.ACTIONS]
        copy_row(work, at - actions - 1, streams.last, stream * actions, actions)


@inner
def code_action(whole: Any, gru: Any, work: Any, at: int, data: Any, action: int) -> None:
    """The action at byte `action` of `data` as the GRU reads it: one-hot, or the numbers of a gaussian."""
    if whole[P.GAUSSIAN]:
        for j in range(whole[P.PARTS]):
            work[at + j] = float_raw(data, action + 4 * j)
        return
    first = 0
    for part in range(whole[P.PARTS]):
        chosen = float_raw(data, action + 4 * part)
        for j in range(whole[P.SIZES + part]):
            work[at + first + j] = np.float32(1.0) if np.float32(j) == chosen else np.float32(0.0)
        first += whole[P.SIZES + part]


@inner
def fetch_step(net: Any, gru: Any, base: int, streams: Any, low: int, count: int, t: int) -> None:
    """Step t of streams selected[low : low + count] into their rows; where an episode begins, h and last action become zero."""
    whole, work, data = net.whole, net.work, streams.data
    flag = facts_at(gru, streams.raw) + 16 + 4 * whole[P.PARTS]
    for s in range(count):
        stream, row = streams.selected[low + s], t * count + s
        start, at = (stream * streams.steps + t) * streams.stride, base + gru[U.ROW] + row * gru[U.ROW_STRIDE]
        fetch_row(work, at, data, start, streams.raw, gru[U.INPUTS], streams.scale)
        work[at + gru[U.X]] = np.float32(1.0)
        if t == 0:
            fetch_state(whole, gru, work, base, streams, stream, row)
        elif gru[U.READS_ACTION]:
            code_action(whole, gru, work, at + gru[U.INPUTS], data, start - streams.stride + flag - 4 * whole[P.PARTS])
        first = float_raw(data, start + flag)
        work[base + gru[U.FIRST] + row] = first
        if first != np.float32(0.0):
            for k in range(gru[U.INPUTS], gru[U.X]):
                work[at + k] = np.float32(0.0)
            for k in range(gru[U.X] + 1, gru[U.X] + 1 + gru[U.WIDE]):
                work[at + k] = np.float32(0.0)


@inner
def fetch_facts(net: Any, gru: Any, base: int, streams: Any, low: int, count: int, first: int, last: int) -> None:
    """Log-probability, advantage, target, value and action of steps `first` .. `last` - 1 of streams selected[low : low +
    count]."""
    whole, work, data = net.whole, net.work, streams.data
    known, action, facts = base + whole[P.FACTS], base + whole[P.ACTION], facts_at(gru, streams.raw)
    mean, scale = net.scales[MEAN], net.scales[WEIGHT_SCALE]
    for s in range(count):
        stream = streams.selected[low + s]
        for t in range(first, last):
            at, row = (stream * streams.steps + t) * streams.stride + facts, (t - first) * count + s
            work[known + row] = float_raw(data, at)
            work[known + TILE + row] = (float_raw(data, at + 4) - mean) * scale
            work[known + 2 * TILE + row] = float_raw(data, at + 8)
            work[known + 3 * TILE + row] = float_raw(data, at + 12)
            for part in range(whole[P.PARTS]):
                work[action + part * TILE + row] = float_raw(data, at + 16 + 4 * part)


@inner
def prefetch(streams: Any, low: int, high: int) -> int:
    """Load the records of streams selected[low:high] into the cache, as `mlp.kernels.prefetch` does. Returns a sum."""
    size, total = streams.steps * streams.stride, 0
    for j in range(low, high):
        at = streams.selected[j] * size
        for k in range(at, at + size - 1, 64):
            total += streams.data[k]
        total += streams.data[at + size - 1]
    return total


@inner
def forbid_steps(whole: Any, work: Any, base: int, streams: Any, low: int, count: int, first: int, last: int) -> None:
    """Logits of illegal actions in steps `first` .. `last` - 1 of streams selected[low : low + count]; see `passes.forbid`."""
    for s in range(count):
        stream = streams.selected[low + s]
        for t in range(first, last):
            at = (stream * streams.steps + t) * streams.stride + streams.mask
            forbid(whole, work, base, (t - first) * count + s, streams.data, at)


@inner
def learn_tile(
    net: Any, gru: Any, base: int, streams: Any, low: int, count: int, rows: int, coefs: Any, group: int, sum_at: int
) -> None:
    """Streams selected[low : low + count]: all steps forward, then backward; their gradient, of the mean over `rows` rows, is
    added to a group's."""
    whole, work, steps = net.whole, net.work, streams.steps
    net.sums[sum_at + 7] = prefetch(streams, low, low + count)
    for t in range(steps):
        fetch_step(net, gru, base, streams, low, count, t)
        step(gru, net.packed, work, base, t * count, count, count)
    errors = base + gru[U.ERROR]
    for j in range(errors, errors + count * gru[U.ERROR_STRIDE]):
        work[j] = np.float32(0.0)
    together = max(1, TILE // count)  # steps whose rows make up a tile of the heads
    for part in range((steps - 1) // together, -1, -1):
        first, last = part * together, min(steps, (part + 1) * together)
        many = (last - first) * count
        hidden_states(gru, work, base, first * count, many)
        fetch_facts(net, gru, base, streams, low, count, first, last)
        forward(net.layers, whole, net.packed, work, base, many)
        if streams.mask:
            forbid_steps(whole, work, base, streams, low, count, first, last)
        loss(
            whole, net.packed, work, base, many, rows, coefs[CLIP], coefs[VALUE_CLIP], coefs[VALUE_WEIGHT],
            coefs[ENTROPY_WEIGHT], net.grads, group, net.sums, sum_at,
        )  # fmt: skip
        backward(net.layers, whole, net.packed, work, base, many, net.grads, group)
        for t in range(last - 1, first - 1, -1):
            step_back(gru, net.packed, work, base, t * count, count, (t - first) * count, t == 0)
        gate_gradient(gru, work, base, first * count, many, net.grads, group)


@inner
def act_rows(
    net: Any, gru: Any, base: int, streams: Any, acting: Any, low: int, count: int, at: int, task: int, key: Any, counter: int
) -> None:
    """A step of streams `low` .. `low` + `count` - 1, and what they do, into rows `at`... of `acting`, with draws number
    `counter`... of the stream `key`."""
    whole, work, h = net.whole, net.work, gru[U.H]
    for first in range(0, count, STREAMS):
        last = min(count, first + STREAMS)
        for s in range(first, last):
            row = base + gru[U.ROW] + s * gru[U.ROW_STRIDE]
            fetch_row(work, row, streams.data, (low + s) * streams.stride, streams.raw, gru[U.INPUTS], streams.scale)
            work[row + gru[U.X]] = np.float32(1.0)
            fetch_state(whole, gru, work, base, streams, low + s, s)
        step(gru, net.packed, work, base, first, last - first, TILE)
    hidden_states(gru, work, base, 0, count)
    for s in range(count):
        copy_row(streams.after, (low + s) * h, work, base + gru[U.HEAD] + s * gru[U.HEAD_STRIDE], h)
    forward(net.layers, whole, net.packed, work, base, count)
    act_tile(net, acting, base, at, count, task, key, counter)


@inner
def store_last_action(whole: Any, work: Any, base: int, streams: Any, low: int, count: int) -> None:
    """The actions just chosen become the last actions of streams `low` .. `low` + `count` - 1."""
    actions = whole[P.ACTIONS]
    for s in range(count):
        at, first = (low + s) * actions, 0
        for part in range(whole[P.PARTS]):
            chosen = work[base + whole[P.ACTION] + part * TILE + s]
            if whole[P.GAUSSIAN]:
                streams.last[at + part] = chosen
                continue
            for j in range(whole[P.SIZES + part]):
                streams.last[at + first + j] = np.float32(1.0) if np.float32(j) == chosen else np.float32(0.0)
            first += whole[P.SIZES + part]


@inner
def reset_ended(whole: Any, gru: Any, world: Any, streams: Any, low: int, count: int, at: int) -> None:
    """Zero h and last action of streams `low` .. `low` + `count` - 1 whose episode ended; store h where it was truncated."""
    h, actions = gru[U.H], whole[P.ACTIONS]
    for s in range(count):
        row = low + s
        env = row // world.agents
        if world.truncated[env]:
            copy_row(streams.final_h, (at + s) * h, streams.h, row * h, h)
        if world.terminated[env] or world.truncated[env]:
            for k in range(row * h, (row + 1) * h):
                streams.h[k] = np.float32(0.0)
            if gru[U.READS_ACTION]:
                for k in range(row * actions, (row + 1) * actions):
                    streams.last[k] = np.float32(0.0)


@inner
def advantage_sums(net: Any, streams: Any, g: int, start: int, first: int, last: int) -> None:
    """Group g's sums of advantages and of their squares over streams selected[first:last]. All are chosen less the first
    advantage of stream selected[start]: it is of the same size, so that squares lose no digits."""
    steps = streams.steps
    about = np.float64(
        streams.advantage[streams.selected[start] * steps]
    )  # something near: squares of small numbers lose nothing
    total, squares = 0.0, 0.0
    for j in range(first, last):
        at = streams.selected[j] * steps
        for t in range(at, at + steps):
            x = np.float64(streams.advantage[t]) - about
            total += x
            squares += x * x
    net.sums[g * 8 + 5] = total
    net.sums[g * 8 + 6] = squares


@kernel
def gru_work(
    thread: int, threads: int, gate: Any, task: int, update: bool, net: Any, gru: Any, streams: Any, acting: Any,
    learning: Any, world: Any, total: int, size: int, width: int, seeds: Any, counter: int,
) -> int:  # fmt: skip
    """`task` (OUTPUTS, SAMPLE, COLLECT, GRADIENT, or STATISTICS and then GRADIENT) for `total` streams, `size` at a time.

    A tile has `width` streams at most: TILE to act. With `update` a step of Adam after each part. In COLLECT `size` is N A, and
    all agents act in every part. Part j of acting draws from stream seeds[j]. Returns how many parts were
    finished before a gradient was not finite. All `threads` threads call it with the same arguments but `thread`; the first
    of them does what cannot be shared.
    """
    whole, coefs = net.whole, learning.coefs
    base = thread * whole[P.WORK]
    acts = task < STATISTICS or task == COLLECT
    for low in range(0, total, size):
        high = min(low + size, total)
        tiles = (high - low + width - 1) // width
        groups = min(GROUPS, tiles)
        rows = (high - low) * streams.steps
        key = mix(seeds[low // size] + GOLDEN) if acts else GOLDEN
        together = task != COLLECT or low == 0  # in COLLECT each thread has environments of its own and need not wait
        if thread == 0 and together:
            refresh(net, gru)
            net.scales[MEAN] = np.float32(0.0)
            net.scales[WEIGHT_SCALE] = np.float32(1.0)
        for part in range(task, GRADIENT + 1 if task == STATISTICS else task + 1):
            if part == STATISTICS and rows < 2:
                continue
            if together and not meet(gate, threads):
                return -1
            for g in range(thread * groups // threads, (thread + 1) * groups // threads):
                group = g * whole[P.GROUP]
                first, last = g * tiles // groups, (g + 1) * tiles // groups
                if part == STATISTICS:
                    n = high - low
                    advantage_sums(net, streams, g, low, low + first * n // tiles, low + last * n // tiles)
                    continue
                if part == GRADIENT:
                    for j in range(group, group + whole[P.GROUP], LANES):
                        store(net.grads, j, spread(0.0))
                    for j in range(5):
                        net.sums[g * 8 + j] = 0.0
                for tile in range(first, last):
                    if part == GRADIENT:  # tiles are as equal as can be: their blocks of rows are full
                        begin = low + tile * (high - low) // tiles
                        count = low + (tile + 1) * (high - low) // tiles - begin
                        learn_tile(net, gru, base, streams, begin, count, rows, coefs, group, g * 8)
                        continue
                    at = low + tile * width
                    count = min(width, high - at)
                    stream = at - low if task == COLLECT else at
                    began = now(world) if task == COLLECT and thread == 0 else 0
                    act_rows(net, gru, base, streams, acting, stream, count, at, task, key, counter + at - low)
                    if task == COLLECT:
                        acted = now(world) if thread == 0 else 0
                        if gru[U.READS_ACTION]:
                            store_last_action(whole, net.work, base, streams, stream, count)
                        step_tile(world, streams.stride, low // size, stream, count)
                        reset_ended(whole, gru, world, streams, stream, count, at)
                        if thread == 0:
                            ended = now(world)
                            world.clock[2] += ended - acted
                            world.clock[3] += ended - began
            if part == STATISTICS:
                if not meet(gate, threads):
                    return -1
                if thread == 0:
                    advantage_scale(net, streams.advantage[streams.selected[low] * streams.steps], groups, rows)
        if acts:
            continue
        if not meet(gate, threads):
            return -1
        slices = whole[P.GROUP] // LANES
        add_groups(whole, net.grads, groups, thread * slices // threads * LANES, (thread + 1) * slices // threads * LANES)
        if not meet(gate, threads):
            return -1
        if thread == 0:
            unpack(net.layers, whole, net.grads, learning.grad)
            unpack_gates(gru, net.grads, learning.grad)
            finish(net, learning, groups, low // size, update)
        if update:
            if not meet(gate, threads):
                return -1
            if not math.isfinite(learning.norms[low // size]):
                return low // size
    return (total + size - 1) // size


@kernel
def record_streams(
    first: int, last: int, many: int, steps: int, obs: Any, size: int, facts: int, choice: Any, move: Any, parts: int,
    is_first: Any, log_prob: Any, advantage: Any, target: Any, value: Any, data: Any, stride: int, advantages: Any,
    mask: Any, mask_at: int, actions: int,
) -> None:  # fmt: skip
    """Records of streams `first` .. `last` - 1 of `many`, from arrays (T, B): `size` bytes of observation, then the `facts`."""
    for stream in range(first, last):
        for t in range(steps):
            row, to = t * many + stream, stream * steps + t
            at = to * stride
            copy_bytes(data, at, obs, row * size, size)
            put_raw(data, at + facts, log_prob[row])
            put_raw(data, at + facts + 4, advantage[row])
            put_raw(data, at + facts + 8, target[row])
            put_raw(data, at + facts + 12, value[row])
            for part in range(parts):
                chosen = move[row * parts + part] if move.shape[0] else np.float32(choice[row * parts + part])
                put_raw(data, at + facts + 16 + 4 * part, chosen)
            put_raw(data, at + facts + 16 + 4 * parts, np.float32(1.0) if is_first[row] else np.float32(0.0))
            if mask_at:
                copy_bytes(data, at + mask_at, mask, row * actions, actions)
            advantages[to] = advantage[row]
