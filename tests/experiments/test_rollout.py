"""Watching episodes: how many pictures an animation gets."""

from __future__ import annotations

from pathlib import Path

from gumdrop.configs.schema import RunConfig
from gumdrop.experiments.run.rollout import FILM, film
from gumdrop.experiments.run.train import train
from gumdrop.store.run_folder import RunFolder


def test_a_film_of_long_episodes_is_thinned_and_shown_faster(tmp_path: Path) -> None:
    env = {"id": "corridor", "length": 8}
    config = RunConfig(env=env, agent={"name": "random"}, num_envs=4, steps=4 * 32, threads=1)
    train(config, tmp_path / "run", live=False)
    every_step, fps = film(RunFolder(tmp_path / "run"), 8.0)
    assert fps == 6 and len(every_step) > 4
    two_episodes = len(every_step)
    thinned, fps = film(RunFolder(tmp_path / "run"), 4.0 * FILM)  # taken for long: one of them, and each fourth state
    assert fps == 24
    assert len(thinned) < two_episodes / 2
