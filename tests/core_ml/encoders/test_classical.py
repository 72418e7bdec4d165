"""scikit-learn as an encoder gives what scikit-learn gives; its arrays are enough to go on from, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA, FastICA, IncrementalPCA
from sklearn.manifold import Isomap
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gumdrop.core_ml.encoders.classical import Classical
from gumdrop.core_ml.observations import Observation

VECTOR = Observation("vector", (6,))
GENERATOR = torch.Generator()


def made(estimator: str | Any = "pca", observation: Observation = VECTOR, seed: int = 0, **options: Any) -> Classical:
    named = {"estimator": estimator} if isinstance(estimator, str) else {}
    config = Classical.Config(size=2, **named, **options)
    return Classical(config, observation, seed, None if isinstance(estimator, str) else estimator)


def batches(n: int = 4, rows: int = 20, seed: int = 0) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(6, 6))
    return [torch.from_numpy((rng.laplace(size=(rows, 6)) @ mix).astype(np.float32)) for _ in range(n)]


def test_pca_is_that_of_scikit_learn() -> None:
    encoder, theirs = made(), IncrementalPCA(2)
    for obs in batches():
        encoder.update(obs, GENERATOR)
        theirs.partial_fit(obs.numpy().astype(np.float64))
    obs = batches(1, seed=5)[0]
    wanted = theirs.transform(obs.numpy().astype(np.float64))
    np.testing.assert_allclose(encoder.encode(obs).numpy(), wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        encoder.decode(encoder.encode(obs)).numpy(), theirs.inverse_transform(wanted), rtol=1e-5, atol=1e-5
    )
    assert encoder.encode(obs).dtype == torch.float32 and encoder.size == 2


def test_pca_by_hand() -> None:
    """Points on a line through (1, 2, 0): the one direction is (3, 4, 0) / 5, and what is off it is lost."""
    t = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]])
    obs = torch.tensor([1.0, 2.0, 0.0]) + t * torch.tensor([0.6, 0.8, 0.0])
    encoder = Classical(Classical.Config(size=1), Observation("vector", (3,)), 0)
    encoder.update(obs, GENERATOR)
    code = encoder.encode(obs)
    torch.testing.assert_close(code.abs(), t.abs())
    torch.testing.assert_close(encoder.decode(code), obs)
    off = encoder.decode(encoder.encode(torch.tensor([[1.0, 2.0, 9.0]])))
    torch.testing.assert_close(off, torch.tensor([[1.0, 2.0, 0.0]]))


def test_refitted_estimators_see_the_last_rows() -> None:
    encoder = made("sklearn.decomposition.PCA", memory=30)
    parts = batches()
    for obs in parts:
        encoder.update(obs, GENERATOR)
    ring = np.concatenate([p.numpy() for p in parts])[-30:].astype(np.float64)
    wanted = PCA(2).fit(ring).transform(parts[0].numpy().astype(np.float64))
    np.testing.assert_allclose(np.abs(encoder.encode(parts[0]).numpy()), np.abs(wanted), rtol=1e-4, atol=1e-5)

    seldom = made("sklearn.decomposition.PCA", refit_every=3)
    untrained = seldom.encode(parts[0])
    seldom.update(parts[0], GENERATOR)
    seldom.update(parts[1], GENERATOR)
    assert torch.equal(seldom.encode(parts[0]), untrained)
    seldom.update(parts[2], GENERATOR)
    assert not torch.equal(seldom.encode(parts[0]), untrained)


def test_independent_components_are_found() -> None:
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(2000, 2))
    obs = torch.from_numpy((sources @ np.array([[1.0, 0.5], [0.3, 1.0]])).astype(np.float32))
    encoder = Classical(Classical.Config(size=2, estimator="ica"), Observation("vector", (2,)), 0)
    encoder.update(obs, GENERATOR)
    found = np.abs(np.corrcoef(encoder.encode(obs).numpy().T, sources.T)[:2, 2:])
    assert found.max(1).min() > 0.97 and sorted(found.argmax(1)) == [0, 1]


def test_a_random_projection_is_drawn_from_the_seed_and_learns_nothing() -> None:
    obs = batches(1)[0]
    first, same, other = made("random-projection"), made("random-projection"), made("random-projection", seed=1)
    matrix = first.state_dict()["estimator.0.components_"]
    np.testing.assert_allclose(first.encode(obs).numpy(), obs.numpy() @ matrix.T, rtol=1e-5, atol=1e-5)
    before = first.encode(obs)
    first.update(obs, GENERATOR)
    assert torch.equal(first.encode(obs), before) and torch.equal(same.encode(obs), before)
    assert not torch.equal(other.encode(obs), before)


@pytest.mark.parametrize(
    "estimator",
    [
        "pca",
        "ica",
        "random-projection",
        "sklearn.decomposition.MiniBatchDictionaryLearning",
        "pipeline",
        "sklearn.neural_network.BernoulliRBM",
    ],
)
def test_a_state_in_an_encoder_of_another_seed_goes_on_to_the_bit(estimator: str) -> None:
    def fresh(seed: int) -> Classical:
        return made(make_pipeline(StandardScaler(), FastICA(2)) if estimator == "pipeline" else estimator, seed=seed)

    parts = [(b - b.min()) / (b.max() - b.min()) for b in batches(6)]
    whole, cut = fresh(0), fresh(1)
    for obs in parts[:3]:
        whole.update(obs, GENERATOR)
    cut.load_state_dict(whole.state_dict())
    assert torch.equal(cut.encode(parts[5]), whole.encode(parts[5]))
    for obs in parts[3:]:
        assert whole.update(obs, GENERATOR) == cut.update(obs, GENERATOR)
    assert torch.equal(cut.encode(parts[5]), whole.encode(parts[5]))
    ours, theirs = whole.state_dict(), cut.state_dict()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours) and ours.keys() == theirs.keys()
    assert all(array.dtype.kind in "biuf" for array in ours.values())


class Doubled(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Whatever has fit and transform; keeps an array under a name of its own."""

    def fit(self, X: Any, y: Any = None) -> Doubled:
        self.centre = X.mean(0)
        return self

    def transform(self, X: Any) -> Any:
        return 2 * (X - self.centre)


def test_an_estimator_of_ones_own() -> None:
    encoder, obs = made(Doubled()), batches(1)[0]
    encoder.update(obs, GENERATOR)
    torch.testing.assert_close(encoder.encode(obs), 2 * (obs - obs.mean(0)))
    assert encoder.size == 6
    with pytest.raises(ValueError, match="inverse_transform"):
        encoder.decode(encoder.encode(obs))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("sklearn.decomposition.Nothing", "no estimator"),
        ("os.path", "no estimator"),
        ("pac", "pca, ica"),
        (Isomap(n_components=2), "cannot be saved"),
        (PCA(9), "n_components=9"),
    ],
)
def test_what_cannot_be_an_encoder_is_refused_in_one_line(estimator: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        made(estimator)
    assert "\n" not in str(error.value) and str(error.value).startswith("encoder classical: ")


def test_a_wrong_option_and_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="unexpected keyword"):
        made(options={"colour": 1})
    with pytest.raises(ValueError, match="1 rows of 6 numbers"):
        made().update(batches(1, rows=1)[0], GENERATOR)
