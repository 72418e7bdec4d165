"""Walls: no two files of the package import each other in a circle, and the contracts of import-linter hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
Graph = dict[str, set[str]]


def imports() -> Graph:
    """Which file imports which, imports inside functions and under TYPE_CHECKING included.

    A package's `__init__` stands for itself only: importing `a.b` is no import of `a` here, as in import-linter.
    """
    graph = grimp.build_graph("gumdrop", exclude_type_checking_imports=False)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components with more than one file (Tarjan 1972), and files that import themselves."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1 or node in graph[node]:
                found.append(sorted(part))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        for node in sorted(graph):
            if node not in index:
                visit(node)
    finally:
        sys.setrecursionlimit(limit)
    return found


@pytest.fixture(scope="module")
def graph() -> Graph:
    return imports()


def test_the_count_finds_circles() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e"}}) == [["a", "b", "c"], ["e"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_lazy_imports_are_counted(graph: Graph) -> None:
    assert "gumdrop.agents.deep.recurrent_actor" in graph["gumdrop.agents.deep.ppo"]  # inside __init__
    assert len(graph) > 200


def test_no_circle(graph: Graph) -> None:
    found = circles(graph)
    assert not found, f"{len(found)} circles:\n" + "\n".join(" <-> ".join(part) for part in found)


def test_contracts() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    env = os.environ | {"PYTHONPATH": str(ROOT / ".typing")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
