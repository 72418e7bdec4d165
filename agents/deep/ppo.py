"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), for discrete and continuous actions.

    for each update:
        1. rollout      for t < num_steps, in N environments:  a ~ pi_old(.|s);  keep log pi_old(a|s) and V_old(s)
        2. advantages   delta_t = r_t + gamma V(s_{t+1}) - V(s_t);  A_t = delta_t + gamma lambda A_{t+1};  R_t = A_t + V(s_t)
        3. loss         ratio = pi(a|s) / pi_old(a|s)
                        L = mean[-min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) + c1 (V(s) - R)^2 / 2 - c2 H(pi(.|s))]
        4. update       update_epochs times, over num_minibatches random parts:  a step of Adam down the gradient of L

1 is `act`, 2 `advantages`, 3 `ppo_loss` of `core_ml/maths/losses.py`, 4 `learn` and `run_epoch`. The equations of 2 are in
`core_ml/maths/returns.py`. Everything else (encoders, beliefs, kernels, GPU) changes where these are computed, not what.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...envs.batch import Native
from ...store.arrays import Array
from ..protocol import Carry, Mode, PartRow, Rollout, RolloutBuffer, Spaces
from ..registry import agent
from ..slots.rewards import Bonuses, Rewards
from ..slots.spec import BeliefSlot
from .actor import Actor
from .parts import ActorConfig, check_finite, configured_steps, metrics_of, scheduled
from .recurrent_actor import RecurrentActor

if TYPE_CHECKING:
    from ...core_ml.learners.types import Coefs
    from ..slots.encoding import Encoding


@agent("ppo")
class PPO:
    """Clipped policy gradient with generalised advantages; one policy shared by all agents of an environment.

    `learner` chooses how the network is computed: "torch" is the reference, "fused" compiled kernels for the networks that
    they know (torch is then not imported). With a `belief` the policy has memory: a minibatch holds whole streams, and the
    gradient goes back through all steps of a rollout. On `device` "cuda" torch works on a GPU, with rollouts of a
    `DeviceCollector`.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    masks: ClassVar[bool] = True

    class Config(ActorConfig):
        num_steps: int = Field(32, ge=1, le=100_000, description="steps per environment between updates")
        update_epochs: int = Field(4, ge=1, le=100, description="passes over each rollout")
        num_minibatches: int = Field(4, ge=1, le=10_000, description="parts of a pass, each with a gradient step")
        learning_rate: float = Field(1e-3, gt=0, le=10, description="of Adam, at the start")
        schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="learning rate over the run")
        gamma: float = Field(0.99, ge=0, le=1, description="discount per step")
        gae_lambda: float = Field(0.95, ge=0, le=1, description="0: one-step advantages; 1: returns minus values")
        clip_coef: float = Field(0.2, gt=0, le=10, description="how far the probability ratio may leave 1")
        value_clip: float | None = Field(None, gt=0, description="how far a value may move per update; null: unlimited")
        ent_coef: float = Field(0.01, ge=0, le=10, description="weight of the entropy bonus")
        ent_coef_final: float | None = Field(None, ge=0, le=10, description="entropy weight at the end, reached linearly")
        vf_coef: float = Field(0.5, ge=0, le=100, description="weight of the value loss")
        max_grad_norm: float = Field(0.5, ge=0, le=1e6, description="0: no clipping")
        target_kl: float | None = Field(None, gt=0, description="stop an update's epochs beyond this KL divergence")
        normalise_advantage: bool = Field(True, description="standardise the advantages of each minibatch")
        belief: BeliefSlot = Field(None, description="component with memory, between observations and network")
        bonus: Bonuses = Field((), description="intrinsic rewards that are added to the world's, such as rnd")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1, device: str = "cpu") -> None:
        self.config, self.device = config, device
        self.actor: Actor | RecurrentActor
        if config.belief:
            self.actor = RecurrentActor("ppo", config, config.belief, spaces, seed, threads, device)
        else:
            self.actor = Actor("ppo", config, spaces, seed, threads, device)
        self.learner, self.note = self.actor.learner, self.actor.note
        self.rewards = Rewards(config.bonus, spaces, config.gamma, seed, device)
        self._samples: Any = None  # the last rollout as the learner takes it; the next one reuses its arrays

    # 1. Rollout: a collector calls `act` num_steps times, steps the environments, and hands all of it to `learn`.

    num_steps = property(configured_steps)

    @property
    def encoding(self) -> Encoding | None:
        """The encoder in its slot; see `protocol.Encodes`."""
        return self.actor.encoding

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        return act(self.actor, obs, carry, mode, mask)

    # 2. Advantages.

    def advantages(self, batch: Rollout) -> tuple[Array, Array]:
        """A_t and the targets R_t = A_t + V(s_t) of the values, float32 (T, N, A)."""
        from ...core_ml.maths.returns import gae

        terminated, truncated = batch.terminated[:, :, None], batch.truncated[:, :, None]  # (T, N, 1)
        value, next_value = batch.extras["value"], self.actor.next_values(batch)
        done, o = terminated | truncated, self.config
        advantage = gae(batch.reward, value, next_value, terminated, done, o.gamma, o.gae_lambda)
        return advantage, advantage + value

    # 3. Loss: `ppo_loss` of core_ml/maths/losses.py, with these coefficients.

    def coefs(self, progress: float) -> Coefs:
        from ...core_ml.learners.types import Coefs

        o = self.config
        final = o.ent_coef if o.ent_coef_final is None else o.ent_coef_final
        return Coefs(o.clip_coef, o.value_clip, o.vf_coef, o.ent_coef + (final - o.ent_coef) * progress)

    # 4. Update.

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        from ...core_ml.maths.returns import explained_variance

        o, actor, learner = self.config, self.actor, self.learner
        learning_rate, coefs = o.learning_rate * scheduled(o.schedule, progress), self.coefs(progress)
        num_samples, num_envs = actor.num_samples(batch), batch.reward.shape[1]
        size = math.ceil(num_samples / min(o.num_minibatches, num_samples))  # of a minibatch
        if self.device != "cpu":
            return self._learn_on_device(batch, size, coefs, learning_rate)
        batch, bonus_metrics = self.rewards.add(batch)
        advantage, target = self.advantages(batch)
        samples = self._samples = actor.samples(batch, advantage, target, self._samples)
        # Neighbouring samples are different environments at the same step, as independent as any two. Large minibatches keep
        # runs of 16 together, because a processor reads long pieces faster.
        block = 16 if size >= 8192 and num_envs >= 256 else 1
        norms: list[float] = []
        epochs = 0
        for _ in range(o.update_epochs):
            permutation = learner.permutation(num_samples, actor.rng.draw(), block=block)
            sums, norms_now = run_epoch(
                learner, samples, permutation, size, coefs, learning_rate, o.max_grad_norm, o.normalise_advantage,
                actor.input.scale(),
            )  # fmt: skip
            norms += norms_now.tolist()
            check_finite(learner, norms[-1], sums)
            epochs += 1
            mean = sums / batch.reward.size
            if o.target_kl is not None and mean[3] > o.target_kl:
                break
        metrics = actor.update_auxiliary(batch, progress)
        explained = explained_variance(batch.extras["value"], target)
        metrics |= metrics_of(mean, explained, learning_rate, sum(norms) / len(norms))
        return metrics | {"update_epochs": float(epochs)} | bonus_metrics

    def _learn_on_device(self, batch: Rollout, size: int, coefs: Coefs, learning_rate: float) -> dict[str, float]:
        """`learn` for a rollout of tensors on a GPU. The host waits for the metrics only (with `target_kl`: each epoch)."""
        from ...core_ml.learners.cuda.actor_critic import DeviceRolloutBuffer

        o, learner, rows = self.config, self.learner, math.prod(batch.reward.shape)
        tensors: Any = batch
        extras = tensors.extras
        learner.take(DeviceRolloutBuffer(
            obs=tensors.obs, action=extras["raw_action"], log_prob=extras["log_prob"], value=extras["value"],
            final_value=extras["final_value"], reward=tensors.reward, terminated=tensors.terminated,
            truncated=tensors.truncated, last_obs=tensors.last_obs,
            mask=tensors.reward.new_empty((*batch.reward.shape, 0)).bool() if tensors.mask is None else tensors.mask,
        ))  # fmt: skip
        learner.advantages(o.gamma, o.gae_lambda)
        epochs = 0
        for _ in range(o.update_epochs):
            learner.epoch(self.actor.rng.draw(), size, coefs, learning_rate, o.max_grad_norm, o.normalise_advantage)
            epochs += 1
            if o.target_kl is not None and learner.kl() > o.target_kl:
                break
        found = learner.report()
        check_finite(learner, found.norms, found.sums)
        steps = epochs * math.ceil(rows / size)
        metrics = metrics_of(found.sums / rows, found.explained_variance, learning_rate, found.norms / steps)
        return metrics | {"update_epochs": float(epochs)}

    # What collectors and checkpoints ask for.

    def initial(self, n: int) -> Carry:
        return self.actor.initial(n)

    def bootstrap_value(self, obs: Array, carry: Carry) -> Array:
        return self.actor.bootstrap_value(obs, carry)

    def can_collect_natively(self, agents: int) -> bool:
        return self.actor.can_collect_natively(agents)

    def collect_natively(self, world: Native, buffer: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        return self.actor.collect_natively(world, buffer, carry)

    def ready(self, steps: int, obs: Any) -> Any:
        """The buffer of the next rollout on the device, and new random numbers for it; see `protocol.OnDevice`."""
        self.learner.begin(self.actor.rng.draw())
        return self.learner.reserve(steps, obs)

    def policy_module(self) -> Any:
        from ._exported import actor_module

        return actor_module(self.actor)

    def parts(self) -> list[PartRow]:
        return self.actor.outline()

    def state_dict(self) -> dict[str, Array]:
        return self.actor.state_dict() | self.rewards.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        self.actor.load_state_dict(self.rewards.load(state))


def act(
    actor: Actor | RecurrentActor, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None
) -> tuple[Array, Carry, dict[str, Array]]:
    """obs (N, A, ...) -> actions (N, A, ...), carry after them, and what learning needs of a sampled action: log pi(a|s) and
    V(s), float32 (N, A), and of a Box the action before it is clipped for the world."""
    if mode == "greedy":
        action, carry = actor.greedy(obs, carry, mask)
        return action, carry, {}
    acted, carry = actor.sample(obs, carry, mask)  # B = N A rows
    action = acted.action.reshape(*obs.shape[:2], *actor.actions.shape)
    return actor.actions.clip(action), carry, actor.actions.extras(acted, obs.shape[:2])


def run_epoch(
    learner: Any, samples: Any, permutation: Array, size: int, coefs: Coefs, learning_rate: float, max_grad_norm: float,
    normalise: bool = True, scale: Array | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """One pass over `samples` in the order `permutation`, int64 (num_samples,): a step of Adam after each `size` of them.

    With `normalise` each minibatch standardises its advantages. Returns the five sums of `ppo_loss`, float64 (5,), and the
    norms of the gradients before clipping: if the last one is not finite, the pass ended there, with parameters as before that
    step and the bad gradient in `learner.parameters.grad`.
    """
    if learner.compiled:  # the same loop in one call of a kernel, which is tested against the lines below
        sums, norms = learner.epoch(samples, permutation, size, coefs, learning_rate, max_grad_norm, normalise, scale)
        return sums, norms
    import torch

    sums, found = np.zeros(5), []
    for index in torch.from_numpy(permutation).split(size):
        advantage = learner.advantage(samples, index)
        if normalise and advantage.numel() > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        sums += learner.gradient(samples, index, advantage, coefs, scale)  # of ppo_loss
        found.append(learner.step(learning_rate, max_grad_norm))
        if not math.isfinite(found[-1]):
            break
    return sums, np.array(found)
