"""What a network is made of, and where each of its arrays lies in a kernel's work space.

Kernels are compiled once for all networks. What differs between networks is numbers in two small tables: one row a layer, and
one row for the whole. Offsets count float32 numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np

from .....store.arrays import Array
from ....optim.parameters import mlp_shapes, q_shapes

TILE = 96  # samples whose activations are worked on at a time: they stay in the cache; a multiple of ROWS, WIDE_ROWS and LANES
ROWS, COLUMNS = 6, 16  # of the register block; the last panel of a narrow layer is half as wide and has twice the rows
WIDE_ROWS, HALF = 12, 8
GROUPS = 16  # gradients that are summed separately, then added in order; threads share the groups


@dataclass(frozen=True)
class MLPSpec:
    """An actor-critic made of full layers, as `nets.ActorCritic` with network "mlp" is; without `value` a Q-network.

    `sizes`: how many choices each discrete action has; for "gaussian" the one number of action dimensions.
    """

    inputs: int
    hidden: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    shared: bool = True
    head: Literal["categorical", "gaussian"] = "categorical"
    sizes: tuple[int, ...] = (2,)
    value: bool = True

    @property
    def actions(self) -> int:
        """Numbers that the policy's head gives out."""
        return sum(self.sizes)

    @property
    def parts(self) -> int:
        """Numbers that make an action."""
        return self.actions if self.head == "gaussian" else len(self.sizes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters."""
        if not self.value:
            return q_shapes(self.inputs, self.hidden, self.actions)
        return mlp_shapes(self.inputs, self.hidden, self.actions, self.head == "gaussian", self.shared)

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(map(math.prod, self.shapes.values()))

    def fits(self) -> str | None:
        """Why the kernels cannot do this network; None if they can."""
        if not 1 <= len(self.hidden) <= 3:
            return f"{len(self.hidden)} hidden layers: 1 to 3 are possible"
        if not all(1 <= width <= 256 for width in self.hidden):
            return f"hidden widths {self.hidden}: 1 to 256 are possible"
        if self.inputs < 1 or not self.sizes or min(self.sizes) < 1 or (self.head == "gaussian" and len(self.sizes) > 1):
            return f"{self.inputs} inputs, actions {self.sizes}: at least one of each, and one size for a gaussian"
        if not self.value and (self.head == "gaussian" or len(self.sizes) > 1 or not self.shared):
            return "a Q-network has one trunk and one discrete action"
        return None


class L(IntEnum):
    """Columns of the table of layers."""

    IN = 0
    OUT = 1
    SOURCE = 2  # of the tile that it reads, its rows SOURCE_STRIDE apart; a column of ones in it, for the bias
    SOURCE_STRIDE = 3
    ONES = 4
    TARGET = 5  # of the tile that it writes
    TARGET_STRIDE = 6
    PANELS = 7  # of COLUMNS outputs
    TAIL = 8  # 1: and one of HALF outputs
    BACK_PANELS = 9  # of COLUMNS inputs; 0 in a first layer: its input needs no gradient
    WEIGHT = 10  # in the parameters: the first SPLIT outputs
    BIAS = 11
    SPLIT = 12
    WEIGHT_2 = 13  # and the others
    BIAS_2 = 14
    FORWARD = 15  # in the packed weights
    BACKWARD = 16
    GRAD = 17  # in a group's gradient: inputs, ..., ones as rows, GRAD_STRIDE apart
    GRAD_STRIDE = 18
    HEAD = 19  # -1, or which output its first one is


class P(IntEnum):
    """Places in the table of the whole network; the sizes of the actions follow after SIZES."""

    INPUTS = 0
    INPUT_STRIDE = 1
    RELU = 2  # 0: tanh; 1: relu; 2: neither, for heads above a GRU
    GAUSSIAN = 3
    ACTIONS = 4
    PARTS = 5
    LOG_STD = 6  # in the parameters
    PARAMETERS = 7
    PACKED_STD = 8  # in the packed weights: log_std, then 1 / std
    OUT = 9  # in a thread's work space, rows of TILE samples: outputs, the value last
    PROBABILITY = 10  # probabilities, or what log_std's gradient is made of
    ACTION = 11
    FACTS = 12  # old log-probability, weight, target, old value
    SUMS = 13  # the five parts of the loss
    UNIFORM = 14
    SCRATCH = 15
    WORK = 16  # size of one thread's work space
    PACKED = 17
    GROUP = 18  # size of one group's gradient
    GROUP_STD = 19  # in a group's gradient
    SIZES = 20


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _stride(columns: int, ones: int) -> int:
    """Floats from row to row of a tile: room for `columns` and whole blocks of rows of a gradient; an odd number of half cache
    lines, so that columns of a tile do not share the same few cache sets."""
    return _up(max(columns, _up(ones + 1, WIDE_ROWS)), HALF) | HALF


@dataclass(frozen=True)
class NetworkTables:
    layers: Array  # int64 (layers, len(L))
    whole: Array  # int64 (P.SIZES + heads,)

    def __getitem__(self, key: P) -> int:
        return int(self.whole[key])


class Tile(NamedTuple):
    """Where the activations of TILE samples lie, a sample after the other."""

    at: int
    stride: int
    ones: int  # the column that is 1, so that the bias is one more weight


def plan(spec: MLPSpec) -> NetworkTables:
    """Tables for `spec`. Parameters lie as `named_parameters()` of the module lists them."""
    actions, last = spec.actions, spec.hidden[-1]
    outputs = actions + spec.value
    policy = spec.parameters - (last + 1) * outputs
    value = policy + (last + 1) * actions
    input_stride = _stride(_up(spec.inputs, HALF), spec.inputs)
    at = actions if spec.head == "gaussian" else 0  # log_std comes first
    work, packed, group = TILE * input_stride, 0, 0
    rows: list[dict[L, int]] = []

    def add(source: Tile, i: int, o: int, first: bool, head: int, weight: int, second: int, split: int) -> Tile:
        """A layer whose first `split` outputs have their parameters at `weight`, the others at `second`."""
        nonlocal work, packed, group
        whole_panels = head < 0 or o % COLUMNS > HALF or o % COLUMNS == 0
        wide = _up(o, COLUMNS if whole_panels else HALF)
        target = Tile(work, _stride(wide, wide) if head < 0 else wide | HALF, wide)
        rows.append({
            L.IN: i, L.OUT: o, L.SOURCE: source.at, L.SOURCE_STRIDE: source.stride, L.ONES: source.ones,
            L.TARGET: target.at, L.TARGET_STRIDE: target.stride, L.PANELS: wide // COLUMNS, L.TAIL: wide % COLUMNS // HALF,
            L.BACK_PANELS: 0 if first else _up(i, COLUMNS) // COLUMNS, L.SPLIT: split, L.WEIGHT: weight,
            L.BIAS: weight + i * split, L.WEIGHT_2: second, L.BIAS_2: second + i * (o - split), L.FORWARD: packed,
            L.BACKWARD: packed + (i + 1) * wide, L.GRAD: group, L.GRAD_STRIDE: wide, L.HEAD: head,
        })  # fmt: skip
        packed += (i + 1) * wide + (0 if first else _up(i, COLUMNS) * o)
        group += _up(source.ones + 1, WIDE_ROWS) * wide
        work += TILE * target.stride
        return target

    for tower in range(1 if spec.shared else 2):
        tile = Tile(0, input_stride, spec.inputs)
        for i, o in zip((spec.inputs, *spec.hidden[:-1]), spec.hidden, strict=True):
            tile = add(tile, i, o, tile.at == 0, -1, at, 0, o)
            at += (i + 1) * o
        if spec.shared:
            add(tile, last, outputs, False, 0, policy, value, actions)
        else:
            add(
                tile,
                last,
                1 if tower else actions,
                False,
                tower * actions,
                value if tower else policy,
                0,
                1 if tower else actions,
            )

    whole = dict.fromkeys(P, 0)
    whole |= {
        P.INPUTS: spec.inputs, P.INPUT_STRIDE: input_stride, P.RELU: int(spec.activation == "relu"),
        P.GAUSSIAN: int(spec.head == "gaussian"), P.ACTIONS: actions, P.PARTS: spec.parts, P.PARAMETERS: spec.parameters,
        P.PACKED_STD: packed, P.PACKED: packed + 2 * actions, P.GROUP_STD: group, P.GROUP: _up(group + actions, COLUMNS),
    }  # fmt: skip
    for place, many in (
        (P.OUT, outputs), (P.PROBABILITY, actions), (P.ACTION, spec.parts), (P.FACTS, 4), (P.SUMS, 5),
        (P.UNIFORM, spec.parts),
    ):  # fmt: skip
        whole[place] = work
        work += many * TILE
    whole[P.SCRATCH] = work
    whole[P.WORK] = _up(work + WIDE_ROWS * _up(max(spec.hidden), COLUMNS), COLUMNS)
    sizes = spec.sizes if spec.head == "categorical" else ()
    return NetworkTables(
        np.array([[row[column] for column in L] for row in rows], np.int64),
        np.array([*(whole[p] for p in P if p != P.SIZES), *sizes], np.int64),
    )
