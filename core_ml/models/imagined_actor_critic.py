"""An actor-critic that learns from imagined steps alone (Hafner et al. 2025: DreamerV3, critic and actor learning)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig
from ..distributions import Categorical
from ..maths.returns import lambda_returns
from ..maths.two_hot import TwoHot
from ..nets.layers import last_layer, mlp
from ..nets.modules import fresh
from ..optim.adam import FlatAdam
from ..optim.parallel import one_thread_each
from .protocol import ImaginedTrajectory


class ImaginedActorCritic:
    """Policy pi(a | s) over `actions` discrete actions and value v(s), of features (B, size) of a world model.

    The value is a two-hot distribution; what targets and advantages read is a slow copy of it.
    """

    class Config(ComponentConfig):
        hidden: tuple[int, ...] = Field((64, 64), min_length=1, description="full layers of the policy, and of the value")
        gamma: float = Field(0.99, ge=0, le=1, description="discount of a step")
        return_lambda: float = Field(0.95, ge=0, le=1, description="of lambda-returns")
        least_scale: float = Field(0.1, gt=0, le=1e6, description="advantages are divided by the returns' range, or by this")
        slow: float = Field(0.02, gt=0, le=1, description="how far the slow value moves to the fast one at each step")
        learning_rate: float = Field(1e-3, gt=0, le=10)
        max_grad_norm: float = Field(10.0, ge=0, description="0: no clipping")
        bins: int = Field(41, ge=3, le=1023, description="of the two-hot code of values; odd")
        limit: float = Field(5.0, gt=0, le=20, description="symlog of the largest value")

    def __init__(self, config: Config, size: int, actions: int, seed: int) -> None:
        o, self.config, self.actions = config, config, actions

        def build() -> nn.ModuleDict:
            heads = (("actor", actions), ("critic", o.bins))
            trunk = [size, *o.hidden]
            return nn.ModuleDict(
                {name: nn.Sequential(*mlp(trunk, "relu"), nn.Linear(o.hidden[-1], last)) for name, last in heads}
            )

        self.net: Any = fresh(build, seed)
        self.two_hot = TwoHot(o.bins, o.limit)
        with torch.no_grad():  # the policy begins near uniform, values at 0
            last_layer(self.net, "actor").weight *= 0.01
            last_layer(self.net, "critic").weight.zero_()
            last_layer(self.net, "critic").bias.copy_(-self.two_hot.values.abs())
        self.optimiser = FlatAdam(self.net)
        self.slow: Any = fresh(build, seed)["critic"]
        self._slow = FlatAdam(self.slow).flat  # its parameters as one array, which is all that is wanted of it
        self._fast = torch.cat([p.detach().reshape(-1) for p in self.net["critic"].parameters()])
        self._slow.copy_(self._fast)
        self.range = np.zeros(())  # running distance from the 5th to the 95th percentile of returns

    def policy(self, features: Tensor) -> Categorical:
        return Categorical.of(self.net["actor"](features))

    def sample(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Actions drawn from the policy, one-hot (B, actions)."""
        return one_hot(self.policy(features).sample(generator), self.actions).float()

    def value(self, features: Tensor) -> Tensor:
        """(..., size) -> (...), by the slow copy."""
        return self.two_hot.decode(self.slow(features))

    def update(self, imagined: ImaginedTrajectory, rate: float = 1.0, ent_coef: float = 3e-3) -> dict[str, float]:
        """One step of Adam, of `rate` times its learning rate, on an imagined trajectory of H steps and B rows.

        R_t = r_t + gamma c_t ((1 - lambda) v_{t+1} + lambda R_{t+1}),  A_t = (R_t - v_t) / max(least_scale, S)
        L = sum_t w_t (-A_t ln pi(a_t | s_t) - ent_coef H[pi(. | s_t)] - ln p_v(R_t | s_t)),  w_t = prod_{k < t} gamma c_k

        c: probability that the episode goes on; S: running range of returns; `ent_coef` stands beside advantages scaled by it.
        """
        one_thread_each()
        o, features = self.config, imagined.features.clone()  # what inference mode made takes no part in gradients
        with torch.no_grad():
            value = self.value(features)  # (H + 1, B)
            discount = o.gamma * imagined.continue_
            ahead = torch.cat([torch.ones_like(discount[:1]), discount[:-1]])
            weight = ahead.cumprod(0)
        return_ = torch.from_numpy(
            lambda_returns(imagined.reward.numpy(), value[1:].numpy(), discount.numpy(), o.return_lambda)
        )  # (H, B)
        low, high = np.percentile(return_.numpy(), [5, 95])
        self.range += (1.0 if not self.range else 0.01) * ((high - low) - self.range)
        advantage = (return_ - value[:-1]) / max(o.least_scale, float(self.range))

        policy = self.policy(features[:-1])
        log_prob = (policy.log_p * imagined.action).sum(-1)
        policy_loss = -(weight * advantage * log_prob).mean()
        entropy = (weight * policy.entropy()).mean()
        value_loss = (weight * self.two_hot.loss(self.net["critic"](features[:-1]), return_)).mean()
        self.optimiser.zero_grad()
        (policy_loss - ent_coef * entropy + value_loss).backward()
        norm = self.optimiser.step(rate * o.learning_rate, o.max_grad_norm)
        torch.cat([p.detach().reshape(-1) for p in self.net["critic"].parameters()], out=self._fast)
        self._slow.lerp_(self._fast, o.slow)
        return {
            "loss/policy": policy_loss.item(), "loss/value": value_loss.item(), "entropy": policy.entropy().mean().item(),
            "imagined_return": return_[0].mean().item(), "value": value[:-1].mean().item(), "actor_critic_grad_norm": norm,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Array]:
        state = {name: array.copy() for name, array in self.optimiser.parameters.state().items()}
        return state | {"slow": self._slow.numpy().copy(), "range": self.range.copy()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "behaviour")
        self.optimiser.parameters.load(state)
        self._slow.copy_(torch.from_numpy(state["slow"]))
        self.range[...] = state["range"]
