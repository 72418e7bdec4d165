"""What happens to a tile of streams in a GRU: steps forward, steps backward through time, and the gradient of the weights.

r, z = sigma(W x_t + U h_{t-1} + b);  n = tanh(W x_t + b + r (U h_{t-1} + b'));  h_t = n + z (h_{t-1} - n)

As in `mlp/passes.py` all products are register blocks over rows: a row is [x_t, 1, h_{t-1}], so that a bias is one more weight
and x and h go through one product where their sum is wanted. Rows of all steps stay in place until the backward pass, in which
the steps that fill a TILE of rows share one product for the gradient of the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..mlp.passes import input_block, weight_block
from ..mlp.plan import COLUMNS, ROWS
from ..simd.blocks import block
from ..simd.maths import tanh
from ..simd.vectors import LANES, inline, inner, load, madd, spread, store
from .plan import U

error_block = block(ROWS, COLUMNS, "add", "strided")


@inner
def pack_gates(gru: Any, flat: Any, packed: Any) -> None:
    """Copy the GRU's parameters in the order in which blocks read them; the padding stays zero."""
    x, h, wide = gru[U.X], gru[U.H], gru[U.WIDE]
    deep = x + 1 + h
    for unit in range(h):
        n = gru[U.FORWARD] + unit // COLUMNS * gru[U.PANEL] + unit % COLUMNS
        r = n + (x + 1) * COLUMNS
        z = r + deep * COLUMNS
        of_h = z + deep * COLUMNS
        for gate in range(3):
            weight, bias = gru[U.W_X] + (gate * h + unit) * x, gate * h + unit
            at = r if gate == 0 else z if gate == 1 else n
            for k in range(x):
                packed[at + k * COLUMNS] = flat[weight + k]
            b_x, b_h = flat[gru[U.B_X] + bias], flat[gru[U.B_H] + bias]
            packed[at + x * COLUMNS] = b_x + b_h if gate < 2 else b_x
            if gate == 2:
                packed[of_h] = b_h
            at = at + (x + 1) * COLUMNS if gate < 2 else of_h + COLUMNS
            weight = gru[U.W_H] + (gate * h + unit) * h
            for k in range(h):
                w = flat[weight + k]
                packed[at + k * COLUMNS] = w
                back = gru[U.BACKWARD] + k // COLUMNS * 3 * wide * COLUMNS
                packed[back + (gate * wide + unit) * COLUMNS + k % COLUMNS] = w


@inner
def unpack_gates(gru: Any, group: Any, grad: Any) -> None:
    """The reverse for a gradient."""
    x, h, wide = gru[U.X], gru[U.H], gru[U.WIDE]
    stride = 4 * wide
    one = gru[U.GRAD] + x * stride  # the row of biases
    for unit in range(h):
        for gate in range(3):
            into = (wide if gate == 0 else 2 * wide if gate == 1 else 0) + unit
            out = into if gate < 2 else 3 * wide + unit
            weight = gru[U.W_X] + (gate * h + unit) * x
            for k in range(x):
                grad[weight + k] = group[gru[U.GRAD] + k * stride + into]
            grad[gru[U.B_X] + gate * h + unit] = group[one + into]
            grad[gru[U.B_H] + gate * h + unit] = group[one + out]
            weight = gru[U.W_H] + (gate * h + unit) * h
            for k in range(h):
                grad[weight + k] = group[one + (k + 1) * stride + out]


@inline
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), absolute error below 2e-7."""
    return madd(tanh(x * 0.5), 0.5, 0.5)


@inner
def step(gru: Any, packed: Any, work: Any, base: int, first: int, count: int, ahead: int) -> None:
    """A step of `count` streams, whose rows begin with number `first`; h after it goes into the rows `ahead` of them."""
    x, h, wide, stride, gate_stride = gru[U.X], gru[U.H], gru[U.WIDE], gru[U.ROW_STRIDE], gru[U.GATE_STRIDE]
    deep = x + 1 + h
    source, target = base + gru[U.ROW] + first * stride, base + gru[U.GATE] + first * gate_stride
    for unit in range(0, wide, COLUMNS):
        n = gru[U.FORWARD] + unit // COLUMNS * gru[U.PANEL]
        r = n + (x + 1) * COLUMNS
        z = r + deep * COLUMNS
        of_h = z + deep * COLUMNS
        for s in range(0, count, ROWS):
            a, c = source + s * stride, target + s * gate_stride + unit
            input_block(work, a, stride, packed, n, COLUMNS, work, c, gate_stride, x + 1)
            input_block(work, a, stride, packed, r, COLUMNS, work, c + wide, gate_stride, deep)
            input_block(work, a, stride, packed, z, COLUMNS, work, c + 2 * wide, gate_stride, deep)
            input_block(work, a + x, stride, packed, of_h, COLUMNS, work, c + 3 * wide, gate_stride, h + 1)
            before = a + x + 1 + unit
            after = before + ahead * stride
            for _ in range(min(ROWS, count - s)):
                open_r, open_z = sigmoid(load(work, c + wide)), sigmoid(load(work, c + 2 * wide))
                new = tanh(madd(open_r, load(work, c + 3 * wide), load(work, c)))
                store(work, c, new)
                store(work, c + wide, open_r)
                store(work, c + 2 * wide, open_z)
                store(work, after, madd(open_z, load(work, before) - new, new))
                c, before, after = c + gate_stride, before + stride, after + stride


@inner
def hidden_states(gru: Any, work: Any, base: int, first: int, count: int) -> None:
    """h after `count` rows' steps, made of their gates, into the tile that the heads read, from its first row on."""
    wide, row, gate = gru[U.WIDE], base + gru[U.ROW] + gru[U.X] + 1, base + gru[U.GATE]
    for s in range(count):
        g, before, at = gate + (first + s) * gru[U.GATE_STRIDE], row + (first + s) * gru[U.ROW_STRIDE], gru[U.HEAD_STRIDE] * s
        for unit in range(0, wide, LANES):
            n, z, h = load(work, g + unit), load(work, g + 2 * wide + unit), load(work, before + unit)
            store(work, base + gru[U.HEAD] + at + unit, madd(z, h - n, n))


@inner
def step_back(gru: Any, packed: Any, work: Any, base: int, first: int, count: int, at: int, last: bool) -> None:
    """The errors of `count` streams' gates in the step whose rows begin with `first`, and of h before it, to U.ERROR.

    The heads' errors of h lie from row `at` of their tile on, those from the step after in U.ERROR. A first step, which is
    `last` in the backward pass, needs no error of h before it.

    dn = dh (1 - z) (1 - n^2);  dr = dn (U h + b') r (1 - r);  dz = dh (h - n) z (1 - z);  dh <- dh z + (dr, dz, dn r) U
    """
    wide, stride, gate_stride, error_stride = gru[U.WIDE], gru[U.ROW_STRIDE], gru[U.GATE_STRIDE], gru[U.ERROR_STRIDE]
    gates, errors = base + gru[U.GATE] + first * gate_stride, base + gru[U.ERROR]
    for s in range(count):
        g, error = gates + s * gate_stride, errors + s * error_stride
        before = base + gru[U.ROW] + (first + s) * stride + gru[U.X] + 1
        head = base + gru[U.HEAD] + (at + s) * gru[U.HEAD_STRIDE]
        for unit in range(0, wide, LANES):
            dh = load(work, head + unit) + load(work, error + unit)
            n, r, z = load(work, g + unit), load(work, g + wide + unit), load(work, g + 2 * wide + unit)
            of_h, h = load(work, g + 3 * wide + unit), load(work, before + unit)
            shut = 1.0 - z
            dn = dh * shut * (1.0 - n * n)
            dnr = dn * r
            store(work, g + unit, dn)
            store(work, g + wide + unit, dnr * of_h * (1.0 - r))
            dhz = dh * z
            store(work, g + 2 * wide + unit, dhz * (h - n) * shut)
            store(work, g + 3 * wide + unit, dnr)
            store(work, error + unit, dhz)
    if last:
        return
    for unit in range(0, wide, COLUMNS):
        back = gru[U.BACKWARD] + unit * 3 * wide
        for s in range(0, count, ROWS):
            a, c = gates + s * gate_stride + wide, errors + s * error_stride + unit
            error_block(work, a, gate_stride, packed, back, COLUMNS, work, c, error_stride, 3 * wide)
    for s in range(count):
        if work[base + gru[U.FIRST] + first + s] != np.float32(0.0):
            for unit in range(0, wide, LANES):
                store(work, errors + s * error_stride + unit, spread(0.0))


@inner
def gate_gradient(gru: Any, work: Any, base: int, first: int, count: int, grads: Any, group: int) -> None:
    """The gradient of the GRU's weights from `count` rows and the errors of their gates, which is added to a group's."""
    x, wide, stride, gate_stride = gru[U.X], gru[U.WIDE], gru[U.ROW_STRIDE], gru[U.GATE_STRIDE]
    deep, grad_stride = x + 1 + gru[U.H], 4 * wide
    source, target = base + gru[U.ROW] + first * stride, base + gru[U.GATE] + first * gate_stride
    for column in range(0, 4 * wide, COLUMNS):
        low, high = x if column >= 3 * wide else 0, x + 1 if column < wide else deep
        for k in range(low, high, ROWS):
            weight_block(
                work, source + k, stride, work, target + column, gate_stride,
                grads, group + gru[U.GRAD] + k * grad_stride + column, grad_stride, count,
            )  # fmt: skip
