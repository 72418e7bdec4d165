"""The protocol of a live view."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol


class View(Protocol):
    """Whatever follows one run: it is entered when training begins and told of every update."""

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def update(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None: ...

    def note(self, line: str) -> None: ...
