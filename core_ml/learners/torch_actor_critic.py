"""An actor-critic computed by torch: the reference for the fused kernels, and the learner for every other network.

It has the methods of `fused.FusedActorCritic` that an agent uses, except that a minibatch's gradient and the optimiser's step
are separate calls (`agents.deep.ppo.run_epoch` makes them).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ...store.arrays import Array
from ..maths.losses import ppo_loss
from ..nets.actor_critic import ActorCritic
from ..optim.adam import FlatAdam
from ..optim.parallel import Replicas, keep_memory, one_thread_each
from ..optim.parameters import Parameters
from .torch_ops import SHARED_FROM, features, mask_tensor, permutation
from .types import Acted, Coefs


class TensorBatch(NamedTuple):
    """B samples to learn from."""

    obs: Tensor  # (B, D) of any number type: bytes become floats when they are needed
    action: Tensor  # int64 (B,) or float32 (B, D)
    numbers: Tensor  # float32 (B, 4): log-probability, advantage, target, value; side by side, because one gather fetches them
    mask: Tensor | None = None  # bool (B, actions): legal actions; None: all


class TorchActorCritic:
    """`model` with its `parameters`, all zero at first; gradients are summed over chunks of `chunk` samples and over threads.

    The number of threads may change the last bits of sums; their timing does not.
    """

    compiled: ClassVar[bool] = False  # an epoch is not one call

    def __init__(self, model: ActorCritic, threads: int = 1, chunk: int = 8192) -> None:
        keep_memory()
        one_thread_each()
        self.model, self.chunk = model, chunk
        self.parameters = Parameters({name: tuple(p.shape) for name, p in model.named_parameters()})
        self.optimiser = FlatAdam(model, parameters=self.parameters)
        self.replicas = Replicas(model, self.optimiser, threads)

    def outputs(self, obs: Array, scale: Array | None = None) -> tuple[Array, Array]:
        """Logits or means float32 (B, actions), and values float32 (B,), of observations (B, ...). `scale`: see `features`."""
        with torch.inference_mode():
            outputs = self._outputs(features(torch.from_numpy(obs), scale))
        return outputs[:, :-1].numpy(), outputs[:, -1].numpy()

    def act(self, obs: Array, seed: int, scale: Array | None = None, mask: Array | None = None) -> Acted:
        """Sampled actions for observations (B, ...), from the stream `seed`; legal ones only of `mask`, bool (B, actions)."""
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            distribution, value = self.model.split(
                self._outputs(features(torch.from_numpy(obs), scale)), mask_tensor(mask, len(obs))
            )
            action = distribution.sample(generator)
            log_prob, entropy = distribution.log_prob(action), distribution.entropy()
        return Acted(action.numpy(), log_prob.numpy(), entropy.numpy(), value.numpy())

    def _outputs(self, rows: Tensor) -> Tensor:
        """The model's outputs for many rows, a share of them on each thread where there are enough."""
        one_thread_each()
        if len(rows) < SHARED_FROM or self.replicas.workers == 1:
            return self.model.outputs(rows)
        return torch.cat(self.replicas.each(_outputs_of, rows.chunk(self.replicas.workers)))

    def batch(
        self,
        obs: Array,
        action: Array,
        log_prob: Array,
        advantage: Array,
        target: Array,
        value: Array,
        out: TensorBatch | None = None,
        mask: Array | None = None,
    ) -> TensorBatch:
        """B samples as `gradient` takes them. `out`, the batch before, is not reused here."""
        numbers = torch.stack([torch.from_numpy(x).reshape(-1) for x in (log_prob, advantage, target, value)], 1)
        rows = torch.from_numpy(obs).reshape(len(numbers), -1)
        return TensorBatch(rows, torch.from_numpy(action), numbers, mask_tensor(mask, len(numbers)))

    def permutation(self, num_samples: int, seed: int, block: int = 1) -> Array:
        """See `torch_ops.permutation`."""
        return permutation(num_samples, seed, block)

    def advantage(self, batch: TensorBatch, index: Tensor) -> Tensor:
        """Advantages float32 (M,) of the samples `index`, int64 (M,)."""
        one_thread_each()
        return batch.numbers.index_select(0, index)[:, 1]

    def gradient(self, batch: TensorBatch, index: Tensor, advantage: Tensor, coefs: Coefs, scale: Array | None = None) -> Array:
        """The gradient of `ppo_loss` over the M samples `index` goes into `parameters.grad`.

        `advantage` (M,) is what `advantage` gives, standardised or not. Returns the five sums of `ppo_loss`, float64 (5,).
        """

        def chunk_gradient(model: ActorCritic, chunk: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            part, numbers, weight = chunk
            old_log_prob, _, target, old_value = numbers.unbind(1)
            mask = None if batch.mask is None else batch.mask.index_select(0, part)
            distribution, value = model(features(batch.obs.index_select(0, part), scale), mask)
            log_prob, entropy = distribution.log_prob(batch.action.index_select(0, part)), distribution.entropy()
            loss, sums = ppo_loss(
                log_prob, value, entropy, old_log_prob, weight, target, old_value, **coefs._asdict(), num_samples=len(index)
            )
            loss.backward()
            return sums

        one_thread_each()
        numbers = batch.numbers.index_select(0, index)
        chunks = zip(index.split(self.chunk), numbers.split(self.chunk), advantage.split(self.chunk), strict=True)
        return self.replicas.summed(chunk_gradient, list(chunks))

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """A step of Adam down the gradient. Returns its norm before clipping; if that is not finite, nothing changes."""
        return self.optimiser.step(learning_rate, max_grad_norm)


def _outputs_of(model: ActorCritic, rows: Tensor) -> Tensor:
    with torch.inference_mode():  # a setting of each thread
        return model.outputs(rows)
