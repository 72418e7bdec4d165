"""The transformer belief against a slow version; windows, positions, caches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gumdrop.core_ml.beliefs.transformer import Transformer

D, K = 3, 2


def shaken(seed: int = 1, **options: Any) -> Transformer:
    belief = Transformer(Transformer.Config(**{"width": 8, "heads": 2, **options}), D, K, 0)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in belief.net.parameters():
            p += 0.3 * torch.randn(p.shape, generator=rng)
    return belief


def rows(steps: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.randn(1, steps, D, generator=rng),
        torch.randn(1, steps, K, generator=rng),
        torch.zeros(1, steps, dtype=torch.bool),
    )


def slow(belief: Transformer, inputs: np.ndarray) -> np.ndarray:
    """One episode, one step at a time, one head at a time, float64."""
    c = belief.config
    w = {name: array.astype(np.float64) for name, array in belief.state_dict().items()}
    d = c.width // c.heads

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[
            f"{name}.bias"
        ]

    def sigma(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    def join(x: np.ndarray, y: np.ndarray, name: str) -> np.ndarray:
        if c.gate == "residual":
            return x + y
        (wr, wz, wg), (ur, uz) = np.split(linear(np.maximum(y, 0), f"{name}.w"), 3, -1), np.split(linear(x, f"{name}.u"), 2, -1)
        z = sigma(wz + uz - 2)
        return (1 - z) * x + z * np.tanh(wg + linear(sigma(wr + ur) * x, f"{name}.reset"))

    def far(j: int, name: str) -> np.ndarray:
        """R on sines and cosines of distance j with frequencies 10000^(-2 i / width), Vaswani et al. 2017."""
        angle = j / 10_000 ** (2 * np.arange(c.width // 2) / c.width)
        return linear(np.concatenate([np.sin(angle), np.cos(angle)]), name) if c.distances else np.zeros(c.width)

    x = linear(inputs, "input")
    for layer in range(c.layers):
        name = f"layers.{layer}"
        q, k, v = np.split(linear(norm(x, f"{name}.norm1"), f"{name}.qkv"), 3, -1)
        attended = np.zeros_like(x)
        for t in range(len(x)):
            seen = range(max(0, t - c.window + 1), t + 1)
            for head in range(c.heads):
                part = slice(head * d, head * d + d)
                score = [q[t, part] @ (k[s, part] + far(t - s, f"{name}.far")[part]) / np.sqrt(d) for s in seen]
                weight = np.exp(score) / np.exp(score).sum()
                attended[t, part] = sum(p * v[s, part] for p, s in zip(weight, seen, strict=True))
        x = join(x, linear(attended, f"{name}.out"), f"{name}.join1")
        hidden = np.maximum(linear(norm(x, f"{name}.norm2"), f"{name}.up"), 0)
        x = join(x, linear(hidden, f"{name}.down"), f"{name}.join2")
    return norm(x, "norm")


@pytest.mark.parametrize("distances", [True, False])
@pytest.mark.parametrize("gate", ["residual", "gru"])
@pytest.mark.parametrize("window", [1, 4, 20])
def test_equations_one_episode(gate: str, window: int, distances: bool) -> None:
    belief = shaken(gate=gate, window=window, distances=distances)
    code, action, is_first = rows(11)
    is_first[0, 0] = True
    inputs = np.concatenate([code[0].numpy(), action[0].numpy() * (np.arange(11) > 0)[:, None]], 1).astype(np.float64)
    out, _ = belief.sequence(code, action, is_first, belief.initial(1))
    np.testing.assert_allclose(out[0].detach().numpy(), slow(belief, inputs), atol=2e-5)


def test_only_distances_count() -> None:
    """The same last steps give the same belief, ten or a thousand steps into the episode."""
    belief = shaken(layers=2, window=5)
    code, action, is_first = rows(1200)
    code[:, -12:], action[:, -12:] = code[:, :12].clone(), action[:, :12].clone()
    with torch.no_grad():
        out, _ = belief.sequence(code, action, is_first, belief.initial(1))
    torch.testing.assert_close(out[0, 11], out[0, -1], rtol=0, atol=1e-5)  # 2 layers see 8 steps back
    assert (out[0, 5] - out[0, -7]).abs().max() > 1e-3


def test_it_sees_its_window_and_no_further() -> None:
    for layers, back in ((1, 3), (2, 6)):
        belief = shaken(layers=layers, window=4)
        code, action, is_first = rows(20)
        code.requires_grad_()
        out, _ = belief.sequence(code, action, is_first, belief.initial(1))
        (grad,) = torch.autograd.grad(out[0, 15, 0], code)
        assert (grad[0].abs().sum(1) > 0).nonzero().squeeze(1).tolist() == list(range(15 - back, 16))


def test_acting_in_place_is_acting() -> None:
    belief = shaken(window=4)
    code, action, _ = rows(30)
    is_first = torch.arange(30)[None] % 7 == 3
    state, kept = belief.initial(1), belief.initial(1)
    for t in range(30):
        with torch.no_grad():
            out, state = belief.observe(code[:, t], action[:, t], is_first[:, t], state)
        same = belief.observe_(code[:, t], action[:, t], is_first[:, t], kept)
        assert torch.equal(out, same)
        assert all(torch.equal(state[name], kept[name]) for name in state)


def test_distances_matter_once_learned() -> None:
    """At first R is 0 and the order of what is remembered does not count; later it does, unless contents alone shall."""
    code, action, is_first = rows(6)
    swapped = code[:, [0, 2, 1, 3, 4, 5]]
    for belief, differs in (
        (Transformer(Transformer.Config(width=8, heads=2, layers=1), D, 0, 0), False),
        (shaken(layers=1), True),
        (shaken(layers=1, distances=False), False),
    ):
        actions = action[..., : belief.sizes[1]] * 0
        a, b = (belief.sequence(c, actions, is_first, belief.initial(1))[0][0, -1] for c in (code, swapped))
        assert ((a - b).abs().max() > 1e-4) == differs


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValidationError, match="no even multiple"):
        Transformer.Config(width=12, heads=4)
