"""Adam over one flat buffer: parameters and gradients are views of it, so clipping and stepping are a few operations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .parameters import Parameters


def adam_moments(
    grad: Tensor, mean: Tensor, square: Tensor, betas: tuple[float, float], correction: float | Tensor, eps: float
) -> Tensor:
    """New moments, in place, and the denominator of Adam's step (Kingma & Ba 2015, algorithm 1). All of one shape.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2

    Returns sqrt(v) / `correction` + eps, with `correction` = sqrt(1 - b2^t). The step itself is left to the caller:
    theta <- theta - (learning_rate / (1 - b1^t)) m / denominator.
    """
    b1, b2 = betas
    mean.lerp_(grad, 1 - b1)
    square.mul_(b2).addcmul_(grad, grad, value=1 - b2)
    return square.sqrt().div_(correction).add_(eps)


class FlatAdam:
    """Adam with clipping by global norm, for all parameters of a module.

    Moves the module's parameters into `flat` and their gradients into `grad`; both are the arrays of `parameters` and never
    move again. Given `parameters` of the same names and shapes keep their values; without them the module's own values are
    taken over. Raises ValueError where names or shapes differ.
    """

    def __init__(
        self, module: nn.Module, eps: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999),
        parameters: Parameters | None = None,
    ) -> None:  # fmt: skip
        shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        if parameters is None:
            dtype = next(module.parameters()).detach().numpy().dtype
            parameters = Parameters(shapes, eps, betas, dtype)
            for part, p in zip(parameters.views(parameters.flat).values(), module.parameters(), strict=True):
                part[...] = p.detach().numpy()
        if list(parameters.shapes.items()) != list(shapes.items()):
            raise ValueError(f"the module has parameters {shapes}, those given are {parameters.shapes}")
        self.parameters, self.eps, self.betas = parameters, parameters.eps, parameters.betas
        arrays = parameters.flat, parameters.grad, parameters.mean, parameters.square
        self.flat, self.grad, self.mean, self.square = map(torch.from_numpy, arrays)
        values, grads = parameters.views(parameters.flat), parameters.views(parameters.grad)
        for name, p in module.named_parameters():
            p.data, p.grad = torch.from_numpy(values[name]), torch.from_numpy(grads[name])

    @property
    def steps(self) -> int:
        return self.parameters.steps

    def zero_grad(self) -> None:
        self.grad.zero_()

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """One update; returns the gradient's norm before clipping. A gradient that is not finite changes nothing."""
        norm = float(torch.linalg.vector_norm(self.grad))
        if not math.isfinite(norm):
            return norm
        if max_grad_norm > 0 and norm > max_grad_norm:
            self.grad.mul_(max_grad_norm / (norm + 1e-6))
        self.parameters.steps += 1
        b1, b2 = self.betas
        correction = math.sqrt(1 - b2**self.steps)
        denominator = adam_moments(self.grad, self.mean, self.square, self.betas, correction, self.eps)
        self.flat.addcdiv_(self.mean, denominator, value=-learning_rate / (1 - b1**self.steps))
        return norm
