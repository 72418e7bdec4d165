"""Rules cut down to what a configuration uses, before anything is compiled.

A family of worlds has many switches, and a kernel needs few of them. Where a rule reads a static constant (`c.noise`),
this puts the number there and drops the branches that can no longer run. What is left is the rule that a person would
have written for that configuration alone: it compiles in a fraction of the time, and to the same results.
"""

from __future__ import annotations

import ast
import inspect
import operator
import textwrap
import types
from collections.abc import Callable
from typing import Any

Static = tuple[tuple[str, Any], ...]  # (name, number) of each static constant

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class _Cut(ast.NodeTransformer):
    """Replaces `c.NAME` by its value and folds what follows from that. Nothing that draws or writes is ever skipped."""

    def __init__(self, static: dict[str, Any], names: dict[str, Any]) -> None:
        self.static = static
        self.names = names  # module-level numbers, which comparisons are with

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if isinstance(node.ctx, ast.Load) and node.id in self.names:
            return ast.copy_location(ast.Constant(self.names[node.id]), node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == "c" and node.attr in self.static:
            return ast.copy_location(ast.Constant(self.static[node.attr]), node)
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            left, right = node.left, node.comparators[0]
            if isinstance(left, ast.Constant) and isinstance(right, ast.Constant):
                return ast.copy_location(ast.Constant(_COMPARE[type(node.ops[0])](left.value, right.value)), node)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.copy_location(ast.Constant(not node.operand.value), node)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        decides = isinstance(node.op, ast.Or)  # the truth value at which the rest is not looked at
        kept: list[ast.expr] = []
        for k, value in enumerate(node.values):
            if isinstance(value, ast.Constant):
                if bool(value.value) == decides:
                    kept.append(value)
                    break
                if k < len(node.values) - 1:  # the last one may be the value of the whole
                    continue
            kept.append(value)
        return kept[0] if len(kept) == 1 else ast.copy_location(ast.BoolOp(node.op, kept), node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return (node.body if node.test.value else node.orelse) or ast.copy_location(ast.Pass(), node)
        return node


def _same(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two code objects do the same, wherever their lines are."""
    return (one.co_code, one.co_names, one.co_varnames, repr(one.co_consts)) == (
        other.co_code, other.co_names, other.co_varnames, repr(other.co_consts)
    )  # fmt: skip


def _made(definition: ast.FunctionDef, function: Any, first: int) -> Any:
    """The function that `definition` defines in the place of `function`."""
    module = ast.increment_lineno(ast.fix_missing_locations(ast.Module([definition], [])), first - 1)
    scope: dict[str, Any] = {}
    exec(compile(module, function.__code__.co_filename, "exec"), function.__globals__, scope)
    return scope[definition.name]


def _specialised(function: Any, static: Static) -> Any:
    code = function.__code__
    takes = "c" in code.co_varnames[: code.co_argcount]
    nested = any(isinstance(constant, types.CodeType) for constant in code.co_consts)
    if function.__closure__ or nested or not takes or not {name for name, _ in static} & set(code.co_names):
        return function
    own = {*code.co_varnames, *code.co_cellvars}
    names = {n: function.__globals__[n] for n in code.co_names if n not in own and n in function.__globals__}
    names = {n: v for n, v in names.items() if type(v) in (bool, int, float)}
    key = function, repr(static), repr(names)
    if key not in _SPECIALISED:
        _SPECIALISED[key] = _rewritten(function, dict(static), names)
    return _SPECIALISED[key]


_SPECIALISED: dict[Any, Any] = {}


def _rewritten(function: Any, static: dict[str, Any], names: dict[str, Any]) -> Any:
    try:
        lines, first = inspect.getsourcelines(function)
        text = textwrap.dedent("".join(lines))
        definition = ast.parse(text).body[0]
    except (OSError, SyntaxError, IndexError):  # typed into a prompt, or made by exec: compiled as it is
        return function
    if not isinstance(definition, ast.FunctionDef) or definition.name != function.__code__.co_name:
        return function

    def bare(tree: ast.FunctionDef) -> ast.FunctionDef:
        """Without what is evaluated when a function is defined: that has happened."""
        tree.decorator_list, tree.returns = [], None
        for argument in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs):
            argument.annotation = None
        tree.args.defaults = [ast.Constant(None) for _ in tree.args.defaults]
        tree.args.kw_defaults = [d and ast.Constant(None) for d in tree.args.kw_defaults]
        return tree

    if not _same(_made(bare(definition), function, first).__code__, function.__code__):
        return function  # the file has changed since it was imported
    again = _made(_Cut(static, names).visit(bare(ast.parse(text).body[0])), function, first)  # type: ignore[arg-type]
    again.__defaults__, again.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    if hasattr(function, "__gumdrop_helper__"):
        again.__gumdrop_helper__ = True
    again.__qualname__, again.__module__ = function.__qualname__, function.__module__
    return again


def partially_evaluated(function: Callable[..., Any], static: Static) -> Callable[..., Any]:
    """`function` for static constants `static`; itself where it reads none, has no source, or is no plain function of them.

    The constants are the attributes of the parameter named `c`: rules have it, and helpers that they hand it to.
    """
    changed: Callable[..., Any] = _specialised(function, static)
    return changed
