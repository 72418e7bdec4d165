"""What an observation shows, as a scene: on a whole board what the world itself shows, in a window the agent in its middle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.envs.make import make


def cells_and_things(scene: Any) -> tuple[Any, set[tuple[float, float, str, int]]]:
    return scene.cells, {(e.row, e.column, e.kind, e.index) for e in scene.entities}


@pytest.mark.parametrize(
    "id,options",
    [
        ("maze", {"layout": "S.#/.KD/v0G/I.0", "view": 0}), ("maze", {"layout": "S.#/..G", "view": 0, "moves": "turn"}),
        ("maze", {"layout": "S.KD.G", "view": 0, "moves": "turn"}), ("candy", {"view": 0}),
    ],
)  # fmt: skip
def test_the_whole_board_is_the_scene(id: str, options: dict[str, Any]) -> None:
    env: Any = make(id, options, num_envs=8, seed=1)
    rng = np.random.default_rng(0)
    for _ in range(6):
        for i in range(8):
            scene, sight = env.scene(i), env.world.sight(env.obs[i, 0])
            cells, things = cells_and_things(sight)
            whole, all_ = cells_and_things(scene)
            whole = np.where(whole == "S", ".", whole)
            for row, column, kind, _ in all_:
                if kind == "agent":  # which hides what it stands on
                    whole[row, column] = "."
            assert np.array_equal(cells, whole) and things == all_
        env.step(rng.integers(env.action_space.n, size=(8, env.num_agents)))
    env.close()


@pytest.mark.parametrize("id", ["frozenlake", "candy", "corridor", "cartpole"])
def test_windows_and_numbers(id: str) -> None:
    env: Any = make(id, {"view": 5} if id == "candy" else {}, num_envs=1, seed=0)
    sight, obs = env.world.sight(env.obs[0, 0]), env.obs[0, 0]
    env.close()
    if id in ("corridor", "cartpole"):
        assert sight is None
        return
    side = obs.shape[-1]
    assert sight.cells.shape == (side, side)
    assert [(e.row, e.column) for e in sight.entities if e.kind == "agent" and e.index == 0] == [(side // 2, side // 2)]
    if id == "frozenlake":
        assert np.array_equal(sight.cells == "#", obs == 1) and np.array_equal(sight.cells == "H", obs == 3)
