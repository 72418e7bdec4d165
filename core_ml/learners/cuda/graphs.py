"""CUDA graphs of torch: recording work once and replaying it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numba
import torch

WARM_UP = 2  # calls before work is captured: libraries set themselves up, kernels compile


class Place:
    """A torch device and the stream on which all work there happens; the CPU has none.

    Graphs cannot be captured on the default stream, and work on two streams would have to wait for each other by hand.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(_torch_device(device))
        self.stream = torch.cuda.Stream() if self.device.type == "cuda" else None

    @property
    def handle(self) -> int:
        """The stream as CUDA knows it; 0 on the CPU."""
        return int(self.stream.cuda_stream) if self.stream else 0

    def here(self) -> AbstractContextManager[Any]:
        """Within it torch works on this stream."""
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()


def _torch_device(device: str) -> str:
    """What torch calls `device`. Raises ValueError where it has none; in numba's CUDA simulator "cuda" is torch's CPU."""
    if device == "cuda" and not torch.cuda.is_available():
        if not numba.config.ENABLE_CUDASIM:
            raise ValueError(f"torch {torch.__version__} finds no GPU for device 'cuda': take device 'cpu'")
        return "cpu"
    return device


class Captured:
    """Work that always reads and writes the same arrays: on CUDA one graph from its third call on, on the CPU a plain call.

    Its first two calls do the work without a graph, which warms up; capturing does not do the work, replaying does.
    """

    def __init__(self, work: Callable[[], None], place: Place) -> None:
        self.work, self.place = work, place
        self.calls = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        with self.place.here():
            if self.calls >= WARM_UP and self._replay is None:
                self._replay = capture(self.work, self.place)
            (self._replay or self.work)()
        self.calls += 1


def capture(work: Callable[[], None], place: Place) -> Callable[[], None]:
    """A function that replays `work`; on the CPU `work` itself."""
    if place.stream is None:
        return work
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=place.stream):
        work()
    return graph.replay
