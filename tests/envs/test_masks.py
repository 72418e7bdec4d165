"""Action masks of worlds, views and external environments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from gumdrop.envs.checks.conformance import check_world, nearest_legal
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.external.batch import ExternalBatch
from gumdrop.envs.external.loop import EnvironmentFailed
from gumdrop.envs.make import make
from gumdrop.envs.registry import make_world
from gumdrop.envs.solvers import mdp
from gumdrop.envs.views.gym_view import GymView
from gumdrop.envs.views.parallel_view import ParallelView
from gumdrop.envs.views.vector_view import VectorView
from gumdrop.envs.world import Model

WALLS = {"mask_walls": True}


@pytest.mark.parametrize(
    ("id", "options"),
    [
        ("maze", {}),
        ("maze", {"moves": "turn"}),
        ("maze", {"moves": "eight", "stay": True}),
        ("door-key", {}),
        ("frozenlake", {}),
    ],
)
def test_a_maze_that_masks_walls_keeps_every_promise(id: str, options: dict[str, Any]) -> None:
    rows = {row.name: row for row in check_world(id, options | WALLS)}
    assert all(row.ok for row in rows.values()), [row for row in rows.values() if not row.ok]
    assert "of the actions are legal" in rows["masks"].detail
    assert make(id, options).action_mask() is None


def test_legal_moves_of_a_maze_move_and_illegal_ones_do_not() -> None:
    env = make("maze", WALLS, num_envs=64, seed=1)
    rng = np.random.default_rng(0)
    assert isinstance(env, Engine)
    for _ in range(100):
        action, mask, before = rng.integers(4, size=(64, 1)), env.action_mask(), env.state.cell.copy()
        assert mask is not None
        legal = np.take_along_axis(mask, action[..., None], -1)[:, 0, 0]
        step = env.step(action, autoreset=False)
        assert ((env.state.cell != before) == legal).all()
        env.reset_some(step.terminated | step.truncated)


def test_masks_belong_to_the_observation_also_where_an_episode_ends() -> None:
    auto, manual = (make("maze", WALLS | {"time_limit": 5}, num_envs=8, seed=2) for _ in range(2))
    assert isinstance(manual, Engine)
    for _ in range(30):
        action = np.zeros((8, 1), np.int64)
        a, b = auto.step(action), manual.step(action, autoreset=False)
        ended = a.terminated | a.truncated
        last = manual.action_mask()
        assert a.final_mask is not None and last is not None
        assert (a.final_mask[ended] == last[ended]).all()
        if ended.any():
            manual.reset_some(ended)
        mask, again = auto.action_mask(), manual.action_mask()
        assert mask is not None and again is not None and (mask == again).all() and b.obs.shape == a.obs.shape


SIMULATED = """
import numpy as np
from gumdrop.envs.make import make
options = {"mask_walls": True, "time_limit": 4, "size": 5}
cpu, gpu = (make("maze", options, num_envs=3, seed=4, device=device) for device in ("cpu", "cuda"))
rng = np.random.default_rng(0)
assert (cpu.action_mask() == gpu.action_mask()).all()
for _ in range(6):
    action = rng.integers(4, size=(3, 1))
    a, b = cpu.step(action), gpu.step(action)
    ended = a.terminated | a.truncated
    assert (cpu.action_mask() == gpu.action_mask()).all() and (a.final_mask[ended] == b.final_mask[ended]).all()
gpu.set_state(cpu.get_state())
assert (cpu.action_mask() == gpu.action_mask()).all()
"""


def test_cuda_has_the_masks_of_the_cpu() -> None:
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    subprocess.run([sys.executable, "-c", SIMULATED], env=env, check=True, timeout=300)


def test_models_with_masks_are_solved_over_the_legal_actions() -> None:
    # one state, two steps of time: action 0 pays 0, action 1 pays 1 but is illegal, action 2 pays -1
    shape = (1, 3, 1)
    reward = np.array([0.0, 1.0, -1.0]).reshape(shape)
    model = Model(
        np.zeros(shape, np.int64), np.ones(shape), reward, np.ones(shape, np.bool_), 0, {"s": np.zeros(1)},
        np.array([[True, False, True]]),
    )  # fmt: skip
    mdp.check_model(model)
    solution = mdp.finite_horizon(model, 1)
    assert solution.value[0, 0] == 0 and solution.policy[0, 0] == 0
    assert mdp.evaluate_policy(model, horizon=1)[0] == -0.5
    assert mdp.value_iteration(model).policy[0] == 0 and mdp.policy_iteration(model).policy[0] == 0
    assert mdp.epsilon_optimum(model, 0.5, 1).value[0, 0] == -0.25
    assert mdp.occupancy(model, horizon=1).tolist() == [[0.5, 0, 0.5]]
    with pytest.raises(ValueError, match="state 0 has no legal action"):
        mdp.check_model(model._replace(legal=np.zeros((1, 3), np.bool_)))


def test_the_random_line_is_that_of_random_legal_actions() -> None:
    env = make("frozenlake", WALLS, num_envs=1)
    line, rng = env.yardstick(), np.random.default_rng(0)
    assert line is not None
    many = make("frozenlake", WALLS, num_envs=4000, seed=3)
    first, running = np.zeros(4000), np.ones(4000, np.bool_)
    for _ in range(100):
        mask = many.action_mask()
        assert mask is not None
        step = many.step(nearest_legal((mask.cumsum(-1) > (rng.random((4000, 1)) * mask.sum(-1))[..., None]).argmax(-1), mask))
        first[running] += step.reward[running, 0]
        running &= ~(step.terminated | step.truncated)
    assert abs(first.mean() - line.random[0]) < 4 * first.std() / 4000**0.5


def test_views_hand_masks_to_other_libraries() -> None:
    one = GymView("maze", **WALLS)
    _, info = one.reset(seed=3)
    many = VectorView("maze", num_envs=2, autoreset_mode="same_step", **(WALLS | {"time_limit": 2}))
    _, infos = many.reset(seed=3)
    assert (infos["action_mask"][0] == info["action_mask"]).all() and info["action_mask"].dtype == np.int8
    assert (one.action_masks() == (info["action_mask"] == 1)).all()
    for _ in range(2):
        action = int(info["action_mask"].argmax())
        info, infos = one.step(action)[4], many.step(np.full(2, infos["action_mask"].argmax(1)))[4]
    assert infos["final_info"]["action_mask"].shape == (2, 4) and infos["_final_info"].all()
    zoo = ParallelView("maze", **WALLS)
    assert (zoo.reset(seed=3)[1]["agent_0"]["action_mask"] == one.reset(seed=3)[1]["action_mask"]).all()
    plain = GymView("maze")
    assert plain.reset(seed=3)[1] == {} and ParallelView("maze").reset(seed=3)[1] == {"agent_0": {}}
    with pytest.raises(ValueError, match="has no action masks"):
        plain.action_masks()


def test_masks_are_for_discrete_actions() -> None:
    class Wrong(type(make_world("cartpole"))):  # type: ignore[misc]
        masked = property(lambda self: True)
        action_space = property(lambda self: Box(-1, 1, (1,), np.float32))

    with pytest.raises(ValueError, match="rule legal is for Discrete actions"):
        Engine(Wrong(make_world("cartpole").config))


# --- external environments


class Dice(gymnasium.Env[Any, Any]):
    """Two of four actions are legal, drawn anew each step; another one is a fault of whoever plays it."""

    action_space = Discrete(4)
    observation_space: Any = Box(0, 1, (3,), np.float32)
    late = False

    def __init__(self, render_mode: str | None = None) -> None:
        pass

    def _draw(self) -> tuple[Any, dict[str, Any]]:
        self.mask = np.zeros(4, np.int8)
        self.mask[self.np_random.choice(4, 2, replace=False)] = 1
        return self.np_random.random(3).astype(np.float32), {"action_mask": self.mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        obs, info = self._draw()
        return obs, {} if self.late else info

    def step(self, action: Any) -> Any:
        if not self.mask[action]:
            raise RuntimeError(f"action {action} is illegal")
        self.t += 1
        obs, info = self._draw()
        return obs, 1.0, self.t == 5, False, info


class Shown(Dice):
    """The mask is in the observation."""

    observation_space = Dict(observation=Box(0, 1, (3,), np.float32), action_mask=Box(0, 1, (4,), np.int8))

    def _draw(self) -> Any:
        obs, _ = super()._draw()
        return {"observation": obs, "action_mask": self.mask}, {}


class Late(Dice):
    """It forgets the mask at reset."""

    late = True


class Misfit(Dice):
    observation_space = Dict(observation=Box(0, 1, (3,), np.float32), action_mask=Box(0, 1, (5,), np.int8))


class Turns:
    """A PettingZoo environment of two agents, of which one acts at a time; the other one's mask is empty."""

    metadata: dict[str, Any] = {}
    possible_agents = ["a", "b"]

    def __new__(cls, **options: Any) -> Any:
        from pettingzoo import ParallelEnv

        class Env(ParallelEnv):  # type: ignore[misc]
            metadata, possible_agents = cls.metadata, cls.possible_agents

            def observation_space(self, agent: str) -> Any:
                return Dict(observation=Box(0, 9, (1,), np.float32), action_mask=Box(0, 1, (3,), np.int8))

            def action_space(self, agent: str) -> Any:
                return Discrete(3)

            def see(self) -> Any:
                return {
                    name: {
                        "observation": np.array([self.t], np.float32),
                        "action_mask": np.array([0, 1, 1], np.int8) * (self.t % 2 == k),
                    }
                    for k, name in enumerate(self.possible_agents)
                }

            def reset(self, seed: int | None = None, options: Any = None) -> Any:
                self.agents, self.t = list(self.possible_agents), 0
                return self.see(), {"a": {}, "b": {}}

            def step(self, actions: Any) -> Any:
                assert actions["ab"[self.t % 2]] != 0
                self.t += 1
                over = dict.fromkeys(self.agents, self.t == 4)
                gained, infos = dict.fromkeys(self.agents, 0.0), {"a": {}, "b": {}}
                if self.t == 4:
                    self.agents = []
                return self.see(), gained, over, dict.fromkeys(over, False), infos

        return Env()


HERE = "masked_envs"


@pytest.fixture(scope="module", autouse=True)
def importable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """This file under a name that worker processes can import, too."""
    folder = tmp_path_factory.mktemp("masked")
    (folder / f"{HERE}.py").write_text(Path(__file__).read_text())
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), before])
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    os.environ["PYTHONPATH"] = before


def legal_steps(env: ExternalBatch, steps: int) -> list[Any]:
    """Play legal actions, which follow from the masks alone; what was seen."""
    seen: list[Any] = []
    for _ in range(steps):
        mask = env.action_mask()
        assert mask is not None and mask.any(-1).all()
        step = env.step(mask.argmax(-1))
        seen += [step.obs.copy(), mask.copy(), step.reward.copy()]
    return seen


@pytest.mark.parametrize("name", ["Dice", "Shown"])
def test_gymnasium_masks_in_info_and_in_observations(name: str) -> None:
    env, other = (ExternalBatch(f"{HERE}:{name}", num_envs=3, seed=1) for _ in range(2))
    assert env.observation_space.shape == (3,)  # the mask is no part of what agents see
    legal_steps(env, 12)
    other.set_state(env.get_state())
    mask, again = env.action_mask(), other.action_mask()
    assert mask is not None and again is not None and (mask == again).all()
    for x, y in zip(legal_steps(env, 9), legal_steps(other, 9), strict=True):
        assert (x == y).all()
    ignored = ExternalBatch(f"{HERE}:{name}", {"action_mask": False}, num_envs=1)
    assert ignored.action_mask() is None and ignored.observation_space.shape == ((7,) if name == "Shown" else (3,))
    rows = check_world(f"{HERE}:{name}")
    assert [row.detail for row in rows if row.name == "masks"] == ["50% of the actions are legal, at least one in every state"]


def test_workers_give_the_same_masks() -> None:
    env, apart = ExternalBatch(f"{HERE}:Dice", num_envs=3, seed=1), ExternalBatch(f"{HERE}:Dice", num_envs=3, seed=1, workers=2)
    for x, y in zip(legal_steps(env, 12), legal_steps(apart, 12), strict=True):
        assert (x == y).all()
    apart.close()


def test_pettingzoo_masks_and_agents_whose_turn_it_is_not() -> None:
    env = ExternalBatch(f"{HERE}:Turns", num_envs=2)
    mask = env.action_mask()
    assert mask is not None and mask[0].tolist() == [[False, True, True], [True, True, True]]
    env.step(np.array([[1, 0], [2, 0]]))
    assert mask[0].tolist() == [[True, True, True], [False, True, True]]
    for _ in range(3):
        env.step(np.ones((2, 2), np.int64))
    assert len(env.episodes().env) == 2 and env.obs.shape == (2, 2, 1)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        (
            "Late",
            {},
            EnvironmentFailed,
            r"step\(\) gives an action_mask, which the first reset\(\) did not: .*action_mask=false",
        ),
        ("Misfit", {}, ValueError, r"observation\['action_mask'\] has shape \(5,\) and actions are Discrete\(4\)"),
        ("Dice", {"action_mask": "no"}, ValueError, "action_mask is 'no': true, or false to ignore masks"),
    ],
)
def test_masks_that_cannot_be_honoured_are_refused(name: str, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        env = ExternalBatch(f"{HERE}:{name}", options, num_envs=1)
        for a in range(4):
            env.step(np.array([[a]]))
