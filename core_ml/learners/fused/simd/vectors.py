"""Vectors of float32 as a number type inside kernels, so that arithmetic on sixteen samples is one line and surely vectorised.

A loop vectoriser must prove that arrays do not overlap before it may touch a loop, and gives up on loops with many arrays.
`load`, `store`, operators and the functions here work on LLVM's own vectors instead; LLVM cuts them to the width that
the processor has. Nothing is reordered, and multiply-add is fused where the processor can: equal input gives equal bits.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

F = TypeVar("F", bound=Callable[..., Any])

LANES = 16
INT, FLOAT = ir.IntType(32), ir.FloatType()
VECTOR, INTS, BYTES = (ir.VectorType(kind, LANES) for kind in (FLOAT, INT, ir.IntType(8)))


class _Lanes(types.Type):
    """LANES float32 numbers."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


lanes = _Lanes()


def _model(dmm: Any, fe_type: Any) -> Any:
    return models.PrimitiveModel(dmm, fe_type, VECTOR)


register_model(_Lanes)(_model)


def typed(function: Callable[..., Any]) -> Callable[..., Any]:
    """`numba.extending.intrinsic`, for type checkers: kernels call it without the first argument."""
    found: Callable[..., Any] = intrinsic(function)
    return found


def inline(function: F) -> F:
    """Compile into the caller: no entry for Python or C, no reference counts, division as IEEE says."""
    options = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}
    found: F = numba.njit(forceinline=True, **options)(function)
    return found


def inner(function: F) -> F:
    """Compile for callers in compiled code: like `inline`, but LLVM decides."""
    options = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}
    found: F = numba.njit(**options)(function)
    return found


def spread_value(builder: Any, value: Any, vector: Any = VECTOR) -> Any:
    """A vector of which each element is the scalar `value`."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(INT, vector.count), [0] * vector.count))


def _as_vector(builder: Any, kind: Any, value: Any) -> Any:
    if kind == lanes:
        return value
    return spread_value(builder, builder.fptrunc(value, FLOAT) if kind == types.float64 else value)


def _operator(function: Callable[..., Any], instruction: str) -> None:
    """Give `function` a meaning for two vectors, or a vector and a number."""
    pairs = [(lanes, lanes)] + [pair for s in (types.float32, types.float64) for pair in ((lanes, s), (s, lanes))]

    class Template(ConcreteTemplate):  # type: ignore[misc]
        cases = [signature(lanes, *pair) for pair in pairs]

    infer_global(function)(Template)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*(_as_vector(builder, k, v) for k, v in zip(sig.args, args, strict=True)))

    for pair in pairs:
        lower_builtin(function, *pair)(lower)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_function, _instruction)


def data(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Pointer to element `at` of a one-dimensional array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _call(builder: Any, name: str, *args: Any) -> Any:
    kind = args[0].type
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * len(args)), name)
    return builder.call(function, args)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once where the processor can do that in one instruction, else twice."""
    return _call(builder, f"llvm.fmuladd.v{a.type.count}f32", a, b, c)


@typed
def load(typingctx: Any, array: Any, at: Any) -> Any:
    """load(array, at): elements at .. at + LANES - 1; of bytes: as numbers."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = data(context, builder, array, *args)
        if array.dtype == types.uint8:
            return builder.uitofp(builder.load(builder.bitcast(pointer, BYTES.as_pointer()), align=1), VECTOR)
        return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=4)

    return lanes(array, types.intp), generate


@typed
def load_raw(typingctx: Any, array: Any, at: Any) -> Any:
    """load_raw(bytes, at): LANES float32 numbers that lie in a byte array from byte `at` on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = data(context, builder, array, *args)
        return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=4)

    return lanes(array, types.intp), generate


@typed
def float_raw(typingctx: Any, array: Any, at: Any) -> Any:
    """float_raw(bytes, at): the one float32 number that lies in a byte array at byte `at`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = data(context, builder, array, *args)
        return builder.load(builder.bitcast(pointer, FLOAT.as_pointer()), align=4)

    return types.float32(array, types.intp), generate


@typed
def copy_bytes(typingctx: Any, to: Any, to_at: Any, source: Any, source_at: Any, count: Any) -> Any:
    """copy_bytes(to, to_at, source, source_at, count) between byte arrays that do not overlap."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointers = data(context, builder, to, args[0], args[1]), data(context, builder, source, args[2], args[3])
        cgutils.raw_memcpy(builder, *pointers, args[4], 1)
        return context.get_dummy_value()

    return types.void(to, types.intp, source, types.intp, types.intp), generate


@typed
def put_raw(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """put_raw(bytes, at, x): write one float32 number into a byte array at byte `at`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = data(context, builder, array, args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, FLOAT.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.float32), generate


@typed
def call_at(typingctx: Any, address: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> Any:
    """call_at(address, a, ... g): the C function at `address`, whose seven arguments and result are int64."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word] * (len(args) - 1))
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(*([types.int64] * 8)), generate


@typed
def store(typingctx: Any, array: Any, at: Any, value: Any) -> Any:
    """store(array, at, vector)"""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = data(context, builder, array, args[0], args[1])
        builder.store(args[2], builder.bitcast(pointer, VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@typed
def spread(typingctx: Any, value: Any) -> Any:
    """spread(x): a vector of LANES times x."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _as_vector(builder, value, args[0])

    return lanes(value), generate


@typed
def madd(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """madd(a, b, c): a * b + c of vectors or numbers."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return multiply_add(builder, *(_as_vector(builder, k, v) for k, v in zip(sig.args, args, strict=True)))

    return lanes(a, b, c), generate


@typed
def root(typingctx: Any, a: Any) -> Any:
    """root(a): square roots."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, f"llvm.sqrt.v{LANES}f32", args[0])

    return lanes(lanes), generate


def _choice(comparison: str) -> Any:
    def choose(typingctx: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            a, b, yes, no = (_as_vector(builder, k, v) for k, v in zip(sig.args, args, strict=True))
            return builder.select(builder.fcmp_ordered(comparison, a, b), yes, no)

        return lanes(a, b, yes, no), generate

    choose.__name__ = choose.__qualname__ = "where_" + {"<": "less", "==": "equal"}[comparison]
    return intrinsic(choose)


where_less = _choice("<")  # (a, b, yes, no): yes where a < b, else no; no where either is not a number
where_equal = _choice("==")


@typed
def power_of_two(typingctx: Any, n: Any) -> Any:
    """power_of_two(n): 2^n for vectors of whole numbers -126 <= n <= 127."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        exponent = builder.add(builder.fptosi(args[0], INTS), ir.Constant(INTS, [127] * LANES))
        return builder.bitcast(builder.shl(exponent, ir.Constant(INTS, [23] * LANES)), VECTOR)

    return lanes(lanes), generate


@typed
def mantissa(typingctx: Any, x: Any) -> Any:
    """mantissa(x) in [0.5, 1) of normal positive x."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.and_(builder.bitcast(args[0], INTS), ir.Constant(INTS, [0x007FFFFF] * LANES))
        return builder.bitcast(builder.or_(bits, ir.Constant(INTS, [0x3F000000] * LANES)), VECTOR)

    return lanes(lanes), generate


@typed
def exponent(typingctx: Any, x: Any) -> Any:
    """exponent(x): n with x = mantissa(x) 2^n, as a float."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.lshr(builder.bitcast(args[0], INTS), ir.Constant(INTS, [23] * LANES))
        return builder.sitofp(builder.sub(bits, ir.Constant(INTS, [126] * LANES)), VECTOR)

    return lanes(lanes), generate
