"""Turns the rules of a world into machine code, once per world and machine.

Rules and the helpers that they call are plain Python. Here they are found (by walking the globals that each function
names), hashed, compiled with numba and kept in numba's on-disk cache under that hash. Numba's own cache looks only
at the file of the outermost function; ours also sees a change in any helper or constant.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from ...native.cache import keep_on_disk
from ...store.arrays import Array
from ..constants import plain
from ..world import World
from . import packing, partial_evaluation
from .packing import Layout, packed_sizes, unpacking
from .partial_evaluation import Static, partially_evaluated

if "NUMBA_THREADING_LAYER" not in os.environ:
    try:  # needs the system's libgomp; its loops start three times faster than those of numba's own pool
        importlib.import_module("numba.np.ufunc.omppool")
        numba.config.THREADING_LAYER = "omp"
    except ImportError:
        numba.config.THREADING_LAYER = "workqueue"

_FILES = (__file__, packing.__file__, partial_evaluation.__file__)
OURS = "".join(Path(str(file)).read_text() for file in _FILES)  # a kernel on disk is valid for this code only
# Called from compiled code only: the entries for Python and C would double the time to compile. And no reference counts.
INNER = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
BLOCK = 64  # environments that one parallel work item steps: large against the scheduler's cost, small against a batch


PROGRAM = """
def step_rows(lo, hi, table, reals, action, limit, autoreset):
    s, c, b = {tuples}
    step_span(max(lo, 0), hi, s, c, b, action, limit, autoreset)  # no index is negative: LLVM drops numba's wrap-around


def reset_all(table, reals):
    s, c, b = {tuples}
    reset_span(0, b.active.shape[0], s, c, b)


def observe_all(table, reals):
    s, c, b = {tuples}
    observe_span(0, b.active.shape[0], s, c, b)


def step_at(lo, hi, table, reals, action, limit, autoreset):
    table, reals = array_at(table, ({table},), int64), array_at(reals, ({reals},), float64)
    step_rows(lo, hi, table, reals, array_at(action, (hi, {action}), {dtype}), limit, autoreset != 0)
    return 0
"""


class EngineBuffers(NamedTuple):
    """Everything the kernel writes beside the world's own state. N environments, A agents, D numbers an observation."""

    rng: Array  # uint64 (N, 2)
    active: Array  # uint8 (N,): 0 skips the environment
    obs: Array  # (N, A, D)
    final_obs: Array  # (N, A, D)
    reward: Array  # float32 (N, A)
    terminated: Array  # bool (N,)
    truncated: Array  # bool (N,)
    elapsed: Array  # int64 (N,): steps of the running episode
    running_return: Array  # float64 (N, A)
    ended_return: Array  # float64 (N, A): of the last ended episode
    ended_length: Array  # int64 (N,)
    mask: Array  # bool (N, A, actions): legal actions of `obs`; (N, A, 1), unused, where the world has no rule `legal`
    final_mask: Array  # bool, as `mask`: legal actions of `final_obs`


class Action(NamedTuple):
    """What an agent's action is made of."""

    dtype: str
    shape: tuple[int, ...]  # of one agent's


class Kernels(NamedTuple):
    """Compiled loops over environments; table and reals are State, constants and buffers, packed."""

    step: Callable[..., None]  # (table, reals, action, limit, autoreset)
    step_threaded: Callable[..., None]
    reset: Callable[..., None]  # (table, reals): where b.active
    observe: Callable[..., None]  # (table, reals)
    # For other compiled code: int64 (lo, hi, table, reals, action, limit, autoreset), all int64, arrays as addresses. It steps
    # the environments lo..hi-1. Compiled by `address_of` only, because few want it.
    step_at: Any


@functools.cache
def address_of(step_at: Any) -> int:
    """Where the machine code of `Kernels.step_at` lies, callable as a C function."""
    step_at.compile((types.int64,) * 7)
    (compiled,) = step_at.overloads.values()
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name))


def referenced(function: Callable[..., Any]) -> dict[str, Any]:
    """Globals and closure cells that a function names, nested code included."""
    code = function.__code__
    names: set[str] = set()
    stack = [code]
    while stack:
        one = stack.pop()
        names.update(one.co_names)
        stack.extend(c for c in one.co_consts if isinstance(c, CodeType))
    found = {n: function.__globals__[n] for n in sorted(names) if n in function.__globals__}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        found[name] = cell.cell_contents
    return found


def is_helper(value: Any) -> bool:
    return isinstance(value, FunctionType) and hasattr(value, "__gumdrop_helper__")


def rebound(function: Any, meanings: dict[str, Any]) -> Any:
    """`function` anew, over globals and closure in which the names in `meanings` stand for something else."""
    if not meanings:
        return function
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    closure = tuple(CellType(meanings.get(name, cell.cell_contents)) for name, cell in cells)
    scope = {**function.__globals__, **meanings}
    again = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, closure)
    again.__kwdefaults__ = function.__kwdefaults__
    return again


_COMPILED: dict[Any, Any] = {}  # helpers that several kernels use are typed once


def _compiled(function: Any, static: Static) -> Any:
    """`function` cut down to `static` and compiled, and first the helpers that it calls."""
    function = partially_evaluated(function, static)
    meanings = {name: _compiled(value, static) for name, value in referenced(function).items() if is_helper(value)}
    fixed = [(n, _spelling(v, function)) for n, v in referenced(function).items() if not is_helper(v)]
    key = (function, repr(fixed), *meanings.values())
    if key not in _COMPILED:
        _COMPILED[key] = numba.njit(forceinline=True, **INNER)(rebound(function, meanings))
    return _COMPILED[key]


def _spelling(value: Any, function: Any) -> str:
    """What numba makes of a global: it freezes numbers, arrays, and the attributes of modules and enumerations."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str}{value.shape}{hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(_spelling(v, function) for v in value)})"
    if value is None or isinstance(value, (int, float, str, bytes, np.generic)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, enum.EnumMeta):
        members: Any = value.__members__
        return repr([(name, member.value) for name, member in members.items()])
    if isinstance(value, ModuleType):
        here = {n: getattr(value, n, None) for n in function.__code__.co_names} if value not in (np, numba) else {}
        return ", ".join(f"{n}={_spelling(v, function)}" for n, v in here.items() if not callable(v))
    if hasattr(value, "py_func"):  # somebody's own numba function
        return hashlib.sha256(value.py_func.__code__.co_code + repr(value.py_func.__code__.co_consts).encode()).hexdigest()
    return getattr(value, "__qualname__", type(value).__qualname__)


def _digest(functions: list[Callable[..., Any]], static: Static, extra: str) -> str:
    """sha256 over byte code, constants and referenced values of `functions` and all helpers they reach."""
    sha = hashlib.sha256(extra.encode())
    seen: set[Any] = set()

    def add_code(code: CodeType) -> None:
        sha.update(code.co_code)
        sha.update(repr((code.co_names, code.co_varnames)).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                add_code(constant)
            else:
                sha.update(repr(constant).encode())

    def add(function: Any) -> None:
        function = partially_evaluated(function, static)  # what is compiled is what counts
        if function in seen:
            return
        seen.add(function)
        add_code(function.__code__)
        sha.update(
            _spelling((function.__defaults__, tuple(sorted((function.__kwdefaults__ or {}).items()))), function).encode()
        )
        for name, value in referenced(function).items():
            sha.update(name.encode())
            if is_helper(value):
                add(value)
            else:
                sha.update(_spelling(value, function).encode())

    for function in functions:
        add(function)
    return sha.hexdigest()


def binder(constants: type, static: dict[str, Any]) -> Callable[[Any], Any]:
    """A function that returns the constants with the static ones as literals, so that the compiler can unroll."""
    parts = [f"static_{f}" if f in static else f"c.{f}" for f in constants._fields]  # type: ignore[attr-defined]
    scope: dict[str, Any] = {"Constants": constants, **{f"static_{name}": value for name, value in static.items()}}
    exec(f"def bind(c):\n    return Constants({', '.join(parts)})\n", scope)  # our own field names and numbers only
    bind: Callable[[Any], Any] = scope["bind"]
    return bind


class Spans(NamedTuple):
    """Loops over the environments lo..hi-1, plain Python closures: what every device compiles.

    `s` is the State, `c` the constants, `b` the buffers.
    """

    step: Callable[..., None]  # (lo, hi, s, c, b, action, limit, autoreset)
    reset: Callable[..., None]  # (lo, hi, s, c, b): where b.active
    observe: Callable[..., None]  # (lo, hi, s, c, b)


def no_mask(s: Any, i: int, k: int, c: Any, out: Any) -> None:
    """The rule `legal` of worlds that have none: nothing is left of it in machine code."""


def rules_of(world_class: type[World], masked: bool) -> list[Callable[..., Any]]:
    """The rules `reset`, `step`, `observe`, `legal`."""
    legal = world_class.legal if masked else None
    return [world_class.reset, world_class.step, world_class.observe, legal or no_mask]


def make_spans(reset: Any, step: Any, observe: Any, legal: Any, bind: Any, agents: int) -> Spans:
    """The engine's work on an environment, written once: the rules and `bind` are callable on the device."""

    def reset_span(lo: int, hi: int, s: Any, c: Any, b: Any) -> None:
        constants = bind(c)
        for i in range(lo, hi):
            if b.active[i]:
                b.terminated[i] = False
                b.truncated[i] = False
                b.elapsed[i] = 0
                for k in range(agents):
                    b.running_return[i, k] = 0.0
                reset(s, i, constants, b.rng)
                for k in range(agents):
                    observe(s, i, k, constants, b.obs[i, k])
                    legal(s, i, k, constants, b.mask[i, k])

    def observe_span(lo: int, hi: int, s: Any, c: Any, b: Any) -> None:
        constants = bind(c)
        for i in range(lo, hi):
            for k in range(agents):
                observe(s, i, k, constants, b.obs[i, k])
                legal(s, i, k, constants, b.mask[i, k])

    def step_span(lo: int, hi: int, s: Any, c: Any, b: Any, action: Any, limit: int, autoreset: bool) -> None:
        constants = bind(c)
        for i in range(lo, hi):
            b.terminated[i] = False
            b.truncated[i] = False
            for k in range(agents):
                b.reward[i, k] = 0.0
            if not b.active[i]:
                continue
            terminated = step(s, i, action[i], constants, b.rng, b.reward[i])
            b.elapsed[i] += 1
            truncated = (not terminated) and limit > 0 and b.elapsed[i] >= limit
            for k in range(agents):
                b.running_return[i, k] += b.reward[i, k]
            if terminated or truncated:  # the rare path
                b.terminated[i] = terminated
                b.truncated[i] = truncated
                b.ended_length[i] = b.elapsed[i]
                for k in range(agents):
                    b.ended_return[i, k] = b.running_return[i, k]
                    observe(s, i, k, constants, b.final_obs[i, k])
                    legal(s, i, k, constants, b.final_mask[i, k])
                if autoreset:
                    b.elapsed[i] = 0
                    for k in range(agents):
                        b.running_return[i, k] = 0.0
                    reset(s, i, constants, b.rng)
            for k in range(agents):
                observe(s, i, k, constants, b.obs[i, k])
                legal(s, i, k, constants, b.mask[i, k])

    return Spans(step_span, reset_span, observe_span)


@functools.cache
def _kernels(
    world_class: type[World], constants: type, static: Static, spelling: str, agents: int, masked: bool, layout: Layout,
    action: Action,
) -> Kernels:  # fmt: skip
    rules = rules_of(world_class, masked)
    reset, step, observe, legal = (_compiled(rule, static) for rule in rules)
    inline = functools.partial(numba.njit, forceinline=True, **INNER)
    bind = inline(binder(constants, dict(static)))
    step_span, reset_span, observe_span = (inline(span) for span in make_spans(reset, step, observe, legal, bind, agents))
    tuples, scope = unpacking(layout)
    scope |= {"__name__": __name__, "step_span": step_span, "reset_span": reset_span, "observe_span": observe_span}
    scope |= {"int64": np.int64, "float32": np.float32, "float64": np.float64}
    numbers, reals = packed_sizes(layout)
    shape = ", ".join(map(str, (agents, *action.shape)))
    program = PROGRAM.format(tuples=tuples, table=numbers, reals=reals, action=shape, dtype=action.dtype)
    exec(program, scope)  # names and numbers of our own making only

    what = repr((world_class.__module__, world_class.State._fields, spelling, agents, layout, action, numba.__version__))
    key = _digest([*rules, bind.py_func], static, what + OURS)

    def own(function: Callable[..., Any]) -> Callable[..., Any]:
        """A name of its own: kernels that two processes cached must not share symbols when a third one loads both."""
        function.__qualname__ = f"{function.__name__}_{key[:20]}"
        return function

    step_rows = scope["step_rows"] = numba.njit(nogil=True, **INNER)(own(scope["step_rows"]))

    def step_all(table: Any, reals: Any, action: Any, limit: int, autoreset: bool) -> None:
        step_rows(0, action.shape[0], table, reals, action, limit, autoreset)

    def step_threaded(table: Any, reals: Any, action: Any, limit: int, autoreset: bool) -> None:
        n = action.shape[0]
        for block in numba.prange((n + BLOCK - 1) // BLOCK):
            step_rows(block * BLOCK, min(n, (block + 1) * BLOCK), table, reals, action, limit, autoreset)

    def finish(function: Callable[..., Any], parallel: bool) -> Any:
        return keep_on_disk(numba.njit(nogil=True, parallel=parallel)(own(function)), key)

    return Kernels(
        finish(step_all, False),
        finish(step_threaded, True),
        finish(scope["reset_all"], False),
        finish(scope["observe_all"], False),
        finish(scope["step_at"], False),
    )


def kernel_key(world: World) -> Any:
    """What a world's kernels depend on, hashable: class, class of constants, static constants, their spelling, agents, masked.

    The spelling tells 1, 1.0 and True apart. Raises TypeError for a static constant that is no number.
    """
    c = plain(world.constants())
    static = tuple((name, getattr(c, name)) for name in world.static)
    for name, value in static:
        if not isinstance(value, (bool, int, float)):
            raise TypeError(
                f"world {world.name}: static constant {name} is {type(value).__name__}: only numbers are compiled in"
            )
    return type(world), type(c), static, repr(static), world.num_agents, world.masked


def kernels(world: World, layout: Layout, action: Action) -> Kernels:
    """The compiled loops of `world`, for packed State, constants and buffers of that layout, and such actions.

    Worlds that differ in numbers that are not `static` share them.
    """
    compiled: Kernels = _kernels(*kernel_key(world), layout, action)
    return compiled
