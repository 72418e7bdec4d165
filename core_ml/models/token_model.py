"""A world as a language: a VQ-VAE makes tokens of an observation, a causal transformer says which come next (Micheli et al.
2023, "Transformers are sample-efficient world models": IRIS; reward and continue heads at the action, and the features, as in
Zhang et al. 2023, "STORM")."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from ...store.arrays import Array, check_arrays
from ..beliefs.protocol import State, cleared
from ..beliefs.transformer import Transformer
from ..component import component
from ..data.sequences import Sequences
from ..distributions import Categorical
from ..encoders.vq_vae import VQVAE
from ..maths.two_hot import TwoHot
from ..nets.modules import fresh
from ..observations import Observation
from ..optim.adam import FlatAdam
from ..optim.parallel import one_thread_each
from .protocol import ImaginedTrajectory, Outcome, OutcomeHeads, Policy, before, imagine, tensors


@component("model", "tokens")
class TokenModel:
    """What happens as one row of words: x_0^1 .. x_0^P, a_0, x_1^1 .. x_1^P, a_1, ..; x_t^p is token p of observation t.

    The transformer (`Transformer`, with its sliding window of `window` steps) reads word after word. At a_t it says reward and
    continuation of a_t and what x_{t+1}^1 will be, at x_{t+1}^p what x_{t+1}^{p+1} will be: tokens of one observation know of
    each other, so where chance decides between few outcomes, imagination does not mix them. It reads its own tokens.

    State: `h` (B, width), the output at the action before, 0 at an episode's start; `tokens`, int64 (B, P); and the
    transformer's keys, values and age, which make it large: 2 layers window (P + 1) width numbers. Features: h and the tokens'
    rows of the codebook. Tokens are the nearest rows: nothing is sampled but in imagination, and without a generator each
    token is the likeliest after those before it. The VQ-VAE learns from the same batches, one step before the transformer
    does, and with `settle` only at first: a codebook that keeps changing destabilises the
    transformer that predicts its tokens.
    """

    class Config(VQVAE.Config):
        hidden: tuple[int, ...] = Field((64,), description="full layers of the encoder; mirrored in the decoder")
        positions: int = Field(4, ge=1, le=256, description="tokens of an observation, P")
        codes: int = Field(32, ge=2, le=65_536, description="words for observations: rows of the codebook")
        settle: int = Field(0, ge=0, description="updates after which the VQ-VAE stays as it is; 0: never")
        width: int = Field(64, ge=1, le=4096, description="of the transformer; and hidden units of reward and continue heads")
        heads: int = Field(4, ge=1, le=64, description="heads of attention; they share the width")
        layers: int = Field(2, ge=1, le=64, description="of the transformer")
        window: int = Field(8, ge=1, le=4096, description="steps that a layer attends to")
        gate: Literal["residual", "gru"] = Field("residual", description="how a layer joins its input: sum, or gate of GTrXL")
        reward_bins: int = Field(41, ge=3, le=1023, description="of the two-hot code of rewards; odd")
        reward_limit: float = Field(5.0, gt=0, le=20, description="symlog of the largest reward that it can say")
        max_grad_norm: float = Field(100.0, ge=0, description="gradients are cut to this norm; 0: never")

        @model_validator(mode="after")
        def _divisible(self) -> Self:
            if self.width % (2 * self.heads):
                raise ValueError(f"width {self.width} is no even multiple of {self.heads} heads")
            return self

    def __init__(self, config: Config, observation: Observation, action_size: int, seed: int) -> None:
        o = self.config = config
        self.observation, self.actions = observation, action_size
        self.vq = VQVAE(o, observation, seed)
        self.words = o.positions + 1  # of a step, S
        self.size = o.width + self.vq.size
        # A word: which token, which action, and where in its step it stands.
        self.transformer = Transformer(
            Transformer.Config(
                width=o.width, heads=o.heads, layers=o.layers, window=o.window * self.words, gate=o.gate, distances=True
            ), o.codes + action_size + self.words, 0, seed + 1,
        )  # fmt: skip
        two_hot = TwoHot(o.reward_bins, o.reward_limit)

        def build() -> Any:  # nn.ModuleDict, whose parts mypy knows nothing of
            return nn.ModuleDict(
                {"next": nn.Linear(o.width, o.codes), "heads": OutcomeHeads(o.width, o.width, o.activation, two_hot)}
            )

        self.net = fresh(build, seed + 2)
        self.net["heads"].begin()
        with torch.no_grad():
            self.net["next"].weight *= 0.1  # tokens begin equally likely
        self.net["transformer"] = self.transformer.net
        self.optimiser = FlatAdam(self.net)

    def initial(self, n: int) -> State:
        tokens = torch.zeros(n, self.config.positions, dtype=torch.int64)
        return {"h": torch.zeros(n, self.config.width), "tokens": tokens, **self.transformer.initial(n)}

    def features(self, state: State) -> Tensor:
        """[h, code], (B, size)."""
        return torch.cat([state["h"], self.vq.code_of(state["tokens"])], -1)

    def observe(
        self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        features, state = self.sequence(obs.unsqueeze(1), action.unsqueeze(1), is_first.unsqueeze(1), state)
        return features.squeeze(1), state

    def sequence(
        self, obs: Tensor, action: Tensor, is_first: Tensor, state: State, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """Reads a_{t-1}, x_t^1 .. x_t^P for each t. A start clears what is known at x_t^1, the action before it included."""
        one_thread_each()
        b, t = is_first.shape
        tokens = self.vq.tokens(obs.flatten(0, 1)).view(b, t, -1)  # (B, T, P)
        state = cleared(state, is_first[:, 0])
        words = torch.cat([self._acted(action).unsqueeze(2), self._said(tokens)], 2).flatten(1, 2)  # (B, T S, .)
        begins = torch.zeros(b, t, self.words, dtype=torch.bool)
        begins[:, :, 1] = is_first
        out, kept = self._read(words, begins.flatten(1), state)
        h = out.view(b, t, self.words, -1)[:, :, 0].masked_fill(is_first.unsqueeze(-1), 0.0)
        code = self.vq.code_of(tokens.flatten(0, 1)).view(b, t, -1)
        return torch.cat([h, code], -1), {"h": h[:, -1], "tokens": tokens[:, -1], **kept}

    def step(self, state: State, action: Tensor, generator: torch.Generator | None = None) -> tuple[State, Outcome]:
        """Without gradients."""
        kept = {name: part.clone() for name, part in state.items() if name not in ("h", "tokens")}
        with torch.no_grad():
            h = out = self._word(self._acted(action), kept)
            tokens: list[Tensor] = []
            for p in range(self.config.positions):
                said = Categorical.of(self.net["next"](out))
                tokens.append(said.mode() if generator is None else said.sample(generator))
                out = self._word(self._said(tokens[-1].unsqueeze(1), p).squeeze(1), kept)
            outcome = self.net["heads"].outcome(h)
        return {"h": h, "tokens": torch.stack(tokens, 1), **kept}, outcome

    def imagine(self, state: State, policy: Policy, steps: int, generator: torch.Generator) -> ImaginedTrajectory:
        return imagine(self, state, policy, steps, generator)

    def decode(self, belief: Tensor) -> Tensor:
        return self.vq.decode(belief[..., self.config.width :])

    def update(self, batch: Sequences, generator: torch.Generator, rate: float = 1.0) -> dict[str, float]:
        """A step of the VQ-VAE, then one of the transformer; nats per step.

        L = - sum_p ln p(x_{t+1}^p | words before) - ln p(r_t | .. a_t, goes on or not) - ln p(goes on or not | .. a_t)

        The first observation of an episode is not predicted, nor is that of a sequence from the middle of one.
        """
        one_thread_each()
        o, (obs, action, reward, terminated, is_first) = self.config, tensors(batch, self.actions)
        b, steps = reward.shape
        metrics: dict[str, float] = {}
        if not o.settle or self.vq.autoencoder.parameters.steps < o.settle:
            metrics = {f"vq/{name}": value for name, value in self.vq.update(obs.flatten(0, 1), generator, rate).items()}
        with torch.no_grad():
            tokens = self.vq.tokens(obs.flatten(0, 1)).view(b, steps, -1)  # (B, L, P)
        words = torch.cat([self._said(tokens), self._acted(action).unsqueeze(2)], 2).flatten(1, 2)  # (B, L S, .)
        begins = torch.zeros(b, steps, self.words, dtype=torch.bool)
        begins[:, :, 0] = is_first
        out, _ = self._read(words, begins.flatten(1), self.transformer.initial(b))  # (B, L S, width)

        ahead = out[:, o.positions : -1].view(b, steps - 1, self.words, -1)[:, :, :-1]  # at a_t, x_{t+1}^1 .. x_{t+1}^{P-1}
        surprise = cross_entropy(self.net["next"](ahead).flatten(0, 2), tokens[:, 1:].flatten(), reduction="none")
        known = (~is_first[:, 1:]).float()
        token_loss = (surprise.view(b, steps - 1, -1).sum(-1) * known).sum() / known.sum().clamp_min(1.0)
        acted = out.view(b, steps, self.words, -1)[:, :, -1]
        reward_loss, going_loss = (part.mean() for part in self.net["heads"].loss(acted, reward, terminated))
        loss = token_loss + reward_loss + going_loss
        self.optimiser.zero_grad()
        loss.backward()
        norm = self.optimiser.step(rate * o.learning_rate, o.max_grad_norm)
        found = {"loss": loss, "loss/tokens": token_loss, "loss/reward": reward_loss, "loss/continue": going_loss}
        return metrics | {name: value.item() for name, value in found.items()} | {"grad_norm": norm}

    def learn(self, batch: Sequences, generator: torch.Generator, rate: float = 1.0) -> tuple[dict[str, float], State]:
        """`update`, and the states by the model after it."""
        return self.update(batch, generator, rate), self.posterior(batch)

    def posterior(self, batch: Sequences, generator: torch.Generator | None = None) -> State:
        obs, action, _, _, is_first = tensors(batch, self.actions)
        is_first[:, 0] = True
        previous, state = before(action), self.initial(len(obs))
        found = []
        with torch.no_grad():
            for t in range(is_first.shape[1]):
                _, state = self.sequence(obs[:, t, None], previous[:, t, None], is_first[:, t, None], state)
                found.append(state)
        return {name: torch.stack([state[name] for state in found], 1) for name in state}

    def _said(self, tokens: Tensor, place: int = 0) -> Tensor:
        """Tokens (..., J), the first of them at `place` of its step, as words (..., J, D)."""
        where = torch.eye(self.words)[place : place + tokens.shape[-1]].expand(*tokens.shape, -1)
        nothing = torch.zeros(*tokens.shape, self.actions)
        return torch.cat([one_hot(tokens, self.config.codes).float(), nothing, where], -1)

    def _acted(self, action: Tensor) -> Tensor:
        """Actions (..., K) as words (..., D)."""
        where = torch.eye(self.words)[-1].expand(*action.shape[:-1], -1)
        return torch.cat([action.new_zeros(*action.shape[:-1], self.config.codes), action, where], -1)

    def _read(self, words: Tensor, begins: Tensor, state: State) -> tuple[Tensor, State]:
        """Words (B, J, D) -> outputs (B, J, width), the transformer's state after them."""
        nothing = words.new_zeros(*words.shape[:2], 0)
        known = {name: part for name, part in state.items() if name not in ("h", "tokens")}
        return self.transformer.sequence(words, nothing, begins, known)

    def _word(self, word: Tensor, kept: State) -> Tensor:
        """One word (B, D) within `kept` -> output (B, width)."""
        begins = torch.zeros(len(word), dtype=torch.bool)
        return self.transformer.observe_(word, word.new_zeros(len(word), 0), begins, kept)

    def state_dict(self) -> dict[str, Array]:
        parts = {"memory": self.optimiser.parameters.state(), "vq": self.vq.state_dict()}
        return {f"{part}.{name}": array.copy() for part, found in parts.items() for name, array in found.items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "world model tokens")
        for part, load in (("memory", self.optimiser.parameters.load), ("vq", self.vq.load_state_dict)):
            load({name.removeprefix(f"{part}."): array for name, array in state.items() if name.startswith(f"{part}.")})
