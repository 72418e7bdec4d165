"""Replay of sequences: the right steps behind each other, episode starts, overwriting, exact state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.core_ml.data.sequences import SequenceReplay


def told(replay: SequenceReplay, steps: int, streams: int, first: int, rng: Any) -> dict[str, Any]:
    """Steps whose observation says stream and time: 1000 * stream + time."""
    time, stream = np.meshgrid(np.arange(first, first + steps), np.arange(streams), indexing="ij")
    obs = (1000 * stream + time).astype(np.float32)[..., None]
    terminated = rng.random((steps, streams)) < 0.2
    truncated = ~terminated & (rng.random((steps, streams)) < 0.2)
    facts = {
        "obs": obs, "action": (time % 4).astype(np.int64), "reward": obs[..., 0] / 2, "terminated": terminated,
        "truncated": truncated,
    }  # fmt: skip
    replay.add(**facts)
    return facts


def test_sequences_are_what_a_stream_met() -> None:
    rng = np.random.default_rng(0)
    replay = SequenceReplay(50, (1,), np.float32)
    parts = [told(replay, 7, 3, 7 * k, rng) for k in range(5)]  # 105 rows: overwritten twice
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ended = whole["terminated"] | whole["truncated"]
    found = replay.draw(rng, 4000, 5)
    stream, time = np.divmod(found.obs[:, 0, 0].astype(int), 1000)
    at = time[:, None] + np.arange(5), stream[:, None]
    for name in ("obs", "action", "reward", "terminated"):
        assert np.array_equal(getattr(found, name), whole[name][at]), name
    assert np.array_equal(found.is_first[:, 1:], ended[at][:, :-1])
    assert np.array_equal(found.is_first[:, 0], ended[time - 1, stream])
    # All 50 rows are there (the oldest row is of time 18, stream 1), so 50 - 4 * 3 sequences of 5; each is drawn as often.
    drawn, count = np.unique(found.obs[:, 0, 0], return_counts=True)
    assert len(drawn) == 50 - 4 * 3 and drawn.min() == 19 and 1018 in drawn
    assert abs(count / 4000 * 38 - 1).max() < 0.5


def test_every_stream_begins_with_an_episode() -> None:
    replay = SequenceReplay(40, (1,), np.float32)
    rng = np.random.default_rng(1)
    told(replay, 4, 2, 0, rng)
    assert replay.at(np.array([0, 1]), 2).is_first[:, 0].all() and replay.steps == 4
    with pytest.raises(ValueError, match="holds 4"):
        replay.draw(rng, 1, 5)
    with pytest.raises(ValueError, match="2 streams"):
        told(replay, 4, 3, 0, rng)
    with pytest.raises(ValueError, match="raise buffer_size to 42"):
        told(replay, 21, 2, 0, rng)


def test_it_goes_on_exactly() -> None:
    one, two = SequenceReplay(30, (1,), np.float32), SequenceReplay(30, (1,), np.float32)
    told(one, 8, 3, 0, np.random.default_rng(2))
    two.load({name: array.copy() for name, array in one.state().items()})
    for replay in (one, two):
        told(replay, 4, 3, 8, np.random.default_rng(3))
    drawn = [replay.draw(np.random.default_rng(4), 16, 4) for replay in (one, two)]
    assert all(np.array_equal(a, b) for a, b in zip(*drawn, strict=True))
