"""A network's parameters, their gradient and Adam's moments, each as one flat array with names for its parts.

All learners work on these arrays: torch through views (`optim.FlatAdam`), the kernels by their address. Torch is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from ...store.arrays import Array


class Parameters:
    """Parameters of the given names and shapes, all zero, in the order of `shapes`; every array starts at a cache line."""

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], eps: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999),
        dtype: npt.DTypeLike = np.float32,
    ) -> None:  # fmt: skip
        self.shapes, self.eps, self.betas = shapes, eps, betas
        self.steps = 0  # of Adam
        size = sum(map(math.prod, shapes.values()))
        self.flat, self.grad, self.mean, self.square = (aligned(size, dtype=dtype) for _ in range(4))

    def views(self, flat: Array) -> dict[str, Array]:
        """The parts of `flat`, one of the arrays here, by name and in their shapes."""
        parts: dict[str, Array] = {}
        start = 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            parts[name] = flat[start : start + size].reshape(shape)
            start += size
        return parts

    def initialise(self, rng: np.random.Generator) -> None:
        """Orthogonal matrices and zero biases (Saxe et al. 2014), times sqrt(2); times 0.01 and 1 in a policy's and a
        value's head, so that the first outputs are small (Andrychowicz et al. 2021, "What matters for on-policy deep actor-
        critic methods")."""
        for name, part in self.views(self.flat).items():
            gain = {"policy_head.weight": 0.01, "value_head.weight": 1.0}.get(name, math.sqrt(2))
            part[...] = orthogonal(part.shape, gain, rng) if part.ndim > 1 else 0.0

    def initialise_uniform(self, rng: np.random.Generator, sigma: float = 0.5) -> None:
        """Weights and biases of a layer of p inputs from U(-1 / sqrt p, 1 / sqrt p), and where weights have deviations these
        `sigma` / sqrt p (Fortunato et al. 2018, section 3.2). Smaller than `initialise`: bootstrapped values diverge
        sooner with large features."""
        bound = 1.0
        for name, part in self.views(self.flat).items():
            if part.ndim > 1:
                bound = 1.0 / math.sqrt(math.prod(part.shape[1:]))
            deviation = name.rpartition(".")[2].startswith("sigma_")
            part[...] = sigma * bound if deviation else rng.uniform(-bound, bound, part.shape)

    def bad_gradient(self) -> str | None:
        """Name of the first parameter whose gradient is not finite."""
        return next((name for name, grad in self.views(self.grad).items() if not np.isfinite(grad).all()), None)

    def state(self) -> dict[str, Array]:
        """Everything as arrays by name; they are this object's arrays, not copied."""
        state = {f"model.{name}": part for name, part in self.views(self.flat).items()}
        return state | {
            "optimiser.mean": self.mean, "optimiser.square": self.square, "optimiser.steps": np.array(self.steps, np.int64)
        }  # fmt: skip

    def load(self, state: dict[str, Array]) -> None:
        """Put back what `state` gave."""
        for name, part in self.views(self.flat).items():
            part[...] = state[f"model.{name}"]
        self.mean[...], self.square[...] = state["optimiser.mean"], state["optimiser.square"]
        self.steps = int(state["optimiser.steps"])


def mlp_shapes(inputs: int, hidden: Sequence[int], actions: int, continuous: bool, shared: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of an actor-critic of full layers, as `nets.ActorCritic` has them."""
    shapes: dict[str, tuple[int, ...]] = {"log_std": (actions,)} if continuous else {}
    for trunk in ("policy_trunk",) if shared else ("policy_trunk", "value_trunk"):
        shapes |= _trunk_shapes(trunk, inputs, hidden)
    for head, size in (("policy_head", actions), ("value_head", 1)):
        shapes |= {f"{head}.weight": (size, hidden[-1]), f"{head}.bias": (size,)}
    return shapes


def q_shapes(inputs: int, hidden: Sequence[int], actions: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of a Q-network of full layers, as `nets.QNetwork` without options has them."""
    head = {"head.weight": (actions, hidden[-1]), "head.bias": (actions,)}
    return _trunk_shapes("trunk", inputs, hidden) | head


def _trunk_shapes(name: str, inputs: int, hidden: Sequence[int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (i, o) in enumerate(zip([inputs, *hidden[:-1]], hidden, strict=True)):
        shapes |= {f"{name}.{2 * number}.weight": (o, i), f"{name}.{2 * number}.bias": (o,)}
    return shapes


def orthogonal(shape: tuple[int, ...], gain: float, rng: np.random.Generator) -> Array:
    """A float64 array whose rows, as vectors, are orthogonal and `gain` long; or its columns, where these are fewer.

    Uniform over such matrices: the Q of a normal matrix, with signs that make R's diagonal positive (Mezzadri 2007).
    """
    rows, columns = shape[0], math.prod(shape[1:])
    with threadpool_limits(1, "blas"):  # the number of threads may change the last bits
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (gain * (q if rows >= columns else q.T)).reshape(shape)


def aligned(*shape: int, dtype: npt.DTypeLike = np.float32) -> Array:
    """Zeros that begin at a cache line."""
    kind, size = np.dtype(dtype), math.prod(shape)
    room = np.zeros(size + 64 // kind.itemsize, kind)
    skip = -room.ctypes.data % 64 // kind.itemsize
    return room[skip : skip + size].reshape(shape)
