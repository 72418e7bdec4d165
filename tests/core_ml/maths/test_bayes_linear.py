"""Bayesian linear regression against its closed form; the marginal likelihood of trained features against scipy's density."""

from __future__ import annotations

import numpy as np
import pytest

from gumdrop.core_ml.maths.bayes_linear import Posterior, predict, prior, sample_scores, sample_weights, update

SD, NOISE = 0.7, 0.3


def closed_form(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bishop 2006, equations 3.53 and 3.54: all observations at once, by inverting the precision."""
    covariance = np.linalg.inv(np.eye(x.shape[1]) / SD**2 + x.T @ x / NOISE**2)
    return covariance @ x.T @ y / NOISE**2, covariance


def test_one_observation_at_a_time_gives_the_posterior_of_all() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6, 3)), rng.normal(size=(40, 6))
    belief = prior((6,), 3, SD)
    for t in range(40):
        belief = update(belief, x[t], y[t], NOISE)
    for i in range(6):
        mean, covariance = closed_form(x[:, i], y[:, i])
        np.testing.assert_allclose(belief.mean[i], mean, rtol=1e-10)
        np.testing.assert_allclose(belief.covariance[i], covariance, rtol=1e-9)
        point = rng.normal(size=3)
        found = predict(Posterior(belief.mean[i], belief.covariance[i]), point)
        np.testing.assert_allclose(found, (point @ mean, point @ covariance @ point), rtol=1e-9)


def test_by_hand() -> None:
    """One weight N(0, 1), noise 1, y = 2 at x = 1: half way, with half the variance."""
    belief = update(prior((), 1), np.array([1.0]), np.array(2.0), 1.0)
    assert belief.mean.tolist() == [1.0] and belief.covariance.tolist() == [[0.5]]
    assert [float(v) for v in predict(belief, np.array([3.0]))] == [3.0, 4.5]


def test_samples_have_the_moments_of_the_posterior() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(2, 3, 3))
    belief = Posterior(rng.normal(size=(2, 3)), a @ a.transpose(0, 2, 1))
    many = Posterior(*(np.broadcast_to(part, (200_000, *part.shape)) for part in belief))
    w = sample_weights(many, rng, 2.0)
    for m in range(2):
        np.testing.assert_allclose(w[:, m].mean(0), belief.mean[m], atol=0.05)
        np.testing.assert_allclose(np.cov(w[:, m].T), 4 * belief.covariance[m], atol=0.3)


@pytest.mark.parametrize("regressions", [1, 2])
def test_scores_of_candidates_share_weights_where_these_are_shared(regressions: int) -> None:
    rng = np.random.default_rng(2)
    x = np.array([[1.0, 0.0], [1.0, 0.1]])
    covariance = np.broadcast_to(np.diag([1.0, 4.0]), (50_000, regressions, 2, 2))
    belief = Posterior(np.broadcast_to([3.0, 0.0], (50_000, regressions, 2)), covariance)
    score = sample_scores(belief, np.broadcast_to(x, (50_000, 2, 2)), rng)
    np.testing.assert_allclose(score.mean(0), [3.0, 3.0], atol=0.03)
    shared = [[1.0, 1.0], [1.0, 1.04]]
    np.testing.assert_allclose(np.cov(score.T), shared if regressions == 1 else np.diag([1.0, 1.04]), atol=0.03)


def test_marginal_likelihood_is_that_of_the_joint_normal() -> None:
    """y of one regression is N(0, sd^2 Phi Phi^T + noise^2 I), in which scipy knows the density."""
    import torch
    from scipy.stats import multivariate_normal

    from gumdrop.core_ml.nets.bayes_features import BayesFeatures

    rng = np.random.default_rng(3)
    model = BayesFeatures(2, (4, 3), "tanh", SD, NOISE)
    model.parameters.initialise(rng)
    x, y, which = rng.normal(size=(2, 7, 2)), rng.normal(size=(2, 7)), rng.integers(3, size=(2, 7))
    weight = (which[:, None] == np.arange(3)[:, None]).astype(float)
    weight[0, :, 6] = 0  # an observation that does not count
    total = 0.0
    for task in range(2):
        for m in range(3):
            rows = weight[task, m] > 0
            if rows.any():
                phi = model.features(x[task, rows])
                assert phi.shape == (rows.sum(), 4) and (phi[:, 0] == 1).all()
                joint = SD**2 * phi @ phi.T + NOISE**2 * np.eye(len(phi))
                total -= multivariate_normal(np.zeros(len(phi)), joint).logpdf(y[task, rows])
    found = model.nll(*map(torch.from_numpy, (x, y, weight))).item()
    assert found == pytest.approx(total / 13, rel=1e-10)


def test_training_finds_features_of_a_quadratic() -> None:
    """Tasks y = (w x)^2 are linear in products of inputs, which a network has to find."""
    from gumdrop.core_ml.nets.bayes_features import BayesFeatures

    rng = np.random.default_rng(4)
    model = BayesFeatures(2, (32, 8), "tanh", 1.0, 0.1)
    model.parameters.initialise(rng)
    losses = []
    for _ in range(200):
        x, w = rng.uniform(-1, 1, (16, 30, 2)), rng.normal(size=(16, 2))
        y = np.einsum("btd,bd->bt", x, w) ** 2 + 0.1 * rng.normal(size=(16, 30))
        losses.append(model.train(x, y, np.ones((16, 1, 30)), 1e-2, 1.0)[0])
    assert np.mean(losses[:5]) > 10 and np.mean(losses[-20:]) < 0.5
