"""Data-parallel gradients: the rows of a minibatch in chunks, the chunks on threads, the sum in a fixed order.

Small layers gain little from threads inside each operation: most of the time goes into starting and waiting. Whole chunks side
by side wait only at the end. Which chunk goes to which worker, and the order in which gradients are added, depend on
the number of workers alone, never on timing, so that equal seeds give equal bits.
"""

from __future__ import annotations

import copy
import ctypes
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ...store.arrays import Array
from .adam import FlatAdam

M = TypeVar("M", bound=nn.Module)


@functools.cache
def keep_memory() -> None:
    """Tell glibc's allocator to keep freed memory instead of giving it back to the system after each tensor.

    Fresh pages cost a fault each: a third of the time of a small network's gradient. Elsewhere than on glibc: nothing.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        libc.mallopt(-2, 1 << 26)  # M_TOP_PAD
    except (OSError, AttributeError):
        pass


def one_thread_each() -> None:
    """One thread inside each of torch's operations in this thread. Cheap: call it before work, not once at the start.

    Another library with OpenMP (numba's threads) may change the setting, and with it the last bits of sums.
    """
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


class Replicas(Generic[M]):
    """`workers` twins of `module` that share its parameters and have gradients of their own.

    Make it after `FlatAdam`: the first twin is the module itself, with the views of `FlatAdam`.
    """

    def __init__(self, module: M, optimiser: FlatAdam, workers: int) -> None:
        self.optimiser, self.workers = optimiser, workers
        self.modules: list[M] = [module]
        self.grads = [optimiser.grad]
        for _ in range(workers - 1):
            twin, grad, start = copy.deepcopy(module), torch.zeros_like(optimiser.grad), 0
            for p, original in zip(twin.parameters(), module.parameters(), strict=True):
                p.data = original.data
                p.grad = grad[start : start + p.numel()].view_as(p)
                start += p.numel()
            self.modules.append(twin)
            self.grads.append(grad)
        # One thread in each operation: torch's setting holds for the thread that makes it only.
        pool = functools.partial(ThreadPoolExecutor, initializer=torch.set_num_threads, initargs=(1,))
        self._pool = pool(workers - 1, "gumdrop") if workers > 1 else None

    def zero_grad(self) -> None:
        for grad in self.grads:
            grad.zero_()

    def each(self, work: Callable[[M, Any], Tensor], items: Sequence[Any]) -> list[Tensor]:
        """`work(twin, item)` for every item, item j on worker j mod workers; results in the order of the items."""
        results: list[Tensor | None] = [None] * len(items)

        def share(worker: int) -> None:
            for j in range(worker, len(items), self.workers):
                results[j] = work(self.modules[worker], items[j])

        busy = range(1, min(self.workers, len(items)))
        waiting = [self._pool.submit(share, worker) for worker in busy] if self._pool else []
        share(0)
        for future in waiting:
            future.result()
        return [r for r in results if r is not None]

    def summed(self, work: Callable[[M, Any], Tensor], items: Sequence[Any]) -> Array:
        """Sum of what `work` gives for the items, float64 (5,), and of the gradients that it leaves, in the optimiser's."""
        self.zero_grad()
        sums = np.zeros(5)
        for part in self.each(work, items):
            sums += part.numpy()
        self.gather()
        return sums

    def gather(self) -> None:
        """Add all workers' gradients into the optimiser's, in the order of the workers."""
        for grad in self.grads[1:]:
            self.optimiser.grad.add_(grad)
