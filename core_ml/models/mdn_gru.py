"""World Models (Ha & Schmidhuber 2018, arXiv:1803.10122): V, a variational autoencoder, says what is seen; M, a recurrent
network with a mixture density head, what will be."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ...store.arrays import Array, check_arrays
from ..beliefs.protocol import State
from ..component import component
from ..data.sequences import Sequences
from ..distributions import Gaussian
from ..encoders.vae import VAE
from ..maths.two_hot import TwoHot
from ..nets.modules import fresh
from ..observations import Observation
from ..optim.adam import FlatAdam
from ..optim.parallel import one_thread_each
from .mixture_head import MixtureHead
from .protocol import ImaginedTrajectory, Outcome, OutcomeHeads, Policy, before, imagine, tensors


@component("model", "mdn-gru")
class MdnGru:
    """z_t ~ q(z | x_t), of the VAE alone;  h_{t+1} = GRU(h_t, [z_t, a_t]), h = 0 where an episode begins;
    p(z_{t+1} | h_{t+1}) a mixture of normal distributions;  reward and continuation of a_t from h_{t+1}.

    State: h (B, deter) and z (B, size of a code); features are [h, z]. Unlike in an RSSM, observations do not change h: what z
    does not say of them is lost, and codes do not learn from what will be. The VAE learns from the same batches, one step
    before M does, and with `settle` only at first, because M predicts the codes of V. In imagination z is drawn with
    `temperature`: above 1 imagination is more uncertain than the model, so that a policy exploits its errors less (there,
    section 4).
    """

    class Config(VAE.Config):
        hidden: tuple[int, ...] = Field((64,), description="full layers of the encoder; mirrored in the decoder")
        size: int = Field(16, ge=1, le=4096, description="numbers in z")
        beta: float = Field(0.1, ge=0, description="weight of the KL divergence to the prior; what blurs z, M cannot know")
        settle: int = Field(0, ge=0, description="updates after which the autoencoder stays as it is; 0: never")
        deter: int = Field(64, ge=1, le=4096, description="units of the GRU, numbers in h")
        width: int = Field(64, ge=1, le=4096, description="hidden units of reward and continue heads")
        components: int = Field(5, ge=1, le=256, description="normal distributions in a mixture")
        joint: bool = Field(True, description="one mixture over the whole z; else one for each number, as in World Models")
        min_std: float = Field(0.05, gt=0, description="added to deviations of the mixture")
        temperature: float = Field(1.0, ge=0, le=10, description="of z in imagination; 0: the likeliest component's mean")
        reward_bins: int = Field(41, ge=3, le=1023, description="of the two-hot code of rewards; odd")
        reward_limit: float = Field(5.0, gt=0, le=20, description="symlog of the largest reward that it can say")
        max_grad_norm: float = Field(100.0, ge=0, description="gradients are cut to this norm; 0: never")

    def __init__(self, config: Config, observation: Observation, action_size: int, seed: int) -> None:
        o = self.config = config
        self.observation, self.actions, self.size = observation, action_size, o.deter + o.size
        self.vae = VAE(o, observation, seed)
        self.mixture = MixtureHead(
            MixtureHead.Config(components=o.components, joint=o.joint, min_std=o.min_std), o.deter, o.size, seed + 1
        )  # fmt: skip

        two_hot = TwoHot(o.reward_bins, o.reward_limit)

        def build() -> Any:  # nn.ModuleDict, whose parts mypy knows nothing of
            cell = nn.GRUCell(o.size + action_size, o.deter)
            heads = OutcomeHeads(o.deter, o.width, o.activation, two_hot)
            return nn.ModuleDict({"cell": cell, "heads": heads})

        self.net = fresh(build, seed + 2)
        self.net["heads"].begin()
        with torch.no_grad():
            self.net["cell"].bias_ih[o.deter : 2 * o.deter] = 1.0  # the gate that keeps is open at first
        self.net["mixture"] = self.mixture.net
        self.optimiser = FlatAdam(self.net)

    def initial(self, n: int) -> State:
        return {"h": torch.zeros(n, self.config.deter), "z": torch.zeros(n, self.config.size)}

    def features(self, state: State) -> Tensor:
        """[h, z], (B, size)."""
        return torch.cat([state["h"], state["z"]], -1)

    def observe(
        self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        features, state = self.sequence(obs.unsqueeze(1), action.unsqueeze(1), is_first.unsqueeze(1), state, generator)
        return features.squeeze(1), state

    def sequence(
        self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        one_thread_each()
        q, (h, z) = self._codes(obs), (state["h"], state["z"])
        found = []
        for t in range(obs.shape[1]):
            h = self.net["cell"](torch.cat([z, action[:, t]], -1), h).masked_fill(is_first[:, t, None], 0.0)
            now = Gaussian(q.mean[:, t], q.log_std[:, t])
            z = now.mode() if generator is None else now.sample(generator)
            found.append(torch.cat([h, z], -1))
        return torch.stack(found, 1), {"h": h, "z": z}

    def step(self, state: State, action: Tensor, generator: torch.Generator | None = None) -> tuple[State, Outcome]:
        h = self.net["cell"](torch.cat([state["z"], action], -1), state["h"])
        p = self.mixture(h)
        z = p.mode() if generator is None else p.sample(generator, self.config.temperature)
        return {"h": h, "z": z}, self.net["heads"].outcome(h)

    def imagine(self, state: State, policy: Policy, steps: int, generator: torch.Generator) -> ImaginedTrajectory:
        return imagine(self, state, policy, steps, generator)

    def decode(self, belief: Tensor) -> Tensor:
        return self.vae.decode(belief[..., self.config.deter :])

    def update(self, batch: Sequences, generator: torch.Generator) -> dict[str, float]:
        """A step of the VAE, then one of M; nats per step."""
        return self.learn(batch, generator)[0]

    def learn(self, batch: Sequences, generator: torch.Generator, rate: float = 1.0) -> tuple[dict[str, float], State]:
        """L = -ln p(z_{t+1} | h') - ln p(r_t | h', goes on or not) - ln p(goes on or not | h'),  h' = h_{t+1}

        z is drawn from q, which has no gradient.
        Where an episode ends there is no next z to predict. States are those before the update of M.
        """
        one_thread_each()
        o, (obs, action, reward, terminated, is_first) = self.config, tensors(batch, self.actions)
        metrics: dict[str, float] = {}
        if not o.settle or self.vae.autoencoder.parameters.steps < o.settle:
            metrics = {f"vae/{name}": value for name, value in self.vae.update(obs.flatten(0, 1), generator, rate).items()}
        with torch.no_grad():
            z = self._codes(obs).sample(generator)  # (B, L, size)
        h, kept, after = torch.zeros(len(obs), o.deter), [], []
        for t in range(reward.shape[1]):
            h = h.masked_fill(is_first[:, t, None], 0.0)
            kept.append(h)
            h = self.net["cell"](torch.cat([z[:, t], action[:, t]], -1), h)
            after.append(h)
        led_to = torch.stack(after, 1)  # h_{t+1}, (B, L, deter)
        known = (~is_first[:, 1:]).float()
        surprise = -self.mixture(led_to[:, :-1]).log_prob(z[:, 1:])
        mixture_loss = (surprise * known).sum() / known.sum().clamp_min(1.0)
        reward_loss, going_loss = (part.mean() for part in self.net["heads"].loss(led_to, reward, terminated))
        loss = mixture_loss + reward_loss + going_loss
        self.optimiser.zero_grad()
        loss.backward()
        norm = self.optimiser.step(rate * o.learning_rate, o.max_grad_norm)
        found = {"loss": loss, "loss/mixture": mixture_loss, "loss/reward": reward_loss, "loss/continue": going_loss}
        metrics |= {name: value.item() for name, value in found.items()} | {"grad_norm": norm}
        return metrics, {"h": torch.stack(kept, 1).detach(), "z": z}

    def posterior(self, batch: Sequences, generator: torch.Generator | None = None) -> State:
        obs, action, _, _, is_first = tensors(batch, self.actions)
        is_first[:, 0] = True
        with torch.no_grad():
            features, _ = self.sequence(obs, before(action), is_first, self.initial(len(obs)), generator)
        h, z = features.split([self.config.deter, self.config.size], -1)
        return {"h": h, "z": z}

    def _codes(self, obs: Tensor) -> Gaussian:
        """q(z | x) of observations (B, T, *shape): both (B, T, size)."""
        q = self.vae.posterior(obs.flatten(0, 1))
        return Gaussian(*(part.detach().unflatten(0, obs.shape[:2]) for part in q))

    def state_dict(self) -> dict[str, Array]:
        parts = {"memory": self.optimiser.parameters.state(), "vae": self.vae.state_dict()}
        return {f"{part}.{name}": array.copy() for part, found in parts.items() for name, array in found.items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "world model mdn-gru")
        for part, load in (("memory", self.optimiser.parameters.load), ("vae", self.vae.load_state_dict)):
            load({name.removeprefix(f"{part}."): array for name, array in state.items() if name.startswith(f"{part}.")})
