"""An actor-critic that remembers: any belief between observations and heads. What PPO with `belief` is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...envs.batch import Native
from ...store.arrays import Array
from ..protocol import Carry, Mode, PartRow, Rollout, RolloutBuffer, Spaces
from ..slots.spec import BeliefPart, label, resolve
from .actor import Actor, ActorConfig

if TYPE_CHECKING:
    from ...core_ml.learners.torch_recurrent import States


class RecurrentActor(Actor):
    """`Actor` whose network is encoder -> belief -> full layers `hidden` -> policy and value.

    Its carry is the belief's state and the last action, of each copy and each agent, (N, A, ...). It learns from streams: all
    steps of a rollout of one agent in one copy, from what was remembered before them; the gradient goes back to their start.
    A belief without gradients, such as a hidden Markov model, learns by its own `update` from each rollout, after the policy.
    """

    def __init__(
        self, name: str, options: ActorConfig, belief: BeliefPart, spaces: Spaces, seed: int, threads: int, device: str = "cpu"
    ) -> None:
        self.part = belief
        self._held: Any = None  # memory for what was remembered where an episode was cut
        if device != "cpu":
            raise ValueError(f"agent {name}: belief {belief.name} is for the processor: take device=cpu")
        super().__init__(name, options, spaces, seed, threads)

    def _learner(self, shape: tuple[int, ...], actions: int, threads: int, device: str) -> tuple[Any, str]:
        o, part = self.options, self.part
        for option, plain in (("network", "mlp"), ("shared_trunk", True)):
            if (given := getattr(o, option)) != plain:
                raise ValueError(f"agent {self.name}: {option}={given} does not go with a belief: leave it out")
        found, config = resolve("belief", part)
        seeds = self.draw(), self.draw()
        self.belief: Any = found.cls(config, self.inputs, actions if part.actions else 0, seeds[0])
        self.by_gradient = any(True for _ in self.belief.net.parameters())
        many = f"{threads} threads" if threads > 1 else "1 thread"
        spec, misfit = self._fused(config, actions)
        if o.learner == "fused" and misfit:
            raise ValueError(f"agent {self.name}: learner=fused cannot do this network, {misfit}: take learner=torch or auto")
        if o.learner != "torch" and not misfit:
            from ...core_ml.learners.fused.gru.network import FusedRecurrent

            fused = FusedRecurrent(spec, threads=threads)
            fused.initialise(*seeds, span=config.span)  # type: ignore[attr-defined]
            wait = "; they compile now, once on this machine, which takes 10 to 20 seconds" if fused.compiles else ""
            return fused, f"learner: fused kernels, {part.name}, {many}{wait}"
        from ...core_ml.learners.torch_recurrent import TorchRecurrent

        if part.untrained:
            for p in self.belief.net.parameters():
                p.requires_grad_(False)
        learner = TorchRecurrent(
            self.belief, actions, self.continuous, o.hidden, o.activation, seed=seeds[1], threads=threads, chunk=o.chunk,
            remembers=part.actions,
        )  # fmt: skip
        return learner, f"learner: torch, {part.name}{', untrained' if part.untrained else ''}"

    def _fused(self, config: Any, actions: int) -> tuple[Any, str | None]:
        """The network as the fused kernels know it, and what they cannot do of it."""
        from ...core_ml.learners.fused.gru.plan import GRUSpec

        if self.part.name != "gru" or config.layers > 1 or self.options.hidden or self.part.untrained:
            return None, "the kernels do a trained gru of one layer and hidden=[]"
        head: Literal["gaussian", "categorical"] = "gaussian" if self.continuous else "categorical"
        spec = GRUSpec(self.inputs, config.hidden, head, (actions,), remembers=self.part.actions)
        return spec, spec.fits()

    def _initialise(self) -> None:
        """Belief and heads have been drawn already."""

    def initial(self, n: int) -> Carry:
        a = self.spaces.num_agents
        return {name: part.reshape(n, a, *part.shape[1:]) for name, part in self.learner.initial(n * a).items()}

    def act(self, obs: Array, carry: Carry, mode: Mode) -> tuple[Array, Carry, dict[str, Array]]:
        lead = obs.shape[:2]
        greedy = mode == "greedy"
        seed = 0 if greedy else self.draw()
        acted, states = self.learner.act(self.rows(obs), flat(carry), seed, scale=self.scale(), greedy=greedy)
        after = {name: part.reshape(*lead, *part.shape[1:]) for name, part in states.items()}
        raw = acted.action.reshape(*lead, *self.action_shape)
        return self._legal(raw), after, {} if greedy else self._extras(acted, lead)

    def _remembered(self, sizes: dict[str, int]) -> list[PartRow]:
        carry = self.initial(1) or {}
        keeps = ", ".join(f"{name} {part.shape[2:]}" for name, part in carry.items())
        count = sum(size for name, size in sizes.items() if name.startswith("belief_net"))
        return [PartRow("belief", label(self.part), f"float32 ({self.belief.size},); remembers {keeps}", count)]

    def can_collect_natively(self, agents: int) -> bool:
        from ...core_ml.learners.fused.gru.network import FusedRecurrent

        return self.encoding is None and isinstance(self.learner, FusedRecurrent) and self.learner.can_collect_natively(agents)

    def collect_natively(self, world: Native, kept: RolloutBuffer, carry: Carry) -> tuple[dict[str, Array], float, Carry]:
        lead = kept.reward.shape
        if self._acted is None or len(self._acted.value) != math.prod(lead):
            self._acted = self.learner.buffers(math.prod(lead))
        seeds, bounds = np.array([self.draw() for _ in range(lead[0])]), self.bounds()
        limits = None if bounds is None else bounds.reshape(2, -1)
        share, states, self._held = self.learner.collect_natively(
            world, kept, seeds, self._acted, flat(carry), self.scale(), limits, self._held
        )
        extras = self._extras(self._acted, lead)
        cut = kept.truncated
        values = np.zeros(lead, np.float32)
        if cut.any():
            remembered = {"h": self._held.reshape(*lead, 1, -1)[cut]}
            if self.part.actions:
                done = extras["raw_action"][cut] if self.continuous else kept.action[cut]
                width = self.learner.spec.actions
                remembered["action"] = (
                    done.reshape(*done.shape[:2], width) if self.continuous else np.eye(width, dtype=np.float32)[done]
                )
            values[cut] = self.bootstrap_value(kept.final_obs[cut], remembered)
        after = {name: part.reshape(*lead[1:], *part.shape[1:]) for name, part in states.items()}
        return {**extras, "final_value": values}, share, after

    def bootstrap_value(self, obs: Array, carry: Carry) -> Array:
        value: Array = self.learner.outputs(self.rows(obs), flat(carry), self.scale())[1]
        return value.reshape(obs.shape[:2])

    def next_values(self, batch: Rollout) -> Array:
        value = batch.extras["value"]
        last = self.bootstrap_value(batch.last_obs, batch.last_carry)
        return np.where(batch.truncated[:, :, None], batch.extras["final_value"], np.concatenate([value[1:], last[None]]))

    def units(self, batch: Rollout) -> int:
        return int(batch.reward[0].size)

    def records(self, batch: Rollout, advantage: Array, target: Array, out: Any) -> Any:
        t, n, a = batch.reward.shape
        facts = batch.extras["log_prob"], advantage, target, batch.extras["value"]
        action = self.taken(batch).reshape(t, n * a, *[-1] * self.continuous)
        rows = self.rows(batch.obs).reshape(t, n * a, -1)
        streams = (x.reshape(t, n * a) for x in facts)
        return self.learner.records(rows, action, self._begins(batch), flat(batch.carry), *streams, out)

    def _begins(self, batch: Rollout) -> Array:
        """bool (T, N A): an episode begins with this step. The first step's carry knows that already."""
        begins = np.zeros(batch.reward.shape, np.bool_)
        begins[1:] = (batch.terminated | batch.truncated)[:-1, :, None]
        return begins.reshape(len(begins), -1)

    def update_auxiliary(self, batch: Rollout, progress: float) -> dict[str, float]:
        found = super().update_auxiliary(batch, progress)
        still = self.part.untrained or progress >= self.part.freeze_after
        if self.by_gradient or still or not hasattr(self.belief, "update"):
            return found
        import torch

        t, n, a = batch.reward.shape
        action = np.zeros((t, n * a, self.belief.sizes[1]), np.float32)
        if self.part.actions:
            action[0] = flat(batch.carry)["action"]
            done = self.taken(batch).reshape(t, n * a, *[-1] * self.continuous)[:-1]
            action[1:] = done if self.continuous else np.eye(action.shape[2], dtype=np.float32)[done]
        rows = self.rows(batch.obs).reshape(t, n * a, -1)
        streams = (torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1))) for x in (rows, action, self._begins(batch)))
        metrics = self.belief.update(*streams)
        return found | {f"belief/{name}": value for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Array]:
        apart = {} if self.by_gradient else {f"belief.{name}": x for name, x in self.belief.state_dict().items()}
        return super().state_dict() | apart

    def load_state_dict(self, state: dict[str, Array]) -> None:
        super().load_state_dict(state)
        if not self.by_gradient:
            own = {name.removeprefix("belief."): x for name, x in state.items() if name.startswith("belief.")}
            self.belief.load_state_dict(own)


def flat(carry: Carry) -> States:
    """(N, A, ...) -> (N A, ...)"""
    assert carry is not None
    return {name: part.reshape(-1, *part.shape[2:]) for name, part in carry.items()}
