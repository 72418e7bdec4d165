"""Adam over one flat buffer: parameters and gradients are views of it, so clipping and stepping are a few operations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FlatAdam:
    """Adam (Kingma & Ba 2015, algorithm 1) with clipping by global norm, for all parameters of a module.

    Moves the module's parameters into `self.flat`, their gradients into `self.grad`; both stay in place for good.
    """

    def __init__(self, module: nn.Module, eps: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.names = [name for name, _ in module.named_parameters()]
        self.parameters = [p for _, p in module.named_parameters()]
        self.eps, self.betas, self.steps = eps, betas, 0
        self.flat = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self.grad, self.mean, self.square = (torch.zeros_like(self.flat) for _ in range(3))
        start = 0
        for p in self.parameters:
            p.data = self.flat[start : start + p.numel()].view_as(p)
            p.grad = self.grad[start : start + p.numel()].view_as(p)
            start += p.numel()

    def zero_grad(self) -> None:
        self.grad.zero_()

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """One update; returns the gradient's norm before clipping. A non-finite gradient changes nothing."""
        norm = float(torch.linalg.vector_norm(self.grad))
        if not math.isfinite(norm):
            return norm
        if max_grad_norm > 0 and norm > max_grad_norm:
            self.grad.mul_(max_grad_norm / (norm + 1e-6))
        self.steps += 1
        b1, b2 = self.betas
        self.mean.lerp_(self.grad, 1 - b1)
        self.square.mul_(b2).addcmul_(self.grad, self.grad, value=1 - b2)
        scale = math.sqrt(1 - b2**self.steps)
        denominator = self.square.sqrt().div_(scale).add_(self.eps)
        self.flat.addcdiv_(self.mean, denominator, value=-learning_rate / (1 - b1**self.steps))
        return norm

    def bad_gradient(self) -> str | None:
        """Name of the first parameter whose gradient is not finite."""
        for name, p in zip(self.names, self.parameters, strict=True):
            if p.grad is not None and not torch.isfinite(p.grad).all():
                return name
        return None

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "square": self.square, "steps": torch.tensor(self.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.steps = int(state["steps"])
