"""Observations as numbers and back, and what a likelihood says of them, against arrays by hand and torch.distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import distributions

from gumdrop.core_ml.encoders.autoencoding import Likelihood
from gumdrop.core_ml.observations import Observation

PAIR = Observation("grid", (2, 1, 2), 3)  # two planes of 1 x 2 cells


def test_the_kind_of_a_space() -> None:
    assert Observation.of((4,), np.float32) == Observation("vector", (4,))
    assert Observation.of((7, 7), np.uint8, 10) == Observation("grid", (7, 7), 11)
    assert Observation.of((3,), np.uint8, 5) == Observation("grid", (3,), 6)
    assert Observation.of((3, 16, 16), np.uint8, 255) == Observation("image", (3, 16, 16))
    assert Observation.of((9,), np.uint8, 255).kind == Observation.of((3, 8, 8), np.float32, 255).kind == "vector"


def test_rows_by_hand_and_back() -> None:
    obs = torch.tensor([[[[0, 2]], [[1, 0]]]], dtype=torch.uint8)  # (1, 2, 1, 2)
    #       plane 0: is 0, is 1, is 2        plane 1: is 0, is 1, is 2
    wanted = [1, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0]
    assert PAIR.rows(obs, True).tolist() == [wanted]
    assert PAIR.rows(obs, False).tolist() == [[0, 1, 0.5, 0]]
    assert PAIR.planes(True) == (6, 1, 2) and PAIR.planes(False) == (2, 1, 2)
    for one_hot in (True, False):
        assert torch.equal(PAIR.unrows(PAIR.rows(obs, one_hot), one_hot), obs)

    image = Observation("image", (3, 1, 1))
    pixel = torch.tensor([[[[255]], [[0]], [[51]]]], dtype=torch.uint8)
    assert image.rows(pixel, True).tolist() == [[1, 0, pytest.approx(0.2)]]
    assert torch.equal(image.unrows(image.rows(pixel, True), True), pixel)
    assert image.unrows(torch.tensor([[1.3, -0.2, 0.5]]), False).flatten().tolist() == [255, 0, 128]


def test_observations_of_another_kind_are_refused() -> None:
    for obs, message in (
        (torch.zeros(1, 2, 2, dtype=torch.uint8), "shape"),
        (torch.zeros(1, 2, 1, 2), "float32"),
        (torch.full((1, 2, 1, 2), 3, dtype=torch.uint8), "code 3"),
    ):
        with pytest.raises(ValueError, match=message):
            PAIR.rows(obs, True)
    for kind, observation in (("bernoulli", Observation("vector", (2,))), ("categorical", Observation("image", (3, 2, 2)))):
        with pytest.raises(ValueError, match="likelihood=auto"):
            Likelihood.of(kind, observation, 1.0)  # type: ignore[arg-type]


def test_likelihoods_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    vector, image = Observation("vector", (3,)), Observation("image", (3, 2, 2))
    outputs, target = normal(5, 3), normal(5, 3)
    wanted = distributions.Normal(outputs, 0.3).log_prob(target).sum(1)
    torch.testing.assert_close(Likelihood.of("auto", vector, 0.3).log_prob(outputs, target), wanted)

    outputs = normal(5, 12)
    pixels = torch.randint(0, 2, (5, 12), generator=generator).float()
    wanted = distributions.Bernoulli(logits=outputs).log_prob(pixels).sum(1)
    bernoulli = Likelihood.of("bernoulli", image, 1.0)
    torch.testing.assert_close(bernoulli.log_prob(outputs, pixels), wanted)
    assert torch.equal(image.unrows(bernoulli.mean(torch.full((1, 12), -30.0)), False), torch.zeros(1, 3, 2, 2).byte())

    codes = torch.randint(0, 3, (5, 2, 1, 2), generator=generator).to(torch.uint8)
    categorical = Likelihood.of("auto", PAIR, 1.0)
    assert categorical.one_hot
    outputs = normal(5, 12)
    logits = outputs.reshape(5, 2, 3, 1, 2)  # planes, codes, rows, columns
    wanted = distributions.Categorical(logits=logits.movedim(2, -1)).log_prob(codes).sum((1, 2, 3))
    torch.testing.assert_close(categorical.log_prob(outputs, PAIR.rows(codes, True)), wanted)
    assert torch.equal(PAIR.unrows(categorical.mean(outputs), True), logits.argmax(2).to(torch.uint8))
    # a decoder that adds nothing says the average: what is always there, or as likely as it is frequent
    torch.testing.assert_close(Likelihood.of("gaussian", image, 1.0).base(torch.ones(12)), torch.ones(12))
    torch.testing.assert_close(bernoulli.base(torch.full((12,), 0.25)).sigmoid(), torch.full((12,), 0.25))
    often = PAIR.rows(codes, True).mean(0)  # of five observations each
    shares = categorical._cells(often[None])
    torch.testing.assert_close(categorical._cells(categorical.base(often)[None]).softmax(2), shares, rtol=0.02, atol=2e-3)
    # uniform over 3 codes in 4 cells
    assert categorical.log_prob(torch.zeros(1, 12), PAIR.rows(codes[:1], True)).item() == pytest.approx(4 * np.log(1 / 3))
