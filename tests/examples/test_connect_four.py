"""The example of action masks: connect four of PettingZoo as a single-agent environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gumdrop.configs.schema import RunConfig
from gumdrop.envs.checks.conformance import check_world
from gumdrop.experiments.run.train import train

ROOT = Path(__file__).parents[2]
ID = "examples.connect_four:ConnectFour"


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")


def game() -> Any:
    from examples.connect_four import ConnectFour

    return ConnectFour()


def test_it_keeps_its_promises() -> None:
    rows = check_world(ID)
    assert all(row.ok for row in rows), [row for row in rows if not row.ok]
    assert "examples.connect_four" in sys.modules


def test_columns_fill_and_a_full_one_loses() -> None:
    env, seen = game(), set()
    for seed in range(200):
        obs, info = env.reset(seed=seed)
        seen.add(int(obs[..., 1].sum()))  # 1: the opponent was first
        over = False
        while not over:
            mask = info["action_mask"].astype(bool)
            assert (mask == (obs.sum((0, 2)) < 6)).all() and (obs.sum(-1) <= 1).all()
            if not mask.all():
                _, reward, over, _, _ = env.step(int(mask.argmin()))
                assert reward == -1 and over
                return
            obs, reward, over, cut, info = env.step(0 if mask[0] else int(mask.argmax()))
            assert not cut and reward in (-1, 0, 1)
    raise AssertionError("no column was ever full")


def test_the_first_four_in_a_column_win() -> None:
    env = game()
    for seed in range(50):
        obs, info = env.reset(seed=seed)
        for _ in range(4):
            if not info["action_mask"][3]:
                break
            obs, reward, over, _, info = env.step(3)
            if over:
                break
        if over and reward == 1:
            assert any((obs[row : row + 4, 3, 0] == 1).all() for row in range(3))
            return
    raise AssertionError("random opponents never let a column of four through")


def test_the_recipe_trains(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "examples" / "connect_four.yaml").read_text())
    document["env"].pop("workers")
    document |= {"num_envs": 4, "steps": 512, "eval_episodes": 4}
    train(RunConfig(**document), tmp_path / "run", live=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # every legal set has at most 7 columns, most have all: the entropy begins near log 7
    assert len(rows) == 2 and all(0.8 * np.log(7) < row["entropy"] <= np.log(7) + 1e-6 for row in rows)
