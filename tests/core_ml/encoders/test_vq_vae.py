"""The codebook by hand: nearest rows, straight-through gradient, moving averages, and rows that begin anew."""

from __future__ import annotations

import math

import pytest
import torch

from gumdrop.core_ml.encoders.vq_vae import VQVAE, move_codebook, nearest, perplexity, straight_through
from gumdrop.core_ml.observations import Observation

CELLS = Observation("grid", (4, 4), 3)


def grids(n: int, generator: torch.Generator) -> torch.Tensor:
    """Walls around, one 2 in one of 16 cells: uint8 (n, 4, 4)."""
    obs = torch.ones(n, 16, dtype=torch.uint8)
    obs[:, 5:11] = 0
    obs[torch.arange(n), torch.randint(0, 16, (n,), generator=generator)] = 2
    return obs.view(n, 4, 4)


def small(**options: float) -> VQVAE:
    return VQVAE(
        VQVAE.Config(
            **{"positions": 2, "code_size": 4, "codes": 16, "hidden": (64,), "network": "mlp", "learning_rate": 1e-2} | options
        ),
        CELLS,
        0,
    )


def test_nearest_row_of_the_codebook() -> None:
    codebook = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    z = torch.tensor([[0.4, 0.0], [0.6, 0.1], [0.1, 1.4], [5.0, 5.0]])
    assert nearest(z, codebook).tolist() == [0, 1, 2, 2]  # (5, 5): 41 and 34; of rows 1 and 3, which are equal, the first
    generator = torch.Generator().manual_seed(0)
    z, codebook = torch.randn(50, 3, generator=generator), torch.randn(20, 3, generator=generator)
    assert torch.equal(nearest(z, codebook), torch.cdist(z, codebook).argmin(1))


def test_the_gradient_passes_straight_through() -> None:
    z = torch.tensor([[0.3, -0.7]], requires_grad=True)
    e = torch.tensor([[1.0, 2.0]])
    out = straight_through(z, e)
    assert torch.equal(out, e)  # to the bit: a code is a row of the codebook
    (out * torch.tensor([5.0, -3.0])).sum().backward()
    assert z.grad is not None and z.grad.tolist() == [[5, -3]]


def test_the_encoder_gets_both_gradients() -> None:
    """d loss / d z = d(-ln p) / d e + 2 commitment (z - e), for the mean over B observations."""
    model = small(commitment=0.25, normalise=False)
    obs = grids(3, torch.Generator().manual_seed(0))
    z = model._z(obs).detach().requires_grad_()
    e = model.codebook[nearest(z, model.codebook)].clone().requires_grad_()
    (-model.autoencoder.log_prob(e.reshape(3, -1), obs).mean()).backward()
    assert e.grad is not None
    wanted = e.grad + 2 * 0.25 * (z - e).detach() / 3

    seen: list[torch.Tensor] = []
    inner = model._z
    model.autoencoder.parameters.steps = 1  # not the first update: the codebook stays

    def watched(obs: torch.Tensor) -> torch.Tensor:
        out = inner(obs)
        out.register_hook(seen.append)
        return out

    model._z = watched  # type: ignore[method-assign]
    model.update(obs, torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen[0], wanted)


def test_moving_averages_by_hand() -> None:
    """Two rows, decay 1/2; z = 1, 3, 8 of which the first two chose row 0.

    N = (1/2 1/2 + 1/2 2/3, 1/2 1/2 + 1/2 1/3) = (7/12, 5/12);  m = (1/2 0 + 1/2 4/3, 1/2 5 + 1/2 8/3) = (2/3, 23/6).
    """
    codebook, share = torch.tensor([[0.0], [10.0]]), torch.tensor([0.5, 0.5])
    total = codebook * share[:, None]
    chosen = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    move_codebook(codebook, share, total, torch.tensor([[1.0], [3.0], [8.0]]), chosen, 0.5)
    torch.testing.assert_close(share, torch.tensor([7 / 12, 5 / 12]))
    torch.testing.assert_close(total, torch.tensor([[2 / 3], [23 / 6]]))
    torch.testing.assert_close(codebook, torch.tensor([[8 / 7], [46 / 5]]))
    for _ in range(60):  # the fixed point: each row the mean of those that chose it
        move_codebook(codebook, share, total, torch.tensor([[1.0], [3.0], [8.0]]), chosen, 0.5)
    torch.testing.assert_close(codebook, torch.tensor([[2.0], [8.0]]))


def test_perplexity_counts_equally_frequent_rows() -> None:
    assert perplexity(torch.tensor([0.25] * 4 + [0.0])) == pytest.approx(4)
    assert perplexity(torch.tensor([1.0, 0.0])) == 1
    assert perplexity(torch.tensor([0.5, 0.25, 0.25])) == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))


def test_rows_that_nobody_chooses_begin_anew() -> None:
    """All rows but one are far off: without revival one row stays alone, with it they come back and are used."""
    found = {}
    for revive in (0.0, 0.2):
        model, generator = small(revive=revive), torch.Generator().manual_seed(0)
        model.update(grids(64, generator), generator)
        model.codebook[1:] = 1e3
        model.total.copy_(model.codebook / 16)
        model.share.fill_(1 / 16)
        revived = 0.0
        for _ in range(100):
            metrics = model.update(grids(64, generator), generator)
            revived += metrics["revived"]
        found[revive] = metrics
        assert (revived > 0) == (revive > 0)
    assert found[0.0]["live"] == 1 / 16 and found[0.0]["perplexity"] == pytest.approx(1)
    assert found[0.2]["live"] >= 0.5 and found[0.2]["perplexity"] > 4


def test_it_learns_tokens_that_tell_the_observation() -> None:
    model, generator = small(), torch.Generator().manual_seed(1)
    first = model.update(grids(128, generator), generator)
    for _ in range(250):
        last = model.update(grids(128, generator), generator)
    assert last["log_likelihood"] > 0.05 * first["log_likelihood"] and last["live"] >= 0.5
    obs = grids(200, generator)
    code, tokens = model.encode(obs), model.tokens(obs)
    assert tokens.shape == (200, 2) and torch.equal(code, model.code_of(tokens))
    assert (model.decode(code) == obs).float().mean() > 0.95
    made = model.sample(7, generator)
    assert made.shape == (7, 4, 4) and made.dtype == torch.uint8
