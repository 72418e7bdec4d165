"""Value iteration as an agent (Bellman 1957; Puterman 1994, section 6.3)."""

from __future__ import annotations

from pydantic import Field

from ...envs.solvers.mdp import value_iteration
from ..protocol import AgentConfig, Spaces
from ..registry import agent
from .acting import act_by_plan, learn_nothing, load_plan, no_carry, plan_state
from .plan import PlannedPolicy


@agent("value-iteration")
class ValueIteration:
    """It is told the rules: V(s) <- max_a sum_s' p(s' | s, a) [r + gamma V(s')] until nothing changes, then it acts by it."""

    class Config(AgentConfig):
        gamma: float = Field(0.99, ge=0, le=1, description="discount factor per step")
        tol: float = Field(1e-8, gt=0, le=1, description="how far from exact a value may be")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config = config
        self.plan = PlannedPolicy("value-iteration", spaces, lambda model: value_iteration(model, config.gamma, config.tol))
        self.num_steps = 32

    initial, act, learn = no_carry, act_by_plan, learn_nothing
    state_dict, load_state_dict = plan_state, load_plan
