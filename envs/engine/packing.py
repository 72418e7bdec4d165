"""State, constants and buffers as one table of addresses: what a kernel is called with.

Numba looks at every array of every argument at every call. A world has some sixty, which cost a single environment ten times
what its step does. So an engine writes down once where its arrays are, how long, and which numbers its constants hold;
a kernel gets these two arrays and builds the named tuples of the rules from them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ...store.arrays import Array

# For each tuple its class and its fields: (dtype, axes) of an array, or "int", "float", "bool" of a number.
Layout = tuple[tuple[type, tuple[tuple[str, int] | str, ...]], ...]


class Packed(NamedTuple):
    """The tuples' contents; whoever holds this must hold the arrays too."""

    table: Array  # int64: address and lengths of each array, whole numbers and truth values
    reals: Array  # float64: the other numbers


@intrinsic  # type: ignore[untyped-decorator]
def _array_at(typing: Any, address: Any, shape: Any, dtype: Any) -> Any:
    """The contiguous array of that shape at an address. Inline, as functions without reference counts return no arrays."""
    array = types.Array(dtype.dtype, len(shape), "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = context.get_data_type(array.dtype)
        size = context.get_constant(types.intp, context.get_abi_sizeof(kind))
        lengths = cgutils.unpack_tuple(builder, arguments[1], len(shape))
        strides = [size]
        for length in reversed(lengths[1:]):
            strides.append(builder.mul(strides[-1], length))
        made = context.make_array(array)(context, builder)
        data = builder.inttoptr(arguments[0], kind.as_pointer())
        populate_array(made, data=data, shape=lengths, strides=strides[::-1], itemsize=size, meminfo=None)
        return made._getvalue()

    return array(types.int64, shape, dtype), generate


def layout_of(*tuples: Any) -> Layout:
    """What the tuples are made of, hashable. Raises TypeError for a field that is neither an array nor a number."""
    return tuple((type(t), tuple(_kind(t, name) for name in t._fields)) for t in tuples)


def _kind(t: Any, name: str) -> tuple[str, int] | str:
    value = getattr(t, name)
    if isinstance(value, np.ndarray):
        what = f"{type(t).__name__}.{name}"
        if not (value.flags.c_contiguous and value.flags.aligned):
            raise TypeError(f"{what} is not contiguous: make it with np.ascontiguousarray")
        if value.dtype.kind not in "biuf" or not value.dtype.isnative or value.ndim < 1:
            raise TypeError(
                f"{what} is {value.dtype.str}{value.shape}: rules know arrays of native numbers with an axis at least"
            )
        return value.dtype.name, value.ndim
    for kind, known in (("bool", (bool, np.bool_)), ("int", (int, np.integer)), ("float", (float, np.floating))):
        if isinstance(value, known):
            return kind
    raise TypeError(f"{type(t).__name__}.{name} is {type(value).__name__}: rules know arrays, int, float and bool")


def pack(*tuples: Any) -> Packed:
    """Where the arrays are, and the numbers, in the order of `unpacking`."""
    table: list[int] = []
    reals: list[float] = []
    for t, (_, kinds) in zip(tuples, layout_of(*tuples), strict=True):
        for value, kind in zip(t, kinds, strict=True):
            if isinstance(kind, tuple):
                table += [value.ctypes.data, *value.shape]
            elif kind == "float":
                reals.append(float(value))
            else:
                table.append(int(value))
    return Packed(np.array(table or [0], np.int64), np.array(reals or [0.0]))


def packed_sizes(layout: Layout) -> tuple[int, int]:
    """Entries of `table` and `reals` in a `Packed` of that layout."""
    kinds = [kind for _, fields in layout for kind in fields]
    table = sum(1 + kind[1] if isinstance(kind, tuple) else kind != "float" for kind in kinds)
    return max(table, 1), max(kinds.count("float"), 1)


def unpacking(layout: Layout) -> tuple[str, dict[str, Any]]:
    """An expression in `table` and `reals`, a `Packed`, whose value is the tuples again, and what its names mean.

    For compiled code; plain Python cannot evaluate it.
    """
    scope: dict[str, Any] = {"array_at": _array_at}
    tuples, at, real = [], 0, 0
    for number, (cls, kinds) in enumerate(layout):
        fields = []
        for kind in kinds:
            if isinstance(kind, tuple):
                dtype, axes = kind
                scope[dtype] = getattr(np, {"bool": "bool_"}.get(dtype, dtype))
                shape = "".join(f"table[{at + 1 + axis}], " for axis in range(axes))
                fields.append(f"array_at(table[{at}], ({shape}), {dtype})")
                at += 1 + axes
            elif kind == "float":
                fields.append(f"reals[{real}]")
                real += 1
            else:
                fields.append(f"table[{at}]" + (" != 0" if kind == "bool" else ""))
                at += 1
        scope[f"Tuple{number}"] = cls
        tuples.append(f"Tuple{number}({', '.join(fields)})")
    return ", ".join(tuples), scope
