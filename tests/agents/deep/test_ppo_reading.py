"""PPO against an independent one, written from the paper alone in float64 torch (no import from the package but to run it).

Same rollouts and same order of minibatches. The learners compute in float32, so parameters agree up to rounding: within 1e-6
after 5 updates. Each term of the algorithm is needed: without any one of them they differ by more than ten times that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.agents.registry import make_agent
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector

UPDATES, STEPS, ENVS = 5, 32, 16
OPTIONS = {
    "num_steps": STEPS, "update_epochs": 4, "num_minibatches": 4, "learning_rate": 1e-3, "schedule": "linear", "gamma": 0.97,
    "gae_lambda": 0.9, "clip_coef": 0.02, "value_clip": 0.05, "ent_coef": 0.02, "vf_coef": 0.7, "max_grad_norm": 0.5,
    "hidden": (16, 16), "activation": "tanh",
}  # fmt: skip
WITHOUT = [
    "clip", "value clip", "entropy", "value loss", "normalised advantages", "gradient clipping", "schedule", "bootstrapping",
    "lambda",
]  # fmt: skip


class IndependentPPO:
    """Discrete actions, tanh layers, Adam. `without`: a term that is left out."""

    def __init__(self, parameters: dict[str, Any], without: str = "") -> None:
        self.p = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in parameters.items()}
        self.m, self.v = ({name: torch.zeros_like(x) for name, x in self.p.items()} for _ in range(2))
        self.t, self.without = 0, without

    def network(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (..., actions) and values (...)."""
        p, x = self.p, obs
        for layer in (0, 2):
            x = torch.tanh(x @ p[f"policy_trunk.{layer}.weight"].T + p[f"policy_trunk.{layer}.bias"])
        logits = x @ p["policy_head.weight"].T + p["policy_head.bias"]
        value = x @ p["value_head.weight"].T + p["value_head.bias"]
        return logits - logits.logsumexp(-1, keepdim=True), value[..., 0]

    def learn(self, batch: Any, orders: list[Any], progress: float) -> None:
        o, without = OPTIONS, self.without
        obs, action = torch.tensor(batch.obs[:, :, 0], dtype=torch.float64), torch.tensor(batch.action[:, :, 0])
        with torch.no_grad():
            log_p, value = self.network(obs)
            old = log_p.gather(2, action[..., None])[..., 0].reshape(-1)
            last = self.network(torch.tensor(batch.last_obs[:, 0], dtype=torch.float64))[1]
            final = self.network(torch.tensor(batch.final_obs[:, 0], dtype=torch.float64))[1].tolist()
        # Advantages, from the last step of each environment to the first.
        advantage = torch.zeros(STEPS, ENVS, dtype=torch.float64)
        after = {(t, n): final.pop(0) for t in range(STEPS) for n in range(ENVS) if batch.truncated[t, n]}
        lam = 1.0 if without == "lambda" else o["gae_lambda"]
        for n in range(ENVS):
            running = 0.0
            for t in reversed(range(STEPS)):
                following = float(value[t + 1, n] if t + 1 < STEPS else last[n])
                if batch.truncated[t, n]:
                    following = 0.0 if without == "bootstrapping" else after[t, n]
                if batch.terminated[t, n]:
                    following = 0.0
                if batch.truncated[t, n] or batch.terminated[t, n]:
                    running = 0.0
                delta = float(batch.reward[t, n, 0]) + o["gamma"] * following - float(value[t, n])
                running = advantage[t, n] = delta + o["gamma"] * lam * running
        advantage, value, obs, action = advantage.reshape(-1), value.reshape(-1), obs.reshape(-1, 4), action.reshape(-1)
        target, rate = advantage + value, o["learning_rate"] * (1.0 if without == "schedule" else 1 - progress)
        for order in orders:
            size = len(order) // o["num_minibatches"]
            for k in range(o["num_minibatches"]):
                i = torch.tensor(order[k * size : (k + 1) * size])
                self.step(obs[i], action[i], old[i], advantage[i], value[i], target[i], rate)

    def step(self, obs: Any, action: Any, old: Any, advantage: Any, old_value: Any, target: Any, rate: float) -> None:
        """One minibatch: the loss, its gradient, Adam."""
        o, without = OPTIONS, self.without
        if without != "normalised advantages":
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        log_p, value = self.network(obs)
        ratio = (log_p.gather(1, action[:, None])[:, 0] - old).exp()
        gain = ratio * advantage
        if without != "clip":
            gain = torch.min(gain, ratio.clamp(1 - o["clip_coef"], 1 + o["clip_coef"]) * advantage)
        error = (value - target) ** 2
        if without != "value clip":
            moved = old_value + (value - old_value).clamp(-o["value_clip"], o["value_clip"])
            error = torch.max(error, (moved - target) ** 2)
        entropy = -(log_p.exp() * log_p).sum(1)
        loss = -gain.mean()
        loss = loss + (0.0 if without == "value loss" else o["vf_coef"]) * 0.5 * error.mean()
        loss = loss - (0.0 if without == "entropy" else o["ent_coef"]) * entropy.mean()
        grads = dict(zip(self.p, torch.autograd.grad(loss, list(self.p.values())), strict=True))
        norm = sum((g**2).sum() for g in grads.values()) ** 0.5
        shrink = 1.0 if without == "gradient clipping" else min(1.0, o["max_grad_norm"] / float(norm + 1e-6))
        self.t += 1
        with torch.no_grad():
            for name, g in grads.items():
                g = g * shrink
                self.m[name] = 0.9 * self.m[name] + 0.1 * g
                self.v[name] = 0.999 * self.v[name] + 0.001 * g * g
                m, v = self.m[name] / (1 - 0.9**self.t), self.v[name] / (1 - 0.999**self.t)
                self.p[name] -= rate * m / (v.sqrt() + 1e-5)


def parameters(agent: Any) -> dict[str, Any]:
    return {name.removeprefix("model."): x for name, x in agent.state_dict().items() if name.startswith("model.")}


def differences(learner: str, without: list[str]) -> list[float]:
    """The largest difference of a parameter after the updates, to an independent PPO without each of these terms."""
    torch.set_num_threads(1)
    env = make("cartpole", {"time_limit": 20}, num_envs=ENVS, seed=1)
    agent: Any = make_agent("ppo", {**OPTIONS, "learner": learner}, env, 2)
    others = [IndependentPPO(parameters(agent), name) for name in without]
    orders: list[Any] = []
    draw = agent.learner.permutation
    agent.learner.permutation = lambda *args, **options: orders.append(draw(*args, **options)) or orders[-1]
    collector = Collector(env, agent)
    collector.begin(env.reset(3))
    ends = np.zeros(2, int)
    for update in range(UPDATES):
        batch = collector.rollout(STEPS)
        ends += batch.terminated.sum(), batch.truncated.sum()
        agent.learn(batch, update / UPDATES)
        for other in others:
            other.learn(batch, orders[-4:], update / UPDATES)
    assert (ends > 5).all() and len(orders) == 4 * UPDATES  # both ways in which an episode ends
    mine = parameters(agent)
    return [max(float(np.abs(mine[n] - x.detach().numpy()).max()) for n, x in other.p.items()) for other in others]


@pytest.mark.parametrize("learner", ["torch", "fused"])
def test_five_updates_are_those_of_an_independent_ppo(learner: str) -> None:
    assert differences(learner, [""])[0] < 1e-6


def test_each_term_is_needed() -> None:
    for name, difference in zip(WITHOUT, differences("torch", WITHOUT), strict=True):
        assert difference > 1e-5, name
