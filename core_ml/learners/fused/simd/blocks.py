"""The register block that every matrix product here is made of.

A loop vectoriser keeps the partial sums of a blocked product in registers on some days only. Here they are vectors by
construction: `rows` x `columns` sums stay in registers while the middle loop runs over the depth of the product, so that
twelve multiply-adds need eight loads (Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .vectors import FLOAT, data, multiply_add, spread_value

UNROLL = 2  # of the loop over the depth


def block(
    rows: int, columns: int, start: Literal["zero", "row", "add"], a_rows: Literal["strided", "packed"]
) -> Callable[..., None]:
    """A kernel (a, a_at, a_stride, b, b_at, b_stride, c, c_at, c_stride, depth) for C = start + A B.

    C is (`rows`, `columns`), its rows `c_stride` apart; row k < depth of B begins at b_at + k b_stride. Element (i, k) of A
    lies at a_at + i a_stride + k if its rows are "strided", at a_at + k a_stride + i if they are "packed". `start` is zero,
    or the row before B's first for every row of C, or C as it was ("add": the product is summed by itself first).
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, c = (data(context, builder, signature.args[j], args[j], args[j + 1]) for j in (0, 3, 6))
        a_stride, b_stride, c_stride, depth = (args[j] for j in (2, 5, 8, 9))
        vector, word = ir.VectorType(FLOAT, columns), depth.type

        def number(value: int) -> Any:
            return ir.Constant(word, value)

        def load(pointer: Any) -> Any:
            return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4)

        sums = [cgutils.alloca_once(builder, vector) for _ in range(rows)]  # registers, once LLVM has seen them
        first = load(builder.gep(b, [builder.neg(b_stride)])) if start == "row" else ir.Constant(vector, [0.0] * columns)
        for i in range(rows):
            builder.store(first, sums[i])
        starts = [builder.gep(a, [builder.mul(a_stride, number(i))]) if a_rows == "strided" else None for i in range(rows)]

        def step(k: Any, ahead: int) -> None:
            row = builder.add(k, number(ahead))
            vector_b = load(builder.gep(b, [builder.mul(row, b_stride)]))
            column = builder.gep(a, [builder.mul(row, a_stride)]) if a_rows == "packed" else None
            for i in range(rows):
                at = builder.gep(column, [number(i)]) if column else builder.gep(builder.gep(starts[i], [k]), [number(ahead)])
                element = spread_value(builder, builder.load(at, align=4), vector)
                builder.store(multiply_add(builder, element, vector_b, builder.load(sums[i])), sums[i])

        even = builder.and_(depth, number(-UNROLL))
        with cgutils.for_range_slice(builder, number(0), even, number(UNROLL), word) as (k, _):
            for ahead in range(UNROLL):
                step(k, ahead)
        with cgutils.for_range_slice(builder, even, depth, number(1), word) as (k, _):
            step(k, 0)
        for i in range(rows):
            out = builder.gep(c, [builder.mul(c_stride, number(i))])
            total = builder.load(sums[i])
            if start == "add":
                total = builder.fadd(load(out), total)
            builder.store(total, builder.bitcast(out, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    def product(
        typingctx: Any,
        a: Any,
        a_at: Any,
        a_stride: Any,
        b: Any,
        b_at: Any,
        b_stride: Any,
        c: Any,
        c_at: Any,
        c_stride: Any,
        depth: Any,
    ) -> Any:
        w = types.intp
        return types.void(a, w, w, b, w, w, c, w, w, w), generate

    product.__name__ = product.__qualname__ = f"block_{rows}_{columns}_{start}_{a_rows}"
    kernel: Callable[..., None] = intrinsic(product)
    return kernel
