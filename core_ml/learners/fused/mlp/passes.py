"""What happens to one tile of samples: rows are fetched, pass forward, meet the loss, and pass backward.

A tile's activations lie in a thread's work space, one sample after the other (rows of features), so that all three products
of a layer are the same register block and nothing is transposed but the few outputs, which the loss reads in vectors of
samples. A layer's error takes the place of its activations. A GRU's steps are in `gru_passes.py`, its heads are a layer here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.blocks import block
from ..simd.maths import exp, log, tanh
from ..simd.vectors import LANES, float_raw, inner, load, load_raw, madd, spread, store, where_equal, where_less
from .plan import COLUMNS, HALF, ROWS, TILE, WIDE_ROWS, L, P

forward_block = block(ROWS, COLUMNS, "row", "strided")
forward_half = block(WIDE_ROWS, HALF, "row", "strided")
weight_block = block(ROWS, COLUMNS, "add", "packed")
weight_half = block(WIDE_ROWS, HALF, "add", "packed")
input_block = block(ROWS, COLUMNS, "zero", "strided")

HALF_LOG_2PI = 0.91893853320467274
HALF_LOG_2PIE = 1.41893853320467274

FORBIDDEN = np.float32(-1e30)  # the logit of an illegal action: finite, so that 0 log 0 is 0 and no gradient is NaN
LEAST_LOGIT = -1e29  # a logit below it has probability 0 exactly


@inner
def pack(layers: Any, whole: Any, flat: Any, packed: Any) -> None:
    """Copy the parameters in the order in which blocks read them: panels of outputs (bias first) and panels of inputs."""
    for row in range(layers.shape[0]):
        i, o, split = layers[row, L.IN], layers[row, L.OUT], layers[row, L.SPLIT]
        forward, backward = layers[row, L.FORWARD], layers[row, L.BACKWARD]
        wide = layers[row, L.PANELS] * COLUMNS + layers[row, L.TAIL] * HALF
        for j in range(wide):
            panel = j // COLUMNS
            columns = COLUMNS if panel < layers[row, L.PANELS] else HALF
            at = forward + panel * COLUMNS * (i + 1) + j % COLUMNS
            if j >= o:
                for k in range(i + 1):
                    packed[at + k * columns] = np.float32(0.0)
                continue
            weight, bias = layers[row, L.WEIGHT] + j * i, layers[row, L.BIAS] + j
            if j >= split:
                weight, bias = layers[row, L.WEIGHT_2] + (j - split) * i, layers[row, L.BIAS_2] + j - split
            packed[at] = flat[bias]
            for k in range(i):
                packed[at + (k + 1) * columns] = flat[weight + k]
            for k in range(layers[row, L.BACK_PANELS] * COLUMNS):
                back = backward + k // COLUMNS * COLUMNS * o + j * COLUMNS + k % COLUMNS
                packed[back] = flat[weight + k] if k < i else np.float32(0.0)
    if whole[P.GAUSSIAN]:
        for j in range(whole[P.ACTIONS]):
            log_std = flat[whole[P.LOG_STD] + j]
            packed[whole[P.PACKED_STD] + j] = log_std
            packed[whole[P.PACKED_STD] + whole[P.ACTIONS] + j] = np.float32(np.exp(-np.float64(log_std)))


@inner
def unpack(layers: Any, whole: Any, group: Any, grad: Any) -> None:
    """The reverse for a gradient: from a group's rows of inputs into the order of the parameters."""
    for row in range(layers.shape[0]):
        i, o, split, ones = layers[row, L.IN], layers[row, L.OUT], layers[row, L.SPLIT], layers[row, L.ONES]
        start, stride = layers[row, L.GRAD], layers[row, L.GRAD_STRIDE]
        for j in range(o):
            weight, bias = layers[row, L.WEIGHT] + j * i, layers[row, L.BIAS] + j
            if j >= split:
                weight, bias = layers[row, L.WEIGHT_2] + (j - split) * i, layers[row, L.BIAS_2] + j - split
            for k in range(i):
                grad[weight + k] = group[start + k * stride + j]
            grad[bias] = group[start + ones * stride + j]
    if whole[P.GAUSSIAN]:
        for j in range(whole[P.ACTIONS]):
            grad[whole[P.LOG_STD] + j] = group[whole[P.GROUP_STD] + j]


@inner
def fetch_row(work: Any, at: int, data: Any, start: int, raw: bool, inputs: int, scale: Any) -> None:
    """One observation, from byte `start` of `data` on; see `fetch`."""
    if inputs < LANES:
        for k in range(inputs):
            x = float_raw(data, start + 4 * k) if raw else np.float32(data[start + k])
            if scale.shape[0]:
                x = (x - scale[k]) * scale[inputs + k]
                x = np.float32(-10.0) if x < np.float32(-10.0) else x
                x = np.float32(10.0) if x > np.float32(10.0) else x
            work[at + k] = x
        return
    for step in range(0, inputs, LANES):
        k = min(step, inputs - LANES)  # the last vector overlaps the one before
        v = load_raw(data, start + 4 * k) if raw else load(data, start + k)
        if scale.shape[0]:
            v = (v - load(scale, k)) * load(scale, inputs + k)
            v = where_less(v, -10.0, -10.0, where_less(10.0, v, 10.0, v))
        store(work, at + k, v)


@inner
def fetch(
    whole: Any, work: Any, base: int, data: Any, row_bytes: int, raw: bool, index: Any, low: int, count: int, scale: Any
) -> None:
    """Observations low .. low + count - 1 of `index` (of all rows, if it is empty) into the first tile, as float32, normalised.

    Each row of the bytes `data` begins with one; `raw`: it is float32 numbers. `scale`: means, then 1 / deviation, or empty.
    """
    inputs, stride = whole[P.INPUTS], whole[P.INPUT_STRIDE]
    for s in range(count):
        row = index[low + s] if index.shape[0] else low + s
        fetch_row(work, base + s * stride, data, row * row_bytes, raw, inputs, scale)


@inner
def forward(layers: Any, whole: Any, packed: Any, work: Any, base: int, count: int) -> None:
    """All layers for `count` samples; the outputs end as rows of samples at P.OUT."""
    rows = (count + WIDE_ROWS - 1) // WIDE_ROWS * WIDE_ROWS
    relu = whole[P.RELU] == 1
    for layer in range(layers.shape[0]):
        i, panels = layers[layer, L.IN], layers[layer, L.PANELS]
        source, source_stride = base + layers[layer, L.SOURCE], layers[layer, L.SOURCE_STRIDE]
        target, target_stride = base + layers[layer, L.TARGET], layers[layer, L.TARGET_STRIDE]
        weights, head = layers[layer, L.FORWARD], layers[layer, L.HEAD]
        for r in range(0, rows, ROWS):
            a, c = source + r * source_stride, target + r * target_stride
            for p in range(panels):
                b = weights + p * COLUMNS * (i + 1) + COLUMNS
                forward_block(work, a, source_stride, packed, b, COLUMNS, work, c + p * COLUMNS, target_stride, i)
            if head < 0:
                for s in range(ROWS):
                    for at in range(c + s * target_stride, c + s * target_stride + panels * COLUMNS, LANES):
                        x = load(work, at)
                        store(work, at, where_less(0.0, x, x, where_less(x, 0.0, 0.0, x)) if relu else tanh(x))
        if layers[layer, L.TAIL]:
            b = weights + panels * COLUMNS * (i + 1) + HALF
            for r in range(0, rows, WIDE_ROWS):
                a, c = source + r * source_stride, target + r * target_stride + panels * COLUMNS
                forward_half(work, a, source_stride, packed, b, HALF, work, c, target_stride, i)
        if head >= 0:
            for j in range(layers[layer, L.OUT]):
                out = base + whole[P.OUT] + (head + j) * TILE
                for s in range(count):
                    work[out + s] = work[target + s * target_stride + j]


@inner
def backward(layers: Any, whole: Any, packed: Any, work: Any, base: int, count: int, grads: Any, group: int) -> None:
    """From the outputs' errors, rows of samples at P.OUT, to a group's gradient, which is added to."""
    rows = (count + WIDE_ROWS - 1) // WIDE_ROWS * WIDE_ROWS
    relu, linear = whole[P.RELU] == 1, whole[P.RELU] == 2
    scratch = base + whole[P.SCRATCH]
    for layer in range(layers.shape[0] - 1, -1, -1):
        o, panels, back_panels = layers[layer, L.OUT], layers[layer, L.PANELS], layers[layer, L.BACK_PANELS]
        source, source_stride = base + layers[layer, L.SOURCE], layers[layer, L.SOURCE_STRIDE]
        target, target_stride = base + layers[layer, L.TARGET], layers[layer, L.TARGET_STRIDE]
        head, ones = layers[layer, L.HEAD], layers[layer, L.ONES]
        if head >= 0:
            for j in range(o):
                out = base + whole[P.OUT] + (head + j) * TILE
                for s in range(count):
                    work[target + s * target_stride + j] = work[out + s]
        grad, grad_stride = group + layers[layer, L.GRAD], layers[layer, L.GRAD_STRIDE]
        for p in range(panels):
            for k in range(0, ones + 1, ROWS):
                weight_block(
                    work, source + k, source_stride, work, target + p * COLUMNS, target_stride,
                    grads, grad + k * grad_stride + p * COLUMNS, grad_stride, count,
                )  # fmt: skip
        if layers[layer, L.TAIL]:
            for k in range(0, ones + 1, WIDE_ROWS):
                weight_half(
                    work, source + k, source_stride, work, target + panels * COLUMNS, target_stride,
                    grads, grad + k * grad_stride + panels * COLUMNS, grad_stride, count,
                )  # fmt: skip
        wide = back_panels * COLUMNS
        if wide:
            for r in range(0, rows, ROWS):
                a, c = target + r * target_stride, source + r * source_stride
                for p in range(back_panels):
                    b = layers[layer, L.BACKWARD] + p * COLUMNS * o
                    input_block(work, a, target_stride, packed, b, COLUMNS, work, scratch + p * COLUMNS, wide, o)
                for s in range(ROWS):
                    for k in range(0, wide, LANES):
                        at = c + s * source_stride + k
                        error, h = load(work, scratch + s * wide + k), load(work, at)
                        if linear:
                            store(work, at, error)
                        else:
                            store(work, at, where_less(0.0, h, error, 0.0) if relu else error * (1.0 - h * h))


@inner
def forbid(whole: Any, work: Any, base: int, s: int, mask: Any, at: int) -> None:
    """Logits of the actions of sample s that are 0 in `mask`, from its number `at` on, become FORBIDDEN."""
    for j in range(whole[P.ACTIONS]):
        if mask[at + j] == 0:
            work[base + whole[P.OUT] + j * TILE + s] = FORBIDDEN


@inner
def distribution(whole: Any, packed: Any, work: Any, base: int, s: int) -> Any:
    """(log-probability of the action, entropy) of LANES samples from `s` on.

    Log-probabilities take the place of the logits, and with `want` probabilities go to P.PROBABILITY.
    """
    out, action, keep = base + whole[P.OUT] + s, base + whole[P.ACTION] + s, base + whole[P.PROBABILITY] + s
    log_prob, entropy = spread(0.0), spread(0.0)
    if whole[P.GAUSSIAN]:
        std = whole[P.PACKED_STD]
        for j in range(whole[P.ACTIONS]):
            z = (load(work, action + j * TILE) - load(work, out + j * TILE)) * packed[std + whole[P.ACTIONS] + j]
            log_prob = log_prob - (madd(z * 0.5, z, spread(packed[std + j])) + HALF_LOG_2PI)
            entropy = entropy + (spread(packed[std + j]) + HALF_LOG_2PIE)
            store(work, keep + j * TILE, z)
        return log_prob, entropy
    first = 0
    for head in range(whole[P.PARTS]):
        size = whole[P.SIZES + head]
        top = load(work, out + first * TILE)
        for j in range(first + 1, first + size):
            x = load(work, out + j * TILE)
            top = where_less(top, x, x, top)
        total = spread(0.0)
        for j in range(first, first + size):
            logit = load(work, out + j * TILE)
            p = where_less(logit, LEAST_LOGIT, 0.0, exp(logit - top))
            store(work, keep + j * TILE, p)
            total = total + p
        log_total = log(total)
        action_taken = load(work, action + head * TILE)
        for j in range(first, first + size):
            log_p = load(work, out + j * TILE) - top - log_total
            p = load(work, keep + j * TILE) / total
            store(work, out + j * TILE, log_p)
            store(work, keep + j * TILE, p)
            entropy = entropy - p * log_p
            log_prob = log_prob + where_equal(action_taken, np.float32(j - first), log_p, 0.0)
        first += size
    return log_prob, entropy


@inner
def loss(
    whole: Any, packed: Any, work: Any, base: int, count: int, rows: int,
    clip: float, value_clip: float, value_weight: float, entropy_weight: float, grads: Any, group: int, sums: Any, sum_at: int,
) -> None:  # fmt: skip
    """PPO's loss of `count` samples; outputs become errors, those of the mean over `rows` rows."""
    actions = whole[P.ACTIONS]
    share = 1.0 / rows
    for s in range(0, count, LANES):
        at = base + s
        out, keep, facts, parts = at + whole[P.OUT], at + whole[P.PROBABILITY], at + whole[P.FACTS], at + whole[P.SUMS]
        new, entropy = distribution(whole, packed, work, base, s)
        log_ratio = new - load(work, facts)
        ratio = exp(log_ratio)
        weight = load(work, facts + TILE)
        free = ratio * weight
        near = where_less(ratio, 1.0 - clip, 1.0 - clip, where_less(1.0 + clip, ratio, 1.0 + clip, ratio))
        final_h = near * weight
        store(work, parts, where_less(final_h, free, 0.0 - final_h, 0.0 - free))
        store(work, parts + 2 * TILE, entropy)
        store(work, parts + 3 * TILE, ratio - 1.0 - log_ratio)
        away = where_less(ratio - 1.0, 0.0, 1.0 - ratio, ratio - 1.0)
        store(work, parts + 4 * TILE, where_less(clip, away, 1.0, 0.0))
        # d loss / d log-probability: ratio A where it is the minimum, and within the range, where both are the same
        slope = 0.0 - free
        outside = where_less(free, final_h, slope, 0.0)
        slope = where_less(ratio, 1.0 - clip, outside, where_less(1.0 + clip, ratio, outside, slope)) * share

        value, target, old_value = load(work, out + actions * TILE), load(work, facts + 2 * TILE), load(work, facts + 3 * TILE)
        error = value - target
        square = error * error
        if value_clip > 0.0:
            change = value - old_value
            moved = where_less(change, -value_clip, -value_clip, where_less(value_clip, change, value_clip, change))
            moved_error = old_value + moved - target
            moved_square = moved_error * moved_error
            passed = where_less(change, -value_clip, 0.0, where_less(value_clip, change, 0.0, moved_error))
            error = where_less(square, moved_square, passed, error)
            square = where_less(square, moved_square, moved_square, square)
        store(work, parts + TILE, square * 0.5)
        store(work, out + actions * TILE, error * (value_weight * share))

        if whole[P.GAUSSIAN]:
            for j in range(actions):
                z = load(work, keep + j * TILE)
                store(work, out + j * TILE, slope * z * packed[whole[P.PACKED_STD] + actions + j])
                store(work, keep + j * TILE, slope * madd(z, z, -1.0))
        else:
            first = 0
            for head in range(whole[P.PARTS]):
                size = whole[P.SIZES + head]
                action_taken = load(work, at + whole[P.ACTION] + head * TILE)
                entropy = spread(0.0)
                for j in range(first, first + size):
                    entropy = entropy - load(work, keep + j * TILE) * load(work, out + j * TILE)
                for j in range(first, first + size):
                    p, log_p = load(work, keep + j * TILE), load(work, out + j * TILE)
                    chosen = where_equal(action_taken, np.float32(j - first), 1.0, 0.0)
                    push = p * (log_p + entropy) * (entropy_weight * share)
                    store(work, out + j * TILE, madd(slope, chosen - p, push))
                first += size
    if whole[P.GAUSSIAN]:
        for j in range(actions):
            total = -entropy_weight * share * count
            for s in range(count):
                total += np.float64(work[base + whole[P.PROBABILITY] + j * TILE + s])
            grads[group + whole[P.GROUP_STD] + j] += np.float32(total)
    parts = base + whole[P.SUMS]
    a, b, c, d, e = 0.0, 0.0, 0.0, 0.0, 0.0
    for s in range(parts, parts + count):
        a += work[s]
        b += work[s + TILE]
        c += work[s + 2 * TILE]
        d += work[s + 3 * TILE]
        e += work[s + 4 * TILE]
    sums[sum_at] += a
    sums[sum_at + 1] += b
    sums[sum_at + 2] += c
    sums[sum_at + 3] += d
    sums[sum_at + 4] += e
