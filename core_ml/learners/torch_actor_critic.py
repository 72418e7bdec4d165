"""An actor-critic computed by torch: the reference for the fused kernels, and what works for every network.

It has the methods of `fused.FusedActorCritic` that learning needs, and works on the same memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...store.arrays import Array
from ..maths.losses import ppo_policy, value_error
from ..nets.actor_critic import ActorCritic
from ..optim.adam import FlatAdam
from ..optim.parallel import Replicas, keep_memory, one_thread_each
from ..optim.parameters import Parameters
from .types import Acted, Coefs

SHARED_FROM = 1024  # rows of a forward pass; fewer are done sooner than a second thread is awake


class Facts(NamedTuple):
    """B rows to learn from."""

    obs: Tensor  # (B, D) of any number type: bytes become floats when they are needed
    action: Tensor  # int64 (B,) or float32 (B, D)
    numbers: Tensor  # float32 (B, 4): log-probability, advantage, target, value; side by side, because one gather fetches them


class TorchActorCritic:
    """`model` with parameters in `memory`, all zero at first; gradients are summed over chunks of `chunk` rows and threads.

    The number of threads may change the last bits of sums, their timing does not.
    """

    def __init__(self, model: ActorCritic, threads: int = 1, chunk: int = 8192) -> None:
        keep_memory()
        one_thread_each()
        self.model, self.chunk = model, chunk
        self.memory = Parameters({name: tuple(p.shape) for name, p in model.named_parameters()})
        self.optimiser = FlatAdam(model, memory=self.memory)
        self.replicas = Replicas(model, self.optimiser, threads)

    def outputs(self, obs: Array, scale: Array | None = None) -> tuple[Array, Array]:
        """Logits or means float32 (B, actions), and values float32 (B,), of observations (B, ...).

        `scale`, float32 (2, D): what to subtract, then what to multiply by; the result is cut at +-10.
        """
        with torch.inference_mode():
            outputs = self._outputs(_features(torch.from_numpy(obs), scale))
        return outputs[:, :-1].numpy(), outputs[:, -1].numpy()

    def act(self, obs: Array, seed: int, scale: Array | None = None) -> Acted:
        """Sampled actions for observations (B, ...), from the stream `seed`."""
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            distribution, value = self.model.split(self._outputs(_features(torch.from_numpy(obs), scale)))
            action = distribution.sample(generator)
            found = action, distribution.log_prob(action), distribution.entropy(), value
        return Acted(*(x.numpy() for x in found))

    def _outputs(self, rows: Tensor) -> Tensor:
        """The model's outputs for many rows, a share of them on each thread where there are enough."""
        one_thread_each()
        if len(rows) < SHARED_FROM or self.replicas.workers == 1:
            return self.model.outputs(rows)
        return torch.cat(self.replicas.each(_outputs_of, rows.chunk(self.replicas.workers)))

    def records(
        self,
        obs: Array,
        action: Array,
        log_prob: Array,
        advantage: Array,
        target: Array,
        value: Array,
        out: Facts | None = None,
    ) -> Facts:
        """What B rows are learned from, as `epoch` wants it. `out` is of no use here."""
        numbers = torch.stack([torch.from_numpy(x).reshape(-1) for x in (log_prob, advantage, target, value)], 1)
        return Facts(torch.from_numpy(obs).reshape(len(numbers), -1), torch.from_numpy(action), numbers)

    def order(self, rows: int, seed: int, block: int = 1) -> Array:
        """0 .. rows - 1 in random order, int64, but for runs of `block` rows that stay together."""
        blocks = torch.randperm(-(-rows // block), generator=torch.Generator().manual_seed(seed))
        order: Array = (blocks.unsqueeze(1) * block + torch.arange(block)).view(-1).numpy()
        return order[order < rows]

    def epoch(
        self, records: Facts, order: Array, size: int, coefs: Coefs, learning_rate: float, max_grad_norm: float,
        normalise: bool = True, scale: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """One pass over the rows `order` in minibatches of `size`, with a step of Adam after each.

        With `normalise` each minibatch standardises its advantages. Returns policy loss, value loss, entropy, KL divergence
        and clipped ratios, summed over rows, float64 (5,), and the norms of the gradients before clipping: if the last is
        not finite, the epoch ended there, with parameters as before that step and the bad gradient in `memory.grad`.
        """

        def gradient(model: ActorCritic, chunk: tuple[Tensor, Tensor, Tensor, int]) -> Tensor:
            """Add one chunk's share of the minibatch's gradient; the summed parts of the loss, for the metrics."""
            index, known, weight, whole = chunk
            old_log_prob, _, goal, old_value = known.unbind(1)
            distribution, new_value = model(_features(records.obs.index_select(0, index), scale))
            new_log_prob = distribution.log_prob(records.action.index_select(0, index))
            policy_loss, kl, clipped = ppo_policy(new_log_prob, old_log_prob, weight, coefs.clip_coef)
            value_loss = value_error(new_value, old_value, goal, coefs.value_clip)
            entropy = distribution.entropy().sum()
            loss = (policy_loss + coefs.vf_coef * value_loss - coefs.ent_coef * entropy) / whole
            loss.backward()
            return torch.stack([policy_loss.detach(), value_loss.detach(), entropy.detach(), kl, clipped])

        one_thread_each()
        sums, norms = np.zeros(5), []
        for part in torch.from_numpy(order).split(size):
            numbers = records.numbers.index_select(0, part)
            weights = numbers[:, 1]
            if normalise and len(part) > 1:
                weights = (weights - weights.mean()) / (weights.std() + 1e-8)
            self.replicas.zero_grad()
            pieces = zip(part.split(self.chunk), numbers.split(self.chunk), weights.split(self.chunk), strict=True)
            for piece in self.replicas.each(gradient, [(*chunk, len(part)) for chunk in pieces]):
                sums += piece.numpy()
            self.replicas.gather()
            norms.append(self.optimiser.step(learning_rate, max_grad_norm))
            if not math.isfinite(norms[-1]):
                break
        return sums, np.array(norms)


def _features(obs: Tensor, scale: Array | None) -> Tensor:
    """(B, ...) of any number type -> float32 (B, D), standardised by `scale`."""
    rows = obs.reshape(len(obs), -1).float()
    if scale is not None:
        return ((rows - torch.from_numpy(scale[0])) * torch.from_numpy(scale[1])).clamp_(-10.0, 10.0)
    return rows.clone() if rows.data_ptr() % 64 else rows  # a product's last bit depends on where its operands begin


def _outputs_of(model: ActorCritic, rows: Tensor) -> Tensor:
    with torch.inference_mode():  # a setting of each thread
        return model.outputs(rows)
