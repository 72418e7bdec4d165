"""A Q-network computed by torch: the reference for the fused kernels, and what works for every network.

It has the methods of `fused.FusedQ`, and parameters of the same layout.
"""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...store.arrays import Array
from ..data.transitions import Learned, Replay, Sample
from ..maths.losses import huber, quantile_huber, td_target
from ..nets.q_network import QNetwork
from ..optim.adam import FlatAdam
from ..optim.parallel import keep_memory, one_thread_each
from ..optim.parameters import Parameters
from .torch_ops import features


class TorchQ:
    """`model` with all parameters zero, and with `frozen` a target network, a copy since the last `sync`."""

    compiled: ClassVar[bool] = False

    def __init__(self, model: QNetwork, frozen: bool = True) -> None:
        keep_memory()
        one_thread_each()
        self.model, self.noises, self.heads = model, model.noises, model.heads
        self.quantiles = model.atoms > 1 and not model.heads
        self.parameters = Parameters({name: tuple(p.shape) for name, p in model.named_parameters()})
        self.optimiser = FlatAdam(model, parameters=self.parameters)
        self.target = self.parameters.flat.copy() if frozen else self.parameters.flat
        self.target_model = copy.deepcopy(model)
        for name, p in self.target_model.named_parameters():
            p.data, p.grad = torch.from_numpy(self.parameters.views(self.target)[name]), None

    def initialise(self, rng: np.random.Generator, sigma: float = 0.5) -> None:
        """See `Parameters.initialise_uniform`."""
        self.parameters.initialise_uniform(rng, sigma)
        self.sync()

    def sync(self) -> None:
        """The target network becomes what the network is."""
        self.target[:] = self.parameters.flat

    def q(self, obs: Array, noise: Array | None = None, head: Array | None = None) -> Array:
        """Values float32 (B, actions) of observations (B, D), of quantiles and heads the mean, or those of `head` (B,).

        `noise`: float32 (B, noises)."""
        one_thread_each()
        with torch.inference_mode():
            found = self.model(features(torch.from_numpy(obs)), None if noise is None else torch.from_numpy(noise))
            values: Array = (
                found.mean(2) if head is None else found[torch.arange(len(head)), :, torch.from_numpy(head)]
            ).numpy()
        return values

    def learn(
        self, replay: Replay, sample: Sample, double: bool, learning_rate: float, max_grad_norm: float, seed: int = 0
    ) -> Learned:
        """A step of Adam for each of the minibatches in `sample`, (K, B) each; noise comes from the stream `seed`.

        If the last norm is not finite, learning ended there, with the bad gradient in `parameters.grad`.
        """
        one_thread_each()
        generator = torch.Generator().manual_seed(seed)
        errors, norms, sums = np.zeros(sample.row.shape, np.float32), [], np.zeros(3)
        for k, (row, next_row, *known) in enumerate(zip(*sample, strict=True)):
            action, return_, discount, weight = (torch.from_numpy(x) for x in known)
            obs, next_obs = features(torch.from_numpy(replay.obs[row])), features(torch.from_numpy(replay.next_obs[next_row]))
            mask = None if replay.next_mask is None else torch.from_numpy(replay.next_mask[next_row])
            with torch.no_grad():
                following = self.target_model(next_obs, self._noise(generator, len(row)))
                chooser = self.model(next_obs, self._noise(generator, len(row))) if double else following
                goal = td_target(return_, discount, following, chooser, self.heads > 0, mask)  # (B, Z)
            self.optimiser.zero_grad()
            chosen = self.model(obs, self._noise(generator, len(row)))[torch.arange(len(row)), action]  # (B, Z)
            error = goal.mean(1) - chosen.mean(1)
            loss = weight * (quantile_huber(chosen, goal) if self.quantiles else huber(goal - chosen).mean(1))
            loss.mean().backward()
            norms.append(self.optimiser.step(learning_rate, max_grad_norm))
            found = error.detach()
            errors[k] = found.numpy()
            sums += [float(x) for x in (loss.detach().mean(), chosen.detach().mean(), found.abs().mean())]
            if not math.isfinite(norms[-1]):
                break
        return Learned(errors, sums / len(norms), np.array(norms))

    def _noise(self, generator: torch.Generator, rows: int) -> Tensor | None:
        return torch.randn(rows, self.noises, generator=generator) if self.noises else None
