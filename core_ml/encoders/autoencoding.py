"""Networks from observations to numbers and back: what autoencoder, VAE and VQ-VAE share, for three kinds of observation."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig
from ..distributions import Gaussian
from ..maths.normalise import RunningNormaliser
from ..nets.layers import ACTIVATIONS, mlp, small_cnn
from ..observations import Observation
from ..optim.adam import FlatAdam
from ..optim.parallel import keep_memory, one_thread_each
from ..optim.parameters import Parameters

Kind = Literal["auto", "gaussian", "bernoulli", "categorical"]


class AutoencoderConfig(ComponentConfig):
    """Options of both networks and of what is said about observations."""

    network: Literal["auto", "mlp", "cnn"] = Field("auto", description="auto: cnn from 1,024 cells on, else mlp")
    hidden: tuple[int, ...] = Field((128,), description="full layers, in the encoder; mirrored in the decoder")
    channels: int = Field(16, ge=1, le=512, description="of each convolution")
    activation: Literal["relu", "tanh"] = Field("relu", description="behind each layer but the last")
    grid_input: Literal["one-hot", "scaled"] = Field(
        "one-hot", description="a grid as planes of 0 and 1, or code / largest code"
    )
    likelihood: Kind = Field("auto", description="of observations given a code; auto: categorical for grids, else gaussian")
    sigma: float = Field(0.05, gt=0, description="deviation of the gaussian; vectors are standardised, images and grids 0 to 1")
    normalise: bool = Field(True, description="subtract the mean of all that were learned from, divide by their deviation")
    learning_rate: float = Field(2e-3, gt=0, description="of Adam")
    max_grad_norm: float = Field(0.0, ge=0, description="gradients are cut to this norm; 0: never")


class Likelihood(NamedTuple):
    """p(obs | what the decoder says). Targets are `Observation.rows`, standardised where they are vectors.

    gaussian: decoder gives means, deviation `sigma` is fixed. bernoulli: logits of a pixel being on; what is between off and
    on counts as a probability. categorical: logits for each cell over its codes.
    """

    kind: Kind
    observation: Observation
    sigma: float

    @classmethod
    def of(cls, kind: Kind, observation: Observation, sigma: float) -> Likelihood:
        if kind == "auto":
            kind = "categorical" if observation.kind == "grid" else "gaussian"
        if (kind == "categorical" and observation.kind != "grid") or (kind == "bernoulli" and observation.kind == "vector"):
            raise ValueError(f"likelihood {kind} for a {observation.kind}: take likelihood=auto")
        return cls(kind, observation, sigma)

    @property
    def one_hot(self) -> bool:
        return self.kind == "categorical"

    def log_prob(self, outputs: Tensor, target: Tensor) -> Tensor:
        """ln p(target | outputs) in nats, summed over an observation's numbers; both (B, C H W), result (B,)."""
        if self.kind == "gaussian":
            return Gaussian(outputs, outputs.new_tensor(self.sigma).log()).log_prob(target)
        if self.kind == "bernoulli":
            return -binary_cross_entropy_with_logits(outputs, target, reduction="none").sum(-1)
        log_p = self._cells(outputs).log_softmax(-1)
        return (log_p * self._cells(target)).sum((-2, -1))  # targets are one-hot: several times faster than argmax and gather

    def mean(self, outputs: Tensor) -> Tensor:
        """What `Observation.unrows` makes the likeliest observation of, (B, C H W)."""
        return outputs.sigmoid() if self.kind == "bernoulli" else outputs

    def base(self, mean: Tensor) -> Tensor:
        """Outputs that say `mean` (C H W), the average of what `log_prob` takes as targets."""
        if self.kind == "gaussian":
            return mean
        mean = mean.clamp(1e-3, 1 - 1e-3)
        return mean.log() if self.one_hot else mean.logit()

    def _cells(self, rows: Tensor) -> Tensor:
        """(B, K codes H W) -> (B, K H W, codes)."""
        k = self.observation.planes(False)[0]
        return rows.reshape(len(rows), k, self.observation.codes, -1).transpose(2, 3).flatten(1, 2)


class AutoencoderModule:
    """Encoder and decoder with their optimiser. `code` numbers go into the decoder, `features` come out of the encoder.

    Parameters begin orthogonal, from `seed` alone; outputs of both networks begin small.
    """

    def __init__(self, config: AutoencoderConfig, observation: Observation, code: int, features: int, seed: int) -> None:
        keep_memory()
        self.config, self.observation = config, observation
        self.likelihood = Likelihood.of(config.likelihood, observation, config.sigma)
        with torch.device("meta"):  # no draws from torch's global generator
            model = networks(config, observation, code, features, self.likelihood.one_hot)
        self.model = model.to_empty(device="cpu")
        parameters = Parameters({name: tuple(p.shape) for name, p in self.model.named_parameters()})
        parameters.initialise(np.random.default_rng(seed))
        for net, gain in (("encoder", 0.5), ("decoder", 0.1)):
            last = [name for name in parameters.shapes if name.startswith(net)][-2]  # the weight of its last layer
            parameters.views(parameters.flat)[last] *= gain
        self.parameters, self.optimiser = parameters, FlatAdam(self.model, parameters=parameters)
        channels, h, w = observation.planes(config.grid_input == "one-hot")
        self.normaliser = RunningNormaliser(channels * h * w) if config.normalise else None
        self.scale: Tensor | None = None  # float32 (2, C H W): what to subtract, then what to multiply by
        self.base: Tensor | None = None  # float32 (C' H W): what a decoder that says nothing means

    def rows(self, obs: Tensor) -> Tensor:
        """obs (B, *shape) -> float32 (B, C H W): what the encoder reads.

        With `normalise`, vectors are standardised number by number. Images and grids are centred, and divided by one deviation
        for all their numbers: what moves in them is often one pixel, which a network hardly sees before a large constant.
        """
        one_thread_each()
        return self._scaled(self.observation.rows(obs, self.config.grid_input == "one-hot"))

    def encode(self, obs: Tensor) -> Tensor:
        """obs (B, *shape) -> (B, features)."""
        features: Tensor = self.model["encoder"](self.rows(obs))
        return features

    def decode(self, code: Tensor) -> Tensor:
        """code (B, code) -> the likeliest observations, (B, *shape)."""
        one_thread_each()
        mean = self.likelihood.mean(self._outputs(code))
        if self.scale is not None and self.observation.kind == "vector":
            mean = mean / self.scale[1] + self.scale[0]
        return self.observation.unrows(mean, self.likelihood.one_hot)

    def log_prob(self, code: Tensor, obs: Tensor) -> Tensor:
        """ln p(obs | code) in nats, (B,); for vectors that of standardised numbers."""
        target = self.observation.rows(obs, self.likelihood.one_hot)
        if self.observation.kind == "vector":
            target = self._scaled(target)
        return self.likelihood.log_prob(self._outputs(code), target)

    def update_statistics(self, obs: Tensor) -> None:
        """Count `obs` in mean and deviation of what the encoder reads, unless a number in it is not finite."""
        rows = self.observation.rows(obs, self.config.grid_input == "one-hot")
        if self.normaliser and rows.isfinite().all():
            self.normaliser.update(rows.numpy())
            self._measure()

    def step(self, loss: Tensor, rate: float = 1.0) -> float:
        """One step of Adam, of `rate` times its learning rate, down the gradient of `loss`; the gradient's norm. A gradient
        that is not finite changes nothing."""
        self.optimiser.zero_grad()
        loss.backward()
        return self.optimiser.step(rate * self.config.learning_rate, self.config.max_grad_norm)

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows if self.scale is None else ((rows - self.scale[0]) * self.scale[1]).clamp(-10.0, 10.0)

    def _outputs(self, code: Tensor) -> Tensor:
        outputs: Tensor = self.model["decoder"](code)
        return outputs if self.base is None else outputs + self.base

    def _measure(self) -> None:
        """What follows from the normaliser: the encoder's scale, and for images and grids the average observation, to which the
        decoder adds what is different in this one."""
        normaliser = self.normaliser
        scale = normaliser.scale() if normaliser else None
        if normaliser and scale is not None and self.observation.kind != "vector":
            scale[1] = max(normaliser.square.mean() / normaliser.count, 1e-12) ** -0.5
        self.scale = None if scale is None else torch.from_numpy(scale)
        as_read = self.likelihood.one_hot == (self.config.grid_input == "one-hot") or self.observation.kind == "image"
        vector = self.observation.kind == "vector"  # whose target is standardised already
        self.base = self.likelihood.base(self.scale[0]) if self.scale is not None and as_read and not vector else None

    def state(self) -> dict[str, Array]:
        """Everything as arrays by name, copied."""
        normaliser = self.normaliser.state() if self.normaliser else {}
        state = self.parameters.state() | {f"normaliser.{name}": array for name, array in normaliser.items()}
        return {name: array.copy() for name, array in state.items()}

    def load(self, state: dict[str, Array]) -> None:
        """Put back what `state` gave; the component whose part this is has checked it."""
        self.parameters.load(state)
        if self.normaliser:
            self.normaliser.load({name.removeprefix("normaliser."): array for name, array in state.items()})
        self._measure()


def networks(config: AutoencoderConfig, observation: Observation, code: int, features: int, one_hot: bool) -> nn.ModuleDict:
    """`encoder` (B, C H W) -> (B, features) and `decoder` (B, code) -> (B, C' H W), C' planes by `one_hot`."""
    channels, h, w = observation.planes(config.grid_input == "one-hot")
    out = observation.planes(one_hot)[0]
    widths, act = config.hidden, ACTIVATIONS[config.activation]
    back = [code, *reversed(widths)]
    if config.network == "mlp" or (config.network == "auto" and (h == 1 or h * w < 1024)):
        trunk = mlp([channels * h * w, *widths], config.activation)
        encoder = nn.Sequential(*trunk, nn.Linear([channels * h * w, *widths][-1], features))
        decoder = nn.Sequential(*mlp(back, config.activation), nn.Linear(back[-1], out * h * w))
        return nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    if not widths:
        raise ValueError("network cnn has a full layer behind its convolutions: hidden needs one number at least")
    c, small = config.channels, (-(-h // 2), -(-w // 2))
    trunk = small_cnn((channels, h, w), c, widths[0], config.activation, stride=2)
    encoder = nn.Sequential(*trunk, *mlp(widths, config.activation), nn.Linear(widths[-1], features))
    decoder = nn.Sequential(
        *mlp([*back, c * small[0] * small[1]], config.activation),
        nn.Unflatten(1, (c, *small)),
        nn.Upsample((h, w)),
        nn.Conv2d(c, c, 3, padding=1), act(),
        nn.Conv2d(c, out, 3, padding=1),
        nn.Flatten(),
    )  # fmt: skip
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})


# ---- methods of encoders whose one trained part is `autoencoder`: a class takes them by name ----


def module_parameters(self: Any) -> int:
    """Numbers that are trained."""
    return int(self.autoencoder.parameters.flat.size)


def module_state(self: Any) -> dict[str, Array]:
    """The state of the autoencoder."""
    state: dict[str, Array] = self.autoencoder.state()
    return state


def load_module_state(self: Any, state: dict[str, Array]) -> None:
    """Put back what `module_state` gave. Raises ValueError where it is another configuration's."""
    check_arrays(state, self.state_dict(), f"encoder {type(self).__name__.lower()}")
    self.autoencoder.load(state)
