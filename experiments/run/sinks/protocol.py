"""What a sink of metrics is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Sink(Protocol):
    """A copy of the metrics elsewhere. Whatever its methods raise only ends the sink."""

    name: str

    def start(self, resume: bool) -> None: ...

    def log(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None: ...

    def news(self) -> str:
        """A line for the user while the run goes on, or ''."""
        ...

    def close(self, seconds: float) -> str:
        """Finish within `seconds`; a line for the user, or ''."""
        ...
