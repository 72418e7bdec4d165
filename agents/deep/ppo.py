"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), for discrete and continuous actions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ...envs.batch import Native
from ...store.arrays import Array
from ..protocol import Carry, Mode, PartRow, Rollout, RolloutBuffer, Spaces
from ..registry import agent
from ..slots.rewards import Bonuses, Rewards
from ..slots.spec import BeliefSlot
from .actor import Actor, ActorConfig, metrics_of, scheduled

if TYPE_CHECKING:
    from ...core_ml.learners.fused import Coefs


@agent("ppo")
class PPO:
    """Clipped policy gradient with generalised advantages; one policy shared by all agents of a copy.

    Work per `learn`: `update_epochs` passes over the rollout in `num_minibatches` parts. `learner` says who computes the
    network: "fused", compiled kernels in which a tile of rows goes forward and backward while it is in the cache; or "torch",
    the reference, which sums gradients over chunks of `chunk` rows. Both follow the same equations; with "fused" torch is not
    even imported. With a `belief` it remembers: minibatches are whole streams, and the gradient goes back through all steps of
    a rollout. On `device` "cuda" it is torch on a GPU (`core_ml/learners/cuda/actor_critic.py`), which learns from rollouts of
    `DeviceCollector`.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    class Config(ActorConfig):
        num_steps: int = Field(32, ge=1, le=100_000, description="steps per copy between updates")
        update_epochs: int = Field(4, ge=1, le=100)
        num_minibatches: int = Field(4, ge=1, le=10_000)
        learning_rate: float = Field(1e-3, gt=0, le=10)
        schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="learning rate over the run")
        gamma: float = Field(0.99, ge=0, le=1)
        gae_lambda: float = Field(0.95, ge=0, le=1)
        clip_coef: float = Field(0.2, gt=0, le=10)
        value_clip: float | None = Field(None, gt=0, description="how far a value may move per update; null: unlimited")
        ent_coef: float = Field(0.01, ge=0, le=10)
        ent_coef_final: float | None = Field(None, ge=0, le=10, description="entropy weight at the end, reached linearly")
        vf_coef: float = Field(0.5, ge=0, le=100)
        max_grad_norm: float = Field(0.5, ge=0, le=1e6, description="0: no clipping")
        target_kl: float | None = Field(None, gt=0, description="stop an update's epochs beyond this KL divergence")
        normalise_advantage: bool = True
        belief: BeliefSlot = Field(None, description="component that remembers, between observations and network")
        bonus: Bonuses = Field((), description="parts of the reward beside the world's, such as rnd")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1, device: str = "cpu") -> None:
        self.config, self.device = config, device
        if config.belief:
            from .recurrent_actor import RecurrentActor

            self.actor: Actor = RecurrentActor("ppo", config, config.belief, spaces, seed, threads, device)
        else:
            self.actor = Actor("ppo", config, spaces, seed, threads, device)
        self.learner, self.note = self.actor.learner, self.actor.note
        self.rewards = Rewards(config.bonus, spaces, config.gamma, seed, device)
        self._records: Any = None  # memory for what is learned from, kept from update to update

    @property
    def num_steps(self) -> int:
        return int(self.config.num_steps)

    def initial(self, n: int) -> Carry:
        return self.actor.initial(n)

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        return self.actor.act(obs, carry, mode)

    def bootstrap_value(self, obs: Array, carry: Carry) -> Array:
        return self.actor.bootstrap_value(obs, carry)

    def can_collect_natively(self, agents: int) -> bool:
        return self.actor.can_collect_natively(agents)

    def collect_natively(self, world: Native, kept: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        return self.actor.collect_natively(world, kept, carry)

    def ready(self, steps: int, obs: Any) -> Any:
        """Memory on the device, and fresh random numbers there, for a rollout; see `core.OnDevice`."""
        self.learner.begin(self.actor.draw())
        return self.learner.reserve(steps, obs)

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        from ...core_ml.learners.fused import Coefs
        from ...core_ml.maths.returns import explained_variance, gae

        o, actor, learner, scale = self.config, self.actor, self.learner, self.actor.scale()
        rows, units, copies = math.prod(batch.reward.shape), actor.units(batch), batch.reward.shape[1]
        size = math.ceil(units / min(o.num_minibatches, units))
        learning_rate = o.learning_rate * scheduled(o.schedule, progress)
        final = o.ent_coef if o.ent_coef_final is None else o.ent_coef_final
        coefs = Coefs(o.clip_coef, o.value_clip, o.vf_coef, o.ent_coef + (final - o.ent_coef) * progress)
        if self.device != "cpu":
            return self._learn_on_device(batch, rows, size, coefs, learning_rate)
        batch, paid = self.rewards.add(batch)
        value = batch.extras["value"]
        terminated, truncated = batch.terminated[:, :, None], batch.truncated[:, :, None]

        next_value = actor.next_values(batch)
        advantage = gae(batch.reward, value, next_value, terminated, terminated | truncated, o.gamma, o.gae_lambda)
        target = advantage + value

        self._records = actor.records(batch, advantage, target, self._records)
        # Rows side by side are different copies in the same step, as independent as any others. Where minibatches are large
        # they go together, because far memory is read faster in longer pieces.
        block = 16 if size >= 8192 and copies >= 256 else 1
        norms: list[float] = []
        epochs = 0
        for _ in range(o.update_epochs):
            order = learner.order(units, actor.draw(), block=block)
            rates = learning_rate, o.max_grad_norm
            sums, norms_now = learner.epoch(self._records, order, size, coefs, *rates, o.normalise_advantage, scale)
            norms += norms_now.tolist()
            actor.check_finite(norms[-1], sums)
            epochs += 1
            if o.target_kl is not None and sums[3] / rows > o.target_kl:
                break
        found = actor.update_auxiliary(batch, progress) | metrics_of(
            sums / rows, explained_variance(value, target), learning_rate, sum(norms) / len(norms)
        )
        return found | {"update_epochs": float(epochs)} | paid

    def _learn_on_device(self, batch: Rollout, rows: int, size: int, coefs: Coefs, learning_rate: float) -> dict[str, float]:
        """The same steps as above for a rollout of tensors; the host sees nothing of them before they are done."""
        from ...core_ml.learners.cuda.actor_critic import Memory

        o, learner, extras = self.config, self.learner, batch.extras
        tensors: list[Any] = [batch.obs, *(extras[name] for name in ("raw_action", "log_prob", "value", "final_value"))]
        learner.take(Memory._make([*tensors, *batch[2:6]]))
        learner.advantages(o.gamma, o.gae_lambda)
        epochs = 0
        for _ in range(o.update_epochs):
            learner.epoch(self.actor.draw(), size, coefs, learning_rate, o.max_grad_norm, o.normalise_advantage)
            epochs += 1
            if o.target_kl is not None and learner.kl() > o.target_kl:
                break
        found = learner.report()
        self.actor.check_finite(found.norms, found.sums)
        steps = epochs * math.ceil(rows / size)
        metrics = metrics_of(found.sums / rows, found.explained_variance, learning_rate, found.norms / steps)
        return metrics | {"update_epochs": float(epochs)}

    def policy_module(self) -> Any:
        from .exported import actor_module

        return actor_module(self.actor)

    def parts(self) -> list[PartRow]:
        return self.actor.parts()

    def state_dict(self) -> dict[str, Array]:
        return self.actor.state_dict() | self.rewards.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        self.actor.load_state_dict(self.rewards.load(state))
