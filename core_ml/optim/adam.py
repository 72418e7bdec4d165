"""Adam over one flat buffer: parameters and gradients are views of it, so clipping and stepping are a few operations."""

from __future__ import annotations

import math

import torch
from torch import nn

from .parameters import Parameters


class FlatAdam:
    """Adam (Kingma & Ba 2015, algorithm 1) with clipping by global norm, for all parameters of a module.

    Moves the module's parameters into `self.flat`, their gradients into `self.grad`; both are the arrays of `memory` and stay
    in place for good. A given `memory`, of the same names and shapes, keeps what it holds; without one the module's own
    parameters are taken over.
    """

    def __init__(
        self, module: nn.Module, eps: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999), memory: Parameters | None = None
    ) -> None:
        shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        if memory is None:
            dtype = next(module.parameters()).detach().numpy().dtype
            memory = Parameters(shapes, eps, betas, dtype)
            for part, p in zip(memory.views(memory.flat).values(), module.parameters(), strict=True):
                part[...] = p.detach().numpy()
        if list(memory.shapes.items()) != list(shapes.items()):
            raise ValueError(f"the module has parameters {shapes}, the memory {memory.shapes}")
        self.memory, self.eps, self.betas = memory, memory.eps, memory.betas
        self.flat, self.grad, self.mean, self.square = map(
            torch.from_numpy, (memory.flat, memory.grad, memory.mean, memory.square)
        )
        values, grads = memory.views(memory.flat), memory.views(memory.grad)
        for name, p in module.named_parameters():
            p.data, p.grad = torch.from_numpy(values[name]), torch.from_numpy(grads[name])

    @property
    def steps(self) -> int:
        return self.memory.steps

    def zero_grad(self) -> None:
        self.grad.zero_()

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """One update; returns the gradient's norm before clipping. A non-finite gradient changes nothing."""
        norm = float(torch.linalg.vector_norm(self.grad))
        if not math.isfinite(norm):
            return norm
        if max_grad_norm > 0 and norm > max_grad_norm:
            self.grad.mul_(max_grad_norm / (norm + 1e-6))
        self.memory.steps += 1
        b1, b2 = self.betas
        self.mean.lerp_(self.grad, 1 - b1)
        self.square.mul_(b2).addcmul_(self.grad, self.grad, value=1 - b2)
        scale = math.sqrt(1 - b2**self.steps)
        denominator = self.square.sqrt().div_(scale).add_(self.eps)
        self.flat.addcdiv_(self.mean, denominator, value=-learning_rate / (1 - b1**self.steps))
        return norm
