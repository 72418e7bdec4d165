"""Policy iteration as an agent (Howard 1960; Puterman 1994, section 6.4)."""

from __future__ import annotations

from pydantic import Field

from ...envs.solvers.mdp import policy_iteration
from ..protocol import AgentConfig, Spaces
from ..registry import agent
from .acting import act_by_plan, learn_nothing, load_plan, no_carry, plan_state
from .plan import PlannedPolicy


@agent("policy-iteration")
class PolicyIteration:
    """It is told the rules: evaluate the policy exactly, improve it where an action is better, until none is."""

    class Config(AgentConfig):
        gamma: float = Field(0.99, ge=0, le=1, description="discount factor per step")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config = config
        self.plan = PlannedPolicy("policy-iteration", spaces, lambda model: policy_iteration(model, config.gamma))
        self.num_steps = 32

    initial, act, learn = no_carry, act_by_plan, learn_nothing
    state_dict, load_state_dict = plan_state, load_plan
