"""What an autoencoder learns against principal components; corruption by hand; the gradient that a step follows."""

from __future__ import annotations

import pytest
import torch

from gumdrop.core_ml.encoders.autoencoder import Autoencoder, blank
from gumdrop.core_ml.observations import Observation

IMAGE = Observation("image", (3, 6, 5))


def stripes(n: int, generator: torch.Generator) -> torch.Tensor:
    """Images with one bright row each, in one of 6 places and one of 3 planes: uint8 (n, 3, 6, 5)."""
    obs = torch.zeros(n, *IMAGE.shape, dtype=torch.uint8)
    place, plane = torch.randint(0, 6, (n,), generator=generator), torch.randint(0, 3, (n,), generator=generator)
    obs[torch.arange(n), plane, place] = 255
    return obs


def test_a_linear_one_finds_the_principal_subspace() -> None:
    """Without hidden layers the best loses the variances that principal components leave (Baldi & Hornik 1989)."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.tensor([2.0, 1.0, 0.3, 0.2])
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
    config = Autoencoder.Config(size=2, hidden=(), normalise=False, sigma=1.0, learning_rate=0.02)
    model = Autoencoder(config, Observation("vector", (4,)), 0)
    for _ in range(400):
        model.update(torch.randn(64, 4, generator=generator) * scale @ turn, generator)
    obs = torch.randn(4000, 4, generator=generator) * scale @ turn
    error = (model.decode(model.encode(obs)) - obs).square().sum(1).mean().item()
    assert error == pytest.approx(0.3**2 + 0.2**2, rel=0.1)


def test_pixels_are_blanked_in_all_planes_together() -> None:
    generator = torch.Generator().manual_seed(0)
    obs = torch.full((400, *IMAGE.shape), 7, dtype=torch.uint8)
    found = blank(obs, IMAGE, torch.tensor([0.0] * 100 + [0.3] * 300), generator)
    assert found.dtype == torch.uint8 and set(found.unique().tolist()) == {0, 7}
    assert (found == found[:, :1]).all()
    assert (found[:100] == 7).all() and (found[100:] == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    grid = blank(torch.ones(50, 4, 4, dtype=torch.uint8), Observation("grid", (4, 4), 2), torch.full((50,), 0.5), generator)
    assert 0.4 < grid.float().mean() < 0.6 and not (grid == grid[:, :1]).all()


def test_a_denoising_one_sees_through_lost_pixels() -> None:
    """After equal training, the one that saw blanked pixels restores them better than the one that did not."""
    lost = {}
    for dropout in (0.0, 0.5):
        generator = torch.Generator().manual_seed(2)
        config = Autoencoder.Config(size=8, hidden=(32,), network="mlp", dropout=dropout, learning_rate=1e-2)
        model = Autoencoder(config, IMAGE, 0)
        first, last = [model.update(stripes(64, generator), generator)["loss"] for _ in range(250)][::249]
        assert last < 0.05 * first
        clean = stripes(500, generator)
        seen = blank(clean, IMAGE, torch.full((500,), 0.3), generator)
        lost[dropout] = (model.decode(model.encode(seen)).float() - clean.float()).abs().mean().item()
    assert lost[0.5] < 0.3 * lost[0.0]


def test_gradients_reach_the_observation_and_a_bad_one_changes_nothing() -> None:
    model = Autoencoder(Autoencoder.Config(size=2), Observation("vector", (3,)), 0)
    obs = torch.ones(2, 3, requires_grad=True)
    model.encode(obs).sum().backward()
    assert obs.grad is not None and obs.grad.abs().sum() > 0
    before = model.autoencoder.parameters.flat.copy()
    found = model.update(torch.full((4, 3), torch.nan), torch.Generator())
    assert found["grad_norm"] != found["grad_norm"]
    assert (model.autoencoder.parameters.flat == before).all()


def test_vectors_are_standardised_and_come_back_in_their_own_units() -> None:
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(512, 2, generator=generator) * torch.tensor([300.0, 0.01]) + torch.tensor([1000.0, 5.0])
    model = Autoencoder(Autoencoder.Config(size=2, hidden=(), learning_rate=0.03), Observation("vector", (2,)), 0)
    for _ in range(150):
        model.update(obs, generator)
    assert model.autoencoder.rows(obs).std(0).tolist() == pytest.approx([1, 1], rel=0.01)
    error = (model.decode(model.encode(obs)) - obs).abs().mean(0)
    assert error[0] < 30 and error[1] < 0.001


def test_one_pixel_that_moves_is_not_lost() -> None:
    """One red pixel of 64 before a constant board of walls: all that a code must tell is where it is."""
    generator, board = torch.Generator().manual_seed(0), Observation("image", (3, 8, 8))
    walls = (torch.rand(1, 8, 8, generator=generator) < 0.3).byte() * 255

    def boards(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        place = torch.randint(0, 64, (n,), generator=generator)
        obs = walls.expand(n, 3, 8, 8).clone().view(n, 3, 64)
        obs[torch.arange(n), :, place] = torch.tensor([220, 40, 40], dtype=torch.uint8)
        return obs.view(n, 3, 8, 8), place

    model = Autoencoder(Autoencoder.Config(size=16), board, 0)
    for _ in range(300):
        model.update(boards(64)[0], generator)
    obs, place = boards(300)
    with torch.no_grad():
        off = model.decode(model.encode(obs)).float().view(300, 3, 64) - torch.tensor([220.0, 40, 40])[:, None]
    assert (off.abs().sum(1).argmin(1) == place).float().mean() > 0.9
    # centred by pixel, one deviation for all, cut at 10: numbers of mean 0, and of variance 1 together but for the cut
    rows = model.autoencoder.rows(boards(4000)[0])
    assert rows.mean(0).abs().max() < 0.2 and 0.6 < rows.square().mean() < 1.1
