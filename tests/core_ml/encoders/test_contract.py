"""What every encoder promises, for each kind of observation: shapes, no mixing of rows, randomness, states, exact resume."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from gumdrop.core_ml.component import components
from gumdrop.core_ml.encoders import pictures
from gumdrop.core_ml.encoders.autoencoder import Autoencoder
from gumdrop.core_ml.encoders.classical import Classical
from gumdrop.core_ml.encoders.one_hot import OneHot, Symbols
from gumdrop.core_ml.encoders.vae import VAE
from gumdrop.core_ml.encoders.vq_vae import VQVAE
from gumdrop.core_ml.observations import Observation

KINDS = {
    "vector": Observation("vector", (5,)),
    "grid": Observation("grid", (5, 4), 4),
    "planes": Observation("grid", (2, 5, 4), 3),
    "codes": Observation("grid", (6,), 7),
    "image": Observation("image", (3, 6, 7)),
}
NETS: dict[str, Any] = {"hidden": (12,), "channels": 3}
ENCODERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "autoencoder": (Autoencoder, {"size": 4, "network": "cnn"} | NETS),
    "denoising": (Autoencoder, {"size": 4, "noise": 0.1, "dropout": 0.3, "grid_input": "scaled", "network": "mlp"} | NETS),
    "vae": (VAE, {"size": 4} | NETS),
    "beta-vae": (VAE, {"size": 4, "beta": 4.0, "likelihood": "gaussian", "max_grad_norm": 1.0} | NETS),
    "vq-vae": (VQVAE, {"network": "cnn", "positions": 2, "code_size": 2, "codes": 8, "decay": 0.5, "revive": 0.5} | NETS),
    "pca": (Classical, {"size": 4}),
    "ica": (Classical, {"size": 4, "estimator": "ica", "memory": 40, "grid_input": "scaled"}),
    "random-projection": (Classical, {"size": 4, "estimator": "random-projection"}),
    "one-hot": (OneHot, {}),
    "symbols": (Symbols, {"size": 9}),
}
for _name, _entry in components("encoder").items():  # a new one is tested the moment that its file exists
    if _entry.cls not in {cls for cls, _ in ENCODERS.values()}:
        ENCODERS[_name] = (_entry.cls, _entry.fixed)
CASES = pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(ENCODERS, ("vector", "grid", "image")),
        *itertools.product(("autoencoder", "pca"), ("planes", "codes")),
    ],
)


def test_registered_encoders_follow_the_protocol() -> None:
    for name, kind in itertools.product(ENCODERS, ("vector", "grid")):
        encoder = made(name, kind)
        assert encoder.observation == KINDS[kind] and encoder.size > 0 and encoder.num_parameters >= 0
        code = encoder.encode(observations_of(kind))
        assert tuple(code.shape) == (9, encoder.size) and code.dtype == torch.float32
        if encoder.can_decode:
            back = encoder.decode(code.detach())
            assert back.shape == (9, *KINDS[kind].shape)
        else:
            with pytest.raises(ValueError, match="cannot decode"):
                encoder.decode(code)
    learns = {name for name in ENCODERS if made(name, "grid").num_parameters}
    assert learns >= {"autoencoder", "denoising", "vae", "beta-vae", "vq-vae"} and not learns & {"pca", "one-hot", "symbols"}


def observations_of(kind: str) -> Any:
    rng, observation = np.random.default_rng(0), KINDS[kind]
    if kind == "vector":
        return torch.from_numpy(rng.normal(size=(9, *observation.shape)).astype(np.float32))
    return torch.from_numpy(rng.integers(0, observation.codes, (9, *observation.shape)).astype(np.uint8))


def made(name: str, kind: str, seed: int = 0) -> Any:
    cls, options = ENCODERS[name]
    return cls(cls.Config(**options), KINDS[kind], seed)


def observations(kind: str, n: int = 16, seed: int = 0) -> torch.Tensor:
    rng, observation = np.random.default_rng(seed), KINDS[kind]
    if observation.kind == "vector":
        return torch.from_numpy(rng.normal(size=(n, *observation.shape)).astype(np.float32))
    high = observation.codes if observation.kind == "grid" else 256
    return torch.from_numpy(rng.integers(0, high, (n, *observation.shape)).astype(np.uint8))


def trained(name: str, kind: str, updates: int = 3, seed: int = 0) -> tuple[Any, torch.Generator]:
    encoder, generator = made(name, kind, seed), torch.Generator().manual_seed(7)
    for k in range(updates):
        encoder.update(observations(kind, seed=k), generator)
    return encoder, generator


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@CASES
def test_shapes_rows_and_metrics(name: str, kind: str) -> None:
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    for updates in (0, 2):  # untrained is an arm, too
        encoder, generator = trained(name, kind, updates)
        obs = observations(kind, 9, seed=50)
        code = encoder.encode(obs)
        assert code.shape == (9, encoder.size) and code.dtype == torch.float32 and code.isfinite().all()
        back = encoder.decode(code)
        assert back.shape == obs.shape and back.dtype == obs.dtype
        if KINDS[kind].kind == "grid":
            assert int(back.max()) < KINDS[kind].codes
        for i in (0, 8):  # a row alone is what it is among others
            torch.testing.assert_close(encoder.encode(obs[i : i + 1])[0], code[i], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(encoder.decode(code[i : i + 1])[0], back[i], rtol=1e-5, atol=1e-5)
    metrics = encoder.update(obs, generator)
    assert (metrics or name == "one-hot") and all(isinstance(value, float) and np.isfinite(value) for value in metrics.values())
    assert torch.equal(state[0], torch.random.get_rng_state()), "torch's global generator was used"
    assert (state[1] == np.random.get_state()[1]).all(), "numpy's global generator was used"  # type: ignore[index]


@CASES
def test_a_generator_alone_decides(name: str, kind: str) -> None:
    encoder, _ = trained(name, kind)
    obs = observations(kind, seed=50)
    first, again, other = (encoder.encode(obs, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(encoder.encode(obs), encoder.encode(obs))
    assert torch.equal(first, other) == (not isinstance(encoder, VAE))
    if isinstance(encoder, VAE):  # none: the mode, about which samples lie
        many = torch.stack([encoder.encode(obs, torch.Generator().manual_seed(s)) for s in range(100)])
        std = encoder.posterior(obs).log_std.exp()
        assert ((many.mean(0) - encoder.encode(obs)).abs() < 5 * std / 10).all()


@CASES
def test_seeds(name: str, kind: str) -> None:
    one, _ = trained(name, kind)
    same, _ = trained(name, kind)
    assert equal(one.state_dict(), same.state_dict())
    if name not in ("pca", "ica", "one-hot", "symbols"):  # these draw nothing
        assert not equal(one.state_dict(), trained(name, kind, seed=1)[0].state_dict())


@CASES
def test_checkpoints_and_exact_resume(name: str, kind: str, tmp_path: Path) -> None:
    """Saved to safetensors and read into an encoder of another seed, training goes on as if nothing had been."""
    whole, generator = trained(name, kind)
    saved = whole.state_dict()
    save_file(saved, tmp_path / "encoder.safetensors")
    state = generator.get_state()
    obs = observations(kind, seed=50)
    untouched = {key: array.copy() for key, array in saved.items()}
    code = whole.encode(obs)

    after = [whole.update(observations(kind, seed=60 + k), generator) for k in range(3)]
    assert equal(saved, untouched), "a state is a copy"
    cut = made(name, kind, seed=9)
    cut.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    assert equal(cut.state_dict(), saved) and torch.equal(cut.encode(obs), code)
    generator.set_state(state)
    assert [cut.update(observations(kind, seed=60 + k), generator) for k in range(3)] == after
    assert equal(cut.state_dict(), whole.state_dict())


@pytest.mark.parametrize("name", ENCODERS)
def test_a_strange_state_is_refused(name: str) -> None:
    encoder = made(name, "grid")
    state = encoder.state_dict()
    key = next((key for key in state if state[key].ndim > 1), None)
    with pytest.raises(ValueError, match="missing" if key else "unknown"):
        encoder.load_state_dict({k: v for k, v in state.items() if k != key} if key else {"stranger": np.zeros(1)})
    with pytest.raises(ValueError, match="unknown"):
        encoder.load_state_dict({**state, "stranger": np.zeros(1)})
    if key:
        with pytest.raises(ValueError, match=key):
            encoder.load_state_dict({**state, key: np.zeros((1, 1, 1), np.float32)})
    assert equal(encoder.state_dict(), state)
    with pytest.raises(ValueError, match="shape"):
        encoder.encode(torch.zeros(2, 3, dtype=torch.uint8))


@CASES
def test_pictures(name: str, kind: str) -> None:
    encoder, generator = trained(name, kind)
    observation, obs = KINDS[kind], observations(kind, 6, seed=50)
    k, h, w = (1, 1, observation.size) if kind == "vector" else observation.planes(False)
    w = w * k if observation.kind == "grid" else w

    def size(rows: int, columns: int, zoom: int) -> tuple[int, int, int]:
        return (rows * (h + 1) - 1) * zoom, (columns * (w + 1) - 1) * zoom, 3

    found = pictures.reconstructions(encoder, obs, zoom=2)
    assert found.shape == size(2, 6, 2) and found.dtype == np.uint8
    alone = pictures.pictures(observation, obs)
    if kind == "image":  # the first row shows observations as they are
        assert np.array_equal(found[: 2 * h : 2, : 2 * w : 2], obs[0].numpy().transpose(1, 2, 0))
    elif kind != "vector":
        assert np.array_equal(found[: 2 * h : 2, : 2 * w : 2], alone[0])
    assert pictures.samples(encoder, obs, generator, n=5, rows=2, zoom=1).shape == size(2, 5, 1)
    rows = 2 if name == "vq-vae" else min(3, encoder.size)
    columns = len(encoder.tokens(obs).unique()) if name == "vq-vae" else 5
    walk = pictures.traversals(encoder, obs, steps=5, rows=rows, zoom=1)
    assert walk.shape == size(rows, min(5, columns) if name != "vq-vae" else 5, 1)


def test_pictures_by_hand() -> None:
    grid = Observation("grid", (2, 1, 2), 3)
    palette = np.array([[0, 0, 0], [10, 20, 30], [200, 0, 0]], np.uint8)
    obs = torch.tensor([[[[0, 1]], [[2, 0]]]], dtype=torch.uint8)
    assert pictures.pictures(grid, obs, palette)[0, 0].tolist() == [[0, 0, 0], [10, 20, 30], [200, 0, 0], [0, 0, 0]]
    strip = pictures.pictures(Observation("vector", (3,)), torch.tensor([[-2.0, 0.0, 1.0]]))
    assert strip[0, 0].tolist() == [[0, 0, 255], [255, 255, 255], [255, 127, 127]]
    tiles = np.zeros((1, 2, 1, 1, 3), np.uint8)
    assert pictures.mosaic(tiles, zoom=2)[:, :, 0].tolist() == [[0, 0, 255, 255, 0, 0]] * 2
    assert len(np.unique(pictures.code_palette(12), axis=0)) == 12


def test_a_traversal_moves_one_number() -> None:
    """A PCA whose two directions are two pixels: each row of pictures changes one of them."""
    observation = Observation("image", (3, 1, 3))
    obs = torch.zeros(64, 3, 1, 3, dtype=torch.uint8)
    rng = np.random.default_rng(0)
    obs[:, 0, 0, 0] = torch.from_numpy(rng.integers(60, 200, 64).astype(np.uint8))
    obs[:, 1, 0, 2] = torch.from_numpy(rng.integers(100, 140, 64).astype(np.uint8))
    encoder = Classical(Classical.Config(size=2), observation, 0)
    encoder.update(obs, torch.Generator())
    walk = pictures.traversals(encoder, obs, steps=3, zoom=1)  # (2 rows + gap, 3 columns of 3 pixels + 2 gaps, 3)
    first, second = walk[0].reshape(-1, 3), walk[2].reshape(-1, 3)
    assert np.ptp(first[[0, 4, 8], 0]) > 100 and np.ptp(first[[2, 6, 10], 1].astype(int)) <= 6
    assert np.ptp(second[[0, 4, 8], 0].astype(int)) <= 20 and np.ptp(second[[2, 6, 10], 1]) > 30
