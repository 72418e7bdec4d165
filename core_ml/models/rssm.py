"""Recurrent state-space model: a world learned in latents, for imagination (Hafner et al. 2019, "Learning latent dynamics
from pixels": PlaNet; 2021, "Mastering Atari with discrete world models": DreamerV2; 2025: DreamerV3)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, one_hot

from ...store.arrays import Array, check_arrays
from ..beliefs.protocol import State
from ..component import component
from ..data.sequences import Sequences
from ..encoders.autoencoding import AutoencoderConfig, AutoencoderModule
from ..encoders.cells import Cells
from ..maths.two_hot import TwoHot
from ..nets.layers import ACTIVATIONS, last_layer, mlp
from ..nets.modules import fresh
from ..observations import Observation
from ..optim.adam import FlatAdam
from ..optim.parallel import one_thread_each
from .protocol import ImaginedTrajectory, Outcome, OutcomeHeads, Policy, before, imagine, tensors


class _Straight(torch.autograd.Function):
    """z for the forward pass, the probabilities it was drawn from for the gradient (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, z: Tensor) -> Tensor:
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


@component("model", "rssm")
class RSSM:
    """World model. State of a row: h, deterministic (B, deter), and z, stochastic (B, stoch); its belief is [h, z].

    h_t = f(h_{t-1}, z_{t-1}, a_{t-1});   h = 0 where an episode begins
    posterior q(z_t | h_t, x_t), prior p(z_t | h_t);   x_t ~ p(x_t | h_t, z_t)
    episode goes on ~ Bernoulli(c(h_t)),   r_{t-1} ~ p(r | h_t, goes on or not)

    What z is (`latent`):

    levels       `groups` numbers, each rounded to one of `classes` levels (finite scalar quantisation): a code of what is
                 seen, with certainty; no class dies, as those of a softmax do
    cells        a grid's own cells, each a categorical over what may lie there: nothing of it has to be learned
    categorical  `groups` categoricals of `classes`, drawn, with straight-through gradients (DreamerV2)
    gaussian     `groups` numbers of a Gaussian (PlaNet)

    With `posterior` observation, z is made of x_t alone and tells it alone, h does not help (as in STORM, Zhang et al. 2023):
    codes stay what they are while the dynamics, whose gradients do not reach them, learn. DreamerV2 is {latent: categorical,
    posterior: history, chain: false, unimix: 0.01, representation: 0.1}. The prior draws groups one after the other, each
    knowing those before it: where chance decides between few outcomes, as slipping does, independent draws would mix
    them.

    Reward and continuation belong to the step that led to h_t and are read from it, before x_t is seen: a terminated episode
    shows no next x, and a truncated one none of its own. Going on means that the rules did not end the episode; time limits
    are not learned.

    Obs (B, *shape) as `observation` has them; actions (B, K) floats, one-hot where they are discrete. It is a belief
    (`memory.Belief`) over raw observations; without a generator the likeliest z stands for a sample.
    """

    class Config(AutoencoderConfig):
        hidden: tuple[int, ...] = Field((64,), description="full layers, in the encoder; mirrored in the decoder")
        code: int = Field(64, ge=1, le=4096, description="numbers that the encoder makes of an observation")
        deter: int = Field(64, ge=1, le=4096, description="numbers in h")
        latent: Literal["levels", "cells", "categorical", "gaussian"] = Field("levels", description="what z is")
        posterior: Literal["history", "observation"] = Field(
            "observation", description="what z is made of: the observation, and h or nothing else"
        )
        groups: int = Field(8, ge=1, le=1024, description="categoricals in z, or numbers of a gaussian")
        classes: int = Field(5, ge=2, le=256, description="of each categorical: its levels, where it has an order")
        chain: bool = Field(True, description="the prior draws a categorical knowing those drawn before it; else all at once")
        unimix: float = Field(0.0, ge=0, lt=1, description="share of the uniform distribution in each categorical")
        width: int = Field(64, ge=1, le=4096, description="hidden units of prior, posterior, reward and continue heads")
        free_nats: float = Field(1.0, ge=0, description="posteriors may differ from the prior so much for nothing")
        dynamics: float = Field(1.0, ge=0, description="weight of drawing the prior to the posterior")
        representation: float = Field(0.0, ge=0, description="weight of drawing the posterior to the prior")
        commitment: float = Field(0.1, ge=0, description="weight of drawing the posterior's numbers to the levels they mean")
        usage: float = Field(0.0, ge=0, description="weight of the entropy of the classes of a batch, against dead ones")
        reward_bins: int = Field(41, ge=3, le=1023, description="of the two-hot code of rewards; odd")
        reward_limit: float = Field(5.0, gt=0, le=20, description="symlog of the largest reward that it can say")
        max_grad_norm: float = Field(100.0, ge=0, description="gradients are cut to this norm; 0: never")

    def __init__(self, config: Config, observation: Observation, action_size: int, seed: int) -> None:
        o = self.config = config
        self.observation, self.actions = observation, action_size
        self.discrete = o.latent != "gaussian"
        self.cells = Cells(observation) if o.latent == "cells" else None
        self.groups: int
        self.classes: int
        self.groups, self.classes = (self.cells.groups, self.cells.classes) if self.cells else (o.groups, o.classes)
        self.stoch = self.groups * self.classes if self.discrete else self.groups
        self.size = o.deter + self.stoch
        self.alone = o.posterior == "observation" or bool(self.cells)
        self.certain = o.latent in ("levels", "cells")  # its posterior leaves nothing to chance
        self.chained = o.chain and self.discrete and self.groups > 1
        self.autoencoder = (
            None if self.cells else AutoencoderModule(o, observation, self.stoch if self.alone else self.size, o.code, seed)
        )

        two_hot = TwoHot(o.reward_bins, o.reward_limit)

        def build() -> Any:  # nn.ModuleDict, whose parts mypy knows nothing of
            out = self.stoch if self.discrete else 2 * self.stoch
            said = self.groups if o.latent == "levels" else out
            parts: dict[str, nn.Module] = {
                "prior": nn.Sequential(*mlp([o.deter, o.width], o.activation), nn.Linear(o.width, out)),
                "heads": OutcomeHeads(o.deter, o.width, o.activation, two_hot),
            }
            if self.chained:
                parts["drawn"] = nn.Linear(self.stoch, o.width, bias=False)
            # The posterior's first layer in two parts: what it makes of codes does not wait for h.
            if not self.cells:
                parts["look"] = nn.Linear(o.code, o.width)
                parts["posterior"] = nn.Sequential(ACTIVATIONS[o.activation](), nn.Linear(o.width, said))
            if not self.alone:
                parts["expect"] = nn.Linear(o.deter, o.width, bias=False)
            parts["enter"] = nn.Sequential(*mlp([self.stoch + action_size, o.width], o.activation))
            parts["cell"] = nn.Linear(o.width + o.deter, 3 * o.deter)
            parts["norm"] = nn.LayerNorm(3 * o.deter)
            return nn.ModuleDict(parts)

        self.net = fresh(build, seed + 1)
        with torch.no_grad():
            for name in self.net.keys() & {"prior", "posterior"}:  # distributions begin near uniform
                last_layer(self.net, name).weight *= 0.1
        self.net["heads"].begin()
        self.optimiser = FlatAdam(self.net)

    def initial(self, n: int) -> State:
        return {"h": torch.zeros(n, self.config.deter), "z": torch.zeros(n, self.stoch)}

    def features(self, state: State) -> Tensor:
        """[h, z], (B, size)."""
        return torch.cat([state["h"], state["z"]], -1)

    def observe(
        self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """One step: obs (B, *shape), previous action (B, K), is_first bool (B,) -> belief (B, size), state."""
        one_thread_each()
        state = self._observe_step(self._embed(obs), action, is_first, state, self._noise((len(obs),), generator))
        return self.features(state), state

    def sequence(
        self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """T steps: (B, T, *shape), previous actions (B, T, K), (B, T), state before -> (B, T, size), state after."""
        one_thread_each()
        seen, beliefs = self._embed(obs.flatten(0, 1)).unflatten(0, obs.shape[:2]), []
        for t in range(obs.shape[1]):
            noise = self._noise((len(obs),), generator)
            state = self._observe_step(seen[:, t], action[:, t], is_first[:, t], state, noise)
            beliefs.append(self.features(state))
        return torch.stack(beliefs, 1), state

    def _observe_step(self, seen: Tensor, action: Tensor, is_first: Tensor, state: State, noise: Tensor | None) -> State:
        h = self._forward(state["h"], state["z"], action).masked_fill(is_first.unsqueeze(1), 0.0)
        return {"h": h, "z": self._posterior(h, seen, noise)[2]}

    def step(self, state: State, action: Tensor, generator: torch.Generator | None = None) -> tuple[State, Outcome]:
        """One step in imagination, z from the prior: action (B, K) -> state, outcome. A chain gives z no gradient."""
        h = self._forward(state["h"], state["z"], action)
        return {"h": h, "z": self._sample_prior(h, generator)}, self.net["heads"].outcome(h)

    def imagine(self, state: State, policy: Policy, steps: int, generator: torch.Generator) -> ImaginedTrajectory:
        """`steps` steps of every row from `state`, with the actions of `policy`; without gradients."""
        return imagine(self, state, policy, steps, generator)

    def decode(self, belief: Tensor) -> Tensor:
        """The likeliest observations, (B, *shape), of beliefs (B, size)."""
        told = self._decoder_input(belief)
        part = self.cells or self.autoencoder
        assert part
        return part.decode(told)

    def update(self, batch: Sequences, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam on B sequences; nats per step."""
        return self.learn(batch, generator)[0]

    def learn(self, batch: Sequences, generator: torch.Generator, rate: float = 1.0) -> tuple[dict[str, float], State]:
        """`update` with `rate` times the learning rate, and the posterior states of the batch, each (B, L, ...): where
        imagination may start.

        L = -ln p(x | h, z) - ln p(r | h', goes on or not) - ln p(goes on or not | h')
            + dynamics KL(sg q || p) + representation max(free, KL(q || sg p)) - usage H[mean of q]
            + commitment (distance of the posterior's numbers from their levels)^2

        KL balancing as in DreamerV2, eq. 5, sg: without gradient. Free nats keep posteriors from saying nothing; the prior has
        no use for them, since what it is to predict may well have less than that to say. With `usage`, the classes of a batch
        are to differ: straight-through gradients hardly bring a class back that is never drawn. A sequence that begins within
        an episode starts from nothing, as an episode does, and its first prior is not counted.
        """
        one_thread_each()
        o, (obs, action, reward, terminated, is_first) = self.config, tensors(batch, self.actions)
        flat = obs.flatten(0, 1)
        if self.autoencoder:
            self.autoencoder.update_statistics(flat)
        seen, h = self._embed(flat).unflatten(0, reward.shape), self.initial(len(obs))["h"]
        noise = None if self.certain else self._noise(tuple(reward.shape), generator)
        # What the posterior says, it, and z: of the observation alone all at once, else step by step behind h.
        known = self._posterior(h, seen, noise) if self.alone else None
        told, kept, after = [], [], []
        for t in range(reward.shape[1]):
            if known is None:
                told.append(self._posterior(h, seen[:, t], None if noise is None else noise[:, t]))
            z = told[-1][2] if known is None else known[2][:, t].detach()
            kept.append(h)
            after.append(self._forward(h, z, action[:, t]))
            if t + 1 < reward.shape[1]:
                h = after[-1].masked_fill(is_first[:, t + 1, None], 0.0)
        out, q, z = known or (torch.stack(parts, 1) for parts in zip(*told, strict=True))
        h, led_to = torch.stack(kept, 1), torch.stack(after, 1)  # before and after the action, (B, L, deter)

        likelihood = reward.new_zeros(())
        if self.autoencoder:
            likelihood = self.autoencoder.log_prob(self._decoder_input(torch.cat([h, z], -1)).flatten(0, 1), flat).mean()
        reward_loss, going_loss = (part.mean() for part in self.net["heads"].loss(led_to, reward, terminated))
        p, counted = self._prior(h, z.detach()), torch.ones_like(reward)
        counted[:, 0] = is_first[:, 0]
        dynamics = (self._kl(q.detach(), p) * counted).mean()
        loss = reward_loss + going_loss - likelihood + o.dynamics * dynamics
        if o.representation:
            loss = loss + o.representation * (self._kl(q, p.detach()).clamp_min(o.free_nats) * counted).mean()
        if o.latent == "levels":
            share = self._levels(out)[1]
            loss = loss + o.commitment * torch.minimum(share, 1 - share).square().mean()
        if o.usage and self.discrete:
            share = q.mean((0, 1))  # (groups, classes)
            loss = loss + o.usage * (share * share.clamp_min(1e-12).log()).sum()
        optimisers = [self.optimiser, *([self.autoencoder.optimiser] if self.autoencoder else [])]
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        norms = [optimiser.step(rate * o.learning_rate, o.max_grad_norm) for optimiser in optimisers]
        found = {
            "loss": loss, "log_likelihood": likelihood, "kl": dynamics, "loss/reward": reward_loss, "loss/continue": going_loss,
        }  # fmt: skip
        metrics = {name: value.item() for name, value in found.items()} | {"grad_norm": math.hypot(*norms)}
        return metrics, {"h": h.detach(), "z": z.detach()}

    def posterior(self, batch: Sequences, generator: torch.Generator | None = None) -> State:
        """The states at the steps of a batch, each (B, L, ...), without gradients; sequences begin as in `learn`."""
        obs, action, _, _, is_first = tensors(batch, self.actions)
        is_first[:, 0] = True
        with torch.no_grad():
            belief, _ = self.sequence(obs, before(action), is_first, self.initial(len(obs)), generator)
        return dict(zip(("h", "z"), belief.split([self.config.deter, self.stoch], -1), strict=True))

    def _embed(self, obs: Tensor) -> Tensor:
        """(B, *shape) -> (B, width): what the posterior reads of observations; cells as they are, (B, groups, classes)."""
        if self.cells:
            return self.cells.encode(obs)
        assert self.autoencoder
        seen: Tensor = self.net["look"](self.autoencoder.encode(obs))
        return seen

    def _forward(self, h: Tensor, z: Tensor, action: Tensor) -> Tensor:
        """A gated unit with one norm for all gates (DreamerV2, appendix): h' = u tanh(r c) + (1 - u) h, from [r, c, u]."""
        cell, norm = self.net["cell"], self.net["norm"]
        entered = self.net["enter"](torch.cat([z, action], -1))
        gates = linear(torch.cat([entered, h], -1), cell.weight, cell.bias)
        r, c, u = layer_norm(gates, norm.normalized_shape, norm.weight, norm.bias).chunk(3, -1)
        new = r.sigmoid() * c
        new = (new + new).sigmoid() * 2 - 1  # tanh, several times faster on a CPU
        return torch.lerp(h, new, (u - 1).sigmoid())  # gates begin by keeping

    def _decoder_input(self, belief: Tensor) -> Tensor:
        """Of [h, z] what observations are decoded from."""
        return belief[..., self.config.deter :] if self.alone else belief

    def _posterior(self, h: Tensor, seen: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What is made of an observation: outputs of the posterior (..., numbers), the posterior, z (..., stoch)."""
        if self.cells:
            return seen, seen, seen.flatten(-2)
        out: Tensor = self.net["posterior"](seen if self.alone else seen + linear(h, self.net["expect"].weight))
        if self.config.latent == "levels":
            q = self._nearest_level(out)
            return out, q, q.flatten(-2)
        q = self._latent(out)
        return out, q, self._draw(q, noise)

    def _nearest_level(self, out: Tensor) -> Tensor:
        """One class of each group (..., groups, classes) for numbers (..., groups), with certainty: the level nearest to it
        (finite scalar quantisation, Mentzer et al. 2024).

        Gradients are those of the two levels around the number, weighted by how near they are: what the next one would change.
        """
        low, share = self._levels(out)
        below, above = (one_hot((low + step).long(), self.classes).to(out.dtype) for step in (0, 1))
        share = share.unsqueeze(-1)
        soft, hard = below + share * (above - below), torch.where(share.detach() < 0.5, below, above)
        return _Straight.apply(soft, hard)  # type: ignore[no-any-return, no-untyped-call]

    def _levels(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """The level below each number of the posterior, and how far it is to the next one."""
        top = self.classes - 1
        at = (out.tanh() + 1) * (top / 2)
        low = at.detach().floor().clamp_max(top - 1)
        return low, at - low

    def _prior(self, h: Tensor, z: Tensor) -> Tensor:
        """The distribution of z (...) given h (..., deter), as `_latent` says; in a chain, of each group given those of `z`
        (..., stoch) before it: one hidden layer, to which each adds its part (NADE, Larochelle & Murray 2011)."""
        first, act, last = self.net["prior"]
        hidden = first(h)
        if not self.chained:
            return self._latent(last(act(hidden)))
        drawn = self.net["drawn"].weight.view(-1, self.groups, self.classes)
        known = torch.einsum("...gc,wgc->...gw", z.unflatten(-1, (self.groups, self.classes)), drawn)
        known = known.cumsum(-2) - known
        weight = last.weight.view(self.groups, self.classes, -1)
        return self._latent(torch.einsum("...gw,gcw->...gc", act(hidden.unsqueeze(-2) + known), weight).flatten(-2) + last.bias)

    def _sample_prior(self, h: Tensor, generator: torch.Generator | None) -> Tensor:
        """z (B, stoch) from the prior; the likeliest without a generator, group by group."""
        if not self.chained:
            return self._draw(self._prior(h, h), self._noise((len(h),), generator))
        o, (first, act, last) = self.config, self.net["prior"]
        drawn, weight, bias = self.net["drawn"].weight.t(), last.weight.t(), last.bias
        # The largest of ln p + Gumbel noise is a draw from p (Maddison et al. 2014): one pass, without running sums.
        noise = None if generator is None else -(-torch.rand(len(h), self.stoch, generator=generator).log()).log()
        hidden, found = first(h), []
        for g in range(self.groups):
            own = slice(g * self.classes, (g + 1) * self.classes)
            said = torch.addmm(bias[own], act(hidden), weight[:, own])
            if o.unimix:
                said = self._mixed(said.softmax(-1)).log()
            found.append((said if noise is None else said.add_(noise[:, own])).argmax(-1))
            if g + 1 < self.groups:
                hidden += drawn[own].index_select(0, found[-1])
        return one_hot(torch.stack(found, -1), self.classes).to(h.dtype).flatten(-2)

    def _latent(self, out: Tensor) -> Tensor:
        """A distribution of z: of categoricals the probabilities (..., groups, classes), of Gaussians mean and log deviation,
        (..., 2, groups)."""
        if not self.discrete:
            mean, log_std = out.chunk(2, -1)
            return torch.stack([mean, log_std.clamp(-5.0, 2.0)], -2)
        return self._mixed(out.unflatten(-1, (self.groups, self.classes)).softmax(-1))

    def _mixed(self, p: Tensor) -> Tensor:
        o = self.config
        return torch.add(p.new_tensor(o.unimix / self.classes), p, alpha=1 - o.unimix)

    def _noise(self, lead: tuple[int, ...], generator: torch.Generator | None) -> Tensor | None:
        """What makes samples of distributions (*lead, ...); None without a generator."""
        if generator is None:
            return None
        draw = torch.rand if self.discrete else torch.randn
        return draw((*lead, self.groups), generator=generator)

    def _draw(self, q: Tensor, noise: Tensor | None) -> Tensor:
        """z (..., stoch) with gradients to `q`; the likeliest without noise."""
        if not self.discrete:
            mean, log_std = q.unbind(-2)
            return mean if noise is None else mean + log_std.exp() * noise
        if noise is None:
            z = one_hot(q.detach().argmax(-1), self.classes).to(q.dtype)
        else:  # u falls into one class of each group: between the running sum before it and its own
            sums = q.detach().cumsum(-1)
            u = noise.unsqueeze(-1) * sums[..., -1:]
            below = (sums <= u).to(q.dtype)  # 1 for the classes before the one that u falls into
            z = torch.cat([torch.ones_like(u), below[..., :-1]], -1) - below
        return _Straight.apply(q, z).flatten(-2)  # type: ignore[no-any-return, no-untyped-call]

    def _kl(self, q: Tensor, p: Tensor) -> Tensor:
        """KL(q || p) in nats, summed over z: (...)."""
        if self.discrete:
            return (q * (q.clamp_min(1e-12).log() - p.clamp_min(1e-12).log())).sum((-2, -1))
        (mean, log_std), (centre, log_spread) = q.unbind(-2), p.unbind(-2)
        ratio = (2 * (log_std - log_spread)).exp() + ((mean - centre) / log_spread.exp()).square()
        return (log_spread - log_std + 0.5 * (ratio - 1)).sum(-1)

    def state_dict(self) -> dict[str, Array]:
        parts = {"latent": self.optimiser.parameters.state()}
        if self.autoencoder:
            parts["coder"] = self.autoencoder.state()
        return {f"{part}.{name}": array.copy() for part, found in parts.items() for name, array in found.items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "world model rssm")
        loads = {"latent": self.optimiser.parameters.load}
        if self.autoencoder:
            loads["coder"] = self.autoencoder.load
        for part, load in loads.items():
            load({name.removeprefix(f"{part}."): array for name, array in state.items() if name.startswith(f"{part}.")})
