"""Recurrent beliefs against their equations, written out in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gumdrop.core_ml.beliefs.recurrent import Recurrent

D, K, H = 4, 2, 6


def sigma(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def slow(cell: str, w: Any, u: Any, b: Any, b2: Any, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """One row, one step, from the equations in the papers."""
    a, r = w @ x + b, u @ h + b2
    if cell == "rnn":
        return np.tanh(a + r), c
    if cell == "lstm":
        i, f, g, o = np.split(a + r, 4)
        c = sigma(f) * c + sigma(i) * np.tanh(g)
        return sigma(o) * np.tanh(c), c
    (ar, az, an), (rr, rz, rn) = np.split(a, 3), np.split(r, 3)
    z = sigma(az + rz)
    return (1 - z) * np.tanh(an + sigma(ar + rr) * rn) + z * h, c


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_equations_with_episode_starts(cell: Any, layers: int) -> None:
    belief = Recurrent(Recurrent.Config(cell=cell, hidden=H, layers=layers), D, K, 0)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for p in belief.net.parameters():
            p += torch.from_numpy(rng.normal(0, 0.3, p.shape).astype(np.float32))
    weights = [[p.detach().double().numpy() for p in layer] for layer in belief.net.all_weights]
    code, action = rng.normal(size=(3, 9, D)), rng.normal(size=(3, 9, K))
    is_first = rng.random((3, 9)) < 0.3
    is_first[0] = False
    parts = {name: rng.normal(size=(3, layers, H)) for name in belief.initial(1)}
    expected = np.empty((3, 9, H))
    after = {name: part.copy() for name, part in parts.items()}
    for row in range(3):
        for t in range(9):
            x = np.concatenate([code[row, t], action[row, t] * ~is_first[row, t]])
            for layer in range(layers):
                h, c = (after[n][row, layer] * ~is_first[row, t] if n in after else 0.0 for n in ("h", "c"))
                x, c = slow(cell, *weights[layer], x, h, c)
                after["h"][row, layer] = x
                if "c" in after:
                    after["c"][row, layer] = c
            expected[row, t] = x
    single = [torch.from_numpy(a.astype(np.float32)) for a in (code, action)]
    state = {n: torch.from_numpy(p.astype(np.float32)) for n, p in parts.items()}
    out, end = belief.sequence(*single, torch.from_numpy(is_first), state)
    np.testing.assert_allclose(out.detach().numpy(), expected, atol=2e-6)
    for name, part in end.items():
        np.testing.assert_allclose(part.detach().numpy(), after[name], atol=2e-6)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_gradients_through_a_cut_sequence_are_those_of_steps(cell: Any) -> None:
    belief = Recurrent(Recurrent.Config(cell=cell, hidden=H), D, K, 0)
    rng = torch.Generator().manual_seed(0)
    code, action = torch.randn(5, 20, D, generator=rng), torch.randn(5, 20, K, generator=rng)
    is_first, weight = torch.rand(5, 20, generator=rng) < 0.2, torch.randn(5, 20, H, generator=rng)
    grads = []
    for steps in (True, False):
        state = {n: torch.full_like(p, 0.1).requires_grad_() for n, p in belief.initial(5).items()}
        start = list(state.values())
        if steps:
            outs = []
            for t in range(20):
                out, state = belief.observe(code[:, t], action[:, t], is_first[:, t], state)
                outs.append(out)
            out = torch.stack(outs, 1)
        else:
            out, _ = belief.sequence(code, action, is_first, state)
        grads.append(torch.autograd.grad((out * weight).sum(), [*belief.net.parameters(), *start]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_span_opens_the_gate_that_keeps(cell: Any) -> None:
    """With input weights 0 a unit forgets by the factor sigma(log u) = u / (1 + u) per step, u from 1 to span - 1."""
    belief = Recurrent(Recurrent.Config(cell=cell, hidden=400, span=50), D, K, 0)
    bias = belief.net.bias_ih_l0.detach().numpy()
    keep = sigma(bias[400:800])
    u = keep / (1 - keep)
    assert 1 <= u.min() < 2 and 48 < u.max() <= 49 and abs(u.mean() - 25) < 2
    if cell == "lstm":
        np.testing.assert_allclose(bias[:400], -bias[400:800])
    assert not bias[800:].any()
    plain = Recurrent(Recurrent.Config(cell=cell, hidden=4), D, K, 0).net.bias_ih_l0.detach().numpy()
    assert plain[4:8].tolist() == [1, 1, 1, 1] and not plain[:4].any() and not plain[8:].any()
    for matrix in belief.net.weight_hh_l0.detach().chunk({"lstm": 4, "gru": 3}[cell]):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(400), rtol=0, atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValidationError, match="no gates"):
        Recurrent.Config(cell="rnn", span=10)
    with pytest.raises(ValidationError):
        Recurrent.Config(cell="transformer")  # type: ignore[arg-type]
