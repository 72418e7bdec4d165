"""A recurrent actor-critic computed by torch: any belief between observation and heads. The reference for `fused.gru`.

It has the methods of `torch_actor_critic.TorchActorCritic`, except that a sample is a whole stream: all steps of one agent in
one environment. Acting takes and gives states; learning goes back through all steps of a stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...store.arrays import Array
from ..beliefs.protocol import Belief, State
from ..distributions import Categorical, Distribution, Gaussian
from ..maths.losses import ppo_loss
from ..nets.layers import mlp
from ..optim.adam import FlatAdam
from ..optim.parallel import Replicas, keep_memory, one_thread_each
from ..optim.parameters import orthogonal
from .torch_ops import SHARED_FROM, features, mask_tensor, permutation
from .types import Acted, Coefs

States = dict[str, Array]  # of B streams: a belief's state, and the last action ("action") where the belief reads it
LAST = "action"


class TensorSequences(NamedTuple):
    """B streams of T steps to learn from."""

    obs: Tensor  # (T, B, D) of any number type
    last: Tensor  # float32 (T, B, K): the action before each step; K is 0 where the belief does not read it
    action: Tensor  # int64 (T, B) or float32 (T, B, A)
    is_first: Tensor  # bool (T, B): an episode begins with this step
    state: State  # of the belief before the first step, (B, ...)
    numbers: Tensor  # float32 (T, B, 4): log-probability, advantage, target, value
    mask: Tensor | None = None  # bool (T, B, actions): legal actions; None: all


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
        """One step within an episode: float32 (B, D), action before it (B, K), state -> (B, actions + 1), new state."""
        code = rows if self.encoder is None else self.encoder(rows)
        belief, state = self.belief.observe(code, last, torch.zeros(len(rows), dtype=torch.bool), state)
        return self._heads(belief), state

    def sequence(self, rows: Tensor, last: Tensor, is_first: Tensor, state: State) -> Tensor:
        """T steps: float32 (B, T, D), (B, T, K), (B, T), state before them -> (B T, actions + 1)."""
        code = rows if self.encoder is None else self.encoder(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
        belief, _ = self.belief.sequence(code, last, is_first, state)
        return self._heads(belief.flatten(0, 1))

    def _heads(self, belief: Tensor) -> Tensor:
        hidden = self.trunk(belief)
        return torch.cat([self.policy_head(hidden), self.value_head(hidden)], 1)

    def split(self, outputs: Tensor, mask: Tensor | None = None) -> tuple[Distribution, Tensor]:
        """(B, actions + 1) -> distribution over B actions, value (B,)."""
        out, value = outputs[:, :-1], outputs[:, -1]
        return Categorical.of(out, mask) if self.log_std is None else Gaussian(out, self.log_std), value


class TorchRecurrent:
    """A `RecurrentActorCritic` of the same arguments with its `parameters`; gradients are summed over chunks and threads.

    `reads_action`: the belief reads the action before each step, one-hot or as it is; else its K is 0. A chunk is as many
    streams as have `chunk` steps together. The number of threads may change the last bits of sums; their timing does not. A
    belief that is trained in another way may be changed between calls.
    """

    compiled: ClassVar[bool] = False  # an epoch is not one call

    def __init__(
        self, belief: Belief, actions: int, continuous: bool, hidden: Sequence[int] = (), activation: str = "tanh",
        encoder: nn.Module | None = None, seed: int = 0, threads: int = 1, chunk: int = 8192, reads_action: bool = False,
    ) -> None:  # fmt: skip
        keep_memory()
        one_thread_each()
        self.model = RecurrentActorCritic(belief, actions, continuous, hidden, activation, encoder, seed)
        self.actions, self.continuous, self.chunk, self.reads_action = actions, continuous, chunk, reads_action
        self.optimiser = FlatAdam(self.model)
        self.parameters = self.optimiser.parameters
        self.replicas = Replicas(self.model, self.optimiser, threads)
        if not list(belief.net.parameters()):  # what is not trained here must not be there twice
            for twin in self.replicas.modules:
                twin.belief = belief

    def initial(self, n: int) -> States:
        """States of n streams at the start of an episode."""
        last = {LAST: np.zeros((n, self.actions), np.float32)} if self.reads_action else {}
        return {name: part.numpy().copy() for name, part in self.model.belief.initial(n).items()} | last

    def outputs(
        self, obs: Array, state: States, scale: Array | None = None, mask: Array | None = None
    ) -> tuple[Array, Array, States]:
        """Logits or means float32 (B, actions), values float32 (B,), and states after B streams have seen `obs` (B, ...).

        The new states assume that the likeliest action is taken now. `scale`: see `features`. Changes no argument.
        """
        with torch.inference_mode():
            outputs, after = self._observe(obs, state, scale)
            action = self.model.split(outputs, mask_tensor(mask, len(obs)))[0].mode()
            return outputs[:, :-1].numpy(), outputs[:, -1].numpy(), self._states(after, action)

    def act(
        self,
        obs: Array,
        state: States,
        seed: int,
        scale: Array | None = None,
        greedy: bool = False,
        mask: Array | None = None,
    ) -> tuple[Acted, States]:
        """Actions of B streams that see `obs` (B, ...), drawn from the random stream `seed` or the likeliest; and new states.

        Where an episode begins, `state` must be that of `initial`. Changes no argument.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            outputs, after = self._observe(obs, state, scale)
            distribution, value = self.model.split(outputs, mask_tensor(mask, len(obs)))
            action = distribution.mode() if greedy else distribution.sample(generator)
            log_prob, entropy = distribution.log_prob(action), distribution.entropy()
            acted = Acted(action.numpy(), log_prob.numpy(), entropy.numpy(), value.numpy())
            return acted, self._states(after, action)

    def _observe(self, obs: Array, state: States, scale: Array | None) -> tuple[Tensor, State]:
        """The model's outputs for a step of many streams, a share of them on each thread where there are enough."""
        one_thread_each()
        rows, known = features(torch.from_numpy(obs), scale), {k: torch.from_numpy(v) for k, v in state.items()}
        last = known.pop(LAST) if self.reads_action else rows.new_empty(len(rows), 0)
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
        last = {LAST: self._code(action).numpy()} if self.reads_action else {}
        return {name: np.ascontiguousarray(part.numpy()) for name, part in after.items()} | last

    def _code(self, action: Tensor) -> Tensor:
        """Actions as a belief reads them, float32 (..., K)."""
        return action.clone() if self.continuous else one_hot(action, self.actions).float()

    def previous_actions(self, action: Array, state: States) -> Tensor:
        """The action before each step as the belief reads it, float32 (T, B, K), of sampled actions (T, B, ...); `state`, of
        before the first step, holds the one before that. K is 0 where the belief does not read it."""
        sampled = torch.from_numpy(action)
        if not self.reads_action:
            return sampled.new_empty(*action.shape[:2], 0, dtype=torch.float32)
        return torch.cat([torch.from_numpy(state[LAST]).unsqueeze(0), self._code(sampled[:-1])])

    def batch(
        self, obs: Array, action: Array, is_first: Array, state: States, log_prob: Array, advantage: Array, target: Array,
        value: Array, out: TensorSequences | None = None, mask: Array | None = None,
    ) -> TensorSequences:  # fmt: skip
        """B streams of T steps as `gradient` takes them. `out`, the batch before, is not reused here.

        obs (T, B, ...), action (T, B) or (T, B, A), is_first bool (T, B), the last four float32 (T, B). `state`: before the
        first step, (B, ...); where `is_first` is true, states count as those of `initial`.
        """
        steps, streams = is_first.shape
        known = {name: torch.from_numpy(part) for name, part in state.items() if name != LAST or not self.reads_action}
        numbers = torch.stack([torch.from_numpy(x) for x in (log_prob, advantage, target, value)], 2)
        rows, last = torch.from_numpy(obs).reshape(steps, streams, -1), self.previous_actions(action, state)
        legal = None if mask is None else torch.from_numpy(mask).reshape(steps, streams, -1)
        return TensorSequences(rows, last, torch.from_numpy(action), torch.from_numpy(is_first), known, numbers, legal)

    def permutation(self, num_samples: int, seed: int, block: int = 1) -> Array:
        """See `torch_ops.permutation`."""
        return permutation(num_samples, seed, block)

    def advantage(self, batch: TensorSequences, index: Tensor) -> Tensor:
        """Advantages float32 (T, M) of the streams `index`, int64 (M,)."""
        one_thread_each()
        return batch.numbers[:, :, 1].index_select(1, index)

    def gradient(
        self, batch: TensorSequences, index: Tensor, advantage: Tensor, coefs: Coefs, scale: Array | None = None
    ) -> Array:
        """The gradient of `ppo_loss` over all steps of the M streams `index` goes into `parameters.grad`.

        `advantage` (T, M) is what `advantage` gives, standardised or not. Returns the five sums of `ppo_loss`, float64 (5,).
        """
        steps = len(batch.is_first)

        def chunk_gradient(model: RecurrentActorCritic, chunk: tuple[Tensor, Tensor]) -> Tensor:
            part, weight = chunk

            def rows(x: Tensor) -> Tensor:
                return x.index_select(1, part).transpose(0, 1)  # (T, B, ...) -> (M, T, ...)

            obs = rows(batch.obs)
            codes = features(obs.flatten(0, 1), scale).unflatten(0, obs.shape[:2])
            state = {name: x.index_select(0, part) for name, x in batch.state.items()}
            outputs = model.sequence(codes, rows(batch.last), rows(batch.is_first), state)
            mask = None if batch.mask is None else rows(batch.mask).flatten(0, 1)
            distribution, value = model.split(outputs, mask)  # (M T, ...)
            old_log_prob, _, target, old_value = rows(batch.numbers).flatten(0, 1).unbind(1)
            log_prob, entropy = distribution.log_prob(rows(batch.action).flatten(0, 1)), distribution.entropy()
            loss, sums = ppo_loss(
                log_prob, value, entropy, old_log_prob, weight.transpose(0, 1).flatten(), target, old_value,
                **coefs._asdict(), num_samples=steps * len(index),
            )  # fmt: skip
            loss.backward()
            return sums

        one_thread_each()
        streams = max(1, self.chunk // steps)
        chunks = zip(index.split(streams), advantage.split(streams, 1), strict=True)
        return self.replicas.summed(chunk_gradient, list(chunks))

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """A step of Adam down the gradient. Returns its norm before clipping; if that is not finite, nothing changes."""
        return self.optimiser.step(learning_rate, max_grad_norm)
