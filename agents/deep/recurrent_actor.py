"""A recurrent actor-critic: `Actor` with a belief between observations and heads. PPO uses it where `belief` is set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...envs.batch import Native
from ...store.arrays import Array, check_arrays
from ..protocol import Carry, PartRow, Rollout, RolloutBuffer, Spaces
from ..slots.spec import BeliefPart, label, resolve
from .actor import COMPILING, network_row, said_threads
from .parts import ActionOutput, ActorConfig, ComponentState, ObservationInput, Parts, RandomNumbers, load_into, state_of

if TYPE_CHECKING:
    from ...core_ml.learners.torch_recurrent import States
    from ...core_ml.learners.types import Acted


class RecurrentActor:
    """The parts of an agent whose network is encoder -> belief -> full layers `hidden` -> policy and value.

    Its carry is the belief's state and the last action of each agent, (N, A, ...). A sample is a stream: all steps of one agent
    in one environment, from the state before the rollout; the gradient goes back to the stream's first step. A belief without
    gradients, such as a hidden Markov model, learns by its own `update` from each rollout, after the policy. The methods are
    those of `Actor`.
    """

    def __init__(
        self, name: str, options: ActorConfig, belief: BeliefPart, spaces: Spaces, seed: int, threads: int, device: str = "cpu"
    ) -> None:
        self.name, self.options, self.part, self.num_agents = name, options, belief, spaces.num_agents
        if device != "cpu":
            raise ValueError(f"agent {name}: belief {belief.name} is for the processor: take device=cpu")
        for option, plain in (("network", "mlp"), ("shared_trunk", True)):
            if (given := getattr(options, option)) != plain:
                raise ValueError(f"agent {name}: {option}={given} does not go with a belief: leave it out")
        self.input = ObservationInput(name, options, spaces, seed, device)
        self.actions = ActionOutput(name, spaces.action, spaces.masked)
        self.encoding, self.rng = self.input.encoding, RandomNumbers(seed)
        self.belief: Any
        self.learner, self.belief, self.note = self._make_learner(threads)
        self.by_gradient = any(True for _ in self.belief.net.parameters())
        self._acted: Acted | None = None  # buffers of native rollouts, reused: what acting gives out,
        self._final_h: Any = None  # and hidden states at truncations

    def _make_learner(self, threads: int) -> tuple[Any, Any, str]:
        """A FusedRecurrent or TorchRecurrent, its belief, and a line for people. ValueError for what is not possible."""
        o, part, actions = self.options, self.part, self.actions
        found, config = resolve("belief", part)
        seeds = self.rng.draw(), self.rng.draw()
        belief: Any = found.cls(config, self.input.size, actions.size if part.actions else 0, seeds[0])
        spec, misfit = self._fused(config)
        if o.learner == "fused" and misfit:
            raise ValueError(f"agent {self.name}: learner=fused cannot do this network, {misfit}: take learner=torch or auto")
        if o.learner != "torch" and not misfit:
            from ...core_ml.learners.fused.gru.network import FusedRecurrent

            fused = FusedRecurrent(spec, threads=threads)
            fused.initialise(*seeds, span=config.span)  # type: ignore[attr-defined]
            wait = COMPILING if fused.compiles else ""
            return fused, belief, f"learner: fused kernels, {part.name}, {said_threads(threads)}{wait}"
        from ...core_ml.learners.torch_recurrent import TorchRecurrent

        if part.untrained:
            for p in belief.net.parameters():
                p.requires_grad_(False)
        learner = TorchRecurrent(
            belief, actions.size, actions.continuous, o.hidden, o.activation, seed=seeds[1], threads=threads, chunk=o.chunk,
            reads_action=part.actions,
        )  # fmt: skip
        return learner, belief, f"learner: torch, {part.name}{', untrained' if part.untrained else ''}"

    def _fused(self, config: Any) -> tuple[Any, str | None]:
        """The network as the fused kernels know it, or why they cannot do it."""
        from ...core_ml.learners.fused.gru.plan import GRUSpec

        if self.part.name != "gru" or config.layers > 1 or self.options.hidden or self.part.untrained:
            return None, "the kernels do a trained gru of one layer and hidden=[]"
        head: Literal["gaussian", "categorical"] = "gaussian" if self.actions.continuous else "categorical"
        spec = GRUSpec(self.input.size, config.hidden, head, (self.actions.size,), reads_action=self.part.actions)
        return spec, spec.fits()

    def initial(self, n: int) -> Carry:
        return unflat(self.learner.initial(n * self.num_agents), (n, self.num_agents))

    def greedy(self, obs: Array, carry: Carry, mask: Array | None = None) -> tuple[Array, Carry]:
        """The likeliest legal actions, clipped for the world, and the carry after them."""
        rows, scale = self.input.rows(obs), self.input.scale()
        acted, states = self.learner.act(rows, flat(carry), 0, scale=scale, greedy=True, mask=mask)
        action = acted.action.reshape(*obs.shape[:2], *self.actions.shape)
        return self.actions.clip(action), unflat(states, obs.shape[:2])

    def sample(self, obs: Array, carry: Carry, mask: Array | None = None) -> tuple[Acted, Carry]:
        """Sampled actions with log-probability, entropy and value, each for B = N A agents, and the carry after them."""
        seed, scale = self.rng.draw(), self.input.scale()
        acted, states = self.learner.act(self.input.rows(obs), flat(carry), seed, scale=scale, mask=mask)
        return acted, unflat(states, obs.shape[:2])

    def bootstrap_value(self, obs: Array, carry: Carry) -> Array:
        """V of observations (N, A, ...) of agents with this carry, float32 (N, A)."""
        value: Array = self.learner.outputs(self.input.rows(obs), flat(carry), self.input.scale())[1]
        return value.reshape(obs.shape[:2])

    def next_values(self, batch: Rollout) -> Array:
        """V of what each step of a rollout led to, float32 (T, N, A). At a truncation it was computed when the episode ended,
        with the state of that episode: extras["final_value"]."""
        from ...core_ml.maths.returns import next_step

        last = self.bootstrap_value(batch.last_obs, batch.last_carry)
        return next_step(batch.extras["value"], last, batch.truncated, batch.extras["final_value"][batch.truncated])

    def can_collect_natively(self, agents: int) -> bool:
        return bool(self.encoding is None and self.learner.compiled and self.learner.can_collect_natively(agents))

    def collect_natively(self, world: Native, buffer: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        """`sample` and the world's steps in one call, for all of the rollout `buffer`; see `protocol.CollectsNatively`."""
        lead = buffer.reward.shape
        if self._acted is None or len(self._acted.value) != math.prod(lead):
            self._acted = self.learner.buffers(math.prod(lead))
        seeds, bounds = np.array([self.rng.draw() for _ in range(lead[0])]), self.actions.bounds
        limits = None if bounds is None else bounds.reshape(2, -1)
        share, states, self._final_h = self.learner.collect_natively(
            world, buffer, seeds, self._acted, flat(carry), self.input.scale(), limits, self._final_h
        )
        extras = self.actions.extras(self._acted, lead)
        final_value, cut = np.zeros(lead, np.float32), buffer.truncated
        if cut.any():
            hidden = self._final_h.reshape(*lead, *self._final_h.shape[2:])[cut]  # (K, A, ...)
            action = extras["raw_action"][cut] if self.actions.continuous else buffer.action[cut]
            states_then = self.learner.states(hidden.reshape(-1, *hidden.shape[2:]), action.reshape(-1, *self.flat_action))
            value = self.learner.outputs(self.input.rows(buffer.final_obs[cut]), states_then, self.input.scale())[1]
            final_value[cut] = value.reshape(-1, lead[2])
        return {**extras, "final_value": final_value}, share, unflat(states, lead[1:])

    @property
    def flat_action(self) -> tuple[int, ...]:
        """Shape of an action as learners take it: (), or (D,) of a Box."""
        return (self.actions.size,) if self.actions.continuous else ()

    def num_samples(self, batch: Rollout) -> int:
        """Samples that a minibatch is drawn from: streams, N A."""
        return int(batch.reward[0].size)

    def samples(self, batch: Rollout, advantage: Array, target: Array, out: Any) -> Any:
        """A rollout as the learner takes it; `out`: the result of the call before, whose arrays may be reused."""
        rows, action, begins = self._streams(batch)
        facts = (x.reshape(begins.shape) for x in (batch.extras["log_prob"], advantage, target, batch.extras["value"]))
        return self.learner.batch(rows, action, begins, flat(batch.carry), *facts, out, batch.mask)

    def _streams(self, batch: Rollout) -> tuple[Array, Array, Array]:
        """(T, B, ...) with B = N A: observations as rows, sampled actions, and bool: an episode begins with this step. That of
        the first step is false: the rollout's carry is that of `initial` where an episode begins."""
        t, n, a = batch.reward.shape
        begins = np.zeros(batch.reward.shape, np.bool_)
        begins[1:] = (batch.terminated | batch.truncated)[:-1, :, None]
        rows = self.input.rows(batch.obs).reshape(t, n * a, -1)
        return rows, self.actions.sampled(batch).reshape(t, n * a, *self.flat_action), begins.reshape(t, n * a)

    def update_auxiliary(self, batch: Rollout, progress: float) -> dict[str, float]:
        """What learns from the rollout after the policy has: normaliser, encoder, a belief without gradients. Metrics."""
        metrics = self.input.update(batch, progress, self.rng.generator)
        frozen = self.part.untrained or progress >= self.part.freeze_after
        if self.by_gradient or frozen or not hasattr(self.belief, "update"):
            return metrics
        import torch

        rows, action, begins = self._streams(batch)
        last = self.learner.previous_actions(action, flat(batch.carry))  # float32 (T, B, K)
        streams = (x.transpose(0, 1).contiguous() for x in (torch.from_numpy(rows), last, torch.from_numpy(begins)))
        return metrics | {f"belief/{name}": value for name, value in self.belief.update(*streams).items()}

    def outline(self) -> list[PartRow]:
        """See `protocol.Parted.parts`."""
        parameters = self.learner.parameters
        sizes = {name: view.size for name, view in parameters.views(parameters.flat).items()}
        own = sum(size for name, size in sizes.items() if name.startswith("belief_net"))
        carried = ", ".join(f"{name} {part.shape[1:]}" for name, part in self.learner.initial(1).items())
        gives = f"float32 ({self.belief.size},); carries {carried}"
        belief = PartRow("belief", label(self.part), gives, own)
        return [*self.input.outline(), belief, network_row(self.options, self.actions, sum(sizes.values()) - own)]

    def _parts(self) -> Parts:
        belief = None if self.by_gradient else ComponentState(self.belief)
        return [("", self.learner.parameters), *self.input.parts(), ("", self.rng), ("belief.", belief)]

    def state_dict(self) -> dict[str, Array]:
        return state_of(self._parts())

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Put back what `state_dict` gave. Raises ValueError for the state of another configuration."""
        check_arrays(state, self.state_dict(), f"agent {self.name}")
        load_into(self._parts(), state)


def flat(carry: Carry) -> States:
    """(N, A, ...) -> (N A, ...)"""
    assert carry is not None
    return {name: part.reshape(-1, *part.shape[2:]) for name, part in carry.items()}


def unflat(states: States, lead: tuple[int, ...]) -> Carry:
    """(N A, ...) -> (N, A, ...), with `lead` = (N, A)."""
    return {name: part.reshape(*lead, *part.shape[1:]) for name, part in states.items()}
