"""What a recurrent actor-critic is made of, and where its arrays lie; the counterpart of `mlp/plan.py`.

The heads are a layer in the tables of `mlp/plan.py`, with a tile of their own. The GRU has one more table. Offsets count
float32 numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

from .....store.arrays import Array
from ..mlp.plan import COLUMNS, HALF, ROWS, TILE, WIDE_ROWS, L, NetworkTables, P, _stride, _up

STREAMS = 24  # streams of a tile, at most: a multiple of ROWS
NEAR = 80_000  # numbers that a tile's rows may have: for the backward pass they are still in a core's second-level cache


@dataclass(frozen=True)
class GRUSpec:
    """An actor-critic whose two linear heads read a GRU that reads the observation, and with `reads_action` the last action.

    It is `torch_recurrent.RecurrentActorCritic` over `recurrent.Recurrent` with cell "gru" and one layer. `sizes` as in
    MLPSpec.
    """

    inputs: int
    hidden: int = 64
    head: Literal["categorical", "gaussian"] = "categorical"
    sizes: tuple[int, ...] = (2,)
    reads_action: bool = False

    @property
    def actions(self) -> int:
        """Numbers that the policy's head gives out."""
        return sum(self.sizes)

    @property
    def parts(self) -> int:
        """Numbers that make an action."""
        return self.actions if self.head == "gaussian" else len(self.sizes)

    @property
    def width(self) -> int:
        """Numbers that the GRU reads."""
        return self.inputs + (self.actions if self.reads_action else 0)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters, as torch's module lists them."""
        shapes: dict[str, tuple[int, ...]] = {"log_std": (self.actions,)} if self.head == "gaussian" else {}
        gates = 3 * self.hidden
        for name, width in (("ih", self.width), ("hh", self.hidden)):
            shapes[f"belief_net.weight_{name}_l0"] = gates, width
        shapes |= {f"belief_net.bias_{name}_l0": (gates,) for name in ("ih", "hh")}
        for head, size in (("policy_head", self.actions), ("value_head", 1)):
            shapes |= {f"{head}.weight": (size, self.hidden), f"{head}.bias": (size,)}
        return shapes

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(map(math.prod, self.shapes.values()))

    def fits(self) -> str | None:
        """Why the kernels cannot do this network; None if they can."""
        if not 1 <= self.hidden <= 256:
            return f"a GRU of {self.hidden} units: 1 to 256 are possible"
        if self.inputs < 1 or not self.sizes or min(self.sizes) < 1 or (self.head == "gaussian" and len(self.sizes) > 1):
            return f"{self.inputs} inputs, actions {self.sizes}: at least one of each, and one size for a gaussian"
        return None


class U(IntEnum):
    """Places in the table of the GRU.

    A row is what a stream's step reads: input, one, h before the step. Its gates are four times WIDE numbers: what goes into n
    of the input, r, z, and what goes into n of h; then the four themselves, n in the place of the first; then their errors.
    """

    INPUTS = 0  # numbers of an observation
    X = 1  # and of the last action behind it
    H = 2
    WIDE = 3  # H, rounded up to whole panels
    ROW = 4  # in a thread's work space: steps of all streams of a tile, one step after the other
    ROW_STRIDE = 5
    GATE = 6
    GATE_STRIDE = 7
    FIRST = 8  # for each row whether an episode begins with it
    ERROR = 9  # rows of streams: the error of h that comes back from the next step
    ERROR_STRIDE = 10
    HEAD = 11  # the tile that the heads read
    HEAD_STRIDE = 12
    FORWARD = 13  # in the packed weights: for each panel of units its columns of the four products, PANEL numbers in all
    PANEL = 14
    BACKWARD = 15
    W_X = 16  # in the parameters
    W_H = 17
    B_X = 18
    B_H = 19
    GRAD = 20  # in a group's gradient: rows as a row has numbers, 4 WIDE apart
    READS_ACTION = 21


def streams_of(table: Array, steps: int) -> int:
    """How many streams of `steps` steps make a tile: as many as stay near, in whole blocks of rows."""
    row = int(table[U.ROW_STRIDE] + table[U.GATE_STRIDE])
    return min(STREAMS, max(1, NEAR // (row * steps) // ROWS) * ROWS)


def gru_plan(spec: GRUSpec, steps: int) -> tuple[NetworkTables, Array]:
    """Tables for `spec` and sequences of up to `steps` steps: the heads', and the GRU's, int64 (len(U),)."""
    x, h, wide, outputs = spec.width, spec.hidden, _up(spec.hidden, COLUMNS), spec.actions + 1
    start = spec.actions if spec.head == "gaussian" else 0  # log_std comes first
    w_h = start + 3 * h * x
    b_x = w_h + 3 * h * h
    policy = b_x + 6 * h
    value = policy + spec.actions * (h + 1)
    columns = _up(outputs, COLUMNS if outputs % COLUMNS > HALF or outputs % COLUMNS == 0 else HALF)
    panel = COLUMNS * (2 * (x + 1 + h) + x + 1 + h + 1)
    backward = wide // COLUMNS * panel
    packed = backward + 3 * wide * wide
    grad = _up(x + 1 + h + ROWS, ROWS) * 4 * wide
    head_stride, target_stride = _stride(wide, wide), columns | HALF
    target = TILE * head_stride
    work = target + TILE * target_stride
    row = {
        L.IN: h, L.OUT: outputs, L.SOURCE: 0, L.SOURCE_STRIDE: head_stride, L.ONES: wide, L.TARGET: target,
        L.TARGET_STRIDE: target_stride, L.PANELS: columns // COLUMNS, L.TAIL: columns % COLUMNS // HALF,
        L.BACK_PANELS: wide // COLUMNS, L.WEIGHT: policy, L.BIAS: policy + spec.actions * h, L.SPLIT: spec.actions,
        L.WEIGHT_2: value, L.BIAS_2: value + h, L.FORWARD: packed, L.BACKWARD: packed + (h + 1) * columns, L.GRAD: grad,
        L.GRAD_STRIDE: columns, L.HEAD: 0,
    }  # fmt: skip
    packed += (h + 1) * columns + wide * outputs
    group = grad + _up(wide + 1, WIDE_ROWS) * columns

    whole = dict.fromkeys(P, 0)
    whole |= {
        P.INPUTS: spec.inputs, P.RELU: 2, P.GAUSSIAN: int(spec.head == "gaussian"), P.ACTIONS: spec.actions,
        P.PARTS: spec.parts, P.PARAMETERS: spec.parameters, P.PACKED_STD: packed, P.PACKED: packed + 2 * spec.actions,
        P.GROUP_STD: group, P.GROUP: _up(group + spec.actions, COLUMNS),
    }  # fmt: skip
    for place, many in (
        (P.OUT, outputs), (P.PROBABILITY, spec.actions), (P.ACTION, spec.parts), (P.FACTS, 4), (P.SUMS, 5),
        (P.UNIFORM, spec.parts),
    ):  # fmt: skip
        whole[place] = work
        work += many * TILE
    whole[P.SCRATCH] = work
    work = _up(work + WIDE_ROWS * wide, COLUMNS)

    gru = dict.fromkeys(U, 0)
    gru |= {
        U.INPUTS: spec.inputs, U.X: x, U.H: h, U.WIDE: wide, U.HEAD_STRIDE: head_stride, U.PANEL: panel,
        U.BACKWARD: backward, U.W_X: start, U.W_H: w_h, U.B_X: b_x, U.B_H: b_x + 3 * h,
        U.READS_ACTION: int(spec.reads_action), U.ROW_STRIDE: _up(x + 1 + max(wide, h + ROWS), HALF) | HALF,
        U.GATE_STRIDE: 4 * wide | HALF, U.ERROR_STRIDE: wide | HALF,
    }  # fmt: skip
    table = np.array([gru[part] for part in U], np.int64)
    rows = max((t + 1) * streams_of(table, t) for t in range(1, steps + 1))  # h after the last step is a row, too
    rows = max(rows, 2 * TILE) + ROWS  # blocks of rows spill over
    for part, many in (
        (U.ROW, rows * gru[U.ROW_STRIDE]), (U.GATE, rows * gru[U.GATE_STRIDE]), (U.FIRST, rows),
        (U.ERROR, (STREAMS + ROWS) * gru[U.ERROR_STRIDE]),
    ):  # fmt: skip
        gru[part] = work
        work = _up(work + many, COLUMNS)
    whole[P.WORK] = work
    sizes = spec.sizes if spec.head == "categorical" else ()
    tables = NetworkTables(
        np.array([[row[column] for column in L]], np.int64),
        np.array([*(whole[p] for p in P if p != P.SIZES), *sizes], np.int64),
    )
    return tables, np.array([gru[place] for place in U], np.int64)
