"""An actor-critic on a torch device, written so that its work can be captured into CUDA graphs and replayed.

The equations are those of `eager.py`. What is different is what a graph demands (PyTorch notes, "CUDA graphs"): memory
that stays in place, shapes that do not depend on data, no look at the host, work on a stream of its own. So numbers that
change from update to update are tensors, a bad gradient is masked instead of branched upon, random numbers are a function
of a seed that lies on the device, and the host reads results once per update.

On the CPU the very same functions are called without a graph: that is how they are tested where there is no GPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ....store.arrays import Array
from ...maths.losses import ppo_policy, value_error
from ...nets.actor_critic import ActorCritic
from ...optim.parameters import Parameters
from ..types import Acted, Coefs
from .graphs import Captured, Place
from .random import _bits, sample


class DeviceParameters(Parameters):
    """`Parameters` whose values live at a `Place`: the host's arrays are brought up to date when they are asked for."""

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
        """`optim.FlatAdam.step` without a look at the host: nothing changes unless `allowed` and all of `grad` is finite.

        Returns the gradient's norm before clipping, and whether it was applied.
        """
        flat, mean, square = self.there["flat"], self.there["mean"], self.there["square"]
        norm = torch.linalg.vector_norm(grad)
        applied = allowed & norm.isfinite()
        if max_grad_norm > 0:  # Python's numbers in torch.where would be copied from the host, which a graph cannot hold
            grad = grad * (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        b1, b2 = self.betas
        self.count += applied
        new_mean = torch.lerp(mean, grad, 1 - b1)
        new_square = square * b2 + (1 - b2) * grad * grad
        unbias1, unbias2 = (1 - b ** self.count.double() for b in (b1, b2))
        denominator = (new_square.sqrt() / unbias2.sqrt()).add_(self.eps)
        new_flat = flat - new_mean / denominator * (learning_rate / unbias1)
        for old, new in ((flat, new_flat), (mean, new_mean), (square, new_square)):
            old.copy_(torch.where(applied, new, old))
        return norm, applied


class Memory(NamedTuple):
    """A rollout of T steps of N copies with A agents, on the device, in place for good. Float32 where nothing is said."""

    obs: Tensor  # (T, N, A, *observation shape), as the world has them
    action: Tensor  # int64 (T, N, A) or float32 (T, N, A, D): as sampled, not cut to the world's bounds
    log_prob: Tensor  # (T, N, A)
    value: Tensor  # (T, N, A)
    final_value: Tensor  # (T, N, A): value of what the step led to, meaningful where truncated
    reward: Tensor  # (T, N, A)
    terminated: Tensor  # bool (T, N)
    truncated: Tensor  # bool (T, N)
    last_obs: Tensor  # (N, A, *observation shape): after the last step


class DeviceActorCritic:
    """`model` at a `Place`, with its parameters in `memory`, all zero at first.

    For acting: `outputs` and `act`, as `eager.TorchActorCritic` has them. For a rollout that stays on the device: `reserve`,
    then `begin`, `choose` and `bootstrap_value` at each step; for learning from it `advantages`, `epoch` and `report`.
    `bounds`, float32 (2, *action shape): what the world gets is cut to these.
    """

    def __init__(self, model: ActorCritic, device: str, bounds: Array | None = None) -> None:
        self.place = place = Place(device)
        with place.here():
            self.model = model.to(place.device)
            self.bounds = None if bounds is None else torch.from_numpy(bounds).to(place.device)
            self.memory = DeviceParameters({name: tuple(p.shape) for name, p in model.named_parameters()}, place)
            sizes = [p.numel() for p in model.parameters()]
            for p, part in zip(model.parameters(), self.memory.there["flat"].split(sizes), strict=True):
                p.data = part.view(p.shape)
            self.seed, self.shuffle = (self._zeros((), torch.int64) for _ in range(2))  # of a rollout, of an epoch's order
            self.rates = self._zeros((2,), torch.float64)  # learning rate, weight of the entropy
            self.sums, self.norms = self._zeros((5,), torch.float64), self._zeros((), torch.float64)
            self.sound = self._zeros((), torch.bool)  # no gradient of this update was bad
        self.kept: Memory | None = None
        self._graphs: dict[Any, Captured] = {}
        self._index: dict[Any, Tensor] = {}  # the rows that a minibatch's graph reads

    def _zeros(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.place.device)

    # For anyone: observations from the host, answers to the host.

    @torch.no_grad()
    def outputs(self, obs: Array, scale: Array | None = None) -> tuple[Array, Array]:
        """Logits or means float32 (B, actions), and values float32 (B,), of observations (B, ...)."""
        with self.place.here():
            outputs = self.model.outputs(_features(torch.from_numpy(obs).to(self.place.device))).cpu()
        return outputs[:, :-1].numpy(), outputs[:, -1].numpy()

    @torch.no_grad()
    def act(self, obs: Array, seed: int, scale: Array | None = None) -> Acted:
        """Sampled actions for observations (B, ...), from the stream `seed`."""
        with self.place.here():
            distribution, value = self.model(_features(torch.from_numpy(obs).to(self.place.device)))
            action = sample(distribution, torch.tensor(seed, device=self.place.device))
            found = action, distribution.log_prob(action), distribution.entropy(), value
            return Acted(*(x.cpu().numpy() for x in found))

    # A rollout on the device.

    def reserve(self, steps: int, obs: Tensor) -> Memory:
        """Memory for `steps` steps of copies that show `obs` (N, A, ...); the same as before where sizes are the same."""
        if self.kept is None or self.kept.obs.shape != (steps, *obs.shape) or self.kept.obs.dtype != obs.dtype:
            lead = steps, *obs.shape[:2]
            with self.place.here():
                actions = self._zeros(lead, torch.int64)
                if self.bounds is not None:
                    actions = self._zeros((*lead, *self.bounds.shape[1:]))
                numbers = [self._zeros(lead) for _ in range(4)]
                flags = [self._zeros(lead[:2], torch.bool) for _ in range(2)]
                seen = [self._zeros((*first, *obs.shape), obs.dtype) for first in ((steps,), ())]
                self.kept = Memory._make([seen[0], actions, *numbers, *flags, seen[1]])
                self.advantage = self._zeros(lead)
            self._graphs.clear()
            self._index.clear()
        return self.kept

    def begin(self, seed: int) -> None:
        """Random numbers of the next rollout come from `seed`. Not part of its graph: the seed is a number of the host's."""
        with self.place.here():
            self.seed.fill_(seed)

    @torch.no_grad()
    def choose(self, t: int, obs: Tensor, action: Tensor) -> None:
        """Step `t` of a rollout: keep `obs` (N, A, ...), and write into `action` what the world gets. May be captured."""
        kept, lead = self._kept(), obs.shape[:2]
        kept.obs[t].copy_(obs)
        distribution, value = self.model(_features(kept.obs[t].flatten(0, 1)))
        chosen = sample(distribution, self.seed, t)
        kept.action[t].copy_(chosen.view(kept.action[t].shape))
        kept.log_prob[t].copy_(distribution.log_prob(chosen).view(lead))
        kept.value[t].copy_(value.view(lead))
        action.copy_(self.legal(kept.action[t]))

    @torch.no_grad()
    def bootstrap_value(self, t: int, final_obs: Tensor) -> None:
        """After step `t`: values of `final_obs` (N, A, ...). Of all rows, because how many count is for the data to say."""
        kept = self._kept()
        outputs = self.model.outputs(_features(final_obs.flatten(0, 1)))
        kept.final_value[t].copy_(outputs[:, -1].view(kept.reward[t].shape))

    def legal(self, action: Tensor) -> Tensor:
        """Sampled actions, cut to the bounds of the world."""
        return action if self.bounds is None else action.clamp(self.bounds[0], self.bounds[1])

    def _kept(self) -> Memory:
        assert self.kept is not None, "reserve memory first"
        return self.kept

    # Learning from it.

    def take(self, rollout: Memory) -> None:
        """Copy what does not lie in `kept` already."""
        with self.place.here():
            for mine, theirs in zip(self.reserve(len(rollout.obs), rollout.last_obs), rollout, strict=True):
                if mine.data_ptr() != theirs.data_ptr():
                    mine.copy_(theirs.reshape(mine.shape))

    def advantages(self, gamma: float, gae_lambda: float) -> None:
        """`returns.gae` of the rollout in `kept`, and the beginning of an update: no gradient has been bad yet."""
        key = "gae", gamma, gae_lambda
        if key not in self._graphs:
            self._graphs[key] = Captured(lambda: self._advantages(gamma, gae_lambda), self.place)
        self._graphs[key]()

    @torch.no_grad()
    def _advantages(self, gamma: float, gae_lambda: float) -> None:
        kept = self._kept()
        terminated, truncated = kept.terminated.unsqueeze(-1), kept.truncated.unsqueeze(-1)  # (T, N, 1)
        last = self.model.outputs(_features(kept.last_obs.flatten(0, 1)))[:, -1].view(1, *kept.last_obs.shape[:2])
        next_value = torch.where(truncated, kept.final_value, torch.cat([kept.value[1:], last]))
        self.advantage.copy_(kept.reward + gamma * next_value * ~terminated - kept.value)
        carry_on = gamma * gae_lambda * ~(terminated | truncated)
        for t in range(len(carry_on) - 2, -1, -1):
            self.advantage[t].addcmul_(carry_on[t], self.advantage[t + 1])
        self.norms.zero_()
        self.sound.fill_(True)

    def epoch(
        self, seed: int, size: int, coefs: Coefs, learning_rate: float, max_grad_norm: float, normalise: bool = True
    ) -> None:
        """One pass over the rows in random order, in minibatches of `size`, as `eager.TorchActorCritic.epoch`.

        A graph holds one minibatch; there are at most two sizes of them. Outside of it are the sort that shuffles, which
        allocates as it likes, and the numbers that come from the host.
        """
        with self.place.here():
            self.rates[0].fill_(learning_rate)
            self.rates[1].fill_(coefs.ent_coef)
            self.sums.zero_()
            order = _bits(self.shuffle.fill_(seed), 0, self.advantage.numel()).argsort()
            for part in order.split(size):
                key = len(part), coefs._replace(ent_coef=0.0), max_grad_norm, normalise
                if key not in self._graphs:
                    self._index[key] = part.clone()
                    self._graphs[key] = Captured(lambda k=key: self._minibatch(self._index[k], *k[1:]), self.place)  # type: ignore[misc]
                self._index[key].copy_(part)
                self._graphs[key]()

    def _minibatch(self, index: Tensor, coefs: Coefs, max_grad_norm: float, normalise: bool) -> None:
        """Gradient of PPO's loss over the rows `index`, and a step of Adam, unless a gradient of this update was bad."""
        kept = self._kept()
        discrete = self.bounds is None

        def rows(x: Tensor, *shape: int) -> Tensor:
            return x.view(self.advantage.numel(), *shape).index_select(0, index)

        log_prob, value, weight = rows(kept.log_prob), rows(kept.value), rows(self.advantage)
        target = weight + value
        if normalise and len(index) > 1:
            weight = (weight - weight.mean()) / (weight.std() + 1e-8)
        distribution, new_value = self.model(_features(rows(kept.obs, -1)))
        new_log_prob = distribution.log_prob(rows(kept.action) if discrete else rows(kept.action, -1))
        policy_loss, kl, clipped = ppo_policy(new_log_prob, log_prob, weight, coefs.clip_coef)
        value_loss = value_error(new_value, value, target, coefs.value_clip)
        entropy = distribution.entropy().sum()
        loss = (policy_loss + coefs.vf_coef * value_loss - self.rates[1].float() * entropy) / len(index)
        # Not loss.backward(): that would add into .grad on whatever stream first used the parameters.
        grads = torch.autograd.grad(loss, list(self.model.parameters()))
        with torch.no_grad():
            grad = torch.cat([part.reshape(-1) for part in grads])
            norm, applied = self.memory.step(grad, self.rates[0], max_grad_norm, self.sound)
            known, sound = self.memory.there["grad"], self.sound.clone()
            known.copy_(torch.where(sound, grad, known))  # the first bad one stays, for whoever asks
            found = torch.stack([policy_loss, value_loss, entropy, kl, clipped.to(kl.dtype)]).double()
            self.sums += torch.where(sound, found, torch.zeros_like(found))
            self.norms += torch.where(sound, norm, torch.zeros_like(norm))
            self.sound &= applied

    def kl(self) -> float:
        """Mean KL divergence of the last epoch; the host waits for it."""
        with self.place.here():
            return float(self.sums[3]) / self.advantage.numel()

    def report(self) -> Report:
        """What came of this update; the host waits for it."""
        kept = self._kept()
        with self.place.here():
            target = self.advantage + kept.value
            variances = [x.double().var(correction=0) for x in (self.advantage, target)]
            numbers = torch.cat([self.sums, self.norms.view(1), *(v.view(1) for v in variances)]).tolist()
        left, whole = numbers[6:]
        return Report(np.array(numbers[:5]), numbers[5], 1 - left / whole if whole > 0 else 0.0)


class Report(NamedTuple):
    """An update in numbers."""

    sums: Array  # float64 (5,): as `eager.TorchActorCritic.epoch` gives them, of the last epoch
    norms: float  # gradients' norms before clipping, summed over minibatches: not finite where a gradient was bad
    explained_variance: float  # of the value targets, by the values when acting


def _features(obs: Tensor) -> Tensor:
    """(B, ...) of any number type -> float32 (B, D), in memory of its own: a product's last bit depends on alignment."""
    return obs.reshape(len(obs), -1).to(torch.float32, copy=True)
