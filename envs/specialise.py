"""Rules cut down to what a configuration uses, before anything is compiled.

A family of worlds has many switches, and a kernel needs few of them. Where a rule reads a static constant (`c.noise`),
this puts the number there and drops the branches that can no longer run. What is left is the rule that a person would
have written for that configuration alone: it compiles in a fraction of the time, and to the same results.
"""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import textwrap
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
        for value in node.values:
            constant = isinstance(value, ast.Constant)
            if constant and bool(value.value) == decides:  # type: ignore[attr-defined]
                kept.append(value)
                break
            if not constant:
                kept.append(value)
        if not kept:
            return node.values[-1]
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


@functools.cache
def _specialised(function: Any, static: Static) -> Any:
    code = function.__code__
    takes = "c" in code.co_varnames[: code.co_argcount]
    if function.__closure__ or not takes or not {name for name, _ in static} & set(code.co_names):
        return function
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError):  # typed into a prompt, or made by exec: compiled as it is
        return function
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef) or definition.name != code.co_name:
        return function
    definition.decorator_list, definition.returns = [], None
    for argument in definition.args.args:
        argument.annotation = None
    own = {*code.co_varnames, *code.co_cellvars}
    names = {n: v for n, v in function.__globals__.items() if n not in own and type(v) in (bool, int, float)}
    cut = _Cut(dict(static), names)
    tree = ast.fix_missing_locations(cut.visit(tree))
    scope: dict[str, Any] = {}
    exec(compile(ast.increment_lineno(tree, first - 1), code.co_filename, "exec"), function.__globals__, scope)
    again = scope[definition.name]
    if hasattr(function, "__gumdrop_helper__"):
        again.__gumdrop_helper__ = True
    again.__qualname__, again.__module__ = function.__qualname__, function.__module__
    return again


def specialised(function: Callable[..., Any], static: Static) -> Callable[..., Any]:
    """`function` for static constants `static`, (name, number) pairs; itself where it reads none or has no source.

    The constants are the attributes of the parameter named `c`, as rules and the helpers that they hand it to have it.
    """
    values = tuple((name, value.item() if hasattr(value, "item") else value) for name, value in static)
    changed: Callable[..., Any] = _specialised(function, values)
    return changed
