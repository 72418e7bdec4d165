"""Returns, baselines and whole episodes: by hand, and against slow versions that follow the definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.core_ml.data.episodes import Full, WholeEpisodes
from gumdrop.core_ml.maths.returns import RunningMean, discounted_return, time_in_episode

Array = Any


def test_discounted_return_by_hand() -> None:
    """gamma = 1/2; step 1 terminates, step 3 is cut where the state is worth 8; the last episode is under way."""
    reward = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    done = np.array([False, True, False, True, False, False])
    bootstrap = np.array([9.0, 0.0, 9.0, 8.0, 9.0, 9.0])  # the nines stand where no episode ends
    got = discounted_return(reward, bootstrap, done, 0.5)
    np.testing.assert_allclose(got, [1 + 2 / 2, 2, 3 + 8 / 2, 4 + 8 / 2, 5 + 6 / 2, 6])
    single = discounted_return(reward.astype(np.float32), bootstrap.astype(np.float32), done, 0.5)
    assert single.dtype == np.float32


def test_time_in_episode_by_hand() -> None:
    done = np.array([[0, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 0]], np.bool_).T
    assert time_in_episode(done).T.tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 0, 1, 2, 3]]


def test_running_mean_by_hand() -> None:
    """Decay 1/2, two time steps with means of their own."""
    mean = RunningMean(2, 0.5)
    assert mean.at(np.array([0, 1, 7])).tolist() == [0, 0, 0]
    mean.update(np.array([0, 0, 1, 5]), np.array([2.0, 4.0, 1.0, 3.0]))
    assert mean.at(np.array([0, 1, 7])).tolist() == [3, 2, 2]
    mean.update(np.array([[0]]), np.array([[9.0]]))
    # t = 0: (6 / 2 + 9) / (2 / 2 + 1); t = 1: nothing new
    assert mean.at(np.array([[0, 1]])).tolist() == [[6, 2]]
    one = RunningMean(1, 0.5)
    one.update(np.array([0, 1]), np.array([2.0, 4.0]))
    assert one.at(np.array([0, 9])).tolist() == [3, 3]


def stream(steps: int, num_envs: int, agents: int, rng: np.random.Generator) -> dict[str, Array]:
    """Random episodes one after the other; `id` numbers the steps."""
    shape = (steps, num_envs, agents)
    return {
        "id": np.arange(steps * num_envs * agents).reshape(shape), "reward": rng.normal(size=shape).astype(np.float32),
        "bootstrap": rng.normal(size=shape).astype(np.float32), "done": rng.random((steps, num_envs)) < 0.15,
    }  # fmt: skip


def whole(capacity: int, agents: int = 1) -> WholeEpisodes:
    return WholeEpisodes(capacity, agents, {"id": ((agents,), np.int64)})


def take(episodes: WholeEpisodes, s: dict[str, Array], first: int, last: int, gamma: float = 0.9) -> Any:
    part = {name: values[first:last] for name, values in s.items()}
    return episodes.take({"id": part["id"]}, part["reward"], part["bootstrap"], part["done"], gamma)


@pytest.mark.parametrize("agents", [1, 2])
def test_each_step_is_given_once_with_the_return_of_its_whole_episode(agents: int) -> None:
    """Cut into rollouts of 1 to 9 steps; the slow version walks down each episode."""
    rng = np.random.default_rng(agents)
    s, gamma = stream(60, 5, agents, rng), 0.9
    return_, time = np.full(s["reward"].shape, np.nan), np.zeros((60, 5), int)
    for i in range(5):
        start = 0
        for end in np.flatnonzero(s["done"][:, i]):
            for t in range(start, end + 1):
                weights = gamma ** np.arange(end + 1 - t)
                return_[t, i] = weights @ s["reward"][t : end + 1, i] + gamma ** (end + 1 - t) * s["bootstrap"][end, i]
                time[t, i] = t - start
            start = end + 1
    last = [np.flatnonzero(s["done"][:, i])[0] for i in range(5)]  # where each environment's first episode ends
    episodes, found, first = whole(1000, agents), [], 0
    while first < 60:
        then = min(first + int(rng.integers(1, 10)), 60)
        ended = take(episodes, s, first, then)
        if then <= max(last):
            assert not len(ended.time)  # some environment has ended no episode yet
        came = ended.facts["id"][:, 0] // agents // 5
        assert ended.late == (came < first).sum()
        found.append(ended)
        first = then
    ids = np.concatenate([f.facts["id"] for f in found])
    given = np.concatenate([f.return_ for f in found])
    times = np.concatenate([f.time for f in found])
    assert sorted(ids[:, 0].tolist()) == sorted(s["id"][:, :, 0][~np.isnan(return_[:, :, 0])].tolist())
    np.testing.assert_allclose(given, return_.reshape(-1, agents)[ids[:, 0] // agents], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(times, time.reshape(-1)[ids[:, 0] // agents])


def test_long_episodes_count_as_often_as_short_ones() -> None:
    """Half of all episodes last one step, half twenty, and a rollout is four steps: whoever took the episodes that lie in one
    rollout would never see a long one."""
    rng, num_envs, steps = np.random.default_rng(0), 200, 2000
    done = np.zeros((steps, num_envs), np.bool_)
    for i in range(num_envs):
        ends = np.cumsum(rng.choice([1, 20], steps)) - 1
        done[ends[ends < steps], i] = True
    zeros = np.zeros((steps, num_envs, 1), np.float32)
    s = {"id": np.arange(steps * num_envs).reshape(steps, num_envs, 1), "reward": zeros + 1, "bootstrap": zeros, "done": done}
    episodes, long, short = whole(10_000), 0, 0
    for first in range(0, steps, 4):
        ended = take(episodes, s, first, first + 4, 1.0)
        starts = ended.return_[ended.time == 0]
        long, short = long + int((starts == 20).sum()), short + int((starts == 1).sum())
    share, error = long / (long + short), 0.5 / np.sqrt(long + short)
    cut = 1 / 190  # of some 190 episodes of an environment the last is missing, and more often a long one
    assert abs(share - 0.5) < 4 * error + cut


def test_a_state_goes_on_where_it_was() -> None:
    s = stream(40, 3, 1, np.random.default_rng(3))
    one, other = whole(100), whole(100)
    take(one, s, 0, 20)
    other.load({name: np.array(array) for name, array in one.state().items()})
    for first in (20, 27):
        a, b = take(one, s, first, first + 7), take(other, s, first, first + 7)
        np.testing.assert_array_equal(a.facts["id"], b.facts["id"])
        np.testing.assert_array_equal(a.return_, b.return_)
        assert a.late == b.late
    bad = {name: np.array(array) for name, array in one.state().items()} | {"count": np.array(101)}
    with pytest.raises(ValueError, match="101 steps wait, of at most 100"):
        other.load(bad)


def test_more_than_there_is_room_for_is_refused() -> None:
    s = stream(40, 3, 1, np.random.default_rng(3))
    s["done"][:] = False
    episodes = whole(100)
    take(episodes, s, 0, 33)
    with pytest.raises(Full, match="102 steps of unfinished episodes, and room for 100"):
        take(episodes, s, 33, 34)
