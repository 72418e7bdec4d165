"""The world as tokens: the loss word by word, a sliding window, tokens of one observation that know of each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gumdrop.core_ml.data.sequences import Sequences
from gumdrop.core_ml.models.token_model import TokenModel
from gumdrop.core_ml.observations import Observation

K = 3
SMALL: dict[str, Any] = {
    "positions": 2, "codes": 5, "code_size": 3, "width": 8, "heads": 2, "window": 4, "hidden": (8,), "reward_bins": 9,
}  # fmt: skip


def make(**options: Any) -> TokenModel:
    model = TokenModel(TokenModel.Config(**{**SMALL, **options}), Observation.of((2, 3), np.uint8, 3), K, 0)
    model.optimiser.flat.add_(0.3 * torch.randn(model.optimiser.flat.shape, generator=torch.Generator().manual_seed(0)))
    return model


def batch(seed: int = 0, rows: int = 4, steps: int = 7) -> Sequences:
    rng = np.random.default_rng(seed)
    return Sequences(
        rng.integers(4, size=(rows, steps, 2, 3), dtype=np.uint8), rng.integers(K, size=(rows, steps)),
        rng.normal(size=(rows, steps)).astype(np.float32), rng.random((rows, steps)) < 0.2, rng.random((rows, steps)) < 0.3,
    )  # fmt: skip


def word(model: TokenModel, token: int | None, action: int | None, place: int) -> Tensor:
    """5 codes, 3 actions, 3 places."""
    out = torch.zeros(1, 5 + K + 3)
    if token is not None:
        out[0, token] = 1
    if action is not None:
        out[0, 5 + action] = 1
    out[0, 5 + K + place] = 1
    return out


def test_the_loss_is_that_of_reading_word_by_word() -> None:
    model, found = make(settle=1), batch()
    model.update(batch(1), torch.Generator().manual_seed(0))  # from here on the words stay
    tokens = model.vq.tokens(torch.from_numpy(found.obs).flatten(0, 1)).view(4, 7, 2)
    said, reward, continue_, empty, no = [], [], [], torch.zeros(1, 0), torch.tensor([False])
    out = torch.zeros(1, 8)
    with torch.no_grad():
        for row in range(4):
            state = model.transformer.initial(1)
            for t in range(7):
                first = torch.tensor([bool(found.is_first[row, t]) or t == 0])
                for p in range(2):
                    token = int(tokens[row, t, p])
                    if not first:
                        said.append(-model.net["next"](out).log_softmax(-1)[0, token])
                    out = model.transformer.observe_(word(model, token, None, p), empty, first if p == 0 else no, state)
                acted = word(model, None, int(found.action[row, t]), 2)
                out = model.transformer.observe_(acted, empty, no, state)
                pay, goes = model.net["heads"].loss(
                    out, torch.tensor([found.reward[row, t]]), torch.tensor([found.terminated[row, t]])
                )  # fmt: skip
                reward.append(pay)
                continue_.append(goes)
    pairs = int((~found.is_first[:, 1:]).sum())
    metrics = model.update(found, torch.Generator())
    assert len(said) == 2 * pairs and 0 < pairs < 24
    assert metrics["loss/tokens"] == pytest.approx(float(torch.stack(said).sum()) / pairs, abs=1e-4)
    assert metrics["loss/reward"] == pytest.approx(float(torch.cat(reward).mean()), abs=1e-4)
    assert metrics["loss/continue"] == pytest.approx(float(torch.cat(continue_).mean()), abs=1e-4)
    assert "vq/loss" not in metrics


def test_acting_reads_the_words_that_were_learned_from() -> None:
    """No more of them: where an episode begins, the action before is none of its words."""
    model, found = make(), batch(rows=1)
    found.is_first[:] = np.arange(7) == 3
    obs, action = torch.from_numpy(found.obs), torch.eye(K)[torch.from_numpy(found.action)]
    previous = torch.cat([torch.zeros(1, 1, K), action[:, :-1]], 1)
    first = torch.from_numpy(found.is_first) | (torch.arange(7) == 0)
    tokens, empty, no = model.vq.tokens(obs[0]), torch.zeros(1, 0), torch.tensor([False])
    with torch.no_grad():
        features, after = model.sequence(obs, previous, first, model.initial(1))
        state, h = model.transformer.initial(1), torch.zeros(1, 8)
        for t in range(7):
            if first[0, t]:
                h = torch.zeros(1, 8)
            torch.testing.assert_close(features[:, t, :8], h, rtol=0, atol=1e-5)
            for p in range(2):
                begins = first[:, t] if p == 0 else no
                model.transformer.observe_(word(model, int(tokens[t, p]), None, p), empty, begins, state)
            if t < 6:
                h = model.transformer.observe_(word(model, None, int(found.action[0, t]), 2), empty, no, state)
    assert int(after["age"]) == int(state["age"]) == 4 * 3 - 1
    for name, part in state.items():
        torch.testing.assert_close(after[name], part, rtol=0, atol=1e-5)


def test_what_lies_before_the_window_is_forgotten() -> None:
    """One layer, a window of 4 steps: whoever saw other things more than 4 steps ago believes the same, awake and
    imagination."""
    model = make(layers=1)
    one, two = (torch.from_numpy(batch(seed, rows=3, steps=9).obs) for seed in (0, 1))
    action, never = torch.eye(K)[torch.randint(K, (3, 9), generator=torch.Generator().manual_seed(0))], torch.zeros(3, 9)
    for same_for, forgotten in ((5, True), (2, False)):
        other = torch.cat([two[:, : 9 - same_for], one[:, 9 - same_for :]], 1)
        with torch.no_grad():
            (a, now), (b, then) = (model.sequence(obs, action, never.bool(), model.initial(3)) for obs in (one, other))
            assert torch.allclose(a[:, -1], b[:, -1], atol=1e-5) == forgotten
            (now, x), (then, y) = (model.step(state, action[:, 0]) for state in (now, then))
        assert torch.allclose(x.reward, y.reward, atol=1e-5) == forgotten


def test_long_dreams_slide_over_the_window() -> None:
    model = make()
    policy = lambda seen: torch.eye(K)[seen[:, :K].argmax(1)]  # noqa: E731
    imagined = model.imagine(model.initial(6), policy, 30, torch.Generator().manual_seed(0))
    assert all(part.isfinite().all() for part in imagined) and imagined.features.shape == (31, 6, 8 + 2 * 3)
    state = model.initial(6)
    for t in range(12):
        state, _ = model.step(state, torch.eye(K)[[0] * 6], torch.Generator().manual_seed(t))
    assert (state["age"] == 12 * 3).all() and state["key0"].shape == (6, 2, 12, 4)


def test_tokens_of_one_observation_know_of_each_other() -> None:
    """A transformer that was taught that the second token repeats the first says so in imagination, where the first is open."""
    options = {**SMALL, "learning_rate": 1e-2, "codes": 2, "settle": 1, "width": 16}
    model = TokenModel(TokenModel.Config(**options), Observation.of((2, 3), np.uint8, 3), K, 0)
    model.update(batch(1), torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    twins = torch.from_numpy(rng.integers(2, size=(200, 32, 2))).unsqueeze(-1).expand(-1, -1, -1, 2)
    given = iter(twins)
    model.vq.tokens = lambda obs: next(given).flatten(0, 1)  # type: ignore[method-assign]
    for k in range(150):
        found = batch(k, rows=32, steps=2)
        found.is_first[:] = False
        model.update(found, torch.Generator())
    start = model.initial(1)
    many = {name: part.expand(2000, *part.shape[1:]) for name, part in start.items()}
    state, _ = model.step(many, torch.eye(K)[[0]].expand(2000, K), torch.Generator().manual_seed(0))
    tokens = state["tokens"]
    assert (tokens[:, 0] == tokens[:, 1]).float().mean() > 0.97 and 0.35 < tokens[:, 0].float().mean() < 0.65


def test_widths_must_fit_the_heads() -> None:
    with pytest.raises(ValueError, match="even multiple"):
        TokenModel.Config(width=12, heads=4)
