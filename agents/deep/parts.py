"""What the deep agents are composed of: observations as a network reads them, actions, random numbers; and their states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import gymnasium
import numpy as np
from pydantic import AfterValidator, Field

from ...envs.batch import finite_bounds, flat_size
from ...store.arrays import Array
from ...store.random_state import generator_state, set_generator_state
from ..protocol import AgentConfig, NonFinite, PartRow, Rollout, Spaces
from ..slots.spec import EncoderSlot

if TYPE_CHECKING:
    from ...core_ml.learners.types import Acted
    from ..slots.encoding import Encoding


def _possible(hidden: tuple[int, ...]) -> tuple[int, ...]:
    if not all(1 <= width <= 8192 for width in hidden):
        raise ValueError("hidden widths must lie in 1..8192")
    return hidden


Widths = Annotated[tuple[int, ...], AfterValidator(_possible)]  # of fully connected layers


class ActorConfig(AgentConfig):
    """Options of the agents that have an `Actor` or a `RecurrentActor`."""

    encoder: EncoderSlot = Field(None, description="component that turns observations into codes, which the network reads")
    normalise_observation: bool = Field(False, description="standardise observations by their running mean and deviation")
    network: Literal["mlp", "cnn"] = Field("mlp", description="fully connected layers, or two convolutions before them")
    hidden: Widths = Field((64, 64), max_length=8, description="widths of the full layers; none only behind a belief")
    channels: int = Field(16, ge=1, le=512, description="of the two convolutions of a cnn")
    activation: Literal["tanh", "relu"] = Field("tanh", description="nonlinearity after each hidden layer")
    shared_trunk: bool = Field(True, description="policy and value read the same features")
    learner: Literal["auto", "torch", "fused"] = Field("auto", description="auto: fused kernels where they know the network")
    chunk: int = Field(8192, ge=16, description="rows per gradient pass of one thread, with learner=torch")


class ObservationInput:
    """Observations as the network reads them: flat, or as an encoder's codes; standardised where `normalise_observation` is on.

    Encoder and normaliser learn from each rollout after the policy has, so that a rollout is collected and learned from with
    the same ones.
    """

    def __init__(self, name: str, options: ActorConfig, spaces: Spaces, seed: int, device: str) -> None:
        from ...core_ml.maths.normalise import RunningNormaliser

        self.space = spaces.observation
        self.shape, self.size = self.space.shape or (), flat_size(self.space)
        self.encoding: Encoding | None = None
        if options.encoder:
            from ..slots.encoding import Encoding

            if device != "cpu":
                raise ValueError(f"agent {name}: encoder {options.encoder.name} is for the processor: take device=cpu")
            self.encoding = Encoding(options.encoder, spaces, seed)
            self.shape, self.size = (self.encoding.size,), self.encoding.size
        self.normaliser = RunningNormaliser(self.size) if options.normalise_observation else None

    def rows(self, obs: Array) -> Array:
        """(..., *observation) -> (B, D), uint8 or float32: bytes stay bytes; or the encoder's codes."""
        if self.encoding:
            return self.encoding.codes(obs)
        rows = obs.reshape(-1, self.size)
        return rows if rows.dtype in (np.uint8, np.float32) else rows.astype(np.float32)

    def scale(self) -> Array | None:
        """What learners standardise rows by, float32 (2, D): see `RunningNormaliser.scale`."""
        return self.normaliser.scale() if self.normaliser else None

    def update(self, batch: Rollout, progress: float, rng: np.random.Generator) -> dict[str, float]:
        """Learn from a rollout's observations; returns metrics."""
        if self.normaliser:
            self.normaliser.update(self.rows(batch.obs))
        return self.encoding.learn(batch, progress, rng) if self.encoding else {}

    def parts(self) -> Parts:
        encoder = ComponentState(self.encoding.component) if self.encoding else None
        return [("normaliser.", self.normaliser), ("encoder.", encoder)]

    def outline(self) -> list[PartRow]:
        rows = [PartRow("observation", type(self.space).__name__, f"{self.space.dtype} {self.space.shape}", 0)]
        return [*rows, self.encoding.outline()] if self.encoding else rows


class ActionOutput:
    """Discrete or Box actions. A policy over a Box is a gaussian: its samples are learned from as they are, and the world gets
    them clipped to the Box. Raises ValueError for another space."""

    def __init__(self, name: str, space: gymnasium.spaces.Space[Any], masked: bool = False) -> None:
        self.space = space
        self.continuous, self._masked = isinstance(space, gymnasium.spaces.Box), masked
        if isinstance(space, gymnasium.spaces.Discrete):
            self.size, self.shape = int(space.n), tuple[int, ...]()  # how many actions, or how many numbers make one
        elif isinstance(space, gymnasium.spaces.Box):
            self.size, self.shape = flat_size(space), space.shape
        else:
            raise ValueError(f"{name} cannot act in {space}: it needs a Discrete or a Box action space")

    @property
    def masked(self) -> int:
        """Actions in a mask, 0: the environment has none."""
        return self.size if self._masked else 0

    @property
    def bounds(self) -> Array | None:
        """What actions of a Box are clipped to, float32 (2, *its shape)."""
        space = self.space
        return np.stack(finite_bounds(space)).astype(np.float32) if isinstance(space, gymnasium.spaces.Box) else None

    def clip(self, action: Array) -> Array:
        """Actions (N, A) or (N, A, *shape) as the world may have them."""
        if isinstance(self.space, gymnasium.spaces.Box):
            return np.clip(action, *finite_bounds(self.space)).astype(np.float32)
        return action

    def extras(self, acted: Acted, lead: tuple[int, ...]) -> dict[str, Array]:
        """What learning needs of a sampled action: log_prob and value (*lead), and of a Box the action before clipping."""
        extras = {"log_prob": acted.log_prob.reshape(lead), "value": acted.value.reshape(lead)}
        if self.continuous:
            extras["raw_action"] = acted.action.reshape(*lead, *self.shape)
        return extras

    def sampled(self, batch: Rollout) -> Array:
        """The sampled actions of a rollout as learners read them: (B,), or (B, D) of a Box, not clipped."""
        action = batch.extras["raw_action"] if self.continuous else batch.action
        return action.reshape(batch.reward.size, *[-1] * self.continuous)


class RandomNumbers:
    """All randomness of an agent: one generator, and seeds drawn from it for the calls of a learner."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(seed))

    def draw(self) -> int:
        return int(self.generator.integers(2**62))

    def state(self) -> dict[str, Array]:
        return {"rng": generator_state(self.generator)}

    def load(self, state: dict[str, Array]) -> None:
        set_generator_state(self.generator, state["rng"])


class Stateful(Protocol):
    """A part of an agent that checkpoints hold."""

    def state(self) -> dict[str, Array]: ...
    def load(self, state: dict[str, Array]) -> None: ...


class ComponentState:
    """A component, which has `state_dict` and `load_state_dict`, as a `Stateful` part."""

    def __init__(self, component: Any) -> None:
        self.component = component

    def state(self) -> dict[str, Array]:
        found: dict[str, Array] = self.component.state_dict()
        return found

    def load(self, state: dict[str, Array]) -> None:
        self.component.load_state_dict(state)


Parts = Sequence[tuple[str, Stateful | None]]  # each with the prefix of its arrays' names in a checkpoint; None: empty


def state_of(parts: Parts) -> dict[str, Array]:
    """Environments of all parts' arrays, named by the part's prefix and the name in the part's own `state`."""
    return {
        f"{prefix}{name}": np.array(array) for prefix, part in parts if part is not None for name, array in part.state().items()
    }


def load_into(parts: Parts, state: dict[str, Array]) -> None:
    """Put back what `state_of` gave for the same parts; other arrays are left alone."""
    for prefix, part in parts:
        if part is not None:
            part.load({name: state[f"{prefix}{name}"] for name in part.state()})


def check_finite(learner: Any, norm: float, sums: Array) -> None:
    """Raise NonFinite, with the first term of the loss or the first gradient that is not finite, if `norm` is not."""
    if math.isfinite(norm):
        return
    for name, value in zip(("policy loss", "value loss", "entropy"), sums[:3].tolist(), strict=True):
        if not math.isfinite(value):
            raise NonFinite(f"{name} is {value}: lower agent.learning_rate, or look at the scale of rewards")
    raise NonFinite(f"gradient of {learner.parameters.bad_gradient()} is not finite: lower agent.learning_rate")


def metrics_of(mean: Array, explained: float, learning_rate: float, grad_norm: float) -> dict[str, float]:
    """Metrics of an update; `mean` (5,): the sums of `ppo_loss` divided by the number of samples."""
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


def configured_steps(self: Any) -> int:
    """Steps to collect before each `learn`: the option `num_steps`."""
    return int(self.config.num_steps)
