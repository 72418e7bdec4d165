"""Policy iteration as an agent (Howard 1960; Puterman 1994, section 6.4)."""

from __future__ import annotations

from pydantic import Field

from ...envs.solvers.mdp import policy_iteration
from ...store.arrays import Array
from ..protocol import AgentConfig, Carry, Mode, Rollout, Spaces
from ..registry import agent
from .plan import PlannedPolicy


@agent("policy-iteration")
class PolicyIteration:
    """It is told the rules: evaluate the policy exactly, improve it where an action is better, until none is."""

    class Config(AgentConfig):
        gamma: float = Field(0.99, ge=0, le=1)

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config = config
        self.plan = PlannedPolicy("policy-iteration", spaces, lambda model: policy_iteration(model, config.gamma))
        self.num_steps = 32

    def initial(self, n: int) -> None:
        return None

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        return self.plan.solution.policy[self.plan.states(obs)].reshape(obs.shape[:2]), carry, {}

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Array]:
        return self.plan.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        self.plan.load(state)
