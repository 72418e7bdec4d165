"""A griffe extension: examples in docstrings (`>>> ...`, up to the next blank line) are shown as code."""

from __future__ import annotations

import inspect
from typing import Any

import griffe


def fenced(text: str) -> str:
    """`text` with fences around its examples."""
    lines, inside = [], False
    for line in inspect.cleandoc(text).splitlines():
        if line.startswith(">>>") and not inside:
            lines.append("```pycon")
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join([*lines, "```"] if inside else lines)


class Doctests(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
