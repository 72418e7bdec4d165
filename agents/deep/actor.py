"""An actor-critic without memory, as policy-gradient agents use it: the network, acting with it, values, and its state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...envs.batch import Native
from ...store.arrays import Array, check_arrays
from ..masks import only_legal
from ..protocol import Carry, PartRow, Rollout, RolloutBuffer, Spaces
from .parts import ActionOutput, ActorConfig, ObservationInput, Parts, RandomNumbers, load_into, state_of

if TYPE_CHECKING:
    from ...core_ml.learners.types import Acted

COMPILING = "; they compile now, once on this machine, which takes 10 to 20 seconds"


class Actor:
    """The parts of an actor-critic agent called `name`: `input` (encoder, normaliser), `actions`, `rng` and the `learner`.

    `learner` holds policy, value and their optimiser: a FusedActorCritic, TorchActorCritic or DeviceActorCritic. `note` says
    which one, for people. Arrays are (N, A, ...): N environments, A agents in each, one policy for all of them. Raises
    ValueError for an action space or a network that is not possible.
    """

    def __init__(self, name: str, options: ActorConfig, spaces: Spaces, seed: int, threads: int, device: str = "cpu") -> None:
        self.name, self.options, self.num_agents = name, options, spaces.num_agents
        self.input = ObservationInput(name, options, spaces, seed, device)
        self.actions = ActionOutput(name, spaces.action, spaces.masked)
        if options.network == "cnn" and len(self.input.shape) not in (2, 3):
            raise ValueError(
                f"a cnn needs observations of 2 or 3 dimensions, these are {self.input.shape}: set agent.network=mlp"
            )
        self.encoding, self.rng = self.input.encoding, RandomNumbers(seed)
        self.learner, self.note = make_learner(name, options, self.input, self.actions, threads, device)
        self.learner.parameters.initialise(self.rng.generator)
        self._acted: Acted | None = None  # buffers for what native rollouts give out, reused from rollout to rollout

    def initial(self, n: int) -> Carry:
        return None

    def greedy(self, obs: Array, carry: Carry, mask: Array | None = None) -> tuple[Array, Carry]:
        """The likeliest legal actions, clipped for the world, and the carry after them."""
        outputs, _ = self.learner.outputs(self.input.rows(obs), self.input.scale())
        best = outputs if self.actions.continuous else only_legal(outputs, mask).argmax(1)
        return self.actions.clip(best.reshape(*obs.shape[:2], *self.actions.shape)), carry

    def sample(self, obs: Array, carry: Carry, mask: Array | None = None) -> tuple[Acted, Carry]:
        """Sampled actions with log-probability, entropy and value, each for B = N A agents, and the carry after them."""
        acted: Acted = self.learner.act(self.input.rows(obs), self.rng.draw(), scale=self.input.scale(), mask=mask)
        return acted, carry

    def values(self, obs: Array) -> Array:
        """V of observations (..., *observation), float32 (B,)."""
        if not len(obs):
            return np.empty(0, np.float32)
        found: Array = self.learner.outputs(self.input.rows(obs), self.input.scale())[1]
        return found

    def bootstrap_value(self, obs: Array, carry: Carry) -> Array:
        """V of observations (N, A, ...), float32 (N, A)."""
        return self.values(obs).reshape(obs.shape[:2])

    def next_values(self, batch: Rollout) -> Array:
        """V of what each step of a rollout led to, float32 (T, N, A): see `returns.next_step`."""
        from ...core_ml.maths.returns import next_step

        _, n, a = batch.reward.shape
        last, final = self.values(batch.last_obs).reshape(n, a), self.values(batch.final_obs).reshape(-1, a)
        return next_step(batch.extras["value"], last, batch.truncated, final)

    def can_collect_natively(self, agents: int) -> bool:
        return bool(self.encoding is None and self.learner.compiled and self.learner.can_collect_natively(agents))

    def collect_natively(self, world: Native, buffer: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        """`sample` and the world's steps in one call, for all of the rollout `buffer`; see `protocol.CollectsNatively`."""
        lead = buffer.reward.shape
        if self._acted is None or len(self._acted.value) != math.prod(lead):
            self._acted = self.learner.buffers(math.prod(lead))
        seeds = np.array([self.rng.draw() for _ in range(lead[0])])
        bounds = self.actions.bounds
        limits = None if bounds is None else bounds.reshape(2, -1)
        share = self.learner.collect_natively(world, buffer, seeds, self._acted, self.input.scale(), limits)
        return self.actions.extras(self._acted, lead), share, carry

    def num_samples(self, batch: Rollout) -> int:
        """Samples that a minibatch is drawn from: every step of every agent, T N A."""
        return math.prod(batch.reward.shape)

    def samples(self, batch: Rollout, advantage: Array, target: Array, out: Any) -> Any:
        """A rollout as the learner takes it; `out`: the result of the call before, whose arrays may be reused."""
        rows, action, extras = self.input.rows(batch.obs), self.actions.sampled(batch), batch.extras
        return self.learner.batch(rows, action, extras["log_prob"], advantage, target, extras["value"], out, batch.mask)

    def update_auxiliary(self, batch: Rollout, progress: float) -> dict[str, float]:
        """What learns from the rollout after the policy has: normaliser and encoder. Returns metrics."""
        return self.input.update(batch, progress, self.rng.generator)

    def outline(self) -> list[PartRow]:
        """See `protocol.Parted.parts`."""
        parameters = self.learner.parameters
        return [*self.input.outline(), network_row(self.options, self.actions, parameters.flat.size)]

    def _parts(self) -> Parts:
        return [("", self.learner.parameters), *self.input.parts(), ("", self.rng)]

    def state_dict(self) -> dict[str, Array]:
        return state_of(self._parts())

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Put back what `state_dict` gave. Raises ValueError for the state of another configuration."""
        check_arrays(state, self.state_dict(), f"agent {self.name}")
        load_into(self._parts(), state)


def make_learner(
    name: str, options: ActorConfig, observation: ObservationInput, actions: ActionOutput, threads: int, device: str
) -> tuple[Any, str]:
    """The learner of a network without memory, and a line for people about it. Raises ValueError for what is not possible."""
    from ...core_ml.learners.fused import FusedActorCritic, MLPSpec

    o = options
    if not o.hidden:
        raise ValueError(f"agent {name}: hidden=[] leaves no layer: name one width at least, such as [64]")
    network = (
        observation.shape, actions.size, actions.continuous, o.network, o.hidden, o.channels, o.activation, o.shared_trunk
    )  # fmt: skip
    if device != "cpu":
        from ...core_ml.learners.cuda.actor_critic import DeviceActorCritic
        from ...core_ml.nets.actor_critic import actor_critic

        if o.learner == "fused" or o.normalise_observation:
            fault = "learner=fused" if o.learner == "fused" else "normalise_observation=true"
            raise ValueError(f"agent {name}: {fault} is for the processor: leave it out, or take device=cpu")
        on_device = DeviceActorCritic(actor_critic(*network), device, actions.bounds, actions.masked)
        return on_device, f"learner: torch on {on_device.place.device}"
    head: Literal["gaussian", "categorical"] = "gaussian" if actions.continuous else "categorical"
    spec = MLPSpec(observation.size, o.hidden, o.activation, o.shared_trunk, head, (actions.size,))
    misfit = "a cnn is torch's" if o.network == "cnn" else spec.fits()
    if o.learner == "fused" and misfit:
        raise ValueError(f"agent {name}: learner=fused cannot do this network, {misfit}: take learner=torch or auto")
    if o.learner != "torch" and not misfit:
        fused = FusedActorCritic(spec, threads=threads)
        return fused, f"learner: fused kernels, {said_threads(threads)}{COMPILING if fused.compiles else ''}"
    from ...core_ml.learners.torch_actor_critic import TorchActorCritic
    from ...core_ml.nets.actor_critic import actor_critic

    return TorchActorCritic(actor_critic(*network), threads, o.chunk), "learner: torch" + (f" ({misfit})" if misfit else "")


def said_threads(threads: int) -> str:
    return f"{threads} threads" if threads > 1 else "1 thread"


def network_row(options: ActorConfig, actions: ActionOutput, parameters: int) -> PartRow:
    """Policy and critic in an outline of the agent."""
    network = f"cnn, {options.channels} channels" if options.network == "cnn" else "mlp"
    widths = " x ".join(map(str, options.hidden))
    gives = f"{actions.size} {'means' if actions.continuous else 'logits'}, 1 value"
    return PartRow("policy, critic", f"{network} {widths} {options.activation}", gives, parameters)
