"""VQ-VAE: codes that are rows of a codebook (van den Oord et al. 2017, "Neural discrete representation learning")."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...store.arrays import Array, check_arrays
from ..component import component
from ..observations import Observation
from .autoencoding import AutoencoderConfig, AutoencoderModule


@component("encoder", "vq-vae")
class VQVAE:
    """An observation as `positions` tokens, each the number of a row of the codebook; a code is those rows, one after another.

    The encoder says z (B, positions, D); each position takes its nearest row e_k. It learns to minimise
    -ln p(x | e) + commitment ||z - sg(e)||^2, with the gradient of e handed to z; rows are moving averages of the z that chose
    them (appendix A.1 there). A row that hardly anyone chooses begins anew at some z.

    Obs (B, *shape) as `observation` has them, codes float32 (B, positions D), tokens int64 (B, positions).
    """

    class Config(AutoencoderConfig):
        positions: int = Field(8, ge=1, le=1024, description="tokens for an observation")
        code_size: int = Field(8, ge=1, le=1024, description="numbers in a row of the codebook")
        codes: int = Field(64, ge=2, le=65_536, description="rows of the codebook")
        commitment: float = Field(0.25, ge=0, description="weight of the encoder's distance to what it chose")
        decay: float = Field(
            0.9, ge=0, lt=1, description="of the moving averages, per update; too slow, and the encoder runs away"
        )
        revive: float = Field(0.1, ge=0, lt=1, description="a row chosen less often than this share of the average begins anew")

    can_decode: ClassVar[bool] = True

    def __init__(self, config: Config, observation: Observation, seed: int) -> None:
        self.config, self.observation = config, observation
        self.size = config.positions * config.code_size
        self.autoencoder = AutoencoderModule(config, observation, self.size, self.size, seed)
        rng = np.random.default_rng([seed, 1])
        self.codebook = torch.from_numpy(rng.standard_normal((config.codes, config.code_size)).astype(np.float32))
        self.share = torch.full((config.codes,), 1 / config.codes)  # N_i: of all choices, averaged over updates
        self.total = self.codebook / config.codes  # m_i: sum of the z that chose row i, averaged likewise

    def encode(self, obs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The chosen rows, one after another."""
        z = self._z(obs)
        return straight_through(z, self.codebook[nearest(z, self.codebook)]).reshape(-1, self.size)

    def decode(self, code: Tensor) -> Tensor:
        return self.autoencoder.decode(code)

    def tokens(self, obs: Tensor) -> Tensor:
        """obs (B, *shape) -> int64 (B, positions)."""
        return nearest(self._z(obs), self.codebook).view(len(obs), -1)

    def code_of(self, tokens: Tensor) -> Tensor:
        """Tokens (B, positions) -> code (B, size)."""
        return self.codebook[tokens].reshape(len(tokens), self.size)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n observations (n, *shape) for tokens drawn as often as they are chosen, each on its own: whatever ties positions
        together is another model's work."""
        tokens = torch.multinomial(self.share, n * self.config.positions, replacement=True, generator=generator)
        return self.decode(self.code_of(tokens.view(n, -1)))

    def update(self, obs: Tensor, generator: torch.Generator, rate: float = 1.0) -> dict[str, float]:
        """One step of Adam, of `rate` times its learning rate, on B observations, then one of the codebook.

        `perplexity`: how many equally frequent rows would be as surprising as this batch's choices; `live`: share of rows that
        the batch chose; `revived`: how many began anew.
        """
        o, autoencoder = self.config, self.autoencoder
        autoencoder.update_statistics(obs)
        z = self._z(obs)  # (B positions, D)
        if autoencoder.parameters.steps == 0:  # rows begin where codes are
            self._begin(torch.ones(o.codes, dtype=torch.bool), z.detach(), generator)
        tokens = nearest(z, self.codebook)
        e = self.codebook[tokens]
        log_likelihood = autoencoder.log_prob(straight_through(z, e).reshape(len(obs), self.size), obs).mean()
        distance = (z - e).square().sum() / len(obs)
        loss = o.commitment * distance - log_likelihood
        grad_norm = autoencoder.step(loss, rate)

        chosen = torch.nn.functional.one_hot(tokens, o.codes).float()  # (B positions, codes)
        move_codebook(self.codebook, self.share, self.total, z.detach(), chosen, o.decay)
        dead = self.share < o.revive / o.codes
        self._begin(dead, z.detach(), generator)
        p = chosen.mean(0)
        return {
            "loss": loss.item(), "log_likelihood": log_likelihood.item(), "distance": distance.item(),
            "perplexity": perplexity(p), "live": (p > 0).float().mean().item(), "revived": float(dead.sum()),
            "grad_norm": grad_norm,
        }  # fmt: skip

    def _z(self, obs: Tensor) -> Tensor:
        return self.autoencoder.encode(obs).view(-1, self.config.code_size)

    def _begin(self, which: Tensor, z: Tensor, generator: torch.Generator) -> None:
        """Rows `which` (codes,) of the codebook begin at rows of `z` drawn at random, as if chosen averagely often."""
        found = z[torch.randint(len(z), (len(which),), generator=generator)]
        self.codebook[which] = found[which]
        self.share[which] = 1 / len(which)
        self.total[which] = found[which] / len(which)

    @property
    def num_parameters(self) -> int:
        return self.autoencoder.parameters.flat.size

    def state_dict(self) -> dict[str, Array]:
        return self.autoencoder.state() | {name: array.copy() for name, array in self._book().items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "encoder vq_vae")
        self.autoencoder.load(state)
        for name, array in self._book().items():
            array[...] = state[name]

    def _book(self) -> dict[str, Array]:
        return {"codebook": self.codebook.numpy(), "share": self.share.numpy(), "total": self.total.numpy()}


def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """k = argmin_j ||z - e_j||^2 (eq. 1 there) for z (N, D) and codebook (K, D); int64 (N,), the first of equals."""
    with torch.no_grad():
        return (codebook.square().sum(1) - 2 * z @ codebook.T).argmin(1)  # ||z||^2 is the same for every j


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    """e, with the gradient of e handed to z as it is (section 3.2 there)."""
    return e + (z - z.detach())


def move_codebook(codebook: Tensor, share: Tensor, total: Tensor, z: Tensor, chosen: Tensor, decay: float) -> None:
    """One update of the codebook (K, D) by moving averages, in place (appendix A.1 there, but counts as shares of all N).

    N_i <- decay N_i + (1 - decay) n_i / N,  m_i <- decay m_i + (1 - decay) sum_{j chose i} z_j / N,  e_i <- m_i / N_i

    `share` (K,) is N_i, `total` (K, D) is m_i, z (N, D), `chosen` (N, K) one-hot rows.
    """
    share.lerp_(chosen.mean(0), 1 - decay)
    total.lerp_(chosen.T @ z / len(z), 1 - decay)
    codebook.copy_(total / share.clamp(min=1e-12)[:, None])


def perplexity(p: Tensor) -> float:
    """exp(-sum p ln p) of shares p (K,)."""
    return float(torch.special.entr(p).sum().exp())
