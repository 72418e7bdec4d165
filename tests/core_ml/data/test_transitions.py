"""Replay and n-step returns against arrays worked out by hand and a slow version that keeps whole episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.core_ml.data.transitions import Replay, SumTree
from gumdrop.core_ml.maths.returns import n_step


def test_n_step_by_hand() -> None:
    """gamma = 1/2, n = 3: nothing ends; the second step terminates; the first is truncated; the last terminates."""
    reward = np.array([[1, 2, 4], [1, 2, 4], [1, 2, 4], [1, 2, 4]], np.float32)
    terminated = np.array([[0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], np.bool_)
    truncated = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], np.bool_)
    return_, discount, last = n_step(reward, terminated, truncated, 0.5)
    np.testing.assert_array_equal(return_, [1 + 1 + 1, 1 + 1, 1, 3])
    np.testing.assert_array_equal(discount, [1 / 8, 0, 1 / 2, 0])
    np.testing.assert_array_equal(last, [2, 1, 0, 2])
    assert return_.dtype == discount.dtype == np.float32
    one = n_step(reward[:, :1], terminated[:, :1], truncated[:, :1], 0.5)
    np.testing.assert_array_equal(one, [[1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0]])


class Stream:
    """Episodes of M agents, whose observations say who, which episode and which step; and all that ever happened."""

    def __init__(self, streams: int, seed: int = 0) -> None:
        self.rng, self.m = np.random.default_rng(seed), streams
        self.episode, self.step = np.zeros(streams, int), np.zeros(streams, int)
        self.steps: list[list[dict[str, Any]]] = [[] for _ in range(streams)]

    def rollout(self, steps: int) -> tuple[Any, ...]:
        obs, next_obs = np.zeros((2, steps, self.m, 3), np.uint8)
        action, reward = np.zeros((steps, self.m), np.int64), np.zeros((steps, self.m), np.float32)
        terminated, truncated = np.zeros((2, steps, self.m), np.bool_)
        for t in range(steps):
            for i in range(self.m):
                end = self.rng.random()
                obs[t, i] = i, self.episode[i], self.step[i]
                next_obs[t, i] = i, self.episode[i], self.step[i] + 1
                action[t, i], reward[t, i] = self.rng.integers(9), self.rng.normal()
                terminated[t, i], truncated[t, i] = end < 0.15, 0.15 <= end < 0.3
                self.steps[i].append({
                    "obs": obs[t, i].tolist(), "action": action[t, i], "reward": reward[t, i], "next": next_obs[t, i].tolist(),
                    "terminated": terminated[t, i], "truncated": truncated[t, i],
                })  # fmt: skip
                ended = end < 0.3
                self.episode[i] += ended
                self.step[i] = 0 if ended else self.step[i] + 1
        return obs, action, reward, next_obs, terminated, truncated

    def find(self, obs: list[int], n: int, gamma: float) -> tuple[float, float, list[int], int]:
        """(return, discount, next observation, action) of the transition that begins at `obs`, by walking on from it."""
        story = self.steps[obs[0]]
        at = next(k for k, step in enumerate(story) if step["obs"] == obs)
        total, discount = 0.0, 1.0
        for k in range(n):
            step = story[at + k]
            total += discount * step["reward"]
            discount *= gamma
            if step["terminated"]:
                return total, 0.0, step["next"], story[at]["action"]
            if step["truncated"]:
                break
        return total, discount, step["next"], story[at]["action"]


@pytest.mark.parametrize("n", [1, 3, 7])
@pytest.mark.parametrize("capacity", [61, 1000])
def test_what_is_drawn_is_what_happened(n: int, capacity: int) -> None:
    """Rollouts of odd lengths, wrapping around: every row that may be drawn has the return that the slow version finds."""
    stream, rng = Stream(4), np.random.default_rng(1)
    replay = Replay(capacity, 3, np.uint8, n)
    for steps in (3, 5, 8, 2, 7, 5, 8, 8):
        replay.add(*stream.rollout(steps))
        low, high = replay.ready
        assert high == max(replay.head - 4 * (n - 1), 0) and low == max(replay.head - capacity, 0)
        if high <= low:
            continue
        drawn = replay.uniform(rng, 3, 50, 0.9)
        everything = replay._sample(np.arange(low, high)[None], 0.9)
        assert set(drawn.row.ravel()) <= set(everything.row.ravel()) and len(set(everything.row.ravel())) == high - low
        for sample in (drawn, everything):
            for row, next_row, action, return_, discount in zip(*(x.ravel() for x in sample[:5]), strict=True):
                total, share, following, chosen = stream.find(replay.obs[row].tolist(), n, 0.9)
                assert return_ == pytest.approx(total, abs=1e-5) and discount == pytest.approx(share, rel=1e-5)
                assert action == chosen and (discount == 0 or replay.next_obs[next_row].tolist() == following)


def test_uniform_draws_are_uniform() -> None:
    from scipy import stats

    stream, replay = Stream(4), Replay(40, 3, np.uint8, 3)
    for _ in range(4):
        replay.add(*stream.rollout(5))
    rows = replay.uniform(np.random.default_rng(0), 100, 320, 0.9).row.ravel()
    seen = np.bincount(rows, minlength=40)
    assert (seen > 0).sum() == 32 and stats.chisquare(seen[seen > 0]).pvalue > 1e-3


def test_newest_by_hand() -> None:
    """Two streams, five steps: ten rows, drawn in five parts of four: each two rows further, none from before the first."""
    replay = Replay(100, 3, np.uint8)
    stream = Stream(2)
    replay.add(*stream.rollout(5))
    np.testing.assert_array_equal(
        replay.newest(5, 4, 0.9).row, [[0, 0, 0, 1], [0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    )
    replay.add(*stream.rollout(1))
    np.testing.assert_array_equal(replay.newest(1, 4, 0.9).row, [[8, 9, 10, 11]])


def test_sum_tree_by_hand_and_against_numpy() -> None:
    tree = SumTree(5)
    tree.set(np.arange(5), np.array([1.0, 0.0, 2.0, 1.0, 0.0]))
    assert tree.nodes[1] == 4
    np.testing.assert_array_equal(tree.find(np.array([0.0, 0.24, 0.25, 0.74, 0.75, 0.999])), [0, 0, 2, 2, 3, 3])
    rng = np.random.default_rng(0)
    tree, weights = SumTree(1000), np.zeros(1000)
    for _ in range(50):
        place = rng.integers(0, 1000, 64)
        weights[place] = rng.random(64) * (rng.random(64) < 0.7)
        tree.set(place, weights[place])
        weights = tree.leaves.copy()  # where a place came twice, the last counts
        share = rng.random(200)
        assert tree.nodes[1] == pytest.approx(weights.sum())
        expected = np.searchsorted(np.cumsum(weights), share * weights.sum(), side="right")
        assert (tree.find(share) == expected).mean() > 0.99 and (weights[tree.find(share)] > 0).all()


def test_priorities() -> None:
    """P(i) = p_i^alpha / sum, weights (N P)^-beta over their maximum; what is new has the largest priority so far."""
    replay, rng = Replay(12, 3, np.uint8, 1, priority=0.5), np.random.default_rng(0)
    stream = Stream(2)
    replay.add(*stream.rollout(4))
    sample = replay.prioritised(rng, 8, 0.9, 0.4)
    np.testing.assert_array_equal(np.sort(sample.row[0]), np.arange(8))  # all alike: one in each eighth
    np.testing.assert_allclose(sample.weight, 1)
    error = np.array([[9, 0, 4, 1, 0, 0, 16, 0]], np.float32)
    replay.update(sample._replace(row=np.arange(8)[None]), -error)
    p = (error[0] + 1e-6) ** 0.5
    p /= p.sum()
    rows = np.concatenate([replay.prioritised(rng, 8, 0.9, 0.4).row[0] for _ in range(4000)])
    np.testing.assert_allclose(np.bincount(rows, minlength=8) / len(rows), p, atol=5e-3)
    sample = replay.prioritised(rng, 64, 0.9, 0.4)
    weight = (8 * p[sample.row]) ** -0.4
    np.testing.assert_allclose(sample.weight, weight / weight.max(), rtol=1e-4)
    replay.add(*stream.rollout(4))  # rows 8..15 lie at 8..11 and 0..3
    assert replay.tree is not None
    np.testing.assert_allclose(replay.tree.leaves, [4, 4, 4, 4, 1e-3, 1e-3, 4, 1e-3, 4, 4, 4, 4], rtol=1e-4)


def test_unfinished_windows_have_no_priority() -> None:
    replay, stream = Replay(30, 3, np.uint8, 3, priority=1.0), Stream(2)
    replay.add(*stream.rollout(4))
    assert replay.tree is not None and np.flatnonzero(replay.tree.leaves).tolist() == [0, 1, 2, 3]
    for _ in range(5):
        replay.add(*stream.rollout(4))
        low, high = replay.ready
        assert set(np.flatnonzero(replay.tree.leaves)) == {row % 30 for row in range(low, high)}


def test_state_comes_back() -> None:
    def filled(rollouts: int) -> tuple[Replay, Stream]:
        replay, stream = Replay(50, 3, np.uint8, 3, priority=0.6), Stream(2)
        for _ in range(rollouts):
            replay.add(*stream.rollout(6))
            sample = replay.prioritised(np.random.default_rng(rollouts), 8, 0.9, 0.4)
            replay.update(sample, np.arange(8, dtype=np.float32))
        return replay, stream

    replay, _ = filled(7)
    twin = Replay(50, 3, np.uint8, 3, priority=0.6)
    twin.load({name: array.copy() for name, array in replay.state().items()})
    assert replay.tree and twin.tree
    np.testing.assert_array_equal(replay.tree.nodes, twin.tree.nodes)
    for a, b in (
        (r.prioritised(np.random.default_rng(5), 16, 0.9, 0.4), r.uniform(np.random.default_rng(5), 2, 9, 0.9))
        for r in (replay, twin)
    ):
        assert a.row.size and b.row.size
    one, other = (r.prioritised(np.random.default_rng(5), 16, 0.9, 0.4) for r in (replay, twin))
    assert all(x.tobytes() == y.tobytes() for x, y in zip(one, other, strict=True))


def test_faults_are_named() -> None:
    replay = Replay(20, 3, np.uint8, 3)
    with pytest.raises(ValueError, match=r"raise agent.buffer_size to 22 or more"):
        replay.add(*Stream(2).rollout(8))
    replay.add(*Stream(2).rollout(4))
    with pytest.raises(ValueError, match="2 streams cannot take 3"):
        replay.add(*Stream(3).rollout(1))
