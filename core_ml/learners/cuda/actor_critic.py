"""An actor-critic on a GPU, written so that its work can be captured into CUDA graphs and replayed.

Loss, advantages and Adam are the functions that the CPU's torch learners call. A graph needs more (PyTorch notes, "CUDA
graphs"): arrays that stay in place, shapes that do not depend on data, no transfer to the host, work on one stream. So numbers
that change from update to update are tensors, a gradient that is not finite is masked instead of branched upon, random
numbers are a function of a seed on the device, and the host reads results once per update.

On the CPU the same functions are called without a graph: that is how they are tested where there is no GPU.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ....store.arrays import Array
from ...maths.losses import ppo_loss
from ...maths.returns import gae
from ...nets.actor_critic import ActorCritic
from ...optim.adam import adam_moments
from ...optim.parameters import Parameters
from ..types import Acted, Coefs
from .graphs import Captured, Place
from .random import permutation, sample


class DeviceParameters(Parameters):
    """`Parameters` whose values live at a `Place`; the host's arrays are updated when `state` or `bad_gradient` needs them."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], place: Place) -> None:
        super().__init__(shapes)
        self.place = place
        with place.here():
            self.there = {name: torch.from_numpy(x).to(place.device, copy=True) for name, x in self._here().items()}
            self.count = torch.zeros((), dtype=torch.int64, device=place.device)  # Adam's steps

    def _here(self) -> dict[str, Array]:
        return {"flat": self.flat, "grad": self.grad, "mean": self.mean, "square": self.square}

    def _pull(self) -> None:
        with self.place.here():
            for name, array in self._here().items():
                torch.from_numpy(array).copy_(self.there[name])
            self.steps = int(self.count)

    def _push(self) -> None:
        with self.place.here():
            for name, array in self._here().items():
                self.there[name].copy_(torch.from_numpy(array))
            self.count.fill_(self.steps)

    def initialise(self, rng: np.random.Generator) -> None:
        super().initialise(rng)
        self._push()

    def bad_gradient(self) -> str | None:
        self._pull()
        return super().bad_gradient()

    def state(self) -> dict[str, Array]:
        self._pull()
        return super().state()

    def load(self, state: dict[str, Array]) -> None:
        super().load(state)
        self._push()

    def step(self, grad: Tensor, learning_rate: Tensor, max_grad_norm: float, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """`FlatAdam.step` without a transfer to the host: nothing changes unless `allowed` and all of `grad` is finite.

        Returns the gradient's norm before clipping, and whether it was applied.
        """
        flat, mean, square = self.there["flat"], self.there["mean"], self.there["square"]
        norm = torch.linalg.vector_norm(grad)
        applied = allowed & norm.isfinite()
        if max_grad_norm > 0:  # Python's numbers in torch.where would be copied from the host, which a graph cannot hold
            grad = grad * (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        self.count += applied
        unbias1, unbias2 = (1 - b ** self.count.double() for b in self.betas)
        new_mean, new_square = mean.clone(), square.clone()
        denominator = adam_moments(grad, new_mean, new_square, self.betas, unbias2.sqrt(), self.eps)
        new_flat = flat - new_mean / denominator * (learning_rate / unbias1)
        for old, new in ((flat, new_flat), (mean, new_mean), (square, new_square)):
            old.copy_(torch.where(applied, new, old))
        return norm, applied


class DeviceRolloutBuffer(NamedTuple):
    """A rollout of T steps of N environments with A agents, on the device; it never moves. Float32 where no type is given."""

    obs: Tensor  # (T, N, A, *observation shape), as the world has them
    action: Tensor  # int64 (T, N, A) or float32 (T, N, A, D): as sampled, not clipped to the world's bounds
    log_prob: Tensor  # (T, N, A)
    value: Tensor  # (T, N, A)
    final_value: Tensor  # (T, N, A): value of what the step led to, meaningful where truncated
    reward: Tensor  # (T, N, A)
    terminated: Tensor  # bool (T, N)
    truncated: Tensor  # bool (T, N)
    last_obs: Tensor  # (N, A, *observation shape): after the last step
    mask: Tensor  # bool (T, N, A, actions): legal actions; (T, N, A, 0): there are no masks


class DeviceActorCritic:
    """`model` at a `Place`, with its `parameters`, all zero at first.

    Acting: `outputs` and `act`, as `TorchActorCritic` has them. A rollout that stays on the device: `reserve` and `begin`, then
    `choose` and `bootstrap_value` at each step. Learning from it: `advantages`, `epoch` and `report`. `bounds`, float32
    (2, *action shape): actions are clipped to these for the world. `masked`: how many actions a mask has, 0: there are none.
    """

    compiled: ClassVar[bool] = False  # what the CPU's collectors and `agents.deep.ppo.run_epoch` ask

    def __init__(self, model: ActorCritic, device: str, bounds: Array | None = None, masked: int = 0) -> None:
        self.place, self.masked = (place := Place(device)), masked
        with place.here():
            self.model = model.to(place.device)
            self.bounds = None if bounds is None else torch.from_numpy(bounds).to(place.device)
            self.parameters = DeviceParameters({name: tuple(p.shape) for name, p in model.named_parameters()}, place)
            sizes = [p.numel() for p in model.parameters()]
            for p, part in zip(model.parameters(), self.parameters.there["flat"].split(sizes), strict=True):
                p.data = part.view(p.shape)
            self.seed, self.shuffle = (self._zeros((), torch.int64) for _ in range(2))  # of a rollout, of an epoch's order
            self.rates = self._zeros((2,), torch.float64)  # learning rate, weight of the entropy
            self.sums, self.norms = self._zeros((5,), torch.float64), self._zeros((), torch.float64)
            self.sound = self._zeros((), torch.bool)  # no gradient of this update was bad
        self.buffer: DeviceRolloutBuffer | None = None
        self._graphs: dict[Any, Captured] = {}
        self._index: dict[Any, Tensor] = {}  # the rows that a minibatch's graph reads

    def _zeros(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.place.device)

    # Acting for the host: observations come from there, and answers go there.

    @torch.no_grad()
    def outputs(self, obs: Array, scale: Array | None = None) -> tuple[Array, Array]:
        """Logits or means float32 (B, actions), and values float32 (B,), of observations (B, ...)."""
        with self.place.here():
            outputs = self.model.outputs(_features(torch.from_numpy(obs).to(self.place.device))).cpu()
        return outputs[:, :-1].numpy(), outputs[:, -1].numpy()

    @torch.no_grad()
    def act(self, obs: Array, seed: int, scale: Array | None = None, mask: Array | None = None) -> Acted:
        """Sampled actions for observations (B, ...), from the stream `seed`; legal ones only of `mask`, bool (B, actions)."""
        with self.place.here():
            legal = None if mask is None else torch.from_numpy(mask).to(self.place.device).reshape(len(obs), -1)
            distribution, value = self.model(_features(torch.from_numpy(obs).to(self.place.device)), legal)
            action = sample(distribution, torch.tensor(seed, device=self.place.device))
            log_prob, entropy = distribution.log_prob(action).cpu().numpy(), distribution.entropy().cpu().numpy()
            return Acted(action.cpu().numpy(), log_prob, entropy, value.cpu().numpy())

    # A rollout on the device.

    def reserve(self, steps: int, obs: Tensor) -> DeviceRolloutBuffer:
        """A buffer for `steps` steps of environments that show `obs` (N, A, ...); the one before where the sizes agree."""
        if self.buffer is None or self.buffer.obs.shape != (steps, *obs.shape) or self.buffer.obs.dtype != obs.dtype:
            lead = steps, *obs.shape[:2]
            discrete = self.bounds is None
            with self.place.here():
                self.buffer = DeviceRolloutBuffer(
                    obs=self._zeros((steps, *obs.shape), obs.dtype),
                    action=self._zeros(lead, torch.int64) if discrete else self._zeros((*lead, *self.bounds.shape[1:])),  # type: ignore[union-attr]
                    log_prob=self._zeros(lead),
                    value=self._zeros(lead),
                    final_value=self._zeros(lead),
                    reward=self._zeros(lead),
                    terminated=self._zeros(lead[:2], torch.bool),
                    truncated=self._zeros(lead[:2], torch.bool),
                    last_obs=self._zeros(tuple(obs.shape), obs.dtype),
                    mask=self._zeros((*lead, self.masked), torch.bool),
                )
                self.advantage = self._zeros(lead)
            self._graphs.clear()
            self._index.clear()
        return self.buffer

    def begin(self, seed: int) -> None:
        """Random numbers of the next rollout come from `seed`. Not part of its graph: the seed is a number on the host."""
        with self.place.here():
            self.seed.fill_(seed)

    @torch.no_grad()
    def choose(self, t: int, obs: Tensor, action: Tensor, mask: Tensor | None = None) -> None:
        """Step `t` of a rollout: store `obs` (N, A, ...) and `mask`, bool (N, A, actions), if there are masks, and write into
        `action` what the world gets. May be captured."""
        buffer, lead = self._buffer(), obs.shape[:2]
        buffer.obs[t].copy_(obs)
        legal = None
        if self.masked:
            assert mask is not None, "this learner was made for an environment with action masks"
            buffer.mask[t].copy_(mask)
            legal = buffer.mask[t].flatten(0, 1)
        distribution, value = self.model(_features(buffer.obs[t].flatten(0, 1)), legal)
        chosen = sample(distribution, self.seed, t)
        buffer.action[t].copy_(chosen.view(buffer.action[t].shape))
        buffer.log_prob[t].copy_(distribution.log_prob(chosen).view(lead))
        buffer.value[t].copy_(value.view(lead))
        action.copy_(self.legal(buffer.action[t]))

    @torch.no_grad()
    def bootstrap_value(self, t: int, final_obs: Tensor) -> None:
        """After step `t`: values of `final_obs` (N, A, ...). Of all rows, because a graph's shapes cannot depend on data."""
        buffer = self._buffer()
        outputs = self.model.outputs(_features(final_obs.flatten(0, 1)))
        buffer.final_value[t].copy_(outputs[:, -1].view(buffer.reward[t].shape))

    def legal(self, action: Tensor) -> Tensor:
        """Sampled actions, clipped to the bounds of the world."""
        return action if self.bounds is None else action.clamp(self.bounds[0], self.bounds[1])

    def _buffer(self) -> DeviceRolloutBuffer:
        assert self.buffer is not None, "call reserve first"
        return self.buffer

    # Learning from it.

    def take(self, rollout: DeviceRolloutBuffer) -> None:
        """Copy a rollout into `buffer`, except what lies there already."""
        with self.place.here():
            for mine, theirs in zip(self.reserve(len(rollout.obs), rollout.last_obs), rollout, strict=True):
                if mine.data_ptr() != theirs.data_ptr():
                    mine.copy_(theirs.reshape(mine.shape))

    def advantages(self, gamma: float, gae_lambda: float) -> None:
        """`returns.gae` of the rollout in `buffer`. It begins an update: no gradient has been bad yet."""
        key = "gae", gamma, gae_lambda
        if key not in self._graphs:
            self._graphs[key] = Captured(lambda: self._advantages(gamma, gae_lambda), self.place)
        self._graphs[key]()

    @torch.no_grad()
    def _advantages(self, gamma: float, gae_lambda: float) -> None:
        buffer = self._buffer()
        terminated, truncated = buffer.terminated.unsqueeze(-1), buffer.truncated.unsqueeze(-1)  # (T, N, 1)
        last = self.model.outputs(_features(buffer.last_obs.flatten(0, 1)))[:, -1].view(1, *buffer.last_obs.shape[:2])
        # `returns.next_step` with shapes that do not depend on how many episodes were truncated.
        next_value = torch.where(truncated, buffer.final_value, torch.cat([buffer.value[1:], last]))
        done = terminated | truncated
        self.advantage.copy_(gae(buffer.reward, buffer.value, next_value, terminated, done, gamma, gae_lambda))
        self.norms.zero_()
        self.sound.fill_(True)

    def epoch(
        self, seed: int, size: int, coefs: Coefs, learning_rate: float, max_grad_norm: float, normalise: bool = True
    ) -> None:
        """One pass over the samples in random order, in minibatches of `size`: `agents.deep.ppo.run_epoch` on a device.

        A graph holds one minibatch; there are at most two sizes of them. Outside of it are the sort that shuffles, which
        allocates temporary arrays, and the numbers that come from the host.
        """
        with self.place.here():
            self.rates[0].fill_(learning_rate)
            self.rates[1].fill_(coefs.ent_coef)
            self.sums.zero_()
            for part in permutation(self.advantage.numel(), self.shuffle.fill_(seed)).split(size):
                key = len(part), coefs._replace(ent_coef=0.0), max_grad_norm, normalise
                if key not in self._graphs:
                    self._index[key] = part.clone()
                    self._graphs[key] = Captured(lambda k=key: self._minibatch(self._index[k], *k[1:]), self.place)  # type: ignore[misc]
                self._index[key].copy_(part)
                self._graphs[key]()

    def _minibatch(self, index: Tensor, coefs: Coefs, max_grad_norm: float, normalise: bool) -> None:
        """Gradient of `ppo_loss` over the samples `index`, and a step of Adam, unless a gradient of this update was bad."""
        buffer = self._buffer()
        discrete = self.bounds is None

        def rows(x: Tensor, *shape: int) -> Tensor:
            return x.view(self.advantage.numel(), *shape).index_select(0, index)

        old_log_prob, old_value, advantage = rows(buffer.log_prob), rows(buffer.value), rows(self.advantage)
        target = advantage + old_value
        if normalise and len(index) > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        legal = rows(buffer.mask, self.masked) if self.masked else None
        distribution, value = self.model(_features(rows(buffer.obs, -1)), legal)
        log_prob = distribution.log_prob(rows(buffer.action) if discrete else rows(buffer.action, -1))
        chosen = coefs._asdict() | {"ent_coef": self.rates[1].float()}  # a tensor: it changes from update to update
        entropy, old = distribution.entropy(), (old_log_prob, advantage, target, old_value)
        loss, sums = ppo_loss(log_prob, value, entropy, *old, **chosen, num_samples=len(index))
        # Not loss.backward(): that would add into .grad on whatever stream first used the parameters.
        grads = torch.autograd.grad(loss, list(self.model.parameters()))
        with torch.no_grad():
            grad = torch.cat([part.reshape(-1) for part in grads])
            norm, applied = self.parameters.step(grad, self.rates[0], max_grad_norm, self.sound)
            known, sound = self.parameters.there["grad"], self.sound.clone()
            known.copy_(torch.where(sound, grad, known))  # the first bad gradient stays, for the error message
            found = sums.double()
            self.sums += torch.where(sound, found, torch.zeros_like(found))
            self.norms += torch.where(sound, norm, torch.zeros_like(norm))
            self.sound &= applied

    def kl(self) -> float:
        """Mean KL divergence of the last epoch; the host waits for it."""
        with self.place.here():
            return float(self.sums[3]) / self.advantage.numel()

    def report(self) -> Report:
        """Metrics of this update; the host waits for them."""
        buffer = self._buffer()
        with self.place.here():
            target = self.advantage + buffer.value
            variances = [x.double().var(correction=0) for x in (self.advantage, target)]
            numbers = torch.cat([self.sums, self.norms.view(1), *(v.view(1) for v in variances)]).tolist()
        left, whole = numbers[6:]
        return Report(np.array(numbers[:5]), numbers[5], 1 - left / whole if whole > 0 else 0.0)


class Report(NamedTuple):
    """Metrics of an update."""

    sums: Array  # float64 (5,): the sums of `ppo_loss` over the last epoch
    norms: float  # gradients' norms before clipping, summed over minibatches: not finite where a gradient was bad
    explained_variance: float  # of the value targets, by the values when acting


def _features(obs: Tensor) -> Tensor:
    """(B, ...) of any number type -> float32 (B, D), in an array of its own: a product's last bit depends on alignment."""
    return obs.reshape(len(obs), -1).to(torch.float32, copy=True)
