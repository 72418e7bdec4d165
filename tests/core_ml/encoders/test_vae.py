"""ELBO and KL against arrays by hand, torch.distributions and the exact evidence; beta against rate-distortion theory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions

from gumdrop.core_ml.distributions import Gaussian
from gumdrop.core_ml.encoders.vae import VAE, kl_to_standard
from gumdrop.core_ml.observations import Observation


def test_kl_by_hand_and_by_torch() -> None:
    # mu = 0, s = 1: 0.  mu = 2, s = 1: 4 / 2.  mu = 0, s = e: (e^2 - 1) / 2 - 1.
    q = Gaussian(torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    assert kl_to_standard(q).tolist() == [[0, 2, pytest.approx((math.e**2 - 1) / 2 - 1)]]
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(2, 5, 3, generator=generator)
    wanted = distributions.kl_divergence(distributions.Normal(mean, log_std.exp()), distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard(Gaussian(mean, log_std)), wanted)


def linear(beta: float, weight: float, mean: float, log_std: float) -> VAE:
    """One number x, one number z: p(x | z) = N(weight z, 0.5^2), q(z | x) = N(mean x, exp(log_std)^2)."""
    config = VAE.Config(size=1, hidden=(), normalise=False, sigma=0.5, beta=beta, warmup=0)
    model = VAE(config, Observation("vector", (1,)), 0)
    values = {"encoder.0.weight": [[mean], [0.0]], "encoder.0.bias": [0.0, log_std], "decoder.0.weight": [[weight]]}
    with torch.no_grad():
        for name, p in model.autoencoder.model.named_parameters():
            p.copy_(torch.tensor(values.get(name, [0.0])))
    return model


def test_the_elbo_is_the_evidence_where_the_posterior_is_exact() -> None:
    """p(x) = N(0, v) and p(z | x) = N(w x / v, sigma^2 / v) with v = w^2 + sigma^2, for w = 1.2 and sigma = 0.5."""
    w, variance = 1.2, 1.2**2 + 0.5**2
    obs = torch.tensor([[0.7], [-1.3], [2.0]])
    evidence = distributions.Normal(0.0, variance**0.5).log_prob(obs).mean().item()
    many, generator = obs.repeat(40_000, 1), torch.Generator().manual_seed(0)
    exact = linear(1.0, w, w / variance, 0.5 * math.log(0.25 / variance)).update(many, generator)["elbo"]
    assert exact == pytest.approx(evidence, abs=0.01)
    worse = linear(1.0, w, 0.3, -0.5).update(many, generator)["elbo"]
    # E_q (x - w z)^2 = (x - w mu)^2 + w^2 s^2
    mu, s = 0.3 * obs, math.exp(-0.5)
    fit = -((obs - w * mu).square() + (w * s) ** 2) / (2 * 0.25) - math.log(0.5) - 0.5 * math.log(2 * math.pi)
    kl = (mu.square() + s**2 - 1) / 2 + 0.5
    assert worse == pytest.approx((fit - kl).mean().item(), abs=0.02)
    assert worse < evidence - 0.3


def test_the_loss_and_its_gradient_by_hand() -> None:
    """With a deviation s of next to nothing z = m x, and
    loss = (x - w m x)^2 / 2 sigma^2 + ln sigma + ln(2 pi) / 2 + beta ((m^2 x^2 + s^2 - 1) / 2 - ln s)."""
    for beta in (0.0, 1.0, 4.0):
        model, x, w, m, log_s = linear(beta, 0.8, 0.5, -9.0), 2.0, 0.8, 0.5, -9.0
        found = model.update(torch.tensor([[x]]), torch.Generator().manual_seed(0))
        fit = (x - w * m * x) ** 2 / (2 * 0.25) + math.log(0.5) + 0.5 * math.log(2 * math.pi)
        kl = ((m * x) ** 2 + math.exp(2 * log_s) - 1) / 2 - log_s
        assert found["kl"] == pytest.approx(kl, rel=1e-5)
        assert found["loss"] == pytest.approx(fit + beta * kl, rel=1e-3)
        grads = {
            name: p.grad.flatten().tolist() for name, p in model.autoencoder.model.named_parameters() if p.grad is not None
        }
        error = x - w * m * x
        assert grads["decoder.0.weight"][0] == pytest.approx(-error * m * x / 0.25, rel=1e-2)
        assert grads["encoder.0.weight"][0] == pytest.approx(-error * w * x / 0.25 + beta * m * x * x, rel=1e-2)
        assert grads["encoder.0.bias"][1] == pytest.approx(beta * (math.exp(2 * log_s) - 1), abs=2e-3)


def test_samples_are_reparameterised() -> None:
    """d z / d mu = 1 and d z / d ln s = s eps."""
    model = linear(1.0, 1.0, 0.5, -1.0)
    obs = torch.tensor([[2.0]])
    z = model.encode(obs, torch.Generator().manual_seed(3))
    eps = torch.randn(1, 1, generator=torch.Generator().manual_seed(3))
    assert z.item() == pytest.approx(1.0 + math.exp(-1) * eps.item())
    z.sum().backward()
    bias = dict(model.autoencoder.model.named_parameters())["encoder.0.bias"].grad
    assert bias is not None and bias.tolist() == pytest.approx([1.0, math.exp(-1) * eps.item()])
    assert model.encode(obs).item() == 1.0


@pytest.mark.parametrize("variance", [4.0, 0.3])
@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_trades_rate_for_distortion(beta: float, variance: float) -> None:
    """On a normal number of variance v the optimum is water-filling at the level beta sigma^2: above it, ln(v / level) / 2 nats
    tell the number to within the level; below it nothing is told (Tipping & Bishop 1999, section 3.2, with sigma^2 times beta;
    Cover & Thomas 2006, theorem 10.3.2). At 0 nothing holds the rate down.
    """
    sigma2, generator = 0.1, torch.Generator().manual_seed(4)
    config = VAE.Config(size=1, hidden=(), normalise=False, sigma=sigma2**0.5, beta=beta, learning_rate=0.01, warmup=0)
    model = VAE(config, Observation("vector", (1,)), 0)
    for _ in range(800):
        model.update(torch.randn(256, 1, generator=generator) * variance**0.5, generator)
    obs = torch.randn(20_000, 1, generator=generator) * variance**0.5
    with torch.no_grad():
        rate = kl_to_standard(model.posterior(obs)).sum(1).mean().item()
        distortion = (model.decode(model.encode(obs, generator)) - obs).square().sum(1).mean().item()
    level = beta * sigma2
    if beta == 0:
        assert rate > 2.5 and distortion < 0.02
    else:
        assert rate == pytest.approx(max(0.0, 0.5 * math.log(variance / level)), abs=0.1)
        assert distortion == pytest.approx(min(variance, level), rel=0.1)
        assert model.update(obs, generator)["active"] == float(variance > level)


def test_a_prior_sample_is_an_observation() -> None:
    grid = Observation("grid", (2, 3, 3), 4)
    made = VAE(VAE.Config(size=3), grid, 0).sample(5, torch.Generator().manual_seed(0))
    assert made.shape == (5, 2, 3, 3) and made.dtype == torch.uint8 and int(made.max()) < 4
