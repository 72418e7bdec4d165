"""Controllers that are no agents, in a world: plans and functions of features, with a model that knows the lake exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gumdrop.agents.model_based.controllers import Deciding, Planning
from gumdrop.agents.model_based.world_model_policy import WorldModelPolicy
from gumdrop.agents.protocol import restart
from gumdrop.core_ml.beliefs.protocol import State
from gumdrop.core_ml.models.protocol import ImaginedTrajectory, Outcome, imagine
from gumdrop.core_ml.observations import Observation
from gumdrop.core_ml.planners.cem import CEMPlanner
from gumdrop.core_ml.planners.cma_controller import CmaController
from gumdrop.envs.make import make
from gumdrop.experiments.run.episodes import run_episodes

BOARD = ["....", ".H.H", "...H", "H..G"]
MOVES = [(0, -1), (1, 0), (0, 1), (-1, 0)]


class Lake:
    """The 4 x 4 lake without slipping, from its rules: the state is the cell, features are it as one-hot."""

    observation, actions, size = Observation.of((7, 7), np.uint8, 3), 4, 16

    def __init__(self) -> None:
        codes = np.pad(np.array([[".#GH".index(c) for c in row] for row in BOARD], np.uint8), 3, constant_values=1)
        self.cells = {codes[r : r + 7, c : c + 7].tobytes(): 4 * r + c for r in range(4) for c in range(4)}

    def initial(self, n: int) -> State:
        return {"cell": torch.zeros(n, dtype=torch.int64)}

    def features(self, state: State) -> Tensor:
        return torch.eye(16)[state["cell"]]

    def observe(self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: Any = None) -> Any:
        seen = torch.tensor([self.cells[one.numpy().tobytes()] for one in obs])
        assert (seen == torch.where(is_first, 0, self.after(state["cell"], action))).all()  # it is told what was done
        return self.features({"cell": seen}), {"cell": seen}

    def after(self, cell: Tensor, action: Tensor) -> Tensor:
        row, column = (
            (part + torch.tensor(MOVES)[action.argmax(-1), k]).clamp(0, 3) for k, part in enumerate((cell // 4, cell % 4))
        )
        return 4 * row + column

    def step(self, state: State, action: Tensor, generator: torch.Generator | None = None) -> tuple[State, Outcome]:
        cell = self.after(state["cell"], action)
        tile = [BOARD[c // 4][c % 4] for c in cell.tolist()]
        goal, plain = (torch.tensor([float(t == kind) for t in tile]) for kind in "G.")
        return {"cell": cell}, Outcome(torch.zeros_like(goal), goal, plain)

    def imagine(self, state: State, policy: Any, steps: int, generator: torch.Generator) -> ImaginedTrajectory:
        return imagine(self, state, policy, steps, generator)  # type: ignore[arg-type]


def test_plans_lead_over_the_lake_in_the_fewest_steps() -> None:
    planner = CEMPlanner(CEMPlanner.Config(horizon=8, population=2000, elites=10, gamma=0.9), 4)
    result = run_episodes(Planning(Lake(), planner), "frozenlake", {"slip": 0.0}, 2, 0, lines=False)
    assert (result.returns == 1.0).all() and (result.lengths == 6).all()


def test_a_value_makes_short_plans_suffice() -> None:
    """Plans of two steps see no goal; the exact value of where they end does: gamma to the number of steps from the goal."""
    model, value = Lake(), torch.zeros(16)
    for _ in range(12):
        cell = torch.arange(16).repeat_interleave(4)
        after, outcome = model.step({"cell": cell}, torch.eye(4).repeat(16, 1))
        value = (outcome.reward + 0.9 * outcome.continue_ * value[after["cell"]]).view(16, 4).amax(1)
    planner = CEMPlanner(CEMPlanner.Config(horizon=2, population=40, elites=4, gamma=0.9), 4)
    result = run_episodes(
        Planning(model, planner, value=lambda f: f @ value), "frozenlake", {"slip": 0.0}, 6, 0, lines=False
    )  # fmt: skip
    assert (result.returns == 1.0).all() and (result.lengths == 6).all()


def test_plans_go_on_from_where_they_were_and_begin_anew_with_an_episode() -> None:
    env = make("frozenlake", {"slip": 0.0, "time_limit": 3}, num_envs=2, seed=0)
    one, two = (Planning(Lake(), CEMPlanner(CEMPlanner.Config(horizon=4, population=8, elites=2), 4), seed) for seed in (0, 1))
    carry: Any = one.initial(2)
    for t in range(4):
        action, carry, _ = one.act(env.obs, carry, "greedy")
        assert not np.allclose(carry["agent/p"], 0.25)
        step = env.step(action)
        restart(one, carry, step)
        ended = step.terminated | step.truncated
        assert np.array_equal(ended, carry["first"]) and ended.any() >= (t == 2)
        assert all(np.allclose(carry["agent/p"][i], 0.25) == ended[i] for i in range(2))
    two.load_state_dict(one.state_dict())
    (a, after, _), (b, later, _) = (agent.act(env.obs, carry, "greedy") for agent in (one, two))
    assert np.array_equal(a, b) and all(np.array_equal(after[name], later[name]) for name in after)


def test_an_evolved_controller_acts_in_the_world() -> None:
    model: Any = Lake()
    controller = CmaController(CmaController.Config(horizon=12, episodes=32, gamma=0.9, sigma=1.0), 16, 4)
    floor = {"cell": torch.tensor([4 * r + c for r in range(4) for c in range(4) if BOARD[r][c] == "."])}
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        controller.update(model, floor, generator)
    policy = WorldModelPolicy(model, Deciding(controller.act), 4)  # type: ignore[arg-type]
    result = run_episodes(policy, "frozenlake", {"slip": 0.0}, 4, 0, lines=False)
    assert (result.returns == 1.0).all() and (result.lengths == 6).all()
    with pytest.raises(ValueError, match="does not learn"):
        policy.learn(None, 0.0)  # type: ignore[arg-type]
