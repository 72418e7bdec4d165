"""What policy gradients share: the network behind an agent, acting with it, and an update in numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import gymnasium
import numpy as np
from pydantic import AfterValidator, Field

from ...envs.batch import Native, finite_bounds, flat_size
from ...store.arrays import Array, check_arrays
from ...store.random_state import generator_state, set_generator_state
from ..protocol import AgentConfig, Carry, Mode, NonFinite, PartRow, Rollout, RolloutBuffer, Spaces
from ..slots.spec import EncoderSlot

if TYPE_CHECKING:
    from ...core_ml.learners.fused import Acted
    from ..slots.encoding import Encoding


def _possible(hidden: tuple[int, ...]) -> tuple[int, ...]:
    if not all(1 <= width <= 8192 for width in hidden):
        raise ValueError("hidden widths must lie in 1..8192")
    return hidden


Widths = Annotated[tuple[int, ...], AfterValidator(_possible)]  # of full layers


class ActorConfig(AgentConfig):
    """Options of an `Actor`, for the agents that have one."""

    encoder: EncoderSlot = Field(None, description="component that makes codes of observations, which the network reads")
    normalise_observation: bool = False
    network: Literal["mlp", "cnn"] = "mlp"
    hidden: Widths = Field((64, 64), max_length=8, description="widths of the full layers; none only behind a belief")
    channels: int = Field(16, ge=1, le=512, description="of the two convolutions of a cnn")
    activation: Literal["tanh", "relu"] = "tanh"
    shared_trunk: bool = Field(True, description="policy and value read the same features")
    learner: Literal["auto", "torch", "fused"] = Field("auto", description="auto: fused kernels where they know the network")
    chunk: int = Field(8192, ge=16, description="rows per gradient pass of one thread, with learner=torch")


class Actor:
    """An actor-critic network with its optimiser, its normaliser and the agent's generator; a part of the agent `name`.

    Discrete and Box actions. `note`: a line for people about who computes the network.
    Raises ValueError for an action space or a network that cannot be.
    """

    def __init__(self, name: str, options: ActorConfig, spaces: Spaces, seed: int, threads: int, device: str = "cpu") -> None:
        from ...core_ml.maths.normalise import RunningNormaliser

        self.name, self.options, self.spaces = name, options, spaces
        self.inputs, action = flat_size(spaces.observation), spaces.action
        shape = spaces.observation.shape or ()
        self.encoding: Encoding | None = None
        if options.encoder:
            from ..slots.encoding import Encoding

            if device != "cpu":
                raise ValueError(f"agent {name}: encoder {options.encoder.name} is for the processor: take device=cpu")
            self.encoding = Encoding(options.encoder, spaces, seed)
            self.inputs = self.encoding.size
            shape = (self.inputs,)
        self.continuous = isinstance(action, gymnasium.spaces.Box)
        if isinstance(action, gymnasium.spaces.Discrete):
            actions = int(action.n)
        elif self.continuous:
            actions = flat_size(action)
        else:
            raise ValueError(f"{name} cannot act in {action}: it needs a Discrete or a Box action space")
        if options.network == "cnn" and len(shape) not in (2, 3):
            raise ValueError(f"a cnn needs observations of 2 or 3 dimensions, these are {shape}: set agent.network=mlp")
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.learner: Any  # a FusedActorCritic, TorchActorCritic or DeviceActorCritic
        self.learner, self.note = self._learner(shape, actions, threads, device)
        self._initialise()
        self.normaliser = RunningNormaliser(self.inputs) if options.normalise_observation else None
        self._acted: Acted | None = None  # memory for what acting gives out, kept from rollout to rollout

    def _initialise(self) -> None:
        self.learner.memory.initialise(self.rng)

    def _learner(self, shape: tuple[int, ...], actions: int, threads: int, device: str) -> tuple[Any, str]:
        """Who computes the network, and a line for people about it."""
        from ...core_ml.learners.fused import FusedActorCritic, MLPSpec

        o = self.options
        if not o.hidden:
            raise ValueError(f"agent {self.name}: hidden=[] leaves no layer: name one width at least, such as [64]")
        network = shape, actions, self.continuous, o.network, o.hidden, o.channels, o.activation, o.shared_trunk
        if device != "cpu":
            from ...core_ml.learners.cuda.actor_critic import DeviceActorCritic
            from ...core_ml.nets.actor_critic import actor_critic

            if o.learner == "fused" or o.normalise_observation:
                fault = "learner=fused" if o.learner == "fused" else "normalise_observation=true"
                raise ValueError(f"agent {self.name}: {fault} is for the processor: leave it out, or take device=cpu")
            there = DeviceActorCritic(actor_critic(*network), device, self.bounds())
            return there, f"learner: torch on {there.place.device}"
        head: Literal["gaussian", "categorical"] = "gaussian" if self.continuous else "categorical"
        spec = MLPSpec(self.inputs, o.hidden, o.activation, o.shared_trunk, head, (actions,))
        misfit = "a cnn is torch's" if o.network == "cnn" else spec.fits()
        if o.learner == "fused" and misfit:
            raise ValueError(f"agent {self.name}: learner=fused cannot do this network, {misfit}: take learner=torch or auto")
        if o.learner != "torch" and not misfit:
            many = f"{threads} threads" if threads > 1 else "1 thread"
            fused = FusedActorCritic(spec, threads=threads)
            wait = "; they compile now, once on this machine, which takes 10 to 20 seconds" if fused.compiles else ""
            return fused, f"learner: fused kernels, {many}{wait}"
        from ...core_ml.learners.torch_actor_critic import TorchActorCritic
        from ...core_ml.nets.actor_critic import actor_critic

        return TorchActorCritic(actor_critic(*network), threads, o.chunk), "learner: torch" + (f" ({misfit})" if misfit else "")

    def act(self, obs: Array, carry: Carry, mode: Mode) -> tuple[Array, Carry, dict[str, Array]]:
        """As `core.Agent.act`; the extras are log-probability, value and, of a Box, the action before it was cut."""
        lead, rows = obs.shape[:2], self.rows(obs)
        if mode == "greedy":
            outputs, _ = self.learner.outputs(rows, self.scale())
            best = outputs if self.continuous else outputs.argmax(1)
            return self._legal(best.reshape(*lead, *self.action_shape)), carry, {}
        acted = self.learner.act(rows, self.draw(), scale=self.scale())
        raw = acted.action.reshape(*lead, *self.action_shape)
        return self._legal(raw), carry, self._extras(acted, lead)

    def initial(self, n: int) -> Carry:
        """Nothing is remembered here."""
        return None

    def bootstrap_value(self, obs: Array, carry: Carry) -> Array:
        """As `core.Bootstrapping.bootstrap_value`."""
        return self.values(obs).reshape(obs.shape[:2])

    def can_collect_natively(self, agents: int) -> bool:
        from ...core_ml.learners.fused import FusedActorCritic

        return (
            self.encoding is None and isinstance(self.learner, FusedActorCritic) and self.learner.can_collect_natively(agents)
        )

    def collect_natively(self, world: Native, kept: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        """As `act`, and the world's steps with it, for all of the rollout `kept`; see `core.CollectsNatively`."""
        lead = kept.reward.shape
        if self._acted is None or len(self._acted.value) != math.prod(lead):
            self._acted = self.learner.buffers(math.prod(lead))
        seeds = np.array([self.draw() for _ in range(lead[0])])
        bounds = self.bounds()
        flat = None if bounds is None else bounds.reshape(2, -1)
        share = self.learner.collect_natively(world, kept, seeds, self._acted, self.scale(), flat)
        return self._extras(self._acted, lead), share, carry

    def _extras(self, acted: Acted, lead: tuple[int, ...]) -> dict[str, Array]:
        """What `learn` wants to know of acting."""
        extras = {"log_prob": acted.log_prob.reshape(lead), "value": acted.value.reshape(lead)}
        if self.continuous:  # the gradient is that of the sampled action, the world gets the clipped one
            extras["raw_action"] = acted.action.reshape(*lead, *self.action_shape)
        return extras

    def values(self, obs: Array) -> Array:
        """V of observations (..., *observation), float32 (B,)."""
        found: Array = self.learner.outputs(self.rows(obs), self.scale())[1]
        return found

    def next_values(self, batch: Rollout) -> Array:
        """V of the observations that the steps of a rollout led to, float32 (T, N, A): the next ones, but where an episode was
        cut its last one. Where it terminated, what stands there means nothing."""
        value, (_, n, a) = batch.extras["value"], batch.reward.shape
        next_value = np.empty_like(value)
        next_value[:-1] = value[1:]
        next_value[-1] = self.values(batch.last_obs).reshape(n, a)
        if len(batch.final_obs):
            next_value[batch.truncated] = self.values(batch.final_obs).reshape(-1, a)
        return next_value

    def parts(self) -> list[PartRow]:
        """As `core.Parted.parts`."""
        o, space = self.options, self.spaces.observation
        rows = [PartRow("observation", type(space).__name__, f"{space.dtype} {space.shape}", 0)]
        if self.encoding:
            rows.append(self.encoding.outline())
        sizes = {name: view.size for name, view in self.learner.memory.views(self.learner.memory.flat).items()}
        rows += self._remembered(sizes)
        head = sum(size for name, size in sizes.items() if not name.startswith("belief_net"))
        means = "means" if self.continuous else "logits"
        count = math.prod(self.action_shape) if self.continuous else int(self.spaces.action.n)  # type: ignore[attr-defined]
        network = f"cnn, {o.channels} channels" if o.network == "cnn" else "mlp"
        widths = " x ".join(map(str, o.hidden))
        rows.append(PartRow("policy, critic", f"{network} {widths} {o.activation}", f"{count} {means}, 1 value", head))
        return rows

    def _remembered(self, sizes: dict[str, int]) -> list[PartRow]:
        return []

    def units(self, batch: Rollout) -> int:
        """How many pieces `order` can shuffle: each step of each agent by itself."""
        return math.prod(batch.reward.shape)

    def records(self, batch: Rollout, advantage: Array, target: Array, out: Any) -> Any:
        """What a rollout is learned from, as the learner's `epoch` wants it; `out`: what it gave before, to be refilled."""
        facts = batch.extras["log_prob"], advantage, target, batch.extras["value"]
        return self.learner.records(self.rows(batch.obs), self.taken(batch), *facts, out)

    def taken(self, batch: Rollout) -> Array:
        """The sampled actions of a rollout, before a Box cut them, as learners read them: (B,), or (B, *shape) of a Box."""
        action = batch.extras["raw_action"] if self.continuous else batch.action
        return action.reshape(batch.reward.size, *[-1] * self.continuous)

    def update_auxiliary(self, batch: Rollout, progress: float) -> dict[str, float]:
        """What is learned from a rollout's observations alone, when the policy has learned from it: scale, encoder. Metrics."""
        if self.normaliser:  # after learning: the rollout was collected, and is learned from, with the same scale
            self.normaliser.update(self.rows(batch.obs))
        return self.encoding.learn(batch, progress, self.rng) if self.encoding else {}

    def draw(self) -> int:
        """A seed for one call of the learner: all randomness comes from the one generator."""
        return int(self.rng.integers(2**62))

    def rows(self, obs: Array) -> Array:
        """(..., *observation) -> (B, D) of a number type that learners read: bytes stay bytes; or the encoder's codes."""
        if self.encoding:
            return self.encoding.codes(obs)
        rows = obs.reshape(-1, self.inputs)
        return rows if rows.dtype in (np.uint8, np.float32) else rows.astype(np.float32)

    def scale(self) -> Array | None:
        return self.normaliser.scale() if self.normaliser else None

    @property
    def action_shape(self) -> tuple[int, ...]:
        return self.spaces.action.shape or () if self.continuous else ()

    def _legal(self, action: Array) -> Array:
        if isinstance(self.spaces.action, gymnasium.spaces.Box):
            return np.clip(action, *finite_bounds(self.spaces.action)).astype(np.float32)
        return action

    def bounds(self) -> Array | None:
        """What actions of a Box are cut to, float32 (2, *its shape)."""
        space = self.spaces.action
        return np.stack(finite_bounds(space)).astype(np.float32) if isinstance(space, gymnasium.spaces.Box) else None

    def check_finite(self, norm: float, sums: Array) -> None:
        """Raise NonFinite, with the first part of the loss or the first gradient that is not finite, if `norm` is not."""
        if math.isfinite(norm):
            return
        for name, value in zip(("policy loss", "value loss", "entropy"), sums.tolist(), strict=False):
            if not math.isfinite(value):
                raise NonFinite(f"{name} is {value}: lower agent.learning_rate, or look at the scale of rewards")
        raise NonFinite(f"gradient of {self.learner.memory.bad_gradient()} is not finite: lower agent.learning_rate")

    def state_dict(self) -> dict[str, Array]:
        """Parameters, optimiser, normaliser and generator; copies."""
        memory: dict[str, Array] = self.learner.memory.state()
        normaliser = self.normaliser.state() if self.normaliser else {}
        state = memory | {f"normaliser.{name}": array for name, array in normaliser.items()}
        state |= self.encoding.state() if self.encoding else {}
        return {name: array.copy() for name, array in state.items()} | {"rng": generator_state(self.rng)}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Put back what `state_dict` gave. Raises ValueError where it is another configuration's."""
        check_arrays(state, self.state_dict(), f"agent {self.name}")
        self.learner.memory.load(state)
        if self.normaliser:
            self.normaliser.load({name.removeprefix("normaliser."): array for name, array in state.items()})
        if self.encoding:
            self.encoding.load(state)
        set_generator_state(self.rng, state["rng"])


def metrics_of(mean: Array, explained: float, learning_rate: float, grad_norm: float) -> dict[str, float]:
    """An update in numbers; `mean` (5,) as learners sum it, by row."""
    policy, value, entropy, kl, clipped = mean.tolist()
    return {
        "loss/policy": policy, "loss/value": value, "entropy": entropy, "kl": kl, "clip_fraction": clipped,
        "explained_variance": explained, "learning_rate": learning_rate, "grad_norm": grad_norm,
    }  # fmt: skip


def scheduled(schedule: str, progress: float) -> float:
    """Factor on the learning rate at `progress` in [0, 1]."""
    if schedule == "linear":
        return max(1 - progress, 0.0)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))) if schedule == "cosine" else 1.0
