"""What an agent is: `Agent`, which every algorithm implements, and the optional capabilities that an agent may also have.

T time steps, N environments, A agents in each; all agents share their parameters. `CAPABILITIES` lists every optional protocol;
`agent_offers` says which of them an agent has. An agent has a capability when it has its methods: nothing is inherited.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import gymnasium
from pydantic import BaseModel, ConfigDict

from ..envs.batch import BatchEnv, Native, Step, world_of
from ..envs.world import World
from ..store.arrays import Array

Mode = Literal["sample", "greedy"]
Carry = dict[str, Array] | None  # recurrent state of the running episodes; the first axis of each array is the environment


class AgentConfig(BaseModel):
    """Options of an algorithm. Subclass it; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Spaces(NamedTuple):
    """What an agent needs to know of the environment it is made for."""

    observation: gymnasium.spaces.Space[Any]  # of one agent
    action: gymnasium.spaces.Space[Any]
    num_agents: int
    world: World | None = None  # the rules, for planners and Bayes-optimal play; None: an external environment
    masked: bool = False  # the environment has action masks

    @classmethod
    def of(cls, env: BatchEnv) -> Spaces:
        masked = env.action_mask() is not None
        return cls(env.observation_space, env.action_space, env.num_agents, world_of(env), masked)


class Rollout(NamedTuple):
    """T steps of N environments with A agents. The arrays are reused: valid until the next collection."""

    obs: Array  # (T, N, A, ...)
    action: Array  # (T, N, A) int64 or (T, N, A, D) float32
    reward: Array  # float32 (T, N, A)
    terminated: Array  # bool (T, N)
    truncated: Array  # bool (T, N)
    last_obs: Array  # (N, A, ...): observations after the last step
    final_obs: Array  # (K, A, ...): last observations of the K truncated episodes, in the order of `truncated`'s entries
    extras: dict[str, Array]  # the extras of `act`, each (T, N, A, ...); "final_value" of `Bootstrapping`
    carry: Carry = None  # before the first step
    last_carry: Carry = None  # after the last step, with initial rows where that step ended an episode
    mask: Array | None = None  # bool (T, N, A, actions): legal actions of `obs`; None: the environment has no masks
    last_mask: Array | None = None  # bool (N, A, actions): of `last_obs`
    final_mask: Array | None = None  # bool (K, A, actions): of `final_obs`


class Agent(Protocol):
    """An algorithm with its state. Made by `cls(config, spaces, seed, threads)`; `cls.Config` are its options.

    Whoever steps the environments puts initial rows into `carry` where an episode ended (`restart`). Checkpoints hold `carry`.
    """

    name: ClassVar[str]
    config: Any

    @property
    def num_steps(self) -> int:
        """Steps to collect before each `learn`."""
        ...

    def initial(self, n: int) -> Carry:
        """Carry of n environments at the start of an episode; the same for each of them. None: no recurrent state."""
        ...

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        """obs (N, A, ...) -> action (N, A) or (N, A, D), carry, extras to be stored with the step.

        `mask`, bool (N, A, actions): what `BatchEnv.action_mask` gives for `obs`; None where the environment has none. An agent
        whose class says `masks = True` takes legal actions only, and learns of legal actions only; `make_agent` refuses
        others where there are masks.
        """
        ...

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        """Learn from a rollout; returns metrics. `progress` in [0, 1] is the share of the training budget that is spent."""
        ...

    def state_dict(self) -> dict[str, Array]:
        """Everything that the future depends on, as arrays by name: parameters, optimiser, normaliser, random state."""
        ...

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Put back what `state_dict` gave. Raises ValueError where names, shapes or dtypes differ."""
        ...


def restart(agent: Agent, carry: Carry, step: Step) -> None:
    """Put the agent's initial carry into the rows of `carry` whose episode ended in `step`, in place."""
    if carry is not None:
        ended = step.terminated | step.truncated
        if ended.any():
            for name, fresh in (agent.initial(1) or {}).items():
                carry[name][ended] = fresh


class NonFinite(ArithmeticError):
    """A NaN or infinity appeared; the message names where."""


# ---- optional: what an algorithm's class may declare ----


@runtime_checkable
class ListsDevices(Protocol):
    """A class that can work on other devices than the CPU: `cls(config, spaces, seed, threads, device=...)`."""

    devices: ClassVar[tuple[str, ...]]  # without it: ("cpu",)


@runtime_checkable
class TakesMasks(Protocol):
    """A class that says whether its agents use action masks: what the world calls illegal they never do, nor learn of."""

    masks: ClassVar[bool]  # without it: False, and an environment with masks is refused


@runtime_checkable
class ChoosesLeaderboard(Protocol):
    """A class that says whether `gumdrop leaderboard` trains it without being asked for it by name."""

    in_leaderboard: ClassVar[bool]  # without it: True


# ---- optional: what an agent may offer ----


class RolloutBuffer(NamedTuple):
    """Arrays for T steps of N environments with A agents, which `collect_natively` fills."""

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
    """An agent that can act and step a native world in one compiled call, without returning to Python at each step."""

    def can_collect_natively(self, agents: int) -> bool:
        """Whether it can with `agents` agents in an environment. Asked first, because preparing a world for it compiles."""
        ...

    def collect_natively(self, world: Native, buffer: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        """Act and step T times and fill `buffer`, bit for bit what `act` and the world's `step` in turns would give.

        Returns the extras of acting, (T, N, A, ...), valid until the next call; the world's share of the time, in [0, 1]; and
        the carry after the last step, with initial rows where it ended an episode. Changes no argument but `buffer`.
        """
        ...


@runtime_checkable
class Bootstrapping(Protocol):
    """A recurrent agent that learns from values. At a truncation the value is bootstrapped with the running hidden state, so it
    must be computed while the rollout is collected."""

    def bootstrap_value(self, obs: Array, carry: Carry) -> Array:
        """V of observations (K, A, ...) with recurrent state `carry`, float32 (K, A). Called only where there is a carry."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """An agent that `DeviceCollector` can use: world and learner stay on the accelerator. See also `ListsDevices`."""

    learner: Any  # core_ml.learners.cuda.actor_critic.DeviceActorCritic

    def ready(self, steps: int, obs: Any) -> Any:
        """The learner's DeviceRolloutBuffer for `steps` steps of environments that show `obs` (N, A, ...), a tensor on the
        device. From now on the learner acts with fresh random numbers."""
        ...


@runtime_checkable
class Driving(Protocol):
    """An agent whose library steps the environments by itself. `DrivenCollector` gives it the environments and counts."""

    def attach(self, env: BatchEnv, budget: float) -> None:
        """Use `env`, which shows the first observations. `budget`: environment steps of the training, N times time steps;
        infinity: unknown. Called once, after `load_state_dict` where a run is resumed."""
        ...

    def drive(self, steps: int) -> float:
        """Step every environment `steps` times; returns the seconds spent on learning in between."""
        ...

    def get_experience(self) -> dict[str, Array]:
        """Arrays for checkpoints whose shapes depend on N, such as a replay buffer; `state_dict` holds all others."""
        ...

    def set_experience(self, state: dict[str, Array]) -> None:
        """Put back what `get_experience` gave, after `attach`. Raises ValueError for arrays that do not fit."""
        ...


@runtime_checkable
class Noted(Protocol):
    """An agent with a sentence for the user, printed when a run begins, such as which learner was chosen and why."""

    note: str  # "": nothing to say


class PartRow(NamedTuple):
    """A part of an agent in an outline of it."""

    slot: str
    what: str  # the component and its options
    gives: str  # what comes out, with its shape
    parameters: int  # numbers that it learns


@runtime_checkable
class Parted(Protocol):
    """An agent made of parts, which `gumdrop agent show` lists."""

    def parts(self) -> list[PartRow]:
        """From the observation to the action."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """An agent with a slot for an encoder, whose codes can be drawn."""

    encoding: Any  # agents.slots.encoding.Encoding; None: the slot is empty


@runtime_checkable
class ModelBased(Protocol):
    """An agent with a learned world model, whose predictions can be drawn and measured."""

    world_model: Any  # core_ml.models.protocol.WorldModel


@runtime_checkable
class Tabular(Protocol):
    """An agent with a value for each observation that it has met, in a table."""

    table: Any  # agents.tabular.table.Table

    def values(self, obs: Array) -> Array:
        """Learned values of observations (B, A, ...): Q, float64 (B A, actions), or V, float64 (B A, 1)."""
        ...


@runtime_checkable
class HasPlan(Protocol):
    """An agent that solves the exact model of its world and follows the solution."""

    config: Any  # has `gamma`
    plan: Any  # agents.tabular.plan.Plan


@runtime_checkable
class Exportable(Protocol):
    """An agent whose greedy policy is a network that other programs can run: what `gumdrop export` asks for."""

    def policy_module(self) -> Any:
        """The policy as a torch module with its parameters as they are now (`deep._exported.PolicyModule`): from observations
        (B, ...) and the parts of its `memory` (B, ...) to a tuple of its `outputs` and the next memory. Raises ValueError, one
        line, where a part of it is no network."""
        ...


CAPABILITIES: tuple[type[Any], ...] = (
    ListsDevices, TakesMasks, ChoosesLeaderboard,
    CollectsNatively, Bootstrapping, OnDevice, Driving, Noted, Parted, Encodes, ModelBased,
    Tabular, HasPlan, Exportable,
)  # fmt: skip


def agent_offers(agent: Any) -> tuple[str, ...]:
    """Names of the capabilities that an agent, or an algorithm's class, has: ("Noted", "Parted"). In the order of
    `CAPABILITIES`."""
    return tuple(capability.__name__ for capability in CAPABILITIES if isinstance(agent, capability))
