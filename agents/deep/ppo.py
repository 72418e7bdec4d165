"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), for discrete and continuous actions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium
import numpy as np
from pydantic import Field, field_validator

from ...envs.core import Native, finite_bounds, flat_size
from ..core import (
    AgentConfig,
    Array,
    Carry,
    Mode,
    NonFinite,
    Rollout,
    Spaces,
    agent,
    check_arrays,
    generator_state,
    set_generator_state,
)

if TYPE_CHECKING:
    from ...core_ml.fused import Acted, Coefs


@agent("ppo")
class PPO:
    """Clipped policy gradient with generalised advantages; one policy shared by all agents of a copy.

    Work per `learn`: `epochs` passes over the rollout in `minibatches` parts. `learner` says who computes the network: "fused",
    compiled kernels in which a tile of rows goes forward and backward while it is in the cache; or "torch", the reference,
    which sums gradients over chunks of `chunk` rows. Both follow the same equations; with "fused" torch is not even imported.
    On `device` "cuda" it is torch on a GPU (`core_ml/device.py`), which learns from rollouts of `DeviceCollector`.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

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

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1, device: str = "cpu") -> None:
        from ...core_ml.normalise import RunningNormaliser

        self.config, self.spaces, self.device = config, spaces, device
        self._inputs, action = flat_size(spaces.observation), spaces.action
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
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.learner: Any  # a FusedActorCritic, EagerActorCritic or DeviceActorCritic
        self.learner, self.note = self._learner(shape, actions, threads, device)
        self.learner.memory.initialise(self.rng)
        self.normaliser = RunningNormaliser(self._inputs) if config.normalise_observation else None
        self._records: Any = None  # memory that is kept from update to update: what is learned from, and what acting gave out
        self._acted: Acted | None = None

    def _learner(self, shape: tuple[int, ...], actions: int, threads: int, device: str) -> tuple[Any, str]:
        """Who computes the network, and a line for people about it."""
        from ...core_ml.fused import FusedActorCritic, MLPSpec

        o = self.config
        network = shape, actions, self.continuous, o.network, o.hidden, o.channels, o.activation, o.shared_trunk
        if device != "cpu":
            from ...core_ml.device import DeviceActorCritic
            from ...core_ml.nets import actor_critic

            if o.learner == "fused" or o.normalise_observation:
                fault = "learner=fused" if o.learner == "fused" else "normalise_observation=true"
                raise ValueError(f"agent ppo: {fault} is for the processor: leave it out, or take device=cpu")
            there = DeviceActorCritic(actor_critic(*network), device, self._bounds())
            return there, f"learner: torch on {there.place.device}"
        head: Literal["gaussian", "categorical"] = "gaussian" if self.continuous else "categorical"
        spec = MLPSpec(self._inputs, o.hidden, o.activation, o.shared_trunk, head, (actions,))
        misfit = "a cnn is torch's" if o.network == "cnn" else spec.fits()
        if o.learner == "fused" and misfit:
            raise ValueError(f"agent ppo: learner=fused cannot do this network, {misfit}: take learner=torch or auto")
        if o.learner != "torch" and not misfit:
            many = f"{threads} threads" if threads > 1 else "1 thread"
            fused = FusedActorCritic(spec, threads=threads)
            wait = "; they compile now, once on this machine, which takes 10 to 20 seconds" if fused.compiles else ""
            return fused, f"learner: fused kernels, {many}{wait}"
        from ...core_ml.eager import EagerActorCritic
        from ...core_ml.nets import actor_critic

        return EagerActorCritic(actor_critic(*network), threads, o.chunk), "learner: torch" + (f" ({misfit})" if misfit else "")

    @property
    def num_steps(self) -> int:
        return int(self.config.num_steps)

    def initial(self, n: int) -> None:
        return None

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        lead, rows = obs.shape[:2], self._rows(obs)
        if mode == "greedy":
            outputs, _ = self.learner.outputs(rows, self._scale())
            best = outputs if self.continuous else outputs.argmax(1)
            return self._legal(best.reshape(*lead, *self._action_shape)), carry, {}
        acted = self.learner.act(rows, self._draw(), scale=self._scale())
        raw = acted.action.reshape(*lead, *self._action_shape)
        return self._legal(raw), carry, self._extras(acted, lead)

    def explores(self, agents: int) -> bool:
        from ...core_ml.fused import FusedActorCritic

        return isinstance(self.learner, FusedActorCritic) and self.learner.explores(agents)

    def explore(self, world: Native, kept: Any) -> tuple[dict[str, Array], float]:
        """As `act`, and the world's steps with it, for all of the rollout `kept`; see `core.Exploring`."""
        lead = kept.reward.shape
        if self._acted is None or len(self._acted.value) != math.prod(lead):
            self._acted = self.learner.buffers(math.prod(lead))
        seeds = np.array([self._draw() for _ in range(lead[0])])
        bounds = self._bounds()
        flat = None if bounds is None else bounds.reshape(2, -1)
        share = self.learner.explore(world, kept, seeds, self._acted, self._scale(), flat)
        return self._extras(self._acted, lead), share

    def ready(self, steps: int, obs: Any) -> Any:
        """Memory on the device, and fresh random numbers there, for a rollout; see `core.OnDevice`."""
        self.learner.begin(self._draw())
        return self.learner.reserve(steps, obs)

    def _extras(self, acted: Acted, lead: tuple[int, ...]) -> dict[str, Array]:
        """What `learn` wants to know of acting."""
        extras = {"log_prob": acted.log_prob.reshape(lead), "value": acted.value.reshape(lead)}
        if self.continuous:  # the gradient is that of the sampled action, the world gets the clipped one
            extras["raw_action"] = acted.action.reshape(*lead, *self._action_shape)
        return extras

    def _draw(self) -> int:
        """A seed for one call of the learner: all randomness comes from the one generator."""
        return int(self.rng.integers(2**62))

    def _rows(self, obs: Array) -> Array:
        """(..., *observation) -> (B, D) of a number type that learners read: bytes stay bytes."""
        rows = obs.reshape(-1, self._inputs)
        return rows if rows.dtype in (np.uint8, np.float32) else rows.astype(np.float32)

    def _scale(self) -> Array | None:
        return self.normaliser.scale() if self.normaliser else None

    @property
    def _action_shape(self) -> tuple[int, ...]:
        return self.spaces.action.shape or () if self.continuous else ()

    def _legal(self, action: Array) -> Array:
        if isinstance(self.spaces.action, gymnasium.spaces.Box):
            return np.clip(action, *finite_bounds(self.spaces.action)).astype(np.float32)
        return action

    def _bounds(self) -> Array | None:
        """What actions of a Box are cut to, float32 (2, *its shape)."""
        space = self.spaces.action
        return np.stack(finite_bounds(space)).astype(np.float32) if isinstance(space, gymnasium.spaces.Box) else None

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        from ...core_ml.fused import Coefs
        from ...core_ml.returns import explained_variance, gae

        o, learner, scale = self.config, self.learner, self._scale()
        t, n, a = batch.reward.shape
        rows = t * n * a
        size = math.ceil(rows / min(o.minibatches, rows))
        learning_rate = o.learning_rate * scheduled(o.schedule, progress)
        final = o.ent_coef if o.ent_coef_final is None else o.ent_coef_final
        coefs = Coefs(o.clip_coef, o.value_clip, o.vf_coef, o.ent_coef + (final - o.ent_coef) * progress)
        if self.device != "cpu":
            return self._learn_on_device(batch, rows, size, coefs, learning_rate)
        value, log_prob = batch.extras["value"], batch.extras["log_prob"]
        terminated, truncated = batch.terminated[:, :, None], batch.truncated[:, :, None]

        # Advantages. The step after t led to obs t+1, except where an episode was cut: there to final_obs.
        next_value = np.empty_like(value)
        next_value[:-1] = value[1:]
        next_value[-1] = learner.outputs(self._rows(batch.last_obs), scale)[1].reshape(n, a)
        if len(batch.final_obs):
            next_value[batch.truncated] = learner.outputs(self._rows(batch.final_obs), scale)[1].reshape(-1, a)
        advantage = gae(batch.reward, value, next_value, terminated, terminated | truncated, o.gamma, o.gae_lambda)
        target = advantage + value

        action = (batch.extras["raw_action"] if self.continuous else batch.action).reshape(rows, *[-1] * self.continuous)
        self._records = learner.records(self._rows(batch.obs), action, log_prob, advantage, target, value, self._records)
        # Rows side by side are different copies in the same step, as independent as any others. Where minibatches are large
        # they go together, because far memory is read faster in longer pieces.
        block = 16 if size >= 8192 and n >= 256 else 1
        norms: list[float] = []
        epochs = 0
        for _ in range(o.epochs):
            order = learner.order(rows, self._draw(), block=block)
            rates = learning_rate, o.max_grad_norm
            sums, found = learner.epoch(self._records, order, size, coefs, *rates, o.normalise_advantage, scale)
            norms += found.tolist()
            if not math.isfinite(norms[-1]):
                self._name_the_source(sums)
            epochs += 1
            if o.target_kl is not None and sums[3] / rows > o.target_kl:
                break
        if self.normaliser:  # after learning: the rollout was collected, and is learned from, with the same scale
            self.normaliser.update(self._rows(batch.obs))
        return _metrics(sums / rows, explained_variance(value, target), learning_rate, sum(norms) / len(norms), epochs)

    def _learn_on_device(self, batch: Rollout, rows: int, size: int, coefs: Coefs, learning_rate: float) -> dict[str, float]:
        """The same steps as above for a rollout of tensors; the host sees nothing of them before they are done."""
        from ...core_ml.device import Memory

        o, learner, extras = self.config, self.learner, batch.extras
        tensors: list[Any] = [batch.obs, *(extras[name] for name in ("raw_action", "log_prob", "value", "final_value"))]
        learner.take(Memory._make([*tensors, *batch[2:6]]))
        learner.advantages(o.gamma, o.gae_lambda)
        epochs = 0
        for _ in range(o.epochs):
            learner.epoch(self._draw(), size, coefs, learning_rate, o.max_grad_norm, o.normalise_advantage)
            epochs += 1
            if o.target_kl is not None and learner.kl() > o.target_kl:
                break
        found = learner.report()
        if not math.isfinite(found.norms):
            self._name_the_source(found.sums)
        steps = epochs * math.ceil(rows / size)
        return _metrics(found.sums / rows, found.explained_variance, learning_rate, found.norms / steps, epochs)

    def _name_the_source(self, sums: Array) -> None:
        """Raise NonFinite with the first part of the loss, or the first gradient, that is not finite."""
        for name, value in zip(("policy loss", "value loss", "entropy"), sums.tolist(), strict=False):
            if not math.isfinite(value):
                raise NonFinite(f"{name} is {value}: lower agent.learning_rate, or look at the scale of rewards")
        raise NonFinite(f"gradient of {self.learner.memory.bad_gradient()} is not finite: lower agent.learning_rate")

    def _state(self) -> dict[str, Array]:
        """Everything but the generator; arrays of our own, not copies."""
        normaliser = self.normaliser.state() if self.normaliser else {}
        memory: dict[str, Array] = self.learner.memory.state()
        return memory | {f"normaliser.{name}": array for name, array in normaliser.items()}

    def state_dict(self) -> dict[str, Array]:
        return {name: array.copy() for name, array in self._state().items()} | {"rng": generator_state(self.rng)}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "agent ppo")
        self.learner.memory.load(state)
        if self.normaliser:
            self.normaliser.load({name.removeprefix("normaliser."): array for name, array in state.items()})
        set_generator_state(self.rng, state["rng"])


def _metrics(mean: Array, explained: float, learning_rate: float, grad_norm: float, epochs: int) -> dict[str, float]:
    """An update in numbers; `mean` (5,) as learners sum it, by row."""
    policy, value, entropy, kl, clipped = mean.tolist()
    return {
        "loss/policy": policy, "loss/value": value, "entropy": entropy, "kl": kl, "clip_fraction": clipped,
        "explained_variance": explained, "learning_rate": learning_rate, "grad_norm": grad_norm, "epochs": float(epochs),
    }  # fmt: skip


def scheduled(schedule: str, progress: float) -> float:
    """Factor on the learning rate at `progress` in [0, 1]."""
    if schedule == "linear":
        return max(1 - progress, 0.0)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))) if schedule == "cosine" else 1.0
