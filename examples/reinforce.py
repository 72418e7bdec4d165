"""REINFORCE with a mean baseline (Williams 1992; Sutton & Barto 2018, section 13.4): an algorithm in a file of its own.

gumdrop train --plugin examples/reinforce.py --agent reinforce --env cartpole --steps 400000 --num-envs 32
"""

import numpy as np
import torch
from pydantic import Field
from torch import nn

from gumdrop.agents.protocol import AgentConfig
from gumdrop.agents.registry import agent


@agent("reinforce")
class Reinforce:
    """Ascends the mean of grad log pi(a|s) (G - b): G the discounted return to go, b its mean over the rollout."""

    class Config(AgentConfig):
        num_steps: int = Field(256, ge=1, description="steps of each environment between updates")
        hidden: int = Field(64, ge=1, description="units of the one hidden layer")
        learning_rate: float = Field(1e-2, ge=0, description="of Adam")
        gamma: float = Field(0.99, ge=0, le=1, description="discount")

    def __init__(self, config, spaces, seed, threads=1):
        self.config, self.num_steps = config, config.num_steps
        if not hasattr(spaces.action, "n"):
            raise ValueError(f"agent reinforce: it cannot act in {spaces.action}, it needs a Discrete space: take ppo")
        inputs, self.actions = int(np.prod(spaces.observation.shape)), int(spaces.action.n)
        with torch.random.fork_rng(devices=[]):  # all randomness comes from the seed
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Linear(inputs, config.hidden), nn.Tanh(), nn.Linear(config.hidden, self.actions))
        self.optimiser = torch.optim.Adam(self.net.parameters(), config.learning_rate)
        self.generator = torch.Generator().manual_seed(seed)

    def initial(self, n):
        return None  # no memory

    def log_probs(self, obs):  # (..., *observation) -> (..., actions)
        return self.net(torch.from_numpy(obs.astype(np.float32)).flatten(2)).log_softmax(-1)

    @torch.no_grad()
    def act(self, obs, carry, mode, mask=None):  # obs (N, A, *observation) -> actions (N, A)
        log_p = self.log_probs(obs)
        if mode == "greedy":
            return log_p.argmax(-1).numpy(), carry, {}
        noise = torch.rand(log_p.shape, generator=self.generator)
        return (log_p - (-noise.log()).log()).argmax(-1).numpy(), carry, {}  # the Gumbel trick samples from pi

    def learn(self, batch, progress):
        done = (batch.terminated | batch.truncated)[:, :, None]  # (T, N, 1)
        return_to_go, known = np.zeros_like(batch.reward), np.zeros(batch.reward.shape, bool)
        g, ended = np.zeros_like(batch.reward[0]), np.zeros(batch.reward.shape[1:], bool)
        for t in reversed(range(len(batch.reward))):  # G_t = r_t + gamma G_{t+1}, within the episode
            g = batch.reward[t] + self.config.gamma * np.where(done[t], 0, g)
            ended |= done[t]
            return_to_go[t], known[t] = g, ended  # the end of the last episodes lies beyond the rollout
        if not known.any():
            return {}
        weight = torch.from_numpy((return_to_go - return_to_go[known].mean()) / (return_to_go[known].std() + 1e-8) * known)
        log_p = torch.stack([self.log_probs(obs) for obs in batch.obs])  # (T, N, A, actions)
        loss = -(log_p.gather(-1, torch.from_numpy(batch.action)[..., None])[..., 0] * weight).sum() / known.sum()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"loss/policy": loss.item(), "entropy": -(log_p.exp() * log_p).sum(-1).mean().item()}

    def state_dict(self):
        state = {f"net.{name}": p.detach().numpy().copy() for name, p in self.net.named_parameters()}
        for k, moments in self.optimiser.state_dict()["state"].items():
            state |= {f"adam.{k}.{name}": x.numpy().copy() for name, x in moments.items()}
        return state | {"rng": self.generator.get_state().numpy().copy()}

    def load_state_dict(self, state):
        tensors, adam = {name: torch.from_numpy(x.copy()) for name, x in state.items()}, {}
        self.net.load_state_dict({name[4:]: x for name, x in tensors.items() if name.startswith("net.")})
        for _, k, name in (name.split(".") for name in state if name.startswith("adam.")):
            adam.setdefault(int(k), {})[name] = tensors[f"adam.{k}.{name}"]
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": adam})
        self.generator.set_state(tensors["rng"])
