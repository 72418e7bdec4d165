"""World Models: states and loss are the formulas, the autoencoder settles, temperature widens imagined trajectories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.core_ml.data.sequences import Sequences
from gumdrop.core_ml.models.mdn_gru import MdnGru
from gumdrop.core_ml.observations import Observation

K = 2
SMALL: dict[str, Any] = {"deter": 6, "size": 3, "width": 8, "hidden": (8,), "components": 2, "reward_bins": 9}


def make(**options: Any) -> MdnGru:
    return MdnGru(MdnGru.Config(**{**SMALL, **options}), Observation.of((4,), np.float32), K, 0)


def batch(seed: int = 0, rows: int = 5, steps: int = 6) -> Sequences:
    rng = np.random.default_rng(seed)
    return Sequences(
        rng.normal(size=(rows, steps, 4)).astype(np.float32), rng.integers(K, size=(rows, steps)),
        rng.normal(size=(rows, steps)).astype(np.float32), rng.random((rows, steps)) < 0.2, rng.random((rows, steps)) < 0.2,
    )  # fmt: skip


def test_states_and_loss_are_the_formulas() -> None:
    """One row, step by step: h from [z, a] and h before, 0 where an episode begins; the loss over pairs within episodes."""
    model, found = make(settle=1), batch(rows=1)
    model.update(batch(1), torch.Generator().manual_seed(0))  # the autoencoder has settled: z is drawn first of all
    found.is_first[:] = np.array([[False, False, True, False, False, True]])
    with torch.no_grad():
        q = model.vae.posterior(torch.from_numpy(found.obs[0]))
        eps = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(3))[0]
        z = q.mean + q.log_std.exp() * eps
        a, cell = torch.eye(K)[torch.from_numpy(found.action[0])], model.net["cell"]
        h, mixture, reward, continue_, states = torch.zeros(6), [], [], [], []
        for t in range(6):
            if found.is_first[0, t]:
                h = torch.zeros(6)
            states.append(h)
            x = torch.cat([z[t], a[t]]) @ cell.weight_ih.T + cell.bias_ih
            y = h @ cell.weight_hh.T + cell.bias_hh
            (xr, xu, xn), (yr, yu, yn) = x.chunk(3), y.chunk(3)
            r, u = torch.sigmoid(xr + yr), torch.sigmoid(xu + yu)
            h = (1 - u) * torch.tanh(xn + r * yn) + u * h
            if t < 5 and not found.is_first[0, t + 1]:
                mixture.append(-model.mixture(h).log_prob(z[t + 1]))
            pay, goes = model.net["heads"].loss(h, torch.tensor(found.reward[0, t]), torch.tensor(found.terminated[0, t]))
            reward.append(pay)
            continue_.append(goes)
    assert len(mixture) == 3
    metrics, kept = model.learn(found, torch.Generator().manual_seed(3))
    for name, parts in (("loss/mixture", mixture), ("loss/reward", reward), ("loss/continue", continue_)):
        assert metrics[name] == pytest.approx(float(torch.stack(parts).mean()), abs=1e-5)
    torch.testing.assert_close(kept["h"][0], torch.stack(states), rtol=0, atol=1e-5)
    torch.testing.assert_close(kept["z"][0], z, rtol=0, atol=1e-5)


def test_the_autoencoder_settles() -> None:
    model = make(settle=2)
    seen = []
    for k in range(4):
        metrics = model.update(batch(k), torch.Generator().manual_seed(k))
        seen.append({name: array.copy() for name, array in model.vae.state_dict().items()})
        assert ("vae/loss" in metrics) == (k < 2)
    assert any(not np.array_equal(array, seen[1][name]) for name, array in seen[0].items())
    assert all(np.array_equal(array, seen[1][name]) for name, array in seen[3].items())


def test_temperature_widens_dreams() -> None:
    spread = []
    for temperature in (0.0, 1.0, 4.0):
        model = make(temperature=temperature, components=1)
        state = {name: part.expand(5000, -1) for name, part in model.initial(1).items()}
        with torch.no_grad():
            after, _ = model.step(state, torch.zeros(5000, K), torch.Generator().manual_seed(0))
        spread.append(after["z"].std(0))
    assert spread[0].max() == 0.0
    torch.testing.assert_close(spread[2], 2 * spread[1], rtol=0.05, atol=0)  # variance grows as the temperature
