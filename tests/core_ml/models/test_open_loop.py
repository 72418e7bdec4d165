"""What a model foresees beside what happened: exact models foresee everything, wrong ones are off by what is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gumdrop.core_ml.beliefs.protocol import State
from gumdrop.core_ml.data.sequences import Sequences
from gumdrop.core_ml.models.open_loop import IMAGINING, SEEING, STRIP, calibration, frames, open_loop
from gumdrop.core_ml.models.protocol import Outcome
from gumdrop.core_ml.observations import Observation

HOURS = 3


class Clock:
    """A hand that action 1 moves on by one of 3 hours and action 0 leaves; the move to hour 0 pays 2 and may end the episode.
    The model says that it does with probability 1 - `chance`, and that the hand moves by `by`."""

    observation, actions, size = Observation.of((1, 2), np.uint8, 4), 2, 1

    def __init__(self, chance: float, by: int = 1) -> None:
        self.chance, self.by = chance, by

    def initial(self, n: int) -> State:
        return {"hour": torch.zeros(n, dtype=torch.int64)}

    def features(self, state: State) -> Tensor:
        return state["hour"].float().unsqueeze(-1)

    def sequence(self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: Any = None) -> Any:
        hour = obs[:, :, 0, 0].long()
        moved = hour[:, :-1] + action[:, 1:, 1].long()
        assert (((moved - hour[:, 1:]) % HOURS == 0) | is_first[:, 1:]).all()  # actions belong to the steps before
        return hour.float().unsqueeze(-1), {"hour": hour[:, -1]}

    def step(self, state: State, action: Tensor, generator: Any = None) -> tuple[State, Outcome]:
        hour = (state["hour"] + self.by * action[:, 1].long()) % HOURS
        home = (hour == 0) & (action[:, 1] == 1)
        return {"hour": hour}, Outcome(2.0 * home, 2.0 * home, torch.where(home, self.chance, 1.0))

    def decode(self, features: Tensor) -> Tensor:
        hour = features[..., 0].to(torch.uint8)
        return torch.stack([hour, torch.zeros_like(hour)], -1).unsqueeze(1)


def play(rows: int, steps: int, ends: float, seed: int = 0, cut: float = 0.0) -> Sequences:
    rng = np.random.default_rng(seed)
    hour, first = rng.integers(HOURS, size=rows), np.zeros(rows, np.bool_)
    found = Sequences(
        np.zeros((rows, steps, 1, 2), np.uint8), rng.integers(2, size=(rows, steps)), np.zeros((rows, steps), np.float32),
        np.zeros((rows, steps), np.bool_), np.zeros((rows, steps), np.bool_),
    )  # fmt: skip
    for t in range(steps):
        found.obs[:, t, 0, 0], found.is_first[:, t] = hour, first
        hour = (hour + found.action[:, t]) % HOURS
        home = (hour == 0) & (found.action[:, t] == 1)
        found.reward[:, t], found.terminated[:, t] = 2 * home, home & (rng.random(rows) < ends)
        first = found.terminated[:, t] | (rng.random(rows) < cut)
        hour = np.where(first, rng.integers(HOURS, size=rows), hour)
    return found


def test_an_exact_model_foresees_all() -> None:
    found = open_loop(Clock(1.0), play(50, 9, 0.0), 3)  # type: ignore[arg-type]
    assert torch.equal(found.true, found.imagined) and found.running.all()
    assert torch.equal(found.reward, found.true_reward) and found.reward.shape == (50, 6) and found.reward.any()
    assert torch.equal(found.continue_, found.true_continue)
    for context in (0, 9):
        with pytest.raises(ValueError, match="1 to 8"):
            open_loop(Clock(1.0), play(50, 9, 0.0), context)  # type: ignore[arg-type]


def test_a_wrong_model_is_off_once_it_dreams() -> None:
    batch = play(200, 6, 0.0)
    found = open_loop(Clock(1.0, by=2), batch, 3)  # type: ignore[arg-type]
    assert torch.equal(found.true[:, :3], found.imagined[:, :3])
    moved = torch.from_numpy(batch.action[:, 2:5]).cumsum(1)  # at each step of the dream the hand is so many hours too far
    off = (found.imagined[:, 3:, 0, 0].long() - found.true[:, 3:, 0, 0].long()) % HOURS
    assert torch.equal(off, moved % HOURS)


def test_what_goes_on_after_an_end_is_another_episode() -> None:
    batch = play(300, 8, 1.0, cut=0.1)
    found = open_loop(Clock(0.0), batch, 3)  # type: ignore[arg-type]
    for row in range(300):
        begun = np.flatnonzero(batch.is_first[row])
        begin = max([0, *begun[begun <= 2]])
        end = min([8, *begun[begun > 2]])
        assert found.running[row].tolist() == [begin <= t < end for t in range(8)]
    after = found.running[:, 3:]
    assert torch.equal(found.imagined[:, 3:][after], found.true[:, 3:][after])


def test_calibration_by_horizon_against_a_loop() -> None:
    batch, horizon = play(4000, 9, 0.5), 5
    for chance in (0.5, 0.9):
        figures = calibration(Clock(chance), batch, horizon, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        found: dict[str, list[list[float]]] = {}
        for row in range(4000):
            said, goes, hour = 1.0, 1.0, int(batch.obs[row, 9 - horizon - 1, 0, 0])
            for k in range(horizon):
                t = 9 - horizon - 1 + k
                reached, hour = said, (hour + batch.action[row, t]) % HOURS  # what the model thinks
                home = hour == 0 and batch.action[row, t] == 1
                said *= chance if home else 1.0
                got = float(batch.reward[row, t]) * goes
                goes *= 1.0 - batch.terminated[row, t]
                for name, value in (
                    ("rows", 1.0), ("continue", said), ("true_continue", goes), ("reward", 2.0 * home * reached),
                    ("true_reward", got), ("brier", (said - goes) ** 2),
                ):  # fmt: skip
                    found.setdefault(name, [[] for _ in range(horizon)])[k].append(value)
        for name, values in found.items():
            want = [sum(v) if name == "rows" else np.mean(v) for v in values]
            assert figures[name] == pytest.approx(want, abs=1e-5), name
        share = np.array(figures["true_continue"])
        assert figures["brier_constant"] == pytest.approx((share * (1 - share)).tolist())
        assert figures["horizon"] == [1, 2, 3, 4, 5] and figures["rows"] == [4000] * 5
        # Who says it as often as it happens is honest at every horizon, in rewards too; who says it too seldom is not.
        off = np.abs(np.array(figures["continue"]) - share)
        reward = np.abs(np.array(figures["reward"]) - figures["true_reward"])
        assert (off < 0.02).all() and (reward < 0.01).all() if chance == 0.5 else (off > 0.04).all() and reward[-1] > 0.03


def test_a_time_limit_hides_and_does_not_distort() -> None:
    """The same sequences, many of them cut: figures are about those of all."""
    batch, model = play(20_000, 9, 0.5, seed=5), Clock(0.6)
    whole = calibration(model, batch, 5, torch.Generator())  # type: ignore[arg-type]
    batch.is_first[:, 4:] |= np.random.default_rng(0).random((20_000, 5)) < 0.15
    cut = calibration(model, batch, 5, torch.Generator())  # type: ignore[arg-type]
    assert cut["rows"][-1] < 0.8 * whole["rows"][-1] and cut["rows"][0] == 20_000
    for name in ("continue", "true_continue", "reward", "true_reward", "brier", "brier_constant"):
        assert cut[name] == pytest.approx(whole[name], abs=0.015), name
    assert abs(whole["brier"][-1] - whole["brier"][0]) > 0.1 and whole["reward"][0] - whole["reward"][-1] > 0.1
    batch = play(50, 9, 0.0)
    batch.is_first[:, 6] = True  # all are cut there
    figures = calibration(Clock(1.0), batch, 5, torch.Generator())  # type: ignore[arg-type]
    assert figures["true_continue"][:3] == [1, 1, 1] and np.isnan(figures["true_continue"][3:]).all()
    assert figures["rows"] == [50, 50, 50, 0, 0]


def test_the_film_shows_true_above_imagined() -> None:
    batch = play(3, 7, 1.0)
    found = open_loop(Clock(0.0, by=2), batch, 4)  # type: ignore[arg-type]
    colours = np.arange(15, dtype=np.uint8).reshape(5, 3)

    def draw(obs: Tensor) -> Any:  # two pixels of the hour's colour
        return np.repeat(colours[obs[:, 0, 0].numpy()][:, None, None], 2, 2)

    film = frames(Clock.observation, found, draw)
    assert film.dtype == np.uint8 and film.shape == (7, 2 * 3 + 1 + STRIP, 3 * 4 + 2, 3)
    for t in range(7):
        assert (film[t, -STRIP:] == (IMAGINING if t >= 4 else SEEING)).all()
        for row in range(3):
            for place, obs in ((1, found.true), (5, found.imagined)):
                here = film[t, place, 5 * row + 1 : 5 * row + 3]
                want = colours[int(obs[row, t, 0, 0])] if found.running[row, t] else 255
                assert (here == want).all()
    assert (film != 255).any() and not found.running.all()
    plain = frames(Clock.observation, found, zoom=3)
    assert plain.shape == (7, 2 * (3 + 2) + 1 + STRIP, 3 * (6 + 2) + 2, 3)
