"""Value iteration as an agent (Bellman 1957; Puterman 1994, section 6.3)."""

from __future__ import annotations

from pydantic import Field

from ...envs.solvers.mdp import value_iteration
from ...store.arrays import Array
from ..protocol import AgentConfig, Carry, Mode, Rollout, Spaces
from ..registry import agent
from .plan import PlannedPolicy


@agent("value-iteration")
class ValueIteration:
    """It is told the rules: V(s) <- max_a sum_s' p(s' | s, a) [r + gamma V(s')] until nothing changes, then it acts by it."""

    class Config(AgentConfig):
        gamma: float = Field(0.99, ge=0, le=1)
        tol: float = Field(1e-8, gt=0, le=1, description="how far from exact a value may be")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config = config
        self.plan = PlannedPolicy("value-iteration", spaces, lambda model: value_iteration(model, config.gamma, config.tol))
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
