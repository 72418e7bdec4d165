"""The one kernel that Python calls: acting, and an epoch of PPO. Threads share groups of tiles; groups are summed in order.

How rows fall into tiles and tiles into groups depends on the number of rows alone: one thread and sixteen give the same bits.
One kernel for all tasks, because what it is made of takes most of the time to compile.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .....native import splitmix64
from .....native.splitmix64 import GOLDEN
from .....store.arrays import Array
from ..simd.cache import kernel
from ..simd.maths import exp, normal
from ..simd.threads import CLOCK, CLOCK_ID, clock_gettime, meet
from ..simd.vectors import LANES, call_at, copy_bytes, float_raw, inner, load, put_raw, spread, store, where_less
from .passes import LEAST_LOGIT, backward, distribution, fetch, forbid, forward, loss, pack, unpack
from .plan import GROUPS, TILE, P

S32, S41 = np.uint64(32), np.uint64(41)
TO_UNIT = np.float32(2.0**-23)
OUTPUTS, SAMPLE, STATISTICS, GRADIENT, COLLECT = 0, 1, 2, 3, 4  # tasks of a kernel call
MEAN, WEIGHT_SCALE = 0, 1  # of a minibatch's advantages
CLIP, VALUE_CLIP, VALUE_WEIGHT, ENTROPY_WEIGHT, RATE, LARGEST, BETA_1, BETA_2, EPSILON = range(9)  # places in Learning.coefs


class Net(NamedTuple):
    """A network, its parameters and the work space of the kernels."""

    layers: Array  # the tables of plan.py
    whole: Array
    flat: Array  # the parameters
    known: Array  # the parameters that `packed` was made of
    packed: Array
    work: Array  # GROUPS * P.WORK: one for each thread, and there are no more threads than groups
    grads: Array  # GROUPS * P.GROUP
    sums: Array  # float64 (GROUPS * 8,): five parts of the loss, sum and squares of advantages, waste
    scales: Array  # float32 (2,): MEAN, WEIGHT_SCALE


class SampleRows(NamedTuple):
    """B rows: observations for acting; for learning records of observation, log-probability, advantage, target, value,
    action."""

    data: Array  # uint8 (B * stride,)
    stride: int  # bytes a row
    raw: bool  # an observation is float32 numbers, not bytes
    scale: Array  # float32 (2 D,): mean, 1 / deviation; or empty
    selected: Array  # int64: the rows to take; empty: all
    advantage: Array  # float32 (B,), as in the records: for their mean and deviation
    mask: int  # byte of a record at which its action mask begins, one byte an action; 0: there is none


class Acting(NamedTuple):
    """What acting writes, flat."""

    choice: Array  # int64 (B * parts,): discrete actions
    move: Array  # float32 (B * parts,): actions of a gaussian
    legal: Array  # float32 (B * parts,): `move` within `bounds`, or empty
    bounds: Array  # float32 (2 parts,): lowest, then highest
    log_prob: Array  # float32 (B,)
    entropy: Array
    value: Array
    outputs: Array  # float32 (B * actions,)
    mask: Array  # input: uint8 (B * actions,), 0 where an action is illegal; empty: all are legal


class NativeRollout(NamedTuple):
    """N environments with A agents that a C function steps, and the buffers of T steps. All arrays are flat."""

    step: int  # address of int64 (first, last, table, reals, actions, limit, autoreset), all of them int64
    table: int
    reals: int
    limit: int
    agents: int
    actions: int  # address of Acting's `choice`, or `legal`
    action_size: int  # bytes of an agent's action
    obs: Array  # uint8 (N * A * stride,): what the function fills, up to ended_length
    final_obs: Array
    reward: Array  # float32 (N * A,)
    terminated: Array  # bool (N,)
    truncated: Array
    ended_return: Array  # float64 (N * A,)
    ended_length: Array  # int64 (N,)
    buffer_obs: Array  # uint8 (T * N * A * stride,): observations before each step
    buffer_final_obs: Array  # where truncated
    buffer_reward: Array
    buffer_terminated: Array
    buffer_truncated: Array
    buffer_ended_return: Array  # where an episode ended
    buffer_ended_length: Array
    clock: Array  # int64 (4,): two for reading the clock; nanoseconds in the world and in all, of the first thread
    clock_at: int  # its address


class Learning(NamedTuple):
    coefs: Array  # float64 (9,)
    grad: Array  # the state of `optim.FlatAdam`
    mean: Array
    square: Array
    steps: Array  # int64 (1,)
    total: Array  # float64 (5,): parts of the loss
    norms: Array  # float64 (minibatches,)


mix = inner(splitmix64.mix)


@inner
def uniform(key: Any, count: Any) -> Any:
    """Draw number `count` of the stream `key`: a multiple of 2^-23 in [0, 1), as float32."""
    return np.float32(mix(key + (np.uint64(count) + np.uint64(1)) * GOLDEN) >> S41) * TO_UNIT


@inner
def refresh(layers: Any, whole: Any, flat: Any, known: Any, packed: Any) -> None:
    """Pack the parameters, if they are not those that were packed last."""
    same = True
    for j in range(flat.shape[0]):
        same &= flat[j] == known[j]
    if not same:
        for j in range(flat.shape[0]):
            known[j] = flat[j]
        pack(layers, whole, flat, packed)


@inner
def weight_of(logit: Any, top: Any) -> Any:
    """exp(logit - top), 0 for an illegal action."""
    return where_less(logit, LEAST_LOGIT, 0.0, exp(logit - top))


@inner
def sample(whole: Any, packed: Any, work: Any, base: int, s: int) -> None:
    """Actions of LANES samples from `s` on, by the inverse distribution function of uniform numbers at P.UNIFORM."""
    out, action, drawn = base + whole[P.OUT] + s, base + whole[P.ACTION] + s, base + whole[P.UNIFORM] + s
    if whole[P.GAUSSIAN]:
        for j in range(whole[P.ACTIONS]):
            inverse = packed[whole[P.PACKED_STD] + whole[P.ACTIONS] + j]
            middle = load(work, drawn + j * TILE) * 2.0 + (2.0**-23 - 1.0)  # of the interval that the number stands for
            store(work, action + j * TILE, load(work, out + j * TILE) + normal(middle) / inverse)
        return
    first = 0
    for head in range(whole[P.PARTS]):
        size = whole[P.SIZES + head]
        top = load(work, out + first * TILE)
        for j in range(first + 1, first + size):
            x = load(work, out + j * TILE)
            top = where_less(top, x, x, top)
        total = spread(0.0)
        for j in range(first, first + size):
            total = total + weight_of(load(work, out + j * TILE), top)
        level, below, chosen = load(work, drawn + head * TILE) * total, spread(0.0), spread(0.0)
        for j in range(first, first + size - 1):
            below = below + weight_of(load(work, out + j * TILE), top)
            chosen = chosen + where_less(level, below, 0.0, 1.0)
        store(work, action + head * TILE, chosen)
        first += size


@inner
def act_tile(net: Any, acting: Any, base: int, low: int, count: int, task: int, key: Any, counter: int) -> None:
    """Actions of `count` samples into rows `low`... of `acting`, with draws number `counter`... of the stream `key`."""
    whole, work = net.whole, net.work
    out, actions, parts = base + whole[P.OUT], whole[P.ACTIONS], whole[P.PARTS]
    for s in range(count):
        acting.value[low + s] = work[out + actions * TILE + s]
    if task == OUTPUTS:
        for s in range(count):
            for j in range(actions):
                acting.outputs[(low + s) * actions + j] = work[out + j * TILE + s]
        return
    for s in range(count):
        for part in range(parts):
            work[base + whole[P.UNIFORM] + part * TILE + s] = uniform(key, (counter + s) * parts + part)
    if acting.mask.shape[0]:
        for s in range(count):
            forbid(whole, work, base, s, acting.mask, (low + s) * actions)
    known = base + whole[P.FACTS]
    for s in range(0, count, LANES):
        sample(whole, net.packed, work, base, s)
        log_prob, entropy = distribution(whole, net.packed, work, base, s)
        store(work, known + s, log_prob)
        store(work, known + TILE + s, entropy)
    for s in range(count):
        acting.log_prob[low + s] = work[known + s]
        acting.entropy[low + s] = work[known + TILE + s]
        for part in range(parts):
            chosen = work[base + whole[P.ACTION] + part * TILE + s]
            if whole[P.GAUSSIAN]:
                acting.move[(low + s) * parts + part] = chosen
                if acting.legal.shape[0]:
                    acting.legal[(low + s) * parts + part] = min(max(chosen, acting.bounds[part]), acting.bounds[parts + part])
            else:
                acting.choice[(low + s) * parts + part] = np.int64(chosen)


@inner
def now(world: Any) -> int:
    """Nanoseconds on some clock; 0 where the system has none."""
    if CLOCK:
        clock_gettime(CLOCK_ID, world.clock_at)
    time: int = world.clock[0] * 1_000_000_000 + world.clock[1]
    return time


@inner
def step_tile(world: Any, stride: int, t: int, first: int, count: int) -> None:
    """Step `t` of the environments whose agents are rows `first` .. `first` + `count` - 1; its results go to the buffers."""
    agents = world.agents
    num_envs, low, high = world.terminated.shape[0], first // agents, (first + count) // agents
    rows = t * num_envs * agents  # of the steps before
    copy_bytes(world.buffer_obs, (rows + first) * stride, world.obs, first * stride, count * stride)
    actions = world.actions + rows * world.action_size
    call_at(world.step, low, high, world.table, world.reals, actions, world.limit, 1)
    for row in range(first, first + count):
        world.buffer_reward[rows + row] = world.reward[row]
    for i in range(low, high):
        at = t * num_envs + i
        terminated, truncated = world.terminated[i], world.truncated[i]
        world.buffer_terminated[at] = terminated
        world.buffer_truncated[at] = truncated
        if terminated or truncated:
            world.buffer_ended_length[at] = world.ended_length[i]
            for k in range(i * agents, (i + 1) * agents):
                world.buffer_ended_return[rows + k] = world.ended_return[k]
        if truncated:
            begin, size = i * agents * stride, agents * stride
            copy_bytes(world.buffer_final_obs, rows * stride + begin, world.final_obs, begin, size)


@inner
def facts_at(whole: Any, raw: bool) -> int:
    """Where log-probability, advantage, target and value begin in a record; the action follows them."""
    place: int = whole[P.INPUTS] * 4 if raw else (whole[P.INPUTS] + 3) // 4 * 4
    return place


@inner
def fetch_facts(net: Any, rows: Any, base: int, low: int, count: int) -> None:
    """Log-probability, advantage, target, value and action of records selected[low : low + count]."""
    whole, work = net.whole, net.work
    known, action = base + whole[P.FACTS], base + whole[P.ACTION]
    mean, scale, first = net.scales[MEAN], net.scales[WEIGHT_SCALE], facts_at(whole, rows.raw)
    for s in range(count):
        at = rows.selected[low + s] * rows.stride + first
        work[known + s] = float_raw(rows.data, at)
        work[known + TILE + s] = (float_raw(rows.data, at + 4) - mean) * scale
        work[known + 2 * TILE + s] = float_raw(rows.data, at + 8)
        work[known + 3 * TILE + s] = float_raw(rows.data, at + 12)
        for part in range(whole[P.PARTS]):
            work[action + part * TILE + s] = float_raw(rows.data, at + 16 + 4 * part)


@inner
def prefetch(rows: Any, low: int, high: int) -> int:
    """Load records selected[low:high] into the cache, by reading them in a loop that need not wait for any single one.

    Prefetch instructions would be the better way, but many processors drop them where the page's address is not known yet.
    Returns a sum, so that the compiler keeps the reading.
    """
    total = 0
    for j in range(low, high):
        at = rows.selected[j] * rows.stride
        for k in range(at, at + rows.stride - 1, 64):
            total += rows.data[k]
        total += rows.data[at + rows.stride - 1]
    return total


@inner
def advantage_sums(net: Any, rows: Any, g: int, start: int, first: int, last: int) -> None:
    """Group g's sums of advantages and of their squares over rows selected[first:last]. All are chosen less the advantage of
    row selected[start]: it is of the same size, so that squares lose no digits."""
    about = np.float64(rows.advantage[rows.selected[start]])
    total, squares = 0.0, 0.0
    for j in range(first, last):
        x = np.float64(rows.advantage[rows.selected[j]]) - about
        total += x
        squares += x * x
    net.sums[g * 8 + 5] = total
    net.sums[g * 8 + 6] = squares


@inner
def advantage_scale(net: Any, about: Any, groups: int, count: int) -> None:
    """(a - mean) / (deviation + 1e-8) as (a - scales[MEAN]) scales[WEIGHT_SCALE], from the groups' sums of `count` a -
    `about`."""
    total, squares = 0.0, 0.0
    for g in range(groups):
        total += net.sums[g * 8 + 5]
        squares += net.sums[g * 8 + 6]
    variance = max(squares - total * total / count, 0.0) / (count - 1)
    net.scales[MEAN] = np.float32(np.float64(about) + total / count)
    net.scales[WEIGHT_SCALE] = np.float32(1.0 / (math.sqrt(variance) + 1e-8))


@inner
def add_groups(whole: Any, grads: Any, groups: int, first: int, last: int) -> None:
    """Numbers first .. last - 1 of all groups' gradients into the first group's, added in the order of the groups."""
    size = whole[P.GROUP]
    for j in range(first, last, LANES):
        total = load(grads, j)
        for g in range(1, groups):
            total = total + load(grads, g * size + j)
        store(grads, j, total)


@inner
def adam(flat: Any, grad: Any, mean: Any, square: Any, steps: Any, coefs: Any) -> float:
    """`optim.FlatAdam.step`. Returns the gradient's norm before clipping."""
    total = 0.0
    for j in range(grad.shape[0]):
        total += np.float64(grad[j]) * np.float64(grad[j])
    norm = math.sqrt(total)
    if not math.isfinite(norm):
        return norm
    largest = coefs[LARGEST]
    shrink = np.float32(largest / (norm + 1e-6)) if 0.0 < largest < norm else np.float32(1.0)
    steps[0] += 1
    b1, b2 = coefs[BETA_1], coefs[BETA_2]
    keep, new, new_square = np.float32(b2), np.float32(1.0 - b1), np.float32(1.0 - b2)
    scale, eps = np.float32(math.sqrt(1.0 - b2 ** steps[0])), np.float32(coefs[EPSILON])
    rate = np.float32(-coefs[RATE] / (1.0 - b1 ** steps[0]))
    for j in range(grad.shape[0]):
        g = grad[j] * shrink
        grad[j] = g
        m = mean[j] + new * (g - mean[j])
        v = square[j] * keep + new_square * g * g
        mean[j] = m
        square[j] = v
        flat[j] += rate * m / (np.sqrt(v) / scale + eps)
    return norm


@inner
def finish(net: Any, learning: Any, groups: int, part: int, update: bool) -> None:
    """The sums of all groups, and with `update` a step of Adam with the gradient of part number `part`."""
    for g in range(groups):
        for j in range(5):
            learning.total[j] += net.sums[g * 8 + j]
    if update:
        learning.norms[part] = adam(net.flat, learning.grad, learning.mean, learning.square, learning.steps, learning.coefs)


@kernel
def work(
    thread: int, threads: int, gate: Any, task: int, update: bool, net: Any, rows: Any, acting: Any, learning: Any, world: Any,
    total: int, size: int, seeds: Any, counter: int,
) -> int:  # fmt: skip
    """`task` (OUTPUTS, SAMPLE, COLLECT, GRADIENT, or STATISTICS and then GRADIENT) for `total` rows, `size` at a time.

    With `update` a step of Adam after each. In COLLECT `size` is N A, and `rows` are the world's present observations in every
    part. Part j of acting draws from stream seeds[j]. Returns how many parts were finished before a gradient was not finite.
    All `threads` threads call it with the same arguments but `thread`; the first of them does what cannot be shared.
    """
    whole, coefs = net.whole, learning.coefs
    base = thread * whole[P.WORK]  # nothing that is left in a work space changes a result
    for low in range(0, total, size):
        high = min(low + size, total)
        groups = min(GROUPS, (high - low + TILE - 1) // TILE)
        key = mix(seeds[low // size] + GOLDEN) if task == SAMPLE or task == COLLECT else GOLDEN
        together = task != COLLECT or low == 0  # in COLLECT each thread has environments of its own and need not wait
        if thread == 0 and together:
            refresh(net.layers, whole, net.flat, net.known, net.packed)
            net.scales[MEAN] = np.float32(0.0)
            net.scales[WEIGHT_SCALE] = np.float32(1.0)
        for part in range(task, GRADIENT + 1 if task == STATISTICS else task + 1):
            if part == STATISTICS and high - low < 2:
                continue
            if together and not meet(gate, threads):
                return -1
            for g in range(thread * groups // threads, (thread + 1) * groups // threads):
                grad = g * whole[P.GROUP]
                tiles = (high - low + TILE - 1) // TILE
                first, last = low + g * tiles // groups * TILE, min(high, low + (g + 1) * tiles // groups * TILE)
                if part == STATISTICS:
                    advantage_sums(net, rows, g, low, first, last)
                    continue
                if part == GRADIENT:
                    for j in range(grad, grad + whole[P.GROUP], LANES):
                        store(net.grads, j, spread(0.0))
                    for j in range(5):
                        net.sums[g * 8 + j] = 0.0
                for at in range(first, last, TILE):
                    count = min(TILE, last - at)
                    began = now(world) if part == COLLECT and thread == 0 else 0
                    row = at - low if part == COLLECT else at
                    fetch(whole, net.work, base, rows.data, rows.stride, rows.raw, rows.selected, row, count, rows.scale)
                    if part == GRADIENT:
                        fetch_facts(net, rows, base, at, count)
                        net.sums[g * 8 + 7] = prefetch(rows, at + count, min(at + count + TILE, last))
                    forward(net.layers, whole, net.packed, net.work, base, count)
                    if part == GRADIENT:
                        if rows.mask:
                            for s in range(count):
                                mask_at = rows.selected[at + s] * rows.stride + rows.mask
                                forbid(whole, net.work, base, s, rows.data, mask_at)
                        loss(
                            whole, net.packed, net.work, base, count, high - low, coefs[CLIP], coefs[VALUE_CLIP],
                            coefs[VALUE_WEIGHT], coefs[ENTROPY_WEIGHT], net.grads, grad, net.sums, g * 8,
                        )  # fmt: skip
                        backward(net.layers, whole, net.packed, net.work, base, count, net.grads, grad)
                    else:
                        act_tile(net, acting, base, at, count, part, key, counter + at - low)
                    if part == COLLECT:
                        acted = now(world) if thread == 0 else 0
                        step_tile(world, rows.stride, low // size, row, count)
                        if thread == 0:
                            ended = now(world)
                            world.clock[2] += ended - acted
                            world.clock[3] += ended - began
            if part == STATISTICS:
                if not meet(gate, threads):
                    return -1
                if thread == 0:
                    advantage_scale(net, rows.advantage[rows.selected[low]], groups, high - low)
        if task < STATISTICS or task == COLLECT:
            continue
        if not meet(gate, threads):
            return -1
        slices = whole[P.GROUP] // LANES
        add_groups(whole, net.grads, groups, thread * slices // threads * LANES, (thread + 1) * slices // threads * LANES)
        if not meet(gate, threads):
            return -1
        if thread == 0:
            unpack(net.layers, whole, net.grads, learning.grad)
            finish(net, learning, groups, low // size, update)
        if update:
            if not meet(gate, threads):
                return -1
            if not math.isfinite(learning.norms[low // size]):
                return low // size
    return (total + size - 1) // size


@kernel
def record(
    first: int, last: int, obs: Any, size: int, facts: int, choice: Any, move: Any, parts: int,
    log_prob: Any, advantage: Any, target: Any, value: Any, data: Any, stride: int, mask: Any, mask_at: int, actions: int,
) -> None:  # fmt: skip
    """PackedBatch `first` .. `last` - 1 from arrays that have a row each; `size` bytes of observation, `facts` behind them.

    Samples are read in random order: a record costs one cache miss where six arrays would cost six.
    """
    for row in range(first, last):
        at = row * stride
        copy_bytes(data, at, obs, row * size, size)
        put_raw(data, at + facts, log_prob[row])
        put_raw(data, at + facts + 4, advantage[row])
        put_raw(data, at + facts + 8, target[row])
        put_raw(data, at + facts + 12, value[row])
        for part in range(parts):
            chosen = move[row * parts + part] if move.shape[0] else np.float32(choice[row * parts + part])
            put_raw(data, at + facts + 16 + 4 * part, chosen)
        if mask_at:
            copy_bytes(data, at + mask_at, mask, row * actions, actions)


@kernel
def shuffle(blocks: Any, permutation: Any, block: int, seed: Any, counter: int) -> None:
    """0 .. len(permutation) - 1 in random order, where runs of `block` neighbours stay together (Durstenfeld 1964).

    Takes as many draws of the stream `seed` as there are `blocks`, which is scratch memory, from number `counter` on.
    """
    key = mix(seed + GOLDEN)
    for j in range(blocks.shape[0]):
        bits = mix(key + (np.uint64(counter + j) + np.uint64(1)) * GOLDEN)
        other = np.int64(((bits >> S32) * np.uint64(j + 1)) >> S32)  # in 0 .. j
        blocks[j] = blocks[other]
        blocks[other] = j
    at = 0
    for j in range(blocks.shape[0]):
        first = blocks[j] * block
        for row in range(first, min(first + block, permutation.shape[0])):
            permutation[at] = row
            at += 1
