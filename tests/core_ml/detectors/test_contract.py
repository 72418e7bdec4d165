"""Detectors against scipy, scikit-learn and arrays by hand; what every detector promises; conformal coverage; evidence."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from scipy.spatial.distance import mahalanobis
from scipy.stats import beta, binom
from sklearn.covariance import OAS
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from gumdrop.core_ml.component import components
from gumdrop.core_ml.detectors.conformal import Conformal, conformal_quantile, p_values
from gumdrop.core_ml.detectors.evidence import Evidence
from gumdrop.core_ml.detectors.isolation import Isolation, average_path
from gumdrop.core_ml.detectors.linear_surprise import LinearSurprise
from gumdrop.core_ml.detectors.mahalanobis import Mahalanobis
from gumdrop.core_ml.detectors.protocol import ObservedSteps, auroc
from gumdrop.core_ml.detectors.reconstruction import Reconstruction
from gumdrop.core_ml.detectors.surprise import Surprise, hashed
from gumdrop.core_ml.observations import Observation

KINDS = {
    "vector": Observation("vector", (5,)),
    "grid": Observation("grid", (3, 2), 3),
    "image": Observation("image", (3, 2, 2)),
}
SMALL = {"steps": 2, "options": {"size": 2, "hidden": (6,)}}
PCA = {"coder": "classical", "options": {"size": 2}}
DETECTORS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "mahalanobis": (Mahalanobis, {}, tuple(KINDS)),
    "autoencoder": (Reconstruction, SMALL, tuple(KINDS)),
    "vae": (Reconstruction, {"coder": "vae", **SMALL}, ("grid",)),
    "vq-vae": (
        Reconstruction,
        {"coder": "vq-vae", "steps": 2, "options": {"hidden": (6,), "positions": 2, "code_size": 2}},
        ("image",),
    ),
    "pca": (Reconstruction, PCA, tuple(KINDS)),
    "isolation": (Isolation, {"trees": 7, "sample": 8, "memory": 20}, tuple(KINDS)),
    "surprise": (Surprise, {}, ("grid", "image")),
    "linear-surprise": (LinearSurprise, {"actions": 3}, ("vector",)),
}
for _name, _entry in components("detector").items():  # a new one is tested the moment that its file exists
    if _entry.cls not in {cls for cls, _, _ in DETECTORS.values()}:
        DETECTORS[_name] = (_entry.cls, _entry.fixed, tuple(KINDS))
CASES = pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, (_, _, kinds) in DETECTORS.items() for kind in kinds])
GENERATOR = torch.Generator()


def made(name: str, kind: str, seed: int = 0) -> Any:
    cls, options, _ = DETECTORS[name]
    return cls(cls.Config(**options), KINDS[kind], seed)


def steps(kind: str, n: int = 30, seed: int = 0) -> ObservedSteps:
    rng, observation = np.random.default_rng(seed), KINDS[kind]
    if observation.kind == "vector":
        obs = torch.from_numpy(rng.normal(size=(2, n, *observation.shape)).astype(np.float32))
    else:
        high = observation.codes if observation.kind == "grid" else 256
        obs = torch.from_numpy(rng.integers(0, high, (2, n, *observation.shape)).astype(np.uint8))
    return ObservedSteps(obs[0], obs[1], torch.from_numpy(rng.integers(0, 3, n)), torch.from_numpy(rng.random(n) < 0.2))


def trained(name: str, kind: str, updates: int = 2, seed: int = 0) -> tuple[Any, torch.Generator]:
    detector, generator = made(name, kind, seed), torch.Generator().manual_seed(7)
    for k in range(updates):
        detector.update(steps(kind, seed=k), generator)
    return detector, generator


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def same(a: Any, b: Any) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def of(obs: Any, before: Any = None, action: Any = None) -> ObservedSteps:
    obs = torch.as_tensor(obs)
    n = len(obs)
    before = torch.zeros_like(obs) if before is None else torch.as_tensor(before)
    action = torch.zeros(n, dtype=torch.int64) if action is None else torch.as_tensor(action)
    return ObservedSteps(obs, before, action, torch.zeros(n, dtype=torch.bool))


# --- what every detector promises


@CASES
def test_scores_and_rows(name: str, kind: str) -> None:
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    judges_steps = name in ("surprise", "linear-surprise")
    for updates in (0, 2):  # untrained is an arm, too
        detector, generator = trained(name, kind, updates)
        seen = steps(kind, 9, seed=50)
        scores = detector.score(seen)
        assert scores.shape == (9,) and scores.dtype == np.float64
        assert (np.isnan(scores) == (seen.is_first.numpy() & judges_steps)).all()
        for i in range(9):  # a row alone is what it is among others
            np.testing.assert_allclose(detector.score(seen.rows(torch.tensor([i]))), scores[i : i + 1], rtol=1e-5, atol=1e-6)
        assert same(detector.score(seen), scores), "scoring changes nothing"
    metrics = detector.update(seen, generator)
    assert metrics and all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    assert torch.equal(state[0], torch.random.get_rng_state()), "torch's global generator was used"
    assert (state[1] == np.random.get_state()[1]).all(), "numpy's global generator was used"  # type: ignore[index]


@CASES
def test_checkpoints_and_exact_resume(name: str, kind: str, tmp_path: Path) -> None:
    whole, generator = trained(name, kind)
    whole.calibrate(np.arange(40.0))
    saved = whole.state_dict()
    save_file(saved, tmp_path / "detector.safetensors")
    untouched = {key: array.copy() for key, array in saved.items()}
    middle, seen = generator.get_state(), steps(kind, seed=50)
    scores = whole.score(seen)
    after = [whole.update(steps(kind, seed=60 + k), generator) for k in range(2)]
    assert equal(saved, untouched), "a state is a copy"

    cut = made(name, kind, seed=9)
    cut.load_state_dict(load_file(tmp_path / "detector.safetensors"))
    assert equal(cut.state_dict(), saved) and same(cut.score(seen), scores)
    assert cut.flag(np.array([38.0, 38.5])).tolist() == [False, True]  # k = ceil(41 * 0.95) = 39
    generator.set_state(middle)
    assert [cut.update(steps(kind, seed=60 + k), generator) for k in range(2)] == after
    assert equal(cut.state_dict(), whole.state_dict()) and same(cut.score(seen), whole.score(seen))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_strange_state_is_refused(name: str) -> None:
    detector, _ = trained(name, DETECTORS[name][2][0])
    state = detector.state_dict()
    key = next(key for key in state if state[key].ndim)
    with pytest.raises(ValueError, match="missing"):
        detector.load_state_dict({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match="missing"):
        detector.load_state_dict({k: v for k, v in state.items() if k != "threshold.scores"})
    with pytest.raises(ValueError, match="unknown"):
        detector.load_state_dict({**state, "stranger": np.zeros(1)})
    with pytest.raises(ValueError, match=key):
        detector.load_state_dict({**state, key: np.zeros((1, 1, 1), np.float16)})
    assert equal(detector.state_dict(), state)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_wrong_option_is_refused(name: str) -> None:
    cls = DETECTORS[name][0]
    with pytest.raises(ValidationError, match="zeta"):
        cls.Config(zeta=1)
    with pytest.raises(ValidationError, match="alpha"):
        cls.Config(alpha=1.0)


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"coder vae: options.zeta: .*it has .*beta"):
        Reconstruction(Reconstruction.Config(coder="vae", options={"zeta": 1}), KINDS["grid"], 0)
    with pytest.raises(ValueError, match="take linear-surprise"):
        Surprise(Surprise.Config(), KINDS["vector"])
    with pytest.raises(ValueError, match="take surprise"):
        LinearSurprise(LinearSurprise.Config(), KINDS["grid"])
    with pytest.raises(ValueError, match="give it an encoder"):
        Mahalanobis(Mahalanobis.Config(), Observation("vector", (5000,)))
    with pytest.raises(ValueError, match="one for each episode"):
        Conformal(0.1).calibrate(np.array([1.0, np.nan]))


# --- each detector's mathematics


def test_mahalanobis_is_scipys_on_the_shrunken_covariance() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5))).astype(np.float32)
    for shrinkage in (None, 0.0, 0.3):
        detector = Mahalanobis(Mahalanobis.Config(shrinkage=shrinkage), KINDS["vector"])
        for part in np.split(rows, [7, 8, 30]):  # in parts as in one
            metrics = detector.update(of(part), GENERATOR)
        theirs = OAS().fit(rows.astype(np.float64))
        covariance = np.cov(rows.T.astype(np.float64), bias=True)
        rho = theirs.shrinkage_ if shrinkage is None else shrinkage
        assert metrics["shrinkage"] == pytest.approx(rho, rel=1e-6)
        covariance = (1 - rho) * covariance + rho * np.trace(covariance) / 5 * np.eye(5)
        precision, mean = np.linalg.inv(covariance), rows.astype(np.float64).mean(0)
        new = rng.normal(size=(6, 5)).astype(np.float32)
        wanted = [mahalanobis(row.astype(np.float64), mean, precision) for row in new]
        np.testing.assert_allclose(detector.score(of(new)), wanted, rtol=1e-5)


def test_mahalanobis_by_hand() -> None:
    """Numbers 0 and 2 and nothing else: mean 1, variance 1; 4 is 3 deviations off."""
    detector = Mahalanobis(Mahalanobis.Config(shrinkage=0.0), Observation("vector", (1,)))
    detector.update(of([[0.0], [2.0]]), GENERATOR)
    assert detector.score(of([[4.0], [1.0]])).tolist() == pytest.approx([3.0, 0.0], abs=1e-6)


def test_mahalanobis_on_features() -> None:
    class Double:
        size = 1

        def encode(self, obs: torch.Tensor) -> torch.Tensor:
            return 2 * obs[:, :1]

    detector = Mahalanobis(Mahalanobis.Config(shrinkage=0.0), KINDS["vector"], encoder=Double())
    obs = torch.zeros(2, 5)
    obs[1, 0] = 2.0
    detector.update(of(obs), GENERATOR)
    obs[0, 0], obs[0, 1:] = 4.0, 99.0
    assert detector.score(of(obs))[0] == pytest.approx(3.0, abs=1e-6)


def test_reconstruction_errors() -> None:
    """Points on a line are rebuilt by one component; off it the squared distance is lost."""
    t = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]])
    line = torch.tensor([1.0, 2.0, 0.0]) + t * torch.tensor([0.6, 0.8, 0.0])
    config = Reconstruction.Config(coder="classical", options={"size": 1})
    detector = Reconstruction(config, Observation("vector", (3,)), 0)
    detector.update(of(line), GENERATOR)
    np.testing.assert_allclose(detector.score(of(line)), 0.0, atol=1e-10)
    assert detector.score(of([[1.0, 2.0, 3.0]])) == pytest.approx(9.0, rel=1e-5)

    network = Reconstruction(Reconstruction.Config(steps=1, options={"size": 2, "hidden": (8,)}), KINDS["grid"], 0)
    seen = steps("grid")
    network.update(seen, torch.Generator().manual_seed(0))
    coder = network.encoder
    with torch.no_grad():
        logits = coder.autoencoder.model["decoder"](coder.encode(seen.obs)) + coder.autoencoder.base  # (B, codes H W)
    cells = torch.log_softmax(logits.view(len(seen.obs), 3, 6), 1)
    wanted = -cells.gather(1, seen.obs.long().view(-1, 1, 6)).sum((1, 2))
    np.testing.assert_allclose(network.score(seen), wanted.numpy(), rtol=1e-5)


@pytest.mark.parametrize("rows", [9, 400])
def test_the_forest_is_scikit_learns(rows: int) -> None:
    obs = np.random.default_rng(0).normal(size=(rows, 5)).astype(np.float32)
    detector = Isolation(Isolation.Config(trees=20, sample=64, memory=500), KINDS["vector"])
    generator = torch.Generator().manual_seed(3)
    detector.update(of(obs), generator)
    generator.manual_seed(3)
    torch.rand(rows, generator=generator, dtype=torch.float64)
    stream = int(torch.randint(2**31 - 1, (1,), generator=generator))
    theirs = IsolationForest(n_estimators=20, max_samples=min(64, rows), random_state=stream).fit(obs)
    new = np.concatenate([obs[:5], 5 * obs[5:9]])
    np.testing.assert_allclose(detector.score(of(new)), -theirs.score_samples(new), rtol=1e-6)
    # c(2) = 1; c(3) = 2 (ln 2 + gamma) - 4 / 3
    assert average_path(np.array([1, 2, 3])).tolist() == pytest.approx([0, 1, 2 * (math.log(2) + np.euler_gamma) - 4 / 3])


def test_the_forests_sample_is_uniform_over_all_it_saw() -> None:
    """Of 40 observations 10 are kept: each with probability 1 / 4, whether it came first or last."""
    kept = np.zeros(40)
    for seed in range(300):
        detector = Isolation(Isolation.Config(trees=1, sample=2, memory=10), Observation("vector", (1,)))
        generator = torch.Generator().manual_seed(seed)
        for part in np.arange(40, dtype=np.float32).reshape(-1, 8, 1):
            detector._keep(part, generator)
        kept[detector.kept[:, 0].astype(int)] += 1
    assert kept.sum() == 3000 and abs(kept - 75).max() < 4.5 * math.sqrt(300 * 0.25 * 0.75)
    assert kept[:10].mean() == pytest.approx(75, abs=8) and kept[-10:].mean() == pytest.approx(75, abs=8)


def test_a_forest_that_leads_nowhere_is_refused() -> None:
    detector, _ = trained("isolation", "vector")
    state = detector.state_dict()
    state["left"] = state["left"] + 1000
    with pytest.raises(ValueError, match="left leads out of its tree"):
        detector.load_state_dict(state)


def test_surprise_by_hand() -> None:
    """From x by action 0: three times to y, once to z. c = 1, D = 2, so p(y) = (3 + 1/3) / 5, p(z) = (1 + 1/3) / 5,
    p(x) = (1/3) / 5; by action 1, which never came up, 1/3 for all."""
    x, y, z = ([[[k, 0]]] for k in range(3))
    detector = Surprise(Surprise.Config(), Observation("grid", (1, 2), 3))
    u8 = torch.uint8
    obs = torch.tensor(y + y + z + y, dtype=u8)
    detector.update(of(obs, torch.tensor(x * 4, dtype=u8)), GENERATOR)
    new = of(torch.tensor(y + z + x + y, dtype=u8), torch.tensor(x * 4, dtype=u8), torch.tensor([0, 0, 0, 1]))
    assert np.exp(-detector.score(new)).tolist() == pytest.approx([2 / 3, 4 / 15, 1 / 15, 1 / 3])
    assert len(detector.pairs) == 1 and detector.triple_counts.tolist() in ([3, 1], [1, 3])
    first = new._replace(is_first=torch.tensor([True, False, False, False]))
    assert np.isnan(detector.score(first)).tolist() == [True, False, False, False]
    before = len(detector.triples)
    detector.update(first._replace(is_first=torch.ones(4, dtype=torch.bool)), GENERATOR)
    assert len(detector.triples) == before, "beginnings follow nothing"


def test_keys_tell_observations_apart() -> None:
    rows = torch.tensor(list(itertools.product(range(4), repeat=6)), dtype=torch.uint8)  # 4096 of 6 bytes
    keys = hashed(rows, np.zeros(len(rows), np.uint64))
    assert len(np.unique(keys)) == 4096
    bits = np.unpackbits(keys.view(np.uint8)).reshape(4096, 64).mean(0)
    assert abs(bits - 0.5).max() < 0.05


def test_linear_surprise_sees_other_dynamics_and_not_other_states() -> None:
    """x' = x + 0.1 a + noise of 0.01. A residual of r is r / 0.01 deviations, wherever x is."""
    rng = np.random.default_rng(0)
    push = torch.tensor([[0.1, 0.0], [0.0, 0.1], [-0.1, -0.1]])

    def walk(n: int, at: float = 0.0, gain: float = 1.0) -> ObservedSteps:
        x = torch.from_numpy(rng.normal(at, 1.0, (n, 2)).astype(np.float32))
        a = torch.from_numpy(rng.integers(0, 3, n))
        noise = torch.from_numpy(rng.normal(0, 0.01, (n, 2)).astype(np.float32))
        return of(x + gain * push[a] + noise, x, a)

    detector = LinearSurprise(LinearSurprise.Config(actions=3, shrinkage=1e-6), Observation("vector", (2,)))
    for _ in range(4):
        metrics = detector.update(walk(2500), GENERATOR)
    assert metrics["unexplained"] == pytest.approx(0.01**2 / (0.01**2 + 0.1**2 * 2 / 3), rel=0.1)
    usual, away, odd = detector.score(walk(4000)), detector.score(walk(4000, at=3.0)), detector.score(walk(4000, gain=1.5))
    assert np.square(usual).mean() == pytest.approx(2.0, rel=0.1)  # chi^2 of 2 numbers
    assert auroc(usual, away) == pytest.approx(0.5, abs=0.03) and auroc(usual, odd) > 0.95


# --- AUROC, conformal thresholds, evidence


def test_auroc_by_hand_and_by_scikit_learn() -> None:
    assert auroc(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1.0
    assert auroc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 0.0
    assert auroc(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == (1 + 0 + 1 + 0.5) / 4  # 2>1, 2<3, 3>1, 3=3
    assert auroc(np.array([-np.inf, 0.0]), np.array([np.inf])) == 1.0
    rng = np.random.default_rng(0)
    usual, odd = rng.integers(0, 6, 50), rng.integers(1, 8, 30)
    wanted = roc_auc_score([0] * 50 + [1] * 30, np.concatenate([usual, odd]))
    assert auroc(usual, odd) == pytest.approx(wanted)


def test_the_quantile_by_hand() -> None:
    scores = np.array([5.0, 1.0, 3.0, 2.0, 4.0, 9.0, 8.0, 7.0, 6.0])  # n = 9
    assert conformal_quantile(scores, 0.1) == 9.0  # k = ceil(10 * 0.9) = 9
    assert conformal_quantile(scores, 0.3) == 7.0  # 10 * 0.7 = 7, whatever the rounding says
    assert conformal_quantile(scores, 0.25) == 8.0  # ceil(7.5)
    assert conformal_quantile(scores, 0.05) == math.inf  # k = 10 > 9
    assert conformal_quantile(np.zeros(0), 0.5) == math.inf
    assert p_values(scores, np.array([10.0, 9.0, 0.0, 5.5])).tolist() == [0.1, 0.2, 1.0, 0.5]
    guard = Conformal(0.1)
    assert not guard.flag(np.array([1e9, np.inf])).any(), "nothing is flagged before calibration"
    guard.calibrate(scores)
    assert guard.flag(np.array([9.0, 9.001])).tolist() == [False, True]
    tolerant = Conformal(0.1, tolerance=0.01)
    tolerant.calibrate(scores)
    assert tolerant.flag(np.array([9.001, 9.1])).tolist() == [False, True]


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (50, 0.1), (99, 0.2)])
def test_coverage_is_exact(n: int, alpha: float) -> None:
    """Of scores without ties floor((n + 1) alpha) / (n + 1) are flagged on average; given one calibration of n scores the
    rate is Beta(n + 1 - k, k) (Vovk 2012, "Conditional validity of inductive conformal predictors")."""
    rng, runs = np.random.default_rng(n), 4000
    scores = rng.lognormal(size=(runs, n))  # the highest uniform below it is what a threshold comes to
    thresholds = np.array([conformal_quantile(row, alpha) for row in scores])
    k = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    alarms = (rng.lognormal(size=runs) > thresholds).mean()
    wanted = (n + 1 - k) / (n + 1)
    assert wanted <= alpha + 1e-12
    assert abs(alarms - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / runs)
    low, high = binom.ppf([1e-5, 1 - 1e-5], runs, wanted) / runs
    assert low <= alarms <= high
    from scipy.stats import kstest, lognorm

    assert kstest(lognorm.sf(thresholds, 1.0), beta(n + 1 - k, k).cdf).pvalue > 1e-3
    p = np.array([p_values(row, rng.lognormal(size=1))[0] for row in scores])
    for u in (alpha, 0.5):
        assert (p <= u).mean() <= u + 4 * math.sqrt(u * (1 - u) / runs)


def test_evidence_by_hand() -> None:
    """Scores 0 and 2 were usual: mean 1, deviation 1. Then z = 2, no opinion, -3, 1.5."""
    wanted = {
        "cusum": ([1.5, 1.5, 0.0, 1.0], [1.5, 1.5, 1.5, 1.5]),  # 0 + 2 - .5, ., max(0, 1.5 - 3.5), 1.5 - .5
        "mean": ([2.0, 2.0, -1 / math.sqrt(2), 0.5 / math.sqrt(3)], [2.0, 2.0, 2.0, 2.0]),
        "max": ([2.0, 2.0, -3.0, 1.5], [2.0, 2.0, 2.0, 2.0]),
    }
    for kind, (evidence, peaks) in wanted.items():
        part = Evidence(Evidence.Config(kind=kind, drift=0.5))
        part.measure(np.array([[0.0, np.nan], [2.0, np.nan]]))
        state = part.initial(1)
        for score, e, peak in zip((3.0, np.nan, -2.0, 2.5), evidence, peaks, strict=True):
            state = part.add(np.array([score]), state)
            assert state["evidence"][0] == pytest.approx(e) and state["peak"][0] == pytest.approx(peak), kind
        assert state["scores"][0] == 3
    part = Evidence(Evidence.Config())
    for chunk in ([1.0, 5.0], [np.nan], [2.0, 2.0, 7.0]):
        part.measure(np.array(chunk))
    assert float(part.mean) == pytest.approx(3.4) and part.deviation == pytest.approx(np.std([1, 5, 2, 2, 7]))
    other = Evidence(Evidence.Config())
    other.load_state_dict(part.state_dict())
    assert other.deviation == part.deviation
    same_all = Evidence(Evidence.Config())
    same_all.measure(np.full(10, 50.0))
    assert same_all.deviation == 0.5, "last bits are no evidence where nothing varies"
