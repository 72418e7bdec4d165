"""The world model: formulas against slow ones, episode starts, steps equal to sequences, chances learned, exact resume."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gumdrop.core_ml.data.sequences import Sequences
from gumdrop.core_ml.encoders.cells import Cells
from gumdrop.core_ml.models.imagined_actor_critic import ImaginedActorCritic
from gumdrop.core_ml.models.protocol import ImaginedTrajectory
from gumdrop.core_ml.models.rssm import RSSM
from gumdrop.core_ml.observations import Observation

B, T, K = 5, 9, 3
LATENTS = pytest.mark.parametrize("latent", ["levels", "cells", "categorical", "gaussian"])
GRID = Observation.of((2, 3), np.uint8, 3)


def small(latent: str = "levels", seed: int = 0, **options: Any) -> RSSM:
    if latent in ("categorical", "gaussian"):  # as DreamerV2 has them
        options = {"posterior": "history", "chain": False, "unimix": 0.01, "representation": 0.1} | options
    config = RSSM.Config(latent=latent, deter=8, groups=3, classes=4, width=8, hidden=(8,), code=6, reward_bins=9, **options)
    model = RSSM(config, GRID, K, seed)
    rng = torch.Generator().manual_seed(seed)
    for part in (
        model.optimiser,
        *([model.autoencoder.optimiser] if model.autoencoder else []),
    ):  # as it was made, zeros would hide faults
        part.flat.add_(0.2 * torch.randn(part.flat.shape, generator=rng))
    return model


def batch(seed: int = 0, rows: int = B, steps: int = T) -> Sequences:
    rng = np.random.default_rng(seed)
    return Sequences(
        rng.integers(4, size=(rows, steps, 2, 3), dtype=np.uint8), rng.integers(K, size=(rows, steps)),
        rng.normal(size=(rows, steps)).astype(np.float32), rng.random((rows, steps)) < 0.2, rng.random((rows, steps)) < 0.2,
    )  # fmt: skip


def tensors(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """obs, previous action, is_first."""
    found = batch(seed)
    action = torch.eye(K)[torch.from_numpy(found.action)]
    return torch.from_numpy(found.obs), action, torch.from_numpy(found.is_first)


def test_the_cell_and_the_latent_are_the_formulas() -> None:
    model = small("categorical", unimix=0.1)
    h, z, a = torch.rand(4, 8), torch.rand(4, 12), torch.rand(4, K)
    cell, norm, enter = model.net["cell"], model.net["norm"], model.net["enter"][0]
    entered = torch.relu(torch.cat([z, a], 1) @ enter.weight.t() + enter.bias)
    x = cell(torch.cat([entered, h], 1)).detach().double()
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    r, c, u = (x * norm.weight.detach() + norm.bias.detach()).chunk(3, 1)
    gate = torch.sigmoid(u - 1)
    want = gate * torch.tanh(torch.sigmoid(r) * c) + (1 - gate) * h
    torch.testing.assert_close(model._forward(h, z, a).double(), want, rtol=0, atol=1e-5)
    out = torch.randn(4, 12)
    p = 0.9 * out.view(4, 3, 4).softmax(-1) + 0.1 / 4
    torch.testing.assert_close(model._latent(out), p)


def test_draws_follow_the_probabilities_and_give_their_gradient() -> None:
    model = small("categorical")
    p = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0], [0.5, 0.0, 0.0, 0.5]]]).expand(40_000, 3, 4)
    p = p.clone().requires_grad_()
    z = model._draw(p, model._noise((40_000,), torch.Generator().manual_seed(0)))
    groups = z.view(-1, 3, 4)
    assert set(groups.detach().unique().tolist()) == {0.0, 1.0} and bool((groups.sum(-1) == 1).all())
    torch.testing.assert_close(groups.detach().mean(0), p[0].detach(), rtol=0, atol=0.01)
    weights = torch.randn(12)
    (z @ weights).sum().backward()
    assert torch.equal(p.grad, weights.view(1, 3, 4).expand_as(p))
    best = model._draw(p[:1], None).view(3, 4)
    assert best[:2].argmax(-1).tolist() == [3, 2]


def test_kl_divergences() -> None:
    from torch.distributions import Categorical, Normal, kl_divergence

    q, p = (torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(s)).softmax(-1) for s in (0, 1))
    torch.testing.assert_close(small("categorical")._kl(q, p), kl_divergence(Categorical(q), Categorical(p)).sum(-1))
    m = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(2))
    found = small("gaussian")._kl(torch.stack([m[0], m[1]], -2), torch.stack([m[2], m[3]], -2))
    torch.testing.assert_close(found, kl_divergence(Normal(m[0], m[1].exp()), Normal(m[2], m[3].exp())).sum(-1))


def test_levels_are_the_nearest_and_their_gradient_that_of_the_next() -> None:
    model = small("levels")
    at = torch.tensor([[0.2, 1.4, 2.9], [3.0, 0.6, 1.5]])
    numbers = (at / 1.5 - 1).clamp(-1 + 1e-6, 1 - 1e-6).atanh().requires_grad_()  # (tanh + 1) 3 / 2 = at
    q = model._nearest_level(numbers)
    assert q.argmax(-1).tolist() == [[0, 1, 3], [3, 1, 2]] and bool((q.sum(-1) == 1).all()) and int(q.max()) == 1
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    (q * weights).sum().backward()
    for row, group in ((0, 0), (0, 1), (0, 2), (1, 1)):
        low = int(at[row, group])
        slope = 1.5 * (1 - (at[row, group] / 1.5 - 1) ** 2)  # of at by the number
        assert abs(numbers.grad[row, group] - slope * (weights[group, low + 1] - weights[group, low])) < 1e-4


def test_a_chain_is_a_distribution_and_draws_follow_it() -> None:
    """Over all 64 codes its probabilities sum to 1, and dreams draw each as often as it says."""
    import itertools

    model = small("levels")
    model.optimiser.flat.mul_(2)
    h = torch.randn(1, 8, generator=torch.Generator().manual_seed(0)).expand(64, 8)
    codes = torch.tensor(list(itertools.product(range(4), repeat=3)))
    z = torch.nn.functional.one_hot(codes, 4).float()
    with torch.no_grad():
        p = (model._prior(h, z.flatten(1)) * z).sum(-1).prod(1)
        drawn = model._sample_prior(h[:1].expand(60_000, 8), torch.Generator().manual_seed(1)).view(-1, 3, 4).argmax(-1)
        apart = model._prior(h[:1], z[:1].flatten(1))[0]
    assert abs(p.sum().item() - 1) < 1e-5
    shares = torch.bincount(drawn @ torch.tensor([16, 4, 1]), minlength=64) / len(drawn)
    torch.testing.assert_close(shares, p, rtol=0, atol=0.008)
    together = torch.einsum("a,b,c->abc", *apart).flatten()
    assert (together - p).abs().max() > 0.02  # groups do know of each other
    likeliest = model._sample_prior(h[:1], None).view(3, 4).argmax(-1).tolist()
    assert likeliest[0] == int(apart[0].argmax())


def test_codes_of_the_observation_alone_do_not_heed_what_follows() -> None:
    """Other rewards, ends and actions change how the dynamics learn, and nothing of how observations are told."""
    for posterior, apart in (("observation", True), ("history", False)):
        after = []
        for shift in (0, 1):
            model, found = small("levels", posterior=posterior, dynamics=5.0), batch()
            found = found._replace(
                reward=found.reward + shift, terminated=found.terminated ^ bool(shift), action=(found.action + shift) % K
            )
            model.learn(found, torch.Generator().manual_seed(0))
            told = {name: part for name, part in model.net.state_dict().items() if name.startswith(("look", "posterior"))}
            after.append((model.autoencoder.optimiser.flat.clone(), torch.cat([part.flatten() for part in told.values()])))
            rest = model.net["cell"].weight.detach().clone()
            after[-1] += (rest,)
        (coder, posterior_, cell), (other_coder, other_posterior, other_cell) = after
        assert (torch.equal(coder, other_coder) and torch.equal(posterior_, other_posterior)) == apart
        assert not torch.equal(cell, other_cell)


def test_commitment_draws_numbers_to_their_levels() -> None:
    found, distances = batch(rows=64), []
    for commitment in (0.0, 30.0):
        model = small("levels", commitment=commitment, learning_rate=1e-2)
        for _ in range(150):
            model.learn(found, torch.Generator().manual_seed(0))
        seen = model._embed(torch.from_numpy(found.obs).flatten(0, 1))
        share = model._levels(model._posterior(seen, seen, None)[0])[1].detach()
        distances.append(torch.minimum(share, 1 - share).mean().item())
    assert distances[1] < 0.5 * distances[0]


def test_cells_are_a_code_without_loss() -> None:
    observation = Observation.of((2, 3, 4), np.uint8, 2)
    cells = Cells(observation)
    assert (cells.groups, cells.classes) == (12, 9)
    obs = torch.from_numpy(np.random.default_rng(0).integers(3, size=(5, 2, 3, 4), dtype=np.uint8))
    code = cells.encode(obs)
    assert code.shape == (5, 12, 9) and torch.equal(cells.decode(code.flatten(1)), obs)
    assert int(code[0, 5].argmax()) == int(obs[0, 0, 1, 1] + 3 * obs[0, 1, 1, 1])
    with pytest.raises(ValueError, match="symbolic grids"):
        Cells(Observation.of((3,), np.float32))
    with pytest.raises(ValueError, match=r"6,561 different cells"):
        Cells(Observation.of((8, 3, 4), np.uint8, 2))


@LATENTS
def test_learn_and_posterior_go_through_the_same_states(latent: str) -> None:
    model, found = small(latent, learning_rate=1e-12), batch()
    if model.autoencoder:
        model.autoencoder.update_statistics(torch.from_numpy(found.obs).flatten(0, 1))
    _, states = model.learn(found, torch.Generator().manual_seed(0))
    if latent == "gaussian":  # noise is drawn in another order: compare what hardly depends on it
        return
    model._noise = lambda lead, generator: torch.zeros((*lead, 3)) + 0.5  # type: ignore[method-assign]
    _, states = model.learn(found, torch.Generator().manual_seed(0))
    again = model.posterior(found, torch.Generator().manual_seed(0))
    for name in ("h", "z"):
        torch.testing.assert_close(states[name], again[name], rtol=0, atol=1e-5)


def coin_flips(rng: np.random.Generator, rows: int, steps: int) -> Sequences:
    """A world of two cells: action 0 stays; action 1 moves with probability .7, pays 2 with .5, terminates with .25 (the next
    episode begins in cell 0); a time limit cuts with probability .2."""
    cell = np.zeros(rows, np.int64)
    first = np.ones(rows, np.bool_)
    kept: list[list[Any]] = [[] for _ in range(5)]
    for _ in range(steps):
        action = rng.integers(2, size=rows)
        terminated = (action == 1) & (rng.random(rows) < 0.25)
        reward = 2.0 * ((action == 1) & (rng.random(rows) < 0.5))
        for place, new in zip(kept, (np.eye(2, dtype=np.uint8)[cell], action, reward, terminated, first), strict=True):
            place.append(new)
        cell = np.where((action == 1) & (rng.random(rows) < 0.7), 1 - cell, cell)
        first = terminated | (rng.random(rows) < 0.2)
        cell[first] = 0
    obs, action, reward, terminated, is_first = (np.stack(part, 1) for part in kept)
    return Sequences(obs, action, reward.astype(np.float32), terminated, is_first)


@pytest.mark.parametrize("latent", ["levels", "cells", "categorical"])
def test_it_learns_the_chances_of_a_world(latent: str) -> None:
    """Where it is shows in two cells, one of which tells the other: drawn apart, dreams hold neither or both.

    Going on is what the rules say (.75), not what the time limit makes of it (.6); what cannot be known stays open."""
    observation = Observation.of((2,), np.uint8, 1)
    options: dict[str, Any] = {"latent": latent, "groups": 8, "classes": 5}
    if latent == "categorical":
        options = {"latent": latent, "groups": 1, "classes": 4, "posterior": "history", "unimix": 0.01, "representation": 0.1}
    config = RSSM.Config(deter=16, width=32, code=16, hidden=(32,), free_nats=0.1, learning_rate=4e-3, **options)
    model, rng, generator = RSSM(config, observation, 2, 0), np.random.default_rng(0), torch.Generator().manual_seed(0)
    for k in range(300):  # with a rate that falls: probabilities become averages over batches
        metrics, _ = model.learn(coin_flips(rng, 64, 6), generator, rate=1 - 0.9 * k / 300)
    assert metrics["log_likelihood"] > -0.15
    found = coin_flips(rng, 2000, 3)
    state = {name: part[:, 2] for name, part in model.posterior(found).items()}
    for action, (move, reward, continue_) in enumerate(((0.0, 0.0, 1.0), (0.7, 1.0, 0.75))):
        after, outcome = model.step(state, torch.eye(2)[[action]].expand(2000, 2), generator)
        seen = model.decode(model.features(after))
        assert float((seen.sum(1) == 1).float().mean()) > 0.98
        cell = seen.argmax(1).numpy()
        before = found.obs[:, 2].argmax(1)
        assert abs(float((cell != before).mean()) - move) < 0.07
        assert abs(outcome.reward.mean().item() - reward) < 0.12
        assert abs(outcome.continue_.mean().item() - continue_) < 0.05


def test_usage_keeps_classes_alive() -> None:
    """With its weight the shares of classes over a batch come nearer to each other."""
    found = []
    for usage in (0.0, 30.0):
        model, generator = small("categorical", usage=usage, learning_rate=0.01), torch.Generator().manual_seed(0)
        for seed in range(20):
            _, states = model.learn(batch(seed, 16), generator)
        share = states["z"].unflatten(-1, (3, 4)).mean((0, 1))
        found.append(float(-(share * share.clamp_min(1e-9).log()).sum()))
    assert found[1] > found[0] + 0.1


def test_behaviour_learns_the_better_action_and_its_worth() -> None:
    """Two arms, episodes of one step: .2 and .8. The policy goes to the second, the value to .8."""
    behaviour = ImaginedActorCritic(ImaginedActorCritic.Config(learning_rate=3e-3, slow=0.1), 4, 2, 0)
    generator = torch.Generator().manual_seed(0)
    features = torch.ones(2, 64, 4)
    assert abs(behaviour.policy(features[0]).log_p.exp() - 0.5).max() < 0.01
    for _ in range(300):
        action = behaviour.sample(features[0], generator)
        reward = action @ torch.tensor([0.2, 0.8])
        behaviour.update(ImaginedTrajectory(features, action[None], reward[None], torch.zeros(1, 64)), ent_coef=1e-3)
    assert behaviour.policy(features[0]).log_p.exp()[0, 1] > 0.95
    assert abs(behaviour.value(features[0])[0].item() - 0.8) < 0.05


def test_behaviour_does_not_learn_from_what_comes_after_the_end() -> None:
    """Where the first step surely ends the dream, the later ones change nothing but the running range."""
    after = []
    for later in (0.0, 50.0):
        behaviour = ImaginedActorCritic(ImaginedActorCritic.Config(least_scale=1e3), 4, 2, 0)
        features = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(1))
        action = torch.eye(2)[torch.randint(2, (2, 8), generator=torch.Generator().manual_seed(2))]
        reward = torch.stack([torch.ones(8), torch.full((8,), later)])
        behaviour.update(ImaginedTrajectory(features, action, reward, torch.stack([torch.zeros(8), torch.ones(8)])))
        after.append(behaviour.optimiser.flat.clone())
    assert torch.equal(*after)
