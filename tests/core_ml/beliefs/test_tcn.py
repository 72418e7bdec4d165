"""Temporal convolution against a slow version, and how far it sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gumdrop.core_ml.beliefs.tcn import TCN


def shaken(config: TCN.Config) -> TCN:
    belief = TCN(config, 3, 2, 0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in belief.net.parameters():
            p += 0.2 * torch.randn(p.shape, generator=rng)
    return belief


def test_equations_one_episode() -> None:
    """The loops of the definition in float64, dilation 1 then 3."""
    belief = shaken(TCN.Config(width=4, taps=3, layers=2))
    w = {name: array.astype(np.float64) for name, array in belief.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[
            f"{name}.bias"
        ]

    rng = np.random.default_rng(0)
    code, action = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    inputs = np.concatenate([code, action * (np.arange(12) > 0)[:, None]], 1)
    x = inputs @ w["input.weight"].T + w["input.bias"]
    for layer, dilation in enumerate((1, 3)):
        name = f"layers.{layer}"
        u, mixed = norm(x, f"{name}.norm"), np.zeros_like(x)
        for t in range(12):
            mixed[t] = w[f"{name}.mix.bias"]
            for j in range(3):
                if t - j * dilation >= 0:
                    mixed[t] += w[f"{name}.mix.weight"][:, 4 * j : 4 * j + 4] @ u[t - j * dilation]
        x = x + np.maximum(mixed, 0) @ w[f"{name}.out.weight"].T + w[f"{name}.out.bias"]
    is_first = torch.arange(12) == 0
    rows = [torch.from_numpy(a.astype(np.float32))[None] for a in (code, action)]
    out, _ = belief.sequence(*rows, is_first[None], belief.initial(1))
    np.testing.assert_allclose(out[0].detach().numpy(), norm(x, "norm"), atol=1e-5)


@pytest.mark.parametrize(("taps", "layers", "horizon"), [(2, 3, 8), (3, 2, 9), (2, 1, 2)])
def test_it_sees_its_horizon_and_no_further(taps: int, layers: int, horizon: int) -> None:
    belief = shaken(TCN.Config(width=8, taps=taps, layers=layers))
    assert belief.horizon == horizon
    code = torch.randn(1, 24, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    is_first = torch.zeros(1, 24, dtype=torch.bool)
    out, _ = belief.sequence(code, torch.zeros(1, 24, 2), is_first, belief.initial(1))
    (grad,) = torch.autograd.grad(out[0, 20, 0], code)
    seen = grad[0].abs().sum(1) > 0
    assert seen.nonzero().squeeze(1).tolist() == list(range(20 - horizon + 1, 21))
