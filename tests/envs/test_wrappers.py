"""Environments seen through something: what is shown, that nothing else changes, and that it goes on exactly."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest

from gumdrop.envs.make import make
from gumdrop.envs.wrappers import ObservationTransform, blank, recolour, zoom
from gumdrop.experiments.run.episodes import run_episodes

WORLD: dict[str, Any] = {"layout": "S..G", "view": 0, "observe": "rgb", "time_limit": 3}
RNG = np.random.default_rng(0)


def seen(*changes: Any, seed: int = 0, n: int = 3) -> Any:
    return ObservationTransform(make("maze", WORLD, num_envs=n), *changes, seed=seed)


def test_each_pixel_becomes_several() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 1, 3, 2, 2)
    shown = zoom(2)(pixels, RNG)
    assert shown[0, 0, 1].tolist() == [[4, 4, 5, 5], [4, 4, 5, 5], [6, 6, 7, 7], [6, 6, 7, 7]]


def test_blank_pixels_are_black_in_all_planes_and_as_many_as_told() -> None:
    shown = blank(0.3)(np.full((4, 1, 3, 50, 50), 9, np.uint8), RNG)
    assert set(np.unique(shown)) == {0, 9} and shown.dtype == np.uint8
    assert (shown == shown[:, :, :1]).all()
    assert abs((shown == 0).mean() - 0.3) < 0.03  # 6 deviations
    assert len(np.unique(shown.reshape(4, -1), axis=0)) == 4  # each copy has its own
    with pytest.raises(ValueError, match="between 0 and 1"):
        blank(1.5)


def test_hues_are_turned_by_copy() -> None:
    red, grey, dull = (255, 0, 0), (77, 77, 77), (120, 60, 70)
    pixels = np.array([[[red, grey, dull]]] * 5, np.uint8).transpose(0, 1, 3, 2)[..., None]  # (5, 1, 3, 3, 1)
    shown = recolour([0, 120, 240])(pixels, RNG)[:, 0, :, :, 0].transpose(0, 2, 1)  # copy, pixel, channel
    np.testing.assert_array_equal(shown[0], [red, grey, dull])
    np.testing.assert_array_equal(shown[1], np.roll([red, grey, dull], 1, 1))
    np.testing.assert_array_equal(shown[2], np.roll([red, grey, dull], 2, 1))
    np.testing.assert_array_equal(shown[3:], shown[:2])
    half = recolour([180])(pixels, RNG)[0, 0, :, 2, 0]
    assert abs(int(half.sum()) - sum(dull)) <= 1
    hue = [colorsys.rgb_to_hsv(*(float(x) for x in color))[0] for color in (dull, half)]
    assert abs(hue[0] - hue[1]) == pytest.approx(0.5, abs=0.02)


def test_changes_follow_one_another_and_the_world_stays_the_same() -> None:
    env, plain = seen(zoom(2), recolour([120])), make("maze", WORLD, num_envs=3)
    assert env.observation_space.shape == (3, 2, 8) and env.observation_space.dtype == np.uint8
    assert env.num_envs == 3 and env.action_space == plain.action_space and not hasattr(env, "native")

    def shown(obs: Any) -> Any:
        return np.roll(obs, 1, 2).repeat(2, 3).repeat(2, 4)

    np.testing.assert_array_equal(env.reset(0), shown(plain.reset(0)))
    for action in (2, 1, 2, 2, 2, 0, 0):  # truncated once, and at the goal once
        here, there = (e.step(np.full((3, 1), action)) for e in (env, plain))
        for name in ("reward", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
        np.testing.assert_array_equal(here.obs, shown(there.obs))
        np.testing.assert_array_equal(here.final_obs, shown(there.final_obs))
        np.testing.assert_array_equal(env.obs, here.obs)


def test_noise_is_drawn_anew_each_step_and_goes_on_exactly() -> None:
    def walk(env: Any) -> list[Any]:
        return [np.array(part) for _ in range(4) for part in env.step(np.ones((3, 1), np.int64))[::4]]

    one, two, other = seen(blank(0.5)), seen(blank(0.5)), seen(blank(0.5), seed=1)
    first = one.reset(7)
    assert not np.array_equal(one.step(np.ones((3, 1), np.int64)).obs, first)  # walls below: nothing moved
    np.testing.assert_array_equal(one.reset(7), first)
    assert not np.array_equal(other.reset(7), first)
    state = one.get_state()
    walked = walk(one)
    two.set_state(state)
    np.testing.assert_array_equal(two.obs, first)
    np.testing.assert_array_equal(walked, walk(two))


def test_episodes_are_played_as_they_are_seen() -> None:
    class Watcher:
        """Goes right where it sees a picture of 2 x 8, else nowhere."""

        def initial(self, n: int) -> None:
            return None

        def act(self, obs: Any, carry: Any, mode: Any, mask: Any = None) -> Any:
            return np.full(obs.shape[:2], 2 if obs.shape[-2:] == (2, 8) else 0), carry, {}

    agent: Any = Watcher()
    through = [lambda env: ObservationTransform(env, zoom(2)), None]
    found = [run_episodes(agent, "maze", WORLD, 5, 0, lines=False, wrap=wrap).returns.mean() for wrap in through]  # type: ignore[arg-type]
    assert found == [1, 0]


def test_only_arrays_can_be_changed() -> None:
    class Symbols:
        observation_space = make("maze", WORLD).action_space

    with pytest.raises(ValueError, match="no arrays"):
        ObservationTransform(Symbols(), zoom(2))  # type: ignore[arg-type]
