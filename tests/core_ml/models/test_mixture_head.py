"""Mixtures of normal distributions against torch.distributions, by count and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import distributions as td

from gumdrop.core_ml.models.mixture_head import Mixture, MixtureHead
from gumdrop.core_ml.optim.adam import FlatAdam


def mixture(groups: int, numbers: int, components: int = 4, rows: tuple[int, ...] = (3, 2)) -> Mixture:
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*rows, groups, components, *shape, generator=rng)

    return Mixture(normal().log_softmax(-1), normal(numbers), 0.5 * normal(numbers))


@pytest.mark.parametrize(("groups", "numbers"), [(1, 3), (3, 1), (2, 2)])
def test_log_prob_and_expectation_are_torchs(groups: int, numbers: int) -> None:
    ours = mixture(groups, numbers)
    normal = td.Independent(td.Normal(ours.mean, ours.log_std.exp()), 1)
    theirs = td.MixtureSameFamily(td.Categorical(logits=ours.log_weight), normal)
    x = torch.randn(3, 2, groups * numbers, generator=torch.Generator().manual_seed(1))
    expected = theirs.log_prob(x.view(3, 2, groups, numbers)).sum(-1)
    torch.testing.assert_close(ours.log_prob(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.expectation(), theirs.mean.flatten(-2))


def test_density_by_hand() -> None:
    two = Mixture(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[[0.0], [2.0]]]), torch.tensor([[[0.0], [math.log(0.5)]]]))
    density = (0.25 * math.exp(-0.5) + 0.75 / 0.5 * math.exp(-2)) / math.sqrt(2 * math.pi)  # at 1
    assert float(two.log_prob(torch.tensor([1.0]))) == pytest.approx(math.log(density), abs=1e-6)
    assert two.mode().tolist() == [2.0] and two.expectation().tolist() == [1.5]


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_samples_come_as_often_as_they_should(temperature: float) -> None:
    """Shares of the components and moments within each, which lie far apart."""
    rows, weight = 40_000, torch.tensor([0.2, 0.5, 0.3])
    one = Mixture(weight.log()[None], torch.tensor([[[-100.0], [0.0], [100.0]]]), torch.tensor([[[0.0], [0.5], [-0.5]]]))
    many = Mixture(*(part.expand(rows, *part.shape) for part in one))
    x = many.sample(torch.Generator().manual_seed(0), temperature).squeeze(1)
    shares = weight ** (1 / temperature) / (weight ** (1 / temperature)).sum()
    for share, mean, log_std in zip(shares.tolist(), (-100, 0, 100), (0.0, 0.5, -0.5), strict=True):
        mine = x[(x - mean).abs() < 50]
        assert len(mine) / rows == pytest.approx(share, abs=5 * math.sqrt(share / rows))
        std = math.sqrt(temperature) * math.exp(log_std)
        assert float(mine.mean()) == pytest.approx(mean, abs=5 * std / math.sqrt(len(mine)))
        assert float(mine.std()) == pytest.approx(std, rel=0.05)


def test_temperature_to_zero_is_the_mode() -> None:
    ours = mixture(3, 1)
    mode = ours.mode()
    heaviest = ours.log_weight.argmax(-1)
    for i, j, g in np.ndindex(3, 2, 3):
        assert mode[i, j, g] == ours.mean[i, j, g, heaviest[i, j, g], 0]
    assert torch.equal(ours.sample(torch.Generator().manual_seed(0), 0.0), mode)
    torch.testing.assert_close(ours.sample(torch.Generator().manual_seed(0), 1e-8), mode, rtol=0, atol=1e-3)
    a, b = (ours.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, ours.sample(torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("joint", [True, False])
def test_head(joint: bool) -> None:
    """Shapes, checkpoints, and that it learns two peaks where a mean would fall between them."""
    head = MixtureHead(MixtureHead.Config(components=3, joint=joint), 5, 2, seed=0)
    features = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(0))
    out = head(features)
    assert out.log_prob(torch.zeros(4, 7, 2)).shape == (4, 7) and out.mode().shape == (4, 7, 2)
    torch.testing.assert_close(out.log_weight.exp().sum(-1), torch.ones(4, 7, 1 if joint else 2))
    twin = MixtureHead(head.config, 5, 2, seed=1)
    twin.load_state_dict(head.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(out, twin(features), strict=True))
    with pytest.raises(ValueError, match="mixture head"):
        twin.load_state_dict({})
    optimiser = FlatAdam(head.net)
    rng, ones = torch.Generator().manual_seed(1), torch.ones(200, 5)
    for _ in range(150):
        target = torch.randint(2, (200, 1), generator=rng) * 2.0 - 1 + 0.1 * torch.randn(200, 2, generator=rng)
        loss = -head(ones).log_prob(target).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(0.05, 10.0)
    normal = 0.5 * math.log(2 * math.pi * math.e * 0.01)  # entropy of the noise
    best = 2 * normal + math.log(2) * (1 if joint else 2)  # both numbers share their sign: only a joint mixture sees that
    assert float(loss.detach()) == pytest.approx(best, abs=0.2)
