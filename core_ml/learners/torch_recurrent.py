"""An actor-critic that remembers, computed by torch: any belief between observation and heads. The reference for `fused.gru`.

It has the methods of `eager.TorchActorCritic`, but that a row is a step of a stream: acting takes and gives states, and what is
learned from are sequences, whose gradient flows back through all their steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...store.arrays import Array
from ..beliefs.protocol import Belief, State
from ..distributions import Categorical, Distribution, Gaussian
from ..maths.losses import ppo_policy, value_error
from ..nets.layers import mlp
from ..optim.adam import FlatAdam
from ..optim.parallel import Replicas, keep_memory, one_thread_each
from ..optim.parameters import orthogonal
from .torch_actor_critic import SHARED_FROM, _features
from .types import Acted, Coefs

States = dict[str, Array]  # of B streams: a belief's state, and what was done last ("action") where that is remembered
LAST = "action"


class Sequences(NamedTuple):
    """B streams of T steps to learn from."""

    obs: Tensor  # (T, B, D) of any number type
    last: Tensor  # float32 (T, B, K): the action before each step; K is 0 where it is not remembered
    action: Tensor  # int64 (T, B) or float32 (T, B, A)
    is_first: Tensor  # bool (T, B): an episode begins with this step
    state: State  # of the belief before the first step, (B, ...)
    numbers: Tensor  # float32 (T, B, 4): log-probability, advantage, target, value


class RecurrentActorCritic(nn.Module):
    """Policy and value over a belief: rows -> encoder (if any) -> belief -> full layers `hidden` (if any) -> two heads.

    `actions`: how many discrete actions, or with `continuous` how many action dimensions. Encoder and belief keep their
    parameters; layers and heads get those of `Parameters.initialise`, drawn from `seed`.
    """

    def __init__(
        self, belief: Belief, actions: int, continuous: bool, hidden: Sequence[int] = (), activation: str = "tanh",
        encoder: nn.Module | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.belief, self.belief_net = encoder, belief, belief.net
        sizes = [belief.size, *hidden]
        with torch.device("meta"):  # no draws from torch's global generator
            trunk, policy, value = mlp(sizes, activation), nn.Linear(sizes[-1], actions), nn.Linear(sizes[-1], 1)
        self.trunk, self.policy_head, self.value_head = (part.to_empty(device="cpu") for part in (trunk, policy, value))
        self.log_std = nn.Parameter(torch.zeros(actions)) if continuous else None
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for part, gain in ((self.trunk, math.sqrt(2)), (self.policy_head, 0.01), (self.value_head, 1.0)):
                for p in part.parameters():
                    if p.ndim > 1:
                        p.copy_(torch.from_numpy(orthogonal(tuple(p.shape), gain, rng)))
                    else:
                        p.zero_()

    def observe(self, rows: Tensor, last: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of streams that go on: float32 (B, D), action before it (B, K) -> (B, actions + 1), state."""
        code = rows if self.encoder is None else self.encoder(rows)
        belief, state = self.belief.observe(code, last, torch.zeros(len(rows), dtype=torch.bool), state)
        return self._heads(belief), state

    def sequence(self, rows: Tensor, last: Tensor, is_first: Tensor, state: State) -> Tensor:
        """T steps: float32 (B, T, D), (B, T, K), (B, T), state before them -> (B T, actions + 1)."""
        code = rows if self.encoder is None else self.encoder(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
        belief, _ = self.belief.sequence(code, last, is_first, state)
        return self._heads(belief.flatten(0, 1))

    def _heads(self, belief: Tensor) -> Tensor:
        features = self.trunk(belief)
        return torch.cat([self.policy_head(features), self.value_head(features)], 1)

    def split(self, outputs: Tensor) -> tuple[Distribution, Tensor]:
        """(B, actions + 1) -> distribution over B actions, value (B,)."""
        out, value = outputs[:, :-1], outputs[:, -1]
        return Categorical.of(out) if self.log_std is None else Gaussian(out, self.log_std), value


class TorchRecurrent:
    """`RecurrentActorCritic` of the same arguments, with parameters in `memory`; gradients are summed over chunks and threads.

    `remembers`: the belief reads the action before each step, one-hot or as it is; else its K is 0. A chunk is as many streams
    as have `chunk` steps together. The number of threads may change the last bits of sums, their timing does not. A belief
    that is trained in another way may be changed between calls.
    """

    def __init__(
        self, belief: Belief, actions: int, continuous: bool, hidden: Sequence[int] = (), activation: str = "tanh",
        encoder: nn.Module | None = None, seed: int = 0, threads: int = 1, chunk: int = 8192, remembers: bool = False,
    ) -> None:  # fmt: skip
        keep_memory()
        one_thread_each()
        self.model = RecurrentActorCritic(belief, actions, continuous, hidden, activation, encoder, seed)
        self.actions, self.continuous, self.chunk, self.remembers = actions, continuous, chunk, remembers
        self.optimiser = FlatAdam(self.model)
        self.memory = self.optimiser.memory
        self.replicas = Replicas(self.model, self.optimiser, threads)
        if not list(belief.net.parameters()):  # what is not trained here must not be there twice
            for twin in self.replicas.modules:
                twin.belief = belief

    def initial(self, n: int) -> States:
        """States of n streams in which an episode begins."""
        last = {LAST: np.zeros((n, self.actions), np.float32)} if self.remembers else {}
        return {name: part.numpy().copy() for name, part in self.model.belief.initial(n).items()} | last

    def outputs(self, obs: Array, state: States, scale: Array | None = None) -> tuple[Array, Array, States]:
        """Logits or means float32 (B, actions), values float32 (B,), and states after B streams have seen `obs` (B, ...).

        As if the likeliest action were taken now. `scale`, float32 (2, D): what to subtract, then what to multiply by; the
        result is cut at +-10. Changes no argument.
        """
        with torch.inference_mode():
            outputs, after = self._observe(obs, state, scale)
            action = self.model.split(outputs)[0].mode()
            return outputs[:, :-1].numpy(), outputs[:, -1].numpy(), self._states(after, action)

    def act(
        self, obs: Array, state: States, seed: int, scale: Array | None = None, greedy: bool = False
    ) -> tuple[Acted, States]:
        """Actions of B streams that see `obs` (B, ...), sampled from the stream `seed`, or the likeliest ones; and new states.

        Where an episode begins, `state` must be that of `initial`. Changes no argument.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            outputs, after = self._observe(obs, state, scale)
            distribution, value = self.model.split(outputs)
            action = distribution.mode() if greedy else distribution.sample(generator)
            found = action, distribution.log_prob(action), distribution.entropy(), value
            return Acted(*(x.numpy() for x in found)), self._states(after, action)

    def _observe(self, obs: Array, state: States, scale: Array | None) -> tuple[Tensor, State]:
        """The model's outputs for a step of many streams, a share of them on each thread where there are enough."""
        one_thread_each()
        rows, known = _features(torch.from_numpy(obs), scale), {k: torch.from_numpy(v) for k, v in state.items()}
        last = known.pop(LAST) if self.remembers else rows.new_empty(len(rows), 0)
        many = self.replicas.workers if len(rows) >= SHARED_FROM else 1
        if many == 1:
            return self.model.observe(rows, last, known)
        parts = rows.chunk(many), last.chunk(many)
        states = {name: part.chunk(many) for name, part in known.items()}
        found: list[tuple[Tensor, State]] = [(rows, known)] * len(parts[0])

        def share(model: RecurrentActorCritic, j: int) -> Tensor:
            with torch.inference_mode():  # a setting of each thread
                found[j] = model.observe(parts[0][j], parts[1][j], {name: part[j] for name, part in states.items()})
            return found[j][0]

        outputs = torch.cat(self.replicas.each(share, range(len(found))))
        return outputs, {name: torch.cat([after[name] for _, after in found]) for name in states}

    def _states(self, after: State, action: Tensor) -> States:
        last = {LAST: self._code(action).numpy()} if self.remembers else {}
        return {name: np.ascontiguousarray(part.numpy()) for name, part in after.items()} | last

    def _code(self, action: Tensor) -> Tensor:
        """Actions as a belief reads them, float32 (..., K)."""
        return action.clone() if self.continuous else one_hot(action, self.actions).float()

    def records(
        self, obs: Array, action: Array, is_first: Array, state: States, log_prob: Array, advantage: Array, target: Array,
        value: Array, out: Sequences | None = None,
    ) -> Sequences:  # fmt: skip
        """What B streams of T steps are learned from, as `epoch` wants it. `out` is of no use here.

        obs (T, B, ...), action (T, B) or (T, B, A), is_first bool (T, B), the last four float32 (T, B). `state`: before the
        first step, (B, ...); where `is_first` is true, states count as those of `initial`.
        """
        steps, streams = is_first.shape
        known, done = {k: torch.from_numpy(v) for k, v in state.items()}, torch.from_numpy(action)
        last = done.new_empty(steps, streams, 0, dtype=torch.float32)
        if self.remembers:
            last = torch.cat([known.pop(LAST).unsqueeze(0), self._code(done[:-1])])
        numbers = torch.stack([torch.from_numpy(x) for x in (log_prob, advantage, target, value)], 2)
        rows = torch.from_numpy(obs).reshape(steps, streams, -1)
        return Sequences(rows, last, done, torch.from_numpy(is_first), known, numbers)

    def order(self, streams: int, seed: int, block: int = 1) -> Array:
        """0 .. streams - 1 in random order, int64, but for runs of `block` streams that stay together."""
        blocks = torch.randperm(-(-streams // block), generator=torch.Generator().manual_seed(seed))
        order: Array = (blocks.unsqueeze(1) * block + torch.arange(block)).view(-1).numpy()
        return order[order < streams]

    def gradient(self, records: Sequences, index: Array, coefs: Coefs, scale: Array | None = None) -> Array:
        """The gradient of the mean loss over all steps of the streams `index` goes into the memory's `grad`.

        Advantages are taken as they are. Returns float64 (5,): policy loss, value loss, entropy, KL divergence and clipped
        ratios, summed over steps.
        """
        one_thread_each()
        return self._gradient(records, torch.from_numpy(index), coefs, False, scale)

    def epoch(
        self, records: Sequences, order: Array, size: int, coefs: Coefs, learning_rate: float, max_grad_norm: float,
        normalise: bool = True, scale: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """One pass over the streams `order` in minibatches of `size` streams, with a step of Adam after each.

        With `normalise` each minibatch standardises its advantages. Returns the five sums of `gradient`, and the norms of the
        gradients before clipping: if the last is not finite, the epoch ended there, with parameters as before that step and
        the bad gradient in `memory.grad`.
        """
        one_thread_each()
        sums, norms = np.zeros(5), []
        for part in torch.from_numpy(order).split(size):
            sums += self._gradient(records, part, coefs, normalise, scale)
            norms.append(self.optimiser.step(learning_rate, max_grad_norm))
            if not math.isfinite(norms[-1]):
                break
        return sums, np.array(norms)

    def _gradient(self, records: Sequences, part: Tensor, coefs: Coefs, normalise: bool, scale: Array | None) -> Array:
        steps = len(records.is_first)
        whole = steps * len(part)
        weights = records.numbers[:, :, 1].index_select(1, part)  # (T, B)
        if normalise and whole > 1:
            weights = (weights - weights.mean()) / (weights.std() + 1e-8)

        def gradient(model: RecurrentActorCritic, chunk: tuple[Tensor, Tensor]) -> Tensor:
            """Add some streams' share of the minibatch's gradient; the summed parts of the loss, for the metrics."""
            index, weight = chunk

            def rows(x: Tensor) -> Tensor:
                return x.index_select(1, index).transpose(0, 1)  # (B, T, ...)

            obs = rows(records.obs)
            features = _features(obs.flatten(0, 1), scale).unflatten(0, obs.shape[:2])
            state = {name: x.index_select(0, index) for name, x in records.state.items()}
            outputs = model.sequence(features, rows(records.last), rows(records.is_first), state)
            distribution, new_value = model.split(outputs)
            old_log_prob, _, goal, old_value = rows(records.numbers).flatten(0, 1).unbind(1)
            new_log_prob = distribution.log_prob(rows(records.action).flatten(0, 1))
            advantage = weight.transpose(0, 1).flatten()
            policy_loss, kl, clipped = ppo_policy(new_log_prob, old_log_prob, advantage, coefs.clip_coef)
            value_loss = value_error(new_value, old_value, goal, coefs.value_clip)
            entropy = distribution.entropy().sum()
            loss = (policy_loss + coefs.vf_coef * value_loss - coefs.ent_coef * entropy) / whole
            loss.backward()
            return torch.stack([policy_loss.detach(), value_loss.detach(), entropy.detach(), kl, clipped])

        self.replicas.zero_grad()
        streams = max(1, self.chunk // steps)
        pieces = zip(part.split(streams), weights.split(streams, 1), strict=True)
        sums = np.zeros(5)
        for piece in self.replicas.each(gradient, list(pieces)):
            sums += piece.numpy()
        self.replicas.gather()
        return sums
