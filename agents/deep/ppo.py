"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), for discrete and continuous actions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np
from pydantic import Field, field_validator

from ...envs.core import finite_bounds, flat_size
from ..core import AgentConfig, Array, Mode, NonFinite, Rollout, Spaces, agent, check_arrays

if TYPE_CHECKING:
    from torch import Tensor

    from ...core_ml.fused import FusedActorCritic, Records
    from ...core_ml.nets import ActorCritic

Epoch = Callable[[], tuple[list[float], list[float]]]
SHARED_FROM = 1024  # rows of a forward pass; fewer are done sooner than a second thread is awake


@agent("ppo")
class PPO:
    """Clipped policy gradient with generalised advantages; one policy shared by all agents of a copy.

    Work per `learn`: `epochs` passes over the rollout in `minibatches` parts. `learner` says who does it: "fused", compiled
    kernels in which a tile of rows goes forward and backward while it is in the cache; or "torch", the reference, which
    sums gradients over chunks of `chunk` rows. Both work on the same tensors and follow the same equations.
    """

    class Config(AgentConfig):
        num_steps: int = Field(32, ge=1, le=100_000, description="steps per copy between updates")
        epochs: int = Field(4, ge=1, le=100)
        minibatches: int = Field(4, ge=1, le=10_000)
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
        normalise_observation: bool = False
        network: Literal["mlp", "cnn"] = "mlp"
        hidden: tuple[int, ...] = Field((64, 64), min_length=1, max_length=8, description="widths of the full layers")
        channels: int = Field(16, ge=1, le=512, description="of the two convolutions of a cnn")
        activation: Literal["tanh", "relu"] = "tanh"
        shared_trunk: bool = Field(True, description="policy and value read the same features")
        learner: Literal["auto", "torch", "fused"] = Field(
            "auto", description="auto: fused kernels where they know the network"
        )
        chunk: int = Field(8192, ge=16, description="rows per gradient pass of one thread, with learner=torch")

        @field_validator("hidden")
        @classmethod
        def _widths(cls, hidden: tuple[int, ...]) -> tuple[int, ...]:
            if not all(1 <= width <= 8192 for width in hidden):
                raise ValueError("hidden widths must lie in 1..8192")
            return hidden

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        import torch

        from ...core_ml.nets import ActorCritic
        from ...core_ml.normalise import RunningNormaliser
        from ...core_ml.optim import FlatAdam
        from ...core_ml.parallel import Replicas

        self.config, self.spaces = config, spaces
        action = spaces.action
        self.continuous = isinstance(action, gymnasium.spaces.Box)
        if isinstance(action, gymnasium.spaces.Discrete):
            actions = int(action.n)
        elif self.continuous:
            actions = flat_size(action)
        else:
            raise ValueError(f"ppo cannot act in {action}: it needs a Discrete or a Box action space")
        shape = spaces.observation.shape or ()
        if config.network == "cnn" and len(shape) not in (2, 3):
            raise ValueError(f"a cnn needs observations of 2 or 3 dimensions, these are {shape}: set agent.network=mlp")
        self.generator = torch.Generator().manual_seed(seed)
        self.model = ActorCritic(
            shape, actions, self.continuous, config.network,
            config.hidden, config.channels, config.activation, config.shared_trunk, self.generator,
        )  # fmt: skip
        self.optimiser = FlatAdam(self.model)
        self.replicas = Replicas(self.model, self.optimiser, threads)
        self.normaliser = RunningNormaliser(flat_size(spaces.observation)) if config.normalise_observation else None
        self.fused, self.note = self._fused(actions, threads)
        self._records: Records | None = None  # memory that the kernels learn from, kept from update to update

    def _fused(self, actions: int, threads: int) -> tuple[FusedActorCritic | None, str]:
        """The kernels that do this network, or None for torch; and a line for people about it."""
        from ...core_ml.fused import FusedActorCritic, MLPSpec

        o = self.config
        head: Literal["gaussian", "categorical"] = "gaussian" if self.continuous else "categorical"
        spec = MLPSpec(flat_size(self.spaces.observation), o.hidden, o.activation, o.shared_trunk, head, (actions,))
        misfit = "a cnn is torch's" if o.network == "cnn" else spec.fits()
        if o.learner == "fused" and misfit:
            raise ValueError(f"agent ppo: learner=fused cannot do this network, {misfit}: take learner=torch or auto")
        if o.learner == "torch" or misfit:
            return None, "learner: torch" + (f" ({misfit})" if misfit else "")
        many = f"{threads} threads" if threads > 1 else "1 thread"
        return FusedActorCritic(spec, self.optimiser, threads), f"learner: fused kernels, {many}"

    @property
    def num_steps(self) -> int:
        return int(self.config.num_steps)

    def initial(self, n: int) -> None:
        return None

    def _features(self, obs: Array | Tensor) -> Tensor:
        """(..., *observation) -> float32 (B, D); bytes become floats here, row by row, not in storage."""
        import torch

        rows = torch.as_tensor(obs).reshape(-1, flat_size(self.spaces.observation)).float()
        if rows.data_ptr() % 64:  # numpy's memory: a matrix product's last bit depends on where its operands begin
            rows = rows.clone()
        return self.normaliser(rows) if self.normaliser else rows

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Any, dict[str, Array]]:
        if self.fused:
            return self._act_fused(self.fused, obs, carry, mode)
        import torch

        from ...core_ml.parallel import one_thread_each

        one_thread_each()
        lead = obs.shape[:2]
        with torch.inference_mode():
            rows = self._features(obs)
            if mode == "greedy":
                return (
                    self._legal(self.model.policy(rows).mode().numpy().reshape(*lead, *self._action_shape)),
                    carry,
                    {},
                )
            distribution, value = self.model.split(self._outputs(rows))
            action = distribution.sample(self.generator)
            log_prob = distribution.log_prob(action)
        raw = action.numpy().reshape(*lead, *self._action_shape)
        extras = {"log_prob": log_prob.numpy().reshape(lead), "value": value.numpy().reshape(lead)}
        if self.continuous:
            extras["raw_action"] = raw  # the gradient is that of the sampled action, the world gets the clipped one
        return self._legal(raw), carry, extras

    def _act_fused(self, fused: FusedActorCritic, obs: Array, carry: Any, mode: Mode) -> tuple[Array, Any, dict[str, Array]]:
        lead, rows, scale = obs.shape[:2], self._plain(obs), self._scale()
        if mode == "greedy":
            outputs = fused.outputs(rows, scale)[0]
            return (
                self._legal((outputs if self.continuous else outputs.argmax(1)).reshape(*lead, *self._action_shape)),
                carry,
                {},
            )
        acted = fused.act(rows, self._draw(), 0, scale)
        raw = acted.action.reshape(*lead, *self._action_shape)
        extras = {"log_prob": acted.log_prob.reshape(lead), "value": acted.value.reshape(lead)}
        return self._legal(raw), carry, extras | ({"raw_action": raw} if self.continuous else {})

    def _draw(self) -> int:
        """A seed for one call of the kernels: all randomness comes from the one generator."""
        import torch

        return int(torch.randint(2**62, (), generator=self.generator))

    def _plain(self, obs: Array) -> Array:
        """(..., *observation) -> (B, D) of a number type that the kernels read: bytes stay bytes."""
        rows = obs.reshape(-1, flat_size(self.spaces.observation))
        return rows if rows.dtype in (np.uint8, np.float32) else rows.astype(np.float32)

    def _scale(self) -> Array | None:
        """What the kernels normalise observations with, float32 (2, D): mean, 1 / deviation."""
        return self.normaliser.scale() if self.normaliser else None

    def _values(self, obs: Array) -> Tensor:
        """V of observations, float32 (B,)."""
        import torch

        if self.fused:
            return torch.from_numpy(self.fused.outputs(self._plain(obs), self._scale())[1])
        with torch.inference_mode():
            return self.model.value(self._features(obs))

    def _outputs(self, rows: Tensor) -> Tensor:
        """The model's outputs for many rows, a share of them on each thread where there are enough."""
        import torch

        if len(rows) < SHARED_FROM or self.replicas.workers == 1:
            return self.model.outputs(rows)
        parts = rows.chunk(self.replicas.workers)
        return torch.cat(self.replicas.each(_outputs_of, parts))

    @property
    def _action_shape(self) -> tuple[int, ...]:
        return self.spaces.action.shape or () if self.continuous else ()

    def _legal(self, action: Array) -> Array:
        if isinstance(self.spaces.action, gymnasium.spaces.Box):
            return np.clip(action, *finite_bounds(self.spaces.action)).astype(np.float32)
        return action

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        import torch

        from ...core_ml.parallel import one_thread_each
        from ...core_ml.returns import explained_variance, gae

        one_thread_each()
        o = self.config
        t, n, a = batch.reward.shape
        value, reward = torch.from_numpy(batch.extras["value"]), torch.from_numpy(batch.reward)
        terminated = torch.from_numpy(batch.terminated).unsqueeze(-1)
        truncated = torch.from_numpy(batch.truncated).unsqueeze(-1)

        # Advantages. The step after t led to obs t+1, except where an episode was cut: there to final_obs.
        next_value = torch.empty_like(value)
        next_value[:-1] = value[1:]
        next_value[-1] = self._values(batch.last_obs).view(n, a)
        if len(batch.final_obs):
            next_value[truncated.squeeze(-1)] = self._values(batch.final_obs).view(-1, a)
        advantage = gae(reward, value, next_value, terminated, terminated | truncated, o.gamma, o.gae_lambda)
        target = advantage + value

        rows = t * n * a
        learning_rate = o.learning_rate * scheduled(o.schedule, progress)
        final = o.ent_coef if o.ent_coef_final is None else o.ent_coef_final
        ent_coef = o.ent_coef + (final - o.ent_coef) * progress
        prepare = self._with_kernels if self.fused else self._with_torch
        epoch = prepare(batch, advantage, target, ent_coef, learning_rate, math.ceil(rows / min(o.minibatches, rows)))
        norms: list[float] = []
        epochs = 0
        for _ in range(o.epochs):
            sums, found = epoch()
            norms += found
            if not math.isfinite(norms[-1]):
                self._name_the_source(sums)
            epochs += 1
            if o.target_kl is not None and sums[3] / rows > o.target_kl:
                break
        if self.normaliser:  # after learning: the rollout was collected, and is learned from, with the same scale
            self.normaliser.update(torch.from_numpy(batch.obs).view(rows, -1))
        mean = [part / rows for part in sums]
        return {
            "loss/policy": mean[0], "loss/value": mean[1], "entropy": mean[2], "kl": mean[3], "clip_fraction": mean[4],
            "explained_variance": float(explained_variance(value, target)), "learning_rate": learning_rate,
            "grad_norm": sum(norms) / len(norms), "epochs": float(epochs),
        }  # fmt: skip

    def _with_kernels(
        self, batch: Rollout, advantage: Tensor, target: Tensor, ent_coef: float, learning_rate: float, size: int
    ) -> Epoch:
        """As `_with_torch`, by the fused kernels."""
        from ...core_ml.fused import Coefs

        assert self.fused
        o, fused, scale = self.config, self.fused, self._scale()
        action = batch.extras["raw_action"] if self.continuous else batch.action
        log_prob, value = batch.extras["log_prob"].reshape(-1), batch.extras["value"].reshape(-1)
        advantages, targets = advantage.numpy().reshape(-1), target.numpy().reshape(-1)
        records = fused.records(self._plain(batch.obs), action, log_prob, advantages, targets, value, self._records)
        self._records = records
        coefs = Coefs(o.clip_coef, o.value_clip, o.vf_coef, ent_coef)

        def epoch() -> tuple[list[float], list[float]]:
            order = fused.order(advantage.numel(), self._draw(), 0)
            sums, norms = fused.epoch(records, order, size, coefs, learning_rate, o.max_grad_norm, o.normalise_advantage, scale)
            return sums.tolist(), norms.tolist()

        return epoch

    def _with_torch(
        self, batch: Rollout, advantage: Tensor, target: Tensor, ent_coef: float, learning_rate: float, size: int
    ) -> Epoch:
        """One pass over the rollout's rows in random order, in minibatches of `size`, a step of Adam after each.

        It returns policy loss, value loss, entropy, KL and clipped rows, summed over rows, and the gradients' norms; a norm
        that is not finite is the last one, and its step was not made.
        """
        import torch

        from ...core_ml.losses import ppo_policy, value_error

        o, rows = self.config, advantage.numel()
        # Everything as rows (T * N * A, ...), what belongs to a row side by side: one gather fetches it.
        obs = torch.from_numpy(batch.obs).view(rows, -1)
        action = torch.from_numpy(batch.extras["raw_action"] if self.continuous else batch.action)
        action = action.view(rows, -1) if self.continuous else action.view(rows)
        log_prob, value = (torch.from_numpy(batch.extras[name]) for name in ("log_prob", "value"))
        facts = torch.stack([x.reshape(rows) for x in (log_prob, advantage, target, value)], 1)  # (rows, 4)

        def gradient(model: ActorCritic, chunk: tuple[Tensor, Tensor, Tensor, int]) -> Tensor:
            """Add one chunk's share of the minibatch's gradient; the summed parts of the loss, for the metrics."""
            index, known, weight, whole = chunk
            old_log_prob, _, goal, old_value = known.unbind(1)
            distribution, new_value = model(self._features(obs.index_select(0, index)))
            new_log_prob = distribution.log_prob(action.index_select(0, index))
            policy_loss, kl, clipped = ppo_policy(new_log_prob, old_log_prob, weight, o.clip_coef)
            value_loss = value_error(new_value, old_value, goal, o.value_clip)
            entropy = distribution.entropy().sum()
            loss = (policy_loss + o.vf_coef * value_loss - ent_coef * entropy) / whole
            loss.backward()
            return torch.stack([policy_loss.detach(), value_loss.detach(), entropy.detach(), kl, clipped])

        def epoch() -> tuple[list[float], list[float]]:
            sums, norms = torch.zeros(5), []
            for part in torch.randperm(rows, generator=self.generator).split(size):
                facts_part = facts.index_select(0, part)
                weights = facts_part[:, 1]
                if o.normalise_advantage and len(part) > 1:
                    weights = (weights - weights.mean()) / (weights.std() + 1e-8)
                self.replicas.zero_grad()
                pieces = zip(part.split(o.chunk), facts_part.split(o.chunk), weights.split(o.chunk), strict=True)
                for piece in self.replicas.each(gradient, [(*chunk, len(part)) for chunk in pieces]):
                    sums += piece
                self.replicas.gather()
                norms.append(self.optimiser.step(learning_rate, o.max_grad_norm))
                if not math.isfinite(norms[-1]):
                    break
            return sums.tolist(), norms

        return epoch

    def _name_the_source(self, sums: list[float]) -> None:
        """Raise NonFinite with the first part of the loss, or the first gradient, that is not finite."""
        for name, value in zip(("policy loss", "value loss", "entropy"), sums, strict=False):
            if not math.isfinite(value):
                raise NonFinite(f"{name} is {value}: lower agent.learning_rate, or look at the scale of rewards")
        raise NonFinite(f"gradient of {self.optimiser.bad_gradient()} is not finite: lower agent.learning_rate")

    def state_dict(self) -> dict[str, Array]:
        import torch  # noqa: F401  (tensors below)

        state = {f"model.{k}": v for k, v in self.model.state_dict().items() if not self._alias(k)}
        state |= {f"optimiser.{k}": v for k, v in self.optimiser.state().items()}
        state |= {f"normaliser.{k}": v for k, v in self.normaliser.state().items()} if self.normaliser else {}
        state["generator"] = self.generator.get_state()
        return {k: v.detach().numpy().copy() for k, v in state.items()}

    def _alias(self, name: str) -> bool:
        """A shared trunk is one set of parameters under two names."""
        return bool(self.config.shared_trunk) and name.startswith("value_trunk.")

    def load_state_dict(self, state: dict[str, Array]) -> None:
        import torch

        check_arrays(state, self.state_dict(), "agent ppo")
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
        with torch.no_grad():
            for name, parameter in self.model.state_dict().items():
                if not self._alias(name):
                    parameter.copy_(tensors[f"model.{name}"])
        self.optimiser.load({k.removeprefix("optimiser."): v for k, v in tensors.items() if k.startswith("optimiser.")})
        if self.normaliser:
            self.normaliser.load({k.removeprefix("normaliser."): v for k, v in tensors.items() if "normaliser." in k})
        self.generator.set_state(tensors["generator"])


def _outputs_of(model: ActorCritic, rows: Tensor) -> Tensor:
    import torch

    with torch.inference_mode():  # a setting of each thread
        return model.outputs(rows)


def scheduled(schedule: str, progress: float) -> float:
    """Factor on the learning rate at `progress` in [0, 1]."""
    if schedule == "linear":
        return max(1 - progress, 0.0)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))) if schedule == "cosine" else 1.0
