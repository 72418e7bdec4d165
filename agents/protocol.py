"""What an agent is: the protocol that the runtime drives, and the registry of algorithms."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import gymnasium
from pydantic import BaseModel, ConfigDict

from ..envs.batch import BatchEnv, Native, Step
from ..envs.world import World
from ..store.arrays import Array

Mode = Literal["sample", "greedy"]
Carry = dict[str, Array] | None  # what an agent remembers of each copy's episode; the first axis of each array is the copy


class AgentConfig(BaseModel):
    """Options of an algorithm. Subclass it; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Spaces(NamedTuple):
    """What an agent needs to know of the environment it is made for."""

    observation: gymnasium.spaces.Space[Any]  # of one agent
    action: gymnasium.spaces.Space[Any]
    num_agents: int
    world: World | None = None  # the rules, for agents that are told them (planners, Bayes-optimal play); None: not ours
    masked: bool = False  # the environment has action masks

    @classmethod
    def of(cls, env: BatchEnv) -> Spaces:
        world, masked = getattr(env, "world", None), env.action_mask() is not None
        return cls(env.observation_space, env.action_space, env.num_agents, world, masked)


class Rollout(NamedTuple):
    """T steps of N copies with A agents, as collected. Arrays are reused: valid until the next collection."""

    obs: Array  # (T, N, A, ...)
    action: Array  # (T, N, A) int64 or (T, N, A, D) float32
    reward: Array  # float32 (T, N, A)
    terminated: Array  # bool (T, N)
    truncated: Array  # bool (T, N)
    last_obs: Array  # (N, A, ...): what the agent sees after the last step
    final_obs: Array  # (K, A, ...): last observations of the K truncated episodes, in the order of `truncated`'s entries
    extras: dict[str, Array]  # whatever `act` returned beside the action, each (T, N, A, ...); "final_value" of `Bootstrapping`
    carry: Carry = None  # what the agent remembered before the first step
    last_carry: Carry = None  # and remembers now, with fresh rows where the last step ended an episode
    mask: Array | None = None  # bool (T, N, A, actions): legal actions of `obs`; None: the environment has no masks
    last_mask: Array | None = None  # bool (N, A, actions): of `last_obs`
    final_mask: Array | None = None  # bool (K, A, actions): of `final_obs`


class Agent(Protocol):
    """An algorithm with its state. The runtime never looks inside.

    N copies, A agents in each (parameters are shared between them). `carry` is what `act` remembers of the episodes that are
    running: whoever acts puts fresh rows into it where an episode ended (`restart`), and checkpoints hold it.
    """

    name: ClassVar[str]
    config: Any

    @property
    def num_steps(self) -> int:
        """Steps to collect before each `learn`."""
        ...

    def initial(self, n: int) -> Carry:
        """Carry for n copies that begin an episode; the same for every copy. None: no memory."""
        ...

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        """obs (N, A, ...) -> action (N, A) or (N, A, D), carry, extras to be stored with the step.

        `mask`, bool (N, A, actions): what `BatchEnv.action_mask` gives for `obs`; None where the environment has none. An agent
        whose class says `masks = True` takes legal actions only, and learns of legal actions only; `make_agent` refuses
        others where there are masks.
        """
        ...

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        """Improve; `progress` in [0, 1] is the share of the training budget spent. Returns metrics."""
        ...

    def state_dict(self) -> dict[str, Array]:
        """Everything that the future depends on, as arrays by name: parameters, optimiser, normaliser, random state."""
        ...

    def load_state_dict(self, state: dict[str, Array]) -> None: ...


def restart(agent: Agent, carry: Carry, step: Step) -> None:
    """Put what `agent` knows at the start of an episode into the rows of `carry` whose episode ended in `step`, in place."""
    if carry is not None:
        ended = step.terminated | step.truncated
        if ended.any():
            for name, fresh in (agent.initial(1) or {}).items():
                carry[name][ended] = fresh


class RolloutBuffer(NamedTuple):
    """Memory for T steps of N copies with A agents, for whoever acts and steps the world in one go."""

    obs: Array  # (T, N, A, ...)
    action: Array  # (T, N, A) int64 or (T, N, A, D) float32
    reward: Array  # float32 (T, N, A)
    terminated: Array  # bool (T, N)
    truncated: Array  # bool (T, N)
    final_obs: Array  # as obs; filled where truncated
    ended_return: Array  # float64 (T, N, A), filled where an episode ended
    ended_length: Array  # int64 (T, N)


@runtime_checkable
class CollectsNatively(Protocol):
    """An agent that can act in a native world without coming back to Python at each step."""

    def can_collect_natively(self, agents: int) -> bool:
        """Whether it can where a copy has so many agents. Asked first: making a world ready for `collect_natively` compiles."""
        ...

    def collect_natively(self, world: Native, kept: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        """Act and step all copies as often as `kept` has room for; it gets what happened, to the bit what `act` and the
        world's `step` in turns would give. Returns the extras of acting, (T, N, A, ...), valid until the next call, the
        world's share of the time, and the carry after it, with fresh rows where an episode ended. Changes no argument but
        `kept`."""
        ...


class PartRow(NamedTuple):
    """A part of an agent in an outline of it."""

    slot: str
    what: str  # the component and its options
    gives: str  # what comes out, with its shape
    parameters: int  # numbers that it learns


@runtime_checkable
class Parted(Protocol):
    """An agent made of parts."""

    def parts(self) -> list[PartRow]:
        """From the observation to the action."""
        ...


@runtime_checkable
class Bootstrapping(Protocol):
    """An agent with memory that learns from values: of the last observation of an episode that was cut it needs the value while
    it still remembers that episode."""

    def bootstrap_value(self, obs: Array, carry: Carry) -> Array:
        """V of observations (K, A, ...) for who remembers `carry`, float32 (K, A). Asked only where there is a carry."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """An agent that works where `DeviceCollector` has the world step; its class names the devices it knows in `devices`."""

    devices: ClassVar[tuple[str, ...]]
    learner: Any  # core_ml.device.DeviceActorCritic

    def ready(self, steps: int, obs: Any) -> Any:
        """The learner's memory (`core_ml.device.Memory`) for `steps` steps of copies that show `obs` (N, A, ...), a tensor on
        the device; from now on the learner acts with fresh random numbers."""
        ...


@runtime_checkable
class Driving(Protocol):
    """An agent whose library steps the environment by itself: `DrivenCollector` hands it the world and keeps the books."""

    def attach(self, env: BatchEnv, budget: float) -> None:
        """Begin to work in `env`, which shows the first observations; the training will take `budget` steps, copies times
        time steps (infinity: nobody knows). Called once, after `load_state_dict` where a run goes on."""
        ...

    def drive(self, steps: int) -> float:
        """Step every copy of that environment `steps` times; the seconds that it spent learning in between."""
        ...

    def get_experience(self) -> dict[str, Array]:
        """What it keeps of the copies it steps, such as a replay buffer, for checkpoints: another number of copies, other
        shapes, which is why `state_dict` is without it."""
        ...

    def set_experience(self, state: dict[str, Array]) -> None:
        """Put back what `get_experience` gave, after `attach`. Raises ValueError for what does not fit."""
        ...


@runtime_checkable
class Exportable(Protocol):
    """An agent whose greedy policy is a network that other programs can run: what `gumdrop export` asks for."""

    def policy_module(self) -> Any:
        """The policy as a torch module with its parameters as they are now (`deep.exported.PolicyModule`): from observations
        (B, ...) and the parts of its `memory` (B, ...) to a tuple of its `outputs` and the next memory. Raises ValueError, one
        line, where a part of it is no network."""
        ...


class NonFinite(ArithmeticError):
    """A NaN or infinity appeared; the message names where."""
